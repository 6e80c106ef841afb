"""Downloading a video: complete, checked, and resumed where it broke."""

from __future__ import annotations

import gzip
import hashlib
import logging
import resource
import shutil
import threading
from collections import Counter, namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from airflow_provider_luma.exceptions import LumaRayDeliveryFailed
from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.media import VideoFile
from airflow_provider_luma.segmind.request import GenerationRequest
from airflow_provider_luma.simulator import Simulator
from tests.hooks.peer import HANG_UP, RESET, Peer, Seen, chunked, http
from tests.support import API_KEY, set_connection

StartPeer = Callable[..., Peer]


@pytest.fixture
def video_url(simulator: Simulator, hook: LumaRayHook, request_: GenerationRequest) -> str:
    """The URL of a finished, paid video."""
    request_id = hook.submit(request_)
    simulator.advance(60)
    url = hook.get_result(request_id).url
    assert url is not None
    return url


def downloads(simulator: Simulator) -> list[dict[str, str]]:
    return [entry.headers for entry in simulator.requests if entry.call == "download"]


def whole(video: VideoFile, path: Path, content: bytes) -> bool:
    return (
        video == VideoFile(path, len(content), hashlib.sha256(content).hexdigest())
        and path.read_bytes() == content
    )


def test_the_video_is_fetched_byte_by_byte(
    simulator: Simulator, hook: LumaRayHook, video_url: str, tmp_path: Path
) -> None:
    content = requests.get(video_url, timeout=5).content
    target = tmp_path / "video.mp4"
    target.write_text("an earlier attempt's rest, which is longer" * 100_000)
    assert whole(hook.download_video(video_url, target), target, content)
    assert simulator.leaks == []


def test_a_broken_download_resumes_where_it_stopped(
    clips: Path, monkeypatch: pytest.MonkeyPatch, request_: GenerationRequest, tmp_path: Path
) -> None:
    with Simulator(
        latency=0, clip_seconds=0.2, api_key=API_KEY, work_dir=clips, video_size=9_000_000
    ) as simulator:
        set_connection(monkeypatch, simulator.url, timeout=5)
        hook = LumaRayHook()
        request_id = hook.submit(request_)
        simulator.advance(60)
        url = str(hook.get_result(request_id).url)
        content = requests.get(url, timeout=5).content
        simulator.fault("download", "truncated", times=2)
        assert whole(hook.download_video(url, tmp_path / "v.mp4"), tmp_path / "v.mp4", content)
        _, first, second, third = downloads(simulator)
    assert "Range" not in first
    begins = [int(headers["Range"].removeprefix("bytes=").removesuffix("-")) for headers in (second, third)]
    assert 4_000_000 <= begins[0] <= 4_500_000
    assert 6_000_000 <= begins[1] <= 6_750_000


@pytest.mark.parametrize(
    ("kind", "status"), [("status", 500), ("status", 503), ("status", 429), ("reset", None)]
)
def test_three_bad_answers_are_survived(
    simulator: Simulator, hook: LumaRayHook, video_url: str, tmp_path: Path, kind: str, status: int | None
) -> None:
    simulator.fault("download", kind, status=status, times=3, accepted=False)
    hook.download_video(video_url, tmp_path / "v.mp4")
    assert len(downloads(simulator)) == 4


@pytest.mark.parametrize(("kind", "status"), [("status", 500), ("reset", None)])
def test_a_download_is_given_up_after_four_tries(
    simulator: Simulator, hook: LumaRayHook, video_url: str, tmp_path: Path, kind: str, status: int | None
) -> None:
    simulator.fault("download", kind, status=status, times=9, accepted=False)
    with pytest.raises(LumaRayDeliveryFailed, match="broke 4 times in a row"):
        hook.download_video(video_url, tmp_path / "v.mp4")
    assert len(downloads(simulator)) == 4


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_a_refusal_is_reported_with_its_status(
    simulator: Simulator, hook: LumaRayHook, video_url: str, tmp_path: Path, status: int
) -> None:
    simulator.fault("download", "status", status=status, times=9)
    with pytest.raises(LumaRayDeliveryFailed) as caught:
        hook.download_video(video_url, tmp_path / "v.mp4")
    assert caught.value.status_code == status
    assert len(downloads(simulator)) == 1


