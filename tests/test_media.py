"""Frames and videos: what may be sent, and what counts as a video."""

from __future__ import annotations

import base64
import hashlib
import io
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]
import pytest
from airflow.sdk.io import attach
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from airflow_provider_luma.exceptions import LumaRayConfigurationError, LumaRayDeliveryFailed
from airflow_provider_luma.media import (
    MAX_FRAME_BYTES,
    Frame,
    VideoSink,
    is_mp4_head,
    read_frame,
    send_frame,
    unsigned,
)
from airflow_provider_luma.segmind.models import model_info
from airflow_provider_luma.storage import LocalFile, open_file

MODEL = model_info("luma-ray-img-2-video")


def image(kind: str) -> bytes:
    target = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(target, kind)
    return target.getvalue()


@pytest.mark.parametrize(
    ("content", "mime"),
    [
        *((image(kind), f"image/{kind.lower()}") for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")),
        (b"MM\0*" + b"\0" * 20, "image/tiff"),
        (b"\0\0\0\x18ftypheic" + b"\0" * 20, "image/heic"),
        (b"\0\0\0\x18ftypheix" + b"\0" * 20, "image/heic"),
        (b"\0\0\0\x18ftypmif1" + b"\0" * 20, "image/heif"),
        (b"\0\0\0\x18ftypavif" + b"\0" * 20, "image/avif"),
        (b"\0\0\0\x18ftypavis" + b"\0" * 20, "image/avif"),
    ],
)
def test_a_frame_is_recognized_by_its_first_bytes(tmp_path: Path, content: bytes, mime: str) -> None:
    path = tmp_path / "frame.dat"
    path.write_bytes(content)
    frame = read_frame(str(path))
    assert frame == Frame(
        source=str(path),
        identity=f"sha256:{hashlib.sha256(content).hexdigest()}",
        file=LocalFile(path),
        mime=mime,
        content=content,
    )
    path.write_bytes(b"replaced meanwhile")
    assert frame.data_url == f"data:{mime};base64,{base64.b64encode(content).decode()}", (
        "sent as it was checked"
    )


def test_a_text_that_begins_like_a_bitmap_is_not_one(tmp_path: Path) -> None:
    (tmp_path / "frame.txt").write_bytes(b"BMW is a maker of cars")
    with pytest.raises(LumaRayConfigurationError, match="is not an image"):
        read_frame(str(tmp_path / "frame.txt"))


def test_a_frame_is_the_same_wherever_it_is(tmp_path: Path) -> None:
    for name in ("a.png", "b.jpg"):
        (tmp_path / name).write_bytes(image("PNG"))
    one, other = read_frame(str(tmp_path / "a.png")), read_frame(f"file://{tmp_path}/b.jpg")
    assert one.identity == other.identity
    assert one.source != other.source


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        pytest.param(lambda path: None, "does not exist", id="missing"),
        pytest.param(lambda path: path.mkdir(), "is a directory", id="a directory"),
        pytest.param(lambda path: path.write_bytes(b""), "is empty", id="empty"),
        pytest.param(lambda path: path.write_text("This is text."), "is not an image", id="text"),
        pytest.param(lambda path: path.write_bytes(b"\xff"), "is not an image", id="one byte"),
        pytest.param(lambda path: path.write_bytes(b"%PDF-1.7"), "is not an image", id="a PDF"),
        pytest.param(lambda path: path.write_bytes(b"\0\0\0\x18ftypisom"), "is not an image", id="a video"),
        pytest.param(lambda path: path.write_text("<svg/>"), "is not an image", id="SVG"),
        pytest.param(
            lambda path: path.write_bytes(b"\xff\xd8\xff" + b"\0" * (MAX_FRAME_BYTES - 2)),
            "is larger than 20 MB",
            id="a byte too large",
        ),
        pytest.param(lambda path: path.symlink_to(path), "cannot be read", id="a link to itself"),
    ],
)
def test_a_bad_frame_is_reported_with_what_is_right(tmp_path: Path, make: Any, problem: str) -> None:
    path = tmp_path / "frame.jpg"
    make(path)
    with pytest.raises(LumaRayConfigurationError, match=problem) as caught:
        read_frame(str(path))
    assert f"'{path}'" in str(caught.value)
    assert str(caught.value).endswith("This attempt bought nothing.")


