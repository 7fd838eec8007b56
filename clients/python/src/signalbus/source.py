"""What the relay's configuration says of a signal type, as its mapped class implies it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Dialect, Select, Table, select
from sqlalchemy.orm import Mapper, RelationshipProperty
from sqlalchemy.orm.exc import UnmappedColumnError
from sqlalchemy.orm.interfaces import ONETOMANY
from sqlalchemy.schema import Column
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import UnaryExpression

from .model import ModelError, name_of, signal_mappers

__all__ = ["Source", "sources"]


@dataclass(frozen=True)
class View:
    """What a signal type is read through where its rows are not simply those of a table."""

    schema: str | None
    name: str
    query: Select[Any]

    def create(self, dialect: Dialect) -> str:
        """The statement that creates it."""
        quote = dialect.identifier_preparer.quote
        name = ".".join(quote(part) for part in (self.schema, self.name) if part)
        return f"CREATE VIEW {name} AS {self.query.compile(dialect=dialect, compile_kwargs={'literal_binds': True})}"


@dataclass(frozen=True)
class Source:
    """One signal type. `keys` are those of its section `[signals.NAME]` that its class implies."""

    name: str
    module: str
    keys: dict[str, Any]
    view: View | None = None


def sources(models: Any, *, cascades: bool = True) -> list[Source]:
    """Describes all signal types. `cascades` tells whether the relay's connection obeys ON DELETE CASCADE.

    Raises `ModelError` with everything that the relay's configuration cannot say.
    """
    described: list[Source] = []
    faults: list[str] = []
    for mapper in signal_mappers(models):
        reader = _Reader(mapper, cascades)
        described.append(reader.source())
        faults.extend(f"{mapper.class_.__name__}: {fault}" for fault in reader.faults)
    if faults:
        raise ModelError(faults)
    return described


class _Reader:
    def __init__(self, mapper: Mapper[Any], cascades: bool) -> None:
        self.mapper = mapper
        self.cascades = cascades
        self.faults: list[str] = []

    def source(self) -> Source:
        model = self.mapper.class_
        base: Any = self.mapper.base_mapper.local_table
        named = getattr(model, "signalbus_view", None)
        view = None if named else self._view(base)
        keys: dict[str, Any] = {"table": qualified(base)}
        if named or view:
            keys["view"] = qualified(view) if view else named
        self._lists(keys)
        if not getattr(model, "signalbus_autoflush", True):
            keys["autoflush"] = False
        if (burst := getattr(model, "signalbus_burst_count", None)) is not None:
            keys["burst_count"] = self._burst(burst)
        if plugin := getattr(model, "signalbus_plugin", None):
            keys["plugin"] = str(plugin)
        return Source(name_of(model), model.__module__, keys, view)

    def _lists(self, keys: dict[str, Any]) -> None:
        model = self.mapper.class_
        also_delete = [*self._ancestors(), *self._children()]
        if also_delete and len(self.mapper.base_mapper.primary_key) > 1:
            self.faults.append("its primary key has several columns: its child rows need ON DELETE CASCADE")
        lists = {
            "also_delete": also_delete,
            "order_by": [self._order(term) for term in _terms(model, "signalbus_order_by")],
            "order_key": [self._column(term) for term in _terms(model, "signalbus_order_key")],
        }
        keys.update({key: values for key, values in lists.items() if values})

    def _burst(self, burst: Any) -> int:
        if int(burst) < 1:
            self.faults.append('"signalbus_burst_count" must be positive')
        return int(burst)

    def _order(self, term: Any) -> str:
        descending = isinstance(term, UnaryExpression) and term.modifier is operators.desc_op
        ascending = isinstance(term, UnaryExpression) and term.modifier is operators.asc_op
        name = self._column(term.element if descending or ascending else term)
        return f"{name} desc" if descending else name

    def _column(self, term: Any) -> str:
        column = term.__clause_element__() if hasattr(term, "__clause_element__") else term
        if isinstance(column, str):
            return column
        if isinstance(column, Column):
            return str(column.name)
        self.faults.append(
            f"the relay orders by columns, not by `{column}`: show it as a column of a view (`signalbus_view`)"
        )
        return ""

    def _view(self, base: Table) -> View | None:
        """A class that shares its table with others, or extends over several, is read through a view."""
        mapper = self.mapper
        family = mapper.inherits is not None and not mapper.concrete
        if not family and not any(
            not derived.concrete for derived in mapper.self_and_descendants if derived is not mapper
        ):
            return None
        query: Select[Any] = select(*_labelled(mapper)).select_from(mapper.class_)
        if mapper.polymorphic_on is not None:
            # Derived classes are signal types of their own.
            query = query.where(mapper.polymorphic_on == mapper.polymorphic_identity)
        elif len(list(mapper.self_and_descendants)) > 1:
            self.faults.append("without a `polymorphic_on`, its rows cannot be told from those of derived classes")
        return View(base.schema, f"{snake_case(name_of(mapper.class_))}_signals", query)

    def _ancestors(self) -> Iterator[str]:
        """The tables of a joined inheritance, but the first one, which is the signal's own."""
        base: Any = self.mapper.base_mapper.local_table
        tables = [m.local_table for m in self.mapper.iterate_to_root() if not m.concrete and m.local_table is not base]
        for table in dict.fromkeys(tables):
            for column in table.primary_key:
                if not self._goes_by_itself(column):
                    yield f"{qualified(table)}.{part(column.name)}"

    def _children(self) -> Iterator[str]:
        for relation in self.mapper.relationships:
            column = _child_column(relation)
            if column is None or self._goes_by_itself(column):
                continue
            if relation.synchronize_pairs[0][0] not in self.mapper.primary_key:
                self.faults.append(
                    f'the rows of "{column.table}" do not refer to its primary key: they need ON DELETE CASCADE'
                )
            yield f"{qualified(column.table)}.{part(column.name)}"
            if relation.secondary is None:
                self._refuse_grandchildren(relation)

    def _refuse_grandchildren(self, relation: RelationshipProperty[Any]) -> None:
        for deeper in relation.mapper.relationships:
            column = _child_column(deeper)
            if column is not None and not self._goes_by_itself(column):
                remedy = (
                    "`?foreign_keys=on` in the URL and ON DELETE CASCADE" if not self.cascades else "ON DELETE CASCADE"
                )
                self.faults.append(f'the rows of "{column.table}" are children of child rows: they need {remedy}')

    def _goes_by_itself(self, column: Any) -> bool:
        return self.cascades and any((key.ondelete or "").upper() == "CASCADE" for key in column.foreign_keys)


