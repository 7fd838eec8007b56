/// <reference path="./signalbus-plugin-types.d.ts" />
declare module 'signalbus:plugin/bulk-sender@0.1.0' {
  /**
   * Entry `i` of the list is the outcome of signal `i`. A list of another length
   * acknowledges nothing.
   */
  export function sendSignalbusMessages(signalType: SignalType, signals: Array<Signal>): Array<Outcome>;
  export type SignalType = import('signalbus:plugin/types@0.1.0').SignalType;
  export type Signal = import('signalbus:plugin/types@0.1.0').Signal;
  export type Outcome = import('signalbus:plugin/types@0.1.0').Outcome;
  export type Outage = import('signalbus:plugin/types@0.1.0').Outage;
}
