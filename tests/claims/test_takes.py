"""Takes of one task instance that meet: moved paths, uncounted tries, clips without an id, a lock that is held."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_luma.cli.main import main
from airflow_provider_luma.exceptions import LumaRayError, LumaRaySubmitUnknown
from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.jobs.record import JobRecord
from airflow_provider_luma.simulator import Simulator
from airflow_provider_luma.storage import LocalFile, local
from tests.claims.test_counterexamples import advised
from tests.claims.test_drift import LATE
from tests.claims.test_drift import bought_and_late as late
from tests.support import MemoryStore, make_operator, recorded, task_context

pytestmark = pytest.mark.usefixtures("connection")


def context(max_tries: int, tries: int) -> Any:
    """Return the context of a try whose run Airflow does not count as cleared."""
    made = task_context()
    made["ti"].max_tries, made["ti"].try_number = max_tries, tries
    return made


def nameless(simulator: Simulator, url: str, clip: Path, index: int) -> None:
    """Let an attempt buy a clip on v1 that names no id, and that cannot be stored."""
    simulator.fault("v1", "slow", seconds=0.0, request_id="")
    with pytest.MonkeyPatch.context() as patched:

        def full(*arguments: Any) -> None:
            raise OSError(errno.ENOSPC, "full")

        patched.setattr(LocalFile, "put", full)
        with pytest.raises(LumaRayError):
            make_operator(url, clip, api_version="v1").execute(task_context(map_index=index))


def test_clips_without_an_id_are_told_apart_by_a_person(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    url = LumaRayHook().upload_image(frame)
    clips = [tmp_path / "v" / f"{i}.mp4" for i in (0, 1)]
    for i, clip in enumerate(clips):
        nameless(simulator, url, clip, i)
    ids = [job.request_id for job in simulator.jobs]
    got = []
    for i, clip in enumerate(clips):
        try:
            got.append(
                make_operator(url, clip, api_version="v1").execute(task_context(map_index=i))["request_id"]
            )
        except LumaRaySubmitUnknown as error:
            command = [w for w in advised(error, "adopt") if not w.startswith("<") and w != "id>"]
            if i == 1:
                assert main([*command, ids[0]]) == 1, "the sibling's"
            assert main([*command, ids[i]]) == 0
            got.append(
                make_operator(url, clip, api_version="v1").execute(task_context(map_index=i))["request_id"]
            )
    assert len(set(got)) == 2
    assert simulator.charges == 2


def test_a_lost_clip_without_an_id_whose_path_another_run_has_is_told_by_a_person(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    url = LumaRayHook().upload_image(frame)
    for run in "ab":
        simulator.fault("v1", "slow", seconds=0.0, request_id="")
        make_operator(url, clip, api_version="v1").execute(task_context(run_id=run))
    first, second = (job.request_id for job in simulator.jobs)
    clip.unlink()
    cleared = task_context(run_id="a")
    cleared["ti"].max_tries, cleared["dag_run"].clear_number = 1, 1
    with pytest.raises(LumaRaySubmitUnknown) as unknown:
        make_operator(url, clip, api_version="v1").execute(cleared)
    command = [word for word in advised(unknown.value, "adopt") if not word.startswith("<") and word != "id>"]
    assert main([*command, first]) == 0
    assert make_operator(url, clip, api_version="v1").execute(cleared)["request_id"] == first
    clip.unlink()
    again = task_context(run_id="b")
    again["ti"].max_tries, again["dag_run"].clear_number = 1, 1
    assert make_operator(url, clip, api_version="v1").execute(again)["request_id"] == second, (
        "the other is its"
    )
    assert simulator.charges == 2


@pytest.mark.parametrize("stored", [True, False])
def test_a_folder_that_is_locked_from_the_submit_on_loses_no_id(
    simulator: Simulator, frame: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, stored: bool
) -> None:
    monkeypatch.setattr(local, "LOCK_SECONDS", 0.2)
    kept = MemoryStore() if stored else None
    submit = LumaRayHook.submit
    held: list[int] = []

    def holds(self: LumaRayHook, request: Any) -> str:
        request_id = submit(self, request)
        held.append(os.open(clip.parent / local.LOCK_NAME, os.O_RDWR))
        fcntl.flock(held[0], fcntl.LOCK_EX)
        return request_id

    with monkeypatch.context() as patched:
        patched.setattr(LumaRayHook, "submit", holds)
        here = task_context(store=kept)
        with pytest.raises(LumaRayError) as caught:
            make_operator(frame, clip).execute(here)
    assert simulator.jobs[0].request_id in str(caught.value)
    assert here["ti"].pushed["request_id"] == simulator.jobs[0].request_id
    os.close(held[0])
    outputs = make_operator(frame, clip).execute(task_context(store=kept))
    assert (outputs["request_id"], simulator.charges) == (simulator.jobs[0].request_id, 1)


def test_a_record_from_before_tries_were_counted(simulator: Simulator, frame: Path, clip: Path) -> None:
    first = late(simulator, make_operator(frame, clip, prompt="one", **LATE), context(3, 1))
    path = clip.with_name("clip.mp4.job.json")
    record = JobRecord.load(path.read_bytes())
    path.write_bytes(
        record.changed(cleared=record.cleared.model_copy(update={"try_number": None})).to_bytes()
    )
    outputs = make_operator(frame, clip, prompt="two").execute(context(3, 2))
    assert (outputs["request_id"], len(simulator.jobs)) == (first, 1)


def test_an_attempt_that_outlived_a_clear_finishes_what_was_bought_since(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    make_operator(frame, clip, prompt="one").execute(context(1, 1))
    two = make_operator(frame, clip, prompt="two").execute(context(2, 2))
    old = make_operator(frame, clip, prompt="three").execute(context(1, 1))
    assert (old["request_id"], simulator.charges) == (two["request_id"], 2)
    three = make_operator(frame, clip, prompt="three").execute(context(1, 3))
    assert three["request_id"] != two["request_id"]


def test_a_path_that_was_edited_there_and_back_is_free(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    store = MemoryStore()
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    first = late(simulator, make_operator(frame, a, **LATE), task_context(store=store))
    late(simulator, make_operator(frame, b, **LATE), task_context(store=store))
    other = make_operator(frame, a, prompt="x").execute(task_context(run_id="other", store=MemoryStore()))
    back = make_operator(frame, a).execute(task_context(store=store))
    assert back["request_id"] == first
    record = recorded(a)
    ids = {record["request_id"], *(t["request_id"] for t in record["superseded"])}
    assert ids == {first, other["request_id"]}
    assert simulator.charges == 2
    make_operator(frame, b, prompt="y").execute(task_context("third"))
    assert simulator.charges == 3
