"""A bought job about which the vendor, the record or the trigger says odd things."""

from __future__ import annotations

import math
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from airflow_provider_luma.exceptions import (
    LumaRayDeliveryFailed,
    LumaRayError,
    LumaRayRecordError,
    LumaRayResultExpired,
    LumaRayTimeout,
    LumaRayUnavailable,
)
from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.segmind.replies import JobResult, VendorStatus
from airflow_provider_luma.simulator import Simulator
from airflow_provider_luma.storage.local import LOCK_NAME
from tests.support import make_operator, record_path, recorded, task_context

pytestmark = pytest.mark.usefixtures("connection")
LATE = {"timeout": timedelta(seconds=0.1)}
HOUR = 3600.0


def forget(simulator: Simulator, *calls: str) -> None:
    """Make the vendor answer 404 to these calls from now on."""
    for call in calls:
        simulator.fault(call, "status", status=404, times=99)


def buy_and_leave(simulator: Simulator, frame: Path, clip: Path) -> str:
    """Run an attempt that buys a job and times out; return the job's id."""
    for call in ("status", "result"):
        simulator.fault(call, "status", status=500, times=99)
    with pytest.raises(LumaRayTimeout):
        make_operator(frame, clip, **LATE).execute(task_context())
    simulator.clear_faults()
    return simulator.jobs[-1].request_id


def check_is_named(error: LumaRayError, request_id: str, clip: Path, simulator: Simulator) -> None:
    """Check what every error about a bought job must say, and that nothing else was bought."""
    told = str(error)
    assert told.startswith(f"{request_id}: ")
    assert "bought" in told
    assert str(record_path(clip)) in told
    assert recorded(clip)["request_id"] == request_id
    assert len(simulator.jobs) == 1


