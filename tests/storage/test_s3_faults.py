"""A store that dies, breaks connections or refuses: no partial object, no second charge, no lost video."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_luma.exceptions import (
    LumaRayDeliveryFailed,
    LumaRayRecordError,
    LumaRaySubmitUnknown,
    LumaRayUnavailable,
)
from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.jobs.job import Job
from airflow_provider_luma.simulator import Simulator
from airflow_provider_luma.storage import open_file
from airflow_provider_luma.storage.objects import ObjectFile
from tests.storage.conftest import Bucket
from tests.storage.server import Gate, Store
from tests.storage.test_s3 import VIDEO, attempt, video_at_vendor
from tests.support import MemoryStore

#: Single and multipart uploads differ, and so do the requests of the latter.
PART, WHOLE = r"PUT /media/clips/v\.mp4\?.*partNumber=2", r"PUT /media/clips/v\.mp4$"
RECORD = r"PUT /media/clips/v\.mp4\.job\.json"


def check_delivered(bucket: Bucket, simulator: Simulator, outputs: dict[str, Any]) -> None:
    assert bucket.get("clips/v.mp4") == video_at_vendor(simulator, outputs["request_id"])
    assert bucket.record("clips/v.mp4")["state"] == "delivered"
    assert simulator.charges == len(simulator.jobs) == 1
    assert simulator.leaks == []


@pytest.mark.parametrize("stored", [True, False])
def test_the_upload_breaks(bucket: Bucket, gate: Gate, large_videos: Simulator, stored: bool) -> None:
    store = MemoryStore() if stored else None
    gate.strike(PART, after=3_000_000)
    with pytest.raises(
        LumaRayDeliveryFailed, match=r"could not be stored at s3://store@media/clips/v\.mp4"
    ) as caught:
        attempt(store=store)
    assert caught.value.request_id == large_videos.jobs[0].request_id
    assert gate.struck.wait(10)
    assert "clips/v.mp4" not in bucket.names()
    assert bucket.uploads() == [], "what came of it is not kept"
    assert bucket.record("clips/v.mp4")["state"] == "completed"

    gate.reset()
    check_delivered(bucket, large_videos, attempt(store=store))


def test_the_upload_of_a_new_take_breaks_and_the_old_video_stays(
    bucket: Bucket, gate: Gate, large_videos: Simulator
) -> None:
    bucket.put("clips/v.mp4", b"another's")
    gate.strike(PART)
    with pytest.raises(LumaRayDeliveryFailed):
        attempt()
    assert bucket.get("clips/v.mp4") == b"another's"
    gate.reset()
    check_delivered(bucket, large_videos, attempt())


def test_the_store_goes_down_during_the_upload_and_comes_back(
    bucket: Bucket, gate: Gate, large_videos: Simulator
) -> None:
    gate.strike(PART, after=3_000_000, stays_down=True)
    with pytest.raises(LumaRayDeliveryFailed):
        attempt()
    assert "clips/v.mp4" not in bucket.names()

    gate.reset()
    check_delivered(bucket, large_videos, attempt())


@pytest.mark.parametrize("line", [PART, WHOLE], ids=["part", "whole"])
def test_the_store_is_killed_during_the_upload_and_loses_its_content(
    bucket: Bucket, gate: Gate, store: Store, request: pytest.FixtureRequest, line: str
) -> None:
    """Only the copy in Airflow's task state store is left of the job."""
    vendor = request.getfixturevalue("large_videos" if line is PART else "simulator")
    airflow = MemoryStore()
    gate.strike(line, after=1000, stays_down=True, kills=True)
    try:
        with pytest.raises(LumaRayDeliveryFailed):
            attempt(store=airflow)
        assert gate.struck.wait(10)
    finally:
        store.start()
        bucket.create()
    gate.reset()
    check_delivered(bucket, vendor, attempt(store=airflow))


