"""The answer to a paid POST: an id, a refusal that costs nothing, or uncertainty."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from hypothesis import given, settings

from airflow_provider_luma.exceptions import (
    LumaRayAuthenticationError,
    LumaRayInsufficientCredits,
    LumaRayModelUnavailable,
    LumaRayRateLimited,
    LumaRayRefused,
    LumaRaySubmitUnknown,
)
from airflow_provider_luma.segmind.replies import Reply, parse_submit
from tests.segmind.replies import ASSET_URL, HOSTILE, KEY, REQUEST_ID, anyhow, outcome, reply

MODEL = "luma-ray-img-2-video"

NO_IDS: list[object] = [None, "", "  ", [], {}, True]
UNREADABLE_IDS: list[object] = [
    7,
    ["r1"],
    "\ud800",
    "r1\udfff",
    "r1\x00",
    "r\n1",
    "r 1",
    "r\u00a01",
    "\u202er1",
    "r" * 201,
]
DOCUMENTED = {
    "request_id": REQUEST_ID,
    "status": "QUEUED",
    "poll_url": f"https://api.segmind.com/v1/requests/{REQUEST_ID}",
    "status_url": f"https://api.segmind.com/v2/requests/{REQUEST_ID}/status",
    "response_url": f"https://api.segmind.com/v2/requests/{REQUEST_ID}",
}


@pytest.mark.parametrize(
    ("answer", "request_id"),
    [
        pytest.param(reply(DOCUMENTED), REQUEST_ID, id="documented"),
        pytest.param(reply({"request_id": "ab" * 16}), "ab" * 16, id="32 hex digits and nothing else"),
        pytest.param(reply({"request_id": "../../v1?x=#"}), "../../v1?x=#", id="opaque"),
        pytest.param(reply({"request_id": " r1\n"}), "r1", id="white space around it"),
        pytest.param(reply(DOCUMENTED | {"status": "WARMING_UP"}), REQUEST_ID, id="unknown status word"),
        pytest.param(reply(DOCUMENTED | {"error": None}), REQUEST_ID, id="an empty error"),
        pytest.param(reply(DOCUMENTED | {"error": "slow today"}), REQUEST_ID, id="an error beside the id"),
        pytest.param(reply(DOCUMENTED, 201), REQUEST_ID, id="201"),
        pytest.param(reply(DOCUMENTED, 202), REQUEST_ID, id="202"),
        pytest.param(
            reply({"request_id": REQUEST_ID, "status": "FAILED", "error": "bad frame"}, 422),
            REQUEST_ID,
            id="FAILED at once under 422: the poll tells",
        ),
        pytest.param(
            reply({"request_id": REQUEST_ID, "status": "FAILED", "error": "bad frame"}),
            REQUEST_ID,
            id="FAILED at once under 200: the poll tells",
        ),
    ],
)
def test_an_accepted_submit_has_an_id(answer: Reply, request_id: str) -> None:
    assert parse_submit(answer, MODEL) == request_id


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (400, "Malformed request", LumaRayRefused),
        (401, "Invalid API key", LumaRayAuthenticationError),
        (402, "Insufficient credits to run this model", LumaRayInsufficientCredits),
        (402, "Payment required", LumaRayInsufficientCredits),
        (403, "This model is not allowed for your account", LumaRayAuthenticationError),
        (404, "Model luma-ray-img-2-video not found", LumaRayModelUnavailable),
        (405, "Method Not Allowed", LumaRayRefused),
        (406, "Insufficient credits to run this model", LumaRayInsufficientCredits),
        (406, "You do not have enough CREDIT", LumaRayInsufficientCredits),
        (406, "Your balance is too low", LumaRayInsufficientCredits),
        (406, "Content-Type must be application/json", LumaRayRefused),
        (406, "Invalid value for resolution: '8k'", LumaRayRefused),
        (406, "Team spend limit reached", LumaRayRefused),
        (410, "This model has been retired", LumaRayModelUnavailable),
        (413, "Request entity too large", LumaRayRefused),
        (415, "Unsupported media type", LumaRayRefused),
        (422, "Validation failed: aspect_ratio", LumaRayRefused),
        (200, "Something went wrong", LumaRayRefused),
    ],
)
def test_a_refusal_says_why_and_that_it_cost_nothing(
    status: int, message: str, kind: type[LumaRayRefused]
) -> None:
    with pytest.raises(LumaRayRefused) as caught:
        parse_submit(reply({"error": message}, status), MODEL)
    assert type(caught.value) is kind
    assert caught.value.status_code == status
    assert message in str(caught.value)
    assert "bought nothing" in str(caught.value)
    assert isinstance(caught.value, AirflowFailException)


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 406, 410, 422])
@pytest.mark.parametrize(
    "body", [HOSTILE["html"], HOSTILE["empty"], HOSTILE["deep list"]], ids=["html", "empty", "deep"]
)
def test_a_refusal_needs_no_envelope(status: int, body: bytes) -> None:
    with pytest.raises(LumaRayRefused) as caught:
        parse_submit(reply(body, status), MODEL)
    assert caught.value.status_code == status
    assert "<" not in str(caught.value)


@pytest.mark.parametrize("status", [404, 410])
@pytest.mark.parametrize(
    ("model", "advice"),
    [
        (MODEL, "its successor is 'luma-ray-3-2'"),
        ("luma-ray-img2video", "Did you mean 'luma-ray-img-2-video'?"),
        ("ray-flash-2", "Did you mean 'ray-flash-2-720p'?"),
        ("kling", "Check the slug 'kling'"),
    ],
)
def test_advice_about_a_model_that_is_not_served(status: int, model: str, advice: str) -> None:
    with pytest.raises(LumaRayModelUnavailable) as caught:
        parse_submit(reply({"error": "gone"}, status), model)
    assert advice in caught.value.remedy
    assert ("successor" in str(caught.value)) == (model == MODEL)


@pytest.mark.parametrize(
    ("header", "reset_at"),
    [
        ({}, None),
        (
            {"x_rate_limit_reset_at_utc": "2026-11-22T10:00:30Z"},
            datetime(2026, 11, 22, 10, 0, 30, tzinfo=UTC),
        ),
        ({"X_Rate_Limit_Reset_At_UTC": "2026-11-22 10:00:30"}, datetime(2026, 11, 22, 10, 0, 30, tzinfo=UTC)),
        (
            {"x_rate_limit_reset_at_utc": "2026-11-22T12:00:30+02:00"},
            datetime(2026, 11, 22, 10, 0, 30, tzinfo=UTC),
        ),
        ({"x_rate_limit_reset_at_utc": "soon"}, None),
        ({"x_rate_limit_reset_at_utc": ""}, None),
        ({"x_rate_limit_reset_at_utc": "0001-01-01T00:00:00+05:00"}, None),
    ],
)
def test_a_rate_limit_has_its_reset_time(header: dict[str, str], reset_at: datetime | None) -> None:
    with pytest.raises(LumaRayRateLimited) as caught:
        parse_submit(reply({"error": "Rate limit exceeded"}, 429, **header), MODEL)
    assert caught.value.reset_at == reset_at
    assert caught.value.status_code == 429
    assert not isinstance(caught.value, AirflowFailException)


@pytest.mark.parametrize(
    "answer",
    [pytest.param(reply(body), id=f"200 {name}") for name, body in HOSTILE.items()]
    + [
        pytest.param(reply({"request_id": wrong, "status": "QUEUED"}), id=f"request_id {wrong!r}")
        for wrong in NO_IDS
    ]
    + [
        pytest.param(reply({"error": "oops"}, status), id=str(status))
        for status in (301, 302, 303, 307, 308, 408, 499, 500, 502, 503, 504, 520, 524)
    ]
    + [pytest.param(reply(HOSTILE["html"], 504), id="504 html")],
)
def test_any_other_answer_is_unknown(answer: Reply) -> None:
    with pytest.raises(LumaRaySubmitUnknown) as caught:
        parse_submit(answer, MODEL)
    assert caught.value.status_code == answer.status
    assert len(str(caught.value)) < 800
    assert isinstance(caught.value, AirflowFailException)


@pytest.mark.parametrize("status", [200, 400, 401, 406, 422, 500])
def test_no_error_repeats_the_key_or_an_asset_url(status: int) -> None:
    echo = f"could not fetch {ASSET_URL} for {KEY}"
    for error in (echo, {"message": echo}, [echo], {"code": echo}):
        with pytest.raises((LumaRayRefused, LumaRaySubmitUnknown)) as caught:
            parse_submit(reply({"error": error}, status), MODEL)
        assert KEY not in str(caught.value)
        assert "someone@example.com" not in str(caught.value)


@pytest.mark.parametrize("wrong", UNREADABLE_IDS)
@pytest.mark.parametrize(
    ("changes", "status"),
    [({}, 200), ({"error": "slow today"}, 200), ({"status": "FAILED", "error": "no"}, 422)],
)
def test_an_invalid_id_is_unknown(wrong: object, changes: dict[str, object], status: int) -> None:
    with pytest.raises(LumaRaySubmitUnknown) as caught:
        parse_submit(reply(DOCUMENTED | {"request_id": wrong} | changes, status), MODEL)
    assert (caught.value.request_id, caught.value.hint) == (None, None)
    str(caught.value).encode()


def test_the_longest_id() -> None:
    assert parse_submit(reply({"request_id": "r" * 200}), MODEL) == "r" * 200


@pytest.mark.parametrize(
    ("body", "header", "hint"),
    [
        ({"error": "oops"}, {}, None),
        ({"error": "oops"}, {"x_request_id": "h1"}, "h1"),
        ({"error": "oops", "request_id": "b1"}, {"x_request_id": "h1"}, "b1"),
        ({"error": "oops"}, {"x_request_id": "h 1"}, None),
    ],
)
def test_an_unknown_outcome_has_the_possible_id(
    body: object, header: dict[str, str], hint: str | None
) -> None:
    with pytest.raises(LumaRaySubmitUnknown) as caught:
        parse_submit(reply(body, 502, **header), MODEL)
    assert (caught.value.request_id, caught.value.hint) == (None, hint)
    assert hint is None or f"the id {hint}, which is the job's or a gateway's" in str(caught.value)


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [
        ("2026-11-22T09:00:00Z", 1),
        ("2026-11-22T10:00:00Z", 1),
        ("2026-11-22T10:00:00.2Z", 1),
        ("2026-11-22T10:00:12.5Z", 12.5),
        ("2026-11-22T10:01:00Z", 60),
        ("2026-11-22T12:00:00Z", 60),
        ("9999-12-31T23:59:59Z", 60),
        ("0001-01-01T00:00:00Z", 1),
        ("soon", 5),
    ],
)
def test_a_rate_limit_lasts_between_a_second_and_a_minute(reset: str, seconds: float) -> None:
    """Relative to the reply's time, whatever the worker's clock says."""
    answer = reply({"error": "Rate limit exceeded"}, 429, x_rate_limit_reset_at_utc=reset)
    with pytest.raises(LumaRayRateLimited) as caught:
        parse_submit(replace(answer, received_at=datetime(2026, 11, 22, 10, tzinfo=UTC)), MODEL)
    assert caught.value.seconds_to_reset() == seconds


def test_a_rate_limit_over_by_the_workers_clock_is_still_waited_out() -> None:
    for hours in (-2, 0, 2):
        error = LumaRayRateLimited("429", reset_at=datetime.now(UTC) + timedelta(hours=hours))
        assert 1 <= error.seconds_to_reset() <= 60


@settings(deadline=None, max_examples=60)
@given(anyhow())
def test_no_reply_raises_any_other_error(answer: Reply) -> None:
    found = outcome(lambda reply: parse_submit(reply, MODEL), answer)
    if isinstance(found, LumaRayRefused | LumaRayRateLimited):
        assert answer.status < 300 or 400 <= answer.status < 500
        assert answer.status not in (408, 499)
    elif isinstance(found, LumaRaySubmitUnknown):
        assert found.status_code == answer.status
    else:
        assert isinstance(found, str)
        assert found
        assert answer.status < 300 or answer.status == 422