def _terms(model: type, name: str) -> Sequence[Any]:
    value = getattr(model, name, ())
    return value if isinstance(value, (list, tuple)) else (value,)


def _child_column(relation: RelationshipProperty[Any]) -> Any:
    """The column by which rows belong to a parent that the ORM would delete with it."""
    if relation.secondary is None and not (relation.direction is ONETOMANY and relation.cascade.delete):
        return None
    return None if relation.viewonly else relation.synchronize_pairs[0][1]


def _labelled(mapper: Mapper[Any]) -> Iterator[Any]:
    """A class' columns, the base's first; another column of a taken name has its table's name in front."""
    taken: set[str] = set()
    base: Any = mapper.base_mapper.local_table
    tables: list[Any] = [ancestor.local_table for ancestor in mapper.iterate_to_root()]
    for table in dict.fromkeys(reversed(tables)):
        for column in table.columns:
            # A key of a derived class equals its base's; a table may have columns of other classes, too.
            if not _is_mapped(mapper, column) or (column.primary_key and table is not base):
                continue
            yield column.label(f"{table.name}_{column.name}") if column.name in taken else column
            taken.add(column.name)


def _is_mapped(mapper: Mapper[Any], column: Column[Any]) -> bool:
    try:
        return bool(mapper.get_property_by_column(column))
    except UnmappedColumnError:
        return False


def qualified(table: Any) -> str:
    """The name of a table or a view, as the relay reads it."""
    return ".".join(part(name) for name in (table.schema, table.name) if name)


def part(name: str) -> str:
    """A part of a name; in double quotes if it would otherwise be read as several."""
    return '"' + name.replace('"', '""') + '"' if re.search(r'[."]', name) else name


def snake_case(name: str) -> str:
    """`OrderPlaced` becomes `order_placed`, `HTTPSent` becomes `http_sent`."""
    return re.sub(r"(?<=[^A-Z_])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
