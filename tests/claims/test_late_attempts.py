"""A stranger's attack on the newest code."""

from __future__ import annotations

import json
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred
from airflow.sdk.execution_time.context import set_current_context

from airflow_provider_luma.cli.main import main
from airflow_provider_luma.exceptions import (
    LumaRayConfigurationError,
    LumaRayDeliveryFailed,
    LumaRayError,
    LumaRayInsufficientCredits,
    LumaRaySubmitUnknown,
    LumaRayTimeout,
)
from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.jobs import recovery
from airflow_provider_luma.simulator import Simulator
from tests.claims.conftest import Database
from tests.claims.test_counterexamples import advised
from tests.claims.test_drift import LATE
from tests.claims.test_drift import bought_and_late as late
from tests.claims.test_edits_and_commands import other_account, put  # noqa: F401
from tests.claims.test_followed_advice import adopts, lose, while_the_vendor_works
from tests.jobs.test_call import call
from tests.support import (
    MemoryStore,
    make_operator,
    record_path,
    recorded,
    task_context,
)
from tests.test_batch import Run, plan

pytestmark = pytest.mark.usefixtures("connection")
RESUBMIT: dict[str, Any] = {"on_unknown_submit": "resubmit"}


# 1. two searches at once, both resubmit


@pytest.mark.parametrize("who", ["script", "task"])
def test_two_attempts_that_search_for_one_lost_call_resubmit_it_once(
    simulator: Simulator, frame: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    """The answer is lost (nothing accepted); two callers of one key search at once; each ends with a purchase."""
    monkeypatch.setattr(recovery, "LOOK_DELAYS", (0.0, 0.5, 0.5))
    simulator.fault("submit", "reset", accepted=False)
    told: list[str] = []

    def one() -> None:
        try:
            if who == "script":
                call(frame, clip, key="coffee", **RESUBMIT)
            else:
                make_operator(frame, clip, **RESUBMIT).execute(task_context())
        except LumaRayError as error:
            told.append(str(error))

    threads = [threading.Thread(target=one) for _ in range(2)]
    threads[0].start()
    while not record_path(clip).exists() or not recorded(clip).get("error"):
        time.sleep(0.02)
    time.sleep(0.3)
    threads[1].start()
    for thread in threads:
        thread.join()
    assert len(simulator.jobs) == 1, (told, [job.request_id for job in simulator.jobs])


# 2. keep: a retry with an edited path and prompt


@pytest.mark.parametrize("how", ["submitted", "lost"])
def test_a_retry_under_keep_finishes_what_was_bought_though_path_and_prompt_were_edited(
    simulator: Simulator, frame: Path, tmp_path: Path, how: str
) -> None:
    kept = MemoryStore()
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    first = make_operator(frame, a, if_exists="keep", **LATE)
    if how == "submitted":
        late(simulator, first, task_context(store=kept))
    else:
        lose(simulator, first, task_context(store=kept))
    with suppress(LumaRayError):
        make_operator(frame, b, prompt="two", if_exists="keep").execute(task_context(store=kept))
    assert len(simulator.jobs) == 1


# 4. v1 clip beside


def test_a_v1_clip_put_beside_a_file_is_given_up_as_advised(
    simulator: Simulator, frame: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    while_the_vendor_works(monkeypatch, "generate", lambda: clip.write_bytes(b"somebody's"))
    with pytest.raises(LumaRayDeliveryFailed):
        make_operator(frame, clip, api_version="v1", if_exists="fail").execute(task_context())
    capsys.readouterr()
    done = main(["give-up", str(clip), "--yes"])
    while done != 0:
        told = capsys.readouterr().err
        again = advised(told.replace("To give it up there: ", ""), "give-up")
        done = main([*again, "--yes"])
        if done:
            raise AssertionError(told + capsys.readouterr().err)


@pytest.mark.parametrize("if_exists", ["fail", "keep", "reuse"])
def test_a_v1_clip_put_beside_a_file_is_copied_by_an_attempt_after_the_file_is_moved(
    simulator: Simulator, frame: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, if_exists: str
) -> None:
    """A retry comes first, as Airflow's do; then the person moves the file away, as both errors say."""
    v1: dict[str, Any] = {"api_version": "v1", "if_exists": if_exists}
    other = clip.with_name("other.mp4")
    simulator.fault("download", "changed")  # other bytes than those of the simulator's next clip
    make_operator(frame, other, prompt="other").execute(task_context("other"))
    while_the_vendor_works(monkeypatch, "generate", lambda: clip.write_bytes(other.read_bytes()))
    with pytest.raises(LumaRayDeliveryFailed) as caught:
        make_operator(frame, clip, **v1).execute(task_context())
    outputs: Any = None
    with suppress(LumaRayError):
        outputs = make_operator(frame, clip, **v1).execute(task_context())
    assert outputs is None, f"the retry took somebody's file for its own: {outputs}; {caught.value}"


# 5. keep shared by two tasks, one of them deferred


def test_a_deferred_clip_that_a_sibling_has_taken_up_stays_readable(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    keep: dict[str, Any] = {"if_exists": "keep"}
    one, two = MemoryStore(), MemoryStore()
    with pytest.raises(TaskDeferred) as deferred:
        make_operator(frame, clip, deferrable=True, **keep).execute(task_context("one", store=one))
    make_operator(frame, clip, **keep).execute(task_context("two", store=two))
    event = {"request_id": simulator.jobs[0].request_id, "reason": "ready"}
    make_operator(frame, clip, deferrable=True, **keep).execute_complete(
        task_context("one", store=one), event=event, **deferred.value.kwargs or {}
    )
    outputs = make_operator(frame, clip, deferrable=True, **keep).execute(
        task_context("one", store=one, clears=1)
    )
    assert outputs["request_id"] == simulator.jobs[0].request_id


def test_a_deferred_clip_that_a_sibling_waits_for_stays_readable(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    keep: dict[str, Any] = {"if_exists": "keep", "deferrable": True}
    one, two = MemoryStore(), MemoryStore()
    with pytest.raises(TaskDeferred) as deferred:
        make_operator(frame, clip, **keep).execute(task_context("one", store=one))
    with pytest.raises(TaskDeferred) as also:
        make_operator(frame, clip, **keep).execute(task_context("two", store=two))
    time.sleep(0.2)
    event = {"request_id": simulator.jobs[0].request_id, "reason": "ready"}
    make_operator(frame, clip, **keep).execute_complete(
        task_context("one", store=one), event=event, **deferred.value.kwargs or {}
    )
    make_operator(frame, clip, **keep).execute_complete(
        task_context("two", store=two), event=event, **also.value.kwargs or {}
    )
    for task, store in (("one", one), ("two", two)):
        outputs = make_operator(frame, clip, **keep).execute(task_context(task, store=store, clears=1))
        assert outputs["request_id"] == simulator.jobs[0].request_id


# 6. keep takes a busy path over


def test_keep_leaves_a_path_in_flight_to_its_owner(simulator: Simulator, frame: Path, tmp_path: Path) -> None:
    kept, theirs = MemoryStore(), MemoryStore()
    keep: dict[str, Any] = {"if_exists": "keep"}
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    late(simulator, make_operator(frame, a, **keep, **LATE), task_context(store=kept))
    second = late(
        simulator,
        make_operator(frame, b, prompt="x", **keep, **LATE),
        task_context(run_id="run_2", store=theirs),
    )
    told = ""
    try:
        make_operator(frame, b, **keep).execute(task_context(store=kept))
    except LumaRayError as error:
        told = str(error)
    outputs = make_operator(frame, b, prompt="x", **keep).execute(task_context(run_id="run_2", store=theirs))
    assert outputs["request_id"] == second, told


# 7. given up while waiting


def test_a_job_that_was_given_up_while_its_task_waited_and_failed_is_said_to_be_given_up(
    simulator: Simulator, frame: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = LumaRayHook.get_status

    def held(self: LumaRayHook, *arguments: Any) -> Any:
        monkeypatch.setattr(LumaRayHook, "get_status", status)
        assert main(["give-up", str(clip), "--yes"]) == 0
        return status(self, *arguments)

    monkeypatch.setattr(LumaRayHook, "get_status", held)
    simulator.fault("submit", "failed")
    with pytest.raises(LumaRayConfigurationError, match="gave this job up while the task waited"):
        make_operator(frame, clip).execute(task_context())


# 8. plan: own run's lost call below a given-up job


def test_a_plan_does_not_leave_a_clip_to_its_own_run(
    simulator: Simulator, frame: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frames, run = put(tmp_path / "frames", frame, "a.jpg"), Run()
    simulator.fault("submit", "reset", accepted=False)
    run.generate(plan(frames), **RESUBMIT)
    video = tmp_path / "videos" / "a.jpg.mp4"
    assert main(["give-up", str(video), "--yes"]) == 0
    video.unlink()
    caplog.clear()
    assert plan(frames) != [], caplog.text


# 9. the cap, a folder and a prompt that were edited


# 10. connections that were deleted


# 11. keep, resubmit, FAILED by mistake, and an edited prompt


def test_a_failed_resubmission_with_an_edited_prompt_is_checked_before_a_third_is_bought(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    keep: dict[str, Any] = {"if_exists": "keep", **RESUBMIT}
    lose(simulator, make_operator(frame, clip, if_exists="keep"), task_context(), accepted=False)
    second = late(simulator, make_operator(frame, clip, prompt="two", **keep, **LATE), task_context(clears=1))
    assert len(simulator.jobs) == 1
    record_path(clip).write_text(json.dumps({**recorded(clip), "state": "failed", "error": "a gateway"}))
    outputs = make_operator(frame, clip, prompt="two", **keep).execute(task_context(clears=1))
    assert (outputs["request_id"], len(simulator.jobs)) == (second, 1)


# second round


@pytest.mark.parametrize("has_store", [True, False])
def test_a_v1_clip_put_beside_a_file_is_had_as_its_error_says(
    simulator: Simulator, frame: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, has_store: bool
) -> None:
    v1: dict[str, Any] = {"api_version": "v1", "if_exists": "fail"}
    store = MemoryStore() if has_store else None
    while_the_vendor_works(monkeypatch, "generate", lambda: clip.write_bytes(b"somebody's"))
    with pytest.raises(LumaRayDeliveryFailed):
        make_operator(frame, clip, **v1).execute(task_context(store=store))
    with pytest.raises(LumaRayError):
        make_operator(frame, clip, **v1).execute(task_context(store=store))
    clip.unlink()
    outputs = make_operator(frame, clip, **v1).execute(task_context(store=store))
    assert (outputs["video_path"], simulator.charges) == (str(clip), 1)


def test_a_v1_clip_put_beside_a_file_keeps_its_path_when_another_run_wants_it(
    simulator: Simulator, frame: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is moved away, but another run comes first; then the task's retry."""
    v1: dict[str, Any] = {"api_version": "v1", "if_exists": "fail"}
    while_the_vendor_works(monkeypatch, "generate", lambda: clip.write_bytes(b"somebody's"))
    with pytest.raises(LumaRayDeliveryFailed):
        make_operator(frame, clip, **v1).execute(task_context())
    clip.unlink()
    make_operator(frame, clip, prompt="x", if_exists="fail").execute(task_context(run_id="run_2"))
    try:
        make_operator(frame, clip, **v1).execute(task_context())
    except LumaRayError as error:
        told = str(error)
    clip.unlink()
    outputs = make_operator(frame, clip, **v1).execute(task_context(clears=1))
    assert (outputs["request_id"], simulator.charges) == (simulator.jobs[0].request_id, 2), told


# settling and moves


def test_a_lost_call_that_was_given_up_and_then_adopted_is_fetched_at_its_first_path(
    simulator: Simulator, frame: Path, tmp_path: Path, database: Database
) -> None:
    """Lost at a; edited to b; given up at b; then found and adopted at b; edited back to a, and cleared."""
    kept = database.stores["run_1", -1] = MemoryStore()
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    lose(simulator, make_operator(frame, a), task_context(store=kept))
    simulator.fault("history", "status", status=401, times=9)
    with pytest.raises(LumaRaySubmitUnknown):
        make_operator(frame, b).execute(task_context(store=kept, clears=1))
    simulator.clear_faults()
    make_operator(frame, a, prompt="x").execute(task_context(run_id="run_2", store=MemoryStore()))
    first = simulator.jobs[0].request_id
    assert main(["give-up", str(b), "--yes"]) == 0
    assert main(["adopt", str(b), first]) == 0
    a.unlink()
    with suppress(LumaRayError):
        make_operator(frame, a).execute(task_context(store=kept, clears=2))
    outputs = make_operator(frame, a).execute(task_context(store=kept, clears=3))
    assert (outputs["request_id"], simulator.charges) == (first, 2)


def test_a_lost_call_said_to_be_not_bought_and_then_adopted_is_fetched_at_its_first_path(
    simulator: Simulator, frame: Path, tmp_path: Path, database: Database
) -> None:
    kept = database.stores["run_1", -1] = MemoryStore()
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    simulator.delay_history("next", 600)
    lose(simulator, make_operator(frame, a), task_context(store=kept))
    with pytest.raises(LumaRaySubmitUnknown) as caught:
        make_operator(frame, b).execute(task_context(store=kept, clears=1))
    make_operator(frame, a, prompt="x").execute(task_context(run_id="run_2", store=MemoryStore()))
    assert main(advised(caught.value, "not-bought")) == 0
    simulator.advance(700)
    first = simulator.jobs[0].request_id
    assert main(["adopt", str(b), first]) == 0
    a.unlink()
    outputs = make_operator(frame, a).execute(task_context(store=kept, clears=2))
    assert (outputs["request_id"], simulator.charges) == (first, 2)


@pytest.mark.parametrize("prompt", ["a slow push in", "edited"])
def test_a_lost_call_settled_in_a_script_is_found_by_its_next_call(
    simulator: Simulator, frame: Path, clip: Path, prompt: str
) -> None:
    simulator.fault("submit", "reset", accepted=True)
    simulator.fault("history", "status", status=401)
    with pytest.raises(LumaRaySubmitUnknown) as caught:
        call(frame, clip, key="coffee")
    assert main(adopts(caught.value, simulator.jobs[0].request_id)) == 0
    try:
        call(frame, clip, key="coffee", prompt=prompt)
    except LumaRayError as error:
        print(error)
    assert len(simulator.jobs) == 1


def test_an_adopted_job_that_has_expired_is_given_up_as_advised(
    simulator: Simulator, frame: Path, tmp_path: Path, database: Database
) -> None:
    kept = database.stores["run_1", -1] = MemoryStore()
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    lose(simulator, make_operator(frame, a), task_context(store=kept))
    first = simulator.jobs[0].request_id
    assert main(["adopt", str(a), first]) == 0
    with pytest.MonkeyPatch.context() as patched:
        simulator.advance(40 * 24 * 3600)
        patched.setattr(LumaRayHook, "find_jobs", lambda self, *x, **k: self.get_credits() and [])
        patched.setattr(LumaRayHook, "find_job", lambda self, *x, **k: None)
        with pytest.raises(LumaRayError) as caught:
            make_operator(frame, b, prompt="two").execute(task_context(store=kept, clears=1))
    print(caught.value)
    assert main([*advised(caught.value, "give-up"), "--yes"]) == 0
    make_operator(frame, b, prompt="two").execute(task_context(store=kept, clears=2))
    make_operator(frame, a, prompt="y").execute(task_context(run_id="run_2", store=MemoryStore()))


def test_a_shared_keep_path_whose_first_owner_is_given_up_by_its_sibling(
    simulator: Simulator, frame: Path, clip: Path, database: Database, capsys: Any
) -> None:
    """Index 0's job in flight; the mapping shifts: index 1 takes it up and times out; give-up; both cleared."""
    one = database.stores["run_1", 0] = MemoryStore()
    two = database.stores["run_1", 1] = MemoryStore()
    keep: dict[str, Any] = {"if_exists": "keep"}
    late(simulator, make_operator(frame, clip, **keep, **LATE), task_context(map_index=0, store=one))
    for call_ in ("status", "result"):
        simulator.fault(call_, "status", status=500, times=99)
    with pytest.raises(LumaRayTimeout):
        make_operator(frame, clip, **keep, **LATE).execute(task_context(map_index=1, store=two, clears=1))
    simulator.clear_faults()
    assert main(["give-up", str(clip), "--yes"]) == 0
    print(capsys.readouterr().out)
    outputs = make_operator(frame, clip, **keep).execute(task_context(map_index=1, store=two, clears=2))
    assert outputs["request_id"] == simulator.jobs[1].request_id
    again = make_operator(frame, clip, **keep).execute(task_context(map_index=0, store=one, clears=3))
    assert (again["request_id"], simulator.charges) == (simulator.jobs[1].request_id, 2)


def test_a_sibling_of_a_given_up_job_at_index_0_does_not_resurrect_it(
    simulator: Simulator, frame: Path, clip: Path, database: Database, capsys: Any
) -> None:
    """The same, but index 0 gets its clip again (its store still says: in flight)."""
    one = database.stores["run_1", 0] = MemoryStore()
    two = database.stores["run_1", 1] = MemoryStore()
    keep: dict[str, Any] = {"if_exists": "keep"}
    late(simulator, make_operator(frame, clip, **keep, **LATE), task_context(map_index=0, store=one))
    for call_ in ("status", "result"):
        simulator.fault(call_, "status", status=500, times=99)
    with pytest.raises(LumaRayTimeout):
        make_operator(frame, clip, **keep, **LATE).execute(task_context(map_index=1, store=two, clears=1))
    simulator.clear_faults()
    assert main(["give-up", str(clip), "--yes"]) == 0
    outputs = make_operator(frame, clip, **keep).execute(task_context(map_index=0, store=one, clears=2))
    assert outputs["request_id"] == simulator.jobs[1].request_id


def test_a_sibling_deferred_for_a_clip_that_is_given_up_says_what_is_true(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    keep: dict[str, Any] = {"if_exists": "keep", "deferrable": True}
    with pytest.raises(TaskDeferred) as deferred:
        make_operator(frame, clip, **keep).execute(task_context("one"))
    with pytest.raises(TaskDeferred):
        make_operator(frame, clip, **keep).execute(task_context("two"))
    assert main(["give-up", str(clip), "--yes"]) == 0
    event = {"request_id": simulator.jobs[0].request_id, "reason": "ready"}
    with pytest.raises(LumaRayConfigurationError, match="gave this job up"):
        make_operator(frame, clip, **keep).execute_complete(
            task_context("one"), event=event, **deferred.value.kwargs or {}
        )
    with pytest.raises(TaskDeferred):
        make_operator(frame, clip, **keep).execute(task_context("one", clears=1))
    assert len(simulator.jobs) == 2


# third round


def test_a_lost_call_given_up_and_adopted_is_fetched_at_its_first_path_that_nobody_used(
    simulator: Simulator, frame: Path, tmp_path: Path, database: Database
) -> None:
    kept = database.stores["run_1", -1] = MemoryStore()
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    lose(simulator, make_operator(frame, a), task_context(store=kept))
    simulator.fault("history", "status", status=401, times=9)
    with pytest.raises(LumaRaySubmitUnknown):
        make_operator(frame, b).execute(task_context(store=kept, clears=1))
    simulator.clear_faults()
    first = simulator.jobs[0].request_id
    assert main(["give-up", str(b), "--yes"]) == 0
    assert main(["adopt", str(b), first]) == 0
    with suppress(LumaRayError):
        make_operator(frame, a).execute(task_context(store=kept, clears=2))
    outputs = make_operator(frame, a).execute(task_context(store=kept, clears=3))
    assert (outputs["request_id"], simulator.charges) == (first, 1)


@pytest.mark.parametrize("if_exists", ["overwrite", "keep", "reuse", "fail"])
def test_what_adopt_says_of_the_next_attempt_is_true(
    simulator: Simulator, frame: Path, clip: Path, capsys: Any, if_exists: str
) -> None:
    """The lost call did buy; the resubmitted job was delivered; the first is adopted; the task is cleared."""
    more: dict[str, Any] = {"if_exists": if_exists, **RESUBMIT}
    simulator.delay_history("next", 600)
    simulator.fault("submit", "reset", accepted=True)
    make_operator(frame, clip, **more).execute(task_context())
    simulator.advance(700)
    first = simulator.jobs[0].request_id
    capsys.readouterr()
    assert main(["adopt", str(clip), first]) == 0
    told = capsys.readouterr().out
    outputs = make_operator(frame, clip, **more).execute(task_context(clears=1))
    assert (f"re-attaches to job {first}" in told) is (outputs["request_id"] == first), told


@pytest.mark.parametrize("if_exists", ["overwrite", "keep", "reuse", "fail"])
def test_a_v1_payer_whose_clip_its_retry_has_delivered_puts_nothing_beside_it(
    simulator: Simulator, frame: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, if_exists: str
) -> None:
    more: dict[str, Any] = {"if_exists": if_exists, "api_version": "v1"}
    done: list[Any] = []

    def retry() -> None:
        simulator.advance(1)
        done.append(make_operator(frame, clip, **more).execute(task_context()))

    while_the_vendor_works(monkeypatch, "generate", retry)
    told = ""
    try:
        make_operator(frame, clip, **more).execute(task_context())
    except LumaRayError as error:
        told = str(error)
    assert done
    assert not told, told
    assert sorted(one.name for one in clip.parent.glob("*.mp4")) == ["clip.mp4"]


def test_a_job_in_flight_whose_connection_was_deleted_is_not_said_to_be_nothing(
    simulator: Simulator,
    other_account: Simulator,  # noqa: F811
    frame: Path,
    clip: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = late(other_account, make_operator(frame, clip, luma_ray_conn_id="luma_b", **LATE), task_context())
    monkeypatch.delenv("AIRFLOW_CONN_LUMA_B")
    with pytest.raises(LumaRayError) as caught:
        make_operator(frame, clip).execute(task_context())
    assert first in str(caught.value), caught.value


def test_a_resubmission_does_not_take_a_path_from_a_run_that_bought_during_the_search(
    simulator: Simulator, frame: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost at a (nothing accepted), edited to b with an old video; run_2 buys at b during the search."""
    kept, theirs = MemoryStore(), MemoryStore()
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    make_operator(frame, b, prompt="old").execute(task_context(run_id="run_0"))
    lose(simulator, make_operator(frame, a), task_context(store=kept), accepted=False)
    find_jobs, second = LumaRayHook.find_jobs, []

    def meanwhile(self: LumaRayHook, *arguments: Any) -> Any:
        monkeypatch.setattr(LumaRayHook, "find_jobs", find_jobs)
        second.append(
            late(
                simulator,
                make_operator(frame, b, prompt="x", **LATE),
                task_context(run_id="run_2", store=theirs),
            )
        )
        return find_jobs(self, *arguments)

    monkeypatch.setattr(LumaRayHook, "find_jobs", meanwhile)
    told = ""
    try:
        make_operator(frame, b, **RESUBMIT).execute(task_context(store=kept, clears=1))
    except LumaRayError as error:
        told = str(error)
    assert "in use" in told, told or "it bought and delivered over run_2's job in flight"


def test_a_lost_call_of_a_moved_folder_under_keep_is_adopted_as_advised(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    """The folder of clips is moved, records and all; the lost call is looked up there."""
    old, new = tmp_path / "old", tmp_path / "new"
    keep: dict[str, Any] = {"if_exists": "keep"}
    lose(simulator, make_operator(frame, old / "a.mp4", **keep), task_context())
    old.rename(new)
    simulator.fault("history", "status", status=401)
    with pytest.raises(LumaRaySubmitUnknown) as caught:
        make_operator(frame, new / "a.mp4", **keep).execute(task_context(clears=1))
    assert main(adopts(caught.value, simulator.jobs[0].request_id)) == 0
    outputs = make_operator(frame, new / "a.mp4", **keep).execute(task_context(clears=2))
    assert (outputs["request_id"], simulator.charges) == (simulator.jobs[0].request_id, 1)


def test_a_delivered_clip_in_a_moved_folder_is_given_up_as_advised(
    simulator: Simulator, frame: Path, tmp_path: Path, capsys: Any
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    make_operator(frame, old / "a.mp4").execute(task_context())
    old.rename(new)
    capsys.readouterr()
    done = main(["give-up", str(new / "a.mp4"), "--yes"])
    if done:
        told = capsys.readouterr().err
        again = main([*advised(told.replace("To give it up there: ", ""), "give-up"), "--yes"])
        assert again == 0, told + capsys.readouterr().err


# fourth round


@pytest.mark.parametrize("how", ["relative"])  # by a symlink it is refused, but the command it names works
def test_a_delivered_clip_is_given_up_by_another_spelling_of_its_path(
    simulator: Simulator, frame: Path, clip: Path, capsys: Any, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_operator(frame, clip).execute(task_context())
    if how == "relative":
        monkeypatch.chdir(clip.parent)
        given = clip.name
    else:
        link = clip.parent.parent / "link"
        link.symlink_to(clip.parent)
        given = str(link / clip.name)
    capsys.readouterr()
    done = main(["give-up", given, "--yes"])
    assert done == 0, capsys.readouterr().err


def test_a_fallback_to_another_path_without_a_key_is_refused(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    """A retry would look for it at the first path only, and without a state store buy another."""
    simulator.fault("submit", "status", status=402)
    with set_current_context(task_context()):
        with pytest.raises(LumaRayInsufficientCredits):
            call(frame, tmp_path / "one.mp4", prompt="one")
        with pytest.raises(LumaRayConfigurationError, match="Give each call of image_to_video its own key"):
            call(frame, tmp_path / "two.mp4", prompt="two")
    assert simulator.jobs == []


def test_a_deferred_job_that_was_given_up_and_adopted_again_is_delivered(
    simulator: Simulator, frame: Path, clip: Path, database: Database
) -> None:
    kept = database.stores["run_1", -1] = MemoryStore()
    with pytest.raises(TaskDeferred) as deferred:
        make_operator(frame, clip, deferrable=True).execute(task_context(store=kept))
    first = simulator.jobs[0].request_id
    assert main(["give-up", str(clip), "--yes"]) == 0
    assert main(["adopt", str(clip), first]) == 0
    time.sleep(0.2)
    event = {"request_id": first, "reason": "ready"}
    outputs = make_operator(frame, clip, deferrable=True).execute_complete(
        task_context(store=kept), event=event, **deferred.value.kwargs or {}
    )
    assert outputs["request_id"] == first


def test_the_two_resubmissions_of_a_lost_call_are_on_record(
    simulator: Simulator, frame: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "LOOK_DELAYS", (0.0, 0.5, 0.5))
    simulator.fault("submit", "reset", accepted=False)

    def one() -> None:
        with suppress(LumaRayError):
            call(frame, clip, key="coffee", **RESUBMIT)

    threads = [threading.Thread(target=one) for _ in range(3)]
    threads[0].start()
    while not record_path(clip).exists() or not recorded(clip).get("error"):
        time.sleep(0.02)
    for thread in threads[1:]:
        time.sleep(0.2)
        thread.start()
    for thread in threads:
        thread.join()
    ids = {take.get("request_id") for take in (recorded(clip), *recorded(clip)["superseded"])}
    assert {job.request_id for job in simulator.jobs} <= ids
    assert len(simulator.jobs) == 1


# fifth round

NAMED = ["--dag-id", "clips", "--run-id", "run_1", "--task-id", "generate"]


def test_a_moved_clip_with_its_record_can_be_bought_again_after_it_has_expired(
    simulator: Simulator, frame: Path, tmp_path: Path, capsys: Any
) -> None:
    """'Move a clip together with its record'; the person wants another one of the same inputs: give-up."""
    a, b = tmp_path / "v" / "a.mp4", tmp_path / "w" / "b.mp4"
    make_operator(frame, a).execute(task_context())
    b.parent.mkdir()
    a.rename(b)
    record_path(a).rename(record_path(b))
    make_operator(frame, b, prompt="x").execute(task_context("other", run_id="run_2"))
    capsys.readouterr()
    done = main(["give-up", str(b), simulator.jobs[0].request_id, "--yes"])
    told = capsys.readouterr().err
    if done:
        done = main([*advised(told.replace("To give it up there: ", ""), "give-up"), "--yes"])
    assert done == 0, told + capsys.readouterr().err


def test_a_shared_keep_path_of_two_deferred_tasks_is_not_stuck_for_ever(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    keep: dict[str, Any] = {"if_exists": "keep", "deferrable": True}
    one, two = MemoryStore(), MemoryStore()
    waits = []
    for task, store in (("one", one), ("two", two)):
        with pytest.raises(TaskDeferred) as deferred:
            make_operator(frame, clip, **keep).execute(task_context(task, store=store))
        waits.append(deferred.value.kwargs or {})
    time.sleep(0.2)
    event = {"request_id": simulator.jobs[0].request_id, "reason": "ready"}
    told = []
    for (task, store), wait in zip((("one", one), ("two", two)), waits, strict=True):
        try:
            make_operator(frame, clip, **keep).execute_complete(
                task_context(task, store=store), event=event, **wait
            )
        except LumaRayError as error:
            told.append(str(error))
    for clears in (0, 1, 2):
        for task, store in (("one", one), ("two", two)):
            try:
                make_operator(frame, clip, **keep).execute(task_context(task, store=store, clears=clears))
            except LumaRayError as error:
                told.append(f"{task} {clears}: {error}")
    assert not told, "\n".join(told)


def test_two_attempts_of_one_task_with_a_store_resubmit_once(
    simulator: Simulator, frame: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the first round with Airflow 3.3, whose store refuses the replaced attempt."""
    from tests.claims.test_drift import ReplacedStore

    monkeypatch.setattr(recovery, "LOOK_DELAYS", (0.0, 0.5, 0.5))
    simulator.fault("submit", "reset", accepted=False)
    stale, kept = ReplacedStore(), MemoryStore()
    kept.values = stale.values

    def run(store: Any) -> None:
        with suppress(LumaRayError):
            make_operator(frame, clip, **RESUBMIT).execute(task_context(store=store))

    threads = [threading.Thread(target=run, args=(store,)) for store in (stale, kept)]
    threads[0].start()
    while not record_path(clip).exists() or not recorded(clip).get("error"):
        time.sleep(0.02)
    time.sleep(0.3)
    stale.is_replaced = True
    threads[1].start()
    for thread in threads:
        thread.join()
    assert len(simulator.jobs) == 1
