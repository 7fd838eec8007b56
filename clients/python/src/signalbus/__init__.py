"""Signals: rows that an application writes with its data, and that the SignalBus relay sends.

See `SignalBus` for what to call, and `signalbus.model` for what a mapped class may say about itself.
"""

from .bus import SignalBus
from .model import ModelError, SignalMixin, signal
from .relay import Flushed, FlushError, RelayError

__all__ = ["FlushError", "Flushed", "ModelError", "RelayError", "SignalBus", "SignalMixin", "signal"]
