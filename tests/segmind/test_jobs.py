"""The answers to a poll: which end a wait and which never do; and the video's URL."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings

from airflow_provider_luma.exceptions import (
    LumaRayAuthenticationError,
    LumaRayRateLimited,
    LumaRayUnavailable,
)
from airflow_provider_luma.segmind.replies import (
    JobResult,
    JobStatus,
    Reply,
    VendorStatus,
    parse_result,
    parse_status,
)
from tests.segmind.replies import ASSET_URL, HOSTILE, KEY, REQUEST_ID, VIDEO_URL, anyhow, outcome, reply

NO_STATES: list[object] = ["CANCELLED", "completed", "", None, 1, True, [], {}]
METRICS = {
    "inference_time": 61.5,
    "queue_time": 2.0,
    "total_time": 63.5,
    "cost": 1.6,
    "remaining_credits": 10.5,
}
COMPLETED = {"status": "COMPLETED", "request_id": REQUEST_ID, "metrics": METRICS}
FAILED = {"status": "FAILED", "request_id": REQUEST_ID, "error": "The frame cannot be fetched", "metrics": {}}
RESULT = {
    "status": "COMPLETED",
    "output": VIDEO_URL,
    "video": {"url": VIDEO_URL, "content_type": "video/mp4", "file_name": "clip.mp4", "file_size": 123},
    "metrics": METRICS,
    "seed": 7,
    "error": None,
}


OTHER_IDS: list[object] = [[REQUEST_ID], {}, "", " ", 7, True, REQUEST_ID[:-1], REQUEST_ID + "0"]


def without(body: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in names}


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (reply({"status": "QUEUED", "request_id": REQUEST_ID, "metrics": {}}), VendorStatus.QUEUED),
        (reply({"status": "PROCESSING", "request_id": REQUEST_ID, "metrics": {}}), VendorStatus.PROCESSING),
        (reply({"status": "PROCESSING"}), VendorStatus.PROCESSING),
        (reply(COMPLETED), VendorStatus.COMPLETED),
        (reply(without(COMPLETED, "metrics", "request_id")), VendorStatus.COMPLETED),
        (reply(COMPLETED | {"request_id": None}), VendorStatus.COMPLETED),
        (reply(FAILED, 422), VendorStatus.FAILED),
        (reply(FAILED, 200), VendorStatus.FAILED),
        # a terminal state that names the job outranks the code
        *(
            (reply(COMPLETED, status), VendorStatus.COMPLETED)
            for status in (201, 401, 404, 422, 429, 500, 502, 504)
        ),
        *((reply(FAILED, status), VendorStatus.FAILED) for status in (400, 401, 404, 429, 500, 502, 504)),
        (reply(FAILED, 503), VendorStatus.FAILED),
        # one that names no job is the vendor's only under the vendor's own codes
        *((reply(without(COMPLETED, "request_id"), status), VendorStatus.COMPLETED) for status in (200, 422)),
        *((reply(without(FAILED, "request_id"), status), VendorStatus.FAILED) for status in (200, 422)),
        *(
            (reply(without(body, "request_id"), status), VendorStatus.UNKNOWN)
            for body in (COMPLETED, FAILED)
            for status in (201, 302, 400, 402, 408, 410, 500, 502, 503, 504, 524)
        ),
        *((reply(without(body, "request_id"), 404), VendorStatus.NOT_FOUND) for body in (COMPLETED, FAILED)),
        # the job's id in another spelling
        *(
            (reply(body | {"request_id": spelt}, status), VendorStatus(str(body["status"])))
            for body, status in ((COMPLETED, 200), (FAILED, 422), (FAILED, 502))
            for spelt in (REQUEST_ID.replace("-", ""), REQUEST_ID.upper(), f" {REQUEST_ID}\n")
        ),
        (
            reply({"status": "PROCESSING", "request_id": REQUEST_ID.replace("-", "").upper()}),
            VendorStatus.PROCESSING,
        ),
        # not found proves nothing
        (reply({"error": f"Request {REQUEST_ID} not found"}, 404), VendorStatus.NOT_FOUND),
        (reply(HOSTILE["html"], 404), VendorStatus.UNKNOWN),
        (reply(b"", 404), VendorStatus.UNKNOWN),
        # another job's state is not this one's
        *(
            (reply(body | {"request_id": "another"}, status), VendorStatus.UNKNOWN)
            for body in (COMPLETED, FAILED)
            for status in (200, 404, 422, 502, 503)
        ),
        (reply({"status": "PROCESSING", "request_id": "another"}), VendorStatus.UNKNOWN),
        (reply({"error": "not found", "request_id": "the gateway's own"}, 404), VendorStatus.UNKNOWN),
        *((reply(COMPLETED | {"request_id": wrong}), VendorStatus.UNKNOWN) for wrong in OTHER_IDS),
        # no usable word
        *((reply({"status": word}), VendorStatus.UNKNOWN) for word in NO_STATES),
        (reply({"status": ["COMPLETED"]}), VendorStatus.UNKNOWN),
        (reply({"status": {"COMPLETED": 1}}), VendorStatus.UNKNOWN),
        (reply({"error": "Something went wrong"}), VendorStatus.UNKNOWN),
        (reply({"error": "Validation failed"}, 422), VendorStatus.UNKNOWN),
        *(
            (reply({"error": "oops"}, status), VendorStatus.UNKNOWN)
            for status in (302, 400, 402, 405, 406, 408, 410)
        ),
        *((reply({"error": "oops"}, status), VendorStatus.UNKNOWN) for status in (500, 502, 503, 504, 524)),
        *((reply(HOSTILE["html"], status), VendorStatus.UNKNOWN) for status in (200, 405, 502)),
    ],
)
def test_state(answer: Reply, state: VendorStatus) -> None:
    assert parse_status(answer, REQUEST_ID).state is state


@pytest.mark.parametrize("status", [200, 202, 302, 422, 500])
@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_a_poll_that_cannot_be_read_means_still_running(body: bytes, status: int) -> None:
    assert parse_status(reply(body, status), REQUEST_ID).state is VendorStatus.UNKNOWN
    with pytest.raises(LumaRayUnavailable):
        parse_result(reply(body, status), REQUEST_ID)


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("read", [parse_status, parse_result])
def test_a_key_that_stopped_working_ends_the_wait(status: int, read: Any) -> None:
    with pytest.raises(LumaRayAuthenticationError, match="API key") as caught:
        read(reply({"error": "Invalid API key"}, status), REQUEST_ID)
    assert caught.value.status_code == status


@pytest.mark.parametrize("read", [parse_status, parse_result])
@pytest.mark.parametrize(
    "body",
    [
        {"error": "Rate limit exceeded"},
        {"error": "Rate limit exceeded", "request_id": "the gateway's own"},
        without(FAILED, "request_id"),
        without(COMPLETED, "request_id"),
        FAILED | {"request_id": "another"},
    ],
)
def test_a_rate_limited_poll_says_so(read: Any, body: object) -> None:
    with pytest.raises(LumaRayRateLimited):
        read(reply(body, 429), REQUEST_ID)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize("body", [without(FAILED, "request_id"), without(RESULT, "error")])
def test_a_gateways_reply_is_not_a_result(status: int, body: dict[str, Any]) -> None:
    with pytest.raises((LumaRayUnavailable, LumaRayRateLimited)):
        parse_result(reply(body, status), REQUEST_ID)


def test_a_result_whose_id_lacks_dashes_is_the_jobs() -> None:
    result = parse_result(reply(RESULT | {"request_id": REQUEST_ID.replace("-", "").upper()}), REQUEST_ID)
    assert (result.state, result.url) == (VendorStatus.COMPLETED, VIDEO_URL)


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        ("The frame cannot be fetched", "The frame cannot be fetched"),
        (f"cannot fetch {ASSET_URL} of {KEY}", "cannot fetch <asset url> of <api key>"),
        ("line\n\n  line", "line line"),
        ({"code": 7}, "{'code': 7}"),
        (None, "no reason given"),
        ("", "no reason given"),
        ("x" * 9999, "x" * 500),
    ],
)
def test_a_failed_job_gives_the_reason_on_one_short_line(error: object, shown: str) -> None:
    status = parse_status(reply(FAILED | {"error": error}, 422), REQUEST_ID)
    assert status.error == shown


@pytest.mark.parametrize(
    ("metrics", "cost", "remaining"),
    [
        (b'{"cost": 1.6, "remaining_credits": 10.0184921035}', "1.6", "10.0184921035"),
        (b'{"cost": 0.3333333333}', "0.3333333333", None),
        (b'{"cost": "1.6", "remaining_credits": " 9 "}', "1.6", "9"),
        (b'{"cost": 0, "remaining_credits": -0.5}', "0", "-0.5"),
        (b'{"cost": true, "remaining_credits": null}', None, None),
        (b'{"cost": NaN, "remaining_credits": Infinity}', None, None),
        (b'{"cost": "NaN", "remaining_credits": "-Infinity"}', None, None),
        (b'{"cost": 1e400, "remaining_credits": "1e99999"}', None, None),
        (b'{"cost": [1.6], "remaining_credits": {}}', None, None),
        (b"{}", None, None),
        (b"[1.6, 10]", None, None),
        (b"null", None, None),
        (b'"1.6"', None, None),
    ],
)
def test_the_metrics_are_optional_and_exact(metrics: bytes, cost: str | None, remaining: str | None) -> None:
    body = b'{"status": "COMPLETED", "output": "%s", "metrics": %s}' % (VIDEO_URL.encode(), metrics)
    status, result = parse_status(reply(body), REQUEST_ID), parse_result(reply(body), REQUEST_ID)
    assert (status.cost, status.remaining_credits) == (result.cost, result.remaining_credits)
    assert status.cost == (None if cost is None else Decimal(cost))
    assert status.remaining_credits == (None if remaining is None else Decimal(remaining))


@pytest.mark.parametrize(
    ("body", "url"),
    [
        pytest.param(RESULT, VIDEO_URL, id="documented"),
        pytest.param(without(RESULT, "video"), VIDEO_URL, id="output alone"),
        pytest.param(without(RESULT, "output"), VIDEO_URL, id="video.url alone"),
        pytest.param(
            RESULT | {"output": "https://a.example/o.mp4"}, "https://a.example/o.mp4", id="output goes first"
        ),
        pytest.param(RESULT | {"output": None}, VIDEO_URL, id="output null"),
        pytest.param(RESULT | {"output": "clip.mp4"}, VIDEO_URL, id="output no URL"),
        pytest.param(RESULT | {"output": ""}, VIDEO_URL, id="output empty"),
        pytest.param(
            RESULT | {"output": {"x": 1}, "video": {"url": VIDEO_URL}}, VIDEO_URL, id="output an object"
        ),
        pytest.param(RESULT | {"output": f" {VIDEO_URL}\n"}, VIDEO_URL, id="white space around it"),
        pytest.param({"status": "COMPLETED", "output": [VIDEO_URL]}, VIDEO_URL, id="output a list of one"),
        pytest.param(
            {"status": "COMPLETED", "data": {"clips": [{"href": VIDEO_URL}]}}, VIDEO_URL, id="the one URL"
        ),
        pytest.param(
            {"status": "COMPLETED", "a": VIDEO_URL, "b": [VIDEO_URL]},
            VIDEO_URL,
            id="the one URL, named twice",
        ),
        pytest.param(
            {"status": "COMPLETED", "a": VIDEO_URL, "b": "https://x.example/y"}, None, id="two URLs"
        ),
        pytest.param({"status": "COMPLETED", "note": f"see {VIDEO_URL}"}, None, id="a URL within a text"),
        pytest.param({"status": "COMPLETED", "output": "file:///etc/passwd"}, None, id="another scheme"),
        pytest.param({"status": "COMPLETED", "output": "javascript:alert(1)"}, None, id="a script"),
        pytest.param({"status": "COMPLETED", "output": None, "video": None}, None, id="none at all"),
        pytest.param({"status": "COMPLETED", "video": {"url": 7}}, None, id="a URL that is a number"),
    ],
)
def test_the_videos_url_comes_from_the_result_unchanged(body: dict[str, Any], url: str | None) -> None:
    result = parse_result(reply(body), REQUEST_ID)
    assert result.state is VendorStatus.COMPLETED
    assert result.url == url
    assert result.body == body | ({"metrics": result.body["metrics"]} if "metrics" in body else {})
    assert VIDEO_URL not in repr(result)


def test_a_frame_echoed_in_the_result_is_not_the_video_and_not_kept() -> None:
    signed = "https://b.s3.amazonaws.com/f.jpg?X-Amz-Signature=0a1b"
    inputs = {"prompt": "a push in", "start_frame": signed, "more": [{"start_image_url": signed}]}
    body = {"status": "COMPLETED", "output": None, "inputs": inputs, "end_image_url": signed}
    result = parse_result(reply(body), REQUEST_ID)
    assert result.url is None
    assert result.body["inputs"] == {"prompt": "a push in", "more": [{}]}
    assert "0a1b" not in str(result.body)
    assert parse_result(reply(body | {"href": VIDEO_URL}), REQUEST_ID).url == VIDEO_URL


@pytest.mark.parametrize("depth", [100, 900, 2_000, 20_000])
def test_a_deeply_nested_result_does_not_crash(depth: int) -> None:
    body = b'{"status": "COMPLETED", "x": %s}' % (b"[" * depth + b"]" * depth)
    try:
        assert parse_result(reply(body), REQUEST_ID).url is None
    except LumaRayUnavailable:
        assert depth > 900


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (reply({"error": f"Request {REQUEST_ID} not found"}, 404), VendorStatus.NOT_FOUND),
        (reply(FAILED | {"output": VIDEO_URL}, 422), VendorStatus.FAILED),
        (reply(FAILED), VendorStatus.FAILED),
    ],
)
def test_only_a_completed_job_has_a_video(answer: Reply, state: VendorStatus) -> None:
    result = parse_result(answer, REQUEST_ID)
    assert (result.state, result.url) == (state, None)


@pytest.mark.parametrize(
    "answer",
    [
        reply({"status": "PROCESSING", "request_id": REQUEST_ID}),
        reply({"status": "QUEUED", "output": VIDEO_URL}),
        reply(RESULT | {"request_id": "another"}),
        reply({"status": "DONE", "output": VIDEO_URL}),
        reply({"error": "Internal server error"}, 500),
    ],
)
def test_another_jobs_result_is_not_a_result(answer: Reply) -> None:
    with pytest.raises(LumaRayUnavailable, match="bought nothing"):
        parse_result(answer, REQUEST_ID)


@settings(deadline=None, max_examples=60)
@given(anyhow())
def test_no_reply_raises_any_other_error(answer: Reply) -> None:
    said = answer.object().get("status")
    for read in (parse_status, parse_result):
        found = outcome(read, answer, REQUEST_ID)
        if isinstance(found, JobStatus | JobResult):
            if found.state in (VendorStatus.COMPLETED, VendorStatus.FAILED):
                assert found.state == said
                assert answer.named_id() == REQUEST_ID or answer.status in (200, 422)
            assert answer.status == 404 or found.state is not VendorStatus.NOT_FOUND
        else:
            assert isinstance(found, LumaRayAuthenticationError | LumaRayRateLimited | LumaRayUnavailable)
            assert KEY not in str(found)
