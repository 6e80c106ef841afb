"""The rate limit: pure with the test's clock, and over real HTTP."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from airflow_provider_luma.exceptions import LumaRayRateLimited
from airflow_provider_luma.hooks.limiter import _WINDOW as WINDOW
from airflow_provider_luma.hooks.limiter import Rank, RateLimiter, limiter_of
from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.segmind.request import GenerationRequest
from airflow_provider_luma.simulator import Simulator
from tests.support import API_KEY, make_operator, set_connection, task_context


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_limit_passes_per_minute_and_the_next_call_learns_its_delay() -> None:
    clock = Clock()
    limiter = RateLimiter(10, clock)
    assert [limiter.take(Rank.URGENT) for _ in range(10)] == [0.0] * 10
    assert limiter.take(Rank.URGENT) == WINDOW
    clock.now += WINDOW - 1
    assert limiter.take(Rank.URGENT) == 1.0
    clock.now += 1
    assert limiter.take(Rank.URGENT) == 0.0


def test_a_window_is_a_minute_plus_a_second() -> None:
    assert 60 < WINDOW <= 62


def test_polls_leave_room_for_urgent_calls() -> None:
    limiter = RateLimiter(10, Clock())
    assert [limiter.take(Rank.POLL) for _ in range(8)] == [0.0] * 8
    assert limiter.take(Rank.POLL) == WINDOW
    assert [limiter.take(Rank.URGENT) for _ in range(2)] == [0.0] * 2
    assert limiter.take(Rank.URGENT) == WINDOW


def test_balance_checks_leave_room_for_polls_and_come_after_the_last_waiting_one() -> None:
    clock = Clock()
    limiter = RateLimiter(10, clock)
    assert [limiter.take(Rank.BALANCE) for _ in range(5)] == [0.0] * 5
    assert limiter.take(Rank.BALANCE) == WINDOW
    assert [limiter.take(Rank.POLL) for _ in range(3)] == [0.0] * 3
    turns = [limiter.take(Rank.POLL) for _ in range(4)]
    clock.now += turns[0]
    assert limiter.take(Rank.BALANCE) > turns[-1] - turns[0]
    for turn in turns[1:]:
        assert limiter.take(Rank.POLL) == 0.0
        clock.now = 1000 + turn
    clock.now += WINDOW
    assert limiter.take(Rank.BALANCE) == 0.0


def test_polls_without_room_get_successive_turns() -> None:
    clock = Clock()
    limiter = RateLimiter(10, clock)
    for _ in range(8):
        limiter.take(Rank.POLL)
    delays = [limiter.take(Rank.POLL) for _ in range(4)]
    assert delays == pytest.approx([WINDOW + turn * WINDOW / 8 for turn in range(4)])
    clock.now += delays[0]
    assert limiter.take(Rank.POLL) == 0.0


def test_asking_before_ones_turn_does_not_postpone_it_for_ever() -> None:
    limiter = RateLimiter(10, Clock())
    assert max(limiter.take(Rank.POLL) for _ in range(1000)) == 2 * WINDOW


def test_many_waiting_polls_all_get_their_turn_with_few_retries() -> None:
    clock = Clock()
    limiter = RateLimiter(60, clock)
    due = dict.fromkeys(range(300), clock.now)
    asked = 0
    while due:
        job = min(due, key=due.__getitem__)
        clock.now = max(clock.now, due[job])
        asked += 1
        delay = limiter.take(Rank.POLL)
        if delay:
            due[job] += delay
        else:
            del due[job]
    assert asked < 5 * 300
    assert clock.now - 1000 < 1.2 * 300 / 48 * WINDOW


def test_more_waiting_jobs_mean_longer_spacing() -> None:
    limiter = RateLimiter(60)
    assert limiter.spacing() == 0
    with limiter.waiting():
        one = limiter.spacing()
        with limiter.waiting():
            assert limiter.spacing() == 2 * one == pytest.approx(2 * WINDOW / 30)
    with pytest.raises(RuntimeError), limiter.waiting():
        raise RuntimeError
    assert limiter.spacing() == 0


def test_the_limit_holds_in_any_minute() -> None:
    clock = Clock()
    limiter = RateLimiter(10, clock)
    passed: list[float] = []
    for _ in range(3000):
        if limiter.take(Rank.URGENT) == 0.0:
            passed.append(clock.now)
        clock.now += 0.1
    assert max(sum(start <= at < start + WINDOW for at in passed) for start in passed) == 10
    assert len(passed) >= 50


@pytest.mark.parametrize("per_minute", [0.5, 1])
def test_the_smallest_limit_still_lets_polls_through(per_minute: float) -> None:
    assert RateLimiter(per_minute, Clock()).take(Rank.POLL) == 0.0


@pytest.mark.parametrize(("said", "closed"), [(7.0, 7.0), (3600.0, WINDOW), (0.0, 0.01), (-5.0, 0.01)])
def test_a_429_closes_the_limiter_for_a_second_to_a_window(said: float, closed: float) -> None:
    limiter = RateLimiter(10, Clock())
    assert limiter.close(said)
    assert closed <= limiter.take(Rank.URGENT) <= 1.1 * closed
    assert limiter.take(Rank.POLL) == limiter.take(Rank.URGENT)


def test_a_second_429_does_not_close_it_again() -> None:
    clock = Clock()
    limiter = RateLimiter(10, clock)
    assert [limiter.close(7.0), limiter.close(9.0)] == [True, False]
    clock.now += 10
    assert limiter.close(7.0)


def test_processes_refused_together_return_apart() -> None:
    limiters = [RateLimiter(10, Clock()) for _ in range(50)]
    for limiter in limiters:
        limiter.close(60)
    delays = [limiter.take(Rank.URGENT) for limiter in limiters]
    assert max(delays) - min(delays) > 2


def test_polls_get_rarer_with_each_429_and_recover_without() -> None:
    clock = Clock()
    limiter = RateLimiter(60, clock)
    with limiter.waiting():
        alone = limiter.spacing()
        limiter.close(1)
        limiter.close(1)
        assert limiter.spacing() == 2 * alone, "what is refused at one time counts once"
        for _ in range(9):
            clock.now += 3
            limiter.close(1)
        assert 30 * alone < limiter.spacing() <= 64 * alone
        clock.now += 10 * WINDOW
        assert limiter.spacing() == alone


def test_all_hooks_of_a_connection_share_one_limiter() -> None:
    one = limiter_of("a", "https://api.segmind.com", 60)
    assert one is limiter_of("a", "https://api.segmind.com", 60)
    assert one is not limiter_of("b", "https://api.segmind.com", 60)


def test_a_poll_without_room_is_not_sent(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    set_connection(monkeypatch, simulator.url, requests_per_minute=5)
    for _ in range(4):
        LumaRayHook().get_status("unknown")
    with pytest.raises(LumaRayRateLimited, match="nothing was sent") as refused:
        LumaRayHook().get_status("unknown")
    assert 0 < refused.value.seconds_to_reset() <= WINDOW
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


@pytest.mark.parametrize("call", ["upload", "credits"])
def test_a_429_before_the_submit_is_waited_out(
    monkeypatch: pytest.MonkeyPatch,
    connection: None,
    simulator: Simulator,
    frame: Path,
    tmp_path: Path,
    call: str,
) -> None:
    simulator.fault(call, "status", status=429, seconds=0.1, times=6)
    operator = make_operator(frame, tmp_path / "clip.mp4", min_remaining_credits=1)
    operator.execute(task_context())
    assert (simulator.calls[call], simulator.charges) == (7, 1)


def test_a_429_that_outlasts_the_timeout_is_left_to_airflows_retry(
    monkeypatch: pytest.MonkeyPatch, connection: None, simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    from datetime import timedelta

    simulator.fault("submit", "status", status=429, seconds=600, times=9)
    with pytest.raises(LumaRayRateLimited):
        make_operator(frame, tmp_path / "clip.mp4", timeout=timedelta(seconds=1)).execute(task_context())
    assert (simulator.calls["submit"], simulator.charges) == (1, 0)


def test_the_reserved_slot_goes_to_the_paid_call(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_connection(monkeypatch, simulator.url, requests_per_minute=2)
    hook, other = LumaRayHook(), LumaRayHook()
    hook.reserve()
    hook.reserve()
    other.get_credits()
    assert other.limiter.take(Rank.URGENT) > 0
    hook.submit(GenerationRequest("luma-ray-img-2-video", "p", None))
    assert simulator.calls == {"credits": 1, "submit": 1}


def test_429s_are_logged_once_until_the_limiter_opens_again(
    simulator: Simulator, connection: None, caplog: pytest.LogCaptureFixture
) -> None:
    simulator.fault("status", "status", status=429, seconds=30, times=9)
    caplog.set_level("INFO")
    with ThreadPoolExecutor(8) as threads:
        for future in [threads.submit(LumaRayHook().get_status, "unknown") for _ in range(8)]:
            assert isinstance(future.exception(), LumaRayRateLimited)
    assert LumaRayHook().limiter.take(Rank.URGENT) > 20
    assert caplog.text.count("rate limit is reached") == 1
