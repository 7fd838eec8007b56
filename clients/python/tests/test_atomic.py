"""Atomic procedures, alone and against each other."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker

import signalbus.asyncio as aio
from conftest import Database
from signalbus import (
    DBSerializationError,
    Retry,
    atomic,
    execute_atomic,
    get_instance,
    get_pk_values,
    lock_instance,
    modify,
    retry_on_integrity_error,
)
from signalbus.retry import get_db_error_code, is_transient


class Base(DeclarativeBase):
    pass


class Account(Base):
    __tablename__ = "account"
    id: Mapped[int] = mapped_column(primary_key=True)
    balance: Mapped[int] = mapped_column(default=0)


class Pair(Base):
    __tablename__ = "pair"
    a: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    b: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


QUICK = Retry(retries=200, min_wait=0.002, max_wait=0.02)
LEVELS = {"postgres": "REPEATABLE READ", "mariadb": "REPEATABLE READ"}


class Events:
    """Counts what a session's transactions came to."""

    def __init__(self, session: Any) -> None:
        self.commits = self.rollbacks = 0
        sa.event.listen(session, "after_commit", lambda _: self._count("commits"))
        sa.event.listen(session, "after_rollback", lambda _: self._count("rollbacks"))

    def _count(self, name: str) -> None:
        setattr(self, name, getattr(self, name) + 1)


@pytest.fixture
def engine(database: Database) -> Iterator[sa.Engine]:
    options = {"isolation_level": LEVELS[database.kind]} if database.kind in LEVELS else {}
    engine = database.engine(pool_size=10, **options)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Account(id=1), Account(id=2)])
        session.commit()
    yield engine
    engine.dispose()


@pytest.fixture
def session(engine: sa.Engine) -> Iterator[scoped_session[Session]]:
    session = scoped_session(sessionmaker(engine))
    yield session
    session.remove()


def balance(engine: sa.Engine, account: int = 1) -> int | None:
    with engine.connect() as connection:
        return connection.scalar(sa.select(Account.balance).where(Account.id == account))


def test_a_procedure_is_one_transaction(engine: sa.Engine, session: scoped_session[Session]) -> None:
    events = Events(session.session_factory)

    @atomic(session)
    def deposit(amount: int, fail: bool = False) -> Account:
        """Docs."""
        account = lock_instance(session, Account, 1)
        assert account
        account.balance += amount
        if fail:
            raise ValueError("no")
        return account

    with pytest.raises(ValueError, match="no"):
        deposit(5, fail=True)
    assert (events.commits, events.rollbacks, balance(engine)) == (0, 1, 0)
    account = deposit(7)
    assert (events.commits, events.rollbacks, balance(engine)) == (1, 1, 7)
    assert sa.inspect(account).detached and account.balance == 7
    assert deposit.__doc__ == "Docs."


def test_procedures_within_procedures_are_one_transaction(engine: sa.Engine, session: scoped_session[Session]) -> None:
    events = Events(session.session_factory)

    def inner() -> int:
        with modify(session, Account, 1) as account:
            account.balance += 1
        return 17

    assert execute_atomic(session, lambda: execute_atomic(session, inner) + execute_atomic(session, inner)) == 34
    assert (events.commits, events.rollbacks, balance(engine)) == (1, 0, 2)

    @atomic(session)
    def outer() -> None:
        execute_atomic(session, inner)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        outer()
    assert (events.commits, events.rollbacks, balance(engine)) == (1, 1, 2)
    assert execute_atomic(session, inner) == 17


def test_instances_are_found_and_locked(session: scoped_session[Session]) -> None:
    assert get_instance(session, Account, 99) is None
    assert lock_instance(session, Account, 99) is None
    account = get_instance(session, Account, 1, sa.orm.load_only(Account.id))
    assert account and get_instance(session, Account, account) is account
    assert get_instance(session, Account, (1,)) is account
    assert lock_instance(session, Account, account) is account
    assert lock_instance(session, Account, 1, read=True) is account
    assert get_pk_values(session, Account, 1) == get_pk_values(session, Account, account) == (1,)
    pair = Pair(a=3, b=4)
    session.add(pair)
    assert get_pk_values(session, Pair, pair) == get_pk_values(session, Pair, (3, 4)) == (3, 4)
    assert get_instance(session, Pair, (3, 4)) is pair
    new = Account(id=77)
    session.add(new)
    assert get_pk_values(session, Account, new) == (new.id,) and new.id


