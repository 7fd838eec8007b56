"""SignalBus for Flask applications, with the names of Flask-SignalBus.

```python
from signalbus.flask import AtomicProceduresMixin, SignalBusMixin

class Alchemy(AtomicProceduresMixin, SignalBusMixin, SQLAlchemy):
    pass

db = Alchemy()
db.init_app(app)
```

| configuration of the application | default |
|---|---|
| `SIGNALBUS_RELAY_URL` | none: nobody is woken. The relay's admin listener, as in `http://127.0.0.1:9464` |
| `SIGNALBUS_TOKEN` | none. The relay's `admin.token` |
| `SIGNALBUS_COMMAND` | `signalbus`. The relay's command, for `flask signalbus` and the flush methods |
| `SIGNALBUS_CONFIG` | what the relay finds: `$SIGNALBUS_CONFIG` or `signalbus.toml` |

What the application does not configure is taken from the environment variables of the same names.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from flask import Flask, current_app, has_app_context
from sqlalchemy import make_url

from . import procedures
from .bus import SignalBus as _SignalBus
from .flask_cli import signalbus as commands
from .retry import Retry

if TYPE_CHECKING:
    from flask_sqlalchemy import SQLAlchemy
    from flask_sqlalchemy.model import Model

    Base = SQLAlchemy
else:
    Base, Model = object, object

__all__ = ["AtomicProceduresMixin", "SignalBus", "SignalBusMixin"]

P = ParamSpec("P")
T = TypeVar("T")


class SignalBus(_SignalBus):
    """Attaches to an application, and wakes the relay after each commit.

    With `init_app=False`, or without an application in sight, call `init_app` later.
    """

    def __init__(self, db: SQLAlchemy, init_app: bool = True, *, app: Flask | None = None) -> None:
        super().__init__(db)
        self.db = db
        if init_app:
            self.init_app(app or _find_app(db))

    def init_app(self, app: Flask) -> None:
        """Attaches to an application, whose database must have been initialized."""
        if app.extensions.setdefault("signalbus", self) is not self:
            raise RuntimeError("Can not attach more than one SignalBus to one application.")
        app.cli.add_command(commands)
        names = ("SIGNALBUS_RELAY_URL", "SIGNALBUS_TOKEN", "SIGNALBUS_COMMAND", "SIGNALBUS_CONFIG")
        self.configure(*(app.config.get(name) for name in names))
        with app.app_context():
            for engine in self.db.engines.values():
                self.watch(engine)


def _find_app(db: SQLAlchemy) -> Flask:
    """The application in whose context we are, or the only one that the database was initialized for."""
    if has_app_context():
        return current_app._get_current_object()  # type: ignore[attr-defined,no-any-return]
    apps: list[Flask] = list(getattr(db, "_app_engines", ()))
    if len(apps) != 1:
        raise RuntimeError("No application found. Pass `app`, or `init_app=False` and call `init_app` later.")
    return apps[0]


class SignalBusMixin(Base):
    """For classes derived from `flask_sqlalchemy.SQLAlchemy`: `db.signalbus` is the bus of each application."""

    def init_app(self, app: Flask) -> None:
        """Initializes database and bus."""
        super().init_app(app)
        self.signalbus.init_app(app)

    @property
    def signalbus(self) -> SignalBus:
        """The `SignalBus` of this database."""
        bus: SignalBus | None = self.__dict__.get("_signalbus")
        if bus is None:
            bus = self.__dict__["_signalbus"] = SignalBus(self, init_app=False)
        return bus


class _ModelMixin(Model):
    """What every model of a database with atomic procedures can do."""

    __abstract__ = True
    _procedures_session: Any

    @classmethod
    def get_instance(cls, instance_or_pk: Any, *options: Any) -> Any:
        """As `signalbus.get_instance`."""
        return procedures.get_instance(cls._procedures_session(), cls, instance_or_pk, *options)

    @classmethod
    def lock_instance(cls, instance_or_pk: Any, *options: Any, **kw: Any) -> Any:
        """As `signalbus.lock_instance`."""
        return procedures.lock_instance(cls._procedures_session(), cls, instance_or_pk, *options, **kw)

    @classmethod
    def get_pk_values(cls, instance_or_pk: Any) -> tuple[Any, ...]:
        """As `signalbus.get_pk_values`."""
        return procedures.get_pk_values(cls._procedures_session(), cls, instance_or_pk)

    @classmethod
    def modify(cls, instance_or_pk: Any, *options: Any, **kw: Any) -> Any:
        """As `signalbus.modify`."""
        return procedures.modify(cls._procedures_session(), cls, instance_or_pk, *options, **kw)


class AtomicProceduresMixin(Base):
    """For classes derived from `flask_sqlalchemy.SQLAlchemy`: `db.atomic` and the like.

    Models get `get_instance`, `lock_instance`, `modify` and `get_pk_values`. Transactions are REPEATABLE READ, unless
    the application configures another level in `SQLALCHEMY_ENGINE_OPTIONS`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The class of the models exists already; what it has of the same names stays.
        for name, function in vars(_ModelMixin).items():
            if isinstance(function, classmethod) and not hasattr(self.Model, name):
                setattr(self.Model, name, function)
        self.Model._procedures_session = staticmethod(lambda: self.session)  # type: ignore[attr-defined]

    def atomic(self, procedure: Callable[P, T]) -> Callable[P, T]:
        """Decorates a procedure: see `signalbus.atomic`."""
        return procedures.atomic(self.session)(procedure)

    def execute_atomic(self, procedure: Callable[[], T], retry: Retry = Retry()) -> T:
        """Runs a procedure at once, and returns what it returns. Can be used as a decorator: the name is the result."""
        return procedures.execute_atomic(self.session, procedure, retry)

    @contextmanager
    def retry_on_integrity_error(self) -> Generator[None]:
        """See `signalbus.retry_on_integrity_error`."""
        with procedures.retry_on_integrity_error(self.session):
            yield

    def _apply_driver_defaults(self, options: dict[str, Any], app: Flask) -> None:
        super()._apply_driver_defaults(options, app)
        levels = (options, options.get("execution_options", {}))
        if make_url(options["url"]).get_backend_name() != "sqlite" and not any("isolation_level" in o for o in levels):
            options["isolation_level"] = "REPEATABLE READ"
