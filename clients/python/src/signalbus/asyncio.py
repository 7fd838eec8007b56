"""`signalbus.procedures` for `AsyncSession` and `async_scoped_session`."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, ParamSpec, TypeVar

from sqlalchemy import inspect
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session

from .procedures import FLAG, has_work, lock_sqlite, marked, require_atomic
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
Sessions = AsyncSession | async_scoped_session[Any]


def atomic(
    session: Sessions, retry: Retry = Retry()
) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Awaitable[T]]]:
    """Decorates a coroutine function, as `signalbus.atomic` a function."""

    def decorate(procedure: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        @functools.wraps(procedure)
        async def run(*args: P.args, **kwargs: P.kwargs) -> T:
            return await execute_atomic(session, lambda: procedure(*args, **kwargs), retry)

        return run

    return decorate


async def execute_atomic(session: Sessions, procedure: Callable[[], Awaitable[T]], retry: Retry = Retry()) -> T:
    """Runs a coroutine function at once as `atomic` does, and returns what it returns."""
    real = session() if isinstance(session, async_scoped_session) else session
    if real.info.get(FLAG):
        return await procedure()
    delays = iter(()) if has_work(real.sync_session) else retry.delays()
    while True:
        try:
            return await _attempt(real, procedure)
        except Exception as error:
            delay = next(delays, None) if is_transient(error) else None
            if delay is None:
                raise
        await asyncio.sleep(delay)


async def _attempt(session: AsyncSession, procedure: Callable[[], Awaitable[T]]) -> T:
    with marked(session):
        try:
            await session.run_sync(lock_sqlite)
            result = await procedure()
            await session.flush()
            session.expunge_all()
            await session.commit()
            return result
        except BaseException:
            await session.rollback()
            raise


@asynccontextmanager
async def retry_on_integrity_error(session: Sessions) -> AsyncGenerator[None]:
    """As `signalbus.retry_on_integrity_error`."""
    require_atomic(session)
    await session.flush()
    try:
        yield
        await session.flush()
    except IntegrityError as error:
        raise DBSerializationError from error


async def get_instance(session: Sessions, model: type[T], instance_or_pk: Any, *options: Any) -> T | None:
    """As `signalbus.get_instance`."""
    return await session.get(model, await get_pk_values(session, model, instance_or_pk), options=options or None)


async def lock_instance(session: Sessions, model: type[T], instance_or_pk: Any, *options: Any, **kw: Any) -> T | None:
    """As `signalbus.lock_instance`."""
    key = await get_pk_values(session, model, instance_or_pk)
    await session.flush()
    return await session.get(model, key, options=options or None, populate_existing=True, with_for_update=kw or True)


async def get_pk_values(session: Sessions, model: type, instance_or_pk: Any) -> tuple[Any, ...]:
    """As `signalbus.get_pk_values`."""
    if isinstance(instance_or_pk, model):
        await session.flush()
        return tuple(inspect(model, raiseerr=True).primary_key_from_instance(instance_or_pk))
    return instance_or_pk if isinstance(instance_or_pk, tuple) else (instance_or_pk,)


@asynccontextmanager
async def modify(session: Sessions, model: type[T], instance_or_pk: Any, *options: Any, **kw: Any) -> AsyncGenerator[T]:
    """As `signalbus.modify`."""
    require_atomic(session)
    instance = await lock_instance(session, model, instance_or_pk, *options, **kw)
    if instance is None:
        raise LookupError(f"no {model.__name__} with the primary key {instance_or_pk!r}")
    yield instance
    await session.flush()