@pytest.mark.parametrize("kills", [True, False], ids=["killed", "down"])
def test_the_store_goes_down_before_the_last_record_is_written(
    bucket: Bucket,
    gate: Gate,
    store: Store,
    simulator: Simulator,
    monkeypatch: pytest.MonkeyPatch,
    kills: bool,
) -> None:
    """The video is uploaded. If the record has no other copy, the retry fetches the video again, at no charge."""
    airflow = MemoryStore() if kills else None
    original = type(open_file(VIDEO)).put

    def put_and_strike(self: ObjectFile, local: Path, allowed: Callable[[], bool]) -> str | None:
        mark = original(self, local, allowed)
        assert "clips/v.mp4" in bucket.names()
        gate.strike(RECORD, stays_down=True, kills=kills)
        return mark

    with monkeypatch.context() as patched:
        patched.setattr(type(open_file(VIDEO)), "put", put_and_strike)
        if kills:
            outputs = attempt(store=airflow)
            assert outputs["request_id"] == simulator.jobs[0].request_id
        else:
            with pytest.raises(LumaRayRecordError, match="cannot be written"):
                attempt(store=airflow)
            assert bucket.record("clips/v.mp4")["state"] == "completed"
    assert gate.struck.wait(10)
    if kills:
        store.start()
        bucket.create()
    gate.reset()
    check_delivered(bucket, simulator, attempt(store=airflow))


def test_the_intent_cannot_be_written(bucket: Bucket, gate: Gate, simulator: Simulator) -> None:
    """A store that breaks connections is not a wrong path: a retry succeeds."""
    gate.strike(RECORD)
    with pytest.raises(LumaRayRecordError, match="Nothing new was bought"):
        attempt()
    assert simulator.jobs == []
    gate.reset()
    check_delivered(bucket, simulator, attempt())


def test_the_intent_is_written_and_the_store_does_not_say_so(
    bucket: Bucket, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read back, so it is this attempt's claim."""
    file: Any = type(open_file("s3://store@media/clips/v.mp4"))
    create = file.create

    def written_without_an_answer(self: Any, content: bytes) -> str:
        patched.undo()
        create(self, content)
        raise ConnectionResetError("The answer was lost.")

    with monkeypatch.context() as patched:
        patched.setattr(file, "create", written_without_an_answer)
        outputs = attempt()
    check_delivered(bucket, simulator, outputs)


def test_the_store_is_down_from_the_submit_on(
    bucket: Bucket, gate: Gate, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the intent is on record; the vendor's history has the job."""
    original = LumaRayHook.submit

    def submit_and_lose_the_store(self: LumaRayHook, request: Any) -> str:
        request_id = original(self, request)
        gate.down = True
        return request_id

    with monkeypatch.context() as patched:
        patched.setattr(LumaRayHook, "submit", submit_and_lose_the_store)
        with pytest.raises(LumaRayDeliveryFailed, match="could not be stored"):
            attempt(frame_transfer="upload")
    assert bucket.record("clips/v.mp4")["state"] == "intent"

    gate.reset()
    check_delivered(bucket, simulator, attempt())


def test_a_lost_answer_is_looked_up_by_the_body_as_it_was_sent(bucket: Bucket, simulator: Simulator) -> None:
    simulator.fault("submit", "reset", accepted=True)
    check_delivered(bucket, simulator, attempt())


def test_a_neighbour_in_the_bucket_keeps_its_job(
    bucket: Bucket, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bodies are identical; the task instance whose submit is lost does not take the other's job."""

    def die(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Job, "wait", die)
    same = {"video": "s3://store@media/clips/", "frame": "https://x.example/f.jpg"}
    with pytest.raises(KeyboardInterrupt):
        attempt(**same, map_index=0)
    simulator.fault("submit", "reset", accepted=False)
    with pytest.raises(LumaRaySubmitUnknown, match="shows no such job"):
        attempt(**same, map_index=1)


@pytest.mark.parametrize("line", [r"HEAD /media/clips/v\.mp4\.job", r"HEAD /media/clips/v\.mp4$"])
def test_a_record_or_a_video_that_cannot_be_seen_is_not_absent(
    bucket: Bucket, gate: Gate, simulator: Simulator, line: str
) -> None:
    attempt()
    gate.strike(line)
    with pytest.raises(LumaRayRecordError, match=r"nothing new was bought|Nothing new was bought"):
        attempt()
    gate.reset()
    check_delivered(bucket, simulator, attempt())


def test_a_frame_that_cannot_be_read_for_now_is_read_by_a_retry(
    bucket: Bucket, gate: Gate, simulator: Simulator
) -> None:
    gate.strike(r"(HEAD|GET) /media/frames/f\.jpg")
    with pytest.raises(LumaRayUnavailable, match=r"(?s)frames/f\.jpg' cannot be read: .*bought nothing"):
        attempt()
    assert simulator.jobs == []
    gate.reset()
    check_delivered(bucket, simulator, attempt())
