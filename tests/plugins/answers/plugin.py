"""Returns what the setting `answer` says, or passes it to the relay."""

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import config, producer
from wit_world.imports.types import (
    Message,
    Outcome_Reject,
    Outcome_Retry,
    Outcome_Sent,
    Retry,
)


async def coroutine(signals):
    return [Outcome_Sent() for _ in signals]


def raises(payload):
    raise Err(payload)


def publishes(body):
    message = Message(
        connection="bus",
        destination="orders",
        key=None,
        content_type=None,
        headers=[],
        body=body,
        id=None,
        options=[],
    )
    return producer.publish([message])


ANSWERS = {
    "nothing": lambda signals: None,
    "text": lambda signals: "sent",
    "outcome": lambda signals: Outcome_Sent(),
    "coroutine": coroutine,
    "texts": lambda signals: ["sent" for _ in signals],
    "nothings": lambda signals: [None for _ in signals],
    "classes": lambda signals: [Outcome_Sent for _ in signals],
    "retry without record": lambda signals: [Outcome_Retry("later") for _ in signals],
    "reason of a number": lambda signals: [Outcome_Reject(5) for _ in signals],
    "delay of a fraction": lambda signals: [Outcome_Retry(Retry("later", 1.5)) for _ in signals],
    "negative delay": lambda signals: [Outcome_Retry(Retry("later", -1)) for _ in signals],
    "too few": lambda signals: [],
    "no outage": lambda signals: raises("down"),
    "body of text": lambda signals: publishes("text"),
}


class BulkSender(exports.BulkSender):
    def send_signalbus_messages(self, signal_type, signals):
        answer = config.get("answer")
        return ANSWERS[answer](signals) if answer else [Outcome_Sent() for _ in signals]
