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
        demands = [decide(value) for value in outcome_column(signal_type, signals)]
        rows = list(zip(signals, demands, strict=True))
        messages = [message(signal) for signal, demand in rows if demand is None]
        answers = iter(publish(messages))
        if messages:
            fields = [("signals", str(len(messages))), ("destination", destination)]
            log.emit(log.Level.INFO, "published", fields)
        return [demand or next(answers) for demand in demands]


def publish(messages: list[Message]) -> list[Outcome]:
    if not messages:
        return []
    outcomes = producer.publish(messages)
    if len(outcomes) != len(messages):
        raise RuntimeError(f"{len(outcomes)} outcomes for {len(messages)} messages")
    return outcomes


def outcome_column(signal_type: SignalType, signals: list[Signal]) -> list[Value | None]:
    """The values in the column that the setting names; None if it names none."""
    name = config.get("outcome_column")
    if name is None:
        return [None] * len(signals)
    names = [column.name for column in signal_type.columns]
    if name not in names:
        raise Err(Outage_Misconfigured('setting "outcome_column" names an unknown column'))
    position = names.index(name)
    return [signal.values[position] for signal in signals]


def decide(value: Value | None) -> Outcome | None:
    """The outcome that a row demands; None stands for a row to publish."""
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
