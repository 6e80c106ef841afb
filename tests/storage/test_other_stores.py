"""Local disks, schemes of missing providers, and a store that neither signs URLs nor writes atomically."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]
import pytest
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]

from airflow_provider_luma.exceptions import (
    LumaRayConfigurationError,
    LumaRayDeliveryFailed,
    LumaRayError,
    LumaRayRecordError,
)
from airflow_provider_luma.simulator import Simulator
from airflow_provider_luma.storage import open_file
from tests.storage.test_s3 import attempt


@pytest.mark.parametrize(
    ("scheme", "extra"),
    [("gs", "gcs"), ("gcs", "gcs"), ("abfs", "azure"), ("abfss", "azure"), ("adl", "azure")],
)
@pytest.mark.parametrize("argument", ["start_frame", "output_path"])
def test_a_missing_extra_is_named(
    simulator: Simulator, frame: Path, tmp_path: Path, scheme: str, extra: str, argument: str
) -> None:
    there = f"{scheme}://some_conn@bucket/file.mp4"
    source, video = (there, tmp_path / "v.mp4") if argument == "start_frame" else (str(frame), there)
    with pytest.raises(LumaRayConfigurationError) as caught:
        attempt(source, str(video))
    assert f"install 'airflow-provider-luma[{extra}]'" in str(caught.value)
    assert "This attempt bought nothing" in str(caught.value)
    assert simulator.requests == []


def test_the_amazon_provider_without_s3fs_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(LumaRayConfigurationError, match=r"install 'airflow-provider-luma\[s3\]'"):
        open_file("s3://bucket/f.jpg")


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_local_file_becomes_a_local_file(
    simulator: Simulator, frame: Path, tmp_path: Path, form: str
) -> None:
    video = tmp_path / "not there yet" / "v.mp4"
    outputs = attempt(
        form.format(frame), form.format(str(video).replace(" ", "%20") if "file" in form else video)
    )
    assert outputs["video_path"] == str(video)
    assert {path.name for path in video.parent.iterdir()} == {"v.mp4", "v.mp4.job.json", ".luma_ray.lock"}
    assert attempt(form.format(frame), str(video)) == outputs
    assert simulator.charges == 1


class PlainStore(MemoryFileSystem):  # type: ignore[misc]
    """Keeps the partial file when a write breaks off, like a file server."""

    store: dict[str, Any] = {}  # noqa: RUF012 - as in MemoryFileSystem
    pseudo_dirs = [""]  # noqa: RUF012
    breaks = False
    cachable = False

    def put_file(self, lpath: str, rpath: str, **kwargs: Any) -> None:
        content = Path(lpath).read_bytes()
        if self.breaks:
            self.pipe_file(rpath, content[: len(content) // 2])
            raise ConnectionResetError("the server hung up")
        self.pipe_file(rpath, content)


@pytest.fixture
def plain(frame: Path) -> Iterator[PlainStore]:
    PlainStore.store.clear()
    store = PlainStore()
    attach("memory", conn_id="plain", fs=store)
    store.pipe_file("/media/f.jpg", frame.read_bytes())
    yield store
    PlainStore.store.clear()
    assert fsspec.filesystem("memory").store == {}


FRAME, VIDEO = "memory://plain@media/f.jpg", "memory://plain@media/clips/sub/v.mp4"


def files(store: PlainStore) -> set[str]:
    return set(store.find("/media"))


def test_a_store_that_cannot_sign_and_shows_parts(plain: PlainStore, simulator: Simulator) -> None:
    """The frame is uploaded to the vendor, and a broken write is never visible at the video's path."""
    with pytest.raises(LumaRayConfigurationError, match="its store signs no URL for it"):
        attempt(FRAME, VIDEO, frame_transfer="url")
    assert simulator.jobs == []

    plain.breaks = True
    with pytest.raises(LumaRayDeliveryFailed, match="the server hung up"):
        attempt(FRAME, VIDEO)
    assert files(plain) == {"/media/f.jpg", "/media/clips/sub/v.mp4.job.json"}

    plain.breaks = False
    outputs = attempt(FRAME, VIDEO)
    assert outputs["video_path"].endswith("/media/clips/sub/v.mp4")
    assert files(plain) == {"/media/f.jpg", "/media/clips/sub/v.mp4.job.json", "/media/clips/sub/v.mp4"}
    assert plain.cat_file("/media/clips/sub/v.mp4")[4:8] == b"ftyp"
    assert simulator.calls["upload"] >= 1
    assert attempt(FRAME, VIDEO) == outputs
    assert simulator.charges == 1


@pytest.mark.parametrize("verb", ["info", "cat_file"])
def test_no_error_of_a_store_means_absence(
    plain: PlainStore, simulator: Simulator, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    attempt(FRAME, VIDEO)
    original = getattr(plain, verb)

    def fail(path: str, *arguments: Any, **options: Any) -> Any:
        if "v.mp4" in path:
            raise RuntimeError("no answer")
        return original(path, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(plain, verb, fail)
        with pytest.raises(LumaRayRecordError, match="no answer"):
            attempt(FRAME, VIDEO)
    attempt(FRAME, VIDEO)
    assert simulator.charges == 1


@pytest.mark.parametrize("api_version", ["v1", "v2"])
def test_a_worker_without_room_for_temporary_files_loses_no_job_and_asks_no_person(
    plain: PlainStore, simulator: Simulator, monkeypatch: pytest.MonkeyPatch, api_version: str
) -> None:
    """On v1 the file is needed before the paid call, on v2 after it."""
    with monkeypatch.context() as patched:
        patched.setattr("tempfile.tempdir", "/nowhere")
        with pytest.raises(LumaRayError, match="/nowhere") as told:
            attempt(FRAME, VIDEO, api_version=api_version)
    assert bool(told.value.request_id) is (api_version == "v2")
    assert len(simulator.jobs) == (0 if api_version == "v1" else 1)
    attempt(FRAME, VIDEO, api_version=api_version)
    assert simulator.charges == len(simulator.jobs) == 1
