"""The fixtures that applications use in their tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from conftest import PLUGINS, RELAY, Database
from signalbus.testing import RecordingRelay
from test_export import Base, OrderLine, OrderPlaced, Shipped

CONFTEST = """
import pytest, sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from signalbus import SignalMixin

class Base(DeclarativeBase):
    pass

class OrderPlaced(SignalMixin, Base):
    __tablename__ = "order_placed"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str]

@pytest.fixture
def signalbus_models():
    return Base

@pytest.fixture
def signalbus_engine(tmp_path):
    engine = sa.create_engine(f"sqlite:///{tmp_path}/outbox.db")
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()

@pytest.fixture
def session(signalbus_engine):
    with Session(signalbus_engine) as session:
        yield session
"""
TESTS = """
import pytest
from conftest import OrderPlaced

def test_sent(session, signalbus_relay):
    signalbus_relay.assert_nothing_sent("OrderPlaced")
    session.add_all([OrderPlaced(customer='Ada "L."'), OrderPlaced(customer="Grace = \\\\")])
    session.commit()
    orders = signalbus_relay.assert_sent("OrderPlaced", 2)
    assert sorted(order["customer"] for order in orders) == ['Ada "L."', "Grace = \\\\"]
    assert session.query(OrderPlaced).count() == 0

def test_not_sent(session, signalbus_relay):
    session.add(OrderPlaced(customer="Ada"))
    session.flush()
    session.rollback()
    signalbus_relay.assert_nothing_sent("OrderPlaced")
    with pytest.raises(AssertionError, match='0 signals of type "OrderPlaced" were sent, not 1'):
        signalbus_relay.assert_sent("OrderPlaced", timeout=0.1)

def test_too_many(session, signalbus_relay):
    session.add_all([OrderPlaced(customer="Ada"), OrderPlaced(customer="Ada")])
    session.commit()
    with pytest.raises(AssertionError, match="2 signals"):
        signalbus_relay.assert_sent("OrderPlaced")
"""


def test_an_application_asserts_what_was_sent(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNALBUS_COMMAND", RELAY)
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(TESTS)
    pytester.runpytest_subprocess("-q", "-W", "error").assert_outcomes(passed=3)


def test_a_missing_command_is_told(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNALBUS_COMMAND", "/bin/false")
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_subprocess("-q")
    result.assert_outcomes(errors=3)
    result.stdout.fnmatch_lines(["*/bin/false init*"])


def test_every_database_is_recorded(database: Database, tmp_path: Path) -> None:
    engine = database.engine()
    Base.metadata.create_all(engine)
    relay = RecordingRelay(Base, engine, tmp_path, RELAY, PLUGINS / "log.wasm")
    with Session(engine) as session:
        session.add_all([OrderPlaced(customer="Ada", lines=[OrderLine(sku="a")]), Shipped(carrier="DHL")])
        session.commit()
    assert [order["customer_name"] for order in relay.assert_sent("OrderPlaced")] == ["Ada"]
    assert [shipped["carrier"] for shipped in relay.assert_sent("Shipped")] == ["DHL"]
    relay.assert_nothing_sent("Event")
    relay.stop()
    with engine.connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(OrderLine)) == 0
    engine.dispose()
