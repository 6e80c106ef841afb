"""Five people watch a long video: the api-server's memory stays as it is, and it still answers others."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from airflow_provider_luma.jobs.ledger import SUFFIX
from airflow_provider_luma.jobs.record import Identity
from tests.buckets import s3_server
from tests.e2e import processes
from tests.plugins import clips
from tests.plugins.server import Server

pytestmark = [pytest.mark.airflow, pytest.mark.slow]
MB = 1024 * 1024
#: The S3 here reads a whole object for each range, so that one is smaller; what a viewer costs does not depend on it.
DISK, S3 = 500 * MB, 30 * MB
VIEWERS = 5
#: What five viewers may add to the server's memory.
MOST = 40 * MB
#: A piece as a player asks for it after a seek; the positions are spread over the file.
PIECE, SEEKS = 2 * MB, 12


def memory(server: Server) -> int:
    """Return the resident bytes of the server's processes."""
    assert server._process is not None
    found = [Path(f"/proc/{process.pid}/status") for process in processes.members(server._process.pid)]
    lines = [line for status in found for line in status.read_text().splitlines()]
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def watch(server: Server, whose: Identity, size: int, number: int) -> int:
    """Read a fifth of a video in one go, then seek; return how many bytes came."""
    url, got = f"{server.url}/luma/{clips.url_of(whose, '/video')}", 0
    with server.session("anna") as client:
        starts = [(size // SEEKS * ((number + step) % SEEKS), PIECE) for step in range(SEEKS)]
        for start, length in [(number * size // VIEWERS, size // VIEWERS), *starts]:
            asked = {"Range": f"bytes={start}-{start + length - 1}", "Accept-Encoding": "gzip"}
            with client.get(url, headers=asked, stream=True, timeout=60) as reply:
                assert reply.status_code == 206
                got += sum(map(len, reply.raw.stream(MB, decode_content=False)))
    return got


@pytest.fixture(scope="module")
def bucket() -> Iterator[tuple[str, Any]]:
    with s3_server() as (connection, client):
        client.create_bucket(Bucket="clips")
        yield connection, client


def _on_disk(root: Path, client: Any) -> Identity:
    whose, clip = clips.identity("disk"), root / "clip.mp4"
    clips.put(clip, whose, bytes=DISK)
    with clip.open("r+b") as file:
        file.truncate(DISK)
    return whose


def _in_s3(root: Path, client: Any) -> Identity:
    whose = clips.identity("bucket")
    with (root / "copied.mp4").open("w+b") as file:
        file.write(clips.VIDEO)
        file.truncate(S3)
        file.seek(0)
        client.upload_fileobj(file, "clips", "clip.mp4")
    (root / "copied.mp4").unlink()
    made = clips.record(
        Path("/unused"),
        whose,
        output_path="s3://store@clips/clip.mp4",
        bytes=S3,
        sha256=hashlib.sha256(b"not read").hexdigest(),
    )
    client.put_object(Bucket="clips", Key=f"clip.mp4{SUFFIX}", Body=made.to_bytes())
    return whose


@pytest.mark.parametrize(("lay", "size"), [(_on_disk, DISK), (_in_s3, S3)], ids=["disk", "s3"])
def test_five_viewers_leave_the_servers_memory_as_it_is(
    tmp_path: Path, bucket: tuple[str, Any], lay: Callable[[Path, Any], Identity], size: int
) -> None:
    connection, client = bucket
    root = tmp_path / "clips"
    root.mkdir()
    whose = lay(root, client)
    settings = {"AIRFLOW_CONN_STORE": connection}
    with Server(tmp_path / "airflow", f"{root}, s3://store@clips/", settings) as server:
        for _ in range(20):  # the first calls import and cache
            assert server.get("anna", clips.url_of(whose, "/video"), headers={"Range": "bytes=0-9"}).ok
        before, highest, waits = memory(server), 0, []
        with ThreadPoolExecutor(VIEWERS) as viewers:
            watching = [viewers.submit(watch, server, whose, size, number) for number in range(VIEWERS)]
            while not all(one.done() for one in watching):
                begun = time.monotonic()
                assert requests.get(f"{server.url}/api/v2/version", timeout=30).ok
                waits.append(time.monotonic() - begun)
                highest = max(highest, memory(server))
                time.sleep(0.05)
        assert [one.result() for one in watching] == [size // VIEWERS + SEEKS * PIECE] * VIEWERS
    print(f"\n+{(highest - before) / MB:.0f} MB; {len(waits)} other calls, the slowest {max(waits):.2f} s")
    assert highest - before < MOST
    assert max(waits) < 5
