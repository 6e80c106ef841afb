"""A delivered clip, streamed by a real API server: ranges, and permissions."""

from __future__ import annotations

import pytest

from tests.plugins import clips
from tests.plugins.clips import VIDEO
from tests.plugins.conftest import Shown

pytestmark = pytest.mark.airflow
WHOLE = len(VIDEO)


@pytest.fixture(scope="module")
def clip(shown: Shown):
    whose = shown.identity()
    clips.put(shown.path(whose), whose)
    shown.wait(whose, "<video")
    return whose


@pytest.mark.parametrize("encoding", ["gzip, deflate, br", "identity"])
def test_a_browser_gets_the_range_that_it_asks_for_and_never_compressed(
    shown: Shown, clip, encoding: str
) -> None:
    reply = shown.get("anna", clip, "/video", Range="bytes=1000-50999", **{"Accept-Encoding": encoding})
    assert reply.status_code == 206
    assert reply.content == VIDEO[1000:51000]
    assert reply.headers["Content-Range"] == f"bytes 1000-50999/{WHOLE}"
    assert reply.headers["Content-Length"] == "50000"
    assert reply.headers["Content-Encoding"] == "identity"
    assert reply.headers["Content-Type"] == "video/mp4"


@pytest.mark.parametrize(
    ("asked", "status", "part"),
    [
        ("bytes=0-", 206, slice(0, None)),
        ("bytes=-100", 206, slice(-100, None)),
        (f"bytes={WHOLE - 1}-", 206, slice(-1, None)),
        (f"bytes=5-{WHOLE + 1000}", 206, slice(5, None)),
        (f"bytes=-{WHOLE + 1000}", 206, slice(0, None)),
        ("bytes=0-1,5-9", 200, slice(None)),
        ("bytes=9-5", 200, slice(None)),
        ("lines=1-2", 200, slice(None)),
        ("bytes=-", 200, slice(None)),
        (f"bytes={WHOLE}-", 416, slice(0, 0)),
        ("bytes=-0", 416, slice(0, 0)),
    ],
)
def test_a_range_is_answered_as_http_requires(
    shown: Shown, clip, asked: str, status: int, part: slice
) -> None:
    reply = shown.get("anna", clip, "/video", Range=asked)
    assert (reply.status_code, reply.content) == (status, VIDEO[part])


def test_the_whole_video_is_sent_without_a_range_and_not_again_if_unchanged(shown: Shown, clip) -> None:
    first = shown.get("anna", clip, "/video")
    assert (first.status_code, first.content) == (200, VIDEO)
    assert shown.get("anna", clip, "/video", **{"If-None-Match": first.headers["ETag"]}).status_code == 304
    stale = shown.get("anna", clip, "/video", Range="bytes=5-9", **{"If-Range": '"another"'})
    assert (stale.status_code, stale.content) == (200, VIDEO)


def test_what_a_browser_has_kept_is_of_no_use_after_the_sign_out(shown: Shown, clip) -> None:
    assert shown.get("anna", clip).headers["Cache-Control"] == "no-store"
    video = shown.get("anna", clip, "/video")
    assert video.headers["Cache-Control"] == "private, no-cache"
    assert shown.get(None, clip, "/video", **{"If-None-Match": video.headers["ETag"]}).status_code == 401


@pytest.mark.parametrize("part", ["", "/video", "/poster"])
@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize(("user", "status"), [(None, 401), ("nobody", 403), ("of_others", 403)])
def test_users_who_may_not_read_the_dag_cannot_tell_whether_there_is_a_clip(
    shown: Shown, clip, user: str | None, status: int, exists: bool, part: str
) -> None:
    whose = clip if exists else clip.model_copy(update={"dag_id": "no_such_dag"})
    reply = shown.get(user, whose, part)
    assert reply.status_code == status
    assert "clips" not in reply.text
    assert reply.text == shown.get(user, whose.model_copy(update={"run_id": "none"}), part).text


def test_a_dags_own_reader_sees_it_by_cookie_and_by_header(shown: Shown, clip) -> None:
    assert shown.get("of_clips", clip, "/video").content == VIDEO
    with shown.server.session("of_clips", by_cookie=False) as client:
        url = f"{shown.server.url}/luma/{clips.url_of(clip)}"
        assert client.get(f"{url}/video").content == VIDEO
        assert client.get(url, headers={"Authorization": "Bearer nonsense"}).status_code in (401, 403)


@pytest.mark.parametrize("user", [None, "anna", "nobody"])
def test_the_wildcard_for_all_dags_is_refused(shown: Shown, clip, user: str | None) -> None:
    reply = shown.get(user, clip.model_copy(update={"dag_id": "~"}), "/video")
    assert reply.status_code == (401 if user is None else 403)


@pytest.mark.parametrize(
    "path", ["docs", "redoc", "openapi.json", "", "clip", "static/../app.py", "static/app.py"]
)
def test_nothing_else_is_served(shown: Shown, path: str) -> None:
    assert shown.server.get(None, path).status_code in (401, 404)
    assert shown.server.get("anna", path).status_code == 404


@pytest.mark.parametrize("user", [None, "anna"])
@pytest.mark.parametrize("path", ["gallery/", "run/clips/run_1/"])
def test_nobody_is_sent_to_the_host_that_a_request_names(shown: Shown, path: str, user: str | None) -> None:
    reply = shown.server.get(user, path, headers={"Host": "elsewhere.example"}, allow_redirects=False)
    assert (reply.status_code, "Location" in reply.headers) == (404, False)


@pytest.mark.parametrize("name", ["app.js", "app.css"])
def test_even_a_style_sheet_needs_a_sign_in(shown: Shown, name: str) -> None:
    assert shown.server.get(None, f"static/{name}").status_code == 401
    assert shown.server.get("nobody", f"static/{name}").status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_every_route_is_read_only(shown: Shown, clip, method: str) -> None:
    with shown.server.session("anna") as client:
        reply = client.request(method, f"{shown.server.url}/luma/{clips.url_of(clip, '/video')}")
    assert reply.status_code == 405


@pytest.mark.parametrize(
    ("user", "part"), [("anna", ""), ("anna", "/video"), (None, "/video"), ("nobody", "")]
)
def test_every_reply_has_the_headers_that_keep_a_browser_safe(
    shown: Shown, clip, user: str | None, part: str
) -> None:
    headers = shown.get(user, clip, part).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'self'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
