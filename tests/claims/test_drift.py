"""Inputs that change between attempts, runs that share a path, lost records: what is bought, and what errors say."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from airflow_provider_luma import exceptions
from airflow_provider_luma.exceptions import (
    LumaRayConfigurationError,
    LumaRayDeliveryFailed,
    LumaRayError,
    LumaRayResultExpired,
    LumaRaySubmitUnknown,
    LumaRaySuperseded,
    LumaRayTimeout,
)
from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.jobs.ledger import STATE_KEY
from airflow_provider_luma.operators.luma_ray import LumaRayImageToVideoOperator
from airflow_provider_luma.simulator import Simulator
from tests.support import API_KEY, MemoryStore, make_operator, recorded, set_connection, task_context

pytestmark = pytest.mark.usefixtures("connection")
LATE = {"timeout": timedelta(seconds=0.1)}


def bought_and_late(simulator: Simulator, operator: LumaRayImageToVideoOperator, context: Any) -> str:
    """Run an attempt that buys a job and times out; return the job's id."""
    for call in ("status", "result"):
        simulator.fault(call, "status", status=500, times=99)
    with pytest.raises(LumaRayTimeout):
        operator.execute(context)
    simulator.clear_faults()
    return simulator.jobs[-1].request_id


# A retry finishes what its task instance bought


@pytest.mark.parametrize("deferrable", [False, True])
@pytest.mark.parametrize("change", [{"prompt": "another"}, {"generation_tag": "again"}, {"loop": True}])
def test_a_retry_with_changed_inputs_finishes_the_first_job_and_says_so(
    simulator: Simulator,
    frame: Path,
    clip: Path,
    caplog: pytest.LogCaptureFixture,
    change: dict[str, Any],
    deferrable: bool,
) -> None:
    first = bought_and_late(simulator, make_operator(frame, clip, **LATE), task_context())
    outputs = make_operator(frame, clip, **change).execute(task_context())
    assert (outputs["request_id"], simulator.charges) == (first, 1)
    assert f"inputs have changed since job {first} was bought" in caplog.text