@pytest.mark.parametrize(
    "name", ["frame #1.jpg", "what?.jpg", "a&b=c.jpg", "100% @home.jpg", "caf\u00e9.jpg"]
)
def test_a_bad_frame_is_quoted_as_given(tmp_path: Path, name: str) -> None:
    with pytest.raises(LumaRayConfigurationError) as caught:
        read_frame(str(tmp_path / name))
    assert f"'{tmp_path / name}'" in str(caught.value)


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "/dev/null/frame.jpg",
        "/" + "x" * 300 + ".jpg",
        "/tmp/a\x00b.jpg",
        "~nosuchuser/frame.jpg",
        "nosuchscheme://bucket/frame.jpg",
        "ftp://bucket/frame.jpg",
        "s3://[half/frame.jpg",
        "http://[::1/frame.jpg",
        "https://",
        "https:///frame.jpg",
    ],
)
def test_an_invalid_frame_is_reported(frame: str) -> None:
    with pytest.raises(LumaRayConfigurationError, match="This attempt bought nothing"):
        read_frame(frame)


def test_the_largest_frame_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "frame.jpg"
    path.write_bytes(b"\xff\xd8\xff" + b"\0" * (MAX_FRAME_BYTES - 3))
    assert read_frame(str(path)).mime == "image/jpeg"


SIGNED = {
    "S3": (
        "https://b.s3.amazonaws.com/f.jpg?versionId=3&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIA%2Fs3"
        "&X-Amz-Date=20261122T100000Z&X-Amz-Expires=900&X-Amz-SignedHeaders=host&X-Amz-Signature=abc"
        "&X-Amz-Security-Token=xyz&x-id=GetObject",
        "https://b.s3.amazonaws.com/f.jpg?versionId=3&x-id=GetObject",
    ),
    "S3, version 2": (
        "https://b.s3.amazonaws.com/f.jpg?AWSAccessKeyId=AKIA&Signature=abc%3D&Expires=1795341600",
        "https://b.s3.amazonaws.com/f.jpg",
    ),
    "GCS": (
        "https://storage.googleapis.com/b/f.jpg?X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential=c&X-Goog-Date=d"
        "&X-Goog-Expires=9&X-Goog-SignedHeaders=host&X-Goog-Signature=abc&generation=7",
        "https://storage.googleapis.com/b/f.jpg?generation=7",
    ),
    "GCS, version 2": (
        "https://storage.googleapis.com/b/f.jpg?GoogleAccessId=me@x.iam&Expires=1&Signature=abc",
        "https://storage.googleapis.com/b/f.jpg",
    ),
    "Azure": (
        "https://a.blob.core.windows.net/c/f.jpg?sp=r&st=2026-11-22T10:00:00Z&se=2026-11-22T18:00:00Z&spr=https"
        "&sv=2024-11-04&sr=b&sig=abc%3D&snapshot=1",
        "https://a.blob.core.windows.net/c/f.jpg?snapshot=1",
    ),
    "Azure, for a user": (
        "https://a.blob.core.windows.net/c/f.jpg?skoid=1&sktid=2&skt=3&ske=4&sks=b&skv=5&sv=6&sr=b&sp=r&se=7&sig=x",
        "https://a.blob.core.windows.net/c/f.jpg",
    ),
    "CloudFront": (
        "https://d1.cloudfront.net/f.jpg?Expires=1&Signature=abc&Key-Pair-Id=K1&Policy=p&w=640",
        "https://d1.cloudfront.net/f.jpg?w=640",
    ),
    "a token, which may be part of the address": (
        "https://x.example/f.jpg?token=secret&size=l",
        "https://x.example/f.jpg?token=sha256-2bb80d537b1da3e3&size=l",
    ),
    "user information": ("https://me:secret@x.example:8443/f.jpg", "https://x.example:8443/f.jpg"),
    "a fragment": ("https://x.example/f.jpg#top", "https://x.example/f.jpg"),
    "nothing to strip": ("https://x.example/f%20g.jpg?a=1&b=&a=2", "https://x.example/f%20g.jpg?a=1&b=&a=2"),
}


