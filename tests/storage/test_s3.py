"""Frames from a bucket, videos into a bucket: the normal case, and how both are identified."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from airflow_provider_luma.exceptions import LumaRayConfigurationError
from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.jobs.job import Job
from airflow_provider_luma.jobs.ledger import STATE_KEY
from airflow_provider_luma.media import Frame, read_frame, send_frame
from airflow_provider_luma.segmind.history import body_digest
from airflow_provider_luma.segmind.models import model_info
from airflow_provider_luma.simulator import Simulator
from airflow_provider_luma.storage.objects import SIGNED_FOR
from tests.storage.conftest import SECRET, Bucket
from tests.storage.server import Gate
from tests.support import API_KEY, MemoryStore, make_operator, task_context

FRAME, VIDEO = "s3://store@media/frames/f.jpg", "s3://store@media/clips/v.mp4"
MODEL = model_info("luma-ray-img-2-video")


def attempt(frame: str = FRAME, video: str = VIDEO, **arguments: Any) -> dict[str, Any]:
    """Run one attempt of a task instance, with a new operator."""
    names = ("task_id", "run_id", "map_index", "store", "clears")
    context = task_context(**{name: arguments.pop(name) for name in names if name in arguments})
    return make_operator(frame, video, **arguments).execute(context)


def video_at_vendor(simulator: Simulator, request_id: str) -> bytes:
    history = f"{simulator.url}/inference-request/request-history/{request_id}"
    row = requests.get(history, headers={"x-api-key": simulator.api_key}, timeout=10).json()
    return requests.get(row["generation_url"], timeout=10).content


@pytest.mark.parametrize(
    ("source", "video", "conn_id"),
    [
        (FRAME, VIDEO, None),
        ("s3://media/frames/f.jpg", "s3://media/clips/v.mp4", "store"),
        (FRAME, VIDEO, "another_that_is_not_there"),
        ("s3a://store@media/frames/f.jpg", "s3a://store@media/clips/v.mp4", None),
    ],
    ids=["conn_id@", "storage_conn_id", "conn_id@ goes first", "s3a"],
)
def test_a_frame_in_a_bucket_becomes_a_video_in_a_bucket(
    bucket: Bucket, gate: Gate, simulator: Simulator, source: str, video: str, conn_id: str | None
) -> None:
    outputs = attempt(source, video, storage_conn_id=conn_id)

    (job,) = simulator.jobs
    scheme = video.partition(":")[0]
    assert outputs["video_path"] == f"{scheme}://store@media/clips/v.mp4"
    assert bucket.names() == {"frames/f.jpg", "clips/v.mp4", "clips/v.mp4.job.json"}
    content = bucket.get("clips/v.mp4")
    assert content == video_at_vendor(simulator, job.request_id)
    record = bucket.record("clips/v.mp4")
    assert record["sha256"] == hashlib.sha256(content).hexdigest()
    assert (record["state"], record["request_id"], record["bytes"]) == (
        "delivered",
        job.request_id,
        len(content),
    )
    assert (record["start_frame"], record["output_path"]) == (
        f"{scheme}://store@media/frames/f.jpg",
        outputs["video_path"],
    )
    lines = [seen.line for seen in gate.seen]
    assert lines.index("PUT /media/clips/v.mp4") < len(lines) - 1 - lines[::-1].index(
        "PUT /media/clips/v.mp4.job.json"
    ), "the record comes last"


@pytest.mark.parametrize("api_version", ["v1", "v2"])
def test_videos_of_both_api_versions_go_to_the_bucket(
    bucket: Bucket, simulator: Simulator, api_version: str
) -> None:
    outputs = attempt(api_version=api_version)
    assert bucket.get("clips/v.mp4")[4:8] == b"ftyp"
    assert bucket.record("clips/v.mp4")["state"] == "delivered"
    assert attempt(api_version=api_version) == outputs | {"remaining_credits": 18.4}
    assert simulator.charges == 1


def test_the_frame_is_sent_as_a_signed_url_without_passing_through_the_worker(
    bucket: Bucket, gate: Gate, simulator: Simulator
) -> None:
    attempt()

    (job,) = simulator.jobs
    url = job.body["start_frame"]
    assert url.startswith(f"{gate.url}/media/frames/f.jpg?")
    lives = int(parse_qs(urlsplit(url).query)["X-Amz-Expires"][0])
    assert SIGNED_FOR.total_seconds() <= lives < SIGNED_FOR.total_seconds() + 3600
    assert "upload" not in simulator.calls
    reads = [seen for seen in gate.seen if seen.line.startswith("GET /media/frames/f.jpg")]
    worker = [seen for seen in reads if seen.signed_by_header]
    assert len(worker) == 1
    assert "\r\nrange: bytes=0-65535\r\n" in worker[0].head.lower()
    assert len(reads) == 2, "the other was the vendor's"


def test_no_secret_appears_anywhere(bucket: Bucket, simulator: Simulator, logs: Callable[[], str]) -> None:
    """The worker logs at DEBUG, and so do its libraries."""
    store = MemoryStore()
    simulator.fault("status", "reset", times=1)
    outputs = attempt(store=store)

    body = simulator.jobs[0].body
    signature = parse_qs(urlsplit(body["start_frame"]).query)["X-Amz-Signature"][0]
    record = bucket.record("clips/v.mp4")
    assert record["body_sha256"] == body_digest(body), "of the body as sent"
    told = logs() + json.dumps([outputs, record, store.values])
    assert "delivered" in told
    assert "submitted to luma-ray-img-2-video" in told
    for secret in (signature, SECRET, API_KEY, "X-Amz-Signature=", "X-Amz-Credential="):
        assert secret not in told, secret


def test_a_vendor_that_echoes_the_signed_url_is_not_quoted(
    bucket: Bucket, simulator: Simulator, logs: Callable[[], str]
) -> None:
    store = MemoryStore()
    simulator.fail_next("cannot fetch https://b.s3.amazonaws.com/f.jpg?X-Amz-Signature=abcdef0123&x=1, sorry")
    with pytest.raises(Exception, match=r"cannot fetch https://b\.s3\.amazonaws\.com/f\.jpg sorry") as caught:
        attempt(store=store)
    told = logs() + repr(caught.value) + json.dumps([bucket.record("clips/v.mp4"), store.values])
    assert "abcdef0123" not in told


def test_a_new_signature_is_the_same_frame_and_new_content_is_not(
    bucket: Bucket, simulator: Simulator, frame: Path
) -> None:
    first, again = read_frame(FRAME), read_frame("s3://media/frames/f.jpg", "store")
    assert first.identity == again.identity
    assert first.identity.startswith("ETag:")
    bucket.put("frames/f.jpg", frame.read_bytes())
    assert read_frame(FRAME).identity == first.identity, "the same content, put there again"
    bucket.put("frames/f.jpg", frame.read_bytes() + b"\0")
    assert read_frame(FRAME).identity != first.identity


@pytest.mark.parametrize("transfer", ["upload", "base64"])
def test_the_frame_is_the_same_however_it_is_sent(
    bucket: Bucket, simulator: Simulator, frame: Path, transfer: str
) -> None:
    attempt(frame_transfer=transfer)
    assert ("upload" in simulator.calls) is (transfer == "upload")
    attempt()
    assert simulator.charges == 1


def inline(frame: Frame) -> str:
    return frame.data_url


def test_a_store_that_the_vendor_cannot_reach_is_recognized_by_its_address(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API's host is public, but the store's is not."""
    connection = {"conn_type": "luma_ray", "password": API_KEY, "host": "https://1.1.1.1"}
    monkeypatch.setenv("AIRFLOW_CONN_LUMA_RAY_DEFAULT", json.dumps(connection))
    hook, frame = LumaRayHook(), read_frame(FRAME)
    sent, is_unique = send_frame(frame, "auto", MODEL, inline, hook.reaches)
    assert (sent[:27], is_unique) == ("data:image/jpeg;base64,/9j/", True)
    with pytest.raises(
        LumaRayConfigurationError, match=r"a private address, which the vendor cannot reach"
    ) as caught:
        send_frame(frame, "url", MODEL, inline, hook.reaches)
    assert "X-Amz" not in str(caught.value)


