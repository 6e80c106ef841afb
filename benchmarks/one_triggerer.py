"""A triggerer's event loop in a fresh process: `python -m benchmarks.one_triggerer JOBS POLL_INTERVAL`.

It says that it is ready, takes jobs from its input (a line each: the request id, and when it was submitted), runs
LumaRayJobTrigger for each until all have fired, and prints what that took.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections import Counter
from importlib import import_module
from pathlib import Path

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


async def serve(jobs: int, poll_interval: float | None) -> dict[str, float | None]:
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
    tasks = []
    for _ in range(jobs):
        request_id, submitted_at = (await lines.readline()).decode().split()
        trigger = LumaRayJobTrigger(
            luma_ray_conn_id="luma_ray_default",
            request_id=request_id,
            model=MODEL,
            submitted_at=submitted_at,
            timeout=900.0,
            poll_interval=poll_interval,
        )
        tasks.append(asyncio.create_task(fire(trigger)))
    cpu, began = time.process_time(), time.perf_counter()
    events = await asyncio.gather(*tasks)
    seconds, busy = time.perf_counter() - began, time.process_time() - cpu
    heart.cancel()
    peak = memory("VmHWM")
    lags.sort()
    return {
        "ready": Counter(event["reason"] for event in events)["ready"],
        "seconds": seconds,
        "cores": busy / seconds,
        "memory": None if idle is None or peak is None else peak - idle,
        "lag_p99": 1000 * lags[int(0.99 * len(lags))],
        "lag_most": 1000 * lags[-1],
        "threads": threading.active_count(),
    }


if __name__ == "__main__":
    for module in _IMPORTS:
        import_module(module)
    print(json.dumps(asyncio.run(serve(*map(json.loads, sys.argv[1:])))))
