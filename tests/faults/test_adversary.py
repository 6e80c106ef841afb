"""Ways to overspend or to lose a clip that an adversary found by reading the code; short, over real HTTP."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from airflow_provider_luma import media
from airflow_provider_luma.exceptions import (
    LumaRayConfigurationError,
    LumaRayDeliveryFailed,
    LumaRayJobFailed,
    LumaRayRecordError,
    LumaRaySubmitUnknown,
    LumaRaySuperseded,
)
from airflow_provider_luma.hooks.limiter import Rank
from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.hooks.transport import Transport
from airflow_provider_luma.jobs import ledger
from airflow_provider_luma.segmind.request import GenerationRequest
from airflow_provider_luma.simulator import Simulator
from airflow_provider_luma.storage.local import LocalFile
from tests.faults.conftest import connect
from tests.faults.harness import Task, follow, settle
from tests.faults.vendor import Died
from tests.support import API_KEY, MemoryStore, make_operator, task_context


@pytest.fixture
def task(simulator: Simulator, connection: None, frame: Path, tmp_path: Path) -> Task:
    return Task(simulator, tmp_path / "videos", frame, stored=True)


def test_undoing_an_edit_returns_to_its_video(simulator: Simulator, task: Task) -> None:
    """The first prompt's video was paid for, and the vendor still has it."""
    first = task.attempt(prompt="a")
    task.clear()
    task.attempt(prompt="b")
    task.clear()
    again = task.attempt(prompt="a")
    assert simulator.charges == 2
    task.check_delivered(again, next(job for job in simulator.jobs if job.body["prompt"] == "a"))
    assert first.xcoms
    assert again.xcoms
    assert first.xcoms["request_id"] == again.xcoms["request_id"]
    task.clear()
    assert task.attempt(prompt="b").word == "delivered"
    assert simulator.charges == 2


def test_a_retry_finishes_what_was_bought_whatever_the_inputs_are_now(
    simulator: Simulator, task: Task
) -> None:
    """Such as a prompt that an upstream task rewrites each time; only a clear buys another clip."""
    simulator.fault("download", "status", status=500, times=99)
    assert task.attempt(prompt="a").word == "retry"
    simulator.clear_faults()
    (job,) = settle(simulator)
    task.check_delivered(task.attempt(prompt="b", generation_tag="new"), job)
    assert task.attempt(prompt="").word == "delivered"
    assert simulator.charges == 1

    task.clear()
    outcome = task.attempt(prompt="b")
    task.check_delivered(outcome, next(job for job in simulator.jobs if job.body["prompt"] == "b"))
    assert simulator.charges == 2


def test_a_lost_job_is_not_taken_for_that_of_a_later_edit(
    monkeypatch: pytest.MonkeyPatch, frame: Path, tmp_path: Path
) -> None:
    """Both submits bought a job and lost the answer; the history already shows the first, but not the second."""
    with Simulator(latency=0.02, clip_seconds=0.2, api_key=API_KEY, history_lag=60) as simulator:
        connect(monkeypatch, simulator)
        task = Task(simulator, tmp_path / "videos", LumaRayHook().upload_image(frame), stored=True)
        simulator.fault("submit", "reset", times=2)
        assert task.attempt().word == "person"
        simulator.advance(60)
        task.clear()
        second = task.attempt(generation_tag="again")
        assert len(settle(simulator)) == 2
    assert second.word == "person"
    assert task.record["state"] == "intent"


@pytest.mark.parametrize("leg", ["beside the video", "task state store"])
def test_a_record_that_could_not_be_written_before_the_purchase_is_not_a_purchase(
    task: Task, simulator: Simulator, monkeypatch: pytest.MonkeyPatch, leg: str
) -> None:
    """One copy has the intent; the error says that nothing was bought and that a retry may succeed."""
    with monkeypatch.context() as for_now:
        if leg == "task state store":
            for_now.setattr(MemoryStore, "set", failing(RuntimeError("API server error")))
        else:
            for_now.setattr(os, "link", failing(OSError(errno.ENOSPC, "No space left on device")))
        first = task.attempt()
    assert isinstance(first.error, LumaRayRecordError)
    assert "submit" not in simulator.calls
    second = task.attempt()
    assert second.word == "delivered", second.error


