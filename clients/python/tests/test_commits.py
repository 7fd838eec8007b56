"""What is told after a commit, on every database."""

from __future__ import annotations

import asyncio
import logging
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from conftest import PLUGINS, Database, Relay
from servers import free_port, wait_until
from signalbus import SignalBus, SignalMixin, commits
from signalbus.model import types_by_table


class Base(DeclarativeBase):
    pass


class First(SignalMixin, Base):
    __tablename__ = "first"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(sa.String(20))


class Second(SignalMixin, Base):
    __tablename__ = "second"
    id: Mapped[int] = mapped_column(primary_key=True)
    first: Mapped[int | None] = mapped_column(sa.ForeignKey("first.id"))


class Silent(SignalMixin, Base):
    __tablename__ = "silent"
    id: Mapped[int] = mapped_column(primary_key=True)
    signalbus_autoflush = False


class NoSignal(Base):
    __tablename__ = "no_signal"
    id: Mapped[int] = mapped_column(primary_key=True)


class Told:
    """An engine, and what was told of its commits."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self.told: list[set[str]] = []
        Base.metadata.create_all(engine)
        commits.watch(engine, lambda: types_by_table(Base), lambda names: self.told.append(set(names)))


@pytest.fixture
def told(database: Database) -> Iterator[Told]:
    engine = database.engine()
    if database.kind == "sqlite":
        sa.event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA foreign_keys = ON"))
    yield Told(engine)
    engine.dispose()


def test_a_transaction_is_told_once(told: Told) -> None:
    with Session(told.engine) as session:
        session.add_all([First(), First(), Second(), Silent(), NoSignal()])
        session.flush()
        session.add(First())
        assert told.told == []
        session.commit()
        assert told.told == [{"First", "Second"}]
        session.add(NoSignal())
        session.commit()
        session.scalars(sa.select(First)).all()
        session.commit()
        assert told.told == [{"First", "Second"}]


def test_every_way_of_writing_is_seen(told: Told) -> None:
    with Session(told.engine) as session:
        ways: list[Any] = [
            lambda: session.bulk_save_objects([First(), First()]),
            lambda: session.execute(sa.insert(First), [{"name": "a"}, {"name": "b"}]),
            lambda: session.execute(sa.insert(First).values(name="c")),
            lambda: session.execute(sa.update(First).values(name="d")),
            lambda: session.execute(sa.insert(First.__table__).from_select(["name"], sa.select(First.name))),
        ]
        for number, way in enumerate(ways, 1):
            way()
            session.commit()
            assert told.told == [{"First"}] * number
    with told.engine.begin() as connection:
        connection.execute(sa.insert(First.__table__))
    with told.engine.connect() as connection:
        connection.execute(sa.insert(First.__table__))
        connection.commit()
        connection.execute(sa.select(First.id))
        assert told.told == [{"First"}] * 7


def test_rollbacks_tell_nobody(told: Told) -> None:
    with Session(told.engine) as session:
        session.add(First())
        session.flush()
        session.rollback()
        session.add(NoSignal())
        session.commit()
        session.add(First())
        session.flush()
    with told.engine.connect() as connection:
        connection.execute(sa.insert(First.__table__))
    with told.engine.begin() as connection:
        connection.execute(sa.select(First.id))
    assert told.told == []


def test_savepoints_tell_nobody_before_the_commit(told: Told) -> None:
    with Session(told.engine) as session:
        with session.begin_nested():
            session.add(First())
        assert told.told == []
        session.rollback()
        assert told.told == []
        session.add(Second())
        with session.begin_nested():
            with session.begin_nested():
                session.add(First())
        session.commit()
        assert told.told == [{"First", "Second"}]


def test_what_a_savepoint_undoes_is_not_told(told: Told) -> None:
    with Session(told.engine) as session:
        session.add(Second())
        undone = session.begin_nested()
        session.add(First())
        with session.begin_nested():
            session.add(First())
        undone.rollback()
        session.commit()
    assert told.told == [{"Second"}]


def test_a_savepoint_undoes_those_within_it(told: Told) -> None:
    with told.engine.begin() as connection:
        connection.execute(sa.insert(Second.__table__))
        outer = connection.begin_nested()
        connection.execute(sa.insert(First.__table__))
        connection.begin_nested()
        connection.execute(sa.insert(First.__table__))
        with pytest.warns(sa.exc.SAWarning, match="already deassociated"):
            outer.rollback()
        with connection.begin_nested():
            connection.execute(sa.update(Second.__table__).values(first=None))
    assert told.told == [{"Second"}]


def test_a_session_within_a_longer_transaction_tells_nobody(told: Told) -> None:
    """The way in which many test suites undo what a test wrote."""
    with told.engine.connect() as connection:
        outer = connection.begin()
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            session.add(First())
            session.commit()
        assert told.told == []
        outer.rollback()
    assert told.told == []


def test_a_commit_that_fails_tells_nobody(told: Told, database: Database) -> None:
    if database.kind == "mariadb":
        pytest.skip("MariaDB checks nothing at the commit")
    deferred = "ALTER TABLE second ALTER CONSTRAINT second_first_fkey DEFERRABLE INITIALLY DEFERRED"
    if database.kind == "postgres":
        with told.engine.begin() as connection:
            connection.exec_driver_sql(deferred)
    with Session(told.engine) as session:
        session.add(NoSignal())
        session.flush()
        if database.kind == "sqlite":
            session.execute(sa.text("PRAGMA defer_foreign_keys = ON"))
        session.add(Second(first=17))
        session.flush()
        with pytest.raises(sa.exc.IntegrityError):
            session.commit()
        session.rollback()
        session.add(NoSignal())
        session.commit()
    assert told.told == []


def test_commits_in_two_phases_are_told(told: Told, database: Database) -> None:
    if database.kind != "mariadb":
        pytest.skip("SQLite has none, and PostgreSQL none prepared by default")
    with told.engine.connect() as connection:
        for ends, expected in (("rollback", []), ("commit", [{"First"}])):
            transaction = connection.begin_twophase()
            connection.execute(sa.insert(First.__table__))
            transaction.prepare()
            getattr(transaction, ends)()
            connection.execute(sa.select(First.id))
            connection.rollback()
            assert told.told == expected


def test_async_sessions_are_told(database: Database) -> None:
    told: list[set[str]] = []

    async def write() -> None:
        engine = create_async_engine(database.async_url)
        commits.watch(engine.sync_engine, lambda: types_by_table(Base), lambda names: told.append(set(names)))
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with AsyncSession(engine) as session:
            session.add(First())
            await session.flush()
            await session.rollback()
            session.add(Second())
            await session.commit()
        await engine.dispose()

    asyncio.run(write())
    assert told == [{"Second"}]


CONFIGURATION = """
[database]
url = "{url}"
poll = "off"