def test_a_lock_shows_the_row_as_it_is_now(
    database: Database, engine: sa.Engine, session: scoped_session[Session]
) -> None:
    if database.kind == "postgres":
        session.connection(execution_options={"isolation_level": "READ COMMITTED"})
    account = get_instance(session, Account, 1)
    with engine.begin() as connection:
        connection.execute(sa.update(Account).where(Account.id == 1).values(balance=40))
    assert account and account.balance == 0
    assert lock_instance(session, Account, 1) is account and account.balance == 40


def test_modify_needs_a_row_and_a_procedure(session: scoped_session[Session]) -> None:
    with pytest.raises(AssertionError, match="only within an atomic procedure"):
        with modify(session, Account, 1):
            pass

    @atomic(session)
    def missing() -> None:
        with modify(session, Account, 99):
            pass

    with pytest.raises(LookupError, match="no Account with the primary key 99"):
        missing()


def test_integrity_errors_run_the_procedure_again(engine: sa.Engine, session: scoped_session[Session]) -> None:
    if engine.dialect.name == "sqlite":
        pytest.skip("nobody can insert while an atomic procedure has the lock")
    tries = []

    @atomic(session, QUICK)
    def create() -> Pair:
        tries.append(1)
        found = get_instance(session, Pair, (1, 1))
        if found is None:
            with engine.begin() as faster:
                faster.execute(sa.insert(Pair.__table__).values(a=1, b=1))
            with retry_on_integrity_error(session):
                found = Pair(a=1, b=1)
                session.add(found)
        return found

    assert create().a == 1 and len(tries) == 2


def test_integrity_errors_that_stay_are_serialization_errors(
    engine: sa.Engine, session: scoped_session[Session]
) -> None:
    tries = []

    @atomic(session, Retry(retries=3, min_wait=0.001))
    def create() -> None:
        tries.append(1)
        with retry_on_integrity_error(session):
            session.add(Account(id=1))

    with pytest.raises(DBSerializationError) as raised:
        create()
    assert len(tries) == 4 and isinstance(raised.value.__cause__, sa.exc.IntegrityError)

    with pytest.raises(AssertionError):
        with retry_on_integrity_error(session):
            session.add(Account(id=77))
    session.rollback()
    assert balance(engine, 77) is None


def test_merging_with_a_row_that_another_one_inserts(session: scoped_session[Session]) -> None:
    @atomic(session)
    def write(value: int) -> Account:
        with retry_on_integrity_error(session):
            return session.merge(Account(id=5, balance=value))

    assert write(1).balance == 1
    merged = write(2)
    assert merged.balance == 2 and sa.inspect(merged).detached


def in_parallel(engine: sa.Engine, number: int, work: Callable[[scoped_session[Session], int], None]) -> None:
    session = scoped_session(sessionmaker(engine))
    start = threading.Barrier(number)

    def run(worker: int) -> None:
        start.wait()
        try:
            work(session, worker)
        finally:
            session.remove()

    with ThreadPoolExecutor(number) as pool:
        for future in [pool.submit(run, worker) for worker in range(number)]:
            future.result()


def test_no_update_is_lost_under_contention(database: Database, engine: sa.Engine) -> None:
    """Reading without a lock; in MariaDB that takes SERIALIZABLE."""
    if database.kind == "mariadb":
        engine = engine.execution_options(isolation_level="SERIALIZABLE")
    tries = []

    def work(session: scoped_session[Session], _worker: int) -> None:
        @atomic(session, QUICK)
        def increment() -> None:
            tries.append(1)
            account = get_instance(session, Account, 1)
            assert account
            time.sleep(0.001)
            account.balance += 1

        for _ in range(15):
            increment()

    in_parallel(engine, 4, work)
    assert balance(engine) == 60
    # SQLite's writers queue for the lock instead of failing.
    assert len(tries) > 60 or database.kind == "sqlite"


