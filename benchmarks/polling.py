"""Polls per job, and how late its end is noticed, compared with the vendor's SDK and a 5 s loop.

Waiting takes no real time: the first table computes it, and the second advances the simulator's clock.
"""

# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import Empty
from statistics import fmean
from types import SimpleNamespace
from typing import Any
from unittest import mock

from benchmarks.report import Limit, Report
from benchmarks.server import SEED, durations
from benchmarks.surroundings import API_KEY, FRAME, MODEL, connection, task_context

TYPICAL = 125.0
SPREAD = 0.2
DRAWS = 1000
SERVED_DRAWS = 10
DURATIONS = (2, 5, 10, 20, 40, 60, 80, 100, 125, 160, 250, 400, 900)
MOST_POLLS = {125.0: 25, 900.0: 45}
#: The mean, as a share of the job's duration; two seconds are soon enough for any job.
MOST_LAG = 0.08
MOST_LAG_ABOUT_TYPICAL = 0.03
#: The factor by which the mean of ten draws may exceed the limit: nearly four standard deviations.
MOST_OFF = 1.6

#: Seconds until the next poll, from the seconds waited; the first poll comes after the pause at 0.
Schedule = Callable[[float], float]
#: How many polls a job took, and how many seconds after its end the last one was made.
Wait = tuple[int, float]


def ours(waited: float) -> float:
    """Return our adaptive pause, which blocking and deferrable tasks share."""
    from airflow_provider_luma.segmind.polling import next_poll

    return next_poll(waited, TYPICAL, jitter=random.random()) - waited


def watch(duration: float, schedule: Schedule, *, at_once: bool = False) -> Wait:
    """Poll a job of this duration until it is seen to be done; with ``at_once``, also right after submitting."""
    waited, looks = 0.0, int(at_once)
    while waited < duration:
        waited += schedule(waited)
        looks += 1
    return looks, waited - duration


def run(draws: int = DRAWS, served_draws: int = SERVED_DRAWS) -> list[Report]:
    """Run the pure schedules on many draws, and the real clients over HTTP on some."""
    random.seed(SEED)  # for the jitter
    return [computed(draws), served(served_draws)]


def computed(draws: int) -> Report:
    """Feed virtual time to the schedules."""
    report = Report(
        f"Polling one job, {draws} draws each: the schedules alone",
        _COLUMNS,
        notes=["The vendor's SDK polls at once and then every second; the loop polls every 5 s."],
    )
    for label, times in (
        *((f"jobs of {duration} s", [float(duration)] * draws) for duration in DURATIONS),
        (f"about {TYPICAL:.0f} s, lognormal, sd {SPREAD:.0%}", durations(draws, TYPICAL, SPREAD)),
    ):
        waits = [watch(duration, ours) for duration in times]
        report.rows.append(_row(f"ours, {label}", times, waits))
        report.limits += _limits(f"ours, {label}", times, waits, 1)
    usual = durations(draws, TYPICAL, SPREAD)
    report.rows.append(
        _row("segmind SDK, lognormal", usual, [watch(d, lambda _: 1.0, at_once=True) for d in usual])
    )
    report.rows.append(_row("5 s loop, lognormal", usual, [watch(d, lambda _: 5.0) for d in usual]))
    return report


def served(draws: int) -> Report:
    """Let operator, trigger and SDK wait for a simulator's jobs; their pauses advance its clock.

    Each wait is independent: nothing is learned from an earlier one.
    """
    report = Report(
        f"The same over HTTP, {draws} draws each, with the simulator's clock advanced",
        _COLUMNS,
        notes=[
            "Deferred: when the trigger notices the end; it fires no earlier than ten seconds after the deferral.",
            "A 5 s loop happens to poll exactly at the end of a job that takes a multiple of 5 s.",
        ],
    )
    times = {f"jobs of {duration} s": [float(duration)] * draws for duration in DURATIONS}
    times[f"about {TYPICAL:.0f} s, lognormal"] = durations(4 * draws, TYPICAL, SPREAD)
    with tempfile.TemporaryDirectory() as folder:
        for label, usual in times.items():
            for way, client in (("blocking", _with_operator), ("deferred", _with_trigger)):
                waits = [_serve(duration, Path(folder), client) for duration in usual]
                report.rows.append(_row(f"{way}, {label}", usual, waits))
                report.limits += _limits(f"{way}, {label}", usual, waits, MOST_OFF)
            sdk = [_serve(duration, Path(folder), _with_sdk) for duration in usual]
            report.rows.append(_row(f"segmind SDK, {label}", usual, sdk))
            loop = [watch(duration, lambda _: 5.0) for duration in usual]
            report.rows.append(_row(f"5 s loop (computed), {label}", usual, loop))
    return report


