"""`flask signalbus`: the commands of Flask-SignalBus. The relay's command does the work."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click
from flask import current_app
from flask.cli import with_appcontext

from .model import name_of
from .relay import RelayError

__all__ = ["signalbus"]

logger = logging.getLogger("signalbus")


@click.group()
def signalbus() -> None:
    """Send signals, and show what is pending."""


def _names(function: Callable[..., None]) -> Callable[..., None]:
    function = click.argument("signal_names", nargs=-1)(function)
    function = click.option("-e", "--exclude", multiple=True, help="A signal type to skip; repeatable.")(function)
    return click.option("-r", "--repeat", type=float, help="Flush again every SECONDS.", metavar="SECONDS")(function)


@signalbus.command()
@with_appcontext
@_names
@click.option("-w", "--wait", type=float, default=3.0, show_default=True, help="Seconds to wait before sending.")
def flush(signal_names: Sequence[str], exclude: Sequence[str], repeat: float | None, wait: float) -> None:
    """Send what is pending now, all signal types or those named."""
    _flush("flush", signal_names, exclude, repeat, wait)


@signalbus.command()
@with_appcontext
@_names
def flushmany(signal_names: Sequence[str], exclude: Sequence[str], repeat: float | None) -> None:
    """Send a huge backlog; run as many processes at once as you like."""
    _flush("flushmany", signal_names, exclude, repeat)


@signalbus.command()
@with_appcontext
@_names
def flushordered(signal_names: Sequence[str], exclude: Sequence[str], repeat: float | None) -> None:
    """Send in the order of `signalbus_order_by`."""
    _flush("flushordered", signal_names, exclude, repeat)


@signalbus.command()
@with_appcontext
def signals() -> None:
    """List the signal types."""
    for model in _bus().get_signal_models():
        click.echo(name_of(model))


@signalbus.command()
@with_appcontext
def pending() -> None:
    """Show how many signals wait, by type."""
    try:
        counts = _bus().command.pending()
    except RelayError as error:
        logger.error("Caught error while counting pending signals: %s", error)
        sys.exit(1)
    for count, name in sorted((count, name) for name, count in counts.items() if count):
        click.echo(f'{count:>7} of type "{name}"')
    click.echo("-" * 25)
    click.echo(f"Total pending: {sum(counts.values())}")


def _bus() -> Any:
    return current_app.extensions["signalbus"]


def _flush(
    method: str, names: Sequence[str], exclude: Sequence[str], repeat: float | None, wait: float | None = None
) -> None:
    chosen = _choose(names, exclude)
    logger.info("Started flushing %s.", ", ".join(chosen))
    if not chosen:
        return
    try:
        for flushed, status in _bus().command.rounds(chosen, method=method, wait=wait, repeat=repeat):
            _report(flushed.processed)
            if status != 0:
                logger.error("Caught error while sending pending signals: %s", flushed)
                sys.exit(1)
    except RelayError as error:
        logger.error("Caught error while sending pending signals: %s", error)
        sys.exit(1)


def _choose(names: Sequence[str], exclude: Sequence[str]) -> list[str]:
    """The signal types that were named, or all, but those excluded. Unknown names are warned of."""
    known = [name_of(model) for model in _bus().get_signal_models()]
    if names and exclude:
        logger.warning("Specified both SIGNAL_NAMES and exclude option.")
    for name in names or exclude:
        if name not in known:
            logger.warning('A signal with name "%s" does not exist.', name)
    return [name for name in known if (not names or name in names) and name not in exclude]


def _report(count: int) -> None:
    if count == 1:
        logger.info("1 signal has been successfully processed.")
    elif count > 1:
        logger.info("%i signals have been successfully processed.", count)
