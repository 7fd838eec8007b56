"""Signals: rows that an application writes with its data, and that the SignalBus relay sends.

See `SignalBus` for what to call, and `signalbus.model` for what a mapped class may say about itself.
"""

from .model import ModelError, SignalMixin, signal

__all__ = ["ModelError", "SignalMixin", "signal"]
