"""The triggers over real HTTP: when they fire, what they carry, and that they block nobody."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.module_loading import import_string  # type: ignore[attr-defined]
from airflow.triggers.base import BaseTrigger

from airflow_provider_luma.exceptions import LumaRayConfigurationError
from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.segmind.replies import Credits
from airflow_provider_luma.segmind.request import GenerationRequest
from airflow_provider_luma.simulator import Simulator
from airflow_provider_luma.triggers.luma_ray import LumaRayCreditTrigger, LumaRayJobTrigger
from tests.support import API_KEY, set_connection

pytestmark = pytest.mark.usefixtures("connection")


def submitted(frame: Path) -> str:
    hook = LumaRayHook()
    return hook.submit(
        GenerationRequest("luma-ray-img-2-video", "p", hook.upload_image(frame), resolution="540p")
    )


def job_trigger(request_id: str, **arguments: Any) -> LumaRayJobTrigger:
    defaults: dict[str, Any] = {
        "luma_ray_conn_id": "luma_ray_default",
        "request_id": request_id,
        "model": "luma-ray-img-2-video",
        "submitted_at": datetime.now(UTC).isoformat(),
        "timeout": 10.0,
        "poll_interval": 0.05,
    }
    return LumaRayJobTrigger(**defaults | arguments)


def revived(trigger: BaseTrigger) -> Any:
    """Return the trigger as another triggerer makes it from the database."""
    classpath, arguments = trigger.serialize()
    return import_string(classpath)(**json.loads(json.dumps(arguments)))


async def first(events: AsyncIterator[Any]) -> Any:
    async for event in events:
        return event.payload


def fired(trigger: BaseTrigger) -> Any:
    return asyncio.run(first(revived(trigger).run()))


def test_a_ready_job_wakes_its_worker(simulator: Simulator, frame: Path) -> None:
    request_id = submitted(frame)
    assert fired(job_trigger(request_id)) == {"request_id": request_id, "reason": "ready"}


def test_a_failed_job_wakes_its_worker(simulator: Simulator, frame: Path) -> None:
    simulator.fail_next()
    request_id = submitted(frame)
    assert fired(job_trigger(request_id))["reason"] == "failed"


@pytest.mark.parametrize(
    "fault", ["status", "reset", "html", "empty", "broken_json", "wrong_shape", "truncated"]
)
def test_no_failure_of_a_poll_ends_the_wait(simulator: Simulator, frame: Path, fault: str) -> None:
    request_id = submitted(frame)
    simulator.fault("status", fault, times=10, status=503 if fault == "status" else None)
    assert fired(job_trigger(request_id))["reason"] == "ready"


def test_the_deadline_counts_from_the_submission(simulator: Simulator, frame: Path) -> None:
    request_id = submitted(frame)
    simulator.fault("status", "status", status=500, times=999)
    earlier = datetime.now(UTC) - timedelta(seconds=60)
    assert fired(job_trigger(request_id, submitted_at=earlier.isoformat(), timeout=60.1))["reason"] == "late"


def test_a_wrong_key_wakes_the_worker_at_once(
    simulator: Simulator, frame: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request_id = submitted(frame)
    set_connection(monkeypatch, simulator.url, password="SG_ffffffffffffffff")
    assert fired(job_trigger(request_id))["reason"] == "error"


def test_two_triggers_of_one_job_buy_and_fetch_nothing(simulator: Simulator, frame: Path) -> None:
    request_id = submitted(frame)
    before = dict(simulator.calls)

    async def both() -> list[Any]:
        triggers = [revived(job_trigger(request_id)) for _ in range(2)]
        return await asyncio.gather(*(first(trigger.run()) for trigger in triggers))

    assert [event["reason"] for event in asyncio.run(both())] == ["ready", "ready"]
    added = {call for call, times in simulator.calls.items() if times != before.get(call)}
    assert added <= {"status", "history_one"}


def test_a_slow_vendor_does_not_block_the_event_loop(simulator: Simulator, frame: Path) -> None:
    request_id = submitted(frame)
    simulator.fault("status", "timeout", seconds=0.5)
    longest = 0.0

    async def watched() -> Any:
        nonlocal longest
        task = asyncio.create_task(first(revived(job_trigger(request_id)).run()))
        loop = asyncio.get_running_loop()
        last = loop.time()
        while not task.done():
            await asyncio.sleep(0.01)
            longest, last = max(longest, loop.time() - last), loop.time()
        return await task

    assert asyncio.run(watched())["reason"] == "ready"
    assert longest < 0.4


def test_many_triggers_share_one_look_up_and_take_no_thread_of_the_event_loops_own(
    simulator: Simulator, frame: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up: list[str] = []
    get_connection = LumaRayHook.get_connection

    def counted(conn_id: str) -> Any:
        looked_up.append(conn_id)
        return get_connection(conn_id)

    class Others(ThreadPoolExecutor):
        def submit(self, *_: Any, **__: Any) -> Any:
            raise AssertionError("this thread belongs to others")

    async def all_of_them(triggers: list[LumaRayJobTrigger]) -> list[Any]:
        asyncio.get_running_loop().set_default_executor(Others())
        return await asyncio.gather(*(first(revived(trigger).run()) for trigger in triggers))

    triggers = [job_trigger(request_id) for request_id in [submitted(frame) for _ in range(5)] * 8]
    monkeypatch.setattr(LumaRayHook, "get_connection", staticmethod(counted))
    assert {event["reason"] for event in asyncio.run(all_of_them(triggers))} == {"ready"}
    assert 1 <= len(looked_up) <= 16


def test_an_edited_connection_is_seen_after_a_minute(
    simulator: Simulator, frame: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request_id = submitted(frame)
    set_connection(monkeypatch, simulator.url, password="SG_ffffffffffffffff")
    assert fired(job_trigger(request_id))["reason"] == "error"
    set_connection(monkeypatch, simulator.url)
    monotonic = time.monotonic
    monkeypatch.setattr("airflow_provider_luma.triggers.luma_ray.time.monotonic", lambda: monotonic() + 60)
    assert fired(job_trigger(request_id, timeout=900.0))["reason"] == "ready"


def test_a_cancelled_wait_no_longer_counts(simulator: Simulator, frame: Path) -> None:
    trigger = job_trigger(submitted(frame), poll_interval=60.0)
    limiter = LumaRayHook().limiter

    async def cancelled() -> None:
        task = asyncio.create_task(first(trigger.run()))
        while not limiter.spacing():
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(cancelled())
    assert limiter.spacing() == 0


def test_waits_without_room_for_a_look_hardly_do_anything_and_say_little(
    simulator: Simulator, frame: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    set_connection(monkeypatch, simulator.url, requests_per_minute=1)
    hook = LumaRayHook()
    hook.get_credits()
    tries: list[str] = []
    get_status = LumaRayHook.get_status

    def counted(self: LumaRayHook, request_id: str) -> Any:
        tries.append(request_id)
        return get_status(self, request_id)

    monkeypatch.setattr(LumaRayHook, "get_status", counted)
    caplog.set_level("INFO")
    caplog.clear()

    async def late() -> list[Any]:
        triggers = [job_trigger(f"r{number}", timeout=1.0, poll_interval=0.01) for number in range(20)]
        return await asyncio.gather(*(first(trigger.run()) for trigger in triggers))

    assert [event["reason"] for event in asyncio.run(late())] == ["late"] * 20
    assert len(tries) <= 3 * 20
    assert "status" not in simulator.calls
    ours = [record for record in caplog.records if record.name.startswith("airflow_provider_luma.")]
    assert [record for record in ours if "simulator" not in record.name] == []


class Naps:
    """Stands for ``asyncio.sleep`` in the trigger: a pause of minutes is noted, and ends when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.over = asyncio.Event()
        self.begun: list[float] = []
        self._sleep = asyncio.sleep
        monkeypatch.setattr("airflow_provider_luma.triggers.luma_ray.asyncio.sleep", self)

    async def __call__(self, seconds: float) -> None:
        if seconds < 60:
            await self._sleep(seconds)
            return
        self.begun.append(seconds)
        await self.over.wait()


