"""Procedures that are one transaction, and are run again if it meets another one.

```python
@atomic(session)
def transfer(payer, payee, amount):
    account = lock_instance(session, Account, payer)
    …
```

The session may be a `Session` or a `scoped_session`; `signalbus.asyncio` has the same for `AsyncSession`.

A procedure may run several times: what it does beside the database is then done several times, too. What it returns is
detached from the session, with its attributes loaded.

PostgreSQL tells in REPEATABLE READ and above that a row has changed since it was read. MySQL and MariaDB do so only in
SERIALIZABLE; in their other levels, read what you are going to change with `lock_instance` or `modify`. In SQLite, an
atomic procedure takes the write lock when it begins, since Python's driver otherwise begins the transaction after the
reads.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from sqlalchemy import Connection, event, inspect
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, SessionTransaction, scoped_session

from .retry import DBSerializationError, Retry, is_transient

__all__ = [
    "atomic",
    "execute_atomic",
    "get_instance",
    "get_pk_values",
    "lock_instance",
    "modify",
    "retry_on_integrity_error",
]

P = ParamSpec("P")
T = TypeVar("T")
Sessions = Session | scoped_session[Any]

FLAG, FLUSHED = "signalbus.atomic", "signalbus.flushed"


def atomic(session: Sessions, retry: Retry = Retry()) -> Callable[[Callable[P, T]], Callable[P, T]]:  # noqa: B008
    """Decorates a procedure: it runs in a transaction, which is committed when it returns.

    An exception rolls the transaction back. Serialization failures and deadlocks, at the commit too, run it again.
    Within another atomic procedure, it is a part of that one's transaction.
    """

    def decorate(procedure: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(procedure)
        def run(*args: P.args, **kwargs: P.kwargs) -> T:
            return execute_atomic(session, lambda: procedure(*args, **kwargs), retry)

        return run

    return decorate


def execute_atomic(session: Sessions, procedure: Callable[[], T], retry: Retry = Retry()) -> T:  # noqa: B008
    """Runs a procedure at once as `atomic` does, and returns what it returns."""
    real = session() if isinstance(session, scoped_session) else session
    if real.info.get(FLAG):
        return procedure()
    # A repetition would lose what was written before; then the caller has to begin again.
    delays = iter(()) if has_work(real) else retry.delays()
    while True:
        try:
            return _attempt(real, procedure)
        except Exception as error:
            delay = next(delays, None) if is_transient(error) else None
            if delay is None:
                raise
        time.sleep(delay)


def _attempt(session: Session, procedure: Callable[[], T]) -> T:
    with marked(session):
        try:
            lock_sqlite(session)
            result = procedure()
            session.flush()
            # Detached before the commit expires them.
            session.expunge_all()
            session.commit()
            return result
        except BaseException:
            session.rollback()
            raise


@contextmanager
def marked(session: Any) -> Generator[None]:
    """Marks a session as being in an atomic procedure."""
    session.info[FLAG] = True
    try:
        yield
    finally:
        session.info[FLAG] = False


def has_work(session: Session) -> bool:
    """Whether instances were added, changed or deleted since the transaction began."""
    return bool(session.new or session.dirty or session.deleted or session.info.get(FLUSHED))


@event.listens_for(Session, "after_flush")
def _flushed(session: Session, _context: Any) -> None:
    session.info[FLUSHED] = True


@event.listens_for(Session, "after_transaction_end")
def _end(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session.info.pop(FLUSHED, None)


@event.listens_for(Session, "after_begin")
def _begin(session: Session, _transaction: Any, connection: Connection) -> None:
    if session.info.get(FLAG):
        _lock(connection)


def lock_sqlite(session: Session) -> None:
    """Takes the lock in a transaction that the caller has begun; other transactions begin with it."""
    if session.in_transaction() and session.get_bind().dialect.name == "sqlite":
        _lock(session.connection())
        if not has_work(session):
            # What was read before the lock may have changed since.
            session.expire_all()


def _lock(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        driver: Any = connection.connection.driver_connection
        if not getattr(driver, "in_transaction", True):
            connection.exec_driver_sql("BEGIN IMMEDIATE")


@contextmanager
def retry_on_integrity_error(session: Sessions) -> Generator[None]:
    """Runs the atomic procedure again if this part of it violates a constraint.

    For rows that another transaction may be inserting at the same time: what the procedure found missing at first, it
    finds at its repetition. Only within an atomic procedure.
    """
    require_atomic(session)
    session.flush()
    try:
        yield
        session.flush()
    except IntegrityError as error:
        raise DBSerializationError from error


def require_atomic(session: Any) -> None:
    """Refuses what makes sense in an atomic procedure alone."""
    if not session.info.get(FLAG):
        raise AssertionError("only within an atomic procedure")


def get_instance(session: Sessions, model: type[T], instance_or_pk: Any, *options: Any) -> T | None:
    """The instance in the session with this primary key, or that of this instance. `None`: there is no such row.

    `options` are those of a query, such as `joinedload(…)`.
    """
    return session.get(model, get_pk_values(session, model, instance_or_pk), options=options or None)


def lock_instance(session: Sessions, model: type[T], instance_or_pk: Any, *options: Any, **kw: Any) -> T | None:
    """As `get_instance`, locked for update and as it is now. `kw` are those of `with_for_update`."""
    key = get_pk_values(session, model, instance_or_pk)
    session.flush()
    return session.get(model, key, options=options or None, populate_existing=True, with_for_update=kw or True)


def get_pk_values(session: Sessions, model: type, instance_or_pk: Any) -> tuple[Any, ...]:
    """The primary key as a tuple, of an instance (after a flush), a tuple, or the value of a single column."""
    if isinstance(instance_or_pk, model):
        session.flush()
        return tuple(inspect(model, raiseerr=True).primary_key_from_instance(instance_or_pk))
    return instance_or_pk if isinstance(instance_or_pk, tuple) else (instance_or_pk,)


@contextmanager
def modify(session: Sessions, model: type[T], instance_or_pk: Any, *options: Any, **kw: Any) -> Generator[T]:
    """Locks a row for the changes in a `with` block, and flushes them at its end. Only within an atomic procedure.

    Raises `LookupError` if there is no such row.
    """
    require_atomic(session)
    instance = lock_instance(session, model, instance_or_pk, *options, **kw)
    if instance is None:
        raise LookupError(f"no {model.__name__} with the primary key {instance_or_pk!r}")
    yield instance
    session.flush()
