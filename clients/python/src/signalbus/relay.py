"""The relay's command, for programs that run it."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

__all__ = ["FlushError", "Flushed", "RelayCommand", "RelayError"]

logger = logging.getLogger("signalbus")


class RelayError(Exception):
    """The relay's command could not be run, or failed. `status` is its exit status, as its manual explains it."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Flushed:
    """What became of the signals that were due."""

    sent: int = 0
    #: There was nothing to send for these; they are done, too.
    skipped: int = 0
    #: Will be tried again.
    deferred: int = 0
    #: Have become dead letters.
    buried: int = 0
    #: What stopped a signal type, by its name.
    errors: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Flushed:
        errors = {part["type"]: part["error"] for part in document["signals"] if part["error"]}
        return cls(document["sent"], document["skipped"], document["deferred"], document["buried"], errors)

    @property
    def processed(self) -> int:
        """Those that are done."""
        return self.sent + self.skipped


class FlushError(RelayError):
    """Something could not be sent. `flushed` says what became of the rest."""

    def __init__(self, flushed: Flushed, status: int) -> None:
        reasons = [f'signal type "{name}": {error}' for name, error in flushed.errors.items()]
        failed = f"sent {flushed.sent}, deferred {flushed.deferred}, buried {flushed.buried}"
        super().__init__("; ".join([*reasons, failed]), status)
        self.flushed = flushed


class RelayCommand:
    """Runs `signalbus`, found as `command`, with the configuration in the file `config`."""

    def __init__(
        self, command: str = "signalbus", config: str | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self.command = command
        self.config = config
        self.environment = environment

    def flush(self, names: Sequence[str], *, method: str = "flush", wait: float | None = None) -> Flushed:
        """Sends what is pending. Raises `FlushError` if something could not be sent."""
        flushed = Flushed()
        status = 0
        for flushed, status in self.rounds(names, method=method, wait=wait):
            pass
        if status != 0:
            raise FlushError(flushed, status)
        return flushed

    def rounds(
        self, names: Sequence[str], *, method: str = "flush", wait: float | None = None, repeat: float | None = None
    ) -> Iterator[tuple[Flushed, int]]:
        """Flushes, again every `repeat` seconds if that is given. Yields each round with the exit status so far.

        A round of many is yielded with the status 0, however it went: the relay goes on.
        """
        options = [] if wait is None else ["--wait", str(max(wait, 0.0))]
        options += [] if repeat is None else ["--repeat", str(max(repeat, 0.0))]
        last: Flushed | None = None
        with self._running(method, "--json", *options, "--", *names) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if last is not None:
                    yield last, 0
                last = Flushed.from_document(json.loads(line))
                if repeat is not None:
                    yield last, 0
                    last = None
            status = process.wait()
        if last is not None:
            yield last, status
        elif status != 0:
            raise RelayError(f"`{self.command} {method}` failed with status {status}", status)

    def pending(self) -> dict[str, int]:
        """How many signals wait, by signal type."""
        with self._running("pending", "--json") as process:
            assert process.stdout is not None
            text = process.stdout.read()
            status = process.wait()
        if status != 0:
            raise RelayError(f"`{self.command} pending` failed with status {status}", status)
        return {signal["type"]: signal["pending"] for signal in json.loads(text)["signals"]}

    @contextmanager
    def _running(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """Runs a command whose errors go where ours go. What stops this program stops the command."""
        words = [self.command, *(["--config", self.config] if self.config else []), *arguments]
        try:
            process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=self.environment)
        except OSError as error:
            raise RelayError(f'cannot run the relay\'s command "{self.command}": {error.strerror}', 127) from error
        with process, _stopping(process):
            yield process


@contextmanager
def _stopping(process: subprocess.Popen[str]) -> Iterator[None]:
    """Passes SIGTERM and SIGINT on, so that the relay finishes the calls in flight and settles them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    stops = (signal.SIGTERM, signal.SIGINT)
    former = {stop: signal.signal(stop, lambda number, _frame: process.send_signal(number)) for stop in stops}
    try:
        yield
    finally:
        for stop, handler in former.items():
            signal.signal(stop, handler)
