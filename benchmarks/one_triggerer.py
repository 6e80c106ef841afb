"""A triggerer's event loop in a fresh process: `python -m benchmarks.one_triggerer JOBS POLL_INTERVAL SECONDS`.

It says that it is ready, takes jobs from its input (a line each: the request id, and when it was submitted), runs
LumaRayJobTrigger for each until all have fired, or for so many seconds, and prints what that took.
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
    """Note again and again how much later than asked for the event loop goes on."""
    while True:
        due = time.perf_counter() + _BEAT
        await asyncio.sleep(_BEAT)
        lags.append(time.perf_counter() - due)


class Answers:
    """When there was an answer about each job, be it by a status call or by a row of the history."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._last: dict[str, float] = {}
        self._lock = threading.Lock()

    def begin(self, request_id: str) -> None:
        """Count from now on."""
        self._last[request_id] = time.perf_counter()

    def note(self, *request_ids: str) -> None:
        """Take note of an answer about each of these."""
        now = time.perf_counter()
        with self._lock:
            for request_id in request_ids:
                if request_id in self._last:
                    self.longest = max(self.longest, now - self._last[request_id])
                    self._last[request_id] = now

    def end(self) -> float:
        """Return the longest time without an answer about a job."""
        return max([self.longest, *(time.perf_counter() - last for last in self._last.values())])

    def listen(self) -> None:
        """Listen to all calls of the hook's."""
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
    """Wait for so many jobs, and return the figures."""
    from airflow_provider_luma.triggers.luma_ray import LumaRayJobTrigger

    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    lags: list[float] = []
    heart = asyncio.create_task(_beat(lags))
    idle = memory("VmRSS")
    if idle is not None:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from here
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
