/// <reference path="./signalbus-plugin-types.d.ts" />
declare module 'signalbus:plugin/producer@0.1.1' {
  /**
   * Publishes every message and waits until the bus has confirmed each. The
   * whole list is pipelined: one call costs about one round trip.
   */
  export function publish(messages: Array<Message>): Array<Outcome>;
  export type Message = import('signalbus:plugin/types@0.1.1').Message;
  export type Outcome = import('signalbus:plugin/types@0.1.1').Outcome;
  export type Outage = import('signalbus:plugin/types@0.1.1').Outage;
}