def test_a_job_that_neither_status_nor_history_knows_after_the_vendors_hour_is_for_a_person(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    request_id = buy_and_leave(simulator, frame, clip)
    forget(simulator, "status", "result", "history_one")
    simulator.delay_history(request_id, math.inf)
    simulator.advance(HOUR + 60)
    with pytest.raises(LumaRayResultExpired, match="neither the status call nor the history") as told:
        make_operator(frame, clip).execute(task_context())
    assert isinstance(told.value, AirflowFailException)
    check_is_named(told.value, request_id, clip, simulator)


def test_within_the_hour_it_may_only_be_late(simulator: Simulator, frame: Path, clip: Path) -> None:
    request_id = buy_and_leave(simulator, frame, clip)
    forget(simulator, "status", "result", "history_one")
    with pytest.raises(LumaRayTimeout) as told:
        make_operator(frame, clip, **LATE).execute(task_context())
    check_is_named(told.value, request_id, clip, simulator)


@pytest.mark.parametrize(
    ("age", "error"), [(0, LumaRayDeliveryFailed), (HOUR + 60, LumaRayResultExpired)], ids=["young", "old"]
)
def test_a_result_not_found(
    simulator: Simulator, frame: Path, clip: Path, age: float, error: type[LumaRayError]
) -> None:
    request_id = make_operator(frame, clip).execute(task_context())["request_id"]
    clip.unlink()
    simulator.fault("download", "status", status=404)
    forget(simulator, "status", "result", "history_one")
    simulator.delay_history(request_id, math.inf)
    simulator.advance(age)
    with pytest.raises(error, match="neither its result nor its history entry") as told:
        make_operator(frame, clip).execute(task_context())
    check_is_named(told.value, request_id, clip, simulator)


def test_a_completed_job_whose_result_has_no_video(
    simulator: Simulator, frame: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"status": "COMPLETED", "answer": 42}
    nameless = JobResult(VendorStatus.COMPLETED, None, None, None, body)
    with monkeypatch.context() as patch:  # no fault of the simulator's does this
        patch.setattr(LumaRayHook, "get_result", lambda self, request_id: nameless)
        patch.setattr(LumaRayHook, "find_job", lambda self, request_id: None)
        with pytest.raises(LumaRayDeliveryFailed, match="names no video") as told:
            make_operator(frame, clip).execute(task_context())
    check_is_named(told.value, simulator.jobs[0].request_id, clip, simulator)
    assert recorded(clip)["result"] == body, "for whoever reports it"
    assert make_operator(frame, clip).execute(task_context())["request_id"] == simulator.jobs[0].request_id
    assert simulator.charges == 1


@pytest.mark.parametrize("event", [None, "ready", {}, {"request_id": None}, {"request_id": 7}])
def test_an_event_without_a_job_costs_nothing(
    simulator: Simulator, frame: Path, clip: Path, event: Any
) -> None:
    with pytest.raises(TaskDeferred):
        make_operator(frame, clip, deferrable=True).execute(task_context())
    with pytest.raises(LumaRayRecordError, match="names no job") as told:
        make_operator(frame, clip, deferrable=True).execute_complete(task_context(), event)
    assert str(clip) in str(told.value)
    outputs = make_operator(frame, clip).execute(task_context())
    assert (outputs["request_id"], simulator.charges) == (simulator.jobs[0].request_id, 1)


def test_a_failed_job_that_cannot_be_polled_is_not_bought_again(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    simulator.fault("submit", "failed")
    with pytest.raises(LumaRayError, match="FAILED"):
        make_operator(frame, clip).execute(task_context())
    simulator.fault("status", "html", times=99)
    with pytest.raises(LumaRayUnavailable, match="Nothing is bought until"):
        make_operator(frame, clip).execute(task_context())
    assert len(simulator.jobs) == 1
    simulator.clear_faults()
    make_operator(frame, clip).execute(task_context())
    assert (len(simulator.jobs), simulator.charges) == (2, 1)


@pytest.mark.parametrize("phase", ["execute_complete", "execute"])
@pytest.mark.parametrize(
    ("broken", "is_final"), [(None, False), ('{"conn_type": "luma_ray"}', True)], ids=["none", "keyless"]
)
def test_a_bought_job_whose_connection_cannot_be_used_is_said_to_be_bought(
    simulator: Simulator,
    frame: Path,
    clip: Path,
    monkeypatch: pytest.MonkeyPatch,
    phase: str,
    broken: str | None,
    is_final: bool,
) -> None:
    with pytest.raises(TaskDeferred) as deferred:
        make_operator(frame, clip, deferrable=True).execute(task_context())
    request_id = deferred.value.trigger.serialize()[1]["request_id"]
    operator, context = make_operator(frame, clip), task_context()
    event = {"request_id": request_id, "reason": "ready"}
    resume = partial(operator.execute_complete, context, event)
    name = "AIRFLOW_CONN_LUMA_RAY_DEFAULT"
    with monkeypatch.context() as patch:
        patch.setenv(name, broken) if broken else patch.delenv(name)
        with pytest.raises(LumaRayError) as told:
            resume() if phase == "execute_complete" else operator.execute(context)
    assert isinstance(told.value, AirflowFailException) is is_final
    assert "bought nothing" not in str(told.value)
    check_is_named(told.value, request_id, clip, simulator)
    assert make_operator(frame, clip).execute(task_context())["request_id"] == request_id
    assert simulator.charges == 1


def test_a_retry_resumes_the_download_of_the_last_attempt(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    simulator.fault("download", "cut", bytes=4000)
    simulator.fault("download", "status", status=503, times=3)
    with pytest.raises(LumaRayDeliveryFailed):
        make_operator(frame, clip).execute(task_context())
    make_operator(frame, clip).execute(task_context())
    ranges = [entry.headers.get("Range") for entry in simulator.requests if entry.call == "download"]
    assert ranges[0] is None
    assert set(ranges[1:]) == {"bytes=4000-"}
    assert [path.name for path in clip.parent.glob(".*")] == [LOCK_NAME]
    assert simulator.charges == 1
