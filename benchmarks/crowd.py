"""Many operators in one process, run as by Airflow: threads are the workers, and an event loop is the triggerer."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.surroundings import task_context


@dataclass(frozen=True)
class Ending:
    """How one task instance ended.

    :param error: why it failed; None: it has its video
    :param done_at: when it ended (monotonic seconds)
    :param worker_seconds: how long it occupied a worker
    """

    error: str | None
    done_at: float
    worker_seconds: float


@contextmanager
def triggerer() -> Iterator[asyncio.AbstractEventLoop]:
    """Run an event loop in its own thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def fire(trigger: Any) -> Any:
    """Run a trigger as the triggerer loads it from the database; return its event's payload."""
    classpath, arguments = json.loads(json.dumps(trigger.serialize()))
    module, _, name = classpath.rpartition(".")
    async for event in getattr(import_module(module), name)(**arguments).run():
        return event.payload


def run_task(
    loop: asyncio.AbstractEventLoop, number: int, *, output: Path, frame: str, **arguments: Any
) -> Ending:
    """Run one mapped task instance to its end; while it is deferred, this thread does not count as a worker."""
    from airflow.sdk.exceptions import TaskDeferred

    from airflow_provider_luma.operators.luma_ray import LumaRayImageToVideoOperator

    def operator() -> Any:
        return LumaRayImageToVideoOperator(
            task_id="generate",
            prompt=f"a slow push in, number {number}",
            start_frame=frame,
            output_path=f"{output}/",
            api_version="v2",
            **arguments,
        )

    context = task_context(number)
    held = 0.0

    def work(phase: Callable[[], Any]) -> None:
        nonlocal held
        began = time.monotonic()
        try:
            phase()
        finally:
            held += time.monotonic() - began

    error = None
    try:
        try:
            work(lambda: operator().execute(context))
        except TaskDeferred as deferred:
            kwargs = deferred.kwargs or {}
            event = asyncio.run_coroutine_threadsafe(fire(deferred.trigger), loop).result()
            work(lambda: operator().execute_complete(context, event, **kwargs))
    except Exception as failure:
        error = f"{type(failure).__name__}: {failure}"
    return Ending(error, time.monotonic(), held)
