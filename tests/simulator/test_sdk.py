"""The vendor's own SDK, unchanged."""

# mypy: disable-error-code="import-untyped"

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from segmind import SegmindClient
from segmind.exceptions import SegmindError
from segmind.files import Files
from segmind.v2 import AsyncJob, InferenceFailed

from airflow_provider_luma.simulator import Simulator

LUMA = "luma-ray-img-2-video"


@pytest.fixture
def sim(clips: Path) -> Iterator[Simulator]:
    with Simulator(latency=0, clip_seconds=0.25, work_dir=clips) as simulator:
        yield simulator


@pytest.fixture
def client(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[SegmindClient]:
    history = f"{sim.url}/inference-request/request-history"
    monkeypatch.setattr(import_module("segmind.generations"), "REQUEST_HISTORY_URL", history)
    monkeypatch.setattr(Files, "STORAGE_BASE_URL", sim.url)
    client = SegmindClient(api_key="SG_simulator", base_url=f"{sim.url}/v1")
    yield client
    client._client.close()


def test_submit_and_wait(sim: Simulator, client: SegmindClient) -> None:
    job = client.submit_async(LUMA, prompt="a road", loop=False)
    result = job.wait(timeout=20, interval=0.02)

    assert result["status"] == "COMPLETED"
    assert result["output"].startswith(f"{sim.url}/outputs/")
    assert job.status()["metrics"]["cost"] == 1.6
    assert sim.charges == 1


def test_run(sim: Simulator, client: SegmindClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AsyncJob.wait, "__defaults__", (20, 0.02))
    assert client.run("luma-ray-3-2", prompt="a road", duration="5s")["video"]["content_type"] == "video/mp4"


def test_run_sync(client: SegmindClient) -> None:
    reply = client.run_sync("ray-flash-2-720p", prompt="a road", duration=5)

    assert reply.content[4:8] == b"ftyp"
    assert reply.headers["x-cost"] == "0.375"


def test_a_failed_job(sim: Simulator, client: SegmindClient) -> None:
    sim.fail_next("boom")
    with pytest.raises(InferenceFailed) as caught:
        client.submit_async(LUMA, prompt="a road").wait(timeout=20, interval=0.02)

    assert caught.value.detail == "boom"
    assert sim.charges == 0


def test_a_refusal(client: SegmindClient) -> None:
    with pytest.raises(SegmindError) as caught:
        client.submit_async(LUMA)

    assert caught.value.status == 400
    assert caught.value.detail == "Missing required field: prompt"


def test_upload(sim: Simulator, client: SegmindClient, picture: bytes, tmp_path: Path) -> None:
    path = tmp_path / "frame.png"
    path.write_bytes(picture)
    url = client.files.upload([path, path])["file_urls"][1]
    result = client.submit_async(LUMA, prompt="a road", start_frame=url).wait(timeout=20, interval=0.02)

    assert result["status"] == "COMPLETED"


def test_history(client: SegmindClient) -> None:
    job = client.submit_async(LUMA, prompt="a road")
    job.wait(timeout=20, interval=0.02)

    listed = client.generations.history(model_name="luma", status="COMPLETED", sort_order="asc")
    assert [row["request_id"] for row in listed["data"]] == [job.request_id]
    assert client.generations.get(job.request_id) == listed["data"][0]
    with pytest.raises(SegmindError):
        client.generations.get("unknown")
