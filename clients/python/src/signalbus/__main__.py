"""`python -m signalbus export app:db` and `python -m signalbus views app:db`."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path
from typing import Any

from .export import Configuration, obeys_cascades, relay_url, sql_dialect
from .model import ModelError
from .source import Source, sources

#: Exit statuses: something differs or cannot be said; wrong usage.
DIFFERS, USAGE = 1, 64


def main(arguments: list[str] | None = None) -> int:
    """Runs a command and returns its exit status."""
    options = _parser().parse_args(arguments)
    sys.path.insert(0, os.getcwd())
    try:
        models = _load(options.target)
        configuration = Configuration(Path(options.file))
        url = options.url or configuration.url or os.environ.get("DATABASE_URL")
        if not url:
            raise ValueError("which database? Pass --url, or set DATABASE_URL")
        found = sources(models, cascades=obeys_cascades(url))
    except (ValueError, TypeError, ImportError, AttributeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE
    except ModelError as error:
        for fault in error.faults:
            print(f"error: {fault}", file=sys.stderr)
        return DIFFERS
    if options.command == "views":
        return _print_views(found, url)
    return _check(configuration, found) if options.check else _export(configuration, found, url, options.plugin)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m signalbus", description="What the relay needs to know of mapped classes."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    export = commands.add_parser("export", help="write signalbus.toml from the models")
    export.add_argument(
        "--check", action="store_true", help="change nothing; exit with status 1 if the file differs from the models"
    )
    export.add_argument("--plugin", metavar="FILE", help="the plugin of signal types that name none")
    views = commands.add_parser("views", help="print the SQL of the views that inherited models need")
    for command in (export, views):
        command.add_argument(
            "target", metavar="MODULE:NAME", help="a declarative base, its registry, or a Flask-SQLAlchemy extension"
        )
        command.add_argument(
            "--url", help="SQLAlchemy's URL of the database, if the file does not name it [default: $DATABASE_URL]"
        )
        file = os.environ.get("SIGNALBUS_CONFIG", "signalbus.toml")
        command.add_argument("--file", default=file, help="the relay's configuration [default: %(default)s]")
    return parser


def _load(target: str) -> Any:
    module, colon, name = target.partition(":")
    if not colon:
        raise ValueError(f'"{target}" should be MODULE:NAME, as in app:db')
    found: Any = importlib.import_module(module)
    for step in name.split("."):
        found = getattr(found, step)
    return found


def _check(configuration: Configuration, found: list[Source]) -> int:
    drift = configuration.drift(found)
    for line in drift:
        print(f"{configuration.path}: {line}")
    return DIFFERS if drift else 0


def _export(configuration: Configuration, found: list[Source], url: str, plugin: str | None) -> int:
    if configuration.url is None:
        configuration.begin(relay_url(url, configuration.path.parent.absolute()))
    if plugin:
        configuration.plugin(plugin)
    configuration.update(found)
    configuration.save()
    print(f"wrote {configuration.path}: {', '.join(source.name for source in found)}")
    if missing := configuration.without_plugin():
        print(f"next: set a `plugin` in [defaults], or for {', '.join(missing)}", file=sys.stderr)
    if any(source.view for source in found):
        print("next: create the views that `python -m signalbus views` prints", file=sys.stderr)
    return 0


def _print_views(found: list[Source], url: str) -> int:
    for source in found:
        if source.view:
            print(f"{source.view.create(sql_dialect(url))};")
    return 0


if __name__ == "__main__":
    sys.exit(main())
