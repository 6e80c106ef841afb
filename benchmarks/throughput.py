"""Many jobs under an enforced rate limit, compared with the vendor's SDK in as many threads.

Runs in real time, as the limit counts by the minute. The ideal is the shortest time in which all jobs could be
delivered with only the two indispensable calls each (submit and result), made as early as the limit and the job's
duration allow; it requires knowing in advance when each job will be done. All our other calls count against it. The
last table is computed in virtual time: many worker processes of one account, each with its own limiter and one blocking
job. Downloads need no key and do not count against the limit, nor does the frame, a URL on another server. A frame from
a file costs one upload, which the ideal includes.
"""

# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import heapq
import json
import math
import os
import random
import tempfile
import time
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.crowd import Ending, run_task, triggerer
from benchmarks.report import Limit, Report
from benchmarks.server import SEED, durations
from benchmarks.surroundings import API_KEY, FRAME, MODEL, connection, server, upload

JOBS = 100
PROCESSES = 100
LATENCY = 125.0
SPREAD = 0.2
PER_MINUTE = 60
LEAST_SHARE = 1 / 1.3
MOST_REQUESTS = 2.6
MOST_REQUESTS_WITH_UPLOAD = 3.6
MOST_CALLS_REFUSED = 8
#: Calls without a key, and the benchmark's own.
_UNCOUNTED = ("download", "control")
_MINUTE = 60.0


def ideal(times: list[float], per_minute: int, *, uploads: bool = False) -> float:
    """Return the fewest seconds in which jobs of these durations could be delivered, with or without uploads."""
    calls: list[float] = []

    def make(moment: float) -> float:
        full_until = calls[-per_minute] + _MINUTE if len(calls) >= per_minute else 0.0
        calls.append(max(moment, full_until))
        return calls[-1]

    if uploads:
        for _ in times:
            make(0.0)
    ready = [make(0.0) + seconds for seconds in times]
    heapq.heapify(ready)
    last = 0.0
    while ready:
        last = make(heapq.heappop(ready))
    return last


@dataclass(frozen=True)
class Crowd:
    """The outcome of many jobs.

    :param endings: how each ended
    :param seconds: until the last one ended
    :param state: the simulator's state
    """

    endings: list[Ending]
    seconds: float
    state: dict[str, Any]

    @property
    def delivered(self) -> int:
        return sum(ending.error is None for ending in self.endings)


def run() -> list[Report]:
    """Run the crowd in real time, and the processes in virtual time."""
    return [crowds(), processes()]


def crowds(
    jobs: int = JOBS,
    latency: float = LATENCY,
    spread: float = SPREAD,
    per_minute: int = PER_MINUTE,
    poll_interval: float | None = None,
) -> Report:
    """Let ours wait for jobs of equal and of drawn durations, and the SDK for the former, all at the same time."""
    import_module("airflow_provider_luma.operators.luma_ray")  # before hundreds of threads do
    options = {"requests_per_minute": per_minute, "credits": "100000", "clip_seconds": 0.2}
    with (
        server(clip_seconds=0.2) as elsewhere,
        server(latency=latency, **options) as same,
        server(latency=latency, spread=spread, **options) as drawn,
        server(latency=latency, **options) as local,
        server(latency=latency, **options) as sdk,
        mock.patch.dict(
            os.environ,
            {
                f"AIRFLOW_CONN_BENCH_{name}": connection(url, requests_per_minute=per_minute)
                for name, url in (("SAME", same), ("DRAWN", drawn), ("LOCAL", local))
            },
        ),
        triggerer() as loop,
        ThreadPoolExecutor(4) as threads,
    ):
        frame = upload(elsewhere)
        ours = partial(run_task, loop, frame=frame, deferrable=True, poll_interval=poll_interval)
        crowds = {
            f"ours, jobs of {latency:g} s": threads.submit(
                _gather, jobs, same, partial(ours, luma_ray_conn_id="bench_same")
            ),
            f"ours, jobs drawn around it, sd {spread:.0%}": threads.submit(
                _gather, jobs, drawn, partial(ours, luma_ray_conn_id="bench_drawn")
            ),
            f"frames from files, ours, jobs of {latency:g} s": threads.submit(
                _gather, jobs, local, partial(ours, luma_ray_conn_id="bench_local", frame=str(FRAME))
            ),
            f"segmind SDK, {jobs} threads": threads.submit(
                _gather, jobs, sdk, partial(_with_sdk, sdk, frame)
            ),
        }
        found = {label: crowd.result() for label, crowd in crowds.items()}
    report = Report(
        f"{jobs} jobs at once under an enforced {per_minute} requests a minute",
        ("way", "delivered", "bought", "failed", "requests", "s", "ideal s", "share of the ideal throughput"),
        notes=[
            "Throughput is the videos delivered by the time the last job has ended.",
            "The ideal makes two calls per job and knows in advance when each is done.",
        ],
    )
    for label, crowd in found.items():
        times = durations(jobs, latency, spread if "drawn" in label else 0)
        best = ideal(times, per_minute, uploads="files" in label)
        share = crowd.delivered / jobs * best / crowd.seconds
        failed = jobs - crowd.delivered
        bought = len(crowd.state["jobs"])
        requests = sum(times for call, times in crowd.state["calls"].items() if call not in _UNCOUNTED)
        report.rows.append((label, crowd.delivered, bought, failed, requests, crowd.seconds, best, share))
        if "ours" in label:
            most = MOST_REQUESTS_WITH_UPLOAD if "files" in label else MOST_REQUESTS
            report.limits.append(Limit(f"{label}: failed", failed, 0))
            report.limits.append(Limit(f"{label}: bought", bought, jobs, least=jobs))
            report.limits.append(Limit(f"{label}: share of the ideal", share, math.inf, least=LEAST_SHARE))
            report.limits.append(Limit(f"{label}: requests a clip", requests / jobs, most))
        first_error = next((ending.error for ending in crowd.endings if ending.error), None)
        if first_error:
            report.notes.append(f"{label}: {' '.join(first_error.split())[:160]}")
    return report