@pytest.mark.parametrize(("url", "plain"), SIGNED.values(), ids=SIGNED)
def test_a_url_is_identified_without_its_signature_and_sent_with_it(url: str, plain: str) -> None:
    assert unsigned(url) == plain
    frame = read_frame(url)
    assert (frame.source, frame.identity, frame.url) == (plain, plain, url)
    assert url not in repr(frame) or url == plain
    assert send_frame(frame, "auto", MODEL, _no_upload, _reached) == (url, False)
    assert send_frame(frame, "url", MODEL, _no_upload, _reached) == (url, False)


@pytest.mark.parametrize(
    "url", ["https://x.example/f.jpg?signatures=1&spx=2&policyid=3&xamz-a=4", "https://x.example/?q=sig"]
)
def test_a_parameter_that_only_looks_like_a_signature_is_kept(url: str) -> None:
    assert unsigned(url) == url


def test_stripping_twice_changes_nothing() -> None:
    for url, _ in SIGNED.values():
        assert unsigned(unsigned(url)) == unsigned(url)


def _no_upload(path: Any) -> str:
    raise AssertionError("nothing is to be uploaded")


def _reached(url: str) -> bool:
    return True


def _frame(tmp_path: Path) -> Frame:
    path = tmp_path / "frame.png"
    path.write_bytes(image("PNG"))
    return read_frame(str(path))


@pytest.mark.parametrize("transfer", ["auto", "upload"])
def test_a_file_is_uploaded(tmp_path: Path, transfer: str) -> None:
    uploaded = []

    def upload(path: Any) -> str:
        uploaded.append(path)
        return "https://images.segmind.com/assets/x.png"

    frame = _frame(tmp_path)
    assert send_frame(frame, transfer, MODEL, upload, _reached) == (
        "https://images.segmind.com/assets/x.png",
        True,
    )
    assert uploaded == [frame]


def test_a_file_is_sent_inline_as_bare_base64(tmp_path: Path) -> None:
    frame = _frame(tmp_path)
    inline = base64.b64encode(image("PNG")).decode()
    assert send_frame(frame, "base64", MODEL, _no_upload, _reached) == (inline, False)


@pytest.mark.parametrize(
    ("frame", "transfer", "model", "problem"),
    [
        ("url", "upload", MODEL, "is for files"),
        ("url", "base64", MODEL, "is for files"),
        ("file", "url", MODEL, "its store signs no URL for it"),
        ("file", "base64", model_info("luma-ray-3-2"), "does not work with luma-ray-3-2"),
        ("file", "base64", model_info("ray-flash-2-720p"), "does not work with ray-flash-2-720p"),
        ("gone", "auto", MODEL, "no longer exists"),
    ],
)
def test_an_impossible_transfer_is_reported(
    tmp_path: Path, frame: str, transfer: str, model: Any, problem: str
) -> None:
    given = {
        "url": lambda: read_frame("https://me:secret@x.example/f.jpg?token=secret"),
        "file": lambda: _frame(tmp_path),
        "gone": lambda: Frame(source="/tmp/frame.png", identity="sha256:0"),
    }[frame]()
    with pytest.raises(LumaRayConfigurationError, match=problem) as caught:
        send_frame(given, transfer, model, _no_upload, _reached)
    assert "secret" not in str(caught.value)
    assert "This attempt bought nothing" in str(caught.value)


FTYP = b"\0\0\0\x10ftypisom\0\0\2\0"


@pytest.mark.parametrize(
    ("head", "yes"),
    [
        (FTYP, True),
        (FTYP[:8], True),
        (b"\0\0\0\x20ftyp", True),
        (FTYP[:7], False),
        (b"ftypisom", False),
        (b"", False),
        (b"\xff\xd8\xff\xe0\0\x10JF", False),
        (b"\0\0\0\x08moov", False),
    ],
)
def test_an_mp4_is_recognized_by_its_first_box(head: bytes, yes: bool) -> None:
    assert is_mp4_head(head) is yes


