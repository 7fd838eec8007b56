from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import ForeignKey, desc
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from conftest import PLUGINS, Database, Relay
from servers import Redis
from signalbus import ModelError, SignalMixin, signal
from signalbus.__main__ import main
from signalbus.export import Configuration, relay_url, sql_dialect
from signalbus.model import signal_mappers
from signalbus.source import snake_case, sources


class Base(DeclarativeBase):
    pass


class Customer(Base):
    """No signal."""

    __tablename__ = "customer"
    id: Mapped[int] = mapped_column(primary_key=True)


class OrderPlaced(SignalMixin, Base):
    __tablename__ = "order_placed"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str] = mapped_column("customer_name", sa.String(50))
    urgency: Mapped[int] = mapped_column(default=0)
    lines: Mapped[list[OrderLine]] = relationship(cascade="all, delete-orphan")

    signalbus_burst_count = 20


OrderPlaced.signalbus_order_by = (desc(OrderPlaced.urgency), OrderPlaced.id)


class OrderLine(Base):
    __tablename__ = "order_line"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("order_placed.id"))
    sku: Mapped[str] = mapped_column(sa.String(20))


@signal
class Moved(Base):
    """As in Flask-SignalBus: two columns in the key, and the parts in two tables."""

    __tablename__ = "moved"
    warehouse: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    item: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


class Paid(Base):
    __tablename__ = "paid"
    id: Mapped[int] = mapped_column(primary_key=True)
    signalbus_autoflush = False

    def send_signalbus_message(self) -> None:
        raise AssertionError("the relay sends")


class Event(SignalMixin, Base):
    """The root of two hierarchies: one in a table for each class, one in a single table."""

    __tablename__ = "event"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(sa.String(20))
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "event"}


class Shipped(Event):
    __tablename__ = "shipped"
    id: Mapped[int] = mapped_column(ForeignKey("event.id"), primary_key=True)
    carrier: Mapped[str] = mapped_column(sa.String(20))
    __mapper_args__ = {"polymorphic_identity": "shipped"}


class Lost(Event):
    reason: Mapped[str | None] = mapped_column(sa.String(20))
    __mapper_args__ = {"polymorphic_identity": "lost"}


ALL = {"OrderPlaced", "Moved", "Paid", "Event", "Shipped", "Lost"}


def keys(name: str, cascades: bool = True) -> dict[str, Any]:
    return {source.name: source.keys for source in sources(Base, cascades=cascades)}[name]


def test_signal_types_are_found_in_the_order_of_their_tables() -> None:
    assert [m.class_.__name__ for m in signal_mappers(Base)] == [
        "OrderPlaced",
        "Moved",
        "Paid",
        "Event",
        "Lost",
        "Shipped",
    ]


def test_what_a_class_says_is_written() -> None:
    assert keys("OrderPlaced") == {
        "table": "order_placed",
        "also_delete": ["order_line.order_id"],
        "order_by": ["urgency desc", "id"],
        "burst_count": 20,
    }
    assert keys("Moved") == {"table": "moved"}
    assert keys("Paid") == {"table": "paid", "autoflush": False}


@pytest.mark.filterwarnings("ignore:Ignoring declarative-like tuple")
def test_an_order_may_be_said_in_the_class_itself() -> None:
    class Other(DeclarativeBase):
        pass

    class Tuple(SignalMixin, Other):
        __tablename__ = "tuple"
        id: Mapped[int] = mapped_column("key", primary_key=True)
        signalbus_order_by = (id,)

    class Mixed(SignalMixin, Other):
        __tablename__ = "mixed"
        id = mapped_column(sa.Integer, primary_key=True)
        late = sa.Column(sa.Integer)
        signalbus_order_by = (desc(late), sa.asc(id), "id")
        signalbus_order_key = ["late"]

    assert [source.keys for source in sources(Other)] == [
        {"table": "tuple", "order_by": ["key"]},
        {"table": "mixed", "order_by": ["late desc", "id", "id"], "order_key": ["late"]},
    ]
    assert Tuple and Mixed


def test_inherited_classes_are_read_through_views() -> None:
    assert keys("Shipped") == {"table": "event", "view": "shipped_signals", "also_delete": ["shipped.id"]}
    assert keys("Lost") == {"table": "event", "view": "lost_signals"}
    assert keys("Event") == {"table": "event", "view": "event_signals"}