def test_a_parameter_that_is_not_json_is_refused_before_the_intent(task: Task, simulator: Simulator) -> None:
    """Such as an amount that an upstream task computed."""
    refused = task.attempt(extra_parameters={"cfg": Decimal("1.5")})
    assert isinstance(refused.error, LumaRayConfigurationError)
    assert "submit" not in simulator.calls
    assert not task.record_path.exists()


def test_a_full_disk_on_v1_loses_no_id(
    task: Task, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply's header had the job's id before the first byte of the video was written."""
    with monkeypatch.context() as for_now:
        for_now.setattr(media.VideoSink, "write", failing(OSError(errno.ENOSPC, "No space left on device")))
        first = task.attempt(api_version="v1")
    (job,) = settle(simulator)
    assert first.error is not None
    assert job.request_id in str(first.error)
    assert task.record["request_id"] == job.request_id
    task.check_left_clean()
    task.check_delivered(task.attempt(api_version="v1"), job)
    assert simulator.charges == 1


def test_a_surviving_attempt_does_not_buy_what_its_retry_has_bought(
    task: Task, simulator: Simulator, frame: Path
) -> None:
    """Airflow considered it dead while it uploaded its frame; it read the record before, and buys after."""
    simulator.fault("upload", "slow", seconds=1.0)
    with ThreadPoolExecutor(1) as threads:
        zombie = threads.submit(task.attempt)
        while not simulator.calls.get("upload"):
            time.sleep(0.005)
        assert task.attempt().word == "delivered"
        assert not zombie.done()
        zombie.result()
    (job,) = settle(simulator)
    task.check_delivered(task.attempt(), job)
    assert simulator.charges == 1


def test_a_deferred_wait_delivers_to_the_current_output_path(
    simulator: Simulator, connection: None, frame: Path, tmp_path: Path
) -> None:
    """output_path costs nothing: a clear with another one delivers the same job there, in both modes."""
    store = MemoryStore()
    arguments: dict[str, Any] = {"deferrable": True}
    with pytest.raises(TaskDeferred):
        make_operator(frame, tmp_path / "old.mp4", **arguments).execute(task_context(store=store))
    context = task_context(store=store, clears=1)
    with pytest.raises(TaskDeferred) as deferral:
        make_operator(frame, tmp_path / "new.mp4", **arguments).execute(context)
    (job,) = settle(simulator)
    xcoms = make_operator(frame, tmp_path / "new.mp4", **arguments).execute_complete(
        context, event={"request_id": job.request_id, "reason": "ready"}, **deferral.value.kwargs or {}
    )
    assert xcoms["video_path"] == str(tmp_path / "new.mp4")
    assert (tmp_path / "new.mp4").exists()


def test_undoing_an_edit_while_its_job_runs_waits_for_that_job(
    simulator: Simulator, connection: None, frame: Path, tmp_path: Path
) -> None:
    """The deferral has the first prompt's job; when the trigger fires, the record must have it too."""
    store = MemoryStore()
    for clears, prompt in enumerate("aba"):
        context = task_context(store=store, clears=clears)
        operator = make_operator(frame, tmp_path / "clip.mp4", prompt=prompt, deferrable=True)
        with pytest.raises(TaskDeferred) as deferral:
            operator.execute(context)
    jobs = settle(simulator)
    assert len(jobs) == 2
    operator = make_operator(frame, tmp_path / "clip.mp4", prompt="a", deferrable=True)
    event = {"request_id": deferral.value.trigger.request_id, "reason": "ready"}
    xcoms = operator.execute_complete(context, event=event, **deferral.value.kwargs or {})
    assert xcoms["request_id"] == next(job.request_id for job in jobs if job.body["prompt"] == "a")


def test_a_copy_at_the_new_path_is_not_reported_at_the_old_one(
    simulator: Simulator, connection: None, frame: Path, tmp_path: Path
) -> None:
    """The video was moved and output_path changed accordingly: the size is right, but its record is elsewhere."""
    store = MemoryStore()
    make_operator(frame, tmp_path / "old.mp4").execute(task_context(store=store))
    (tmp_path / "old.mp4").rename(tmp_path / "new.mp4")
    xcoms = make_operator(frame, tmp_path / "new.mp4").execute(task_context(store=store))
    assert xcoms["video_path"] == str(tmp_path / "new.mp4")
    assert simulator.charges == 1


def test_reuse_takes_the_file_as_it_is(
    simulator: Simulator, connection: None, frame: Path, tmp_path: Path
) -> None:
    """A video from elsewhere has no record and no job, so nothing of it can have expired."""
    (tmp_path / "clip.mp4").write_bytes(b"\0\0\0\x18ftypisom and more")
    xcoms = make_operator(frame, tmp_path / "clip.mp4", if_exists="reuse").execute(task_context())
    assert (xcoms["video_path"], xcoms["request_id"]) == (str(tmp_path / "clip.mp4"), None)
    assert (tmp_path / "clip.mp4").read_bytes() == b"\0\0\0\x18ftypisom and more"
    assert simulator.charges == 0


def test_a_task_that_is_stopped_while_it_looks_for_a_lost_job_names_the_record(
    task: Task, simulator: Simulator, frame: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the only trace of what may have been bought."""
    monkeypatch.setattr("airflow_provider_luma.jobs.recovery.LOOK_DELAYS", (0.0, 30.0))
    simulator.fault("submit", "reset")
    simulator.fault("history", "wrong_shape", times=99)
    operator = make_operator(frame, task.video)
    with ThreadPoolExecutor(1) as threads:
        attempt = threads.submit(operator.execute, task_context(store=task.store))
        while not simulator.calls.get("history"):
            time.sleep(0.005)
        operator.on_kill()
        error = attempt.exception(timeout=10)
    assert error is not None
    assert not isinstance(error, AirflowFailException)
    assert str(task.record_path) in str(error)
    simulator.clear_faults()
    assert json.loads(task.record_path.read_text())["state"] == "intent"


def test_an_unreadable_neighbour_does_not_hide_a_possible_purchase(task: Task, simulator: Simulator) -> None:
    """It may claim the job, so nothing is adopted; but the error is about this task's job, not about that record."""
    task.video.parent.mkdir(parents=True)
    (task.video.parent / "other.mp4.job.json").write_text("{")
    simulator.fault("submit", "reset")
    outcome = task.attempt(frame_transfer="base64")  # which another call may have sent, too
    (job,) = settle(simulator)
    assert outcome.error is not None
    assert task.tells_of(outcome.error, job), outcome.error


def test_a_death_while_the_submit_waits_for_the_rate_limit_is_not_a_purchase(
    simulator: Simulator,
    connection: None,
    frame: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A 429 may block calls for a minute, so the time before that wait is not that of the paid call."""
    task = Task(simulator, tmp_path / "videos", LumaRayHook().upload_image(frame), stored=True)
    take_place = Transport._take_place

    def die_rather_than_wait(self: Transport, rank: Rank = Rank.URGENT) -> None:
        if task.record_path.exists() and self._limiter.take(Rank.URGENT):
            raise Died
        take_place(self, rank)

    simulator.fault("credits", "status", status=429, seconds=1, times=99)
    with monkeypatch.context() as for_now:
        for_now.setattr(Transport, "_take_place", die_rather_than_wait)
        with contextlib.suppress(Died):
            task.attempt()
    simulator.clear_faults()
    second = task.attempt()
    assert second.word == "delivered", second.error
    assert simulator.charges == 1


def test_a_job_bought_long_after_the_call_is_not_its_own(task: Task, simulator: Simulator) -> None:
    """Somebody sent the same request elsewhere, an hour later; no paid call lasts that long."""
    body: dict[str, Any] = {}
    submit = LumaRayHook.submit

    def overheard(self: LumaRayHook, request: GenerationRequest) -> str:
        body.update(request.body())
        return submit(self, request)

    with pytest.MonkeyPatch.context() as for_now:
        for_now.setattr(LumaRayHook, "submit", overheard)
        simulator.fault("submit", "reset", accepted=False)
        assert task.attempt().word == "person"
    simulator.advance(3600)
    headers = {"x-api-key": API_KEY}
    requests.post(f"{simulator.url}/v2/luma-ray-img-2-video", json=body, headers=headers, timeout=10)
    assert task.attempt().word == "person"


def failing(error: Exception) -> Any:
    def fail(*arguments: Any, **options: Any) -> None:
        raise error

    return fail


def test_differing_copies_of_the_record_are_reconciled(simulator: Simulator, task: Task) -> None:
    """The first attempt died when the file said "delivered" but the task state store did not yet."""
    assert task.store
    task.attempt()
    task.store.set(
        ledger.STATE_KEY, task.record | {"state": "completed", "revision": task.record["revision"] - 1}
    )
    assert task.attempt().word == "delivered"
    assert task.store.get(ledger.STATE_KEY) == task.record
    assert task.record["state"] == "delivered"

    task.record_path.unlink()
    assert task.attempt().word == "delivered"
    assert task.store.get(ledger.STATE_KEY) == task.record
    assert simulator.charges == 1


@pytest.mark.parametrize("named", [True, False], ids=["with its id", "without its id"])
def test_a_failed_v1_job_is_not_taken_for_a_lost_one(
    monkeypatch: pytest.MonkeyPatch, frame: Path, tmp_path: Path, named: bool
) -> None:
    """The first v1 call FAILED; the second bought a job, its answer was lost, and the history shows it later."""
    with Simulator(latency=0.02, clip_seconds=0.2, api_key=API_KEY, history_lag=60) as simulator:
        connect(monkeypatch, simulator)
        frame_url = LumaRayHook().upload_image(frame)
        task = Task(simulator, tmp_path / "videos", frame_url, stored=True, api_version="v1")
        simulator.fail_next()
        first = task.attempt()
        assert first.word == "person"
        assert str(first.error).startswith(simulator.jobs[0].request_id)
        if not named:
            nameless = {name: value for name, value in task.record.items() if name != "request_id"}
            task.record_path.write_text(json.dumps(nameless))
        simulator.advance(60)
        simulator.fault("v1", "reset", accepted=True)
        for _ in range(3):
            assert task.attempt().word == "person"
        simulator.advance(60)
        last = task.attempt()
        assert simulator.charges == 1
        if named:
            task.check_delivered(last, settle(simulator)[1])


def test_an_attempt_that_outlives_a_clear_buys_nothing_of_its_own(
    simulator: Simulator, connection: None, frame: Path, tmp_path: Path
) -> None:
    """It was about to buy the first prompt's clip; the clear has bought the second's, and an edit buys nothing."""
    task = Task(simulator, tmp_path / "videos", frame, stored=False)
    simulator.fault("upload", "slow", seconds=1.0)
    with ThreadPoolExecutor(1) as threads:
        zombie = threads.submit(task.attempt, prompt="a")
        while not simulator.calls.get("upload"):
            time.sleep(0.005)
        task.clear()
        cleared = task.attempt(prompt="b")
        assert not zombie.done()
        assert zombie.result().word == "delivered"
    (job,) = settle(simulator)
    task.check_delivered(cleared, job)
    assert job.body["prompt"] == "b"
    task.check_delivered(task.attempt(prompt="c"), job)
    assert simulator.charges == 1


def test_a_job_that_failed_while_its_task_was_deferred_is_not_fetched(
    simulator: Simulator, connection: None, frame: Path, tmp_path: Path
) -> None:
    """Another attempt, perhaps one that died right after, has recorded FAILED."""
    context = task_context(store=MemoryStore())
    operator = make_operator(frame, tmp_path / "clip.mp4", deferrable=True)
    simulator.fail_next()
    with pytest.raises(TaskDeferred) as deferral:
        operator.execute(context)
    (job,) = settle(simulator)
    for _ in range(2):
        with pytest.raises(LumaRayJobFailed, match="FAILED"):
            make_operator(frame, tmp_path / "clip.mp4", deferrable=True).execute_complete(
                context,
                event={"request_id": job.request_id, "reason": "failed"},
                **deferral.value.kwargs or {},
            )
    assert json.loads((tmp_path / "clip.mp4.job.json").read_text())["state"] == "failed"
    assert "download" not in simulator.calls
    make_operator(frame, tmp_path / "clip.mp4").execute(context)
    assert (len(simulator.jobs), simulator.charges) == (2, 1)


def test_what_a_person_settled_is_not_asked_again_when_the_next_job_fails(
    simulator: Simulator, task: Task
) -> None:
    """The task state store was not told that the lost call bought nothing."""
    simulator.fault("submit", "reset", accepted=False)
    lost = task.attempt()
    follow(lost.error, "not-bought")
    task.clear()
    simulator.fail_next()
    assert isinstance(task.attempt().error, LumaRayJobFailed)
    task.check_delivered(task.attempt(), settle(simulator)[1])


def test_what_a_person_settled_survives_another_run_at_the_same_path(
    simulator: Simulator, connection: None, frame: Path, tmp_path: Path
) -> None:
    """A path that is the same each night: the sidecar file belongs to the later run by then."""
    store = MemoryStore()

    def attempt(run_id: str, clears: int = 0, store: MemoryStore | None = None) -> None:
        operator = make_operator(frame, tmp_path / "clip.mp4")
        operator.execute(task_context(run_id=run_id, clears=clears, store=store))

    simulator.fault("submit", "reset", accepted=False)
    with pytest.raises(LumaRaySubmitUnknown) as lost:
        attempt("monday", store=store)
    follow(lost.value, "not-bought")
    attempt("tuesday")
    attempt("monday", clears=1, store=store)
    assert simulator.charges == 2


def test_an_unreadable_video_does_not_raise_a_bare_oserror(
    simulator: Simulator, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one on a network disk that is briefly unavailable, right after another attempt has delivered it."""
    task.attempt()
    (job,) = settle(simulator)
    holds = LocalFile.holds
    looks = count()

    def away(self: LocalFile, *arguments: Any) -> bool:
        if next(looks) == 1:
            raise OSError(errno.EIO, "Input/output error")
        return holds(self, *arguments)

    with monkeypatch.context() as for_now:
        for_now.setattr(LocalFile, "holds", away)
        outcome = task.attempt()
    assert isinstance(outcome.error, LumaRayDeliveryFailed)
    assert task.tells_of(outcome.error, job)
    task.check_delivered(task.attempt(), job)


def test_a_claim_that_is_withdrawn_late_does_not_hide_what_was_bought_since(
    simulator: Simulator, connection: None, frame: Path, tmp_path: Path
) -> None:
    """Monday's first attempt hung at the API server until a clear had bought; on Tuesday the path has another run."""
    hangs, goes_on = threading.Event(), threading.Event()

    class Replaced(RuntimeError):
        error = SimpleNamespace(detail={"status_code": 404})

    class HangingStore(MemoryStore):
        def set(self, key: str, value: Any, *, retention: Any = None) -> None:
            hangs.set()
            assert goes_on.wait(10)
            raise Replaced

    def attempt(run_id: str, prompt: str, clears: int = 0, store: MemoryStore | None = None) -> Any:
        operator = make_operator(frame, tmp_path / "clip.mp4", prompt=prompt)
        return operator.execute(task_context(run_id=run_id, clears=clears, store=store))

    store = MemoryStore()
    with ThreadPoolExecutor(1) as threads:
        zombie = threads.submit(attempt, "monday", "a", store=HangingStore())
        assert hangs.wait(10)
        bought = attempt("monday", "b", clears=1, store=store)
        goes_on.set()
        with pytest.raises(LumaRaySuperseded):
            zombie.result()
    attempt("tuesday", "a")
    again = attempt("monday", "an edit that no clear came with", clears=1, store=store)
    assert again["request_id"] == bought["request_id"]
    assert simulator.charges == 2
