"""Paths on local disks and in object stores; files that appear complete or not at all."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec  # type: ignore[import-untyped]
import pytest
from airflow.sdk.io import attach
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_luma.exceptions import LumaRayConfigurationError
from airflow_provider_luma.storage import LocalFile, StoredFile, open_file, safe_name


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A working directory and a home for this test only."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.fixture
def memory() -> Iterator[str]:
    """An in-memory object store, which Airflow finds by connection id."""
    store = fsspec.filesystem("memory")
    attach("memory", conn_id="luma_ray_test", fs=store)
    yield "memory://luma_ray_test@bucket"
    store.store.clear()


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("/data/v.mp4", "/data/v.mp4"),
        ("/data/run 1/#2?.mp4", "/data/run 1/#2?.mp4"),
        ("/data/100%25.mp4", "/data/100%25.mp4"),
        ("/data/manual__2026-11-22T10:00:00+00:00/v.mp4", "/data/manual__2026-11-22T10:00:00+00:00/v.mp4"),
        ("file:///data/v.mp4", "/data/v.mp4"),
        ("file:///data/run%201.mp4", "/data/run 1.mp4"),
        ("FILE:///data/v.mp4", "/data/v.mp4"),
        ("file://localhost/data/v.mp4", "/data/v.mp4"),
        ("~/v.mp4", "{cwd}/home/v.mp4"),
        ("file:///~/v.mp4", "/~/v.mp4"),
        ("v.mp4", "{cwd}/v.mp4"),
        ("./sub/v.mp4", "{cwd}/sub/v.mp4"),
        ("run-2026:1/v.mp4", "{cwd}/run-2026:1/v.mp4"),
    ],
)
def test_a_local_path(elsewhere: Path, uri: str, path: str) -> None:
    assert open_file(uri) == LocalFile(Path(path.replace("{cwd}", str(elsewhere))))
    assert open_file(uri, "some_conn") == open_file(uri)


def test_an_object_stores_path(memory: str) -> None:
    for file in (open_file(f"{memory}/a/v.mp4"), open_file("memory://bucket/a/v.mp4", "luma_ray_test")):
        assert (str(file), file.name) == ("memory://luma_ray_test@/bucket/a/v.mp4", "v.mp4")
    assert "luma_ray_test@" in str(open_file(f"{memory}/v.mp4", "another")), "the URI goes first"


@pytest.mark.parametrize("scheme", ["nosuchscheme", "a.b", "ftp"])
def test_a_store_without_a_file_system_is_reported(scheme: str) -> None:
    """Airflow knows a scheme if a provider registers it; that fsspec knows it is not enough."""
    with pytest.raises(
        LumaRayConfigurationError,
        match=rf"(?s)No file system for '{scheme}' .* is installed.*This attempt bought nothing",
    ):
        open_file(f"{scheme}://bucket/v.mp4")


@pytest.mark.parametrize("uri", ["~nosuchuser/v.mp4", "s3://[half/v.mp4"])
def test_an_invalid_path_is_reported(uri: str) -> None:
    with pytest.raises(LumaRayConfigurationError, match="This attempt bought nothing"):
        open_file(uri)


def test_a_sidecar_has_the_same_folder(memory: str) -> None:
    there = open_file(f"{memory}/a/v.mp4").beside(".job.json")
    assert there == open_file(f"{memory}/a/v.mp4.job.json")
    assert local(Path("/data/v.mp4")).beside(".job.json") == local(Path("/data/v.mp4.job.json"))


@pytest.mark.parametrize("text", ["v.mp4", "clips", "run_1", "scheduled-2026", "A.b-c_9", "x" * 100])
def test_a_safe_name_is_kept(text: str) -> None:
    assert safe_name(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "manual__2026-11-22T10:00:00+00:00",
        "a/b",
        "../../etc/passwd",
        ".",
        "..",
        "...",
        ".hidden",
        "trailing.",
        "a b",
        "caf\u00e9",
        "\u30d3\u30c7\u30aa",
        "a\x00b",
        "a\nb",
        "x" * 101,
        "x" * 10_000,
        "",
    ],
)
def test_any_other_name_is_made_safe(tmp_path: Path, text: str) -> None:
    name = safe_name(text)
    assert name
    assert name != text
    assert len(name) <= 109
    assert not name.startswith(".")
    assert set(name) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
    (tmp_path / name).touch()
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a b", "a-b"),
        ("a b", "a/b"),
        ("a b", "a  b"),
        ("a:b", "a+b"),
        (".a", "a"),
        ("a.", "a"),
        ("x" * 101, "x" * 100),
        ("x" * 101, "x" * 102),
        ("\u00e9", "e\u0301"),
        ("", "-"),
    ],
)
def test_two_names_never_collide(one: str, other: str) -> None:
    assert safe_name(one) != safe_name(other)


@settings(deadline=None)
@given(
    st.sets(st.text(alphabet="ab-./: +\u00e9", max_size=6) | st.text(max_size=200), min_size=2, max_size=20)
)
def test_no_two_names_collide(texts: set[str]) -> None:
    assert len({safe_name(text) for text in texts}) == len(texts)


@settings(deadline=None)
@given(st.text(max_size=200))
def test_a_name_made_safe_does_not_collide_with_one_that_was_safe(text: str) -> None:
    made = safe_name(text)
    assert made == text or safe_name(made) != made


def local(path: Path) -> StoredFile:
    return open_file(str(path))


def names(folder: Path) -> list[str]:
    """The file names in a folder, without the lock."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".luma_ray.lock")


