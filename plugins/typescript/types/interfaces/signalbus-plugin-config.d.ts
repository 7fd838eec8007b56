declare module 'signalbus:plugin/config@0.1.1' {
  export function get(key: string): string | undefined;
  export function getAll(): Array<[string, string]>;
  /**
   * The host logs that a secret was read, but never its value.
   */
  export function getSecret(key: string): string | undefined;
}
