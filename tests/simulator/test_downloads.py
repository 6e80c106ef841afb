"""Downloads: ranges, validators, and broken files."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import pytest
import requests
from urllib3.exceptions import ProtocolError

from airflow_provider_luma.simulator import Simulator
from tests.simulator.conftest import Api

Broken = (requests.ConnectionError, requests.exceptions.ChunkedEncodingError)


@pytest.fixture
def output(sim: Simulator, api: Any) -> str:
    """Return the URL of a finished video."""
    return finished(sim, api)


def finished(sim: Simulator, api: Api) -> str:
    request_id = api.job()
    sim.advance(60)
    return str(api.result(request_id)["output"])


def received(api: Api, url: str, **headers: str) -> tuple[requests.Response, bytes, bool]:
    """Download what arrives; return it, and whether it is as much as announced."""
    with api.download(url, headers=headers, stream=True) as reply:
        data = b""
        with suppress(ProtocolError):
            while piece := reply.raw.read1():
                data += piece
        return reply, data, len(data) == int(reply.headers["Content-Length"])


def frames(data: bytes) -> int:
    with av.open(io.BytesIO(data), "r") as container:
        return len(list(container.decode(video=0)))


def test_a_connection_that_breaks_each_time(sim: Simulator, api: Any, output: str) -> None:
    whole = api.download(output)
    size = len(whole.content)
    step = size // 3 + 1
    sim.fault("download", "cut", bytes=step, times=3)

    data = b""
    for number in range(3):
        headers = {"Range": f"bytes={len(data)}-", "If-Range": whole.headers["ETag"]} if data else {}
        reply, part, complete = received(api, output, **headers)
        assert reply.headers["Content-Length"] == str(size - len(data))
        assert complete is (number == 2)
        assert len(part) == min(step, size - len(data))
        data += part
    assert data == whole.content


def test_a_cut_at_once_and_of_json(sim: Simulator, api: Any, output: str) -> None:
    sim.fault("download", "cut", bytes=0)
    reply, data, complete = received(api, output)
    assert (reply.status_code, data, complete) == (200, b"", False)

    sim.fault("submit", "cut", bytes=20)
    with pytest.raises(Broken):
        api.submit()
    assert len(sim.jobs) == 2
    sim.fault("credits", "cut")
    assert api.get("/v1/get-user-credits").json()["credits"] == 18.4


def test_if_range_names_the_file(api: Any, output: str) -> None:
    whole = api.download(output)
    for validator in (whole.headers["ETag"], whole.headers["Last-Modified"]):
        part = api.download(output, headers={"Range": "bytes=100-", "If-Range": validator})
        assert (part.status_code, part.content) == (206, whole.content[100:])
    for validator in ('"another"', "Sat, 01 Jan 2000 00:00:00 GMT"):
        again = api.download(output, headers={"Range": "bytes=100-", "If-Range": validator})
        assert (again.status_code, again.content) == (200, whole.content)


@pytest.mark.parametrize(
    ("asked", "status", "start", "stop"),
    [
        ("bytes=0-", 206, 0, None),
        ("bytes=5-9", 206, 5, 10),
        ("bytes=-7", 206, -7, None),
        ("bytes=7-5", 416, 0, 0),
        ("lines=1-2", 416, 0, 0),
    ],
)
@pytest.mark.parametrize("kind", [None, "slow"])
def test_ranges(
    sim: Simulator,
    api: Any,
    output: str,
    asked: str,
    status: int,
    start: int,
    stop: int | None,
    kind: str | None,
) -> None:
    whole = api.download(output).content
    if kind:
        sim.fault("download", kind, seconds=0)
    reply = api.download(output, headers={"Range": asked})
    assert (reply.status_code, reply.content) == (status, whole[start:stop])


def test_head_has_no_body_under_any_fault(sim: Simulator, api: Any, output: str) -> None:
    size = str(len(api.download(output).content))
    for kind in ("slow", "truncated", "cut"):
        sim.fault("download", kind, seconds=0)
        reply = requests.head(output, headers={"Range": "bytes=5-9"}, timeout=20)
        assert (reply.status_code, reply.headers["Content-Length"]) == (200, size)


@pytest.fixture
def bare(clips: Path) -> Iterator[Simulator]:
    with Simulator(latency=60, download_validators=False, clip_seconds=0.25, work_dir=clips) as simulator:
        yield simulator


@pytest.mark.parametrize("kind", [None, "slow", "truncated", "cut"])
def test_downloads_without_validators(bare: Simulator, connect: Any, kind: str | None) -> None:
    api = connect(bare)
    url = finished(bare, api)
    if kind:
        bare.fault("download", kind, seconds=0)
    reply, data, _ = received(api, url)
    assert not {"ETag", "Last-Modified"} & set(reply.headers)
    assert reply.headers["Accept-Ranges"] == "bytes"

    rest = api.download(url, headers={"Range": "bytes=100-"})
    assert (rest.status_code, rest.content[:50]) == (206, data[100:150])
    again = api.download(url, headers={"Range": "bytes=100-", "If-Range": '"some"'})
    assert again.status_code == 200


def test_a_file_that_changes(sim: Simulator, api: Any, output: str) -> None:
    first = api.download(output)
    sim.fault("download", "changed", times=3)
    other = api.download(output)

    assert not {"ETag", "Last-Modified"} & set(other.headers)
    assert len(other.content) == len(first.content)
    assert other.content != first.content
    assert frames(other.content) == frames(first.content) == 6
    half = len(first.content) // 2
    rest = api.download(output, headers={"Range": f"bytes={half}-"})
    assert (rest.status_code, rest.content) == (206, other.content[half:])
    assert rest.content != first.content[half:]
    resumed = api.download(output, headers={"Range": f"bytes={half}-", "If-Range": first.headers["ETag"]})
    assert (resumed.status_code, resumed.content) == (200, other.content)
    assert api.download(output).content == first.content


def test_no_mixture_of_both_files_is_either(clips: Path, connect: Any) -> None:
    size = 64 * 2**10
    with Simulator(latency=60, clip_seconds=0.25, video_size=size, work_dir=clips) as sim:
        api = connect(sim)
        url = finished(sim, api)
        first = api.download(url).content
        sim.fault("download", "changed")
        other = api.download(url).content

    assert len(first) == len(other) == size
    assert frames(other) == 6
    for place in range(64, size, 997):
        assert first[:place] + other[place:] not in (first, other), place


def test_a_large_file_that_changes_stays_sparse(clips: Path, connect: Any) -> None:
    size = 32 * 2**20
    with Simulator(latency=60, clip_seconds=0.25, video_size=size, work_dir=clips) as sim:
        api = connect(sim)
        url = finished(sim, api)
        sim.fault("download", "changed")
        other = api.download(url).content
    assert len(other) == size
    assert frames(other) == 6
    copy = next(path for path in (clips / "clips").glob(f"*-{size}.index-last.mp4"))
    assert copy.stat().st_blocks * 512 < size / 4


def test_a_client_that_disconnects_does_no_harm(
    clips: Path, connect: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with Simulator(latency=60, clip_seconds=0.25, video_size=64 * 2**20, work_dir=clips) as sim:
        api = connect(sim)
        url = finished(sim, api)
        for _ in range(3):
            with api.download(url, stream=True) as reply:
                reply.raw.read(1000)
        assert len(api.download(url).content) == 64 * 2**20
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize("given", [None, 1000])
def test_a_short_file_has_an_honest_length(sim: Simulator, api: Any, output: str, given: int | None) -> None:
    whole = api.download(output)
    sim.fault("download", "short_file", bytes=given, times=3)
    size = given or len(whole.content) // 2
    short = api.download(output)

    assert short.headers["Content-Length"] == str(size)
    assert short.content == whole.content[:size]
    assert short.headers["ETag"] != whole.headers["ETag"]
    part = api.download(output, headers={"Range": "bytes=500-"})
    assert part.headers["Content-Range"] == f"bytes 500-{size - 1}/{size}"
    beyond = api.download(output, headers={"Range": f"bytes={size}-"})
    assert (beyond.status_code, beyond.headers["Content-Range"]) == (416, f"bytes */{size}")
    assert api.result(sim.jobs[0].request_id)["video"]["file_size"] == len(whole.content)


def test_a_short_file_of_v1(sim: Simulator, api: Any) -> None:
    sim.fault("v1", "short_file", bytes=100)
    reply = api.v1()
    assert (reply.status_code, len(reply.content)) == (200, 100)
    assert reply.headers["x-cost"] == "1.6"


def test_a_missing_file_stays_missing(sim: Simulator, api: Any) -> None:
    for kind in ("short_file", "changed", "cut"):
        sim.fault("download", kind)
        assert api.download(f"{sim.url}/outputs/none.mp4").status_code == 404
