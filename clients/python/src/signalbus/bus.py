"""The application's end of the relay."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Mapper

from . import commits
from .model import ModelError, is_signal, name_of, signal_mappers, types_by_table
from .relay import RelayCommand
from .wake import Waker

__all__ = ["SignalBus"]

logger = logging.getLogger("signalbus")


class SignalBus:
    """Wakes the relay after commits, and runs its command.

    models
        A declarative base, its registry, or a Flask-SQLAlchemy extension.
    relay_url
        The relay's admin listener, as in `http://127.0.0.1:9464`; by default `$SIGNALBUS_RELAY_URL`. Without it, nobody
        is woken, and the relay finds the signals by itself.
    token
        The relay's `admin.token`; by default `$SIGNALBUS_TOKEN`.
    command, config
        The relay's command (by default `$SIGNALBUS_COMMAND` or `signalbus`), and its configuration (by default
        `$SIGNALBUS_CONFIG` or `signalbus.toml`), for the flush methods.
    """

    def __init__(
        self,
        models: Any,
        *,
        relay_url: str | None = None,
        token: str | None = None,
        command: str | None = None,
        config: str | None = None,
    ) -> None:
        self._models = models
        self._types: Mapping[Any, frozenset[str]] | None = None
        # There may be more mapped classes later.
        event.listen(Mapper, "after_configured", self._forget_types)
        self._autoflush = True
        self.configure(relay_url, token, command, config)

    def configure(
        self,
        relay_url: str | None = None,
        token: str | None = None,
        command: str | None = None,
        config: str | None = None,
    ) -> None:
        """Says anew where the relay and its command are. The parameters are those of the constructor."""
        url = relay_url or os.environ.get("SIGNALBUS_RELAY_URL")
        self.waker = Waker(url, token or os.environ.get("SIGNALBUS_TOKEN")) if url else None
        self.command = RelayCommand(command or os.environ.get("SIGNALBUS_COMMAND", "signalbus"), config)

    @property
    def autoflush(self) -> bool:
        """Whether commits wake the relay. (A relay that runs looks by itself, too: every 5 seconds at least.)"""
        return self._autoflush

    @autoflush.setter
    def autoflush(self, value: object) -> None:
        self._autoflush = bool(value)

    def watch(self, engine: Engine | AsyncEngine) -> Callable[[], None]:
        """From now on, wakes the relay after the commits of this engine's connections and sessions.

        Returns a function that ends it.
        """
        return commits.watch(
            engine.sync_engine if isinstance(engine, AsyncEngine) else engine, self._by_table, self.wake
        )

    def wake(self, names: Iterable[str]) -> None:
        """Has the relay look for signals of these types now. Returns at once."""
        if self.waker is not None and self.autoflush:
            self.waker.wake(names)

    def get_signal_models(self) -> list[type]:
        """All signal types, in the order in which their tables were defined."""
        return [mapper.class_ for mapper in signal_mappers(self._models)]

    def flush(self, models: Sequence[type] | None = None, wait: float = 3.0) -> int:
        """Sends what is pending now, after `wait` seconds that let faster senders go first.

        Returns how many signals were sent. Raises `FlushError` if some were not; the others are sent all the same.
        """
        return self._flush(models, "flush", wait)

    def flushmany(self, models: Sequence[type] | None = None) -> int:
        """Sends a huge backlog. Several processes can do so at once."""
        return self._flush(models, "flushmany", None)

    def flushordered(self, models: Sequence[type] | None = None) -> int:
        """Sends what is pending, in the order of `signalbus_order_by`."""
        return self._flush(models, "flushordered", None)

    def _flush(self, models: Sequence[type] | None, method: str, wait: float | None) -> int:
        if wait is not None and wait < 0:
            raise ValueError("`wait` must not be negative")
        chosen = self.get_signal_models() if models is None else list(models)
        for model in chosen:
            if not is_signal(model):
                raise RuntimeError(f"{model.__name__} can not be flushed because it is not a signal type")
        return (
            self.command.flush([name_of(model) for model in chosen], method=method, wait=wait).processed
            if chosen
            else 0
        )

    def _by_table(self) -> Mapping[Any, frozenset[str]]:
        if self._types is None:
            try:
                self._types = types_by_table(self._models)
            except ModelError as error:
                # `export` reports it, too; a transaction must not fail for it.
                logger.error("nobody is woken after commits: %s", error)
                self._types = {}
        return self._types

    def _forget_types(self) -> None:
        self._types = None