def test_a_retry_whose_frame_was_replaced_finishes_the_first_job(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    first = bought_and_late(simulator, make_operator(frame, clip, **LATE), task_context())
    Image.new("RGB", (32, 32), "red").save(frame)
    assert make_operator(frame, clip).execute(task_context())["request_id"] == first
    assert simulator.charges == 1


def test_a_clear_with_changed_inputs_buys_and_names_the_job_that_it_leaves(
    simulator: Simulator, frame: Path, clip: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = bought_and_late(simulator, make_operator(frame, clip, **LATE), task_context())
    outputs = make_operator(frame, clip, prompt="another").execute(task_context(clears=1))
    assert (outputs["request_id"] != first, len(simulator.jobs)) == (True, 2)
    assert f"job {first} was bought before" in caplog.text
    assert [take["request_id"] for take in recorded(clip)["superseded"]] == [first]


def test_the_retry_of_a_cleared_task_is_a_retry(simulator: Simulator, frame: Path, clip: Path) -> None:
    """The clear resumed the first job; its retry, with another edit, must not buy."""
    first = bought_and_late(simulator, make_operator(frame, clip, **LATE), task_context())
    bought_and_late(simulator, make_operator(frame, clip, **LATE), task_context(clears=1))
    outputs = make_operator(frame, clip, prompt="edited meanwhile").execute(task_context(clears=1))
    assert (outputs["request_id"], len(simulator.jobs)) == (first, 1)


def test_a_sibling_keeps_its_job_when_the_tag_changes(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    """The tag was changed for one map index; another index's automatic retry sees it too."""
    for index in (0, 1):
        bought_and_late(
            simulator, make_operator(frame, f"{tmp_path}/", **LATE), task_context(map_index=index)
        )
    jobs = [job.request_id for job in simulator.jobs]
    retried = make_operator(frame, f"{tmp_path}/", generation_tag="2").execute(task_context(map_index=1))
    assert retried["request_id"] == jobs[1]
    cleared = make_operator(frame, f"{tmp_path}/", generation_tag="2").execute(
        task_context(map_index=0, clears=1)
    )
    assert cleared["request_id"] not in jobs
    assert len(simulator.jobs) == 3


@pytest.mark.parametrize(
    "wrong", [{"prompt": " "}, {"start_frame": "/nowhere/frame.jpg"}, {"aspect_ratio": None}, {"loop": "yes"}]
)
def test_inputs_that_became_invalid_do_not_keep_a_retry_from_its_job(
    simulator: Simulator, frame: Path, clip: Path, wrong: dict[str, Any]
) -> None:
    first = bought_and_late(simulator, make_operator(frame, clip, **LATE), task_context())
    outputs = make_operator(**{"start_frame": str(frame), "output_path": str(clip), **wrong}).execute(
        task_context()
    )
    assert (outputs["request_id"], simulator.charges) == (first, 1)


def test_a_clear_whose_prompt_renders_empty_does_not_say_that_nothing_was_bought(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    first = bought_and_late(simulator, make_operator(frame, clip, **LATE), task_context())
    with pytest.raises(LumaRayConfigurationError) as caught:
        make_operator(frame, clip, prompt="").execute(task_context(clears=1))
    assert "This attempt bought nothing" not in str(caught.value)
    assert first in str(caught.value)


def test_a_signed_end_frame_is_one_frame_however_it_is_signed(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    url = LumaRayHook().upload_image(frame)

    def operator(signature: str) -> LumaRayImageToVideoOperator:
        end = f"{url}?X-Amz-Date={signature}&X-Amz-Signature={signature}"
        more = {"end_image_url": end, "duration": 5}
        return make_operator(
            url, clip, model="ray-flash-2-720p", resolution="720p", aspect_ratio="16:9", extra_parameters=more
        )

    store = MemoryStore()
    first = operator("one").execute(task_context(store=store))
    assert operator("two").execute(task_context(store=store, clears=1)) == first
    assert simulator.charges == 1
    assert "Signature" not in json.dumps([recorded(clip), store.get(STATE_KEY)])


@pytest.mark.parametrize("name", ["token", "sv", "sig", "key"])
def test_a_parameter_that_may_be_content_distinguishes_frames_and_is_not_recorded(
    simulator: Simulator, frame: Path, clip: Path, name: str
) -> None:
    url = LumaRayHook().upload_image(frame)
    for clears, value in enumerate(("red-secret", "blue-secret")):
        make_operator(f"{url}?{name}={value}", clip).execute(task_context(clears=clears))
    assert len(simulator.jobs) == 2
    secret = name != "sv"
    assert ("secret" in json.dumps(recorded(clip))) is not secret


# One path, many owners


def test_an_older_run_that_is_cleared_restores_its_clip_and_buys_nothing(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    sunday = make_operator(frame, clip, prompt="sunday").execute(task_context(run_id="sunday"))
    video = clip.read_bytes()
    monday = make_operator(frame, clip, prompt="monday").execute(task_context(run_id="monday"))
    again = make_operator(frame, clip, prompt="sunday").execute(task_context(run_id="sunday", clears=1))
    assert (again["request_id"], clip.read_bytes()) == (sunday["request_id"], video)
    assert simulator.charges == 2
    record = recorded(clip)
    known = {record["request_id"], *(take["request_id"] for take in record["superseded"])}
    assert known == {sunday["request_id"], monday["request_id"]}


def test_a_newer_clip_of_the_same_size_is_not_returned_as_the_older_one(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    sunday = make_operator(frame, clip, prompt="sunday").execute(task_context(run_id="sunday"))
    video = clip.read_bytes()
    make_operator(frame, clip, prompt="monday").execute(task_context(run_id="monday"))
    other = bytearray(video)
    other[-1] ^= 1
    clip.write_bytes(other)
    again = make_operator(frame, clip, prompt="sunday").execute(task_context(run_id="sunday", clears=1))
    assert (again["request_id"], clip.read_bytes()) == (sunday["request_id"], video)


def test_a_clip_is_not_restored_over_a_job_in_flight(simulator: Simulator, frame: Path, clip: Path) -> None:
    sunday = make_operator(frame, clip, prompt="sunday").execute(task_context(run_id="sunday"))
    monday = bought_and_late(simulator, make_operator(frame, clip, **LATE), task_context(run_id="monday"))
    with pytest.raises(LumaRayDeliveryFailed, match="in use") as caught:
        make_operator(frame, clip, prompt="sunday").execute(task_context(run_id="sunday", clears=1))
    assert str(caught.value).startswith(sunday["request_id"])
    assert make_operator(frame, clip).execute(task_context(run_id="monday"))["request_id"] == monday


# Records and places


def test_a_clip_at_an_edited_path_is_copied_from_the_recorded_one(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    store = MemoryStore()
    make_operator(frame, clip).execute(task_context(store=store))
    simulator.advance(8 * 24 * 3600)
    elsewhere = clip.with_name("elsewhere.mp4")
    outputs = make_operator(frame, elsewhere).execute(task_context(store=store, clears=1))
    assert (outputs["video_path"], elsewhere.read_bytes()) == (str(elsewhere), clip.read_bytes())
    assert simulator.charges == 1


def test_an_output_path_that_changes_with_each_try_is_refused() -> None:
    with pytest.raises(LumaRayConfigurationError, match="try_number"):
        make_operator("f.jpg", "/clips/{{ ti.try_number }}.mp4")


def test_an_edit_of_the_state_store_alone_counts(simulator: Simulator, frame: Path, clip: Path) -> None:
    store = MemoryStore()
    simulator.fault("submit", "reset")
    simulator.fault("history", "status", status=500, times=99)
    with pytest.raises(LumaRaySubmitUnknown):
        make_operator(frame, clip).execute(task_context(store=store))
    simulator.clear_faults()
    job = simulator.jobs[0].request_id
    store.set(STATE_KEY, {**store.get(STATE_KEY), "state": "submitted", "request_id": job})
    assert make_operator(frame, clip).execute(task_context(store=store))["request_id"] == job
    assert simulator.charges == 1


def test_a_record_lost_while_deferred_is_written_again(simulator: Simulator, frame: Path, clip: Path) -> None:
    from airflow.providers.common.compat.sdk import TaskDeferred

    with pytest.raises(TaskDeferred) as deferred:
        make_operator(frame, clip, deferrable=True).execute(task_context())
    clip.with_name("clip.mp4.job.json").unlink()
    event = {"request_id": simulator.jobs[0].request_id, "reason": "ready"}
    simulator.advance(1)
    outputs = make_operator(frame, clip, deferrable=True).execute_complete(
        task_context(), event=event, **deferred.value.kwargs or {}
    )
    assert (outputs["request_id"], simulator.charges) == (event["request_id"], 1)
    assert recorded(clip)["state"] == "delivered"


def test_an_unreadable_old_record_of_another_dag_blocks_no_search(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    import os

    broken = tmp_path / "out" / "old.mp4.job.json"
    broken.parent.mkdir()
    broken.write_text("{")
    long_ago = datetime.now(UTC).timestamp() - 7 * 86400
    os.utime(broken, (long_ago, long_ago))
    simulator.fault("submit", "reset")
    outputs = make_operator(frame, f"{tmp_path}/out/").execute(task_context())
    assert (outputs["request_id"], simulator.charges) == (simulator.jobs[0].request_id, 1)


def test_reuse_takes_no_empty_file(simulator: Simulator, frame: Path, clip: Path) -> None:
    clip.parent.mkdir()
    clip.touch()
    with pytest.raises(LumaRayConfigurationError, match="not an MP4"):
        make_operator(frame, clip, if_exists="reuse").execute(task_context())
    assert simulator.charges == 0


# Attempts that Airflow has replaced


class ReplacedStore(MemoryStore):
    """Answers like Airflow's API server once a retry has replaced the attempt."""

    def __init__(self) -> None:
        super().__init__()
        self.is_replaced = False

    def get(self, key: str) -> Any:
        return None if self.is_replaced else super().get(key)

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        if self.is_replaced:
            from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
            from airflow.sdk.execution_time.comms import ErrorResponse

            detail = {"status_code": 404, "message": "Not Found", "detail": None}
            raise AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail=detail))
        super().set(key, value, retention=retention)


def test_a_replaced_attempt_does_not_pay(simulator: Simulator, frame: Path, clip: Path) -> None:
    store = ReplacedStore()
    store.is_replaced = True
    with pytest.raises(LumaRaySuperseded):
        make_operator(frame, clip).execute(task_context(store=store))
    assert (simulator.jobs, recorded(clip)["state"]) == ([], "failed")
    outputs = make_operator(frame, clip).execute(task_context(store=MemoryStore()))
    assert (outputs["request_id"], simulator.charges) == (simulator.jobs[0].request_id, 1)


def test_a_replaced_attempt_that_resumes_after_its_retry_delivered_reverts_nothing(
    simulator: Simulator, frame: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was suspended during the submit; what it learns afterwards is merged, and the record stays delivered."""
    store, retried = ReplacedStore(), MemoryStore()
    submit = LumaRayHook.submit
    retry: list[dict[str, Any]] = []

    def stopped(self: LumaRayHook, request: Any) -> str:
        request_id = submit(self, request)
        if not retry:
            store.is_replaced = True
            retried.values.update(store.values)
            retry.append({})
            retry[0] = make_operator(frame, clip).execute(task_context(store=retried))
        return request_id

    monkeypatch.setattr(LumaRayHook, "submit", stopped)
    with pytest.raises(LumaRaySuperseded) as caught:
        make_operator(frame, clip).execute(task_context(store=store))
    job = simulator.jobs[0].request_id
    assert str(caught.value).startswith(job)
    assert (recorded(clip)["state"], recorded(clip)["request_id"], simulator.charges) == (
        "delivered",
        job,
        1,
    )
    assert retry[0]["request_id"] == job
    assert retried.get(STATE_KEY)["state"] == "delivered"


# Clocks


@pytest.mark.parametrize("offset", [-7200, 7200])
def test_a_worker_whose_clock_is_hours_off_neither_gives_up_nor_sleeps(
    monkeypatch: pytest.MonkeyPatch, frame: Path, clip: Path, offset: float
) -> None:
    with Simulator(latency=0.3, clip_seconds=0.2, api_key=API_KEY, clock_offset=offset) as simulator:
        set_connection(monkeypatch, simulator.url, timeout=5)
        simulator.fault("status", "status", status=404)
        simulator.fault("history_one", "status", status=404)
        outputs = make_operator(frame, clip).execute(task_context())
        assert (outputs["request_id"], simulator.charges) == (simulator.jobs[0].request_id, 1)


def test_a_record_dated_tomorrow_is_waited_for(simulator: Simulator, frame: Path, clip: Path) -> None:
    """Another worker wrote it with a clock that was ahead."""
    first = bought_and_late(simulator, make_operator(frame, clip, **LATE), task_context())
    record = recorded(clip)
    moved = datetime.fromisoformat(record["submitted_at"]) + timedelta(hours=2)
    path = clip.with_name("clip.mp4.job.json")
    path.write_text(json.dumps({**record, "submitted_at": moved.isoformat(), "intent_at": moved.isoformat()}))
    simulator.fault("result", "status", status=404)
    simulator.fault("status", "status", status=404)
    simulator.fault("history_one", "status", status=404, times=1)
    try:
        outputs = make_operator(frame, clip, poll_interval=None).execute(task_context())
    except LumaRayResultExpired:
        pytest.fail("a job that is young by the vendor's clock was given up")
    assert (outputs["request_id"], simulator.charges) == (first, 1)


# What a limit may cost


def test_a_rate_limit_with_a_past_reset_causes_no_burst(
    simulator: Simulator, frame: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exceptions, "SHORTEST_RATE_LIMIT", 1.0)  # as it is; the other tests make it shorter
    simulator.fault("submit", "status", status=429, seconds=-3600, times=99)
    with pytest.raises(LumaRayError):
        make_operator(frame, clip, timeout=timedelta(seconds=1.5)).execute(task_context())
    assert simulator.calls["submit"] <= 3
    assert recorded(clip)["state"] == "failed"


@pytest.mark.parametrize("word", ["FAILED", "COMPLETED"])
@pytest.mark.parametrize("status", [502, 503, 404])
def test_a_gateways_reply_is_not_the_vendors(
    simulator: Simulator, frame: Path, clip: Path, status: int, word: str
) -> None:
    simulator.fault("status", "gateway", status=status)
    outputs = make_operator(frame, clip).execute(task_context())
    assert (outputs["request_id"], simulator.charges) == (simulator.jobs[0].request_id, 1)


def test_a_failed_job_is_polled_once_more_before_another_is_bought(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    """The record says FAILED, but the vendor says COMPLETED."""
    first = bought_and_late(simulator, make_operator(frame, clip, **LATE), task_context())
    record = recorded(clip)
    clip.with_name("clip.mp4.job.json").write_text(
        json.dumps({**record, "state": "failed", "error": "a gateway"})
    )
    outputs = make_operator(frame, clip).execute(task_context())
    assert (outputs["request_id"], simulator.charges) == (first, 1)