@settings(deadline=None)
@given(st.lists(st.binary(max_size=12), max_size=6))
def test_a_sink_writes_pieces_of_any_size(pieces: list[bytes]) -> None:
    content = FTYP + b"".join(pieces)
    file = io.BytesIO(b"an earlier attempt's rest")
    sink = VideoSink(file, 1)
    for at in range(len(FTYP)):
        sink.write(FTYP[at : at + 1])
    for piece in pieces:
        sink.write(piece)
    video = sink.finish(Path("v.mp4"))
    assert file.getvalue() == content
    assert (video.size, video.sha256) == (len(content), hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize(
    "pieces", [[b"This is text."], [b"T"] * 8, [b"\0\0\0\x18", b"mdat"], [b"\0\0\0\x18ft", b"yx"]]
)
def test_a_sink_refuses_other_files_at_their_first_bytes(pieces: list[bytes]) -> None:
    sink = VideoSink(io.BytesIO(), 1)
    for piece in pieces[:-1]:
        sink.write(piece)
    with pytest.raises(LumaRayDeliveryFailed, match="not an MP4"):
        sink.write(pieces[-1])


@pytest.mark.parametrize("content", [b"", b"\0\0\0\x18", b"\0\0\0\x18fty"])
def test_a_sink_does_not_finish_what_ended_too_soon(content: bytes) -> None:
    sink = VideoSink(io.BytesIO(), 1)
    sink.write(content)
    with pytest.raises(LumaRayDeliveryFailed, match="not an MP4"):
        sink.finish(Path("v.mp4"))


def test_a_restarted_sink_forgets_everything() -> None:
    file = io.BytesIO()
    sink = VideoSink(file, 1)
    sink.write(FTYP + b"rest of a broken download")
    sink.restart()
    assert (sink.size, file.getvalue()) == (0, b"")
    sink.write(FTYP)
    assert sink.finish(Path("v.mp4")).sha256 == hashlib.sha256(FTYP).hexdigest()
    sink.restart()
    with pytest.raises(LumaRayDeliveryFailed):
        sink.write(b"not a video")


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_nothing_is_left_next_to_the_target(tmp_path: Path, error: type[BaseException] | None) -> None:
    target = tmp_path / "sub" / "video.mp4"

    def fill() -> Path:
        with LocalFile(target).staged("tag") as part:
            part.write_bytes(b"half")
            if error:
                raise error
        return part

    if error:
        with pytest.raises(error):
            fill()
    else:
        assert fill().parent == target.parent
    assert list(target.parent.iterdir()) == []


def test_a_file_moved_away_stays(tmp_path: Path) -> None:
    with LocalFile(tmp_path / "video.mp4").staged("tag") as part:
        part.write_bytes(b"whole")
        part.rename(tmp_path / "video.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["video.mp4"]


def test_each_attempt_has_its_own_staging_file(tmp_path: Path) -> None:
    def place(tag: str) -> Path:
        with LocalFile(tmp_path / "v.mp4").staged(tag) as part:
            return part

    assert place("a") == place("a")
    assert place("a") != place("b")


def test_leftovers_of_a_killed_attempt_are_overwritten(tmp_path: Path) -> None:
    with LocalFile(tmp_path / "v.mp4").staged("tag") as part:
        left = part
    left.write_bytes(b"left by a killed attempt")
    with LocalFile(tmp_path / "v.mp4").staged("tag") as part:
        part.write_bytes(b"new")
        assert part.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["v" * 230 + ".mp4", "\u30d3" * 76 + ".mp4", "\u00e9" * 117 + ".mp4"])
def test_a_name_of_maximum_length_can_be_staged(tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    target.touch()
    with LocalFile(target).staged("0123456789abcdef") as part:
        part.write_bytes(b"whole")


def test_a_frame_in_an_object_store_is_read_from_there() -> None:
    store = fsspec.filesystem("memory")
    attach("memory", conn_id="luma_ray_test", fs=store)
    store.pipe_file("/frames/f.png", image("PNG"))
    frame = read_frame("memory://luma_ray_test@frames/f.png")
    assert frame.mime == "image/png"
    assert frame.read() == image("PNG")
    assert frame.data_url.startswith("data:image/png;base64,")
    for missing in ("memory://luma_ray_test@frames/g.png", "memory://luma_ray_test@frames"):
        with pytest.raises(LumaRayConfigurationError, match="This attempt bought nothing"):
            read_frame(missing)
    store.store.clear()


def test_a_target_in_an_object_store_is_staged_in_its_own_folder() -> None:
    attach("memory", conn_id="luma_ray_test", fs=fsspec.filesystem("memory"))
    target = open_file("memory://luma_ray_test@bucket/video.mp4")
    with target.staged("tag") as part:
        part.write_bytes(b"half")
        assert part.parent.is_dir()
    assert not part.parent.exists()
