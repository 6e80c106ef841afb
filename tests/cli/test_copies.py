"""The two copies of a record: the sidecar file, and Airflow's task state store if it can be reached."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_luma.cli import found as found_module
from airflow_provider_luma.cli.store import NoStore
from airflow_provider_luma.jobs.ledger import STATE_KEY, Ledger
from airflow_provider_luma.jobs.record import Identity
from airflow_provider_luma.simulator import Simulator
from tests.cli.conftest import Done, Task, folder
from tests.support import MemoryStore

Cli = Callable[..., Done]
NAMED = ("--dag-id", "clips", "--run-id", "run_1", "--task-id", "generate")


class Database:
    """Stands in for Airflow's metadata database: one task's stores, by map index."""

    def __init__(self) -> None:
        self.running = False
        self.stores: dict[int, MemoryStore] = {}

    def __call__(self, identity: Identity) -> Any:
        if (identity.dag_id, identity.run_id) != ("clips", "run_1"):
            raise NoStore("it has no such run")
        return _Opened(self, self.stores.setdefault(identity.map_index, MemoryStore()))


class _Opened:
    def __init__(self, database: Database, store: MemoryStore) -> None:
        self._database = database
        self.get, self.set = store.get, store.set

    def task_runs(self) -> bool:
        return self._database.running


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Database:
    made = Database()
    monkeypatch.setattr(found_module, "DatabaseStore", made)
    return made


@pytest.fixture
def task(tmp_path: Path, frame: Path, database: Database) -> Task:
    """A task instance whose store the command line can reach."""
    made = Task(folder(tmp_path / "clips"), frame, stored=True)
    assert made.store
    database.stores[-1] = made.store
    return made


def test_both_copies_are_changed(task: Task, simulator: Simulator, cli: Cli) -> None:
    task.lose(simulator, bought=False)
    done = cli("not-bought", task.clip)
    assert "It is on record in the file and in Airflow's task state store." in done.out
    assert task.stored == task.record
    assert task.record["state"] == "failed"
    task.lose(simulator, clears=1)
    (job,) = simulator.jobs
    assert cli("adopt", task.clip, job.request_id).code == 0
    assert task.stored == task.record
    assert task.attempt(clears=2)["request_id"] == job.request_id
    assert cli("give-up", task.clip).code == 0
    assert task.stored == task.record
    assert task.record["state"] == "given_up"
    task.attempt(clears=3)
    assert simulator.charges == 2


@pytest.mark.parametrize("command", ["not-bought", "adopt", "give-up"])
def test_the_stores_copy_alone(task: Task, simulator: Simulator, cli: Cli, command: str) -> None:
    """The file is on another worker's disk: its path is not even created here."""
    task.lose(simulator, bought=command == "adopt")
    on_worker = task.home.read("clip.mp4.job.json") or b""
    task.home.delete("clip.mp4.job.json")

    assert cli(command, task.clip, *(["r"] if command == "adopt" else [])).code == 1
    request = [simulator.jobs[0].request_id] if command == "adopt" else []
    done = cli(command, task.clip, *request, "--yes", *NAMED)
    assert (done.code, done.err) == (0, "")
    assert (
        "Only Airflow's task state store was changed, as there is no file here; it counts as the newer"
        in done.out
    )
    assert task.home.read("clip.mp4.job.json") is None
    shown = cli("show", task.clip, *NAMED)
    assert "in Airflow's task state store; there is no file on this machine" in shown.out

    task.home.write("clip.mp4.job.json", on_worker)
    task.attempt(clears=1)
    assert task.record["state"] == "delivered"
    assert (len(simulator.jobs), simulator.charges) == (1, 1)


def test_a_delivered_clip_on_another_machine(
    task: Task, simulator: Simulator, cli: Cli, tmp_path: Path
) -> None:
    request_id = task.attempt()["request_id"]
    done = cli("show", str(tmp_path / "elsewhere" / "clip.mp4"), *NAMED)
    assert f"goes to     {task.clip}" in done.out
    assert "returns its video, or fetches it again if it is gone; it buys nothing." in done.out
    copy = str(tmp_path / "elsewhere" / "clip.mp4")
    done = cli("fetch", request_id, copy, *NAMED)
    assert done.code == 0, done.err
    assert Path(copy).read_bytes() == task.video
    assert task.attempt()["request_id"] == request_id
    assert simulator.charges == 1