def _limits(label: str, times: list[float], waits: list[Wait], most: float) -> list[Limit]:
    lag, polls = fmean(late for _, late in waits), fmean(polls for polls, _ in waits)
    shares = [MOST_LAG_ABOUT_TYPICAL if 2 / 3 <= d / TYPICAL <= 4 / 3 else MOST_LAG for d in times]
    allowed = fmean(max(share * d, 2) for share, d in zip(shares, times, strict=True))
    limits = [Limit(f"{label}: lag, as a share of what is allowed", lag / allowed, most)]
    if times[0] in MOST_POLLS:
        limits.append(Limit(f"{label}: polls (mean)", polls, MOST_POLLS[times[0]]))
    return limits


_COLUMNS = ("wait", "requests (mean)", "(most)", "lag, % of the job's time (mean)", "(95th percentile)")


def _row(label: str, times: list[float], waits: list[Wait]) -> tuple[str, float, int, float, float]:
    looks = [wait[0] for wait in waits]
    lags = sorted(_lags(times, waits))
    return label, fmean(looks), max(looks), fmean(lags), lags[int(0.95 * len(lags))]


def _lags(times: list[float], waits: list[Wait]) -> list[float]:
    return [100 * lag / duration for duration, (_, lag) in zip(times, waits, strict=True)]


def _serve(duration: float, folder: Path, client: Callable[[Any, Path], None]) -> Wait:
    """Let a client wait for one job; the simulator's log has its polls and their times."""
    from airflow_provider_luma.simulator import Simulator

    with Simulator(latency=duration, clip_seconds=0.2, work_dir=folder) as simulator:
        client(simulator, folder)
        looks = [request.time for request in simulator.requests if request.call == "status"]
        return len(looks), looks[-1] - (simulator.jobs[0].created + duration)


def _with_operator(simulator: Any, folder: Path) -> None:
    from airflow_provider_luma.operators.luma_ray import LumaRayImageToVideoOperator

    task = LumaRayImageToVideoOperator(
        task_id="generate",
        prompt="a slow push in",
        start_frame=str(FRAME),
        output_path=str(folder / f"{time.monotonic_ns()}.mp4"),
        resolution="540p",
        timeout=timedelta(minutes=30),
        api_version="v2",
    )
    variables = {"AIRFLOW_CONN_LUMA_RAY_DEFAULT": connection(simulator.url, requests_per_minute=100_000)}
    with mock.patch.dict(os.environ, variables), _moving_clock(simulator):
        task.execute(task_context())


def _with_trigger(simulator: Any, folder: Path) -> None:
    from airflow_provider_luma.hooks.luma_ray import LumaRayHook
    from airflow_provider_luma.segmind.request import GenerationRequest
    from airflow_provider_luma.triggers.luma_ray import LumaRayJobTrigger
    from tests import virtual_time

    async def wait(request_id: str) -> None:
        trigger = LumaRayJobTrigger(
            luma_ray_conn_id="luma_ray_default",
            request_id=request_id,
            model=MODEL,
            submitted_at=datetime.fromtimestamp(simulator.now(), UTC).isoformat(),
            timeout=1800.0,
        )
        async for event in trigger.run():
            if event.payload["reason"] != "ready":
                raise RuntimeError(f"the trigger says {event.payload}")

    variables = {"AIRFLOW_CONN_LUMA_RAY_DEFAULT": connection(simulator.url, requests_per_minute=100_000)}
    with mock.patch.dict(os.environ, variables), virtual_time.triggerer(simulator) as loop:
        loop.run_until_complete(wait(LumaRayHook().submit(GenerationRequest(MODEL, "p", None))))


@contextmanager
def _moving_clock(simulator: Any) -> Iterator[None]:
    """Let the operator's wait use the simulator's clock, and its pauses advance it."""
    from airflow_provider_luma.hooks.clock import VendorClock
    from airflow_provider_luma.operators import luma_ray

    class Pauses:
        def get(self, timeout: float) -> None:
            simulator.advance(timeout)
            raise Empty

    def now(clock: VendorClock) -> datetime:
        return datetime.fromtimestamp(simulator.now(), UTC)

    with mock.patch.object(VendorClock, "now", now), mock.patch.object(luma_ray, "SimpleQueue", Pauses):
        yield


def _with_sdk(simulator: Any, folder: Path) -> None:
    from segmind import SegmindClient, v2

    client = SegmindClient(api_key=API_KEY, base_url=f"{simulator.url}/v1")
    clock = SimpleNamespace(sleep=simulator.advance, monotonic=simulator.now)
    try:
        with mock.patch.object(v2, "time", clock):
            client.submit_async(MODEL, prompt="a slow push in", loop=False).wait(timeout=1800)
    finally:
        client._client.close()