def test_deadlocks_are_resolved(database: Database, engine: sa.Engine) -> None:
    """Two rows, locked in both orders; and SQLite without its patience."""
    if database.kind == "sqlite":
        engine = database.engine(connect_args={"timeout": 0.001})
    failures: list[BaseException] = []

    @sa.event.listens_for(engine, "handle_error")
    def failed(context: Any) -> None:
        failures.append(context.original_exception)

    def work(session: scoped_session[Session], worker: int) -> None:
        @atomic(session, QUICK)
        def transfer() -> None:
            order = (1, 2) if worker % 2 else (2, 1)
            for number, account in enumerate(order):
                with modify(session, Account, account) as row:
                    row.balance += 1 - 2 * number
                time.sleep(0.002)

        for _ in range(10):
            transfer()

    in_parallel(engine, 4, work)
    assert (balance(engine, 1), balance(engine, 2)) == (0, 0)
    assert failures, "nothing was contended"
    engine.dispose()


def test_what_waits_too_long_for_a_lock_is_tried_again(database: Database, engine: sa.Engine) -> None:
    if database.kind == "postgres":
        pytest.skip("PostgreSQL waits without an end, unless it is told otherwise")
    if database.kind == "sqlite":
        engine = database.engine(connect_args={"timeout": 0.2})
    session = scoped_session(sessionmaker(engine))
    tries = []

    @atomic(session, Retry(retries=50, min_wait=0.05, max_wait=0.05))
    def increment() -> None:
        tries.append(1)
        if database.kind == "mariadb":
            session.execute(sa.text("SET innodb_lock_wait_timeout = 1"))
        with modify(session, Account, 1) as account:
            account.balance += 1

    with engine.connect() as holder:
        if database.kind == "sqlite":
            holder.exec_driver_sql("BEGIN IMMEDIATE")
        holder.execute(sa.update(Account).values(balance=100))
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(lambda: (increment(), session.remove()))
            end = time.monotonic() + 20
            while len(tries) < 2 and time.monotonic() < end:
                time.sleep(0.02)
            if database.kind == "sqlite":
                # It waits before it begins.
                time.sleep(0.5)
            holder.commit()
            waiting.result(20)
    assert balance(engine) == 101
    if database.kind == "mariadb":
        assert len(tries) >= 2
    engine.dispose()


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
def test_a_failure_at_the_commit_is_tried_again(engine: sa.Engine, session: scoped_session[Session]) -> None:
    """Write skew, which PostgreSQL notices when the second one commits."""
    serializable = engine.execution_options(isolation_level="SERIALIZABLE")
    session.configure(bind=serializable)
    session.remove()
    tries = []

    @atomic(session, QUICK)
    def move() -> None:
        tries.append(1)
        total = session.scalar(sa.select(sa.func.sum(Account.balance)))
        session.execute(sa.update(Account).where(Account.id == 1).values(balance=(total or 0) + 1))
        if len(tries) == 1:
            with Session(serializable) as other:
                total = other.scalar(sa.select(sa.func.sum(Account.balance)))
                other.execute(sa.update(Account).where(Account.id == 2).values(balance=(total or 0) + 1))
                other.commit()

    failed_at_commit: list[str] = []
    sa.event.listen(engine, "handle_error", lambda context: failed_at_commit.append(str(context.statement)))
    move()
    assert len(tries) == 2 and failed_at_commit == ["None"]
    assert (balance(engine, 1), balance(engine, 2)) == (2, 1)


def test_the_budget_ends_the_repetitions(session: scoped_session[Session]) -> None:
    def failing(tries: list[float]) -> Callable[[], None]:
        def procedure() -> None:
            tries.append(time.monotonic())
            raise DBSerializationError

        return procedure

    for retry, number in [
        (Retry(retries=5, min_wait=0), 6),
        (Retry(retries=0), 1),
        (Retry(retries=100, min_wait=0.05, budget=0.3, jitter=0), 4),
    ]:
        tries: list[float] = []
        with pytest.raises(DBSerializationError):
            execute_atomic(session, failing(tries), retry)
        assert len(tries) == number
    waits = [late - early for early, late in zip(tries, tries[1:])]
    assert waits[0] < 0.04 and waits[1] >= 0.05 and waits[2] >= 0.1


