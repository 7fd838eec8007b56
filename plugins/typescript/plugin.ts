// Publishes each row as one JSON message.

import { get, getSecret } from "signalbus:plugin/config@0.1.1";
import { emit } from "signalbus:plugin/log@0.1.1";
import { publish } from "signalbus:plugin/producer@0.1.1";
import type {
  Message,
  Outage,
  Outcome,
  Signal,
  SignalType,
  Value,
} from "signalbus:plugin/types@0.1.1";

const DEMANDED = "the row asks for it";

const utf8 = new TextEncoder();

export const bulkSender: typeof import("signalbus:plugin/bulk-sender@0.1.1") = {
  sendSignalbusMessages(signalType: SignalType, signals: Signal[]): Outcome[] {
    try {
      return send(signalType, signals);
    } catch (error) {
      if (isCrash(error)) {
        // The relay shows its message, but not where it happened.
        console.error(
          `${error}\n${error.stack?.trimEnd().replace(/^/gm, "  ")}`,
        );
      }
      throw error;
    }
  },
};

/** An outage is no crash; that of the bus is the payload of an error. */
function isCrash(error: unknown): error is Error {
  return Error.isError(error) && !("payload" in error);
}

function send(signalType: SignalType, signals: Signal[]): Outcome[] {
  const connection = get("connection");
  if (connection === undefined) {
    throw {
      tag: "misconfigured",
      val: 'setting "connection" is missing',
    } satisfies Outage;
  }
  const destination = get("destination") ?? signalType.name;
  const headers: [string, string][] = [["signal-type", signalType.name]];
  const token = getSecret("token");
  if (token !== undefined) {
    headers.push(["token", token]);
  }
  const keys = signalType.columns.map((column) => JSON.stringify(column.name));
  const toMessage = ({ id, values }: Signal): Message => ({
    connection,
    destination,
    contentType: "application/json",
    headers,
    body: utf8.encode(toJson(keys, values)),
    id,
    options: [],
  });

  // An outage answers for all rows, so every row is decided before any is published.
  const position = outcomeColumn(signalType);
  const demands = signals.map(({ values }) => decide(values[position]));
  const messages = signals
    .filter((_, row) => demands[row] === undefined)
    .map(toMessage);
  const answers = publishAll(messages);
  if (messages.length > 0) {
    emit("info", "published", [
      ["signals", String(messages.length)],
      ["destination", destination],
    ]);
  }
  let next = 0;
  return demands.map((demand) => demand ?? answers[next++]!);
}

function publishAll(messages: Message[]): Outcome[] {
  if (messages.length === 0) {
    return [];
  }
  const outcomes = publish(messages);
  if (outcomes.length !== messages.length) {
    throw new Error(
      `${outcomes.length} outcomes for ${messages.length} messages`,
    );
  }
  return outcomes;
}

/** The position of the column that the setting names; -1 if it names none. */
function outcomeColumn({ columns }: SignalType): number {
  const name = get("outcome_column");
  const position = columns.findIndex((column) => column.name === name);
  if (name !== undefined && position < 0) {
    throw {
      tag: "misconfigured",
      val: 'setting "outcome_column" names an unknown column',
    } satisfies Outage;
  }
  return position;
}

/** The outcome that a row demands; undefined stands for a row to publish. */
function decide(value: Value | undefined): Outcome | undefined {
  switch (value?.tag === "text" ? value.val : undefined) {
    case "skip":
      return { tag: "skip" };
    case "retry":
      return { tag: "retry", val: { reason: DEMANDED, afterMs: 1500n } };
    case "reject":
      return { tag: "reject", val: DEMANDED };
    case "unavailable":
      throw {
        tag: "unavailable",
        val: { reason: DEMANDED, afterMs: 1500n },
      } satisfies Outage;
    case "misconfigured":
      throw { tag: "misconfigured", val: DEMANDED } satisfies Outage;
    case "panic":
      throw new Error(DEMANDED);
    default:
      return undefined;
  }
}

function toJson(keys: string[], values: Value[]): string {
  return `{${keys.map((key, column) => `${key}:${valueToJson(values[column]!)}`).join(",")}}`;
}

function valueToJson(value: Value): string {
  switch (value.tag) {
    case "null":
      return "null";
    case "int64": // A BigInt, which JSON.stringify refuses.
      return value.val.toString();
    case "json":
      return value.val;
    case "bytes":
      return `"${value.val.toBase64()}"`;
    default:
      return JSON.stringify(value.val);
  }
}
