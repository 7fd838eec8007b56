"""Publishing to, and consuming from RabbitMQ, with the names of Flask-SignalBus. Needs `pika`.

The relay publishes signals by itself: see its plugin `publish`. These are for an application's own messages.
"""

from .consumer import Consumer, TerminatedConsumption, TerminatedConsumtion
from .publisher import ConnectionError, DeliveryError, Message, MessageProperties, Publisher, TimeoutError

__all__ = [
    "ConnectionError",
    "Consumer",
    "DeliveryError",
    "Message",
    "MessageProperties",
    "Publisher",
    "TerminatedConsumption",
    "TerminatedConsumtion",
    "TimeoutError",
]
