"""The request limit: pure with a clock of the test's own, and over real HTTP."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_luma.exceptions import LumaRayRateLimited
from airflow_provider_luma.hooks.limiter import RateLimiter, limiter_of
from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.simulator import Simulator
from tests.support import API_KEY, make_operator, set_connection, task_context


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_as_many_as_the_limit_pass_in_a_minute_and_the_next_is_told_how_long() -> None:
    clock = Clock()
    limiter = RateLimiter(10, clock)
    assert [limiter.take(urgent=True) for _ in range(10)] == [0.0] * 10
    assert limiter.take(urgent=True) == 60.0
    clock.now += 59
    assert limiter.take(urgent=True) == 1.0
    clock.now += 1
    assert limiter.take(urgent=True) == 0.0


def test_polls_leave_room_for_what_must_go() -> None:
    limiter = RateLimiter(10, Clock())
    assert [limiter.take(urgent=False) for _ in range(8)] == [0.0] * 8
    assert limiter.take(urgent=False) == 60.0
    assert [limiter.take(urgent=True) for _ in range(2)] == [0.0] * 2
    assert limiter.take(urgent=True) == 60.0


def test_any_minute_is_kept_not_only_the_first() -> None:
    clock = Clock()
    limiter = RateLimiter(10, clock)
    passed: list[float] = []
    for _ in range(3000):
        if limiter.take(urgent=True) == 0.0:
            passed.append(clock.now)
        clock.now += 0.1
    assert max(sum(start <= at < start + 60 for at in passed) for start in passed) == 10
    assert len(passed) >= 50


@pytest.mark.parametrize("per_minute", [0.5, 1])
def test_the_smallest_limit_still_lets_polls_through(per_minute: float) -> None:
    assert RateLimiter(per_minute, Clock()).take(urgent=False) == 0.0


@pytest.mark.parametrize(("said", "closed"), [(7.0, 7.0), (3600.0, 60.0), (-5.0, 0.0)])
def test_a_429_closes_it_for_all_but_never_for_longer_than_a_window(said: float, closed: float) -> None:
    limiter = RateLimiter(10, Clock())
    limiter.close(said)
    assert limiter.take(urgent=True) == limiter.take(urgent=False) == closed


def test_all_hooks_of_a_connection_share_one() -> None:
    one = limiter_of("a", "https://api.segmind.com", 60)
    assert one is limiter_of("a", "https://api.segmind.com", 60)
    assert one is not limiter_of("b", "https://api.segmind.com", 60)


def test_a_poll_without_room_is_not_sent(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    set_connection(monkeypatch, simulator.url, requests_per_minute=5)
    for _ in range(4):
        LumaRayHook().get_status("unknown")
    with pytest.raises(LumaRayRateLimited, match="nothing was sent"):
        LumaRayHook().get_status("unknown")
    assert LumaRayHook().get_credits().total == 20
    assert simulator.calls == {"status": 4, "credits": 1}


def test_a_429_on_the_submit_is_waited_out_and_paid_once(
    monkeypatch: pytest.MonkeyPatch, frame: Path, tmp_path: Path
) -> None:
    with Simulator(latency=0.05, clip_seconds=0.2, api_key=API_KEY) as simulator:
        set_connection(monkeypatch, simulator.url)
        simulator.fault("submit", "status", status=429, seconds=0.2, times=2)
        make_operator(frame, tmp_path / "clip.mp4").execute(task_context())
        assert (simulator.calls["submit"], len(simulator.jobs), simulator.charges) == (3, 1, 1)


def test_a_429_that_outlasts_the_timeout_is_left_to_airflows_retry(
    monkeypatch: pytest.MonkeyPatch, connection: None, simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    from datetime import timedelta

    simulator.fault("submit", "status", status=429, seconds=600, times=9)
    with pytest.raises(LumaRayRateLimited):
        make_operator(frame, tmp_path / "clip.mp4", timeout=timedelta(seconds=1)).execute(task_context())
    assert (simulator.calls["submit"], simulator.charges) == (1, 0)
