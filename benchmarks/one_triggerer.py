"""A triggerer's event loop in a fresh process: `python -m benchmarks.one_triggerer JOBS POLL_INTERVAL SECONDS`.

It prints that it is ready, reads jobs from stdin (one per line: request id and submission time), runs a
LumaRayJobTrigger for each until all have fired, or for SECONDS, and prints the figures.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.crowd import fire
from benchmarks.one_generation import memory
from benchmarks.surroundings import MODEL

_BEAT = 0.02
_IMPORTS = (
    "airflow.triggers.base",
    "airflow_provider_luma.triggers.luma_ray",
    "airflow_provider_luma.hooks.luma_ray",
)


async def _beat(lags: list[float]) -> None:
    """Record, again and again, how late the event loop resumes."""
    while True:
        due = time.perf_counter() + _BEAT
        await asyncio.sleep(_BEAT)
        lags.append(time.perf_counter() - due)


class Answers:
    """When each job was last answered for, by a status call or by a row of the history."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._last: dict[str, float] = {}
        self._lock = threading.Lock()

    def begin(self, request_id: str) -> None:
        """Start counting for a job."""
        self._last[request_id] = time.perf_counter()

    def note(self, *request_ids: str) -> None:
        """Record an answer for each of these jobs."""
        now = time.perf_counter()
        with self._lock:
            for request_id in request_ids:
                if request_id in self._last:
                    self.longest = max(self.longest, now - self._last[request_id])
                    self._last[request_id] = now

    def end(self) -> float:
        """Return the longest time that a job went without an answer."""
        return max([self.longest, *(time.perf_counter() - last for last in self._last.values())])

    def listen(self) -> None:
        """Record all the hook's status calls and history pages."""
        from airflow_provider_luma.hooks.luma_ray import LumaRayHook

        get_status, newest_jobs = LumaRayHook.get_status, LumaRayHook.newest_jobs

        def status(hook: LumaRayHook, request_id: str, *rest: Any) -> Any:
            answer = get_status(hook, request_id, *rest)
            self.note(request_id)
            return answer

        def rows(hook: LumaRayHook, *rest: Any) -> Any:
            answer = newest_jobs(hook, *rest)
            self.note(*(row.request_id for row in answer))
            return answer

        for name, function in (("get_status", status), ("newest_jobs", rows)):
            setattr(LumaRayHook, name, function)


async def serve(
    jobs: int, poll_interval: float | None, most_seconds: float | None
) -> dict[str, float | None]:
    """Wait for that many jobs, and return the figures."""
    from airflow_provider_luma.triggers.luma_ray import LumaRayJobTrigger

    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    lags: list[float] = []
    heart = asyncio.create_task(_beat(lags))
    idle = memory("VmRSS")
    if idle is not None:
        Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    print("ready", flush=True)
    answers, tasks = Answers(), []
    answers.listen()
    for _ in range(jobs):
        request_id, submitted_at = (await lines.readline()).decode().split()
        trigger = LumaRayJobTrigger(
            luma_ray_conn_id="luma_ray_default",
            request_id=request_id,
            model=MODEL,
            submitted_at=submitted_at,
            timeout=900.0 if most_seconds is None else 2 * 3600,
            poll_interval=poll_interval,
            deferred_at=None if most_seconds is None else datetime.min.replace(tzinfo=UTC).isoformat(),
        )
        answers.begin(request_id)
        tasks.append(asyncio.create_task(fire(trigger)))
    cpu, began = time.process_time(), time.perf_counter()
    done, _ = await asyncio.wait(tasks, timeout=most_seconds)
    seconds, busy = time.perf_counter() - began, time.process_time() - cpu
    heart.cancel()
    peak = memory("VmHWM")
    lags.sort()
    return {
        "ready": Counter(task.result()["reason"] for task in done)["ready"],
        "seconds": seconds,
        "cores": busy / seconds,
        "memory": None if idle is None or peak is None else peak - idle,
        "lag_p99": 1000 * lags[int(0.99 * len(lags))],
        "lag_most": 1000 * lags[-1],
        "threads": threading.active_count(),
        "longest": answers.end(),
    }


if __name__ == "__main__":
    for module in _IMPORTS:
        import_module(module)
    print(json.dumps(asyncio.run(serve(*map(json.loads, sys.argv[1:])))))