[defaults]
plugin = "{plugins}/log.wasm"

[signals.First]
[signals.Second]
"""


@pytest.fixture
def configured(database: Database, relay: Relay) -> Relay:
    from signalbus.export import relay_url

    engine = database.engine()
    Base.metadata.create_all(engine)
    engine.dispose()
    relay.file.write_text(CONFIGURATION.format(url=relay_url(database.url, relay.folder), plugins=PLUGINS))
    return relay


def test_what_is_committed_is_sent_without_waiting_for_a_look(database: Database, configured: Relay) -> None:
    """The relay looks for nothing by itself (`poll = "off"`)."""
    url = configured.start()
    engine = database.engine()
    bus = SignalBus(Base, relay_url=url, token="token-of-the-tests")
    bus.watch(engine)
    latencies = []
    with Session(engine) as session:
        for number in range(1, 11):
            session.add(First())
            session.commit()
            begun = time.monotonic()
            wait_until(lambda n=number: configured.sent("First") == n, "sent", 10)  # type: ignore[misc]
            latencies.append(time.monotonic() - begun)
        session.add_all([First(), First(), Second()])
        before = configured.woken()
        session.commit()
        wait_until(lambda: configured.sent("First") == 12 and configured.sent("Second") == 1, "sent", 10)
        assert configured.woken() - before == 2, "once per transaction and type"

        bus.autoflush = False
        session.add(First())
        session.commit()
        assert bus.waker and bus.waker.wait(5) and configured.woken() - before == 2
        if database.kind != "sqlite":
            assert configured.sent("First") == 12
    assert statistics.median(latencies) < 0.5
    engine.dispose()


def test_async_commits_are_sent(database: Database, configured: Relay) -> None:
    url = configured.start()

    async def write() -> None:
        engine = create_async_engine(database.async_url)
        SignalBus(Base, relay_url=url, token="token-of-the-tests").watch(engine)
        async with AsyncSession(engine) as session:
            session.add(First())
            await session.commit()
        await engine.dispose()

    asyncio.run(write())
    wait_until(lambda: configured.sent("First") == 1, "sent", 10)


@pytest.fixture
def file(tmp_path: Any) -> str:
    url = f"sqlite:///{tmp_path}/outbox.db"
    engine = sa.create_engine(url)
    Base.metadata.create_all(engine)
    engine.dispose()
    return url


def commit_times(url: str, relay_url: str | None, number: int = 300) -> list[float]:
    engine = sa.create_engine(url)
    sa.event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
    if relay_url:
        SignalBus(Base, relay_url=relay_url).watch(engine)
    times = []
    with Session(engine) as session:
        for _ in range(number):
            session.add_all([First(), Second()])
            session.flush()
            begun = time.perf_counter()
            session.commit()
            times.append(time.perf_counter() - begun)
    engine.dispose()
    return times


def test_commits_wait_for_no_relay(file: str) -> None:
    """One relay accepts connections and never answers, another does not listen at all."""
    with socket.create_server(("127.0.0.1", free_port())) as silent:
        for address in (f"http://127.0.0.1:{silent.getsockname()[1]}", f"http://127.0.0.1:{free_port()}"):
            costs = []
            for _ in range(3):
                bare, watched = commit_times(file, None), commit_times(file, address)
                costs.append(statistics.median(watched) - statistics.median(bare))
            assert min(costs) < 0.0002, costs


def test_an_absent_relay_is_reported_once(file: str, caplog: pytest.LogCaptureFixture) -> None:
    engine = sa.create_engine(file)
    bus = SignalBus(Base, relay_url=f"http://127.0.0.1:{free_port()}")
    bus.watch(engine)
    with Session(engine) as session, caplog.at_level(logging.WARNING, "signalbus"):
        for _ in range(3):
            session.add(First())
            session.commit()
            assert bus.waker and bus.waker.wait(5)
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "the relay was not woken, and finds the signals at its next look"
    ]
    engine.dispose()


def test_addresses_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="should look like http://"):
        SignalBus(Base, relay_url="127.0.0.1:9464")


PROGRAM = """
import os, sys
import sqlalchemy as sa
from sqlalchemy.orm import Session
from signalbus import SignalBus
from test_commits import Base, First

def commit():
    with Session(engine) as session:
        session.add(First())
        session.commit()

engine = sa.create_engine(sys.argv[1])
SignalBus(Base, relay_url=sys.argv[2], token="token-of-the-tests").watch(engine)
commit()
sys.stdout.flush()
child = os.fork()
if child == 0:
    engine.dispose(close=False)
    commit()
    sys.exit()
os.waitpid(child, 0)
"""


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
def test_programs_that_end_and_fork_still_wake(database: Database, configured: Relay) -> None:
    url = configured.start()
    words = [sys.executable, "-W", "ignore", "-c", PROGRAM, database.url, url]
    subprocess.run(words, check=True, cwd=configured.folder, env={"PYTHONPATH": ":".join(sys.path)})
    wait_until(lambda: configured.sent("First") == 2, "sent", 10)
    assert configured.woken() == 2
