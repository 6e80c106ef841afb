"""A 429's reset time, by the vendor's clock: no burst if it is in the past, no endless wait if it is far off."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from airflow_provider_luma.exceptions import LumaRayRateLimited
from airflow_provider_luma.hooks.limiter import Rank, limiter_of
from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.segmind.request import GenerationRequest
from tests.hooks.peer import Peer, Seen, to_json

HookAt = Callable[..., tuple[LumaRayHook, Peer]]
REQUEST = GenerationRequest("luma-ray-img-2-video", "p", None)


@pytest.fixture
def quick() -> None:
    """Leave the waits unchanged: they are under test."""
    limiter_of.cache_clear()


@pytest.fixture
def quicker(quick: None) -> None:
    """As above."""


def too_many(reset: timedelta, off: timedelta = timedelta(0)) -> Callable[[Seen], bytes]:
    """Answer 429 with a reset this far from now, by a clock that is this far off."""

    def answer(_: Seen) -> bytes:
        now = datetime.now(UTC) + off
        headers = {"x_rate_limit_reset_at_utc": (now + reset).isoformat(), "Date": format_datetime(now)}
        return to_json({"error": "Rate limit exceeded"}, 429, **headers)

    return answer


@pytest.mark.parametrize("hours", [-2, 0, 2])
@pytest.mark.parametrize(("reset", "low", "high"), [(-3600, 1, 1), (0, 1, 1), (20, 18, 22), (7200, 60, 60)])
def test_a_rate_limits_reset_is_by_the_vendors_clock(
    hook_at: HookAt, hours: int, reset: int, low: float, high: float
) -> None:
    hook, host = hook_at(too_many(timedelta(seconds=reset), timedelta(hours=hours)))
    with pytest.raises(LumaRayRateLimited) as caught:
        hook.submit(REQUEST)
    assert low <= caught.value.seconds_to_reset() <= high
    assert low - 0.5 <= hook.limiter.take(Rank.URGENT) <= 1.1 * high, "nobody else is let through either"
    assert len(host.seen) == 1


def test_a_reset_in_the_past_causes_no_burst(hook_at: HookAt) -> None:
    hook, host = hook_at(too_many(timedelta(hours=-1)))
    waited = 0.0
    for _ in range(3):
        with pytest.raises(LumaRayRateLimited) as caught:
            hook.get_status("r1")
        waited += caught.value.seconds_to_reset()
    assert waited >= 2
    assert len(host.seen) == 1, "within the second no other request leaves"