def test_cascades_of_the_database_are_left_to_it() -> None:
    class Other(DeclarativeBase):
        pass

    class Parent(SignalMixin, Other):
        __tablename__ = "parent"
        id: Mapped[int] = mapped_column(primary_key=True)
        children: Mapped[list[Child]] = relationship(cascade="all, delete-orphan", passive_deletes=True)

    class Child(Other):
        __tablename__ = "child"
        id: Mapped[int] = mapped_column(primary_key=True)
        parent_id: Mapped[int] = mapped_column(ForeignKey("parent.id", ondelete="CASCADE"))

    globals().update(Parent=Parent, Child=Child)
    assert sources(Other, cascades=True)[0].keys == {"table": "parent"}
    assert sources(Other, cascades=False)[0].keys == {"table": "parent", "also_delete": ["child.parent_id"]}


def test_what_the_relay_cannot_do_is_reported_at_once() -> None:
    class Other(DeclarativeBase):
        pass

    class Parent(SignalMixin, Other):
        __tablename__ = "first"
        a: Mapped[int] = mapped_column(primary_key=True)
        b: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str]
        signalbus_burst_count = 0
        children: Mapped[list[Second]] = relationship(cascade="all", primaryjoin="Parent.a == foreign(Second.a)")

    class Second(Other):
        __tablename__ = "second"
        a: Mapped[int] = mapped_column(primary_key=True)

    Parent.signalbus_order_by = (sa.func.lower(Parent.name),)
    globals().update(Second=Second)
    with pytest.raises(ModelError) as raised:
        sources(Other)
    faults = "\n".join(raised.value.faults)
    assert len(raised.value.faults) == 3, faults
    for part in ["Parent: ", "several columns", "must be positive", "not by `lower("]:
        assert part in faults


def test_children_of_children_need_the_database() -> None:
    class Other(DeclarativeBase):
        pass

    class Top(SignalMixin, Other):
        __tablename__ = "top"
        id: Mapped[int] = mapped_column(primary_key=True)
        middles: Mapped[list[Middle]] = relationship(cascade="all")

    class Middle(Other):
        __tablename__ = "middle"
        id: Mapped[int] = mapped_column(primary_key=True)
        top_id: Mapped[int] = mapped_column(ForeignKey("top.id", ondelete="CASCADE"))
        leaves: Mapped[list[Leaf]] = relationship(cascade="all")

    class Leaf(Other):
        __tablename__ = "leaf"
        id: Mapped[int] = mapped_column(primary_key=True)
        middle_id: Mapped[int] = mapped_column(ForeignKey("middle.id", ondelete="CASCADE"))

    globals().update(Middle=Middle, Leaf=Leaf)
    assert sources(Other, cascades=True)[0].keys == {"table": "top"}
    with pytest.raises(ModelError, match="children of child rows: they need `.foreign_keys=on` in the URL"):
        sources(Other, cascades=False)


def test_two_classes_of_one_name_are_an_error() -> None:
    class Other(DeclarativeBase):
        pass

    def define(table: str) -> Any:
        class Twin(SignalMixin, Other):
            __tablename__ = table
            id: Mapped[int] = mapped_column(primary_key=True)

        return Twin

    first = define("one")
    with pytest.warns(sa.exc.SAWarning):
        second = define("two")
    with pytest.raises(ModelError, match='two signal types are named "Twin".*signalbus_name'):
        signal_mappers(Other)
    second.signalbus_name = "Twin2"
    assert [source.name for source in sources(Other)] == ["Twin", "Twin2"]
    assert first is not second


def test_names_are_those_of_the_relay() -> None:
    for name, table in [("OrderPlaced", "order_placed"), ("HTTPSent", "http_sent"), ("A", "a"), ("order", "order")]:
        assert snake_case(name) == table


def test_addresses_are_translated_without_passwords(tmp_path: Path) -> None:
    assert (
        relay_url("postgresql+psycopg2://me:secret@db/shop?sslmode=require", tmp_path)
        == "postgres://me:${SIGNALBUS_DATABASE_PASSWORD}@db/shop"
    )
    assert relay_url("mariadb+pymysql://root@db:3307/shop", tmp_path) == "mysql://root@db:3307/shop"
    assert relay_url(f"sqlite:///{tmp_path}/outbox.db", tmp_path) == f"sqlite://{tmp_path}/outbox.db"
    with pytest.raises(ValueError, match="in memory"):
        relay_url("sqlite://", tmp_path)


