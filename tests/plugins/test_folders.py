"""The folders that may be shown, on a disk and in S3: what is listed, read and opened there, and how often."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_luma.jobs.ledger import SUFFIX
from airflow_provider_luma.jobs.record import Identity
from airflow_provider_luma.plugins import folders, index
from airflow_provider_luma.plugins.clip import find_clip
from airflow_provider_luma.plugins.folders import Folder, Opened, configured
from airflow_provider_luma.plugins.index import FRESH_SECONDS, Index
from tests.buckets import s3_server
from tests.plugins import clips
from tests.plugins.clips import VIDEO

BUCKETS = ("shown", "hidden")
IMAGE = b"\x89PNG\r\n\x1a\n a photo"


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch, s3_server() as (connection, client):
        patch.setenv("AIRFLOW_CONN_STORE", connection)
        for bucket in BUCKETS:
            client.create_bucket(Bucket=bucket)
        yield client


@pytest.fixture
def bucket(server: Any) -> Any:
    """A client of a server whose buckets are empty."""
    for name in BUCKETS:
        for found in server.list_objects_v2(Bucket=name).get("Contents", ()):
            server.delete_object(Bucket=name, Key=found["Key"])
    return server


def folder(uri: object) -> Folder:
    made = folders._folder(str(uri))
    assert made is not None
    return made


def put_object(client: Any, key: str, whose: Identity | None = None, **changes: Any) -> Identity:
    whose = whose or clips.identity()
    client.put_object(Bucket="shown", Key=key, Body=VIDEO)
    made = clips.record(Path("/unused"), whose, output_path=f"s3://store@shown/{key}", **changes)
    client.put_object(Bucket="shown", Key=key + SUFFIX, Body=made.to_bytes())
    return whose


def test_a_clip_in_s3_is_found_and_read_by_ranges(bucket) -> None:
    whose = put_object(bucket, "clips/a/b.mp4")
    found = find_clip(Index((folder("s3://store@shown/clips/"),)), whose)
    assert found is not None
    video = found.open_video()
    assert video is not None
    opened, _ = video
    assert (opened.size, opened.read(1000, 2000)) == (len(VIDEO), VIDEO[1000:2000])
    assert found.location.path == "s3://store@shown/clips/a/b.mp4"


def test_a_record_in_s3_is_read_with_one_request(bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    for size in (0, 9, 10):
        bucket.put_object(Bucket="shown", Key=f"clips/{size}", Body=b"x" * size)
    root: Any = folder("s3://store@shown/clips/")
    asked: list[str] = []
    fs = root._path.fs

    def counted(call: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def ask(*arguments: Any, **named: Any) -> Any:
            asked.append(call)
            return real(*arguments, **named)

        return ask

    for call in ("info", "cat_file"):
        monkeypatch.setattr(fs, call, counted(call, getattr(fs, call)))
    assert root.read("9", 9) == b"x" * 9
    assert asked == ["cat_file"]
    with pytest.raises(OSError, match="more than 9 bytes"):
        root.read("10", 9)
    assert root.read("0", 9) == b""
    with pytest.raises(FileNotFoundError):
        root.read("none", 9)


def test_a_clip_that_goes_away_while_it_is_opened_is_not_there(
    bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    etag = bucket.put_object(Bucket="shown", Key="clips/a.png", Body=IMAGE)["ETag"]
    root = folder("s3://store@shown/clips/")
    whose = put_object(
        bucket, "clips/a.mp4", start_frame="s3://store@shown/clips/a.png", frame_identity=f"ETag:{etag}"
    )
    found = find_clip(Index((root,)), whose)
    assert found is not None
    opens = root.open

    def opened_then_deleted(name: str) -> Opened:
        opened = opens(name)
        bucket.delete_object(Bucket="shown", Key=f"clips/{name}")
        return opened

    monkeypatch.setattr(root, "open", opened_then_deleted)
    assert found.open_video() is None
    assert found.open_poster((root,)) is None


def test_a_frame_that_goes_away_while_its_digest_is_made_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, frame = folder(tmp_path), tmp_path / "a.png"
    frame.write_bytes(IMAGE)
    digest = f"sha256:{hashlib.sha256(IMAGE).hexdigest()}"
    clips.put(tmp_path / "a.mp4", clips.identity(), start_frame=str(frame), frame_identity=digest)
    found = find_clip(Index((root,)), clips.identity())
    assert found is not None
    opens = root.open

    def opened_then_deleted(name: str) -> Opened:
        opened = opens(name)
        frame.unlink()
        return opened

    monkeypatch.setattr(root, "open", opened_then_deleted)
    assert found.open_poster((root,)) is None


@pytest.mark.parametrize(
    "output_path",
    [
        "s3://store@hidden/clips/a.mp4",
        "s3://store@shown/other/a.mp4",
        "s3://store@shown/clips/b.mp4",
        "s3://store@shown/clips/../clips/a.mp4",
        "gs://store@shown/clips/a.mp4",
        "/shown/clips/a.mp4",
    ],
)
def test_a_record_in_s3_counts_for_its_own_place_only(bucket, output_path: str) -> None:
    whose = put_object(bucket, "clips/a.mp4")
    made = clips.record(Path("/unused"), whose, output_path=output_path)
    bucket.put_object(Bucket="shown", Key="clips/a.mp4" + SUFFIX, Body=made.to_bytes())
    assert find_clip(Index((folder("s3://store@shown/clips"),)), whose) is None


def test_a_frame_in_s3_is_recognized_by_its_etag(bucket) -> None:
    etag = bucket.put_object(Bucket="shown", Key="photos/a.png", Body=IMAGE)["ETag"]
    roots = tuple(map(folder, ("s3://store@shown/clips/", "s3://store@shown/photos/")))
    frame: dict[str, Any] = {"start_frame": "s3://store@shown/photos/a.png", "frame_identity": f"ETag:{etag}"}
    known = find_clip(Index(roots), put_object(bucket, "clips/a.mp4", **frame))
    other = clips.identity(task_id="other")
    forged = find_clip(
        Index(roots), put_object(bucket, "clips/b.mp4", other, **frame | {"frame_identity": 'ETag:"0"'})
    )
    assert known is not None
    assert forged is not None
    opened = known.open_poster(roots)
    assert opened is not None
    assert opened[1] == "image/png"
    assert forged.open_poster(roots) is None
    assert known.open_poster(roots[:1]) is None


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(index, "time", made)
    monkeypatch.setattr(index, "PATIENCE_SECONDS", 30.0)
    return made


def test_an_unchanged_record_is_not_read_again_and_a_list_is_cached(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = folder(tmp_path)
    reads: list[str] = []
    listings: list[str] = []
    read, listed = root.read, root.listed

    def counted_read(name: str, limit: int) -> bytes:
        reads.append(name)
        return read(name, limit)

    def counted_listing(suffix: str) -> Iterator[tuple[str, str]]:
        listings.append(suffix)
        return listed(suffix)

    monkeypatch.setattr(root, "read", counted_read)
    monkeypatch.setattr(root, "listed", counted_listing)
    kept = Index((root,))
    for number in range(3):
        clips.put(tmp_path / f"{number}.mp4", clips.identity(map_index=number))
    assert len(kept.snapshot().entries) == 3
    assert (len(reads), len(listings)) == (3, 1)
    kept.snapshot()
    assert (len(reads), len(listings)) == (3, 1)
    clock.now += FRESH_SECONDS + 1
    clips.put(tmp_path / "1.mp4", clips.identity(map_index=1), error="changed")
    clips.put(tmp_path / "new.mp4", clips.identity(map_index=7))
    os.unlink(tmp_path / f"2.mp4{SUFFIX}")
    assert {entry.identity.map_index for entry in kept.snapshot().entries} == {0, 1, 7}
    assert len(listings) == 2
    assert sorted(reads[3:]) == [f"1.mp4{SUFFIX}", f"new.mp4{SUFFIX}"]


def test_a_new_clip_is_found_though_the_list_is_fresh(tmp_path: Path, clock: Clock) -> None:
    kept = Index((folder(tmp_path),))
    whose = clips.identity()
    assert find_clip(kept, whose) is None
    clock.now += 1.5
    clips.put(tmp_path / "new.mp4", whose)
    assert find_clip(kept, whose) is not None


def test_on_the_first_reading_some_clips_are_shown_before_all_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "_BATCH", 2)
    monkeypatch.setattr(index, "_READERS", 1)
    monkeypatch.setattr(index, "LONG_PATIENCE_SECONDS", 0.0)
    root = folder(tmp_path)
    for number in range(3):
        clips.put(tmp_path / f"{number}.mp4", clips.identity(map_index=number))
    may_go_on, read = threading.Event(), root.read

    def slow_read(name: str, limit: int) -> bytes:
        if len(asked) == 2:
            may_go_on.wait(30)
        asked.append(name)
        return read(name, limit)

    asked: list[str] = []
    monkeypatch.setattr(root, "read", slow_read)
    kept = Index((root,))
    deadline = time.monotonic() + 30
    while len((shown := kept.snapshot()).entries) < 2 and time.monotonic() < deadline:
        pass
    assert (len(shown.entries), shown.is_whole) == (2, False)
    may_go_on.set()
    while not (shown := kept.snapshot()).is_whole and time.monotonic() < deadline:
        pass
    assert (len(shown.entries), shown.is_whole) == (3, True)


def test_a_record_that_cannot_be_read_now_stays_as_it_was_known(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = folder(tmp_path)
    clips.put(tmp_path / "a.mp4", clips.identity())
    kept = Index((root,))
    assert len(kept.snapshot().entries) == 1

    def broken(*_: object) -> None:
        raise OSError("the disk is away")

    clips.put(tmp_path / "a.mp4", clips.identity(), error="changed")
    monkeypatch.setattr(root, "read", broken)
    clock.now += FRESH_SECONDS + 1
    assert len(kept.snapshot().entries) == 1
    monkeypatch.setattr(root, "listed", broken)
    clock.now += FRESH_SECONDS + 1
    assert len(kept.snapshot().entries) == 1
    monkeypatch.undo()


def test_only_disks_and_the_three_stores_may_be_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    roots = (
        f" {tmp_path},\nlocal://{tmp_path}, memory://x, http://127.0.0.1/, nonsense://x, file://{tmp_path}-b,"
    )
    monkeypatch.setenv("AIRFLOW__LUMA_RAY__PREVIEW_ROOTS", roots)
    assert [made.uri for made in configured()] == [str(tmp_path), f"file://{tmp_path}-b"]


def test_a_folder_within_another_is_not_shown_twice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    within = f"{tmp_path}/a/b, file://{tmp_path}/, {tmp_path}/a/, {tmp_path}, {tmp_path}-not"
    monkeypatch.setenv("AIRFLOW__LUMA_RAY__PREVIEW_ROOTS", within)
    assert [made.path_of("x") for made in configured()] == [f"{tmp_path}/x", f"{tmp_path}-not/x"]


def test_nothing_is_shown_unless_it_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__LUMA_RAY__PREVIEW_ROOTS", "")
    assert configured() == ()


@pytest.fixture(scope="module")
def trap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one file in it, and ways out of it."""
    top = tmp_path_factory.mktemp("trap")
    (top / "secret").write_bytes(b"secret")
    root = top / "root"
    (root / "a").mkdir(parents=True)
    (root / "a" / "clip").write_bytes(b"clip")
    (root / "out").symlink_to(top)
    (root / "a" / "out").symlink_to(top / "secret")
    (root / "a" / "in").symlink_to(root / "a" / "clip")
    return root


