"""A history that is down, malformed, late or wrong, in virtual time: no job is settled wrongly or late."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.segmind.history import HistoryEntry
from airflow_provider_luma.segmind.models import model_info
from airflow_provider_luma.segmind.polling import next_poll
from airflow_provider_luma.segmind.replies import VendorStatus
from airflow_provider_luma.segmind.request import GenerationRequest
from airflow_provider_luma.simulator import Simulator
from airflow_provider_luma.triggers.luma_ray import LumaRayJobTrigger
from tests import virtual_time
from tests.support import API_KEY, set_connection

MODEL = "luma-ray-img-2-video"
TYPICAL = model_info(MODEL).typical_seconds
JOBS = 20
PER_MINUTE = 600


@pytest.fixture(scope="module")
def work_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("simulator")


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch, work_dir: Path) -> Iterator[Callable[..., Simulator]]:
    running: list[Simulator] = []

    def start(**options: Any) -> Simulator:
        simulator = Simulator(
            clip_seconds=0.2, credits="1000", api_key=API_KEY, work_dir=work_dir, **options
        ).start()
        running.append(simulator)
        set_connection(monkeypatch, simulator.url)
        return simulator

    yield start
    for simulator in running:
        simulator.stop()


def seen(simulator: Simulator, per_minute: float = PER_MINUTE) -> dict[str, tuple[str, float]]:
    """Let several jobs wait together; return why each one's worker was woken, and how long after the job's end."""
    random.seed(JOBS)
    jobs = [LumaRayHook().submit(GenerationRequest(MODEL, "p", None)) for _ in range(JOBS)]
    created = {job.request_id: job.created for job in simulator.jobs}

    async def wait(request_id: str) -> tuple[str, float]:
        trigger = LumaRayJobTrigger(
            luma_ray_conn_id="luma_ray_default",
            request_id=request_id,
            model=MODEL,
            submitted_at=datetime.fromtimestamp(created[request_id], UTC).isoformat(),
            timeout=900.0,
        )
        async for event in trigger.run():
            state = next(job.state for job in simulator.jobs if job.request_id == request_id)
            assert (event.payload["reason"], state) in (("ready", "COMPLETED"), ("failed", "FAILED"))
            return event.payload["reason"], simulator.now() - created[request_id]
        raise AssertionError

    async def all_of_them() -> dict[str, tuple[str, float]]:
        return dict(zip(jobs, await asyncio.gather(*map(wait, jobs)), strict=True))

    with virtual_time.triggerer(simulator, per_minute) as loop:
        return loop.run_until_complete(all_of_them())


def down(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    simulator.fault("history", "status", status=503, times=9999)


def other_shape(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    simulator.fault("history", "wrong_shape", times=9999)


def states(change: Callable[[int, HistoryEntry], VendorStatus]) -> Callable[..., None]:
    """Show rows of this page in a state other than the job's."""

    def plant(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
        newest_jobs = LumaRayHook.newest_jobs
        pages: list[int] = []

        def told(hook: LumaRayHook, *arguments: Any) -> list[HistoryEntry]:
            pages.append(0)
            rows = newest_jobs(hook, *arguments)
            return [replace(row, state=change(len(pages), row)) for row in rows]

        monkeypatch.setattr(LumaRayHook, "newest_jobs", told)

    return plant


FAULTS = {
    "down": down,
    "of another shape": other_shape,
    "never shows an end": states(lambda page, row: VendorStatus.PROCESSING),
}


@pytest.mark.parametrize("latency", [20, 125, 400])
@pytest.mark.parametrize("per_minute", [60, PER_MINUTE])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_useless_history_delays_no_job_by_more_than_a_poll(
    vendor: Callable[..., Simulator],
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    latency: float,
    per_minute: int,
) -> None:
    simulator = vendor(latency=latency)
    FAULTS[fault](simulator, monkeypatch)
    check_seen(seen(simulator, per_minute), latency, per_minute)


@pytest.mark.parametrize("latency", [20, 125])
def test_rows_a_minute_late_delay_no_job(vendor: Callable[..., Simulator], latency: float) -> None:
    check_seen(seen(vendor(latency=latency, history_lag=60.0)), latency, PER_MINUTE)


def test_a_page_with_false_ends_wakes_no_worker(
    vendor: Callable[..., Simulator], monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = (VendorStatus.COMPLETED, VendorStatus.FAILED)
    states(lambda page, row: row.state if row.state in ends else ends[page % 2])(
        vendor(latency=125), monkeypatch
    )
    check_seen(seen(vendor(latency=125)), 125, PER_MINUTE)


def check_seen(found: dict[str, tuple[str, float]], latency: float, per_minute: int) -> None:
    """Check that each job is at most its longest scheduled pause late, plus a poll."""
    spacing = JOBS * 61 / (per_minute / 2)
    pause = next_poll(latency, TYPICAL, spacing=spacing, jitter=1.0) - latency
    for reason, at in found.values():
        assert reason == "ready"
        assert 0 <= at - latency <= 2 * pause + 1
