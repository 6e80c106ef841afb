"""Parsing balances, uploads and times."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings

from airflow_provider_luma.exceptions import (
    LumaRayAuthenticationError,
    LumaRayError,
    LumaRayRateLimited,
    LumaRayRefused,
    LumaRayUnavailable,
)
from airflow_provider_luma.segmind.replies import (
    Credits,
    Reply,
    parse_credits,
    parse_time,
    parse_upload,
)
from tests.segmind.replies import ASSET_URL, HOSTILE, KEY, anyhow, outcome, reply


@pytest.mark.parametrize(
    ("body", "paid", "free"),
    [
        (b'{"credits": 12.34, "free-credits": 0.0184921035}', "12.34", "0.0184921035"),
        (b'{"credits": 0.1, "free-credits": 0.2}', "0.1", "0.2"),
        (b'{"credits": 123456789.0123456789}', "123456789.0123456789", "0"),
        (b'{"credits": 5}', "5", "0"),
        (b'{"credits": 0, "free-credits": 0}', "0", "0"),
        (b'{"credits": -1.25, "free-credits": 0}', "-1.25", "0"),
        (b'{"credits": "12.34", "free-credits": "1"}', "12.34", "1"),
        (b'{"credits": 1.5e1}', "15", "0"),
        (b'\xef\xbb\xbf{"credits": 5}', "5", "0"),
    ],
)
def test_a_balance_is_exact(body: bytes, paid: str, free: str) -> None:
    credits = parse_credits(reply(body))
    assert credits == Credits(paid=Decimal(paid), free=Decimal(free))
    assert credits.total == Decimal(paid) + Decimal(free)


@pytest.mark.parametrize(
    "body",
    [
        b'{"credits": null}',
        b'{"credits": true}',
        b'{"credits": "much"}',
        b'{"credits": ""}',
        b'{"credits": [12]}',
        b'{"credits": {"amount": 12}}',
        b'{"credits": NaN}',
        b'{"credits": Infinity}',
        b'{"credits": -Infinity}',
        b'{"credits": "NaN"}',
        b'{"credits": "inf"}',
        b'{"credits": "sNaN"}',
        b'{"credits": 1e400}',
        b'{"credits": "1e999999999"}',
        b'{"credits": 5, "free-credits": NaN}',
        b'{"credits": 5, "free-credits": true}',
        b'{"free-credits": 5}',
        b'{"error": "oops"}',
    ],
)
def test_only_finite_numbers_are_balances(body: bytes) -> None:
    with pytest.raises(LumaRayUnavailable, match="credits call"):
        parse_credits(reply(body))


@pytest.mark.parametrize("body", [body for name, body in HOSTILE.items() if "digits" not in name])
@pytest.mark.parametrize("status", [200, 404, 500])
def test_an_unreadable_reply_is_neither_a_balance_nor_an_uploaded_frame(body: bytes, status: int) -> None:
    with pytest.raises(LumaRayUnavailable) as caught:
        parse_credits(reply(body, status))
    assert caught.value.status_code == status
    if status != 404:
        with pytest.raises(LumaRayUnavailable):
            parse_upload(reply(body, status))


def test_the_vendors_message_for_no_credits_is_passed_on() -> None:
    with pytest.raises(LumaRayUnavailable, match="No credits found for the user") as caught:
        parse_credits(reply({"error": "No credits found for the user"}, 404))
    assert caught.value.status_code == 404


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, LumaRayAuthenticationError), (403, LumaRayAuthenticationError), (429, LumaRayRateLimited)],
)
def test_the_credits_call_checks_the_key(status: int, kind: type[LumaRayError]) -> None:
    with pytest.raises(kind) as caught:
        parse_credits(reply({"error": "no"}, status))
    assert caught.value.status_code == status


@pytest.mark.parametrize(
    "body",
    [
        {"file_urls": [ASSET_URL], "message": "ok"},
        {"urls": [ASSET_URL]},
        {"file_urls": [], "urls": [ASSET_URL]},
        {"file_urls": None, "urls": [ASSET_URL]},
        {"file_urls": [ASSET_URL, "https://images.segmind.com/assets/other"]},
    ],
)
def test_the_uploads_url_is_the_first(body: object) -> None:
    assert parse_upload(reply(body)) == ASSET_URL


@pytest.mark.parametrize(
    "answer",
    [
        *(
            reply({"file_urls": wrong})
            for wrong in ([], [7], [None], ["no url"], [[ASSET_URL]], ASSET_URL, {"0": ASSET_URL})
        ),
        reply({"file_urls": [ASSET_URL]}, 500),
        reply({"file_urls": [ASSET_URL]}, 302),
        reply({"error": "oops"}, 408),
        reply({"error": "oops"}, 503),
    ],
)
def test_an_upload_without_a_url_may_be_retried(answer: Reply) -> None:
    with pytest.raises(LumaRayUnavailable, match="upload of the start frame") as caught:
        parse_upload(answer)
    assert "someone@example.com" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, LumaRayRefused),
        (401, LumaRayAuthenticationError),
        (403, LumaRayAuthenticationError),
        (413, LumaRayRefused),
        (429, LumaRayRateLimited),
    ],
)
def test_a_refused_upload_says_why(status: int, kind: type[LumaRayError]) -> None:
    with pytest.raises(kind) as caught:
        parse_upload(reply({"error": "Invalid image data"}, status))
    assert caught.value.status_code == status


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("2026-11-22T10:00:00Z", datetime(2026, 11, 22, 10, tzinfo=UTC)),
        ("2026-11-22T10:00:00.123456Z", datetime(2026, 11, 22, 10, 0, 0, 123456, tzinfo=UTC)),
        ("2026-11-22T12:00:00+02:00", datetime(2026, 11, 22, 10, tzinfo=UTC)),
        ("2026-11-22T10:00:00", datetime(2026, 11, 22, 10, tzinfo=UTC)),
        ("2026-11-22 10:00:00", datetime(2026, 11, 22, 10, tzinfo=UTC)),
        ("2026-11-22 10:00:00 UTC", datetime(2026, 11, 22, 10, tzinfo=UTC)),
        (1795341600, datetime(2026, 11, 22, 10, tzinfo=UTC)),
        (1795341600123, datetime(2026, 11, 22, 10, 0, 0, 123000, tzinfo=UTC)),
        (Decimal("1795341600.5"), datetime(2026, 11, 22, 10, 0, 0, 500000, tzinfo=UTC)),
        (True, None),
        (None, None),
        ("", None),
        ("yesterday", None),
        ([], None),
        ({"$date": 1}, None),
        (10**30, None),
        (-(10**30), None),
        (Decimal("1e400"), None),
        ("0001-01-01T00:00:00+05:00", None),
        ("9999-12-31T23:59:59-05:00", None),
    ],
)
def test_time(value: object, moment: datetime | None) -> None:
    assert parse_time(value) == moment


@settings(deadline=None, max_examples=60)
@given(anyhow())
def test_no_reply_raises_any_other_error(answer: Reply) -> None:
    for read in (parse_credits, parse_upload):
        assert KEY not in str(outcome(read, answer))