@pytest.mark.parametrize("name", ["frame #1.jpg", "what?.jpg", "100%25 + é & =.jpg", "[a]*.jpg"])
def test_any_object_name_works(bucket: Bucket, simulator: Simulator, frame: Path, name: str) -> None:
    bucket.put(f"frames/{name}", frame.read_bytes())
    attempt(f"s3://store@media/frames/{name}", f"s3://store@media/clips/{name}.mp4")
    assert {f"clips/{name}.mp4", f"clips/{name}.mp4.job.json"} <= bucket.names()
    assert simulator.charges == 1


def test_a_folder_gets_a_path_for_each_task_instance(bucket: Bucket, simulator: Simulator) -> None:
    for index in range(2):
        attempt(video="s3://store@media/clips/", map_index=index)
    assert {key for key in bucket.names() if key.endswith(".mp4")} == {
        f"clips/clips/run_1/generate-{index}.mp4" for index in range(2)
    }
    assert simulator.charges == 2


@pytest.mark.parametrize("phase", ["wait", "deliver"])
def test_a_retry_re_attaches(
    bucket: Bucket, simulator: Simulator, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    """The record in the bucket is all that is left of the first attempt."""

    def die(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Job, phase, die)
        with pytest.raises(KeyboardInterrupt):
            attempt()
    assert bucket.record("clips/v.mp4")["state"] in ("submitted", "completed")
    bucket.delete("frames/f.jpg")
    assert attempt()["request_id"] == simulator.jobs[0].request_id
    assert simulator.charges == 1


def test_what_is_delivered_is_neither_bought_nor_fetched_again(
    bucket: Bucket, gate: Gate, simulator: Simulator
) -> None:
    first = attempt()
    gate.seen.clear()
    assert attempt() == first
    assert simulator.charges == simulator.calls["download"] == 1
    assert not [seen.line for seen in gate.seen if seen.line.startswith("PUT")]


@pytest.mark.parametrize("stored", [True, False])
def test_a_deleted_video_is_restored_at_no_charge(bucket: Bucket, simulator: Simulator, stored: bool) -> None:
    store = MemoryStore() if stored else None
    attempt(store=store)
    content = bucket.get("clips/v.mp4")
    bucket.delete("clips/v.mp4")
    if stored:
        bucket.delete("clips/v.mp4.job.json")
    attempt(store=store)
    assert bucket.get("clips/v.mp4") == content
    assert bucket.record("clips/v.mp4")["state"] == "delivered"
    assert store is None or store.get(STATE_KEY)["state"] == "delivered"
    assert simulator.charges == 1


@pytest.mark.parametrize("run_id", ["run_1", "run_2"])
def test_a_video_that_was_copied_back_is_recognized_by_its_content(
    bucket: Bucket, simulator: Simulator, run_id: str
) -> None:
    """A multipart copy has another ETag, and after a week the vendor no longer has the video."""
    first = attempt()
    content = bucket.get("clips/v.mp4")
    bucket.put_in_parts("clips/v.mp4", content)
    simulator.advance(8 * 24 * 3600)
    assert attempt(run_id=run_id, if_exists="reuse")["request_id"] == first["request_id"]
    assert bucket.get("clips/v.mp4") == content
    assert simulator.charges == simulator.calls["download"] == 1


def test_a_video_that_another_run_left(bucket: Bucket, simulator: Simulator) -> None:
    attempt()
    with pytest.raises(LumaRayConfigurationError, match=r"already exists, and if_exists='fail'"):
        attempt(run_id="run_2", if_exists="fail")
    assert attempt(run_id="run_2", if_exists="reuse")["credits_used"] == 0
    assert simulator.charges == 1
    attempt(run_id="run_2")
    assert simulator.charges == 2
    assert bucket.record("clips/v.mp4")["superseded"][0]["identity"]["run_id"] == "run_1"


def test_two_mapped_indices_do_not_share_an_object(bucket: Bucket, simulator: Simulator) -> None:
    attempt(map_index=0)
    with pytest.raises(
        LumaRayConfigurationError, match=r"holds the video of clips\.generate\[0\] .* bought nothing"
    ):
        attempt(map_index=1)
    assert simulator.charges == len(simulator.jobs) == 1