def test_the_store_knows_more_than_the_file(task: Task, simulator: Simulator, cli: Cli) -> None:
    """An attempt could write the id only to the store: the person is told, and the file gets it."""
    task.lose(simulator)
    intent = task.home.read("clip.mp4.job.json") or b""
    (job,) = simulator.jobs
    assert cli("adopt", task.clip, job.request_id).code == 0
    task.home.write("clip.mp4.job.json", intent)
    refused = cli("not-bought", task.clip)
    assert refused.code == 1
    assert f"job {job.request_id} of clips.generate in run run_1, submitted" in refused.err
    assert cli("give-up", task.clip, "--yes").code == 0
    assert (task.record["request_id"], task.record["state"]) == (job.request_id, "given_up")


def test_an_unreadable_store_is_not_written_over(task: Task, simulator: Simulator, cli: Cli) -> None:
    task.lose(simulator)
    assert task.store
    task.store.values[STATE_KEY] = "{}"
    refused = cli("not-bought", task.clip, "--yes")
    assert refused.code == 1
    assert "task state store exists but cannot be read" in refused.err
    assert (task.store.values[STATE_KEY], task.record["state"]) == ("{}", "intent")


def test_a_running_task_may_be_buying(task: Task, simulator: Simulator, cli: Cli, database: Database) -> None:
    task.lose(simulator, bought=False)
    database.running = True
    refused = cli("not-bought", task.clip)
    assert refused.code == 1
    assert "is running, and may be making this call right now" in refused.err
    assert task.record["state"] == "intent"
    assert cli("not-bought", task.clip, "--yes").code == 0


def test_an_attempt_that_writes_at_the_same_time_wins(
    task: Task, simulator: Simulator, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    task.lose(simulator)
    (job,) = simulator.jobs
    advance = Ledger.advance

    def meanwhile(ledger: Ledger, take: Any, **changes: Any) -> Any:
        monkeypatch.setattr(Ledger, "advance", advance)
        there = json.loads(task.home.read("clip.mp4.job.json") or b"")
        there |= {"state": "submitted", "request_id": job.request_id, "revision": there["revision"] + 1}
        task.home.write("clip.mp4.job.json", json.dumps(there).encode())
        return advance(ledger, take, **changes)

    monkeypatch.setattr(Ledger, "advance", meanwhile)
    refused = cli("not-bought", task.clip, "--yes")
    assert (refused.code, refused.out) == (1, "")
    assert "at the same time: it is submitted now." in refused.err
    assert task.record["request_id"] == job.request_id
    assert task.attempt(clears=1)["request_id"] == job.request_id
    assert simulator.charges == 1


@pytest.mark.parametrize("broken", ["file", "store", "both"])
def test_a_copy_that_cannot_be_written_is_named(
    task: Task, simulator: Simulator, cli: Cli, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    task.lose(simulator, bought=False)

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError("it is read-only")

    with monkeypatch.context() as patched:
        if broken in ("file", "both"):
            patched.setattr(Ledger, "_write", fail)
        if broken in ("store", "both"):
            patched.setattr(task.store, "set", fail)
        done = cli("not-bought", task.clip)
    assert "it is read-only" in done.err
    if broken == "both":
        assert (done.code, done.out) == (1, "")
        assert "cannot be written" in done.err
        return
    told = {
        "file": "Only Airflow's task state store was changed, as the file could not be written",
        "store": "Only the file was changed, as Airflow's task state store could not be written",
    }
    assert done.code == 0
    assert told[broken] in done.out
    task.attempt(clears=1)
    assert simulator.charges == 1


def test_another_runs_store_is_out_of_reach(task: Task, simulator: Simulator, cli: Cli) -> None:
    other = Task(task.home, task.frame, "other.mp4", stored=True)
    other.lose(simulator, run_id="run_9", bought=False)
    done = cli("not-bought", other.clip)
    assert "Only the file was changed, as it has no such run; it counts as the newer copy." in done.out
    other.attempt(run_id="run_9", clears=1)
    assert simulator.charges == 1


def test_a_call_that_is_settled_in_the_file_is_settled(task: Task, simulator: Simulator, cli: Cli) -> None:
    other = Task(task.home, task.frame, "other.mp4", stored=True)
    other.lose(simulator, run_id="run_9", bought=False)
    assert cli("not-bought", other.clip).code == 0
    other.attempt(run_id="run_9", clears=1)
    assert other.stored == other.record
