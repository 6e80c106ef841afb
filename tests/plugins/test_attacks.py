"""Forged records and files, made to see other DAGs' clips: none of it is shown."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from airflow_provider_luma.jobs.ledger import SUFFIX
from airflow_provider_luma.jobs.record import Identity, RecordState
from airflow_provider_luma.plugins import folders
from tests.plugins import clips
from tests.plugins.clips import VIDEO
from tests.plugins.conftest import Shown

pytestmark = pytest.mark.airflow
SECRET = VIDEO[:16] + b"another DAG's clip"
HTML = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'"


@pytest.fixture(scope="module")
def secret(shown: Shown) -> Path:
    """A delivered clip of another DAG."""
    whose = shown.identity("others", task_id="secret")
    clips.put(shown.path(whose), whose, video=SECRET)
    return shown.path(whose)


def _elsewhere(clip: Path, whose: Identity, secret: Path) -> None:
    clips.put(clip, whose, video=None, output_path=str(secret), bytes=len(SECRET))


def _etc_passwd(clip: Path, whose: Identity, secret: Path) -> None:
    clips.put(clip, whose, video=None, output_path="/etc/passwd", bytes=os.stat("/etc/passwd").st_size)


def _dots(clip: Path, whose: Identity, secret: Path) -> None:
    path = f"{clip.parent}/../{clip.parent.name}/{clip.name}"
    clips.put(clip, whose, output_path=path)


def _url(clip: Path, whose: Identity, secret: Path) -> None:
    clips.put(clip, whose, output_path=f"http://127.0.0.1{clip}")


def _local_by_fsspec(clip: Path, whose: Identity, secret: Path) -> None:
    clips.put(clip, whose, output_path=f"local://{clip}")


def _link(clip: Path, whose: Identity, secret: Path) -> None:
    clips.put(clip, whose, video=SECRET)
    clip.unlink()
    clip.symlink_to(secret)


def _linked_folder(clip: Path, whose: Identity, secret: Path) -> None:
    there = clip.parent.parent / f"{clip.parent.name}-{clip.stem}"
    there.symlink_to(secret.parent)
    clips.put(there / clip.name, whose, video=SECRET)


def _linked_record(clip: Path, whose: Identity, secret: Path) -> None:
    clips.put(clip, whose)
    beside = clip.with_name(clip.name + SUFFIX)
    beside.rename(clip.with_suffix(".elsewhere"))
    beside.symlink_to(clip.with_suffix(".elsewhere"))


def _pipe(clip: Path, whose: Identity, secret: Path) -> None:
    clips.put(clip, whose)
    clip.unlink()
    os.mkfifo(clip)


def _no_video(clip: Path, whose: Identity, secret: Path) -> None:
    clips.put(clip, whose, video=b"<html><script>alert(1)</script></html>")


def _other_size(clip: Path, whose: Identity, secret: Path) -> None:
    clips.put(clip, whose, bytes=5)


def _not_delivered(clip: Path, whose: Identity, secret: Path) -> None:
    clips.put(clip, whose, state=RecordState.SUBMITTED)


def _taken_over(clip: Path, whose: Identity, secret: Path) -> None:
    """The path now belongs to another DAG, and so does its video."""
    mine = clips.record(clip, whose, claim="mine")
    clips.put(clip, whose.model_copy(update={"dag_id": "others"}), video=SECRET, superseded=(mine,))


def _no_record(clip: Path, whose: Identity, secret: Path) -> None:
    clips.put(clip, whose)
    clip.with_name(clip.name + SUFFIX).write_text('{"schema_version": 1')


def _huge_record(clip: Path, whose: Identity, secret: Path) -> None:
    clips.put(clip, whose, error="x" * (1024 * 1024))


ATTACKS: list[Callable[[Path, Identity, Path], None]] = [
    _elsewhere,
    _etc_passwd,
    _dots,
    _url,
    _local_by_fsspec,
    _link,
    _linked_folder,
    _linked_record,
    _pipe,
    _no_video,
    _other_size,
    _not_delivered,
    _taken_over,
    _no_record,
    _huge_record,
]


@pytest.fixture(scope="module")
def attacked(shown: Shown, secret: Path) -> dict[str, Identity]:
    """Return the task instances of all attacks, once the server has listed them."""
    made = {}
    for attack in ATTACKS:
        whose = shown.identity(task_id=attack.__name__.strip("_"))
        shown.path(whose).parent.mkdir(parents=True, exist_ok=True)
        attack(shown.path(whose), whose, secret)
        made[attack.__name__] = whose
    seen = shown.identity(task_id="zz_last")
    clips.put(shown.path(seen), seen)
    shown.wait(seen, "<video")
    return made


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__.strip("_"))
def test_files_not_on_record_are_not_served(
    shown: Shown, attacked: dict[str, Identity], attack: Callable[..., None]
) -> None:
    whose = attacked[attack.__name__]
    reply = shown.get("of_clips", whose, "/video")
    assert reply.status_code == 404
    assert b"another DAG" not in reply.content
    page = shown.get("of_clips", whose)
    assert page.status_code == 200
    assert "<video" not in page.text
    assert "others" not in page.text
    assert "secret" not in page.text


def test_what_people_and_the_vendor_wrote_is_shown_as_text(shown: Shown) -> None:
    whose = shown.identity(task_id="html")
    clips.put(
        shown.path(whose),
        whose,
        state=RecordState.FAILED,
        parameters={"prompt": HTML, HTML: HTML, "loop": False},
        model=HTML,
        error=f"{HTML} https://images.segmind.com/outputs/1.mp4",
        request_id=HTML,
        generation_tag=HTML,
        start_frame=f"https://host/{HTML}",
        completed_at=HTML,
    )
    page = shown.wait(whose, "alert(1)")
    assert "<script>alert" not in page
    assert "<img" not in page
    assert page.count("<script") == 1


def test_no_url_of_the_vendors_is_on_a_page(shown: Shown) -> None:
    whose = shown.identity(task_id="addresses")
    clips.put(
        shown.path(whose),
        whose,
        error="see https://images.segmind.com/outputs/1.mp4",
        start_frame="https://images.segmind.com/assets/frame.jpg?token=1",
        parameters={"prompt": "p", "end_frame": "https://images.segmind.com/assets/end.jpg"},
    )
    assert "segmind.com" not in shown.wait(whose, "<video")


IMAGE = b"\xff\xd8\xff\xe0 a photo of another DAG's"
POSTERS = {
    "its_own": (IMAGE, "sha256", 200),
    "another_picture": (IMAGE, "sha256:" + "0" * 64, 404),
    "by_its_times": (IMAGE, "times", 404),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>", "sha256", 404),
    "html": (b"<html>", "sha256", 404),
    "outside": (IMAGE, "sha256", 404),
    "linked": (IMAGE, "sha256", 404),
}


@pytest.fixture(scope="module")
def posters(shown: Shown, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Identity]:
    outside = tmp_path_factory.mktemp("outside")
    made = {}
    for name, (content, known, _) in POSTERS.items():
        whose = shown.identity(task_id=f"poster_{name}")
        frame = shown.path(whose).with_suffix(".jpg")
        frame.parent.mkdir(parents=True, exist_ok=True)
        if name in ("outside", "linked"):
            frame = outside / f"{name}.jpg"
        frame.write_bytes(content)
        source = frame
        if name == "linked":
            source = shown.path(whose).with_suffix(".jpg")
            source.symlink_to(frame)
        seen = frame.stat()
        digest = {
            "sha256": f"sha256:{hashlib.sha256(content).hexdigest()}",
            "times": f"{seen.st_mtime_ns}-{seen.st_size}-{seen.st_ino}",
        }.get(known, known)
        clips.put(shown.path(whose), whose, start_frame=str(source), frame_identity=digest)
        made[name] = whose
    shown.wait(made["linked"], "<video")
    return made


@pytest.mark.parametrize("name", POSTERS)
def test_a_start_frame_is_shown_only_if_it_is_the_picture_that_was_sent(
    shown: Shown, posters: dict[str, Identity], name: str
) -> None:
    reply = shown.get("anna", posters[name], "/poster")
    assert reply.status_code == POSTERS[name][2]
    assert ('poster="' in shown.get("anna", posters[name]).text) == (reply.status_code == 200)
    if reply.ok:
        assert (reply.content, reply.headers["Content-Type"]) == (IMAGE, "image/jpeg")


@pytest.mark.parametrize(
    "path",
    [
        "clip/clips/../../etc/passwd/video",
        "clip/clips/%2e%2e/%2e%2e/%2e%2e/video",
        "clip/clips/..%2f..%2fetc/passwd/0/video",
        "clip/clips/run/task/../video",
        "clip/clips/run/task/-2/video",
        "clip/clips/run/task/0x1/video",
        "clip/clips/run/task/١/video",
        "clip/clips/run/task/99999999999999999999/video",
        "clip/clips/run%00/task/0/video",
        "clip/clips//etc/passwd/video",
        "static/..%2fapp.py",
        "static/%2e%2e/app.py",
    ],
)
def test_no_path_of_a_request_is_ever_opened(shown: Shown, path: str) -> None:
    with shown.server.session("anna") as client:
        url = f"{shown.server.url}/luma/{path}"
        asked = client.prepare_request(requests.Request("GET", url))
        asked.url = url  # as it is, dots and all
        assert client.send(asked, timeout=30).status_code in (401, 403, 404)


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "a//b", "./a", "", "a\0b", ".."])
def test_a_folder_opens_nothing_that_is_not_in_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "x").write_bytes(b"outside")
    (tmp_path / "root" / "a").mkdir(parents=True)
    folder = folders._folder(str(tmp_path / "root"))
    assert folder is not None
    with pytest.raises(OSError, match="not the name of a file"):
        folder.open(name)
