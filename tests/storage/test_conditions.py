"""Conditional writes into a bucket, and a store without them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_luma.storage import StoredFile, objects, open_file
from tests.storage.conftest import Bucket
from tests.storage.server import Gate

URI, KEY = "s3://store@media/clips/v.mp4", "clips/v.mp4"
#: One goes up at once, the other in parts.
SMALL, LARGE = 1000, 16 * 1024 * 1024


@pytest.fixture
def file(bucket: Bucket) -> StoredFile:
    return open_file(URI)


@pytest.fixture(params=[SMALL, LARGE], ids=["whole", "in parts"])
def video(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "video.part"
    path.write_bytes(b"v" * request.param)
    return path


def test_an_object_is_created_once(bucket: Bucket, file: StoredFile) -> None:
    assert file.is_conditional
    assert file.create(b"one") is not None
    assert file.create(b"two") is None
    assert bucket.get(KEY) == b"one"


def test_an_object_is_replaced_only_as_it_was_read(bucket: Bucket, file: StoredFile) -> None:
    file.create(b"one")
    read = file.read_version()
    assert read is not None
    assert read.content == b"one"
    second = file.replace(b"two", read.token)
    assert second is not None
    assert file.replace(b"three", read.token) is None
    assert bucket.get(KEY) == b"two"
    assert file.replace(b"three", second) is not None
    bucket.delete(KEY)
    assert file.replace(b"four", second) is None
    assert bucket.names() == {"frames/f.jpg"}


def test_the_token_of_a_write_is_that_of_a_read(file: StoredFile) -> None:
    written = file.create(b"one")
    read = file.read_version()
    assert read is not None
    assert read.token == written


def test_content_newer_than_its_etag_is_not_overwritten(
    bucket: Bucket, file: StoredFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody writes between the two calls that read ETag and content."""
    file.create(b"one")
    look = objects.ObjectFile.look

    def look_and_lose(self: objects.ObjectFile) -> Any:
        seen = look(self)
        bucket.put(KEY, b"another's")
        return seen

    with monkeypatch.context() as patched:
        patched.setattr(objects.ObjectFile, "look", look_and_lose)
        read = file.read_version()
    assert read is not None
    assert read.content == b"another's"
    assert file.replace(b"mine", read.token) is None
    assert bucket.get(KEY) == b"another's"


@pytest.mark.parametrize("before", [None, b"an older video"])
def test_a_video_is_put_and_recognized_by_its_etag(
    bucket: Bucket, file: StoredFile, video: Path, before: bytes | None
) -> None:
    if before is not None:
        bucket.put(KEY, before)
    mark = file.put(video, lambda: True)
    content = video.read_bytes()
    assert bucket.get(KEY) == content
    assert mark
    assert file.holds(len(content), "a digest that is not looked at", mark)
    assert not file.holds(len(content), "a digest that is not looked at", 'ETag:"another"')
    assert bucket.uploads() == []


def test_a_video_is_not_put_if_that_is_not_allowed(
    bucket: Bucket, gate: Gate, file: StoredFile, video: Path
) -> None:
    gate.seen.clear()
    assert file.put(video, lambda: False) is None
    assert not [seen.line for seen in gate.seen if seen.line.startswith(("PUT", "POST"))]


@pytest.mark.parametrize("before", [None, b"an older video"])
def test_a_video_is_not_put_over_one_that_somebody_else_put_meanwhile(
    bucket: Bucket, gate: Gate, file: StoredFile, video: Path, before: bytes | None
) -> None:
    """After the check: with multipart uploads only the last request has the condition."""
    if before is not None:
        bucket.put(KEY, before)
        etag = bucket.client.head_object(Bucket=bucket.name, Key=KEY)["ETag"]
        # moto does not look at this header of a POST.
        gate.refuse(r"POST .*uploadId=", 412, "PreconditionFailed", rf"(?i)\r\nif-match: {etag}\r\n")

    def allow_and_lose() -> bool:
        bucket.put(KEY, b"another's")
        return True

    assert file.put(video, allow_and_lose) is None
    assert bucket.get(KEY) == b"another's"
    assert bucket.uploads() == [], "nothing is left of it"


@pytest.mark.parametrize("code", ["PreconditionFailed", "ConditionalRequestConflict"])
def test_a_write_that_collides_with_another_has_lost(gate: Gate, file: StoredFile, code: str) -> None:
    gate.refuse(r"PUT /media/clips/v\.mp4", 412 if code == "PreconditionFailed" else 409, code)
    assert file.create(b"one") is None
    assert file.replace(b"one", '"token"') is None


@pytest.mark.parametrize("write", ["create", "replace"])
def test_no_answer_is_not_a_refused_condition(gate: Gate, file: StoredFile, write: str) -> None:
    file.create(b"one")
    gate.strike(r"PUT /media/clips/v\.mp4")
    with pytest.raises(OSError):  # noqa: PT011 - botocore's own, as a cause
        file.create(b"two") if write == "create" else file.replace(b"two", '"token"')


@pytest.mark.parametrize("write", ["create", "put"])
def test_a_missing_bucket_is_not_a_refused_condition(bucket: Bucket, tmp_path: Path, write: str) -> None:
    (tmp_path / "video.part").write_bytes(b"video")
    file = open_file("s3://store@nowhere/v.mp4")
    with pytest.raises(FileNotFoundError):
        file.create(b"one") if write == "create" else file.put(tmp_path / "video.part", lambda: True)


# A store that knows no conditional writes, as some that speak S3 do


@pytest.fixture
def without_conditions(file: StoredFile, gate: Gate) -> Iterator[StoredFile]:
    """A file in such a store, which is forgotten afterwards."""
    gate.refuse(r"(PUT|POST) ", 501, "NotImplemented", r"(?i)\r\nif-(none-)?match: ")
    yield file
    objects._unconditional.clear()


def test_a_store_without_conditions_is_recognized_at_its_first_answer_and_logged(
    bucket: Bucket, gate: Gate, without_conditions: StoredFile, caplog: pytest.LogCaptureFixture
) -> None:
    file = without_conditions
    assert file.create(b"one") is not None
    assert bucket.get(KEY) == b"one"
    assert not file.is_conditional
    assert not file.beside(".job.json").is_conditional
    gate.seen.clear()
    assert file.create(b"two") is None
    assert file.beside(".job.json").create(b"{}") is not None
    assert not [seen for seen in gate.seen if "if-none-match" in seen.head.lower()]
    assert caplog.text.count("has no conditional writes") == 1


def test_a_store_without_conditions_is_read_before_each_write(
    bucket: Bucket, without_conditions: StoredFile, video: Path
) -> None:
    file = without_conditions
    first = file.create(b"one")
    assert first is not None
    second = file.replace(b"two", first)
    assert second is not None
    assert file.replace(b"three", first) is None
    mark = file.put(video, lambda: True)
    assert mark
    assert bucket.get(KEY) == video.read_bytes()
    assert file.holds(video.stat().st_size, "a digest that is not looked at", mark)