@pytest.mark.parametrize("key", [API_KEY, "SG_ffffffffffffffff"])
def test_no_event_comes_while_the_process_that_deferred_may_linger_be_it_an_error(
    simulator: Simulator, frame: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    request_id = submitted(frame)
    set_connection(monkeypatch, simulator.url, password=key)
    monkeypatch.setattr("airflow_provider_luma.triggers.luma_ray._QUIET_TIME", 600.0)

    async def quiet_first() -> Any:
        naps = Naps(monkeypatch)
        trigger = job_trigger(request_id, deferred_at=datetime.now(UTC).isoformat())
        task = asyncio.create_task(first(revived(trigger).run()))
        while not naps.begun and not task.done():
            await asyncio.wait({task}, timeout=0.01)
        assert not task.done()
        assert 500 < naps.begun[0] <= 600
        naps.over.set()
        return await task

    assert asyncio.run(quiet_first())["reason"] == ("ready" if key == API_KEY else "error")


def test_a_restarted_triggerer_need_not_be_quiet_again(
    simulator: Simulator, frame: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_luma.triggers.luma_ray._QUIET_TIME", 600.0)
    earlier = datetime.now(UTC) - timedelta(minutes=2)
    trigger = job_trigger(submitted(frame), deferred_at=earlier.isoformat())
    assert fired(trigger)["reason"] == "ready"


def test_the_triggers_log_tells_progress_once_a_minute(
    frame: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with Simulator(latency=300, clip_seconds=0.2, api_key=API_KEY) as simulator:
        set_connection(monkeypatch, simulator.url)
        caplog.set_level("INFO", logger="airflow_provider_luma.triggers")
        trigger = job_trigger(submitted(frame), timeout=900.0, poll_interval=0.01)

        async def advanced() -> Any:
            task = asyncio.create_task(first(trigger.run()))
            while not task.done():
                await asyncio.to_thread(simulator.advance, 10)
                polls = simulator.calls.get("status", 0)
                while simulator.calls.get("status", 0) == polls and not task.done():
                    await asyncio.wait({task}, timeout=0.01)
            return await task

        assert asyncio.run(advanced())["reason"] == "ready"
    lines = [record.getMessage() for record in caplog.records if "PROCESSING after" in record.getMessage()]
    assert 3 <= len(lines) <= 4


def test_many_jobs_share_one_poll_and_are_fired_by_what_it_shows(
    frame: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_luma.segmind.polling._FIRST_PAUSE", 0.02)
    monkeypatch.setattr("airflow_provider_luma.segmind.polling._SHORTEST_PAUSE", 0.05)
    monkeypatch.setattr("airflow_provider_luma.jobs.polling._SHORTEST_PAGE_INTERVAL", 0.05)
    with Simulator(latency=0.5, clip_seconds=0.2, credits="100", api_key=API_KEY) as simulator:
        set_connection(monkeypatch, simulator.url, requests_per_minute=600)
        requests = [submitted(frame) for _ in range(12)]
        triggers = [job_trigger(request_id, timeout=60.0, poll_interval=None) for request_id in requests]

        async def all_of_them() -> list[Any]:
            return await asyncio.gather(*(first(revived(trigger).run()) for trigger in triggers))

        assert [event["reason"] for event in asyncio.run(all_of_them())] == ["ready"] * 12
        assert simulator.calls["history"] >= 1
        assert simulator.calls.get("status", 0) <= 6


def test_where_the_history_is_of_no_use_the_status_calls_go_on(
    frame: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_luma.segmind.polling._FIRST_PAUSE", 0.02)
    monkeypatch.setattr("airflow_provider_luma.segmind.polling._SHORTEST_PAUSE", 0.05)
    with Simulator(latency=0.5, clip_seconds=0.2, credits="100", api_key=API_KEY) as simulator:
        set_connection(monkeypatch, simulator.url)
        simulator.fault("history", "status", status=403, times=99)
        triggers = [job_trigger(submitted(frame), timeout=60.0, poll_interval=None) for _ in range(5)]

        async def all_of_them() -> list[Any]:
            return await asyncio.gather(*(first(revived(trigger).run()) for trigger in triggers))

        assert [event["reason"] for event in asyncio.run(all_of_them())] == ["ready"] * 5
        assert simulator.calls["history"] == 1


def test_neither_arguments_nor_event_nor_repr_hold_a_key_or_an_url(simulator: Simulator, frame: Path) -> None:
    request_id = submitted(frame)
    trigger = job_trigger(request_id)
    shown = f"{trigger!r}{trigger.serialize()}{fired(trigger)}"
    assert API_KEY not in shown
    assert "http" not in shown


def test_a_kill_is_told_and_cancels_nothing(
    simulator: Simulator, frame: Path, caplog: pytest.LogCaptureFixture
) -> None:
    request_id = submitted(frame)
    requests = len(simulator.requests)
    asyncio.run(job_trigger(request_id).on_kill())
    assert f"{request_id}: the wait was ended, the job goes on" in caplog.text
    assert len(simulator.requests) == requests


# The watcher


class AssetStore:
    """An asset's state store, as the triggerer injects it."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    async def aget(self, key: str) -> Any:
        return self.values.get(key)

    async def aset(self, key: str, value: Any) -> None:
        self.values[key] = value


def crossings(balances: list[str], store: AssetStore | None = None, **arguments: Any) -> list[str]:
    """Return the balances at which the trigger fires."""
    trigger = revived(LumaRayCreditTrigger(**{"threshold": 5, **arguments}))
    trigger.asset_state_store = store

    async def stream() -> AsyncIterator[Credits]:
        for balance in balances:
            yield Credits(Decimal(balance), Decimal(0))

    async def collect() -> list[str]:
        return [event.payload["balance"] async for event in trigger.filter_shared_stream(stream())]

    return asyncio.run(collect())


@pytest.mark.parametrize(
    ("direction", "balances", "fires"),
    [
        ("below", ["9", "5", "4", "3"], ["5"]),
        ("below", ["9", "4", "9", "4"], ["4", "4"]),
        ("below", ["4", "3"], []),
        ("above", ["4", "5", "6"], ["5"]),
        ("above", ["9", "4", "9"], ["9"]),
    ],
)
def test_the_watcher_fires_on_the_crossing_only(
    direction: str, balances: list[str], fires: list[str]
) -> None:
    assert crossings(balances, direction=direction) == fires


def test_a_restart_neither_fires_again_nor_misses_a_crossing() -> None:
    store = AssetStore()
    assert crossings(["9", "4"], store) == ["4"]
    assert crossings(["4", "3"], store) == []
    assert crossings(["9"], store) == []
    assert crossings(["2"], store) == ["2"]


def test_siblings_share_one_look_at_the_account() -> None:
    one = LumaRayCreditTrigger(threshold=5)
    other = LumaRayCreditTrigger(threshold=50, direction="above")
    elsewhere = LumaRayCreditTrigger(threshold=5, luma_ray_conn_id="other")
    assert one.shared_stream_key() == other.shared_stream_key() != elsewhere.shared_stream_key()


def test_the_shared_stream_passes_over_what_passes(simulator: Simulator) -> None:
    simulator.fault("credits", "status", status=500, times=5)

    async def first_look() -> Any:
        stream = LumaRayCreditTrigger.open_shared_stream(
            {"luma_ray_conn_id": "luma_ray_default", "poll_interval": 0.01}
        )
        return await anext(stream)

    assert asyncio.run(first_look()).total == 20


def test_it_watches_a_real_account_without_shared_streams(simulator: Simulator) -> None:
    async def watch() -> Any:
        events = revived(LumaRayCreditTrigger(threshold=5, poll_interval=0.01)).run()
        task = asyncio.create_task(first(events))
        while simulator.calls.get("credits", 0) < 2:
            await asyncio.sleep(0.01)
        simulator.set_credits("4.5")
        return await task

    assert asyncio.run(watch()) == {"balance": "4.5", "threshold": "5", "direction": "below"}


def test_a_watcher_outlives_a_wrong_key_and_sees_it_corrected(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    set_connection(monkeypatch, simulator.url, password="SG_ffffffffffffffff")

    async def watch() -> Any:
        events = revived(LumaRayCreditTrigger(threshold=5, poll_interval=0.01)).run()
        task = asyncio.create_task(first(events))
        for key, balance in (("SG_ffffffffffffffff", "20"), (API_KEY, "20"), (API_KEY, "4.5")):
            set_connection(monkeypatch, simulator.url, password=key)
            simulator.set_credits(balance)
            looks = simulator.calls.get("credits", 0)
            while simulator.calls.get("credits", 0) < looks + 2 and not task.done():
                await asyncio.sleep(0.01)
        return await task

    assert asyncio.run(watch())["balance"] == "4.5"
    assert "Check the API key" in caplog.text


@pytest.mark.parametrize("wrong", [{"threshold": "much"}, {"threshold": 5, "direction": "up"}])
def test_wrong_arguments_are_told_when_the_dag_is_parsed(wrong: dict[str, Any]) -> None:
    with pytest.raises(LumaRayConfigurationError, match="is wrong: give"):
        LumaRayCreditTrigger(**wrong)
