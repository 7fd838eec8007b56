"""Learns which signals a transaction writes, and tells after its commit.

It listens to the engine, not to a session: so it sees every way of writing (unit of work, bulk, Core, async), and the
database's own COMMIT alone, not the end of a savepoint or of a session that is part of a longer transaction. Only SQL
given as text escapes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.sql.elements import SavepointClause

__all__ = ["watch"]

KEY = "signalbus"


class _Transaction:
    """What one connection has written and not yet told."""

    __slots__ = ("committed", "levels")

    def __init__(self) -> None:
        #: A set for the transaction, and one for each savepoint in it, with its name.
        self.levels: list[tuple[str, set[str]]] = [("", set())]
        #: Committed, as far as is known: the commit is announced before it takes place.
        self.committed: set[str] = set()


class _Watch:
    def __init__(self, types: Callable[[], Mapping[Any, frozenset[str]]], notify: Callable[[set[str]], None]) -> None:
        self.types = types
        self.notify = notify

    def listen(self, engine: Engine) -> Callable[[], None]:
        """Returns what ends it."""
        listeners: dict[str, Callable[..., Any]] = {
            "after_cursor_execute": self.executed,
            "begin": self.begin,
            "commit": self.commit,
            "commit_twophase": self.commit_twophase,
            "rollback": self.rollback,
            "rollback_twophase": self.rollback_twophase,
            "rollback_savepoint": self.rollback_savepoint,
            "release_savepoint": self.release_savepoint,
            "handle_error": self.failed,
            "checkin": self.returned,
        }
        for name, listener in listeners.items():
            event.listen(engine, name, listener)

        def end() -> None:
            for name, listener in listeners.items():
                event.remove(engine, name, listener)

        return end

    def executed(self, connection: Connection, _c: Any, _s: Any, _p: Any, context: Any, _m: Any) -> None:
        statement = getattr(context.compiled, "statement", None)
        if context.isinsert or context.isupdate:
            names = self.types().get(getattr(statement, "table", None))
            if names:
                _of(connection).levels[-1][1].update(names)
        elif isinstance(statement, SavepointClause):
            # The event "savepoint" comes before it has a name.
            _of(connection).levels.append((statement.ident, set()))

    def rollback_savepoint(self, connection: Connection, name: str, _context: None) -> None:
        self._end_savepoint(connection, name)

    def release_savepoint(self, connection: Connection, name: str, _context: None) -> None:
        written = self._end_savepoint(connection, name)
        _of(connection).levels[-1][1].update(written)

    def _end_savepoint(self, connection: Connection, name: str) -> set[str]:
        """Ends a savepoint and those within it. Returns what was written since."""
        levels = _of(connection).levels
        place = next((n for n in range(len(levels) - 1, 0, -1) if levels[n][0] == name), len(levels))
        written = set().union(*(names for _, names in levels[place:]))
        del levels[place:]
        return written

    def begin(self, connection: Connection) -> None:
        self._tell(connection.info)

    def commit(self, connection: Connection) -> None:
        transaction = connection.info.get(KEY)
        if transaction is None:
            return
        transaction.committed.update(*(names for _, names in transaction.levels))
        transaction.levels = [("", set())]

    def rollback(self, connection: Connection) -> None:
        connection.info.pop(KEY, None)

    def commit_twophase(self, connection: Connection, _xid: Any, _prepared: bool) -> None:
        self.commit(connection)

    def rollback_twophase(self, connection: Connection, _xid: Any, _prepared: bool) -> None:
        self.rollback(connection)

    def failed(self, context: Any) -> None:
        # Before the next `begin`, only the commit itself can have failed.
        if context.connection is not None and not context.connection.invalidated:
            _of(context.connection).committed.clear()

    def returned(self, _connection: Any, record: Any) -> None:
        """The connection goes back to the pool, right after the commit of a session."""
        self._tell(record.info)

    def _tell(self, info: dict[Any, Any]) -> None:
        transaction = info.pop(KEY, None)
        if transaction is not None and transaction.committed:
            self.notify(transaction.committed)


def _of(connection: Connection) -> _Transaction:
    found: _Transaction = connection.info.setdefault(KEY, _Transaction())
    return found


def watch(
    engine: Engine, types: Callable[[], Mapping[Any, frozenset[str]]], notify: Callable[[set[str]], None]
) -> Callable[[], None]:
    """Calls `notify` with the names of the signal types of which a transaction wrote rows, after its commit.

    `types` gives the names by table. `notify` is called in the thread that commits. Returns a function that ends it.
    """
    return _Watch(types, notify).listen(engine)