def test_a_file_that_the_vendor_has_deleted_is_a_404(
    simulator: Simulator, hook: LumaRayHook, video_url: str, tmp_path: Path
) -> None:
    simulator.advance(8 * 24 * 3600)
    with pytest.raises(LumaRayDeliveryFailed) as caught:
        hook.download_video(video_url, tmp_path / "v.mp4")
    assert caught.value.status_code == 404


def test_another_content_type_does_not_matter(
    simulator: Simulator, hook: LumaRayHook, video_url: str, tmp_path: Path
) -> None:
    simulator.fault("download", "wrong_content_type")
    hook.download_video(video_url, tmp_path / "v.mp4")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"This is not a video.", id="text"),
        pytest.param(b"<html>Please log in</html>", id="a page"),
        pytest.param(b"\xff\xd8\xff\xe0\0\x10JFIF\0" * 50, id="an image"),
        pytest.param(b"RIFF\0\0\0\0WEBPVP8 ", id="another image"),
        pytest.param(b'{"error": "gone"}', id="an error object"),
        pytest.param(b"\0\0", id="two bytes"),
        pytest.param(b"\0\0\0\x18ftyx", id="almost"),
        pytest.param(b"", id="nothing"),
    ],
)
@pytest.mark.parametrize("length", [-1, None], ids=["with its length", "without"])
def test_a_file_that_is_not_a_video_is_not_delivered(
    hook: LumaRayHook, peer: StartPeer, tmp_path: Path, body: bytes, length: int | None
) -> None:
    host = peer(http(200, body, length=length, Content_Type="video/mp4"))
    with pytest.raises(LumaRayDeliveryFailed):
        hook.download_video(f"{host.url}/v.mp4", tmp_path / "v.mp4")


SAME: dict[str, Any] = {"ETag": '"same"'}


def serve(
    content: bytes, *, ranges: bool = True, told: bool = True, **headers: Any
) -> Callable[[Seen], bytes]:
    """Answer like a file server that ignores If-Range."""
    headers = headers or SAME

    def answer(seen: Seen) -> bytes:
        given = seen.headers.get("range")
        length = -1 if told else None
        if not given or not ranges:
            return http(200, content, length=length, **headers)
        start = int(given.removeprefix("bytes=").removesuffix("-"))
        if start >= len(content):
            return http(416, Content_Range=f"bytes */{len(content)}")
        span = f"bytes {start}-{len(content) - 1}/{len(content) if told else '*'}"
        return http(206, content[start:], length=length, Content_Range=span, **headers)

    return answer


@pytest.mark.parametrize("told", [True, False], ids=["length told", "length not told"])
@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
@pytest.mark.parametrize(
    "first",
    [
        pytest.param(lambda mp4: http(200, mp4[:1_500_000], length=len(mp4), **SAME), id="half of it"),
        pytest.param(lambda mp4: http(200, mp4[:5], length=len(mp4), **SAME), id="five bytes of it"),
        pytest.param(
            lambda mp4: http(200, mp4[:1_500_000], length=None, **SAME), id="half of it, of unknown length"
        ),
        pytest.param(lambda mp4: http(200, mp4[:1_500_000], **SAME), id="half of it, as if whole"),
        pytest.param(
            lambda mp4: chunked(mp4[:1_500_000], mp4[1_500_000:2_000_000], whole=False, **SAME),
            id="two chunks of three",
        ),
        pytest.param(lambda mp4: chunked(mp4[:1_500_000], **SAME), id="one chunk, as if whole"),
        pytest.param(lambda mp4: HANG_UP, id="nothing"),
        pytest.param(lambda mp4: RESET, id="a reset"),
        pytest.param(lambda mp4: http(503), id="503"),
    ],
)
def test_a_broken_download_is_completed(
    hook: LumaRayHook,
    peer: StartPeer,
    tmp_path: Path,
    mp4: bytes,
    first: Callable[[bytes], bytes],
    ranges: bool,
    told: bool,
) -> None:
    host = peer(first(mp4), serve(mp4, ranges=ranges, told=told))
    target = tmp_path / "v.mp4"
    assert whole(hook.download_video(f"{host.url}/v.mp4", target), target, mp4)
    assert len(host.seen) == 2
    assert "range" not in host.seen[0].headers
    if ranges and b"Content-Length: %d" % len(mp4) in (got := first(mp4)) and len(got) > 2**20:
        assert host.seen[1].headers["range"] == "bytes=1500000-", "what came is not fetched again"
        assert host.seen[1].headers["if-range"] == '"same"'


