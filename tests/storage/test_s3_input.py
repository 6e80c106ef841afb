"""A wrong path in a bucket is reported in one sentence before anything is bought, and never from a stale cache."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_luma.exceptions import (
    LumaRayConfigurationError,
    LumaRayRecordError,
    LumaRayUnavailable,
)
from airflow_provider_luma.jobs.ledger import Ledger, Standing
from airflow_provider_luma.media import MAX_FRAME_BYTES, read_frame, send_frame
from airflow_provider_luma.simulator import Simulator
from airflow_provider_luma.storage import open_file
from tests.jobs.takes import ME, SIBLING, take
from tests.storage.conftest import Bucket
from tests.storage.server import Gate
from tests.storage.test_s3 import FRAME, VIDEO, attempt
from tests.support import MemoryStore


def list_folder(name: str) -> list[str]:
    """Fill the file system's cache with a folder's content."""
    from airflow.sdk import ObjectStoragePath

    return [str(path) for path in ObjectStoragePath(f"s3://store@media/{name}").iterdir()]


def refused(simulator: Simulator, **arguments: Any) -> str:
    """Run an attempt that must fail for good; return its error's text."""
    store = MemoryStore()
    with pytest.raises(LumaRayConfigurationError) as caught:
        attempt(store=store, **arguments)
    assert simulator.jobs == []
    assert store.values == {}
    text = str(caught.value)
    assert "\nThis attempt bought nothing." in text
    return text


@pytest.mark.parametrize(
    ("video", "problem"),
    [
        ("s3://store@no-such-bucket/v.mp4", "The specified bucket does not exist"),
        ("s3://store@no-such-bucket/clips/", "The specified bucket does not exist"),
        ("s3://store@no-such-bucket", "ending in '.mp4'"),
        ("s3://store@bad name!/v.mp4", "Invalid bucket name"),
        ("s3://store@media", "ending in '.mp4'"),
        ("s3://store@media/frames", "ending in '.mp4'"),
    ],
)
def test_a_bad_output_path(bucket: Bucket, simulator: Simulator, video: str, problem: str) -> None:
    text = refused(simulator, video=video)
    assert problem in text
    assert "output_path" in text
    assert video.rstrip("/") in text


def test_no_permission_to_write(bucket: Bucket, simulator: Simulator) -> None:
    bucket.deny("s3:PutObject")
    text = refused(simulator)
    assert f"output_path '{VIDEO}' cannot be written" in text
    assert "needs permission to list, read and write there" in text


def test_no_permission_to_read_the_record_is_not_its_absence(bucket: Bucket, simulator: Simulator) -> None:
    attempt()
    bucket.deny("s3:GetObject")
    with pytest.raises(LumaRayRecordError, match="needs permission to list, read and write"):
        attempt()
    assert simulator.charges == 1


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (
            lambda bucket: bucket.put("frames/f.jpg", b"This is text."),
            "is not an image: it begins with b'This is '",
        ),
        (lambda bucket: bucket.put("frames/f.jpg", b""), "is empty"),
        (
            lambda bucket: bucket.put("frames/f.jpg", b"\xff\xd8\xff" + bytes(MAX_FRAME_BYTES)),
            "is larger than 20 MB",
        ),
        (lambda bucket: bucket.delete("frames/f.jpg"), "does not exist"),
        (lambda bucket: bucket.deny("s3:GetObject"), "cannot be read: .* needs permission"),
    ],
    ids=["text", "empty", "large", "missing", "denied"],
)
def test_a_bad_frame(
    bucket: Bucket, simulator: Simulator, make: Callable[[Bucket], None], problem: str
) -> None:
    make(bucket)
    text = refused(simulator)
    assert f"start_frame '{FRAME}'" in text
    assert re.search(problem, text)


@pytest.mark.parametrize("name", ["frames", "no-such-bucket/f.jpg"])
def test_a_frame_that_is_not_an_object(bucket: Bucket, simulator: Simulator, name: str) -> None:
    at = f"s3://store@{name}" if "/" in name else f"s3://store@media/{name}"
    text = refused(simulator, frame=at)
    assert f"start_frame '{at}'" in text


def test_a_frame_that_vanishes_between_listing_and_reading(bucket: Bucket, simulator: Simulator) -> None:
    """The worker has listed the folder, and its file system has cached that."""
    frames = list_folder("frames")
    assert frames == [FRAME]
    bucket.delete("frames/f.jpg")
    assert "does not exist" in refused(simulator, frame=frames[0])


def test_a_frame_that_vanishes_before_its_upload(bucket: Bucket, simulator: Simulator) -> None:
    frame = read_frame(FRAME)
    bucket.delete("frames/f.jpg")
    with pytest.raises(LumaRayUnavailable, match="changed while it was read"):
        frame.read()


