"""`signalbus.toml`, written from mapped classes, and compared with them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomlkit
from sqlalchemy import URL, make_url
from sqlalchemy.dialects import registry as dialects
from sqlalchemy.engine import Dialect
from tomlkit.items import Table

from .source import Source

__all__ = ["Configuration", "obeys_cascades", "relay_url", "sql_dialect"]

#: In the line of a section's name: who wrote the section, and which of its keys.
MARK = re.compile(r"# exported from (?P<module>[\w.]+): (?P<keys>[\w, ]*)")
SCHEMES = {"postgresql": "postgres", "mysql": "mysql", "mariadb": "mysql", "sqlite": "sqlite", "postgres": "postgres"}


class Configuration:
    """The relay's configuration file, as text that keeps everything which people wrote in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.document = tomlkit.parse(path.read_text()) if path.exists() else tomlkit.document()

    @property
    def url(self) -> str | None:
        """The database's address, with values from the environment."""
        url = self.document.get("database", {}).get("url")
        return None if url is None else re.sub(r"\$\{(\w+)\}", lambda name: os.environ.get(name[1], ""), str(url))

    def begin(self, url: str) -> None:
        """Writes the database's address, unless there is one."""
        if "database" not in self.document:
            self.document["database"] = tomlkit.table()
        self.document["database"].setdefault("url", url)

    def plugin(self, path: str) -> None:
        """Sets the plugin of the types that name none, unless there is one."""
        if "defaults" not in self.document:
            self.document["defaults"] = tomlkit.table()
        self.document["defaults"].setdefault("plugin", path)

    def without_plugin(self) -> list[str]:
        """The signal types that name no plugin."""
        if "plugin" in self.document.get("defaults", {}):
            return []
        return [name for name, section in self._sections().items() if "plugin" not in section]

    def drift(self, sources: Sequence[Source]) -> list[str]:
        """What the models say and the file does not, a line each. Empty: nothing would change."""
        sections, found = self._sections(), []
        for source in sources:
            section = sections.get(source.name)
            if section is None:
                found.append(f"[signals.{source.name}] is missing")
                continue
            for key, value in source.keys.items():
                if _plain(section.get(key)) != value:
                    found.append(f"[signals.{source.name}] {key}: {_shown(section.get(key))} should be {_shown(value)}")
            stale = [key for key in _exported(section) if key not in source.keys and key in section]
            found.extend(f"[signals.{source.name}] {key}: the model no longer says it" for key in stale)
        found.extend(f"[signals.{name}]: no model declares it any more" for name in self._orphans(sources))
        return found

    def update(self, sources: Sequence[Source]) -> None:
        """Writes what the models say. Other keys, other sections and comments stay as they are."""
        for name in self._orphans(sources):
            del self._sections()[name]
        if "signals" not in self.document:
            self.document["signals"] = tomlkit.table(is_super_table=True)
        for source in sources:
            self._update_section(source)

    def save(self) -> None:
        """Replaces the file in one step, so that a relay that reads it again never sees half of it."""
        draft = self.path.with_name(self.path.name + ".new")
        draft.write_text(tomlkit.dumps(self.document))
        draft.replace(self.path)

    def _update_section(self, source: Source) -> None:
        sections = self._sections()
        section = sections.get(source.name)
        if section is None:
            section = sections[source.name] = tomlkit.table()
            section = sections[source.name]
        for key in _exported(section):
            if key not in source.keys:
                section.pop(key, None)
        for key, value in source.keys.items():
            if _plain(section.get(key)) != value:
                section[key] = value
        section.comment(f"exported from {source.module}: {', '.join(source.keys)}")

    def _sections(self) -> Any:
        return self.document.get("signals", {})

    def _orphans(self, sources: Sequence[Source]) -> list[str]:
        known = {source.name for source in sources}
        modules = {source.module for source in sources}
        marks = {name: _mark(section) for name, section in self._sections().items() if name not in known}
        return [name for name, mark in marks.items() if mark and mark["module"] in modules]


def _mark(section: Any) -> re.Match[str] | None:
    return MARK.match(section.trivia.comment) if isinstance(section, Table) else None


def _exported(section: Any) -> list[str]:
    mark = _mark(section)
    return [key for key in mark["keys"].split(", ") if key] if mark else []


def _plain(value: Any) -> Any:
    return value.unwrap() if hasattr(value, "unwrap") else value


def _shown(value: Any) -> str:
    return "nothing" if value is None else tomlkit.item(value).as_string()


def relay_url(url: str | URL, folder: Path) -> str:
    """An address of SQLAlchemy, as the relay writes it; a password is left to the environment.

    `folder` is that of `signalbus.toml`: the relay looks for SQLite files from there.
    """
    parsed = make_url(url)
    scheme = SCHEMES.get(parsed.get_backend_name())
    if scheme is None:
        raise ValueError(f'the relay does not know databases of the kind "{parsed.get_backend_name()}"')
    if scheme == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise ValueError("the relay cannot read an SQLite database in memory: use a file")
        file = Path(parsed.database)
        place = file if file.is_absolute() else Path(os.path.relpath(file, folder))
        return f"sqlite://{str(place).replace('%', '%25').replace('?', '%3F').replace('#', '%23')}"
    bare = URL.create(scheme, parsed.username, None, parsed.host, parsed.port, parsed.database)
    text = bare.render_as_string(hide_password=False)
    if parsed.password is not None:
        text = text.replace("@", ":${SIGNALBUS_DATABASE_PASSWORD}@", 1)
    return text


def obeys_cascades(url: str) -> bool:
    """Whether the relay's connection to this address obeys ON DELETE CASCADE."""
    return not url.startswith("sqlite:") or "foreign_keys=on" in url


def sql_dialect(url: str) -> Dialect:
    """How statements are written for this address."""
    scheme = url.partition(":")[0].partition("+")[0]
    name = "postgresql" if scheme == "postgres" else scheme
    dialect: Dialect = dialects.load(name)()
    return dialect