def modified(
    seconds: int, *, date: datetime | None = datetime(2026, 11, 22, 12, tzinfo=UTC)
) -> dict[str, Any]:
    """Return the headers of a file that was changed this many seconds before the reply."""
    moment = datetime(2026, 11, 22, 12, tzinfo=UTC) - timedelta(seconds=seconds)
    headers = {"Last_Modified": format_datetime(moment, usegmt=True)}
    return headers | ({"Date": format_datetime(date, usegmt=True)} if date else {})


def test_an_old_enough_file_is_resumed_by_its_last_modified(
    hook: LumaRayHook, peer: StartPeer, tmp_path: Path, mp4: bytes
) -> None:
    headers = modified(60)
    host = peer(http(200, mp4[:1_500_000], length=len(mp4), **headers), serve(mp4, **headers))
    target = tmp_path / "v.mp4"
    assert whole(hook.download_video(f"{host.url}/v.mp4", target), target, mp4)
    assert host.seen[1].headers["range"] == "bytes=1500000-"
    assert host.seen[1].headers["if-range"] == "Sun, 22 Nov 2026 11:59:00 GMT"


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"ETag": 'W/"weak"'}, id="a weak ETag"),
        pytest.param({"ETag": "unquoted"}, id="an ETag that is none"),
        pytest.param({"ETag": '"half'}, id="half an ETag"),
        pytest.param({"ETag": '"a b"'}, id="an ETag with a space"),
        pytest.param({"ETag": 'W/"weak"'} | modified(3600), id="a weak ETag and an old file"),
        pytest.param(modified(59), id="a file of the last minute"),
        pytest.param(modified(-5), id="a file of the future"),
        pytest.param(modified(3600, date=None), id="no Date"),
        pytest.param({"Last_Modified": "long ago", "Date": "Sun, 22 Nov 2026 12:00:00 GMT"}, id="no time"),
    ],
)
def test_a_file_that_may_have_changed_is_fetched_from_the_beginning(
    hook: LumaRayHook, peer: StartPeer, tmp_path: Path, mp4: bytes, headers: dict[str, Any]
) -> None:
    old = mp4[:100] + bytes([mp4[100] ^ 1]) + mp4[101:]
    host = peer(http(200, old[:1_500_000], length=len(old), **headers), serve(mp4, **headers | {"X_A": "b"}))
    target = tmp_path / "v.mp4"
    assert whole(hook.download_video(f"{host.url}/v.mp4", target), target, mp4)
    assert not any({"range", "if-range"} & set(seen.headers) for seen in host.seen)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param({"ETag": '"old"'}, {"ETag": '"new"'}, id="another ETag"),
        pytest.param({"ETag": '"old"'}, {"ETag": 'W/"old"'}, id="a weak ETag"),
        pytest.param({"ETag": '"old"'}, {"X_A": "b"}, id="no ETag any more"),
        pytest.param({"ETag": '"old"'}, {"ETag": '"old"', "Content_Encoding": "br"}, id="another encoding"),
        pytest.param({"ETag": '"old"'}, modified(3600), id="a time instead of the ETag"),
        pytest.param(modified(3600), modified(1800), id="another time"),
        pytest.param(modified(3600), modified(3600) | {"ETag": '"new"'}, id="an ETag all of a sudden"),
    ],
)
def test_a_server_that_ignores_if_range_sends_no_part_of_another_file(
    hook: LumaRayHook,
    peer: StartPeer,
    tmp_path: Path,
    mp4: bytes,
    before: dict[str, Any],
    after: dict[str, Any],
) -> None:
    old = mp4[:100] + bytes([mp4[100] ^ 1]) + mp4[101:]
    host = peer(http(200, old[:1_500_000], length=len(old), **before), serve(mp4, **after))
    target = tmp_path / "v.mp4"
    assert whole(hook.download_video(f"{host.url}/v.mp4", target), target, mp4)
    assert ["range" in seen.headers for seen in host.seen] == [False, True, False]


