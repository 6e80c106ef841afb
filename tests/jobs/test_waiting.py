"""The wait for one job, over real HTTP: what is learned, when it looks, and what it does where there is no room."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from operator import itemgetter

import pytest

from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.jobs.waiting import Experience, Watch, experience_of
from airflow_provider_luma.segmind.polling import Verdict
from airflow_provider_luma.segmind.replies import VendorStatus
from airflow_provider_luma.segmind.request import GenerationRequest
from airflow_provider_luma.simulator import Simulator
from benchmarks.server import durations
from tests.support import API_KEY, set_connection

MODEL = "luma-ray-img-2-video"
CONN_ID = "luma_ray_default"


class Patience:
    """A clock of the seconds waited, moved by the test, and the simulator's with it."""

    def __init__(self, simulator: Simulator) -> None:
        self.waited = 0.0
        self._simulator = simulator

    def __call__(self) -> float:
        return self.waited

    def pass_by(self, seconds: float) -> None:
        self.waited += seconds
        self._simulator.advance(seconds)


def watch_of(patience: Patience, request_id: str, poll_interval: float | None = None) -> Watch:
    return Watch(CONN_ID, request_id, MODEL, waited=patience, timeout=900, poll_interval=poll_interval)


def learn(experience: Experience, seconds: float) -> None:
    with experience.waiting() as wait:
        wait.took = seconds


def submitted() -> str:
    return LumaRayHook().submit(GenerationRequest(MODEL, "p", None))


def waited_for(simulator: Simulator) -> tuple[int, float]:
    """Wait for a new job; return how many looks that took, and after how many seconds it was seen to be done."""
    patience = Patience(simulator)
    watch = watch_of(patience, submitted())
    looks, verdict = 0, Verdict.WAIT
    with watch.learning():
        while verdict is Verdict.WAIT:
            patience.pass_by(watch.delay())
            _, verdict = watch.look(LumaRayHook())
            looks += 1
    assert verdict is Verdict.READY
    return looks, patience.waited


@pytest.mark.parametrize("latency", [40.0, 250.0])
def test_after_a_few_jobs_the_next_ones_end_is_known(monkeypatch: pytest.MonkeyPatch, latency: float) -> None:
    with Simulator(latency=latency, clip_seconds=0.2, credits="100", api_key=API_KEY) as simulator:
        set_connection(monkeypatch, simulator.url)
        for _ in range(3):
            waited_for(simulator)
        assert experience_of(CONN_ID, MODEL).typical == pytest.approx(latency, rel=0.02)
        looks, seen_after = waited_for(simulator)
    assert looks <= 9
    assert latency <= seen_after <= 1.06 * latency


def test_what_one_account_took_says_nothing_about_another() -> None:
    for _ in range(3):
        learn(experience_of(CONN_ID, MODEL), 60)
    assert experience_of(CONN_ID, MODEL).typical == 60
    assert experience_of("other", MODEL).typical == 125
    assert experience_of(CONN_ID, "luma-ray-3-2").typical == 52


def test_a_failed_job_teaches_nothing(simulator: Simulator, connection: None) -> None:
    simulator.fail_next()
    patience = Patience(simulator)
    watch = watch_of(patience, submitted())
    patience.pass_by(1)
    with watch.learning():
        assert watch.look(LumaRayHook())[1] is Verdict.FAILED
    assert experience_of(CONN_ID, MODEL).is_new


def test_threads_learn_together_and_forget_what_is_old() -> None:
    experience = Experience(MODEL)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(partial(learn, experience), [450.0] * 400))
        assert experience.typical == 450
        list(threads.map(partial(learn, experience), [100.0] * 40))
    assert experience.typical == 100


def test_a_crowd_is_not_judged_by_its_quickest_nor_by_its_slowest() -> None:
    experience = Experience(MODEL)
    times = durations(1000, 125, 0.2)
    typical = []
    with ExitStack() as left_over:
        crowd = []
        for took in times:
            wait = ExitStack()
            wait.enter_context(experience.waiting()).took = took
            left_over.push(wait)
            crowd.append((took, wait))
        for _, wait in sorted(crowd, key=itemgetter(0)):
            wait.close()
            typical.append(experience.typical)
    assert all(110 < seconds < 140 for seconds in typical)


def test_an_abandoned_wait_does_not_hold_up_the_others() -> None:
    experience = Experience(MODEL)
    with experience.waiting():
        for _ in range(3):
            learn(experience, 60)
        assert experience.is_new
    assert experience.typical == 60


def test_where_there_is_no_room_the_wait_comes_back_when_there_is(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_connection(monkeypatch, simulator.url, requests_per_minute=5)
    patience = Patience(simulator)
    watch = watch_of(patience, "r1", poll_interval=0.05)
    delays = []
    for _ in range(20):
        delays.append(watch.delay())
        status, verdict = watch.look(LumaRayHook())
        assert (status.state in (VendorStatus.NOT_FOUND, VendorStatus.UNKNOWN), verdict) == (
            True,
            Verdict.WAIT,
        )
    assert delays[:3] == pytest.approx([0.05] * 3)
    assert all(delay > 10 for delay in delays[3:])
    assert simulator.calls["status"] + simulator.calls["history_one"] == 4


def test_a_429_puts_the_next_look_off_until_the_limit_is_lifted(
    simulator: Simulator, connection: None
) -> None:
    simulator.fault("status", "status", status=429, seconds=30)
    watch = watch_of(Patience(simulator), "r1", poll_interval=1)
    watch.look(LumaRayHook())
    assert 25 < watch.delay() <= 30


def test_more_jobs_that_wait_put_a_look_off_that_was_due(simulator: Simulator) -> None:
    watch = watch_of(Patience(simulator), "r1")
    assert watch.delay() < 6
    assert 120 < watch.delay(spacing=50) < 140
    assert watch.delay(spacing=50) == watch.delay(spacing=50)


@pytest.mark.parametrize(("spacing", "most"), [(0, 5), (50, 50)])
def test_waits_taken_up_again_late_look_soon_but_not_all_at_once(
    simulator: Simulator, spacing: float, most: float
) -> None:
    patience = Patience(simulator)
    patience.waited = 600
    delays = {watch_of(patience, f"r{number}").delay(spacing) for number in range(50)}
    assert max(delays) <= most
    assert max(delays) - min(delays) > most / 3
    assert watch_of(patience, "r1", poll_interval=20).delay(spacing) == 20
