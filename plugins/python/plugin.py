"""Publishes each row as one JSON message."""

import json
from base64 import b64encode
from math import isfinite

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import config, log, producer
from wit_world.imports.types import (
    Message,
    Outage_Misconfigured,
    Outage_Unavailable,
    Outcome,
    Outcome_Reject,
    Outcome_Retry,
    Outcome_Skip,
    Retry,
    Signal,
    SignalType,
    Value,
    Value_Bytes,
    Value_Float64,
    Value_Json,
    Value_Null,
    Value_Text,
)

DEMANDED = "the row asks for it"

dumps = json.JSONEncoder(ensure_ascii=False).encode


class BulkSender(exports.BulkSender):
    def send_signalbus_messages(
        self, signal_type: SignalType, signals: list[Signal]
    ) -> list[Outcome]:
        connection = config.get("connection")
        if connection is None:
            raise Err(Outage_Misconfigured('setting "connection" is missing'))
        destination = config.get("destination")
        if destination is None:
            destination = signal_type.name
        headers = [("signal-type", signal_type.name)]
        token = config.get_secret("token")
        if token is not None:
            headers.append(("token", token))

        keys = [dumps(column.name) for column in signal_type.columns]

        def message(signal: Signal) -> Message:
            return Message(
                connection=connection,
                destination=destination,
                key=None,
                content_type="application/json",
                headers=headers,
                body=to_json(keys, signal.values).encode(),
                id=signal.id,
                options=[],
            )

        # An outage answers for all rows, so every row is decided before any is published.
        ordered = ("ordered", "true") in signal_type.attributes
        rows = decide_all(signal_type, signals, ordered)
        outcomes: list[Outcome] = []
        published = 0
        # Where order counts, the bus must accept a message before it sees the next one.
        for chunk in [[row] for row in rows] if ordered else [rows]:
            messages = [message(signal) for signal, demand in chunk if demand is None]
            try:
                answers = iter(publish(messages))
            except Err:
                if published == 0:
                    raise
                break
            published += len(messages)
            outcomes += [demand or next(answers) for _, demand in chunk]
            if ordered and isinstance(outcomes[-1], Outcome_Retry):
                break

        if published > 0:
            fields = [("signals", str(published)), ("destination", destination)]
            log.emit(log.Level.INFO, "published", fields)
        held_back = len(signals) - len(outcomes)
        return outcomes + [Outcome_Retry(Retry("held back", None))] * held_back


def publish(messages: list[Message]) -> list[Outcome]:
    if not messages:
        return []
    outcomes = producer.publish(messages)
    if len(outcomes) != len(messages):
        raise RuntimeError(f"{len(outcomes)} outcomes for {len(messages)} messages")
    return outcomes


def decide_all(
    signal_type: SignalType, signals: list[Signal], ordered: bool
) -> list[tuple[Signal, Outcome | None]]:
    """The rows with the outcomes that they demand; None stands for a row to publish.

    Where order counts, a row to be retried is the last one.
    """
    names = [column.name for column in signal_type.columns]
    position = names.index("outcome") if "outcome" in names else None

    rows: list[tuple[Signal, Outcome | None]] = []
    for signal in signals:
        demand = None if position is None else decide(signal.values[position])
        rows.append((signal, demand))
        if ordered and isinstance(demand, Outcome_Retry):
            break
    return rows


def decide(value: Value) -> Outcome | None:
    match value:
        case Value_Text("skip"):
            return Outcome_Skip()
        case Value_Text("retry"):
            return Outcome_Retry(Retry(DEMANDED, after_ms=1500))
        case Value_Text("reject"):
            return Outcome_Reject(DEMANDED)
        case Value_Text("unavailable"):
            raise Err(Outage_Unavailable(Retry(DEMANDED, after_ms=1500)))
        case Value_Text("misconfigured"):
            raise Err(Outage_Misconfigured(DEMANDED))
        case Value_Text("panic"):
            raise RuntimeError(DEMANDED)
    return None


def to_json(keys: list[str], values: list[Value]) -> str:
    pairs = zip(keys, values, strict=True)
    return "{" + ",".join(f"{key}:{value_to_json(value)}" for key, value in pairs) + "}"


def value_to_json(value: Value) -> str:
    match value:
        case Value_Null():
            return "null"
        case Value_Json(document):
            return document
        case Value_Bytes(data):
            return dumps(b64encode(data).decode())
        case Value_Float64(number) if not isfinite(number):
            return "null"  # JSON has no NaN and no infinity.
        case _:
            return dumps(value.value)