def test_an_unrequested_range_is_not_a_video(
    hook: LumaRayHook, peer: StartPeer, tmp_path: Path, mp4: bytes
) -> None:
    part = http(206, mp4, Content_Range=f"bytes 0-{len(mp4) - 1}/{len(mp4)}", **SAME)
    target = tmp_path / "v.mp4"
    host = peer(part, serve(mp4))
    assert whole(hook.download_video(f"{host.url}/v.mp4", target), target, mp4)
    assert len(host.seen) == 2


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(lambda mp4: mp4[:1_500_000], id="half of it"),
        pytest.param(lambda mp4: mp4[:-1], id="all but a byte"),
        pytest.param(lambda mp4: mp4[:6], id="six bytes"),
    ],
)
def test_a_file_shorter_than_its_boxes_is_not_delivered(
    hook: LumaRayHook, peer: StartPeer, tmp_path: Path, mp4: bytes, broken: Callable[[bytes], bytes]
) -> None:
    """Whatever its Content-Length says."""
    host = peer(http(200, broken(mp4), **SAME))
    with pytest.raises(LumaRayDeliveryFailed, match="in the middle of an MP4 box"):
        hook.download_video(f"{host.url}/v.mp4", tmp_path / "v.mp4")
    assert len(host.seen) == 4
    assert not any("range" in seen.headers for seen in host.seen)


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(
            lambda mp4: http(206, mp4[:50], Content_Range=f"bytes 0-49/{len(mp4)}", **SAME),
            id="the wrong range",
        ),
        pytest.param(lambda mp4: http(206, mp4[1_048_576:], **SAME), id="no range named"),
        pytest.param(lambda mp4: http(416), id="416"),
        pytest.param(
            lambda mp4: http(
                206, mp4[1_048_576:2_000_000], Content_Range=f"bytes 1048576-1999999/{len(mp4)}", **SAME
            ),
            id="a part of the rest",
        ),
    ],
)
def test_a_server_that_gets_ranges_wrong_does_no_harm(
    hook: LumaRayHook, peer: StartPeer, tmp_path: Path, mp4: bytes, second: Callable[[bytes], bytes]
) -> None:
    host = peer(http(200, mp4[:1_500_000], length=len(mp4), **SAME), second(mp4), serve(mp4))
    target = tmp_path / "v.mp4"
    assert whole(hook.download_video(f"{host.url}/v.mp4", target), target, mp4)
    assert len(host.seen) == 3


@pytest.mark.parametrize("sign", ["its ETag", "its length"])
def test_parts_of_different_files_are_not_joined(
    hook: LumaRayHook, peer: StartPeer, tmp_path: Path, mp4: bytes, sign: str
) -> None:
    def answer(seen: Seen) -> bytes:
        if sign == "its ETag":
            assert seen.headers.get("if-range") == '"old"'
            return http(200, mp4, ETag='"new"')
        return serve(mp4)(seen)

    old = mp4[:100] + mp4[101:]
    headers = {"ETag": '"old"'} if sign == "its ETag" else SAME
    host = peer(http(200, old[:1_500_000], length=len(old), **headers), answer)
    target = tmp_path / "v.mp4"
    assert whole(hook.download_video(f"{host.url}/v.mp4", target), target, mp4)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(lambda mp4: http(200, mp4[:2_000_000], length=len(mp4)), id="with its length"),
        pytest.param(lambda mp4: http(200, mp4[:2_000_000], length=None), id="without"),
        pytest.param(lambda mp4: http(200, mp4[:20], length=None), id="within the first box"),
        pytest.param(lambda mp4: chunked(mp4[:2_000_000], whole=False), id="in chunks"),
    ],
)
def test_an_incomplete_video_is_not_delivered(
    hook: LumaRayHook, peer: StartPeer, tmp_path: Path, mp4: bytes, answer: Callable[[bytes], bytes]
) -> None:
    host = peer(answer(mp4))
    with pytest.raises(LumaRayDeliveryFailed, match="broke 4 times"):
        hook.download_video(f"{host.url}/v.mp4", tmp_path / "v.mp4")
    assert len(host.seen) == 4


