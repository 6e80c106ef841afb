"""Paths on local disks and in object stores, and files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import fsspec  # type: ignore[import-untyped]
import pytest
from airflow.sdk.io import attach
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_luma.exceptions import LumaRayConfigurationError
from airflow_provider_luma.storage import commit, open_path, safe_name, sidecar, size, write_text


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A working directory and a home that are the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.fixture
def memory() -> Iterator[str]:
    """An object store in memory, known to Airflow by a connection's id."""
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
    assert open_path(uri) == Path(path.replace("{cwd}", str(elsewhere)))
    assert open_path(uri, "some_conn") == open_path(uri)


def test_an_object_stores_path(memory: str) -> None:
    for path in (open_path(f"{memory}/a/v.mp4"), open_path("memory://bucket/a/v.mp4", "luma_ray_test")):
        assert not isinstance(path, Path)
        assert (path.protocol, path.conn_id, path.name) == ("memory", "luma_ray_test", "v.mp4")
    assert open_path(f"{memory}/v.mp4", "another").conn_id == "luma_ray_test", "the URI goes first"  # type: ignore[union-attr]


@pytest.mark.parametrize("scheme", ["nosuchscheme", "a.b", "ftp"])
def test_a_store_without_a_file_system_is_told(scheme: str) -> None:
    """Airflow knows a scheme when a provider brings it; that fsspec does is not enough."""
    with pytest.raises(
        LumaRayConfigurationError, match=rf"No file system for '{scheme}' .* is installed.*Nothing was bought"
    ):
        open_path(f"{scheme}://bucket/v.mp4")


@pytest.mark.parametrize("uri", ["~nosuchuser/v.mp4", "s3://[half/v.mp4"])
def test_a_path_that_cannot_be_is_told(uri: str) -> None:
    with pytest.raises(LumaRayConfigurationError, match="Nothing was bought"):
        open_path(uri)


def test_a_sidecar_lies_beside(memory: str) -> None:
    there = sidecar(open_path(f"{memory}/a/v.mp4"), ".job.json")
    assert there == open_path(f"{memory}/a/v.mp4.job.json")
    assert sidecar(Path("/data/v.mp4"), ".job.json") == Path("/data/v.mp4.job.json")


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
def test_two_names_never_meet(one: str, other: str) -> None:
    assert safe_name(one) != safe_name(other)


@settings(deadline=None)
@given(
    st.sets(st.text(alphabet="ab-./: +\u00e9", max_size=6) | st.text(max_size=200), min_size=2, max_size=20)
)
def test_no_two_names_whatever_meet(texts: set[str]) -> None:
    assert len({safe_name(text) for text in texts}) == len(texts)


@settings(deadline=None)
@given(st.text(max_size=200))
def test_a_name_that_was_made_safe_does_not_meet_one_that_was_born_so(text: str) -> None:
    made = safe_name(text)
    assert made == text or safe_name(made) != made


def test_a_text_is_written_with_the_folders_above_it(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "v.mp4.job.json"
    write_text(path, "caf\u00e9 \u2603\n")
    assert path.read_bytes() == "caf\u00e9 \u2603\n".encode()
    write_text(path, "new")
    assert path.read_text() == "new"
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_reader_sees_the_old_text_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "v.mp4.job.json"
    write_text(path, "old")
    seen = []
    monkeypatch.setattr(os, "fsync", lambda file: seen.append(path.read_text()))
    write_text(path, "new" * 100_000)
    assert seen == ["old"], "on the disk before it is in its place"
    assert path.read_text() == "new" * 100_000


def test_a_text_that_cannot_be_written_leaves_the_old_one_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "v.mp4.job.json"
    write_text(path, "old")

    def fail(file: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_commit_moves_the_whole_file_onto_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local, target = tmp_path / ".part", tmp_path / "v.mp4"
    local.write_bytes(b"new")
    target.write_bytes(b"old")
    seen = []
    monkeypatch.setattr(os, "fsync", lambda file: seen.append(target.read_bytes()))
    commit(local, target)
    assert seen == [b"old"], "on the disk before it is in its place"
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


def test_a_commit_that_fails_leaves_the_old_video(tmp_path: Path) -> None:
    local, target = tmp_path / ".part", tmp_path / "v.mp4"
    target.write_bytes(b"old")
    with pytest.raises(FileNotFoundError):
        commit(local, target)
    assert target.read_bytes() == b"old"
    local.write_bytes(b"new")
    folder = tmp_path / "folder"
    (folder / "full").mkdir(parents=True)
    with pytest.raises(OSError):  # noqa: PT011 - which one depends on the system
        commit(local, folder)
    assert local.read_bytes() == b"new"


def test_the_same_in_an_object_store(memory: str, tmp_path: Path) -> None:
    target = open_path(f"{memory}/clips/v.mp4")
    assert size(target) is None
    local = tmp_path / "v.part"
    local.write_bytes(b"video")
    commit(local, target)
    assert not local.exists()
    assert size(target) == 5
    assert target.read_bytes() == b"video"
    record = sidecar(target, ".job.json")
    write_text(record, "old")
    write_text(record, "caf\u00e9")
    assert record.read_bytes() == "caf\u00e9".encode()
    with pytest.raises(OSError):  # noqa: PT011
        commit(tmp_path / "missing", target)
    assert target.read_bytes() == b"video"


def test_the_size_of_what_is_not_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"12345")
    assert size(tmp_path / "v.mp4") == 5
    assert size(tmp_path / "missing.mp4") is None
    assert size(tmp_path / "v.mp4" / "below") is None
