"""Hundreds of sensors, watchers and jobs in one triggerer, with a vendor that is silent, slow, refusing or well."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.segmind.request import GenerationRequest
from airflow_provider_luma.simulator import Simulator
from airflow_provider_luma.triggers.luma_ray import (
    LumaRayCreditSensorTrigger,
    LumaRayCreditTrigger,
    LumaRayJobTrigger,
)
from tests.support import API_KEY, set_connection

SENSORS, WATCHERS, JOBS = 200, 50, 200
PER_MINUTE = 600
#: Seconds of each kind of trouble; the connection's timeout, with which a silent call ends, is shorter.
PHASE = 4.0
TIMEOUT = 3.0
CALLS = ("status", "history", "history_one", "credits")
TROUBLES: list[dict[str, Any]] = [
    {"kind": "timeout", "seconds": 60},
    {"kind": "slow", "seconds": 1},
    {"kind": "status", "status": 429, "seconds": 1},
]


async def first(events: AsyncIterator[Any]) -> Any:
    async for event in events:
        return event.payload


class Heart:
    """Another trigger on the loop: it resolves a name again and again, in the loop's default threads."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def beat(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            await asyncio.sleep(0.02)
            await loop.getaddrinfo("127.0.0.1", 80)
            self.longest = max(self.longest, loop.time() - began)


@pytest.mark.slow
def test_many_waits_survive_a_bad_day_of_the_vendors(monkeypatch: pytest.MonkeyPatch) -> None:
    heart, late = Heart(), []
    with Simulator(latency=2, clip_seconds=0.2, credits="1000", api_key=API_KEY) as simulator:
        set_connection(monkeypatch, simulator.url, timeout=TIMEOUT, requests_per_minute=100_000)
        jobs = [
            LumaRayHook().submit(GenerationRequest("luma-ray-img-2-video", "p", None)) for _ in range(JOBS)
        ]
        submits = len(simulator.requests)
        set_connection(monkeypatch, simulator.url, timeout=TIMEOUT, requests_per_minute=PER_MINUTE)

        async def wait(number: int, request_id: str) -> str:
            # Half of the jobs have their deadlines in the trouble, one after the other, the others afterwards.
            timeout = 900.0 if number % 2 else 1 + 3 * PHASE * number / JOBS
            began = time.monotonic()
            trigger = LumaRayJobTrigger(
                luma_ray_conn_id="luma_ray_default",
                request_id=request_id,
                model="luma-ray-img-2-video",
                submitted_at=datetime.now(UTC).isoformat(),
                timeout=timeout,
            )
            event = await first(trigger.run())
            late.append(time.monotonic() - began - timeout)
            return str(event["reason"])

        async def crowd() -> list[str]:
            others = [asyncio.create_task(heart.beat())]
            for _ in range(SENSORS):
                sensor = LumaRayCreditSensorTrigger(
                    luma_ray_conn_id="luma_ray_default",
                    threshold="9999",
                    direction="above",
                    include_free_credits=True,
                    poke_interval=1.0,
                )
                others.append(asyncio.create_task(first(sensor.run())))
            for number in range(WATCHERS):
                watcher = LumaRayCreditTrigger(threshold=number, poll_interval=1.5)
                others.append(asyncio.create_task(first(watcher.run())))
            waits = [asyncio.create_task(wait(*numbered)) for numbered in enumerate(jobs)]
            for trouble in TROUBLES:
                for call in CALLS:
                    simulator.fault(call, times=99_999, **trouble)
                await asyncio.sleep(PHASE)
                simulator.clear_faults()
            reasons = await asyncio.gather(*waits)
            assert not any(task.done() for task in others), [task for task in others if task.done()]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            return reasons

        reasons = asyncio.run(crowd())
        requests = [request for request in simulator.requests[submits:] if request.call in CALLS]
    assert set(reasons[1::2]) == {"ready"}
    assert set(reasons[::2]) <= {"ready", "late"}
    # 3 s and 0.2 s on a quiet machine; where looks took the loop's own threads, a minute and 17 s.
    assert max(late) < 10
    assert heart.longest < 5
    times = [request.time for request in requests]
    assert max(sum(start <= at < start + 60 for at in times) for start in times) <= PER_MINUTE
    looks = sum(request.call == "credits" for request in requests)
    assert looks <= len(requests) / 2, "jobs come before balances"
    print(
        f"late by {max(late):.2f} s at most, heart {heart.longest:.2f} s, {len(requests)} requests, {looks} looks"
    )
