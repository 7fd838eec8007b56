"""Which mapped classes are signal types, and what they say about themselves.

A mapped class is a signal type if it has the mixin `SignalMixin`, the decorator `signal`, or, as in Flask-SignalBus, a
method named `send_signalbus_message`. (The method is never called: a plugin of the relay sends.) What it may say:

| attribute | default | meaning |
|---|---|---|
| `signalbus_order_by` | `()` | columns, or `desc(column)`: the relay sends in this strict order |
| `signalbus_order_key` | `()` | columns: strict order within each of their values, and these in parallel |
| `signalbus_burst_count` | the relay's | most signals in one batch |
| `signalbus_autoflush` | `True` | whether the relay sends it by itself, and is woken for it |
| `signalbus_name` | the class' name | the name of the signal type |
| `signalbus_view` | none | the view from which the relay reads the rows |
| `signalbus_plugin` | none | the plugin's file, relative to `signalbus.toml` |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

from sqlalchemy import Table
from sqlalchemy.orm import Mapper, registry

__all__ = [
    "ModelError",
    "SignalMixin",
    "find_registry",
    "is_signal",
    "name_of",
    "signal",
    "signal_mappers",
    "types_by_table",
]

Model = TypeVar("Model")


class SignalMixin:
    """Makes a mapped class, and those derived from it, a signal type."""

    signalbus_signal: ClassVar[bool] = True
    signalbus_autoflush: ClassVar[bool] = True
    signalbus_order_by: ClassVar[Sequence[Any]] = ()


def signal(model: type[Model]) -> type[Model]:
    """Makes the decorated class, and those derived from it, a signal type."""
    model.signalbus_signal = True  # type: ignore[attr-defined]
    return model


class ModelError(Exception):
    """Models say what the relay cannot do. `faults` has one line for each."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = list(faults)


def is_signal(model: type) -> bool:
    """Tells whether a class is a signal type."""
    marked = getattr(model, "signalbus_signal", None)
    return bool(marked) if marked is not None else hasattr(model, "send_signalbus_message")


def name_of(model: type) -> str:
    """The name of a signal type."""
    own = model.__dict__.get("signalbus_name")
    return own if isinstance(own, str) else model.__name__


def find_registry(models: Any) -> registry:
    """The registry of a declarative base, of a Flask-SQLAlchemy extension, or the registry itself."""
    for candidate in (
        models,
        getattr(models, "registry", None),
        getattr(getattr(models, "Model", None), "registry", None),
    ):
        if isinstance(candidate, registry):
            return candidate
    raise TypeError(f"{models!r} is neither a declarative base, a Flask-SQLAlchemy extension nor a registry")


def signal_mappers(models: Any) -> list[Mapper[Any]]:
    """The mappers of all signal types, in the order in which their tables were defined.

    Raises `ModelError` if two of them have one name.
    """
    found = find_registry(models)
    # All registries, since a base may have relationships to others.
    found.configure(cascade=True)
    mappers = [mapper for mapper in found.mappers if isinstance(mapper.local_table, Table) and is_signal(mapper.class_)]
    mappers.sort(key=_order)
    _refuse_duplicates(mappers)
    return mappers


def _order(mapper: Mapper[Any]) -> tuple[int, str]:
    table: Any = mapper.local_table
    return list(table.metadata.tables).index(table.key), name_of(mapper.class_)


def _refuse_duplicates(mappers: list[Mapper[Any]]) -> None:
    named: dict[str, type] = {}
    faults = []
    for mapper in mappers:
        model = mapper.class_
        other = named.setdefault(name_of(model), model)
        if other is not model:
            both = " and ".join(f"{known.__module__}.{known.__qualname__}" for known in (other, model))
            faults.append(f'two signal types are named "{name_of(model)}": {both}; give one of them a `signalbus_name`')
    if faults:
        raise ModelError(faults)


def types_by_table(models: Any) -> dict[Any, frozenset[str]]:
    """The names of the signal types that an INSERT into a table may concern; only those with autoflush."""
    found: dict[Any, set[str]] = {}
    for mapper in signal_mappers(models):
        if getattr(mapper.class_, "signalbus_autoflush", True):
            # A row of a derived class has a row in its ancestors' tables, too; these announce the ancestors.
            found.setdefault(mapper.local_table, set()).add(name_of(mapper.class_))
    return {table: frozenset(names) for table, names in found.items()}
