"""Settling a call of unknown outcome, or a job that nobody wants; the next attempt abides by it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from airflow_provider_luma.cli import settle
from airflow_provider_luma.exceptions import LumaRaySubmitUnknown
from airflow_provider_luma.simulator import Simulator
from tests.cli.conftest import Done, Home, Task, advised, folder, shell

Cli = Callable[..., Done]

KINDS = pytest.mark.parametrize(
    ("map_index", "stored"), [(-1, False), (-1, True), (3, True)], ids=["file", "file and store", "mapped"]
)


def submits(simulator: Simulator) -> int:
    return simulator.calls.get("submit", 0)


@KINDS
def test_an_adopted_job_is_delivered_at_no_charge(
    home: Home, simulator: Simulator, frame: Path, cli: Cli, map_index: int, stored: bool
) -> None:
    task = Task(home, frame, map_index=map_index, stored=stored)
    error = task.lose(simulator)
    (job,) = simulator.jobs

    done = cli(*advised(error, "adopt").replace("<request id>", job.request_id).replace("'", "").split()[3:])
    assert (done.code, done.err) == (0, "")
    mapped = "[3]" if map_index == 3 else ""
    assert done.out.startswith(
        f"Adopted: {job.request_id} is the job that clips.generate{mapped} in run run_1 bought"
    )
    assert "Only the file was changed" in done.out
    assert done.out.endswith(
        "re-attaches to job " + job.request_id + " and fetches its video; it buys nothing.\n"
    )
    assert (task.record["state"], task.record["request_id"]) == ("submitted", job.request_id)

    outputs = task.attempt(clears=1)
    assert (outputs["request_id"], task.record["state"]) == (job.request_id, "delivered")
    assert (submits(simulator), simulator.charges) == (1, 1)
    if stored:
        assert task.stored == task.record


@KINDS
def test_a_job_that_was_not_bought_is_bought_by_the_next_attempt(
    home: Home, simulator: Simulator, frame: Path, cli: Cli, map_index: int, stored: bool
) -> None:
    task = Task(home, frame, map_index=map_index, stored=stored)
    error = task.lose(simulator, bought=False)

    done = cli(*advised(error, "not-bought").replace("'", "").split()[3:])
    assert (done.code, done.err) == (0, "")
    assert "The history shows no such job." in done.out
    assert done.out.endswith("its inputs unchanged, buys a clip for about 1.60 USD.\n")
    assert task.record["state"] == "failed"
    assert cli("not-bought", task.clip).code == 0, "said twice"

    task.attempt(clears=1)
    assert task.record["state"] == "delivered"
    assert (submits(simulator), simulator.charges, len(simulator.jobs)) == (2, 1, 1)


@KINDS
def test_after_a_job_is_given_up_the_next_attempt_buys(
    home: Home, simulator: Simulator, frame: Path, cli: Cli, map_index: int, stored: bool
) -> None:
    task = Task(home, frame, map_index=map_index, stored=stored)
    simulator.fault("download", "status", status=404, times=9)
    with pytest.raises(Exception, match="404"):
        task.attempt()
    first = task.record["request_id"]
    simulator.clear_faults()

    refused = cli("give-up", task.clip)
    assert (refused.code, refused.out) == (1, "")
    assert "1.60 USD, which Segmind does not refund" in refused.err
    assert f"fetch {first} PATH" in refused.err
    assert "Nothing was changed." in refused.err
    assert task.record["state"] == "completed"

    done = cli("give-up", task.clip, "--yes")
    assert (done.code, done.err) == (0, "")
    assert f"Given up: job {first} of clips.generate" in done.out
    assert "1.60 USD, which Segmind does not refund" in done.out
    assert cli("give-up", task.clip).code == 0, "said twice"

    outputs = task.attempt(clears=1)
    assert outputs["request_id"] not in (None, first)
    assert (submits(simulator), simulator.charges) == (2, 2)
    assert {take["request_id"]: take["state"] for take in task.record["superseded"]} == {first: "given_up"}
    if stored:
        assert task.stored == task.record


def test_a_delivered_clip_is_given_up_without_yes(
    home: Home, simulator: Simulator, frame: Path, cli: Cli
) -> None:
    task = Task(home, frame)
    task.attempt()
    done = cli("give-up", task.clip)
    assert done.code == 0
    assert (
        "buys a clip for about 1.60 USD. (With if_exists='reuse' or 'keep' it takes the existing file"
        in done.out
    )
    task.attempt(clears=1)
    assert simulator.charges == 2


def test_a_lost_call_that_blocks_a_path_is_given_up(
    tmp_path: Path, simulator: Simulator, frame: Path, cli: Cli
) -> None:
    task = Task(folder(tmp_path / "clips"), frame)
    task.lose(simulator)
    with pytest.raises(Exception, match="is in use") as caught:
        task.attempt(run_id="run_2")
    command = shlex.split(advised(str(caught.value), "give-up").partition("give-up")[2])
    assert "It may have been bought for about 1.60 USD" in cli("give-up", *command).err
    assert cli("give-up", *command, "--yes").code == 0
    task.attempt(run_id="run_2")
    assert (submits(simulator), simulator.charges) == (2, 2)


def test_after_seven_days_give_up_needs_no_yes(
    tmp_path: Path, simulator: Simulator, frame: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task(folder(tmp_path / "clips"), frame)
    task.buy(simulator)
    monkeypatch.setattr(settle, "_KEPT", timedelta(0))
    assert cli("give-up", task.clip).code == 0


def test_a_job_that_does_not_match_is_adopted_only_with_yes(
    home: Home, simulator: Simulator, frame: Path, cli: Cli
) -> None:
    other = Task(home, frame, "other.mp4")
    theirs = other.attempt(prompt="another prompt", task_id="other")["request_id"]
    task = Task(home, frame)
    task.lose(simulator)
    before = task.record

    for wrong, why in {
        theirs: f"{theirs} is on record as the job of clips.other in run run_1",
        "no-such-id": "Segmind's request history has no job no-such-id",
    }.items():
        refused = cli("adopt", task.clip, wrong)
        assert (refused.code, refused.out) == (1, "")
        assert why in refused.err
        assert "give --yes" in refused.err
    other.home.delete("other.mp4.job.json")
    assert f"{theirs} (created in time, other inputs)" in cli("adopt", task.clip, theirs).err
    assert task.record == before

    done = cli("adopt", task.clip, theirs, "--yes")
    assert done.code == 0
    assert f"Although the request history has {theirs} (created in time, other inputs)" in done.out
    assert task.attempt(clears=1)["request_id"] == theirs
    assert submits(simulator) == 2


def test_an_unreachable_history_needs_yes(
    tmp_path: Path, simulator: Simulator, frame: Path, cli: Cli
) -> None:
    task = Task(folder(tmp_path / "clips"), frame)
    task.lose(simulator)
    (job,) = simulator.jobs
    for conn in ([], ["--conn", "not_there"]):
        simulator.fault("history_one", "status", status=503, times=2)
        refused = cli("adopt", task.clip, job.request_id, *conn)
        assert refused.code == 1
        assert (
            f"There is a reason not to adopt it: it cannot be checked whether {job.request_id} is this call's job"
            in refused.err
        )
    done = cli("adopt", task.clip, job.request_id, "--yes", "--conn", "not_there")
    assert done.code == 0
    assert "Connection 'not_there' is not defined" in done.out
    assert task.attempt()["request_id"] == job.request_id
    assert simulator.charges == 1


def test_what_has_an_id_is_neither_adopted_nor_not_bought(
    tmp_path: Path, simulator: Simulator, frame: Path, cli: Cli
) -> None:
    task = Task(folder(tmp_path / "clips"), frame)
    request_id = task.attempt()["request_id"]
    before = task.record

    refused = cli("adopt", task.clip, "another")
    assert refused.code == 1
    assert (
        f"job {request_id} of clips.generate in run run_1, delivered (bought and delivered). It has another id."
        in refused.err
    )
    refused = cli("not-bought", task.clip)
    assert refused.code == 1
    assert f"give-up {task.clip}" in refused.err
    same = cli("adopt", task.clip, request_id)
    assert same.code == 0
    assert "already has that id; nothing was changed" in same.out
    assert task.record == before


def test_what_was_given_up_can_be_adopted_again(
    tmp_path: Path, simulator: Simulator, frame: Path, cli: Cli
) -> None:
    task = Task(folder(tmp_path / "clips"), frame, stored=True)
    request_id = task.attempt()["request_id"]
    assert cli("give-up", task.clip).code == 0
    assert cli("adopt", task.clip, request_id).code == 0
    assert task.attempt(clears=1)["request_id"] == request_id
    assert (submits(simulator), simulator.charges) == (1, 1)


def test_a_failed_job_has_nothing_to_give_up_and_no_id_to_adopt(
    tmp_path: Path, simulator: Simulator, frame: Path, cli: Cli
) -> None:
    task = Task(folder(tmp_path / "clips"), frame)
    simulator.set_credits("0")
    with pytest.raises(Exception, match="402"):
        task.attempt()
    assert task.record["state"] == "failed"
    refused = cli("give-up", task.clip)
    assert refused.code == 1
    assert "bought nothing, so there is nothing to give up" in refused.err
    refused = cli("adopt", task.clip, "some-id")
    assert refused.code == 1
    assert "Segmind's request history has no job some-id" in refused.err


def test_a_job_in_the_history_is_not_settled_as_not_bought(
    tmp_path: Path, simulator: Simulator, frame: Path, cli: Cli
) -> None:
    task = Task(folder(tmp_path / "clips"), frame)
    task.lose(simulator)
    (job,) = simulator.jobs
    refused = cli("not-bought", task.clip)
    assert refused.code == 1
    assert f"Segmind's request history has its job: {job.request_id}" in refused.err
    assert f"adopt {task.clip} {job.request_id}" in refused.err
    assert task.record["state"] == "intent"

    assert cli("not-bought", task.clip, "--yes").code == 0, "a person has the last word"
    task.attempt(clears=1)
    assert submits(simulator) == 2


def test_a_history_that_does_not_answer_leaves_it_to_the_person(
    tmp_path: Path, simulator: Simulator, frame: Path, cli: Cli
) -> None:
    task = Task(folder(tmp_path / "clips"), frame)
    task.lose(simulator, bought=False)
    simulator.fault("history", "status", status=401)
    done = cli("not-bought", task.clip)
    assert done.code == 0
    assert "Segmind's request history could not be asked" in done.out


def test_only_one_task_instance_is_settled(home: Home, simulator: Simulator, frame: Path, cli: Cli) -> None:
    tasks = [Task(home, frame, f"clip-{index}.mp4", index, stored=True) for index in range(3)]
    for task in tasks:
        task.lose(simulator, bought=False, prompt=f"prompt of {task.name}")
    others = [(task.record, task.stored) for task in tasks if task is not tasks[1]]
    assert cli("not-bought", tasks[1].clip).code == 0
    assert [(task.record, task.stored) for task in tasks if task is not tasks[1]] == others
    assert cli("show", tasks[2].clip).out.count("intent") > 0


def test_the_current_take_is_meant_unless_a_task_instance_is_named(
    tmp_path: Path, simulator: Simulator, frame: Path, cli: Cli
) -> None:
    task = Task(folder(tmp_path / "clips"), frame)
    first = task.attempt()["request_id"]
    second = task.attempt(run_id="run_2")["request_id"]
    assert f"Given up: job {second} of clips.generate in run run_2" in cli("give-up", task.clip).out
    named = ("--dag-id", "clips", "--run-id", "run_1", "--task-id", "generate")
    assert f"Given up: job {first} of clips.generate in run run_1" in cli("give-up", task.clip, *named).out
    assert task.record["request_id"] == second
    assert [take["state"] for take in task.record["superseded"]] == ["given_up"]


@pytest.mark.parametrize("bought", [False, True], ids=["not-bought", "adopt"])
def test_an_earlier_call_that_the_task_returns_to(
    home: Home, simulator: Simulator, frame: Path, cli: Cli, bought: bool
) -> None:
    """After a lost call the inputs were changed and another clip bought; then they are changed back."""
    task = Task(home, frame)
    task.lose(simulator, bought=bought)
    later = task.attempt(clears=1, prompt="another")["request_id"]
    simulator.fault("history", "status", status=401)
    with pytest.raises(LumaRaySubmitUnknown):
        task.attempt(clears=2)

    job = min(simulator.jobs, key=lambda job: job.request_id == later)
    done = cli("adopt", task.clip, job.request_id) if bought else cli("not-bought", task.clip)
    assert (done.code, done.err) == (0, "")
    outputs = task.attempt(clears=3)
    assert (outputs["request_id"] == job.request_id) is bought
    assert (submits(simulator), simulator.charges) == (2 if bought else 3, 2)
    assert task.attempt(clears=4, prompt="another")["request_id"] == later
    assert simulator.charges == 2


@pytest.mark.slow
def test_each_command_in_its_own_process(home: Home, simulator: Simulator, frame: Path) -> None:
    task = Task(home, frame)
    error = task.lose(simulator, bought=False)
    done = shell(advised(error, "not-bought"))
    assert (done.code, done.err) == (0, ""), done
    error = task.lose(simulator, clears=1)
    (job,) = simulator.jobs
    done = shell(advised(error, "adopt").replace("<request id>", job.request_id))
    assert (done.code, done.err) == (0, ""), done
    done = shell(f"python -m airflow_provider_luma show {task.clip} --json")
    assert (json.loads(done.out), done.err) == (task.record, ""), done
    assert task.attempt(clears=2)["request_id"] == job.request_id
    task.home.delete(task.name)
    done = shell(f"python -m airflow_provider_luma fetch {job.request_id} {task.clip}")
    assert (done.code, done.err) == (0, ""), done
    assert task.attempt(clears=2)["request_id"] == job.request_id
    assert simulator.charges == 1
    done = shell(f"python -m airflow_provider_luma give-up {task.clip}")
    assert (done.code, done.err) == (0, ""), done
    task.attempt(clears=3)
    assert simulator.charges == 2
