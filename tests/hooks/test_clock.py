"""The vendor's clock, learned from all replies of the API's hosts, so that the worker's clock may be wrong."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from airflow_provider_luma.exceptions import LumaRayAuthenticationError, LumaRayError
from airflow_provider_luma.hooks.clock import VendorClock, parse_http_date
from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.segmind.request import GenerationRequest
from airflow_provider_luma.simulator import Simulator
from tests.hooks.peer import Peer, Seen, http, to_json

HookAt = Callable[..., tuple[LumaRayHook, Peer]]
HOURS = timedelta(hours=2)


def stamped(off: timedelta, status: int = 200, **headers: str) -> Callable[[Seen], bytes]:
    """Answer like a host whose clock differs from ours by this much."""

    def answer(_: Seen) -> bytes:
        date = format_datetime(datetime.now(UTC) + off, usegmt=True)
        return to_json({"credits": 5, "request_id": "r1", "data": []}, status, Date=date, **headers)

    return answer


def lead(hook: LumaRayHook) -> timedelta:
    """Return how far ahead of ours the hook considers the vendor's clock."""
    return hook.vendor_now() - datetime.now(UTC)


def is_about(measured: timedelta, expected: timedelta) -> bool:
    return abs(measured - expected) < timedelta(seconds=2)


def test_before_the_first_reply_the_workers_clock_is_used(hook: LumaRayHook) -> None:
    assert hook.vendor_now().tzinfo is UTC
    assert abs(lead(hook)) < timedelta(seconds=1)


@pytest.mark.parametrize("off", [HOURS, -HOURS, timedelta(days=3), timedelta(seconds=30)])
@pytest.mark.parametrize(
    "name", ["get_credits", "submit", "generate", "get_status", "find_jobs", "upload_image"]
)
def test_any_reply_of_the_apis_hosts_sets_the_clock(
    hook_at: HookAt, request_: GenerationRequest, frame: Path, tmp_path: Path, off: timedelta, name: str
) -> None:
    hook, _ = hook_at(stamped(off))
    try:
        {
            "get_credits": lambda: hook.get_credits(),
            "submit": lambda: hook.submit(request_),
            "generate": lambda: hook.generate(request_, tmp_path / "v.mp4"),
            "get_status": lambda: hook.get_status("r1"),
            "find_jobs": lambda: hook.find_jobs("m", datetime.now(UTC)),
            "upload_image": lambda: hook.upload_image(frame),
        }[name]()
    except LumaRayError:
        assert name in ("generate", "upload_image")
    assert is_about(lead(hook), off)


def test_refusals_set_it_too_and_the_last_reply_counts(hook_at: HookAt) -> None:
    hook, _ = hook_at(stamped(HOURS), stamped(-HOURS, 401), http(200, '{"credits": 5}'))
    hook.get_credits()
    assert is_about(lead(hook), HOURS)
    with pytest.raises(LumaRayAuthenticationError):
        hook.get_credits()
    assert is_about(lead(hook), -HOURS)
    hook.get_credits()
    assert is_about(lead(hook), -HOURS), "a reply without a Date tells nothing"


def test_a_video_host_does_not_set_the_clock(
    hook: LumaRayHook, peer: Callable[..., Peer], tmp_path: Path, mp4: bytes
) -> None:
    host = peer(http(200, mp4, Date=format_datetime(datetime.now(UTC) + HOURS, usegmt=True)))
    hook.download_video(f"{host.url}/v.mp4", tmp_path / "v.mp4")
    assert lead(hook) < timedelta(seconds=1)


def test_a_clock_in_step_is_left_alone(simulator: Simulator, hook: LumaRayHook) -> None:
    before = datetime.now(UTC)
    hook.get_credits()
    assert before <= hook.vendor_now() <= datetime.now(UTC)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Date": ""},
        {"Date": "yesterday"},
        {"Date": "2026-11-22T10:00:00Z"},
        {"Date": "Thu, 01 Jan 1970 00:00:00 GMT"},
        {"Date": "Fri, 31 Dec 9999 23:59:59 GMT"},
        {"Date": "Sat, 01 Jan 0001 00:00:00 +2359"},
        {"Date": "Sun, 22 Nov 2026 10:00:00 +999999"},
        {"Date": format_datetime(datetime.now(UTC) + HOURS), "Age": "7200"},
    ],
)
def test_invalid_or_absurd_dates_are_ignored(headers: dict[str, str]) -> None:
    clock = VendorClock()
    clock.learn(headers, datetime.now(UTC))
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(seconds=1)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_reply_that_took_minutes_may_be_stamped_at_its_beginning_or_end(share: float) -> None:
    clock = VendorClock()
    now = datetime.now(UTC)
    sent_at = now - timedelta(minutes=2)
    clock.learn({"Date": format_datetime(sent_at + share * (now - sent_at))}, sent_at)
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(seconds=1)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("Sun, 22 Nov 2026 10:00:00 GMT", datetime(2026, 11, 22, 10, tzinfo=UTC)),
        ("Sun, 22 Nov 2026 12:00:00 +0200", datetime(2026, 11, 22, 10, tzinfo=UTC)),
        ("Sunday, 22-Nov-26 10:00:00 GMT", datetime(2026, 11, 22, 10, tzinfo=UTC)),
        ("Sun, 22 Nov 2026 10:00:00 -0000", datetime(2026, 11, 22, 10, tzinfo=UTC)),
        ("soon", None),
        (None, None),
    ],
)
def test_http_date(text: str | None, moment: datetime | None) -> None:
    assert parse_http_date(text) == moment


@pytest.mark.parametrize("off", [timedelta(days=3), timedelta(days=-3), HOURS, timedelta(days=-300)])
@pytest.mark.parametrize("since", [timedelta(0), timedelta(days=-7), timedelta(days=-400), timedelta(days=3)])
def test_the_history_is_queried_by_the_vendors_calendar(
    hook_at: HookAt, off: timedelta, since: timedelta
) -> None:
    hook, host = hook_at(stamped(off))
    hook.get_credits()
    now = hook.vendor_now()
    hook.find_jobs("m", now + since)
    (asked,) = parse_qs(urlsplit(host.seen[-1].target).query)["from_date"]
    first = max(min(now + since, now) - timedelta(days=1), now - timedelta(days=30))
    assert asked == f"{first:%Y-%m-%d}"