def test_delays_grow_and_scatter() -> None:
    assert list(Retry(retries=4, jitter=0, max_wait=0.3).delays()) == [0, 0.1, 0.2, 0.3]
    scattered = [list(Retry(retries=3).delays())[2] for _ in range(200)]
    assert 0.1 <= min(scattered) < 0.12 and 0.18 < max(scattered) <= 0.2


def test_other_errors_are_not_tried_again(session: scoped_session[Session]) -> None:
    tries = []

    @atomic(session)
    def wrong() -> None:
        tries.append(1)
        session.execute(sa.text("SELECT * FROM nowhere"))

    with pytest.raises(sa.exc.DBAPIError):
        wrong()
    assert len(tries) == 1


def test_what_was_written_before_is_not_lost_silently(engine: sa.Engine, session: scoped_session[Session]) -> None:
    """A repetition would begin after it: the caller is told, instead."""
    tries = []

    @atomic(session)
    def failing() -> None:
        tries.append(1)
        if len(tries) == 1:
            raise DBSerializationError

    for flush in (False, True):
        tries.clear()
        session.add(Account(id=50))
        if flush:
            session.flush()
        with pytest.raises(DBSerializationError):
            failing()
        assert len(tries) == 1
    assert balance(engine, 50) is None
    session.get(Account, 1)
    tries.clear()
    failing()
    assert len(tries) == 2


def test_codes_are_those_of_all_drivers() -> None:
    class Error(Exception):
        def __init__(self, **values: Any) -> None:
            self.__dict__.update(values)

    def wrapped(error: Exception) -> sa.exc.DBAPIError:
        return sa.exc.DBAPIError("statement", {}, error)

    assert (
        get_db_error_code(Error(pgcode="40001")) == get_db_error_code(Error(pgcode=None, sqlstate="40001")) == "40001"
    )
    assert get_db_error_code(Error()) == ""
    assert is_transient(wrapped(Error(sqlstate="40P01")))
    assert is_transient(DBSerializationError())
    for other in [wrapped(Error(sqlstate="23505")), ValueError("database is locked"), wrapped(Error(errno=1213))]:
        assert not is_transient(other)


def test_async_procedures(database: Database, engine: sa.Engine) -> None:
    async def run() -> tuple[int, int, int | None]:
        options = {"isolation_level": "SERIALIZABLE"} if database.kind != "sqlite" else {}
        asynchronous = create_async_engine(database.async_url, **options)
        tries = []

        async def work() -> None:
            async with AsyncSession(asynchronous) as session:

                @aio.atomic(session, QUICK)
                async def increment() -> Account:
                    tries.append(1)
                    account = await aio.get_instance(session, Account, 1)
                    assert account
                    await asyncio.sleep(0.001)
                    account.balance += 1

                    async def inner() -> None:
                        async with aio.modify(session, Account, account) as same:
                            assert same is account and await aio.get_pk_values(session, Account, same) == (1,)

                    await aio.execute_atomic(session, inner)
                    return account

                for _ in range(10):
                    assert (await increment()).balance > 0

        await asyncio.gather(*(work() for _ in range(3)))
        async with AsyncSession(asynchronous) as session:

            async def conflict() -> None:
                tries.append(1)
                async with aio.retry_on_integrity_error(session):
                    session.add(Account(id=1))

            before = len(tries)
            with pytest.raises(DBSerializationError):
                await aio.execute_atomic(session, conflict, Retry(retries=2, min_wait=0))
            conflicts = len(tries) - before
            with pytest.raises(AssertionError):
                async with aio.modify(session, Account, 1):
                    pass
        await asynchronous.dispose()
        return before, conflicts, balance(engine)

    tries, conflicts, total = asyncio.run(run())
    assert total == 30 and conflicts == 3
    assert tries > 30 or database.kind == "sqlite"
