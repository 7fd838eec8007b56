/// <reference path="./signalbus-plugin-types.d.ts" />
declare module 'signalbus:plugin/log@0.1.1' {
  /**
   * Whether records of this level are kept.
   */
  export function enabled(level: Level): boolean;
  export function emit(level: Level, message: string, fields: Attributes): void;
  export type Attributes = import('signalbus:plugin/types@0.1.1').Attributes;
  /**
   * # Variants
   * 
   * ## `"trace"`
   * 
   * ## `"debug"`
   * 
   * ## `"info"`
   * 
   * ## `"warn"`
   * 
   * ## `"error"`
   */
  export type Level = 'trace' | 'debug' | 'info' | 'warn' | 'error';
}