def test_an_unrequested_compression_is_decoded(
    hook: LumaRayHook, peer: StartPeer, tmp_path: Path, mp4: bytes
) -> None:
    host = peer(http(200, gzip.compress(mp4), Content_Encoding="gzip"))
    target = tmp_path / "v.mp4"
    assert whole(hook.download_video(f"{host.url}/v.mp4", target), target, mp4)
    assert host.seen[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed_to_another_host_and_path(
    hook: LumaRayHook, peer: StartPeer, tmp_path: Path, mp4: bytes, status: int
) -> None:
    cdn = peer(
        lambda seen: http(status, Location="final.mp4?x=1") if seen.target == "/a/b" else serve(mp4)(seen)
    )
    host = peer(http(status, Location=f"{cdn.url}/a/b"))
    target = tmp_path / "v.mp4"
    assert whole(hook.download_video(f"{host.url}/v.mp4", target), target, mp4)
    assert [seen.target for seen in cdn.seen] == ["/a/b", "/a/final.mp4?x=1"]
    assert not any("SG_" in seen for seen in host.seen + cdn.seen)


@pytest.mark.parametrize(("hops", "arrives"), [(5, True), (6, False)])
def test_five_redirects_are_enough(
    hook: LumaRayHook, peer: StartPeer, tmp_path: Path, mp4: bytes, hops: int, arrives: bool
) -> None:
    host = peer(*[http(302, Location=f"/{hop}.mp4") for hop in range(hops)], serve(mp4))
    if arrives:
        hook.download_video(f"{host.url}/v.mp4", tmp_path / "v.mp4")
    else:
        with pytest.raises(LumaRayDeliveryFailed, match="redirected more than 5 times"):
            hook.download_video(f"{host.url}/v.mp4", tmp_path / "v.mp4")
    assert len(host.seen) == 6


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "gopher://x/",
        "http:///x",
        "//",
        "http://[::1/x",
        "http://a..b/",
    ],
)
def test_a_redirect_that_leads_nowhere_is_reported(
    hook: LumaRayHook, peer: StartPeer, tmp_path: Path, location: str
) -> None:
    host = peer(http(302, Location=location))
    with pytest.raises(LumaRayDeliveryFailed):
        hook.download_video(f"{host.url}/v.mp4", tmp_path / "v.mp4")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "clip.mp4",
        "/etc/passwd",
        "file:///etc/passwd",
        "ftp://x.example/v.mp4",
        "https://",
        "https:///v.mp4",
        "http://[::1/v.mp4",
        "http://127.0.0.1:99999/v.mp4",
        "http://127.0.0.1:port/v.mp4",
        "http://a..b/v.mp4",
        "http://" + "a" * 64 + ".example/v.mp4",
        "http://a\x00b/v.mp4",
        "http://*.example/v.mp4",
    ],
)
def test_an_invalid_url_is_reported(hook: LumaRayHook, tmp_path: Path, url: str) -> None:
    with pytest.raises(LumaRayDeliveryFailed):
        hook.download_video(url, tmp_path / "v.mp4")


