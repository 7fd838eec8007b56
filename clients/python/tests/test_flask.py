"""What Flask-SignalBus' own tests assert, with the real relay; each with the three ways of attaching it."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask_sqlalchemy import SQLAlchemy

from conftest import PLUGINS, RELAY, REPOSITORY, Relay
from servers import wait_until
from signalbus import FlushError, RelayError
from signalbus.export import Configuration, relay_url
from signalbus.flask import AtomicProceduresMixin, SignalBus, SignalBusMixin
from signalbus.source import sources

REJECTS = REPOSITORY / "target/wasm32-wasip2/guest/examples/rejects.wasm"


class Alchemy(AtomicProceduresMixin, SignalBusMixin, SQLAlchemy):
    pass


class Shop:
    """An application with one signal type, `Signal`, and what its relay did."""

    def __init__(self, app: Flask, db: Any, relay: Relay) -> None:
        self.app, self.db, self.relay = app, db, relay
        self.cli = app.test_cli_runner()
        self.define(db)

    def define(self, db: Any) -> None:
        class NonSignal(db.Model):  # type: ignore[name-defined,misc]
            __tablename__ = "test_non_signal"
            id = sa.Column(sa.Integer, primary_key=True)

        class Signal(db.Model):  # type: ignore[name-defined,misc]
            __tablename__ = "test_signal"
            __table_args__ = {"sqlite_autoincrement": True}
            id = sa.Column(sa.Integer, primary_key=True)
            name = sa.Column(sa.String(60))
            value = sa.Column(sa.String(60))
            properties = db.relationship("Property", cascade="all, delete-orphan")

            signalbus_order_by = [value]
            signalbus_burst_count = 100

            def send_signalbus_message(self) -> None:
                raise AssertionError("the relay sends")

        class Property(db.Model):  # type: ignore[name-defined,misc]
            __tablename__ = "test_property"
            id = sa.Column(sa.Integer, primary_key=True)
            signal_id = sa.Column(sa.Integer, sa.ForeignKey("test_signal.id"))
            name = sa.Column(sa.String(60))

        self.NonSignal, self.Signal, self.Property = NonSignal, Signal, Property

    @property
    def bus(self) -> SignalBus:
        bus: SignalBus = self.app.extensions["signalbus"]
        return bus

    def create(self, plugin: Any = PLUGINS / "log.wasm") -> Shop:
        self.db.create_all()
        configuration = Configuration(self.relay.file)
        configuration.begin(relay_url(self.db.engine.url, self.relay.folder))
        configuration.plugin(str(plugin))
        configuration.update(sources(self.db, cascades=False))
        configuration.save()
        self.relay.done("migrate")
        return self

    def add(self, *values: str, name: str = "signal") -> None:
        self.db.session.add_all([self.Signal(name=name, value=value) for value in values])
        self.db.session.commit()

    def left(self) -> int:
        found: int = self.db.session.scalar(sa.select(sa.func.count()).select_from(self.Signal))
        self.db.session.rollback()
        return found

    def run(self, *words: str) -> Any:
        return self.cli.invoke(args=["signalbus", *words])


@pytest.fixture
def app(relay: Relay) -> Iterator[Flask]:
    app = Flask("shop")
    app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{relay.folder}/outbox.db"
    app.config["SIGNALBUS_COMMAND"] = RELAY
    app.config["SIGNALBUS_CONFIG"] = str(relay.file)
    with app.app_context():
        yield app


@pytest.fixture(params=["direct", "mixin", "init_app"])
def shop(request: pytest.FixtureRequest, app: Flask, relay: Relay) -> Iterator[Shop]:
    db: Any
    if request.param == "direct":
        db = SQLAlchemy(app)
        SignalBus(db)
    elif request.param == "mixin":
        db = Alchemy(app)
    else:
        db = Alchemy()
        db.init_app(app)
    yield Shop(app, db, relay)
    db.session.remove()
    db.engine.dispose()


@pytest.fixture
def info(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "signalbus")
    return caplog


# How it attaches.


def test_create_signalbus_alchemy(app: Flask) -> None:
    db = Alchemy(app)
    assert app.extensions["signalbus"] is db.signalbus and db.signalbus.get_signal_models() == []
    db.engine.dispose()


def test_create_signalbus_alchemy_init_app(app: Flask) -> None:
    db = Alchemy()
    assert "signalbus" not in app.extensions
    db.init_app(app)
    assert app.extensions["signalbus"] is db.signalbus and db.signalbus.get_signal_models() == []
    db.engine.dispose()


def test_create_signalbus_directly(app: Flask) -> None:
    db = SQLAlchemy(app)
    bus = SignalBus(db)
    assert app.extensions["signalbus"] is bus and bus.get_signal_models() == []
    db.engine.dispose()


def test_create_two_signalbuses_directly(app: Flask) -> None:
    db = SQLAlchemy(app)
    SignalBus(db)
    with pytest.raises(RuntimeError, match="more than one SignalBus"):
        SignalBus(db)
    db.engine.dispose()


def test_create_signalbus_directly_no_app() -> None:
    db = SQLAlchemy()
    with pytest.raises(RuntimeError, match="No application found"):
        SignalBus(db)
    app = Flask("other")
    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
    db.init_app(app)
    bus = SignalBus(db)
    assert app.extensions["signalbus"] is bus
    with app.app_context():
        db.engine.dispose()


# Flushing.


def test_flush_signal_model(shop: Shop) -> None:
    shop.create()
    assert shop.bus.get_signal_models() == [shop.Signal]
    assert shop.bus.flush([shop.Signal], wait=0) == 0
    assert shop.bus.flush([]) == 0


def test_flush_nonsignal_model(shop: Shop) -> None:
    shop.create()
    shop.add("a")
    for flush in (shop.bus.flush, shop.bus.flushmany, shop.bus.flushordered):
        with pytest.raises(RuntimeError, match="NonSignal can not be flushed"):
            flush([shop.Signal, shop.NonSignal])
    with pytest.raises(ValueError, match="negative"):
        shop.bus.flush(wait=-1)
    assert shop.left() == 1


def test_flush_signal_send_many_success(shop: Shop, capfd: pytest.CaptureFixture[str]) -> None:
    shop.create()
    shop.add("b", "a")
    assert shop.bus.flushordered([shop.Signal]) == 2
    log = capfd.readouterr().err
    assert log.index('\\"value\\":\\"a\\"') < log.index('\\"value\\":\\"b\\"')
    assert shop.left() == 0


def test_flush_all_signal_models(shop: Shop) -> None:
    shop.create()
    shop.add("a")
    shop.db.session.add(shop.NonSignal())
    shop.db.session.commit()
    begun = time.monotonic()
    assert shop.bus.flush(wait=0.5) == 1
    assert time.monotonic() - begun >= 0.5 and shop.left() == 0
    assert shop.db.session.query(shop.NonSignal).count() == 1


def test_flushmany_signal_model(shop: Shop) -> None:
    shop.create()
    shop.add("a")
    assert shop.bus.flushmany([shop.Signal]) == 1


# Sending after the commit.


def started(shop: Shop) -> None:
    """The relay runs, and only looks when it is woken or its file changed."""
    url = shop.create().relay.start()
    shop.bus.configure(url, "token-of-the-tests", RELAY, str(shop.relay.file))


def test_send_signal_success(shop: Shop) -> None:
    started(shop)
    shop.db.session.add(shop.Signal(name="signal", value="1"))
    shop.db.session.flush()
    assert shop.relay.sent("Signal") == 0
    shop.db.session.commit()
    wait_until(lambda: shop.relay.sent("Signal") == 1, "sent", 10)
    assert shop.left() == 0
    log = (shop.relay.folder / "log").read_text()
    assert '{\\"id\\":1,\\"name\\":\\"signal\\",\\"value\\":\\"1\\"}' in log


def test_send_signal_error(shop: Shop) -> None:
    shop.create(REJECTS)
    shop.add("a", name="error")
    with pytest.raises(FlushError, match="buried 1") as raised:
        shop.bus.flush(wait=0)
    assert raised.value.flushed.buried == 1 and raised.value.status == 1
    assert shop.left() == 1


def test_autoflush_false(shop: Shop) -> None:
    started(shop)
    assert shop.bus.autoflush is True
    shop.bus.autoflush = 0  # type: ignore[assignment]
    assert shop.bus.autoflush is False
    shop.add("a")
    assert shop.bus.waker and shop.bus.waker.wait(5) and shop.relay.woken() == 0
    shop.bus.autoflush = True
    shop.add("b")
    wait_until(lambda: shop.relay.sent("Signal") == 2, "sent", 10)
    assert shop.relay.woken() == 1


def test_model_autoflush_false(shop: Shop) -> None:
    shop.Signal.signalbus_autoflush = False
    started(shop)
    shop.add("a")
    assert shop.bus.waker and shop.bus.waker.wait(5)
    assert (shop.relay.woken(), shop.relay.status(), shop.left()) == (0, {}, 1)
    assert shop.bus.flush(wait=0) == 1


def test_send_nonsignal_model(shop: Shop) -> None:
    started(shop)
    shop.db.session.add(shop.NonSignal())
    shop.db.session.commit()
    assert shop.bus.waker and shop.bus.waker.wait(5) and shop.relay.woken() == 0
    assert shop.db.session.query(shop.NonSignal).count() == 1


def test_signal_with_props_success(shop: Shop) -> None:
    started(shop)
    shop.db.session.add(shop.Signal(name="signal", value="1", properties=[shop.Property(name="a")]))
    shop.db.session.commit()
    wait_until(lambda: shop.relay.sent("Signal") == 1, "sent", 10)
    assert shop.left() == 0 and shop.db.session.query(shop.Property).count() == 0


def test_signal_with_props_is_efficient(shop: Shop) -> None:
    started(shop)
    statements: list[str] = []
    listen = sa.event.listen
    listen(shop.db.engine, "before_cursor_execute", lambda _c, _u, text, *_: statements.append(text.split()[0]))
    shop.db.session.add(shop.Signal(name="signal", value="1", properties=[shop.Property(name="a")]))
    shop.db.session.commit()
    wait_until(lambda: shop.relay.sent("Signal") == 1, "sent", 10)
    assert statements == ["INSERT", "INSERT"]


def test_flush_signal_with_props(shop: Shop) -> None:
    shop.create()
    shop.db.session.add(shop.Signal(name="signal", value="1", properties=[shop.Property(name="a")]))
    shop.db.session.commit()
    assert shop.bus.flush(wait=0) == 1
    assert shop.left() == 0 and shop.db.session.query(shop.Property).count() == 0


# The commands.


@pytest.mark.parametrize("command", ["flush --wait 0", "flushmany", "flushordered"])
def test_cli_flush_empty(shop: Shop, info: pytest.LogCaptureFixture, command: str) -> None:
    shop.create()
    done = shop.run(*command.split())
    assert (done.exit_code, done.stdout) == (0, "")
    assert info.messages == ["Started flushing Signal."]


def test_cli_flushmany_nosignals(app: Flask, info: pytest.LogCaptureFixture) -> None:
    db = Alchemy(app)
    done = app.test_cli_runner().invoke(args=["signalbus", "flushmany"])
    assert (done.exit_code, done.stdout, info.messages) == (0, "", ["Started flushing ."])
    db.engine.dispose()


@pytest.mark.parametrize(
    ("words", "messages", "left"),
    [
        ("flush -w 0", ["Started flushing Signal.", "1 signal has been successfully processed."], 0),
        ("flush Signal -w 0", ["Started flushing Signal.", "1 signal has been successfully processed."], 0),
        (
            "flush WrongSignalName -w 0",
            ['A signal with name "WrongSignalName" does not exist.', "Started flushing ."],
            1,
        ),
        ("flush --exclude Signal -w 0", ["Started flushing ."], 1),
        (
            "flush --exclude Wrong --wait=-1",
            [
                'A signal with name "Wrong" does not exist.',
                "Started flushing Signal.",
                "1 signal has been successfully processed.",
            ],
            0,
        ),
        (
            "flush Signal -e Signal -w 0",
            ["Specified both SIGNAL_NAMES and exclude option.", "Started flushing ."],
            1,
        ),
        ("flushmany", ["Started flushing Signal.", "1 signal has been successfully processed."], 0),
        ("flushordered Signal", ["Started flushing Signal.", "1 signal has been successfully processed."], 0),
    ],
)
def test_cli_flush_pending(
    shop: Shop, info: pytest.LogCaptureFixture, words: str, messages: list[str], left: int
) -> None:
    shop.create()
    shop.add("a")
    done = shop.run(*words.split())
    assert (done.exit_code, done.stdout) == (0, "")
    assert info.messages == messages
    assert shop.left() == left


def test_cli_flush_error(shop: Shop, info: pytest.LogCaptureFixture) -> None:
    shop.create(REJECTS)
    shop.add("a")
    done = shop.run("flush", "-w", "0")
    assert done.exit_code == 1 and "error while sending pending signals" in info.messages[-1]
    assert shop.left() == 1


def test_cli_show_signals(shop: Shop) -> None:
    assert shop.run("signals").stdout == "Signal\n"


def test_cli_show_pending(shop: Shop) -> None:
    shop.create()
    shop.add("a")
    done = shop.run("pending")
    assert done.stdout == f'      1 of type "Signal"\n{"-" * 25}\nTotal pending: 1\n'
    assert done.exit_code == 0


def test_cli_wrong_usage(shop: Shop) -> None:
    assert shop.run("flush", "--nonsense").exit_code == 2


def test_cli_without_the_relay(shop: Shop, info: pytest.LogCaptureFixture) -> None:
    shop.bus.configure(command="/nowhere/signalbus")
    for command in ("flushmany", "pending"):
        assert shop.run(command).exit_code == 1
        assert 'cannot run the relay\'s command "/nowhere/signalbus"' in info.messages[-1]
    with pytest.raises(RelayError, match="cannot run"):
        shop.bus.flush(wait=0)


PROGRAM = """
import logging
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from signalbus.flask import SignalBus