def test_a_frame_that_changes_before_its_upload_is_not_sent_as_the_checked_one(
    bucket: Bucket,
) -> None:
    frame = read_frame(FRAME)
    bucket.put("frames/f.jpg", b"\xff\xd8\xff another")
    with pytest.raises(LumaRayUnavailable, match="changed while it was read"):
        frame.read()


@pytest.mark.parametrize("frame_transfer", ["upload", "base64"])
def test_an_attempt_whose_frame_changes_before_it_is_sent_buys_nothing_and_the_next_one_does(
    bucket: Bucket, simulator: Simulator, monkeypatch: pytest.MonkeyPatch, frame: Path, frame_transfer: str
) -> None:
    def replace_and_send(*arguments: Any) -> Any:
        bucket.put("frames/f.jpg", frame.read_bytes() + b"\0")
        return send_frame(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr("airflow_provider_luma.jobs.submit.send_frame", replace_and_send)
        with pytest.raises(LumaRayUnavailable, match="changed while it was read"):
            attempt(frame_transfer=frame_transfer)
    assert simulator.jobs == []
    attempt(frame_transfer=frame_transfer)
    assert simulator.charges == 1


def test_a_frame_that_vanishes_before_the_vendor_fetches_it_costs_nothing(
    bucket: Bucket, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_luma.exceptions import LumaRayJobFailed
    from airflow_provider_luma.jobs.submit import Submission

    original = Submission._pay

    def delete_and_pay(self: Submission, *arguments: Any) -> Any:
        bucket.delete("frames/f.jpg")
        return original(self, *arguments)

    monkeypatch.setattr(Submission, "_pay", delete_and_pay)
    with pytest.raises(LumaRayJobFailed, match="not billed"):
        attempt()
    assert simulator.charges == 0


def test_what_another_process_wrote_is_seen_past_the_listings(bucket: Bucket) -> None:
    """The file system's cache has neither a record nor a video."""
    bucket.put("clips/old.txt", b"")
    output = open_file(VIDEO)
    ledger = Ledger(ME, output, None)
    list_folder("clips")
    assert ledger.read() == Standing()
    list_folder("clips")
    assert output.look() is None
    list_folder("clips")
    theirs = {**take("submitted", owner=SIBLING).dump()}
    bucket.put("clips/v.mp4.job.json", json.dumps(theirs).encode())
    bucket.put("clips/v.mp4", b"12345")
    seen = output.look()
    assert seen is not None
    assert seen.size == 5
    list_folder("clips")
    standing = ledger.read()
    assert standing.own is None
    assert standing.other is not None
    assert standing.other.request_id == "id-of-c1"
    bucket.put("clips/w.mp4.job.json", json.dumps(theirs | {"request_id": "r2"}).encode())
    found = ledger.neighbours(datetime.now(UTC))
    assert {neighbour.request_id for neighbour in found} == {"r2"}, "not the ledger's own record"


@pytest.mark.parametrize("folder", ["clips", "clips/[x]", "clips/a*"])
def test_the_neighbours_in_a_folder_and_below(bucket: Bucket, gate: Gate, folder: str) -> None:
    shared = open_file(f"s3://store@media/{folder}/")
    output = open_file(f"s3://store@media/{folder}/run/a.mp4")
    theirs = take("submitted", owner=SIBLING).dump()
    for key in ("run/b.mp4", "other/deep/c.mp4", "d.mp4"):
        bucket.put(f"{folder}/{key}.job.json", json.dumps(theirs | {"request_id": key}).encode())
    now = datetime.now(UTC)
    found = {neighbour.request_id for neighbour in Ledger(ME, output, None, shared=shared).neighbours(now)}
    assert found == {"run/b.mp4", "other/deep/c.mp4", "d.mp4"}
    assert {neighbour.request_id for neighbour in Ledger(ME, output, None).neighbours(now)} == {"run/b.mp4"}

    gate.seen.clear()
    later = now + timedelta(hours=2)
    assert list(Ledger(ME, output, None, shared=shared).neighbours(later)) == []
    assert not [seen.line for seen in gate.seen if ".job.json" in seen.line], "what is old is not read"


@pytest.mark.parametrize("shared", [True, False])
def test_neighbours_that_cannot_be_listed_are_not_absent(bucket: Bucket, gate: Gate, shared: bool) -> None:
    gate.refuse(r"GET /media\?list-type")
    folder = open_file("s3://store@media/clips/") if shared else None
    ledger = Ledger(ME, open_file("s3://store@media/clips/run/a.mp4"), None, shared=folder)
    with pytest.raises(LumaRayRecordError, match=r"cannot be listed: .* needs permission to list"):
        list(ledger.neighbours(datetime.now(UTC)))