def test_a_download_that_hangs_is_given_up(
    simulator: Simulator, video_url: str, hook: LumaRayHook, tmp_path: Path
) -> None:
    object.__setattr__(hook.settings, "timeout", 0.1)
    simulator.fault("download", "timeout", times=9)
    with pytest.raises(LumaRayDeliveryFailed, match="broke 4 times"):
        hook.download_video(video_url, tmp_path / "v.mp4")


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """Make the disk full at this size."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_reported_at_once(
    hook: LumaRayHook, peer: StartPeer, tmp_path: Path, mp4: bytes
) -> None:
    host = peer(serve(mp4))
    with no_file_larger_than(50_000), pytest.raises(OSError, match="File too large") as caught:
        hook.download_video(f"{host.url}/v.mp4", tmp_path / "v.mp4")
    assert not isinstance(caught.value, requests.RequestException)
    assert len(host.seen) == 1


def test_a_missing_folder_is_reported_before_the_call(
    hook: LumaRayHook, peer: StartPeer, tmp_path: Path
) -> None:
    host = peer(http(200))
    with pytest.raises(FileNotFoundError):
        hook.download_video(f"{host.url}/v.mp4", tmp_path / "missing" / "v.mp4")
    assert host.seen == []


def test_the_info_log_has_no_output_url(
    hook: LumaRayHook,
    peer: StartPeer,
    tmp_path: Path,
    mp4: bytes,
    closed_port: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    host = peer(http(200, mp4[:100], length=len(mp4), **SAME), HANG_UP, http(503), serve(mp4))
    hook.download_video(f"{host.url}/outputs/secret.mp4?token=hidden", tmp_path / "v.mp4")
    with pytest.raises(LumaRayDeliveryFailed) as caught:
        hook.download_video(
            f"http://127.0.0.1:{closed_port}/outputs/secret.mp4?token=hidden", tmp_path / "v.mp4"
        )
    for text in (caplog.text, str(caught.value)):
        assert "hidden" not in text
        assert "secret.mp4" not in text


def box(kind: bytes, length: int) -> bytes:
    """Return a top-level box of an MP4."""
    return length.to_bytes(4, "big") + kind + bytes(length - 8)


CLIP_20_MB = box(b"ftyp", 24) + box(b"moov", 1000) + box(b"mdat", 20_000_000)


def test_a_file_without_an_index_is_not_delivered(hook: LumaRayHook, peer: StartPeer, tmp_path: Path) -> None:
    """Cut between two boxes, with an honest length."""
    host = peer(http(200, box(b"ftyp", 24) + box(b"mdat", 99), **SAME))
    with pytest.raises(LumaRayDeliveryFailed, match="the file has no MP4 index"):
        hook.download_video(f"{host.url}/v.mp4", tmp_path / "v.mp4")
    assert len(host.seen) == 4


def test_a_line_that_cuts_every_900_kb_delivers_a_clip_of_20_mb(
    hook: LumaRayHook, peer: StartPeer, tmp_path: Path
) -> None:
    whole_reply = serve(CLIP_20_MB)

    def cut(seen: Seen) -> bytes:
        return whole_reply(seen)[:900_000]

    host = peer(cut)
    target = tmp_path / "v.mp4"
    assert whole(hook.download_video(f"{host.url}/v.mp4", target), target, CLIP_20_MB)
    begun = [int(seen.headers.get("range", "bytes=0-")[6:-1]) for seen in host.seen]
    assert begun == sorted(begun)
    asked = Counter(byte // 100_000 for start in begun for byte in range(start, start + 900_000, 100_000))
    assert max(asked.values()) <= 2


def test_a_download_without_progress_is_given_up(hook: LumaRayHook, peer: StartPeer, tmp_path: Path) -> None:
    host = peer(http(200, CLIP_20_MB[:1000], length=len(CLIP_20_MB), **SAME), HANG_UP)
    with pytest.raises(LumaRayDeliveryFailed, match="broke 4 times in a row"):
        hook.download_video(f"{host.url}/v.mp4", tmp_path / "v.mp4")
    assert len(host.seen) == 4


def test_a_download_that_trickles_is_given_up_in_time(
    monkeypatch: pytest.MonkeyPatch, peer: StartPeer, tmp_path: Path
) -> None:
    stop = threading.Event()

    def trickle() -> Iterator[bytes]:
        yield http(200, CLIP_20_MB[:100], length=len(CLIP_20_MB), **SAME)
        while not stop.wait(0.02):
            yield b"\0"

    host = peer(trickle())
    set_connection(monkeypatch, host.url, download_timeout=0.3)
    with pytest.raises(LumaRayDeliveryFailed, match=r"given up after 0 s: \d+ of 20001024 bytes") as told:
        LumaRayHook().download_video(f"{host.url}/v.mp4", tmp_path / "v.mp4")
    stop.set()
    assert "raise download_timeout" in str(told.value)
    assert len(host.seen) == 1


@pytest.mark.parametrize("length", [-1, None], ids=["with its length", "without end"])
def test_a_body_too_large_for_a_clip_is_not_stored(
    monkeypatch: pytest.MonkeyPatch, peer: StartPeer, tmp_path: Path, length: int | None
) -> None:
    host = peer(http(200, CLIP_20_MB, length=length, **SAME))
    set_connection(monkeypatch, host.url, max_video_mb=3)
    target = tmp_path / "v.mp4"
    with pytest.raises(LumaRayDeliveryFailed, match="exceeds the limit of 3 MB") as told:
        LumaRayHook().download_video(f"{host.url}/v.mp4", target)
    assert "raise max_video_mb" in str(told.value)
    assert target.stat().st_size <= 3_000_000
    assert len(host.seen) == 1


def test_a_disk_too_small_is_reported_before_it_is_full(
    hook: LumaRayHook, peer: StartPeer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 5, 5))
    host = peer(serve(CLIP_20_MB))
    target = tmp_path / "v.mp4"
    with pytest.raises(OSError, match="20001024 bytes, but only 5 are free"):
        hook.download_video(f"{host.url}/v.mp4", target)
    assert target.stat().st_size == 0


def test_a_missing_certificate_bundle_is_reported_as_such(
    hook: LumaRayHook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/bundle.pem")
    with pytest.raises(LumaRayDeliveryFailed, match=r"cannot be reached: OSError: .*bundle\.pem"):
        hook.download_video("https://127.0.0.1:9/v.mp4", tmp_path / "v.mp4")


def test_a_private_host_may_be_allowed(
    monkeypatch: pytest.MonkeyPatch, peer: StartPeer, tmp_path: Path, mp4: bytes
) -> None:
    """As when a proxy resolves it; the connection's own host is public."""
    host = peer(serve(mp4))
    target = tmp_path / "v.mp4"
    set_connection(monkeypatch, "https://192.0.2.1.example")
    with pytest.raises(LumaRayDeliveryFailed, match="a private address") as told:
        LumaRayHook().download_video(f"{host.url}/v.mp4", target)
    assert "set allow_private_outputs to true" in str(told.value)
    assert host.seen == []
    set_connection(monkeypatch, "https://192.0.2.1.example", allow_private_outputs=True)
    assert whole(LumaRayHook().download_video(f"{host.url}/v.mp4", target), target, mp4)


