"""One page of the request history for many jobs, over real HTTP: what it proves, and when it is not used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.jobs.polling import HistoryPoller
from airflow_provider_luma.segmind.polling import Verdict
from airflow_provider_luma.segmind.request import GenerationRequest
from airflow_provider_luma.simulator import Simulator
from tests.support import API_KEY, set_connection

MODEL = "luma-ray-img-2-video"


@pytest.fixture
def simulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    """A vendor with jobs so long that the test must advance its clock."""
    with Simulator(latency=60, clip_seconds=0.2, credits="100", api_key=API_KEY) as running:
        set_connection(monkeypatch, running.url)
        yield running


class Crowd:
    """Jobs that wait together, and the verdicts that they get."""

    def __init__(self, jobs: int) -> None:
        self.now = 0.0
        self.history = HistoryPoller(clock=lambda: self.now)
        self.told: dict[str, Verdict] = {}
        self._waits = ExitStack()
        for _ in range(jobs):
            request_id = LumaRayHook().submit(GenerationRequest(MODEL, "p", None))
            self._waits.enter_context(
                self.history.waiting(request_id, partial(self.told.__setitem__, request_id))
            )

    def poll(self, after: float = 10) -> bool:
        self.now += after
        return self.history.poll(LumaRayHook())


def test_one_page_answers_for_all_after_one_of_its_rows_was_checked(simulator: Simulator) -> None:
    simulator.fail_next()
    crowd = Crowd(6)
    assert crowd.poll()
    assert crowd.told == {}, "a pending row proves nothing"
    simulator.advance(60)
    assert crowd.poll()
    assert list(crowd.told.values()).count(Verdict.READY) == 5
    assert crowd.told[simulator.jobs[0].request_id] is Verdict.FAILED
    assert simulator.calls == {"submit": 6, "history": 2, "status": 1}


def test_a_row_that_is_missing_proves_nothing(simulator: Simulator) -> None:
    simulator.delay_history("next", 3600)
    crowd = Crowd(4)
    crowd.poll()
    assert [crowd.history.shows(job.request_id) for job in simulator.jobs] == [False, True, True, True]
    simulator.advance(60)
    crowd.poll()
    assert set(crowd.told) == {job.request_id for job in simulator.jobs[1:]}
    assert crowd.history.is_of_use


def test_a_page_is_fetched_at_intervals_and_only_for_several_jobs(simulator: Simulator) -> None:
    two = Crowd(2)
    assert not two.poll()
    crowd = Crowd(3)
    for _ in range(10):
        crowd.poll(after=0.5)
    assert simulator.calls["history"] == 3


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("status", {"status": 500}),
        ("status", {"status": 401}),
        ("status", {"status": 404}),
        ("html", {}),
        ("history_lies", {}),
    ],
)
def test_a_useless_history_is_left_alone_logged_once_and_retried_later(
    simulator: Simulator, caplog: pytest.LogCaptureFixture, kind: str, options: dict[str, Any]
) -> None:
    Crowd(1)
    simulator.advance(60)
    crowd = Crowd(3)
    simulator.fault("history", kind, **options, times=2)
    crowd.poll()
    assert not crowd.poll()
    assert crowd.told == {}
    assert not crowd.poll()
    assert caplog.text.count("The request history cannot replace the status calls") == 1
    simulator.clear_faults()
    simulator.advance(60)
    assert crowd.poll(after=300)
    assert len(crowd.told) == 3


def test_a_page_may_fail_once(simulator: Simulator) -> None:
    crowd = Crowd(3)
    simulator.fault("history", "status", status=503)
    simulator.advance(60)
    assert crowd.poll()
    assert crowd.told == {}
    assert crowd.poll()
    assert len(crowd.told) == 3


def test_jobs_beyond_the_first_page_are_found_on_the_next_ones(simulator: Simulator) -> None:
    simulator.set_credits("1000")
    early = Crowd(1)
    simulator.advance(60)
    crowd = Crowd(230)
    crowd.poll()
    ids = [job.request_id for job in simulator.jobs[1:]]
    assert sum(map(crowd.history.shows, ids)) == 100
    crowd.poll()
    crowd.poll()
    assert all(map(crowd.history.shows, ids))
    simulator.advance(60)
    for _ in range(3):
        crowd.poll()
    assert set(crowd.told) == set(ids)
    assert early.told == {}
    pages = [request.query["page"] for request in simulator.requests if request.call == "history"]
    assert pages == ["1", "2", "3"] * 2


def test_a_job_that_keeps_waiting_is_not_told_of_its_end_again(simulator: Simulator) -> None:
    """The history was right about other jobs, but this row may lie, or the worker's own poll failed."""
    Crowd(1)
    simulator.advance(60)
    crowd = Crowd(4)
    crowd.poll()
    simulator.advance(60)
    crowd.poll()
    assert len(crowd.told) == 4
    crowd.told.clear()
    crowd.poll()
    assert crowd.told == {}
    assert not any(crowd.history.shows(job.request_id) for job in simulator.jobs[1:]), (
        "its status calls go on"
    )


def test_a_late_history_is_replaced_by_status_calls(simulator: Simulator) -> None:
    crowd = Crowd(4)
    assert crowd.poll()
    crowd.history.missed()
    crowd.history.missed()
    assert crowd.history.is_of_use, "one or two are chance"
    crowd.history.missed()
    assert not crowd.history.is_of_use


def test_a_slow_history_is_replaced_by_status_calls(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd = Crowd(3)
    newest_jobs = LumaRayHook.newest_jobs

    def slow(hook: LumaRayHook, page: int) -> object:
        crowd.now += 20
        return newest_jobs(hook, page)

    monkeypatch.setattr(LumaRayHook, "newest_jobs", slow)
    simulator.advance(60)
    assert not crowd.poll()
    assert len(crowd.told) == 3, "it is believed all the same"


def test_a_rate_limit_does_not_discredit_the_history(simulator: Simulator) -> None:
    crowd = Crowd(3)
    simulator.fault("history", "status", status=429, seconds=0)
    assert crowd.poll()
    assert crowd.told == {}
