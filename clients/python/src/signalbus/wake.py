"""Wakes the relay, from a thread of its own."""

from __future__ import annotations

import atexit
import http.client
import logging
import os
import threading
import time
import weakref
from collections.abc import Iterable
from urllib.parse import quote, urlsplit

__all__ = ["Waker"]

logger = logging.getLogger("signalbus")

#: Seconds. What is woken within `PAUSE` after a request goes into the next one.
PAUSE, TIMEOUT, COMPLAINT, AT_EXIT = 0.005, 2.0, 60.0, 0.5


class Waker:
    """Tells a relay's admin listener that there are new signals: `POST /api/v1/wake?signal=NAME`.

    `wake` only notes the names: it never waits and never fails. A relay that cannot be reached finds the signals by
    itself at its next look; that it could not be reached is logged, at most once a minute.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        self._address = urlsplit(url)
        if self._address.scheme not in ("http", "https") or not self._address.hostname:
            raise ValueError(f'the relay\'s address "{url}" should look like http://127.0.0.1:9464')
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._begin()
        _wakers.add(self)

    def wake(self, names: Iterable[str]) -> None:
        """Has the relay look for signals of these types, soon."""
        with self._changed:
            self._waiting.update(names)
            if self._thread is None:
                self._start()
            self._changed.notify_all()

    def wait(self, timeout: float) -> bool:
        """Waits until the relay was told of everything, `timeout` seconds at most. Returns whether it was."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._busy, timeout)

    def _begin(self) -> None:
        """A process that was forked has none of its parent's threads, and must not use its connection."""
        self._changed = threading.Condition()
        self._waiting: set[str] = set()
        self._busy = False
        self._thread: threading.Thread | None = None
        self._connection: http.client.HTTPConnection | None = None
        self._complained = -COMPLAINT

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="signalbus-wake", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            self._waiting.clear()
            self._complain(error)
        else:
            self._thread = thread

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting)
                names, self._waiting, self._busy = self._waiting, set(), True
            try:
                self._tell(sorted(names))
            except Exception as error:  # whatever it is: the thread goes on
                self._complain(error)
            time.sleep(PAUSE)

    def _tell(self, names: list[str]) -> None:
        for name in names:
            status = self._post(f"{self._address.path.rstrip('/')}/api/v1/wake?signal={quote(name, safe='')}")
            if status != 200:
                self._complain(f'"{name}": status {status}')

    def _post(self, path: str) -> int:
        """Posts over the connection that is open; if the relay has closed it meanwhile, over a new one."""
        for first in (True, False):
            opened = self._connection is None
            connection = self._connection = self._connection or self._connect()
            try:
                connection.request("POST", path, headers={"Content-Length": "0", **self._headers})
                response = connection.getresponse()
                response.read()
                return response.status
            except (OSError, http.client.HTTPException):
                connection.close()
                self._connection = None
                if opened or not first:
                    raise
        raise AssertionError("unreachable")

    def _connect(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._address.scheme == "https" else http.client.HTTPConnection
        return kind(self._address.hostname or "", self._address.port, timeout=TIMEOUT)

    def _complain(self, reason: object) -> None:
        if time.monotonic() - self._complained >= COMPLAINT:
            self._complained = time.monotonic()
            logger.warning("the relay was not woken, and finds the signals at its next look: %s", reason)


_wakers: weakref.WeakSet[Waker] = weakref.WeakSet()


def _at_exit() -> None:
    """A program that commits and ends still wakes the relay."""
    end = time.monotonic() + AT_EXIT
    for waker in list(_wakers):
        waker.wait(max(0.0, end - time.monotonic()))


def _after_fork() -> None:
    for waker in list(_wakers):
        waker._begin()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