def export(relay: Relay, *arguments: str) -> int:
    return main(["export", f"{__name__}:Base", "--file", str(relay.file), *arguments])


def test_drift_is_told_and_ended(relay: Relay, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"--url=sqlite:///{relay.folder}/outbox.db"
    assert export(relay, url, "--check") == 1
    assert "[signals.OrderPlaced] is missing" in capsys.readouterr().out
    assert export(relay, url) == 0
    assert export(relay, "--check") == 0

    text = relay.file.read_text()
    text = text.replace("burst_count = 20", "burst_count = 7 # by hand").replace(
        "autoflush = false\n", "concurrency = 2\n"
    )
    text = text.replace(
        "[signals.Moved] # exported from test_export: table",
        "[signals.Moved] # exported from test_export: table, order_by",
    )
    text = text.replace('table = "moved"', 'table = "moved"\norder_by = ["item"]')
    relay.file.write_text(
        text
        + '\n[signals.Gone] # exported from test_export: table\ntable = "gone"\n\n[signals.Foreign]\nplugin = "x"\n'
    )
    capsys.readouterr()
    assert export(relay, "--check") == 1
    drift = capsys.readouterr().out.splitlines()
    assert [line.split(": ", 1)[1] for line in drift] == [
        "[signals.OrderPlaced] burst_count: 7 should be 20",
        "[signals.Moved] order_by: the model no longer says it",
        "[signals.Paid] autoflush: nothing should be false",
        "[signals.Gone]: no model declares it any more",
    ]
    assert relay.file.read_text().count("by hand") == 1

    assert export(relay) == 0
    assert export(relay, "--check") == 0
    written = relay.file.read_text()
    for kept in ["concurrency = 2", "[signals.Foreign]"]:
        assert kept in written
    assert "Gone" not in written


def test_wrong_targets_are_usage_errors(relay: Relay, capsys: pytest.CaptureFixture[str]) -> None:
    for target in ["nowhere:db", "test_export", "test_export:Nothing", "test_export:pytest"]:
        assert main(["export", target, "--url=sqlite:///x.db", "--file", str(relay.file)]) == 64
    assert not relay.file.exists()


def test_the_relay_drains_what_was_exported(database: Database, relay: Relay, redis: Redis) -> None:
    engine = database.engine()
    Base.metadata.create_all(engine)
    export(relay, "--url", engine.url.render_as_string(False), "--plugin", str(PLUGINS / "publish.wasm"))
    with engine.begin() as connection:
        for source in sources(Base):
            if source.view:
                connection.exec_driver_sql(source.view.create(connection.dialect))
    stream = f"stream-{relay.folder.name}"
    text = relay.file.read_text() + f'[connections.bus]\nurl = "redis://127.0.0.1:{redis.port}"\n'
    defaults = f'[defaults]\ngrants = {{ connections = ["bus"] }}\nsettings = {{ connection = "bus", destination = "{stream}" }}\n'
    relay.file.write_text(text.replace("[defaults]\n", defaults))
    relay.done("migrate")
    relay.done("check")

    with Session(engine) as session:
        session.add_all(OrderPlaced(id=n, customer="Ada", urgency=n, lines=[OrderLine(sku="a")]) for n in range(1, 4))
        session.add_all([Moved(warehouse=1, item=2), Paid(), Event(), Shipped(carrier="DHL"), Lost(reason="sea")])
        session.commit()
    relay.done("flush", "--wait", "0")

    with engine.connect() as connection:
        for table in Base.metadata.sorted_tables:
            assert connection.scalar(sa.select(sa.func.count()).select_from(table)) == 0, table.name
    answer = redis.ask("XRANGE", stream, "-", "+")
    assert answer.count("signal.id") == 0 and answer.count("\r\nbody\r\n") == 8
    orders = [answer.index(f'"id":{n},"customer_name":"Ada","urgency":{n}') for n in (3, 2, 1)]
    assert orders == sorted(orders)
    assert '"kind":"shipped","carrier":"DHL"' in answer and '"reason":"sea"' in answer
    engine.dispose()


def test_the_views_are_printed(relay: Relay, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["views", f"{__name__}:Base", "--url=postgresql://h/d", "--file", str(relay.file)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("CREATE VIEW") == 3 and "WHERE event.kind = 'lost'" in printed
    assert sql_dialect("mysql://h/d").name == "mysql"
    assert Configuration(relay.file).url is None and sys.modules
