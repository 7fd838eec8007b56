"""Servers on free loopback ports and in temporary folders, which end with the tests."""

from __future__ import annotations

import glob
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path


def free_port() -> int:
    """A port below those that systems give to programs that ask for any."""
    while True:
        port = random.randrange(10_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def wait_until(ready: Callable[[], bool], what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.02)


class Server:
    """A process with a folder and a port of its own."""

    user = "nobody"

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="signalbus-python-"))
        self.port = free_port()
        self.folder.chmod(0o755)
        (self.folder / "data").mkdir()
        self._own()
        self.install()
        self._own()
        self.start()

    def install(self) -> None: ...

    def command(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return {}

    def answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def start(self) -> None:
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                self.as_user(self.command()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={**os.environ, **self.environment()},
            )
        wait_until(self.answers, f"{type(self).__name__}: {(self.folder / 'log').read_text()}")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, command: list[str]) -> None:
        done = subprocess.run(
            self.as_user(command),
            cwd="/",
            capture_output=True,
            text=True,
            env={**os.environ, "TMPDIR": str(self.folder), **self.environment()},
        )
        assert done.returncode == 0, done.stderr

    def as_user(self, command: list[str]) -> list[str]:
        """Servers refuse to run as root, and end when their parent does."""
        change = ["--reuid", self.user, "--regid", self.user, "--clear-groups"] if os.getuid() == 0 else []
        return ["setpriv", "--pdeathsig", "KILL", *change, "--", *command]

    def _own(self) -> None:
        if os.getuid() == 0:
            subprocess.run(["chown", "-R", self.user, str(self.folder)], check=True)


class Postgres(Server):
    user = "postgres"

    def binary(self, name: str) -> str:
        return sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"))[-1]

    def install(self) -> None:
        self.run(
            [
                self.binary("initdb"),
                "-U",
                "signalbus",
                "--auth=trust",
                "-E",
                "UTF8",
                "--locale=C.UTF-8",
                "--no-sync",
                "-D",
                str(self.folder / "data"),
            ]
        )

    def command(self) -> list[str]:
        return [
            self.binary("postgres"),
            "-D",
            str(self.folder / "data"),
            "-p",
            str(self.port),
            "-k",
            str(self.folder),
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            "fsync=off",
            "-c",
            "deadlock_timeout=20ms",
        ]

    def answers(self) -> bool:
        return (
            subprocess.run([self.binary("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]).returncode == 0
        )

    def url(self, database: str, driver: str = "psycopg2") -> str:
        return f"postgresql+{driver}://signalbus@127.0.0.1:{self.port}/{database}"


class Mariadb(Server):
    user = "mysql"

    def environment(self) -> dict[str, str]:
        return {"TMPDIR": str(self.folder)}

    def install(self) -> None:
        self.run(
            [
                "mariadb-install-db",
                "--no-defaults",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                f"--datadir={self.folder / 'data'}",
            ]
        )

    def command(self) -> list[str]:
        return [
            "/usr/sbin/mariadbd",
            "--no-defaults",
            f"--datadir={self.folder / 'data'}",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            f"--socket={self.folder / 'socket'}",
            "--character-set-server=utf8mb4",
            "--skip-name-resolve",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-lock-wait-timeout=2",
        ]

    def answers(self) -> bool:
        ping = ["mariadb-admin", "--no-defaults", "-h", "127.0.0.1", "-u", "root", "-P", str(self.port), "ping"]
        return subprocess.run(ping, capture_output=True).returncode == 0

    def url(self, database: str, driver: str = "pymysql") -> str:
        return f"mysql+{driver}://root@127.0.0.1:{self.port}/{database}"


class Redis(Server):
    user = "redis"

    def command(self) -> list[str]:
        return [
            "redis-server",
            "--bind",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--dir",
            str(self.folder),
            "--appendonly",
            "yes",
        ]

    def ask(self, *words: str) -> str:
        """What Redis answers to one command, as its own protocol has it."""
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            parts = "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
            connection.sendall(f"*{len(words)}\r\n{parts}*1\r\n$4\r\nQUIT\r\n".encode())
            answer = b""
            while part := connection.recv(65536):
                answer += part
        return answer.decode().removesuffix("+OK\r\n")


class Rabbitmq(Server):
    user = "rabbitmq"

    def __init__(self) -> None:
        self.distribution = free_port()
        super().__init__()

    def install(self) -> None:
        self.write("broker.conf", f"listeners.tcp.1 = 127.0.0.1:{self.port}\nlog.console = true\nlog.file = false\n")
        self.write("plugins", "[].\n")

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def environment(self) -> dict[str, str]:
        folder = str(self.folder)
        return {
            "RUNNING_UNDER_SYSTEMD": "1",
            "HOME": folder,
            "RABBITMQ_NODENAME": f"test{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self.distribution),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_CONF_ENV_FILE": f"{folder}/none",
            "RABBITMQ_CONFIG_FILE": f"{folder}/broker.conf",
            "RABBITMQ_MNESIA_BASE": f"{folder}/data",
            "RABBITMQ_LOG_BASE": folder,
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/plugins",
            "RABBITMQ_GENERATED_CONFIG_DIR": f"{folder}/generated",
            "RABBITMQ_PID_FILE": f"{folder}/pid",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none",
        }

    def command(self) -> list[str]:
        # The wrapper of Debian insists on its own folders and user.
        return ["/usr/lib/rabbitmq/bin/rabbitmq-server"]

    def answers(self) -> bool:
        """It listens before it serves: what it answers is the beginning of its handshake."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
                connection.sendall(b"AMQP\x00\x00\x09\x01")
                return connection.recv(1) == b"\x01"
        except OSError:
            return False

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/%2f"
