"""The sensor over real HTTP: poke, reschedule and deferred, with the same outcomes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSensorTimeout, AirflowSkipException, TaskDeferred
from airflow.sdk.bases.sensor import AirflowRescheduleException  # type: ignore[attr-defined]
from airflow.sdk.module_loading import import_string  # type: ignore[attr-defined]

from airflow_provider_luma.exceptions import LumaRayAuthenticationError, LumaRayConfigurationError
from airflow_provider_luma.sensors.luma_ray import LumaRayCreditSensor
from airflow_provider_luma.simulator import Simulator
from tests.support import set_connection, task_context

pytestmark = pytest.mark.usefixtures("connection")
MODES = ["poke", "reschedule", "deferrable"]


def sensor(mode: str = "reschedule", **arguments: Any) -> LumaRayCreditSensor:
    how = {"deferrable": True} if mode == "deferrable" else {"mode": mode}
    defaults: dict[str, Any] = {"task_id": "enough", "threshold": 5, "poke_interval": 0.02, "timeout": 5}
    return LumaRayCreditSensor(**defaults | how | arguments)


def run(waiting: LumaRayCreditSensor) -> Any:
    """Run a sensor to its end like Airflow: reschedule it, or run its trigger and resume it."""
    started = datetime.now(UTC)
    ctx = context()
    ctx["ti"].get_first_reschedule_date = lambda _: started
    resume: Callable[[], Any] = lambda: waiting.execute(ctx)  # noqa: E731
    while True:
        try:
            return resume()
        except AirflowRescheduleException:
            continue
        except TaskDeferred as deferred:
            resume = partial(_resume, waiting, deferred, ctx)


def _resume(waiting: LumaRayCreditSensor, deferred: TaskDeferred, ctx: Any) -> Any:
    classpath, arguments = deferred.trigger.serialize()
    trigger = import_string(classpath)(**json.loads(json.dumps(arguments)))

    async def first_event() -> Any:
        async for event in trigger.run():
            return event.payload

    assert deferred.timeout is not None
    try:
        payload = asyncio.run(asyncio.wait_for(first_event(), deferred.timeout.total_seconds()))
    except TimeoutError:
        return waiting.resume_execution("__fail__", {"error": "Trigger timeout"}, ctx)
    return waiting.resume_execution(
        str(deferred.method_name), {**(deferred.kwargs or {}), "event": payload}, ctx
    )


def context() -> Any:
    made = task_context()
    made["ti"].get_first_reschedule_date = lambda context: None
    return made


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("threshold", "direction"),
    [(20, "above"), (19.99, "above"), ("20", "above"), (20, "below"), (20.01, "below"), ("2e1", "below")],
)
def test_a_crossed_threshold_returns_the_balance(mode: str, threshold: Any, direction: str) -> None:
    assert sensor(mode=mode, threshold=threshold, direction=direction).execute(context()) == 20.0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("threshold", "direction"), [(20.01, "above"), (19.99, "below")])
def test_it_waits_until_the_balance_crosses(
    simulator: Simulator, mode: str, threshold: float, direction: str
) -> None:
    waiting = sensor(mode=mode, threshold=threshold, direction=direction)
    poke = waiting.poke

    def poke_and_change_the_balance(ctx: Any) -> Any:
        answer = poke(ctx)
        simulator.set_credits("40" if direction == "above" else "1")
        return answer

    waiting.poke = poke_and_change_the_balance  # type: ignore[method-assign, assignment]
    assert run(waiting) == (40.0 if direction == "above" else 1.0)


def test_reschedule_frees_the_worker_between_pokes(simulator: Simulator) -> None:
    with pytest.raises(AirflowRescheduleException):
        sensor(mode="reschedule", threshold=21).execute(context())
    simulator.set_credits("21")
    assert sensor(mode="reschedule", threshold=21).execute(context()) == 21.0


def test_rescheduling_is_the_default() -> None:
    assert LumaRayCreditSensor(task_id="enough", threshold=1).mode == "reschedule"


@pytest.mark.parametrize(
    ("soft_fail", "outcome"), [(False, AirflowSensorTimeout), (True, AirflowSkipException)]
)
def test_a_timeout_fails_or_skips(soft_fail: bool, outcome: type[Exception]) -> None:
    with pytest.raises(outcome):
        sensor(mode="poke", threshold=99, timeout=timedelta(seconds=0.05), soft_fail=soft_fail).execute(
            context()
        )


@pytest.mark.parametrize(
    ("soft_fail", "outcome"), [(False, AirflowSensorTimeout), (True, AirflowSkipException)]
)
def test_a_deferred_sensor_that_resumes_after_its_timeout_fails_or_skips(
    soft_fail: bool, outcome: type[Exception]
) -> None:
    """The timeout counts from the first wait, however often the trigger has fired."""
    waiting = sensor(mode="deferrable", threshold=99, soft_fail=soft_fail)
    with pytest.raises(TaskDeferred) as deferred:
        waiting.execute(context())
    began = datetime.now(UTC) - timedelta(seconds=6)
    kwargs = {**(deferred.value.kwargs or {}), "started_at": began.isoformat()}
    with pytest.raises(outcome):
        waiting.resume_execution(
            str(deferred.value.method_name), {**kwargs, "event": {"balance": "20"}}, context()
        )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("switch", ["none", "soft_fail", "never_fail", "silent_fail"])
def test_a_wrong_key_fails_at_once_whatever_soft_fail_says(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, mode: str, switch: str
) -> None:
    set_connection(monkeypatch, simulator.url, password="SG_ffffffffffffffff")
    switches = {} if switch == "none" else {switch: True}
    with pytest.raises(LumaRayAuthenticationError):
        run(sensor(mode=mode, **switches))
    assert len(simulator.requests) == 1


@pytest.mark.parametrize("mode", MODES)
def test_a_key_that_is_withdrawn_while_waiting_fails_at_once(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    waiting = sensor(mode=mode, threshold=99, soft_fail=True)
    poke = waiting.poke

    def poke_and_withdraw(ctx: Any) -> Any:
        answer = poke(ctx)
        set_connection(monkeypatch, simulator.url, password="SG_ffffffffffffffff")
        return answer

    waiting.poke = poke_and_withdraw  # type: ignore[method-assign, assignment]
    with pytest.raises(LumaRayAuthenticationError):
        run(waiting)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["status", "reset", "html", "empty", "broken_json", "wrong_shape"])
def test_a_hiccup_is_tolerated(simulator: Simulator, mode: str, kind: str) -> None:
    simulator.fault("credits", kind, times=4, status=500 if kind == "status" else None)
    assert run(sensor(mode=mode)) == 20.0
    assert len(simulator.requests) > 1


@pytest.mark.parametrize("threshold", ["much", "", "nan", "inf", None, True, [5]])
def test_an_invalid_threshold_is_reported_in_one_sentence(simulator: Simulator, threshold: Any) -> None:
    with pytest.raises(
        LumaRayConfigurationError, match=r"threshold=.* is wrong: give an amount of US dollars"
    ):
        sensor(threshold=threshold, soft_fail=True).execute(context())
    assert simulator.requests == []


def test_an_invalid_direction_is_reported_at_parse_time() -> None:
    with pytest.raises(LumaRayConfigurationError, match="direction='up' is wrong: give one of above, below"):
        sensor(direction="up")


def test_free_credits_can_be_left_out(simulator: Simulator) -> None:
    with pytest.raises(AirflowSensorTimeout):
        sensor(mode="poke", threshold=1000, include_free_credits=False, timeout=0).execute(context())
    assert sensor(include_free_credits=False, threshold=20).execute(context()) == 20.0


def test_a_check_without_room_is_not_waited_for(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_connection(monkeypatch, simulator.url, requests_per_minute=1)
    assert sensor().poke(context()).is_done
    assert not sensor().poke(context()).is_done
    assert simulator.calls == {"credits": 1}