logging.basicConfig(level="INFO")
app = Flask("shop")
app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:///{folder}/outbox.db"
db = SQLAlchemy(app)

class Signal(db.Model):
    __tablename__ = "test_signal"
    id = db.Column(db.Integer, primary_key=True)
    signalbus_signal = True

SignalBus(db)
"""


@pytest.mark.parametrize("shop", ["direct"], indirect=True)
def test_cli_repeat_stops_in_order(shop: Shop) -> None:
    """SIGTERM reaches the relay, which finishes, and the exit status is its own."""
    shop.create()
    shop.add("a")
    (shop.relay.folder / "shop.py").write_text(PROGRAM.format(folder=shop.relay.folder))
    words = [sys.executable, "-m", "flask", "--app", "shop", "signalbus", "flushmany", "-r", "0.1"]
    environment = {**os.environ, "SIGNALBUS_COMMAND": RELAY, "SIGNALBUS_CONFIG": str(shop.relay.file)}
    with open(shop.relay.folder / "out", "wb") as out:
        process = subprocess.Popen(words, cwd=shop.relay.folder, stderr=out, env=environment)
    try:
        wait_until(lambda: shop.left() == 0, "sent", 20)
        shop.add("b")
        wait_until(lambda: shop.left() == 0, "sent again", 20)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, (shop.relay.folder / "out").read_text()
    finally:
        process.kill()
    assert (shop.relay.folder / "out").read_text().count("1 signal has been successfully processed.") == 2


# Atomic procedures of the extension; `test_atomic.py` has the rest.


def test_procedures_of_the_extension(app: Flask, relay: Relay) -> None:
    db: Any = Alchemy(app)
    shop = Shop(app, db, relay)
    db.create_all()

    @db.atomic
    def create(value: str) -> Any:
        signal = shop.Signal(name="signal", value=value)
        db.session.add(signal)
        with db.retry_on_integrity_error():
            db.session.merge(shop.NonSignal(id=1))
        return shop.Signal.get_pk_values(signal)

    assert create("a") == (1,) and shop.left() == 1

    @db.execute_atomic
    def result() -> str:
        with shop.Signal.modify(1) as signal:
            signal.value = "b"
        assert shop.Signal.lock_instance(signal) is shop.Signal.get_instance(1) is signal
        return str(signal.value)

    assert result == "b"
    assert shop.Signal.get_instance(99) is None is shop.Signal.lock_instance(99)
    with pytest.raises(AssertionError):
        with db.retry_on_integrity_error():
            pass
    db.session.remove()
    db.engine.dispose()


def test_isolation_is_repeatable_read_unless_configured() -> None:
    db: Any = Alchemy()
    app = Flask("shop")
    for url, given, expected in [
        ("postgresql+psycopg2://h/d", {}, "REPEATABLE READ"),
        ("mysql+pymysql://h/d", {}, "REPEATABLE READ"),
        ("postgresql+psycopg2://h/d", {"isolation_level": "SERIALIZABLE"}, "SERIALIZABLE"),
        ("postgresql+psycopg2://h/d", {"execution_options": {"isolation_level": "SERIALIZABLE"}}, None),
        ("sqlite://", {}, None),
    ]:
        options = {"url": sa.make_url(url), **given}
        db._apply_driver_defaults(options, app)
        assert options.get("isolation_level") == expected