def test_the_next_call_resumes_where_the_last_one_stopped(
    hook: LumaRayHook, peer: StartPeer, tmp_path: Path, mp4: bytes
) -> None:
    host = peer(http(200, mp4[:1_500_000], length=len(mp4), **SAME), HANG_UP, HANG_UP, HANG_UP, serve(mp4))
    url, rest = f"{host.url}/v.mp4", tmp_path / ".rest"
    with pytest.raises(LumaRayDeliveryFailed, match="broke 4 times"):
        hook.download_video(url, tmp_path / "one", rest)
    target = tmp_path / "two"
    assert whole(hook.download_video(url, target, rest), target, mp4)
    assert host.seen[-1].headers["range"] == "bytes=1500000-"
    assert not rest.exists()


@pytest.mark.parametrize("change", ["the URL", "the file", "a byte", "the trailer", "all of it"])
def test_without_a_matching_checkpoint_everything_is_fetched(
    hook: LumaRayHook, peer: StartPeer, tmp_path: Path, mp4: bytes, change: str
) -> None:
    other = mp4[:-1] + b"x"
    now = serve(other, ETag='"other"') if change == "the file" else serve(mp4)
    host = peer(http(200, mp4[:1_500_000], length=len(mp4), **SAME), HANG_UP, HANG_UP, HANG_UP, now)
    url, rest, target = f"{host.url}/v.mp4", tmp_path / ".rest", tmp_path / "v.mp4"
    with pytest.raises(LumaRayDeliveryFailed):
        hook.download_video(url, tmp_path / "one", rest)
    left = rest.read_bytes()
    if change == "the URL":
        url += "?2"
    elif change != "the file":
        cuts = {"a byte": left[:99] + b"?" + left[100:], "the trailer": left[:-3], "all of it": b""}
        rest.write_bytes(cuts[change])
    content = other if change == "the file" else mp4
    assert whole(hook.download_video(url, target, rest), target, content)


def test_a_file_that_is_not_a_video_leaves_no_checkpoint(
    hook: LumaRayHook, peer: StartPeer, tmp_path: Path
) -> None:
    host = peer(http(200, b"This is not a video.", **SAME))
    for _ in range(2):
        with pytest.raises(LumaRayDeliveryFailed, match="not an MP4"):
            hook.download_video(f"{host.url}/v.mp4", tmp_path / "v.mp4", tmp_path / ".rest")
    assert "range" not in host.seen[1].headers
