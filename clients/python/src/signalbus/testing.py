"""For the tests of applications: commit, then assert sent, with a real relay.

```python
# conftest.py
@pytest.fixture
def signalbus_models():
    return db.Model                # a declarative base, or a Flask-SQLAlchemy extension

@pytest.fixture
def signalbus_engine():
    return db.engine               # the database that the application under test writes to; not in memory

# test_orders.py
def test_an_order_is_announced(client, signalbus_relay):
    client.post("/orders", json={"customer": "Ada"})
    [order] = signalbus_relay.assert_sent("OrderPlaced")
    assert order["customer"] == "Ada"
```

The fixtures are there once the package is installed. The relay's command is `$SIGNALBUS_COMMAND` or `signalbus`;
override the fixture `signalbus_command` to name another.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, inspect

from .bus import SignalBus
from .export import Configuration, obeys_cascades, relay_url
from .relay import RelayCommand
from .source import sources

__all__ = ["RecordingRelay", "signalbus_command", "signalbus_log_plugin", "signalbus_relay"]

#: Seconds until the relay is ready, or has sent what a test expects.
PATIENCE = 10.0
#: The plugin may log 256 KiB for one batch.
BURST = 50
FIELD = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|\S*)')


class RecordingRelay:
    """A relay that runs, has all signal types of an application, and records what it sends instead of sending it."""

    def __init__(self, models: Any, engine: Engine, folder: Path, command: str, plugin: Path) -> None:
        self._engine = engine
        self._log = folder / "relay.log"
        self._environment = {**os.environ, "SIGNALBUS_DATABASE_PASSWORD": engine.url.password or ""}
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        self.file = folder / "signalbus.toml"
        self._configure(models, plugin)
        self._command = [command, "--config", str(self.file), "--log-format", "json"]
        self.bus = SignalBus(models, relay_url=self.url, command=command, config=str(self.file))
        with contextlib.ExitStack() as stack:
            self._start(stack)
            stack.callback(self.bus.watch(engine))
            self._stack = stack.pop_all()

    def sent(self, name: str) -> list[dict[str, Any]]:
        """What was sent so far of a signal type: the columns of each signal, as JSON has them.

        Numbers with decimals and times are texts, bytes are base64.
        """
        return [columns for signal, columns in self._records() if signal == name]

    def assert_sent(self, name: str, count: int = 1, timeout: float = PATIENCE) -> list[dict[str, Any]]:
        """Waits until signals of this type were sent and their rows are gone. Returns what was sent since the start.

        Fails if there are not exactly `count` of them.
        """
        self._wait(lambda: len(self.sent(name)) >= count, timeout)
        self.wait_idle(timeout)
        found = self.sent(name)
        assert len(found) == count, f'{len(found)} signals of type "{name}" were sent, not {count}: {found}'
        return found

    def assert_nothing_sent(self, name: str, timeout: float = PATIENCE) -> None:
        """Fails if signals of this type were sent, or wait to be sent."""
        self.assert_sent(name, 0, timeout)

    def wait_idle(self, timeout: float = PATIENCE) -> None:
        """Waits until no signal is pending."""
        command = RelayCommand(self._command[0], str(self.file), self._environment)
        assert self._wait(lambda: not any(command.pending().values()), timeout), f"still pending: {command.pending()}"

    def stop(self) -> None:
        """Ends the relay."""
        self._stack.close()

    def _configure(self, models: Any, plugin: Path) -> None:
        url = relay_url(self._engine.url, self.file.parent)
        described = sources(models, cascades=obeys_cascades(url))
        existing = inspect(self._engine).get_view_names()
        with self._engine.begin() as connection:
            for source in described:
                if source.view and source.view.name not in existing:
                    connection.exec_driver_sql(source.view.create(connection.dialect))
        configuration = Configuration(self.file)
        configuration.begin(url)
        configuration.update(described)
        for section in configuration.document["signals"].values():
            section.update({"plugin": str(plugin), "burst_count": BURST})
        configuration.document["admin"] = {"listen": self.url.removeprefix("http://")}
        configuration.save()

    def _start(self, stack: contextlib.ExitStack) -> None:
        done = subprocess.run([*self._command, "migrate"], env=self._environment, capture_output=True, text=True)
        assert done.returncode == 0, f"signalbus migrate: {done.stderr}"
        log = stack.enter_context(open(self._log, "wb"))
        process = subprocess.Popen([*self._command, "run"], env=self._environment, stderr=log)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        assert self._wait(lambda: process.poll() is not None or self._is_ready(), PATIENCE), self._log.read_text()
        assert process.poll() is None, self._log.read_text()

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=PATIENCE) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    def _records(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for line in self._log.read_text().splitlines():
            record = json.loads(line) if line.startswith("{") and line.endswith("}") else {}
            if record.get("target") == "plugin" and record.get("message") == "signal":
                fields = dict(FIELD.findall(record["fields"]))
                yield record["signal_type"], json.loads(json.loads(fields["columns"]))

    def _wait(self, condition: Callable[[], bool], timeout: float) -> bool:
        end = time.monotonic() + timeout
        while not (met := condition()) and time.monotonic() < end:
            time.sleep(0.01)
        return met


@pytest.fixture(scope="session")
def signalbus_command() -> str:
    """The relay's command."""
    return os.environ.get("SIGNALBUS_COMMAND", "signalbus")


@pytest.fixture(scope="session")
def signalbus_log_plugin(signalbus_command: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin that records: the relay's command has it within."""
    folder = tmp_path_factory.mktemp("signalbus") / "starter"
    done = subprocess.run([signalbus_command, "init", str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, f"{signalbus_command} init: {done.stderr}"
    return folder / "plugins" / "log.wasm"


@pytest.fixture
def signalbus_relay(
    signalbus_models: Any, signalbus_engine: Engine, signalbus_command: str, signalbus_log_plugin: Path, tmp_path: Path
) -> Iterator[RecordingRelay]:
    """A relay that runs during a test, and records what it sends. Needs `signalbus_models` and `signalbus_engine`."""
    folder = tmp_path / "signalbus"
    folder.mkdir()
    relay = RecordingRelay(signalbus_models, signalbus_engine, folder, signalbus_command, signalbus_log_plugin)
    yield relay
    relay.stop()
