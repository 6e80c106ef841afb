"""Whatever is killed, and whenever: one charge, one playable video, and the right XComs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e import processes
from tests.e2e.conftest import LONG_RUN, long_run_only
from tests.e2e.runs import HELD, Run, Runs
from tests.e2e.strikes import Killer, Strike

pytestmark = [pytest.mark.airflow, pytest.mark.slow]
KILLS = LONG_RUN or 5
IN_FLIGHT = 20
SEED = 20261122
_BATCH = 12
_VIDEO_BYTES = 8_000_000


def test_killed_tasks(vendor: Callable[..., Runs]) -> None:
    runs = vendor(latency=2.0, video_size=_VIDEO_BYTES)
    killer = Killer(SEED)
    strikes: list[Strike] = []
    states: dict[Run, str] = {}
    survived: list[Strike] = []
    while len(survived) < KILLS:
        assert len(strikes) < 3 * KILLS, "the kills do not land:\n" + "\n".join(map(str, strikes))
        amount = min(KILLS - len(survived), _BATCH)
        batch = [runs.start("deferred" if number % 3 == 2 else "blocking") for number in range(amount)]
        strikes += (planned := killer.plan(batch))
        killer.deal(planned, runs)
        states |= runs.wait(batch)
        survived = [strike for strike in strikes if strike.landed and states[strike.run] == "success"]
    told = [run for run, state in states.items() if state == "failed"]
    print("\n".join(map(str, strikes)))
    print(f"{len(states)} runs, {sum(strike.landed is True for strike in strikes)} kills;", end=" ")
    print(f"{len(told)} runs ended in LumaRaySubmitUnknown, nothing having been bought")
    for run in states:
        (runs.check_told if run in told else runs.check_delivered)(run)
    assert runs.simulator.charges == len(states) - len(told)
    assert len(told) <= max(1, len(states) // 5)  # only a kill between the intent and the submit may end so


def test_a_killed_triggerer(vendor: Callable[..., Runs]) -> None:
    runs = vendor(latency=HELD)
    run = runs.start("mapped", count=IN_FLIGHT)
    runs.wait_deferred(run, IN_FLIGHT)

    runs.cluster.kill("triggerer")
    runs.simulator.advance(HELD)
    runs.cluster.start("triggerer")

    assert runs.wait([run]) == {run: "success"}
    runs.check_mapped(run, IN_FLIGHT)
    assert runs.simulator.charges == IN_FLIGHT


@long_run_only
def test_killed_supervisors_with_their_tasks(vendor: Callable[..., Runs]) -> None:
    """Nothing is left to report it: Airflow notices the missing heartbeat."""
    runs = vendor(latency=3.0, video_size=_VIDEO_BYTES)
    started = [runs.start("blocking") for _ in range(4)]
    for run, call in zip(started, ("upload", "submit", "status", "download"), strict=True):
        pid = runs.wait_call(run, call)
        runs.kill_supervisor(pid)
        processes.kill(pid)
    assert set(runs.wait(started).values()) == {"success"}
    for run in started:
        runs.check_delivered(run)
    assert runs.simulator.charges == len(started)


@long_run_only
@pytest.mark.parametrize("call", ["upload", "submit", "status", "download"])
def test_a_killed_supervisor_whose_task_survives(vendor: Callable[..., Runs], call: str) -> None:
    """The first attempt's call outlasts Airflow's heartbeat timeout, so the retry overlaps with it."""
    runs = vendor(latency=3.0, video_size=_VIDEO_BYTES)
    runs.simulator.fault(call, "slow", seconds=45)
    run = runs.start("blocking")
    orphan = runs.wait_call(run, call)
    runs.kill_supervisor(orphan)

    assert runs.wait([run]) == {run: "success"}
    runs.cluster.wait("the orphan ends", lambda: processes.read(orphan) is None)
    runs.check_delivered(run, by_two=True)
    assert runs.simulator.charges == 1


@long_run_only
def test_a_killed_scheduler(vendor: Callable[..., Runs]) -> None:
    """Its tasks live on as orphans for a while, alongside those that the next scheduler starts."""
    runs = vendor(latency=6.0, video_size=_VIDEO_BYTES)
    started = [runs.start("deferred" if number % 2 else "blocking") for number in range(8)]
    runs.cluster.wait("some jobs are bought", lambda: len(runs.simulator.jobs) >= 3, every=0.05)

    runs.cluster.kill_alone("scheduler")
    runs.cluster.start("scheduler")

    assert set(runs.wait(started).values()) == {"success"}
    for run in started:
        runs.check_delivered(run, by_two=True)
    assert runs.simulator.charges == len(started)


@long_run_only
@pytest.mark.parametrize("bought", [1, 5])
def test_all_of_airflow_killed(vendor: Callable[..., Runs], bought: int) -> None:
    runs = vendor(latency=6.0, video_size=_VIDEO_BYTES)
    started = [runs.start("deferred" if number % 2 else "blocking") for number in range(8)]
    runs.cluster.wait("jobs are bought", lambda: len(runs.simulator.jobs) >= bought, every=0.05)

    runs.cluster.kill()
    runs.cluster.start()

    states = runs.wait(started)
    told = [run for run, state in states.items() if state == "failed"]
    for run in started:
        (runs.check_told if run in told else runs.check_delivered)(run)
    assert runs.simulator.charges == len(started) - len(told)
    assert len(told) <= len(started) // 2  # those that were just then between their intent and their submit
