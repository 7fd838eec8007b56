/// <reference path="./interfaces/signalbus-plugin-bulk-sender.d.ts" />
/// <reference path="./interfaces/signalbus-plugin-config.d.ts" />
/// <reference path="./interfaces/signalbus-plugin-log.d.ts" />
/// <reference path="./interfaces/signalbus-plugin-producer.d.ts" />
/// <reference path="./interfaces/signalbus-plugin-types.d.ts" />
declare module 'signalbus:plugin/bulk-sender-plugin@0.1.1' {
  export type * as SignalbusPluginConfig010 from 'signalbus:plugin/config@0.1.1'; // import signalbus:plugin/config@0.1.1
  export type * as SignalbusPluginLog010 from 'signalbus:plugin/log@0.1.1'; // import signalbus:plugin/log@0.1.1
  export type * as SignalbusPluginProducer010 from 'signalbus:plugin/producer@0.1.1'; // import signalbus:plugin/producer@0.1.1
  export type * as SignalbusPluginTypes010 from 'signalbus:plugin/types@0.1.1'; // import signalbus:plugin/types@0.1.1
  export * as bulkSender from 'signalbus:plugin/bulk-sender@0.1.1'; // export signalbus:plugin/bulk-sender@0.1.1
}
