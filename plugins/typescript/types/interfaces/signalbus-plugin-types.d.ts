declare module 'signalbus:plugin/types@0.1.1' {
  /**
   * Free-form key/value pairs. Unknown keys must be ignored.
   */
  export type Attributes = Array<[string, string]>;
  /**
   * One SQL value. A type without a case of its own is passed as `other`, in the
   * database's text form; `column.db-type` names the type.
   */
  export type Value = ValueNull | ValueBoolean | ValueInt64 | ValueFloat64 | ValueDecimal | ValueText | ValueBytes | ValueJson | ValueUuid | ValueDate | ValueTime | ValueDatetime | ValueTimestamp | ValueOther;
  /**
   * SQL NULL.
   */
  export interface ValueNull {
    tag: 'null',
  }
  export interface ValueBoolean {
    tag: 'boolean',
    val: boolean,
  }
  /**
   * Any integer that fits into 64 bits, signed.
   */
  export interface ValueInt64 {
    tag: 'int64',
    val: bigint,
  }
  export interface ValueFloat64 {
    tag: 'float64',
    val: number,
  }
  /**
   * Exact numeric: base-10 text, never rounded.
   */
  export interface ValueDecimal {
    tag: 'decimal',
    val: string,
  }
  export interface ValueText {
    tag: 'text',
    val: string,
  }
  export interface ValueBytes {
    tag: 'bytes',
    val: Uint8Array,
  }
  /**
   * A JSON document, as text.
   */
  export interface ValueJson {
    tag: 'json',
    val: string,
  }
  /**
   * Lower-case, hyphenated.
   */
  export interface ValueUuid {
    tag: 'uuid',
    val: string,
  }
  /**
   * `YYYY-MM-DD`.
   */
  export interface ValueDate {
    tag: 'date',
    val: string,
  }
  /**
   * Time of day, `HH:MM:SS[.ffffff]`.
   */
  export interface ValueTime {
    tag: 'time',
    val: string,
  }
  /**
   * Date and time without zone, RFC 3339 without offset.
   */
  export interface ValueDatetime {
    tag: 'datetime',
    val: string,
  }
  /**
   * Instant, RFC 3339 with offset.
   */
  export interface ValueTimestamp {
    tag: 'timestamp',
    val: string,
  }
  export interface ValueOther {
    tag: 'other',
    val: string,
  }
  export interface Column {
    name: string,
    /**
     * The database's own name for the type, e.g. `numeric` or `_int4`.
     */
    dbType: string,
  }
  /**
   * The type of all signals in a call.
   */
  export interface SignalType {
    name: string,
    /**
     * Position `i` describes position `i` of every `signal.values`.
     */
    columns: Array<Column>,
    /**
     * Context from the host: `timeout_ms` is the time limit of this call, `ordered` is `true`
     * if order is guaranteed, `order_key` names the columns (joined with `,`) within whose
     * values it is guaranteed.
     */
    attributes: Attributes,
  }
  /**
   * One pending row.
   */
  export interface Signal {
    /**
     * Printable, stable identity of the row: the idempotency key.
     */
    id: string,
    /**
     * 1 on the first attempt.
     */
    attempt: number,
    values: Array<Value>,
  }
  /**
   * A failure after which another attempt may succeed.
   */
  export interface Retry {
    reason: string,
    /**
     * Earliest useful time of the next attempt, relative to now. Without
     * it, the host's own backoff applies.
     */
    afterMs?: bigint,
  }
  /**
   * What happened to one signal.
   */
  export type Outcome = OutcomeSent | OutcomeSkip | OutcomeRetry | OutcomeReject;
  /**
   * The bus has accepted it: the host deletes the row.
   */
  export interface OutcomeSent {
    tag: 'sent',
  }
  /**
   * There is nothing to send: the host deletes the row, and counts it separately.
   */
  export interface OutcomeSkip {
    tag: 'skip',
  }
  /**
   * Not accepted: the row stays, the attempt is charged.
   */
  export interface OutcomeRetry {
    tag: 'retry',
    val: Retry,
  }
  /**
   * It can never be sent: the host makes it a dead letter.
   */
  export interface OutcomeReject {
    tag: 'reject',
    val: string,
  }
  /**
   * Why a whole call did nothing: none of its signals may be assumed sent, and no
   * attempt is charged.
   */
  export type Outage = OutageUnavailable | OutageMisconfigured;
  /**
   * The bus cannot be reached: the host pauses this signal type.
   */
  export interface OutageUnavailable {
    tag: 'unavailable',
    val: Retry,
  }
  /**
   * An operator must act: the host parks this signal type.
   */
  export interface OutageMisconfigured {
    tag: 'misconfigured',
    val: string,
  }
  /**
   * One message for a bus.
   */
  export interface Message {
    /**
     * Name of a connection in the host's configuration, never an address.
     */
    connection: string,
    /**
     * Topic, subject, stream, queue or exchange.
     */
    destination: string,
    /**
     * Routing key (AMQP), record key (Kafka), and so on.
     */
    key?: string,
    contentType?: string,
    headers: Attributes,
    body: Uint8Array,
    /**
     * De-duplication key, normally `signal.id`.
     */
    id?: string,
    /**
     * Options of one kind of bus, e.g. `amqp.mandatory`.
     */
    options: Attributes,
  }
}
