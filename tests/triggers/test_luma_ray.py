"""The triggers over real HTTP: when they fire, what their events have, and that they block nothing."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
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

from airflow_provider_luma.exceptions import LumaRayConfigurationError, LumaRayUnavailable
from airflow_provider_luma.hooks.limiter import Rank
from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.segmind.replies import Credits
from airflow_provider_luma.segmind.request import GenerationRequest
from airflow_provider_luma.simulator import Simulator
from airflow_provider_luma.triggers.account import account_of
from airflow_provider_luma.triggers.luma_ray import (
    LumaRayCreditSensorTrigger,
    LumaRayCreditTrigger,
    LumaRayJobTrigger,
)
from tests import virtual_time
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
    """Return the trigger as another triggerer loads it from the database."""
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


def test_a_wrong_key_wakes_the_worker(
    simulator: Simulator, frame: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request_id = submitted(frame)
    set_connection(monkeypatch, simulator.url, password="SG_ffffffffffffffff")
    assert fired(job_trigger(request_id))["reason"] == "error"


def test_a_deadline_holds_if_the_vendor_does_not_answer(
    simulator: Simulator, frame: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_connection(monkeypatch, simulator.url, timeout=60)
    monkeypatch.setattr("airflow_provider_luma.triggers.luma_ray._LAST_ANSWER", 0.1)
    simulator.fault("status", "timeout", seconds=60, times=999)

    async def all_of_them() -> list[Any]:
        triggers = [job_trigger(f"r{number}", timeout=0.5) for number in range(40)]
        return await asyncio.gather(*(first(revived(trigger).run()) for trigger in triggers))

    assert [event["reason"] for event in asyncio.run(all_of_them())] == ["late"] * 40
    polls = [request for request in simulator.requests if request.call == "status"]
    assert 0 < len(polls) <= 16
    assert {request.status for request in polls} == {None}, "none was answered yet"


def test_a_deadline_holds_for_a_trigger_that_starts_while_all_threads_are_busy(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_connection(monkeypatch, simulator.url, timeout=60)
    monkeypatch.setattr("airflow_provider_luma.triggers.luma_ray._LAST_ANSWER", 0.1)
    simulator.fault("status", "timeout", seconds=60, times=999)

    async def last() -> Any:
        others = [
            asyncio.create_task(first(revived(job_trigger(f"r{number}", timeout=900.0)).run()))
            for number in range(40)
        ]
        while simulator.calls.get("status", 0) < 16:
            await asyncio.sleep(0.01)
        event = await first(revived(job_trigger("last", timeout=0.5)).run())
        assert not any(task.done() for task in others)
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        return event

    assert asyncio.run(last())["reason"] == "late"


@pytest.mark.parametrize("is_mended", [True, False])
def test_a_triggerer_that_cannot_read_the_connection_tries_again_before_it_wakes_the_worker(
    simulator: Simulator, frame: Path, monkeypatch: pytest.MonkeyPatch, is_mended: bool
) -> None:
    request_id = submitted(frame)
    looked_up: list[str] = []
    get_connection = LumaRayHook.get_connection

    def counted(conn_id: str) -> Any:
        looked_up.append(conn_id)
        return get_connection(conn_id)

    monkeypatch.setattr(LumaRayHook, "get_connection", staticmethod(counted))
    monkeypatch.delenv("AIRFLOW_CONN_LUMA_RAY_DEFAULT")
    monkeypatch.setattr("airflow_provider_luma.triggers.luma_ray._TROUBLE_TIME", 1.0 if is_mended else 0.1)
    monkeypatch.setattr("airflow_provider_luma.triggers.luma_ray._RETRY", 0.05)

    async def in_trouble() -> Any:
        task = asyncio.create_task(first(revived(job_trigger(request_id, timeout=900.0)).run()))
        while len(looked_up) < 2:
            await asyncio.wait({task}, timeout=0.01)
        if is_mended:
            set_connection(monkeypatch, simulator.url)
        return await task

    assert asyncio.run(in_trouble())["reason"] == ("ready" if is_mended else "error")


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


def test_many_triggers_share_one_look_up_and_use_none_of_the_event_loops_threads(
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

    async def all_of_them(triggers: list[BaseTrigger]) -> list[Any]:
        asyncio.get_running_loop().set_default_executor(Others())
        return await asyncio.gather(*(first(revived(trigger).run()) for trigger in triggers))

    triggers: list[BaseTrigger] = [
        LumaRayCreditSensorTrigger(
            luma_ray_conn_id="luma_ray_default",
            threshold="1",
            direction="above",
            include_free_credits=True,
            poke_interval=0.01,
        )
    ]
    triggers += [job_trigger(request_id) for request_id in [submitted(frame) for _ in range(5)] * 8]
    monkeypatch.setattr(LumaRayHook, "get_connection", staticmethod(counted))
    assert {event["reason"] for event in asyncio.run(all_of_them(triggers))} == {"ready", "reached"}
    assert len(looked_up) == 1


def test_an_edited_connection_is_noticed_after_a_minute(
    simulator: Simulator, frame: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request_id = submitted(frame)
    set_connection(monkeypatch, simulator.url, password="SG_ffffffffffffffff")
    assert fired(job_trigger(request_id))["reason"] == "error"
    set_connection(monkeypatch, simulator.url)
    monotonic = time.monotonic
    monkeypatch.setattr("airflow_provider_luma.triggers.account.time.monotonic", lambda: monotonic() + 60)
    assert fired(job_trigger(request_id, timeout=900.0))["reason"] == "ready"


def test_a_secrets_backend_that_is_down_for_a_moment_stops_no_polling(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = account_of("luma_ray_default")
    hook = account.hook()
    monkeypatch.delenv("AIRFLOW_CONN_LUMA_RAY_DEFAULT")
    monotonic = time.monotonic
    monkeypatch.setattr("airflow_provider_luma.triggers.account.time.monotonic", lambda: monotonic() + 60)
    assert account.hook() is hook
    monkeypatch.setattr("airflow_provider_luma.triggers.account.time.monotonic", lambda: monotonic() + 121)
    set_connection(monkeypatch, simulator.url, password="")
    with pytest.raises(LumaRayConfigurationError):
        account.hook()


def test_a_cancelled_wait_no_longer_counts(simulator: Simulator, frame: Path) -> None:
    trigger = job_trigger(submitted(frame), poll_interval=60.0)
    limiter = account_of("luma_ray_default").hook().limiter

    async def cancelled() -> None:
        task = asyncio.create_task(first(trigger.run()))
        while not limiter.spacing():
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(cancelled())
    assert limiter.spacing() == 0


def test_waits_without_room_do_and_log_little(
    simulator: Simulator, frame: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    set_connection(monkeypatch, simulator.url, requests_per_minute=1)
    account_of("luma_ray_default").hook().get_credits()
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
    """Replaces the trigger's ``asyncio.sleep``: a long pause is recorded, and ends when the test says so."""

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
def test_no_event_fires_while_the_deferring_process_may_linger(
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


def test_the_triggers_log_shows_progress_once_a_minute(
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


def test_with_a_useless_history_status_calls_continue(frame: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_arguments_event_and_repr_hold_neither_key_nor_url(simulator: Simulator, frame: Path) -> None:
    request_id = submitted(frame)
    trigger = job_trigger(request_id)
    shown = f"{trigger!r}{trigger.serialize()}{fired(trigger)}"
    assert API_KEY not in shown
    assert "http" not in shown


def test_a_kill_is_logged_and_cancels_nothing(
    simulator: Simulator, frame: Path, caplog: pytest.LogCaptureFixture
) -> None:
    request_id = submitted(frame)
    requests = len(simulator.requests)
    asyncio.run(job_trigger(request_id).on_kill())
    assert f"{request_id}: the wait was killed, the job keeps running" in caplog.text
    assert len(simulator.requests) == requests


# The watcher


class AssetStore:
    """An asset's state store as injected by the triggerer."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    async def aget(self, key: str) -> Any:
        return self.values.get(key)

    async def aset(self, key: str, value: Any) -> None:
        self.values[key] = value


def crossings(balances: list[str], store: Any = None, **arguments: Any) -> list[str]:
    """Return the balances at which the trigger fires."""
    trigger = revived(LumaRayCreditTrigger(**{"threshold": 5, "poll_interval": 0.001, **arguments}))
    trigger.asset_state_store = store
    answers = iter([Credits(Decimal(balance), Decimal(0)) for balance in balances])
    over = asyncio.Event()

    async def collect() -> list[str]:
        fired: list[str] = []

        async def watch() -> None:
            async for event in trigger.run():
                fired.append(event.payload["balance"])

        loop = asyncio.get_running_loop()

        def get_credits(self: LumaRayHook, rank: Rank) -> Credits:
            try:
                return next(answers)
            except StopIteration:
                loop.call_soon_threadsafe(over.set)
                raise LumaRayUnavailable("no more") from None

        with pytest.MonkeyPatch.context() as for_now:
            for_now.setattr(LumaRayHook, "get_credits", get_credits)
            account_of.cache_clear()
            task = asyncio.create_task(watch())
            await asyncio.wait({task, asyncio.create_task(over.wait())}, return_when="FIRST_COMPLETED")
            if not task.done():
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return fired

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


class SeveralAssets:
    """The store of a trigger merged from equal ones; it does not know which asset is meant."""

    async def aget(self, key: str) -> Any:
        raise ValueError("Task has 2 concrete inlets and outlets")

    aset = aget


def test_equal_triggers_of_several_assets_watch_without_a_memory() -> None:
    assert crossings(["9", "4", "9", "3"], SeveralAssets()) == ["4", "3"]


class Outage(AssetStore):
    """A store whose first calls fail."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.left = calls

    def _fail(self) -> None:
        self.left -= 1
        if self.left >= 0:
            raise RuntimeError("API server is down")

    async def aget(self, key: str) -> Any:
        self._fail()
        return await super().aget(key)

    async def aset(self, key: str, value: Any) -> None:
        self._fail()
        await super().aset(key, value)


@pytest.mark.parametrize("calls", [1, 2, 3])
def test_a_store_that_is_down_ends_no_watch_and_is_written_later(calls: int) -> None:
    store = Outage(calls)
    assert crossings(["9", "9", "9", "4", "4"], store) == ["4"]
    assert list(store.values.values()) == [True]


@pytest.mark.parametrize("other", [{"luma_ray_conn_id": "other"}, {"include_free_credits": False}])
def test_the_memory_of_one_account_is_not_used_for_another(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, other: dict[str, Any]
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", os.environ["AIRFLOW_CONN_LUMA_RAY_DEFAULT"])
    store = AssetStore()
    assert crossings(["9"], store) == []
    assert crossings(["4", "3"], store, **other) == []
    assert crossings(["4"], store) == ["4"]


def test_all_watchers_of_an_account_share_their_checks(simulator: Simulator) -> None:
    threshold = {"threshold": "5", "direction": "below", "include_free_credits": True}
    sensor = LumaRayCreditSensorTrigger(
        luma_ray_conn_id="luma_ray_default",
        poke_interval=0.05,
        **threshold,  # type: ignore[arg-type]
    )
    watcher = LumaRayCreditTrigger(threshold=50, poll_interval=0.05)

    async def watch() -> int:
        tasks = [asyncio.create_task(first(revived(it).run())) for it in [sensor, watcher] * 20]
        while simulator.calls.get("credits", 0) < 10:
            await asyncio.sleep(0.01)
        simulator.set_credits("4.5")
        await asyncio.wait(tasks, return_when="FIRST_COMPLETED")
        calls = simulator.calls["credits"]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return calls

    began = time.monotonic()
    assert asyncio.run(watch()) <= (time.monotonic() - began) / 0.05 + 3


def test_balance_checks_starve_no_bought_job(
    simulator: Simulator, frame: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request_id = submitted(frame)
    set_connection(monkeypatch, simulator.url, requests_per_minute=10)
    sensors = [
        LumaRayCreditSensorTrigger(
            luma_ray_conn_id="luma_ray_default",
            threshold="99",
            direction="above",
            include_free_credits=True,
            poke_interval=0.01,
        )
        for _ in range(12)
    ]

    async def crowd() -> Any:
        waits = [asyncio.create_task(first(revived(sensor).run())) for sensor in sensors]
        while account_of("luma_ray_default").hook().limiter.take(Rank.BALANCE) == 0:
            await asyncio.sleep(0.01)
        event = await first(revived(job_trigger(request_id, timeout=5.0, poll_interval=0.1)).run())
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        return event

    assert asyncio.run(crowd())["reason"] == "ready"


def test_a_failed_check_is_skipped_and_logged_once(
    simulator: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    simulator.fault("credits", "status", status=500, times=5)

    async def first_look() -> Any:
        async for look in account_of("luma_ray_default").looks(0.01):
            if look.credits:
                return look.credits

    assert asyncio.run(first_look()).total == 20
    assert caplog.text.count("The balance of 'luma_ray_default' cannot be read") == 1


@pytest.mark.parametrize(
    "statuses",
    [
        pytest.param([503], id="out of order"),
        pytest.param([429], id="too many requests"),
        pytest.param([401], id="a key that does not work"),
        pytest.param([503, None], id="every other check"),
        pytest.param([503, 429, 401, 402, None], id="something else each time"),
    ],
)
def test_an_hour_of_failed_checks_logs_a_few_lines(
    simulator: Simulator, caplog: pytest.LogCaptureFixture, statuses: list[int | None]
) -> None:
    """One of each kind, whatever the interval; without a bound 360 checks are 360 lines."""
    caplog.set_level("INFO", logger="airflow_provider_luma")
    failures = itertools.cycle(statuses)

    with virtual_time.triggerer(simulator) as loop:

        async def watch() -> int:
            checks = account_of("luma_ray_default").looks(10.0)
            for check in itertools.count():
                if status := next(failures):
                    simulator.fault("credits", "status", status=status)
                await anext(checks)
                if loop.time() > 3590:
                    return check
            raise AssertionError

        checks = loop.run_until_complete(watch())
    lines = [one for one in caplog.records if "luma" in one.name and "simulator" not in one.name]
    print(f"{checks} checks in an hour: {len(lines)} lines")
    assert checks >= 60
    assert 1 <= len(lines) <= 5


def test_a_store_that_fails_is_logged_once(simulator: Simulator, caplog: pytest.LogCaptureFixture) -> None:
    class Down:
        writes = 0

        async def aget(self, key: str) -> None:
            raise OSError("down")

        async def aset(self, key: str, value: object) -> None:
            self.writes += 1
            raise OSError("down")

    store = Down()

    async def watch() -> None:
        trigger = LumaRayCreditTrigger(threshold=5, poll_interval=0.01)
        trigger.asset_state_store = store  # type: ignore[assignment]
        task = asyncio.create_task(first(trigger.run()))
        while store.writes < 5:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(watch())
    assert caplog.text.count("cannot be stored") == 1


def test_it_watches_a_real_account_without_shared_streams(simulator: Simulator) -> None:
    async def watch() -> Any:
        events = revived(LumaRayCreditTrigger(threshold=5, poll_interval=0.01)).run()
        task = asyncio.create_task(first(events))
        while simulator.calls.get("credits", 0) < 2:
            await asyncio.sleep(0.01)
        simulator.set_credits("4.5")
        return await task

    assert asyncio.run(watch()) == {"balance": "4.5", "threshold": "5", "direction": "below"}


def test_a_watcher_survives_a_wrong_key_and_notices_the_correction(
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


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold": "much"},
        {"threshold": 5, "direction": "up"},
        *(
            {"threshold": 5, "poll_interval": interval}
            for interval in (0, -1, "5", None, True, float("nan"), float("inf"), timedelta(0))
        ),
    ],
)
def test_wrong_arguments_are_reported_at_parse_time(wrong: dict[str, Any]) -> None:
    with pytest.raises(LumaRayConfigurationError, match="is wrong: give"):
        LumaRayCreditTrigger(**wrong)


def test_the_interval_may_be_a_timedelta(simulator: Simulator) -> None:
    trigger = LumaRayCreditTrigger(threshold=5, poll_interval=timedelta(minutes=2))
    assert revived(trigger).serialize() == trigger.serialize()
    assert revived(trigger).poll_interval == 120
