"""A task instance with its clip on a disk or in a bucket, and the command line that settles it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_luma.cli.main import main
from airflow_provider_luma.exceptions import LumaRaySubmitUnknown
from airflow_provider_luma.jobs.ledger import STATE_KEY
from airflow_provider_luma.simulator import Simulator
from tests.faults.conftest import brief, connect
from tests.faults.harness import settle
from tests.storage.conftest import Bucket, bucket, fresh_stores, gate, session_gate, store
from tests.support import API_KEY, MemoryStore, make_operator, task_context

__all__ = ["brief", "bucket", "fresh_stores", "gate", "session_gate", "store"]


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


class Home:
    """Where clips are: a folder, or a bucket.

    :param root: the path or URI of the folder
    :param read: returns a file's content by name; None if there is none
    :param write: writes a file
    :param delete: removes it
    """

    def __init__(
        self,
        root: str,
        read: Callable[[str], bytes | None],
        write: Callable[[str, bytes], object],
        delete: Callable[[str], object],
    ) -> None:
        self.root = root
        self.read = read
        self.write = write
        self.delete = delete


class Task:
    """One task instance: its attempts, its record, its clip."""

    def __init__(
        self, home: Home, frame: Path, name: str = "clip.mp4", map_index: int = -1, stored: bool = False
    ) -> None:
        self.home = home
        self.name = name
        self.clip = f"{home.root}/{name}"
        self.store = MemoryStore() if stored else None
        self.frame = frame
        self._who: dict[str, Any] = {"map_index": map_index, "store": self.store}

    def attempt(self, *, clears: int = 0, **changes: Any) -> dict[str, Any]:
        """Run one attempt, with a new operator as in Airflow."""
        who = self._who | {name: changes.pop(name) for name in ("task_id", "run_id") if name in changes}
        operator = make_operator(self.frame, self.clip, **{"poll_interval": 0.02} | changes)
        return dict(operator.execute(task_context(clears=clears, **who)))

    def buy(self, simulator: Simulator, **changes: Any) -> str:
        """Run an attempt that is killed once the job's id is on record; return the id when the job is done."""
        context = task_context(**self._who)
        context["ti"].xcom_push = _killed
        operator = make_operator(self.frame, self.clip, **changes)
        with pytest.raises(KeyboardInterrupt):
            operator.execute(context)
        settle(simulator)
        return str(self.record["request_id"])

    def lose(self, simulator: Simulator, *, bought: bool = True, **changes: Any) -> str:
        """Run an attempt whose paid call loses its answer and whose history search fails; return the error."""
        simulator.fault("submit", "reset", accepted=bought)
        simulator.fault("history", "status", status=401)
        with pytest.raises(LumaRaySubmitUnknown) as caught:
            self.attempt(**changes)
        return str(caught.value)

    @property
    def record(self) -> dict[str, Any]:
        """What the file says."""
        content = self.home.read(f"{self.name}.job.json")
        assert content is not None
        return dict(json.loads(content))

    @property
    def stored(self) -> dict[str, Any] | None:
        """What the task state store says."""
        return self.store.get(STATE_KEY) if self.store else None

    @property
    def video(self) -> bytes | None:
        """The clip's content."""
        return self.home.read(self.name)


def _killed(**xcom: Any) -> None:
    raise KeyboardInterrupt


@pytest.fixture
def simulator(clips: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    """A fast vendor, and the default connection to it."""
    with Simulator(latency=0.02, clip_seconds=0.2, credits="20", api_key=API_KEY, work_dir=clips) as running:
        connect(monkeypatch, running)
        yield running


@pytest.fixture(params=["disk", "s3"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    """A folder, and then a bucket."""
    if request.param == "disk":
        return folder(tmp_path / "clips")
    made: Bucket = request.getfixturevalue("bucket")

    def read(name: str) -> bytes | None:
        return made.get(f"clips/{name}") if f"clips/{name}" in made.names() else None

    return Home(
        f"s3://store@{made.name}/clips",
        read,
        lambda name, content: made.put(f"clips/{name}", content),
        lambda name: made.delete(f"clips/{name}"),
    )


def folder(path: Path) -> Home:
    """Return a folder on a disk."""

    def read(name: str) -> bytes | None:
        file = path / name
        return file.read_bytes() if file.exists() else None

    def write(name: str, content: bytes) -> None:
        path.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)

    return Home(str(path), read, write, lambda name: (path / name).unlink())


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Run a command in this process."""

    def run(*arguments: str) -> Done:
        capfd.readouterr()
        try:
            code = main(arguments)
        except SystemExit as ended:  # argparse's own
            code = int(ended.code or 0)
        out, err = capfd.readouterr()
        assert API_KEY not in out + err
        return Done(code, out, err)

    return run


def shell(command: str, **env: str) -> Done:
    """Run a command line exactly as printed, in its own process."""
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "airflow_provider_luma"], command
    return program(sys.executable, *words[1:], **env)


def program(*words: str, **env: str) -> Done:
    """Run a program; with ``AIRFLOW_HOME`` in its environment, it has a database."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW__")}
    done = subprocess.run(words, env=mine | env, capture_output=True, text=True, timeout=180)
    assert API_KEY not in done.stdout + done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


def advised(error: str, command: str) -> str:
    """Return the command line that an error's text advises."""
    lines = [line.partition("python -m ")[2] for line in error.splitlines() if f"luma {command} " in line]
    assert len(lines) == 1, error
    return f"python -m {lines[0]}"