def processes(count: int = PROCESSES, seconds: float = LATENCY, per_minute: int = PER_MINUTE) -> Report:
    """Let many processes buy and wait at the same time, with the real limiter and schedule and an enforced limit."""
    random.seed(SEED)  # for the jitter
    vendor = _Vendor(per_minute)
    turns: list[tuple[float, int, Iterator[float]]] = []
    ends: list[float] = []
    for number in range(count):
        heapq.heappush(turns, (random.random(), number, _process(vendor, seconds)))
    while turns:
        vendor.now, number, process = heapq.heappop(turns)
        pause = next(process, None)
        if pause is None:
            ends.append(vendor.now)
        else:
            heapq.heappush(turns, (vendor.now + pause, number, process))
    best = ideal([seconds] * count, per_minute)
    report = Report(
        f"{count} processes, each with a limiter, under an enforced {per_minute} requests a minute: virtual time",
        ("way", "delivered", "requests a clip", "429s a clip", "last submit, s", "s", "to the ideal"),
        [
            (
                "blocking",
                len(ends),
                vendor.admitted / count,
                vendor.refused / count,
                vendor.last_submit,
                max(ends),
                max(ends) / best,
            )
        ],
    )
    report.limits = [
        Limit("delivered", len(ends), count, least=count),
        Limit("429s a clip", vendor.refused / count, MOST_CALLS_REFUSED),
        Limit("the last submit, of the default timeout of 900 s", vendor.last_submit / 900, 0.5),
    ]
    return report


class _Vendor:
    """An account's rate limit over a sliding minute."""

    def __init__(self, per_minute: int) -> None:
        self.now = self.last_submit = 0.0
        self.per_minute = per_minute
        self.admitted = self.refused = 0
        self._recent: deque[float] = deque()

    def reset(self) -> float:
        """Accept a request and return 0, or return the seconds until there is room, as a 429 does."""
        while self._recent and self._recent[0] <= self.now - _MINUTE:
            self._recent.popleft()
        if len(self._recent) >= self.per_minute:
            self.refused += 1
            return max(self._recent[0] + _MINUTE - self.now, 1.0)
        self._recent.append(self.now)
        self.admitted += 1
        return 0.0


def _process(vendor: _Vendor, seconds: float) -> Iterator[float]:
    """Buy, poll and fetch like a blocking task; yield its pauses."""
    from airflow_provider_luma.hooks.limiter import Rank, RateLimiter
    from airflow_provider_luma.segmind.polling import next_poll

    limiter = RateLimiter(vendor.per_minute, clock=lambda: vendor.now)

    def urgent() -> Iterator[float]:
        refusals = 0
        while True:
            while delay := limiter.take(Rank.URGENT):
                yield delay
            if not (reset := vendor.reset()):
                return
            limiter.close(reset)
            yield min(reset * 2**refusals, _MINUTE)
            refusals += 1

    with limiter.waiting():
        yield from urgent()
        bought_at = vendor.last_submit = vendor.now
        is_done = False
        while not is_done:
            waited = vendor.now - bought_at
            yield next_poll(waited, seconds, spacing=limiter.spacing(), jitter=random.random()) - waited
            if delay := limiter.take(Rank.POLL):
                yield delay
            elif reset := vendor.reset():
                limiter.close(reset)
                yield reset
            else:
                is_done = vendor.now - bought_at >= seconds
        yield from urgent()


def _gather(jobs: int, url: str, generate: Callable[..., Ending]) -> Crowd:
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as workers:
        began = time.monotonic()
        endings = list(workers.map(partial(generate, output=Path(folder)), range(jobs)))
    with urllib.request.urlopen(f"{url}/simulator/state") as reply:
        return Crowd(endings, max(ending.done_at for ending in endings) - began, json.load(reply))


def _with_sdk(url: str, frame: str, number: int, output: Path) -> Ending:
    import httpx
    from segmind import SegmindClient

    began, error = time.monotonic(), None
    client = SegmindClient(api_key=API_KEY, base_url=f"{url}/v1")
    try:
        job = client.submit_async(MODEL, prompt=f"number {number}", start_frame=frame, loop=False)
        address = job.wait()["output"]
        (output / f"{number}.mp4").write_bytes(httpx.get(address).raise_for_status().content)
    except Exception as failure:
        error = f"{type(failure).__name__}: {failure}"
    finally:
        client._client.close()
    return Ending(error, time.monotonic(), time.monotonic() - began)
