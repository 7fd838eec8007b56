"""Which database errors pass if the transaction is run again, and how often to run it."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy.exc import DBAPIError

__all__ = ["DBSerializationError", "Retry", "get_db_error_code", "is_transient"]

#: SQLSTATE: serialization failure, deadlock.
SQLSTATES = {"40001", "40P01"}
#: MySQL and MariaDB: deadlock; lock wait timeout, which undoes one statement, and the caller the rest; a row that
#: changed since the snapshot (MariaDB with `innodb_snapshot_isolation`).
ERRNOS = {1213, 1205, 1020}
#: SQLite: another connection has the lock, or (shared cache) another one of this process.
SQLITE_CODES = {5, 6}
SQLITE_TEXTS = ("database is locked", "database table is locked", "database schema is locked")


class DBSerializationError(Exception):
    """The transaction has met another one. Raised within an atomic procedure, it runs the procedure again."""


@dataclass(frozen=True)
class Retry:
    """How often an atomic procedure is run again after a serialization failure or a deadlock.

    It waits not at all before the first repetition, then `min_wait` seconds, twice as long each time, and `max_wait` at
    most, each shortened by a random part of up to `jitter` (0 to 1), so that two do not meet again and again. After
    `retries` repetitions, or where the next would begin later than `budget` seconds after the first try, it gives up.
    """

    retries: int = 7
    min_wait: float = 0.1
    max_wait: float = 10.0
    jitter: float = 0.5
    budget: float | None = None

    def delays(self) -> Iterator[float]:
        """The seconds to wait before each repetition. Ends when there is to be none any more."""
        begun = time.monotonic()
        for number in range(self.retries):
            full = min(self.max_wait, self.min_wait * 2 ** (number - 1)) if number else 0.0
            delay = full * (1 - self.jitter * random.random())
            if self.budget is not None and time.monotonic() - begun + delay > self.budget:
                return
            yield delay


def is_transient(error: BaseException) -> bool:
    """Whether a transaction that failed in this way may succeed if it is run again."""
    if isinstance(error, DBSerializationError):
        return True
    if not isinstance(error, DBAPIError) or error.orig is None:
        return False
    if get_db_error_code(error.orig) in SQLSTATES:
        return True
    return _is_busy(error.orig) or _errno(error.orig) in ERRNOS


def get_db_error_code(error: BaseException) -> str:
    """The SQLSTATE of a driver's error, or an empty text."""
    codes = (getattr(error, name, None) for name in ("pgcode", "sqlstate"))
    return next((str(code) for code in codes if code), "")


def _errno(error: BaseException) -> int | None:
    """The number of an error of MySQL. (PostgreSQL's drivers have texts or nothing in this place.)"""
    if not type(error).__module__.startswith(("pymysql", "aiomysql", "asyncmy", "MySQLdb", "mysql.", "mariadb")):
        return None
    number = getattr(error, "errno", None) or (error.args[0] if error.args else None)
    return number if isinstance(number, int) else None


def _is_busy(error: BaseException) -> bool:
    if not isinstance(error, sqlite3.OperationalError):
        return False
    code = getattr(error, "sqlite_errorcode", None)
    # Python 3.10 tells no codes. The lower byte is the kind: SQLITE_BUSY_SNAPSHOT is a busy lock, too.
    return str(error) in SQLITE_TEXTS if code is None else code & 0xFF in SQLITE_CODES
