"""Fetching a paid clip by its job's id."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from airflow_provider_luma.simulator import Simulator
from tests.cli.conftest import Done, Home, Task, folder

Cli = Callable[..., Done]


def at_vendor(simulator: Simulator, request_id: str) -> bytes:
    history = f"{simulator.url}/inference-request/request-history/{request_id}"
    row = requests.get(history, headers={"x-api-key": simulator.api_key}, timeout=10).json()
    return requests.get(row["generation_url"], timeout=10).content


@pytest.mark.parametrize(("map_index", "stored"), [(-1, False), (-1, True), (3, True)])
@pytest.mark.parametrize("expired", [False, True], ids=["by its result", "by the history"])
def test_a_fetched_clip_is_delivered(
    home: Home, simulator: Simulator, frame: Path, cli: Cli, map_index: int, stored: bool, expired: bool
) -> None:
    task = Task(home, frame, map_index=map_index, stored=stored)
    request_id = task.buy(simulator)
    if expired:
        simulator.advance(2 * 3600)

    done = cli("fetch", request_id, task.clip)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"Fetched: the clip of {request_id}, ")
    assert done.out.endswith("returns the existing video; it buys nothing.\n")
    assert task.video == at_vendor(simulator, request_id)
    assert (task.record["state"], task.record["cost"]) == ("delivered", "1.6")

    before = simulator.calls
    outputs = task.attempt()
    assert (outputs["request_id"], outputs["credits_used"]) == (request_id, 1.6)
    paid = {
        call: count for call, count in simulator.calls.items() if call in ("submit", "download", "result")
    }
    assert paid == {call: before[call] for call in paid}
    assert simulator.charges == 1
    again = cli("fetch", request_id, task.clip)
    assert (again.code, "is already at " in again.out) == (0, True)
    assert simulator.leaks == []


def test_a_clip_without_a_record(home: Home, simulator: Simulator, frame: Path, cli: Cli) -> None:
    request_id = Task(home, frame).attempt()["request_id"]
    clip = f"{home.root}/copy.mp4"
    done = cli("fetch", request_id, clip)
    assert (done.code, done.err) == (0, "")
    assert "There is no record at that path, so no task knows of it." in done.out
    assert home.read("copy.mp4") == at_vendor(simulator, request_id)
    assert home.read("copy.mp4.job.json") is None

    home.write("copy.mp4", b"somebody's")
    done = cli("fetch", request_id, clip)
    assert (done.code, done.out) == (1, "")
    assert "Give another path, or --overwrite." in done.err
    assert home.read("copy.mp4") == b"somebody's"
    assert cli("fetch", request_id, clip, "--overwrite").code == 0
    assert home.read("copy.mp4") == at_vendor(simulator, request_id)


def test_a_clip_that_was_overwritten(home: Home, simulator: Simulator, frame: Path, cli: Cli) -> None:
    task = Task(home, frame, stored=True)
    request_id = task.attempt()["request_id"]
    home.write(task.name, b"somebody's")
    assert cli("fetch", request_id, task.clip).code == 1
    assert task.video == b"somebody's"
    assert cli("fetch", request_id, task.clip, "--overwrite").code == 0
    assert task.attempt()["request_id"] == request_id
    assert (task.video, simulator.charges) == (at_vendor(simulator, request_id), 1)


def test_a_path_of_another_job_is_refused(
    tmp_path: Path, simulator: Simulator, frame: Path, cli: Cli
) -> None:
    request_id = Task(folder(tmp_path / "clips"), frame).attempt()["request_id"]
    other = Task(folder(tmp_path / "clips"), frame, "other.mp4")
    other.lose(simulator, prompt="another")
    done = cli("fetch", request_id, other.clip, "--overwrite")
    assert (done.code, done.out) == (1, "")
    assert f"{other.clip} is the path of the job of the paid call of" in done.err
    assert f"adopt {other.clip} {request_id}" in done.err
    assert (other.video, other.record["state"]) == (None, "intent")


def test_what_was_given_up_can_be_fetched(
    tmp_path: Path, simulator: Simulator, frame: Path, cli: Cli
) -> None:
    task = Task(folder(tmp_path / "clips"), frame, stored=True)
    request_id = task.buy(simulator)
    assert cli("give-up", task.clip, "--yes").code == 0
    done = cli("fetch", request_id, task.clip)
    assert done.code == 0
    assert "returns the existing video" in done.out
    assert task.attempt(clears=1)["request_id"] == request_id
    assert simulator.charges == 1


def test_an_earlier_take_whose_path_is_free(
    tmp_path: Path, simulator: Simulator, frame: Path, cli: Cli
) -> None:
    task = Task(folder(tmp_path / "clips"), frame)
    first = task.buy(simulator)
    assert cli("give-up", task.clip, "--yes").code == 0
    second = task.attempt(run_id="run_2")["request_id"]
    refused = cli("fetch", first, task.clip, "--overwrite")
    assert refused.code == 1
    assert f"is the path of job {second} of clips.generate in run run_2, delivered" in refused.err
    assert cli("give-up", task.clip).code == 0
    done = cli("fetch", first, task.clip, "--overwrite")
    assert done.code == 0, done.err
    assert "The next attempt of clips.generate in run run_1" in done.out
    assert task.video == at_vendor(simulator, first)
    assert task.attempt()["request_id"] == first
    assert simulator.charges == 2


def test_there_is_no_such_clip(tmp_path: Path, simulator: Simulator, frame: Path, cli: Cli) -> None:
    clip = str(tmp_path / "clips" / "clip.mp4")
    done = cli("fetch", "no-such-id", clip)
    assert (done.code, done.out) == (1, "")
    assert "The clip of no-such-id is not available" in done.err
    assert "The request history has no such job." in done.err
    task = Task(folder(tmp_path / "clips"), frame)
    task.attempt()
    simulator.fault("download", "not_video", times=9)
    refused = cli("fetch", task.record["request_id"], f"{clip}.copy")
    assert (refused.code, refused.out) == (1, "")
    assert "not an MP4" in refused.err
    assert {path.name for path in (tmp_path / "clips").iterdir()} - {".luma_ray.lock"} == {
        "clip.mp4",
        "clip.mp4.job.json",
    }
    assert cli("fetch", "r", f"{tmp_path}/").code == 2
    assert "is a folder" in cli("fetch", "r", str(tmp_path)).err
    assert "'elsewhere' is not defined" in cli("fetch", "r", f"{clip}.copy", "--conn", "elsewhere").err