@pytest.mark.parametrize(("step", "content"), [("a", None), ("clip", b"clip")])
def test_a_folder_that_becomes_a_link_while_a_file_is_opened_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, content: bytes | None
) -> None:
    (tmp_path / "root" / "a").mkdir(parents=True)
    (tmp_path / "root" / "a" / "clip").write_bytes(b"clip")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "clip").write_bytes(b"secret")
    opens = os.open

    def swapped_before(path: str, *arguments: Any, **named: Any) -> int:
        if path == step:
            (tmp_path / "root" / "a").rename(tmp_path / "moved")
            (tmp_path / "root" / "a").symlink_to(tmp_path / "elsewhere")
        return opens(path, *arguments, **named)

    root = folder(tmp_path / "root")
    monkeypatch.setattr(os, "open", swapped_before)
    if content is None:
        with pytest.raises(NotADirectoryError):
            root.open("a/clip")
        return
    opened = root.open("a/clip")
    assert opened.read(0, opened.size) == content
    opened.close()


PARTS = st.sampled_from(
    ["a", "out", "in", "clip", "secret", "..", ".", "", "root", "~", "\0", "%2e%2e", "etc"]
)


@given(parts=st.lists(PARTS, min_size=1, max_size=7), text=st.text(max_size=12))
def test_no_name_opens_a_file_outside_or_by_a_link(trap: Path, parts: list[str], text: str) -> None:
    root = folder(trap)
    for name in ("/".join(parts), "/".join((*parts, text)), text):
        try:
            opened = root.open(name)
        except OSError:
            continue
        content = opened.read(0, opened.size)
        opened.close()
        assert (name, content) == ("a/clip", b"clip")


@given(
    parts=st.lists(PARTS, max_size=7), scheme=st.sampled_from(["", "file://", "s3://", "http://", "local://"])
)
def test_every_path_that_has_a_name_is_that_very_place(trap: Path, parts: list[str], scheme: str) -> None:
    uri = f"{scheme}{trap}/{'/'.join(parts)}"
    name = folder(trap).name_of(uri)
    if name is not None:
        assert ".." not in name.split("/")
        assert os.path.normpath(uri.removeprefix("file://")) == os.path.join(trap, name)
