"""Polling one job over real HTTP: when, and what happens if the rate limit has no room or no answer comes."""

from __future__ import annotations

import random
from statistics import fmean

import pytest

from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.jobs.polling import JobPoller
from airflow_provider_luma.segmind.polling import Verdict
from airflow_provider_luma.segmind.replies import VendorStatus
from airflow_provider_luma.segmind.request import GenerationRequest
from airflow_provider_luma.simulator import Simulator
from tests.support import API_KEY, set_connection

MODEL = "luma-ray-img-2-video"


class Patience:
    """A clock of the seconds waited; the test advances it and the simulator's together."""

    def __init__(self, simulator: Simulator) -> None:
        self.waited = 0.0
        self._simulator = simulator

    def __call__(self) -> float:
        return self.waited

    def pass_by(self, seconds: float) -> None:
        self.waited += seconds
        self._simulator.advance(seconds)


def poller_of(patience: Patience, request_id: str, poll_interval: float | None = None) -> JobPoller:
    return JobPoller(
        request_id,
        MODEL,
        waited=patience,
        timeout=900,
        poll_interval=poll_interval,
        clock=lambda: patience.waited,
    )


def submitted() -> str:
    return LumaRayHook().submit(GenerationRequest(MODEL, "p", None))


def waited_for(simulator: Simulator, poll_interval: float | None = None) -> tuple[int, float]:
    """Wait for a new job; return the number of polls, and the seconds until its end was noticed."""
    patience = Patience(simulator)
    poller = poller_of(patience, submitted(), poll_interval)
    polls, verdict = 0, Verdict.WAIT
    while verdict is Verdict.WAIT:
        patience.pass_by(poller.delay())
        _, verdict = poller.poll(LumaRayHook())
        polls += 1
    assert verdict is Verdict.READY
    return polls, patience.waited


@pytest.mark.parametrize("duration", [2, 10, 40, 125, 400])
def test_the_end_of_a_processs_first_job_is_noticed_soon(
    monkeypatch: pytest.MonkeyPatch, duration: float
) -> None:
    random.seed(duration)  # of the jitter
    with Simulator(latency=duration, clip_seconds=0.2, credits="100", api_key=API_KEY) as simulator:
        set_connection(monkeypatch, simulator.url)
        waits = [waited_for(simulator) for _ in range(8)]
    assert max(polls for polls, _ in waits) <= 45
    assert fmean(seen - duration for _, seen in waits) <= max(0.1 * duration, 3)


def test_the_users_interval_is_kept_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    with Simulator(latency=125, clip_seconds=0.2, api_key=API_KEY) as simulator:
        set_connection(monkeypatch, simulator.url)
        assert waited_for(simulator, poll_interval=30) == (5, 150)


def test_a_clock_jump_does_not_lengthen_a_pause() -> None:
    now, waited = 0.0, 200.0
    poller = JobPoller("r1", MODEL, waited=lambda: waited, timeout=900, poll_interval=None, clock=lambda: now)
    pause = poller.delay()
    waited = -3600.0
    assert poller.delay() == pause <= 5
    now = pause
    assert poller.delay() == 0


def test_no_poll_is_later_than_the_deadline(simulator: Simulator) -> None:
    patience = Patience(simulator)
    poller = poller_of(patience, "r1", poll_interval=900)
    patience.waited = 899.5
    assert poller.delay() == 0.5
    patience.waited = 901
    assert poller.delay() == 0


def test_a_poll_without_room_waits_until_there_is_room(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_connection(monkeypatch, simulator.url, requests_per_minute=5)
    poller = poller_of(Patience(simulator), "r1", poll_interval=0.05)
    delays = []
    for _ in range(20):
        delays.append(poller.delay())
        status, verdict = poller.poll(LumaRayHook())
        assert status.state in (VendorStatus.NOT_FOUND, VendorStatus.UNKNOWN)
        assert verdict is Verdict.WAIT
    assert delays[:3] == pytest.approx([0.05] * 3)
    assert all(delay > 10 for delay in delays[3:])
    assert simulator.calls["status"] + simulator.calls["history_one"] == 4


def test_a_429_delays_the_next_poll_until_the_limit_is_lifted(simulator: Simulator, connection: None) -> None:
    simulator.fault("status", "status", status=429, seconds=30)
    poller = poller_of(Patience(simulator), "r1", poll_interval=1)
    poller.poll(LumaRayHook())
    assert 25 < poller.delay() <= 30


def test_more_waiting_jobs_delay_a_due_poll(simulator: Simulator) -> None:
    poller = poller_of(Patience(simulator), "r1")
    assert poller.delay() <= 3
    assert 125 < poller.delay(spacing=200) < 160
    assert poller.delay(spacing=200) == poller.delay(spacing=200)


@pytest.mark.parametrize(("spacing", "most"), [(0, 5), (50, 50)])
def test_resumed_waits_poll_soon_but_not_all_at_once(
    simulator: Simulator, spacing: float, most: float
) -> None:
    patience = Patience(simulator)
    patience.waited = 600
    delays = {poller_of(patience, f"r{number}").delay(spacing) for number in range(50)}
    assert max(delays) <= most
    assert max(delays) - min(delays) > most / 3
    assert poller_of(patience, "r1", poll_interval=20).delay(spacing) == 20


@pytest.mark.parametrize(
    ("spacing", "is_shown", "earliest", "latest"),
    [(0, False, 1, 4), (0, True, 1, 8), (60, True, 96, 144)],  # jitter: two minutes, more or less a fifth
)
def test_a_job_on_the_history_page_still_has_rare_status_calls(
    simulator: Simulator, spacing: float, is_shown: bool, earliest: float, latest: float
) -> None:
    patience = Patience(simulator)
    poller = poller_of(patience, "r1")
    while not poller.is_overdue(spacing, is_shown=is_shown):
        patience.waited += 1
        poller.passed()
    assert earliest <= patience.waited <= latest
