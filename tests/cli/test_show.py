"""What is on record, in words and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_provider_luma.exceptions import LumaRayError
from airflow_provider_luma.simulator import Simulator
from tests.cli.conftest import Done, Home, Task, folder

Cli = Callable[..., Done]


def rows(out: str) -> dict[str, str]:
    """The lines of ``show``, by name."""
    return {line[2:13].strip(): line[14:] for line in out.splitlines() if line.startswith("  ")}


def test_a_delivered_clip(home: Home, simulator: Simulator, frame: Path, cli: Cli) -> None:
    task = Task(home, frame, map_index=3)
    task.attempt()
    record = task.record
    for path in (task.clip, f"{task.clip}.job.json"):
        done = cli("show", path)
        assert (done.code, done.err) == (0, "")
        assert done.out.startswith(f"{task.clip}\n")
        told = rows(done.out)
        assert told["state"] == "delivered: bought and delivered"
        assert told["bought by"] == "clips.generate[3] in run run_1"
        assert told["request id"] == record["request_id"]
        assert told["cost"] == "1.60 USD; balance after it 18.40 USD"
        assert told["submitted"] == record["submitted_at"]
        assert told["delivered"] == record["delivered_at"]
        assert told["video"] == f"exists, {record['bytes']} bytes with the digest on record"
        assert told["takes"] == "no earlier one"
        assert told["on record"].startswith("in the file; Airflow's database cannot be reached from here")
        assert done.out.splitlines()[-1] == (
            "The next attempt of clips.generate[3] in run run_1, its inputs unchanged, returns the existing "
            "video; it buys nothing."
        )
    assert json.loads(cli("show", task.clip, "--json").out) == record
    assert simulator.charges == 1


def test_a_clip_that_is_missing_or_replaced(home: Home, simulator: Simulator, frame: Path, cli: Cli) -> None:
    task = Task(home, frame)
    task.attempt()
    home.write(task.name, b"something else")
    done = cli("show", task.clip)
    assert rows(done.out)["video"] == "a file exists, but its digest matches no job on record"
    assert "re-attaches to job" in done.out
    home.delete(task.name)
    assert rows(cli("show", task.clip).out)["video"] == "missing"


def test_a_call_of_unknown_outcome(tmp_path: Path, simulator: Simulator, frame: Path, cli: Cli) -> None:
    task = Task(folder(tmp_path / "clips"), frame)
    task.lose(simulator)
    done = cli("show", task.clip)
    assert rows(done.out)["state"].startswith("intent: may be bought")
    assert rows(done.out)["request id"] == "not known"
    assert rows(done.out)["cost"] == "about 1.60 USD"
    assert "looks for the job of the paid call of" in done.out


def test_a_job_in_flight_and_a_failed_one(
    tmp_path: Path, simulator: Simulator, frame: Path, cli: Cli
) -> None:
    task = Task(folder(tmp_path / "clips"), frame)
    task.buy(simulator)
    done = cli("show", task.clip)
    assert rows(done.out)["state"] == "submitted: bought, not known to be ready yet"
    assert (
        f"re-attaches to job {task.record['request_id']} and fetches its video; it buys nothing." in done.out
    )

    other = Task(folder(tmp_path / "others"), frame)
    simulator.fault("submit", "failed")
    with pytest.raises(LumaRayError):
        other.attempt()
    done = cli("show", other.clip)
    assert rows(done.out)["cost"] == "none"
    assert "asks Segmind once more" in done.out
    assert "if it FAILED buys a clip for about 1.60 USD." in done.out


def test_earlier_takes_and_the_paths_owner(
    tmp_path: Path, simulator: Simulator, frame: Path, cli: Cli
) -> None:
    task = Task(folder(tmp_path / "clips"), frame)
    first = task.attempt()["request_id"]
    second = task.attempt(run_id="run_2")["request_id"]
    told = rows(cli("show", task.clip).out)
    assert (told["request id"], told["bought by"]) == (second, "clips.generate in run run_2")
    assert f"job {first}, delivered, 1.60 USD, by clips.generate in run run_1" in told["takes"]
    named = ("--dag-id", "clips", "--run-id", "run_1", "--task-id", "generate")
    told = rows(cli("show", task.clip, *named).out)
    assert (told["request id"], told["path of"]) == (first, "clips.generate in run run_2 (delivered)")
    assert json.loads(cli("show", task.clip, "--json", *named).out)["request_id"] == first


def test_nothing_is_on_record(home: Home, cli: Cli) -> None:
    clip = f"{home.root}/clip.mp4"
    for command in (["show", clip], ["adopt", clip, "r"], ["not-bought", clip], ["give-up", clip]):
        done = cli(*command)
        assert (done.code, done.out) == (1, "")
        assert f"There is no record at {clip}.job.json.\n" in done.err
        assert "--dag-id" in done.err
    named = ("--dag-id", "clips", "--run-id", "run_1", "--task-id", "generate")
    done = cli("show", clip, *named)
    assert done.code == 1
    assert "There is no record of clips.generate in run run_1" in done.err


@pytest.mark.parametrize("content", [b"{", b"{}", b'{"schema_version": 99}'])
def test_an_unreadable_record_is_left_alone(home: Home, cli: Cli, content: bytes) -> None:
    home.write("clip.mp4.job.json", content)
    clip = f"{home.root}/clip.mp4"
    for command in (
        ["show", clip],
        ["adopt", clip, "r"],
        ["not-bought", clip],
        ["give-up", clip],
        ["fetch", "r", clip],
    ):
        done = cli(*command)
        assert (done.code, done.out) == (1, "")
        assert ("is damaged" if content == b"{" else "exists but cannot be read") in done.err
    assert home.read("clip.mp4.job.json") == content


def test_a_store_that_is_not_installed(cli: Cli) -> None:
    done = cli("show", "nosuch://media/clip.mp4")
    assert (done.code, done.out) == (1, "")
    assert "No file system for 'nosuch' paths is installed" in done.err


def test_the_storage_connection_may_be_an_option(
    bucket: object, simulator: Simulator, frame: Path, cli: Cli
) -> None:
    home = folder(Path("/nowhere"))
    home.root = "s3://media/clips"
    task = Task(home, frame)
    task.attempt(storage_conn_id="store")
    assert cli("show", task.clip).code == 1
    assert cli("show", task.clip, "--storage-conn-id", "store").code == 0
