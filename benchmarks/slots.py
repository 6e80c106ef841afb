"""How long one video occupies a worker, blocking and deferrable: the time in execute and execute_complete.

Runs in real time. Several jobs share the simulator, each with its own worker, so none waits for another.
"""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import fmean
from unittest import mock

from benchmarks.crowd import Ending, run_task, triggerer
from benchmarks.report import Limit, Report
from benchmarks.surroundings import connection, server, upload

JOBS = 4
LATENCY = 125.0
#: Worker seconds per video: two short phases, however long the job takes.
MOST_SECONDS = 3


def run(jobs: int = JOBS, latency: float = LATENCY, poll_interval: float | None = None) -> Report:
    """Run both ways at the same time, each with its own connection."""
    with server(latency=latency, credits="1000", clip_seconds=0.2) as url, triggerer() as loop:
        frame = upload(url)
        variables = {
            f"AIRFLOW_CONN_BENCH_{way.upper()}": connection(url, requests_per_minute=1000)
            for way in ("blocking", "deferrable")
        }
        with (
            mock.patch.dict(os.environ, variables),
            tempfile.TemporaryDirectory() as folder,
            ThreadPoolExecutor(2 * jobs) as workers,
        ):
            found = {
                way: workers.map(
                    partial(
                        run_task,
                        loop,
                        output=Path(folder) / way,
                        frame=frame,
                        luma_ray_conn_id=f"bench_{way}",
                        deferrable=way == "deferrable",
                        poll_interval=poll_interval,
                    ),
                    range(jobs),
                )
                for way in ("blocking", "deferrable")
            }
            endings = {way: list(ended) for way, ended in found.items()}
    return _report(endings, latency)


def _report(endings: dict[str, list[Ending]], latency: float) -> Report:
    held = {way: fmean(ending.worker_seconds for ending in ended) for way, ended in endings.items()}
    failed = [ending.error for ended in endings.values() for ending in ended if ending.error]
    return Report(
        f"Worker-slot seconds per video: a job of {latency:g} s, {len(endings['blocking'])} videos each way",
        ("way", "videos", "worker s per video (mean)", "to blocking"),
        [
            (way, sum(ending.error is None for ending in endings[way]), seconds, seconds / held["blocking"])
            for way, seconds in held.items()
        ],
        [
            Limit("failed", len(failed), 0),
            Limit("deferrable: worker seconds per video", held["deferrable"], MOST_SECONDS, unit=" s"),
        ],
        ["Process start and imports are not counted; the deferrable way has them twice.", *failed[:1]],
    )
