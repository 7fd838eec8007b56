"""Signals: rows that an application writes with its data, and that the SignalBus relay sends.

See `SignalBus` for what to call, and `signalbus.model` for what a mapped class may say about itself.
"""

from .bus import SignalBus
from .model import ModelError, SignalMixin, signal
from .procedures import (
    atomic,
    execute_atomic,
    get_instance,
    get_pk_values,
    lock_instance,
    modify,
    retry_on_integrity_error,
)
from .relay import Flushed, FlushError, RelayError
from .retry import DBSerializationError, Retry

__all__ = [
    "DBSerializationError",
    "FlushError",
    "Flushed",
    "ModelError",
    "RelayError",
    "Retry",
    "SignalBus",
    "SignalMixin",
    "atomic",
    "execute_atomic",
    "get_instance",
    "get_pk_values",
    "lock_instance",
    "modify",
    "retry_on_integrity_error",
    "signal",
]