def replaced(file: StoredFile, content: bytes) -> str | None:
    version = file.read_version()
    assert version is not None
    return file.replace(content, version.token)


def test_a_file_is_created_with_the_folders_above_it_and_only_once(tmp_path: Path) -> None:
    file = local(tmp_path / "a" / "b" / "v.mp4.job.json")
    assert file.create("caf\u00e9 \u2603\n".encode()) is not None
    assert file.read() == "caf\u00e9 \u2603\n".encode()
    assert file.create(b"another") is None
    assert names(tmp_path / "a" / "b") == ["v.mp4.job.json"]


def test_a_file_is_replaced_only_as_it_was_read(tmp_path: Path) -> None:
    file = local(tmp_path / "v.mp4.job.json")
    first = file.create(b"one")
    assert first is not None
    second = file.replace(b"two", first)
    assert second is not None
    assert file.replace(b"three", first) is None
    assert file.read() == b"two"
    assert file.replace(b"three", second) is not None
    (tmp_path / "v.mp4.job.json").unlink()
    assert file.replace(b"four", second) is None
    assert local(tmp_path / "no folder" / "v").replace(b"x", first) is None
    assert names(tmp_path) == []


def test_a_reader_sees_the_old_content_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "v.mp4.job.json"
    local(path).create(b"old")
    seen = []
    monkeypatch.setattr(os, "fsync", lambda handle: seen.append(path.read_bytes()))
    assert replaced(local(path), b"new" * 100_000)
    assert seen == [b"old", b"new" * 100_000], "on the disk before it is in its place, and its name after it"


