"""PostgreSQL and Redis on free ports, with their data in a temporary folder; each can be killed and started again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.e2e.cluster import free_port

#: The account that owns PostgreSQL's data if the tests run as root, which PostgreSQL refuses.
_POSTGRES_USER = "postgres"


class Service:
    """A server in a process session of its own.

    :param watch: called with the process id of each start, so that the server is killed even if the tests are
    """

    def __init__(self, home: Path, watch: Callable[[int], None]) -> None:
        self.home = home
        self.port = free_port()
        self._watch = watch
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, and wait until it accepts connections."""
        with (self.home / "output.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                user=self._user(),
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._watch(self._process.pid)
        deadline = time.monotonic() + 60
        while not self._is_ready():
            assert self._process.poll() is None, (self.home / "output.log").read_text()[-2000:]
            assert time.monotonic() < deadline, f"{self._command()[0]} does not start"
            time.sleep(0.05)

    def stop(self, number: int = signal.SIGKILL) -> None:
        """End it, by default without giving it a chance to save anything."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait()

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _user(self) -> str | None:
        return None

    def _is_ready(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


class Redis(Service):
    """A broker that keeps nothing on disk: who restarts it has lost its messages."""

    def _command(self) -> list[str]:
        address = ["--bind", "127.0.0.1", "--port", str(self.port)]
        return ["redis-server", *address, "--save", "", "--appendonly", "no"]


class Postgres(Service):
    """PostgreSQL, Debian's newest that is installed."""

    @property
    def url(self) -> str:
        return f"postgresql+psycopg2://{_POSTGRES_USER}@127.0.0.1:{self.port}/postgres"

    def create(self) -> None:
        """Make an empty database cluster."""
        if user := self._user():
            shutil.chown(self.home, user)
        command = [
            str(_postgres_bin() / "initdb"),
            "-U",
            _POSTGRES_USER,
            "-A",
            "trust",
            "--no-sync",
            "-D",
            "data",
        ]
        done = subprocess.run(command, cwd=self.home, user=self._user(), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def crash(self) -> None:
        """End it at once and without a checkpoint, so that the next start has to recover."""
        self.stop(signal.SIGQUIT)

    def dump(self) -> str:
        """Return all that is stored, as text."""
        address = ["-h", "127.0.0.1", "-p", str(self.port), "-U", _POSTGRES_USER]
        done = subprocess.run(
            [str(_postgres_bin() / "pg_dump"), *address, "postgres"],
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    def _command(self) -> list[str]:
        # Without fsync a crash of the server still loses nothing; only one of the machine would.
        settings = {"fsync": "off", "max_connections": 300, "listen_addresses": "127.0.0.1"}
        options = [f"--{name}={value}" for name, value in settings.items()]
        return [str(_postgres_bin() / "postgres"), "-D", "data", "-p", str(self.port), "-k", "", *options]

    def _user(self) -> str | None:
        return _POSTGRES_USER if os.geteuid() == 0 else None

    def _is_ready(self) -> bool:
        address = ["-h", "127.0.0.1", "-p", str(self.port), "-q"]
        return subprocess.run([str(_postgres_bin() / "pg_isready"), *address]).returncode == 0


def _postgres_bin() -> Path:
    return max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
