from __future__ import annotations

import itertools
import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from servers import Mariadb, Postgres, Rabbitmq, Redis, free_port, wait_until

REPOSITORY = Path(__file__).resolve().parents[3]
RELAY = os.environ.get("SIGNALBUS_COMMAND", str(REPOSITORY / "target/debug/signalbus"))
PLUGINS = REPOSITORY / "target/plugins"
NUMBERS = itertools.count()
pytest_plugins = ["pytester"]


def started(server: type) -> Any:
    @pytest.fixture(scope="session")
    def fixture() -> Iterator[Any]:
        running = server()
        yield running
        running.stop()

    return fixture


postgres = started(Postgres)
mariadb = started(Mariadb)
redis = started(Redis)
rabbitmq = started(Rabbitmq)


class Database:
    """An empty database of one kind."""

    def __init__(self, kind: str, url: str, asynchronous: str) -> None:
        self.kind, self.url, self.async_url = kind, url, asynchronous

    def engine(self, **options: Any) -> sa.Engine:
        return sa.create_engine(self.url, **options)


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    if request.param == "sqlite":
        file = tmp_path / "outbox.db"
        return Database("sqlite", f"sqlite:///{file}", f"sqlite+aiosqlite:///{file}")
    server = request.getfixturevalue(request.param)
    name = f"test{next(NUMBERS)}"
    admin = sa.create_engine(
        server.url("postgres" if request.param == "postgres" else "mysql"), isolation_level="AUTOCOMMIT"
    )
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    admin.dispose()
    driver = "asyncpg" if request.param == "postgres" else "aiomysql"
    return Database(request.param, server.url(name), server.url(name, driver))


class Relay:
    """The real relay, with its configuration in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "signalbus.toml"
        self.process: subprocess.Popen[bytes] | None = None

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [RELAY, "--config", str(self.file), *arguments], capture_output=True, text=True, timeout=60
        )

    def done(self, *arguments: str) -> str:
        done = self.command(*arguments)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def start(self) -> str:
        """Starts `run`, and returns the address of its admin listener."""
        port = free_port()
        with open(self.file, "a") as file:
            file.write(f'\n[admin]\nlisten = "127.0.0.1:{port}"\ntoken = "token-of-the-tests"\n')
        self.done("migrate")
        self.url = f"http://127.0.0.1:{port}"
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen([RELAY, "--config", str(self.file), "run"], stderr=log)
        wait_until(self.is_ready, "relay")
        return self.url

    def is_ready(self) -> bool:
        assert self.process and self.process.poll() is None, (self.folder / "log").read_text()
        try:
            return bool(urllib.request.urlopen(f"{self.url}/readyz").status == 200)
        except OSError:
            return False

    def status(self) -> dict[str, Any]:
        signals = json.load(urllib.request.urlopen(f"{self.url}/api/v1/status"))["signals"]
        return {signal["type"]: signal for signal in signals}

    def sent(self, name: str) -> int:
        return int(self.status()[name]["sent"])

    def woken(self) -> int:
        """How often it was told of a commit."""
        metrics = urllib.request.urlopen(f"{self.url}/metrics").read().decode()
        lines = [line for line in metrics.splitlines() if line.startswith('signalbus_wakeups_total{source="call"}')]
        return int(float(lines[0].split()[-1])) if lines else 0

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            assert self.process.wait(30) == 0


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    running = Relay(tmp_path)
    yield running
    running.stop()