def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "v.mp4.job.json"
    local(path).create(b"old")

    def fail(handle: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        replaced(local(path), b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["v.mp4.job.json"]


def test_a_video_is_put_completely_and_only_if_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "v.mp4"
    target.write_bytes(b"old")
    with local(target).staged("attempt") as part:
        part.write_bytes(b"new")
        assert local(target).put(part, lambda: False) is None
        assert target.read_bytes() == b"old"
        seen = []
        monkeypatch.setattr(os, "fsync", lambda handle: seen.append(target.read_bytes()))
        assert local(target).put(part, lambda: True) == ""
    assert seen[0] == b"old", "on the disk before it is in its place"
    assert target.read_bytes() == b"new"
    assert names(tmp_path) == ["v.mp4"]


def _is_killed_writing_a_record(path: Path) -> None:
    os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
    local(path).create(b"one")


@pytest.mark.parametrize("is_there", [False, True], ids=["created", "replaced"])
def test_leftovers_of_a_killed_writer_are_removed_by_the_next_write(tmp_path: Path, is_there: bool) -> None:
    path = tmp_path / "v.mp4.job.json"
    writer = multiprocessing.get_context("spawn").Process(target=_is_killed_writing_a_record, args=(path,))
    writer.start()
    writer.join()
    assert len(list(tmp_path.glob(".*.part"))) == 1
    if is_there:
        path.write_bytes(b"one")
        version = local(path).read_version()
        assert version is not None
        local(path).replace(b"two", version.token)
    else:
        local(path).create(b"two")
    assert path.read_bytes() == b"two"
    assert list(tmp_path.glob(".*.part")) == []


def test_leftovers_of_killed_attempts_are_removed_with_the_next_video(tmp_path: Path) -> None:
    target = local(tmp_path / "v.mp4")
    with target.staged("killed") as left:
        left.write_bytes(b"half")
        (tmp_path / "other").write_bytes(b"whole")
        assert target.put(tmp_path / "other", lambda: True) == ""
        assert not left.exists()


def test_a_put_that_fails_leaves_the_old_video(tmp_path: Path) -> None:
    target = tmp_path / "v.mp4"
    target.write_bytes(b"old")
    with pytest.raises(FileNotFoundError):
        local(target).put(tmp_path / "missing", lambda: True)
    assert target.read_bytes() == b"old"


def test_the_same_in_an_object_store_without_conditions(memory: str, tmp_path: Path) -> None:
    target = open_file(f"{memory}/clips/v.mp4")
    assert (target.look(), target.is_conditional) == (None, False)
    video = tmp_path / "v.part"
    video.write_bytes(b"video")
    assert target.put(video, lambda: True) is not None
    seen = target.look()
    assert seen is not None
    assert (seen.size, target.read(), target.read(3)) == (5, b"video", b"vid")
    record = target.beside(".job.json")
    token = record.create(b"old")
    assert token is not None
    assert record.create(b"again") is None
    assert record.replace("caf\u00e9".encode(), token) is not None
    assert record.replace(b"late", token) is None
    assert record.read() == "caf\u00e9".encode()
    assert target.fetch(tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"video"
    with pytest.raises(OSError):  # noqa: PT011
        target.put(tmp_path / "missing", lambda: True)
    assert target.read() == b"video"


def test_a_missing_file_reads_as_none(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"12345")
    seen = local(tmp_path / "v.mp4").look()
    assert seen is not None
    assert (seen.size, seen.is_folder) == (5, False)
    for missing in (tmp_path / "missing.mp4", tmp_path / "v.mp4" / "below"):
        assert (local(missing).look(), local(missing).read(), local(missing).read_version()) == (
            None,
            None,
            None,
        )
        assert not local(missing).fetch(tmp_path / "copy")
    folder = local(tmp_path).look()
    assert folder is not None
    assert folder.is_folder


def test_a_file_is_checked_by_its_digest(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"12345")
    digest = hashlib.sha256(b"12345").hexdigest()
    assert local(tmp_path / "v.mp4").holds(5, digest, None)
    assert not local(tmp_path / "v.mp4").holds(5, hashlib.sha256(b"54321").hexdigest(), None)
    assert not local(tmp_path / "v.mp4").holds(4, digest, None)
    assert not local(tmp_path / "missing").holds(5, digest, None)


@pytest.mark.parametrize("deep", [True, False])
def test_a_folder_that_may_not_be_listed_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deep: bool
) -> None:
    """Skipped for users who may list any folder."""
    closed = tmp_path / "run"
    closed.mkdir()
    scandir = os.scandir

    def refuse(path: str) -> Iterator[os.DirEntry[str]]:
        if str(path) == str(closed):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    folder = local(tmp_path) if deep else local(closed)
    with pytest.raises(PermissionError, match="run"):
        list(folder.files_below(".job.json", datetime.now(UTC), deep=deep))


def test_a_missing_folder_has_no_files_below(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("nowhere", "file"):
        assert list(local(tmp_path / name).files_below(".job.json", datetime.now(UTC), deep=True)) == []


def test_files_below_are_listed(tmp_path: Path) -> None:
    for name in ("a.job.json", "[x]/b*.job.json", "c.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "gone.job.json").symlink_to("nowhere")
    now = datetime.now(UTC)

    def found(since: datetime, *, deep: bool) -> set[str]:
        files = local(tmp_path).files_below(".job.json", since, deep=deep)
        return {str(file).removeprefix(f"{tmp_path}/") for file in files}

    assert found(now, deep=True) == {"a.job.json", "[x]/b*.job.json"}
    assert found(now, deep=False) == {"a.job.json"}
    assert found(now + timedelta(hours=2), deep=True) == set()
