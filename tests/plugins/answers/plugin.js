// @ts-nocheck
// Returns what the setting `answer` says.

import { get } from "signalbus:plugin/config@0.1.1";

function raises(value) {
  throw value;
}

const every = (outcome) => (signals) => signals.map(() => outcome);

const answers = {
  nothing: () => undefined,
  null: () => null,
  text: () => "sent",
  outcome: () => ({ tag: "sent" }),
  texts: every("sent"),
  nothings: every(undefined),
  promises: every(Promise.resolve({ tag: "sent" })),
  "no tag": every({}),
  "unknown tag": every({ tag: "snet" }),
  "retry without record": every({ tag: "retry" }),
  "reason of a number": every({ tag: "reject", val: 5 }),
  "reason of nothing": every({ tag: "retry", val: {} }),
  "delay of a fraction": every({ tag: "retry", val: { reason: "later", afterMs: 1.5 } }),
  "delay of text": every({ tag: "retry", val: { reason: "later", afterMs: "soon" } }),
  "too few": () => [],
  "no outage": () => raises("down"),
  "an outage without tag": () => raises({ reason: "down" }),
  "a promise": async (signals) => every({ tag: "sent" })(signals),
};

export const bulkSender = {
  sendSignalbusMessages(signalType, signals) {
    return (answers[get("answer")] ?? every({ tag: "sent" }))(signals);
  },
};
