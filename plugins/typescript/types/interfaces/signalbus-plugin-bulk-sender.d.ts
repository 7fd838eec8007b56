/// <reference path="./signalbus-plugin-types.d.ts" />
declare module 'signalbus:plugin/bulk-sender@0.1.1' {
  /**
   * Entry `i` of the list is the outcome of signal `i`. A list of another length
   * acknowledges nothing.
   */
  export function sendSignalbusMessages(signalType: SignalType, signals: Array<Signal>): Array<Outcome>;
  export type SignalType = import('signalbus:plugin/types@0.1.1').SignalType;
  export type Signal = import('signalbus:plugin/types@0.1.1').Signal;
  export type Outcome = import('signalbus:plugin/types@0.1.1').Outcome;
  export type Outage = import('signalbus:plugin/types@0.1.1').Outage;
}
