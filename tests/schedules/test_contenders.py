"""Whoever contends for one job, under every schedule: at most one charge each, and no paid video is lost.

LUMA_SCHEDULES says how many preemptions are explored (default 2; `make faults` explores 3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pytest

from airflow_provider_luma.exceptions import LumaRayConfigurationError, LumaRayError, LumaRaySubmitUnknown
from airflow_provider_luma.jobs import recovery
from airflow_provider_luma.jobs.record import Identity
from tests.schedules.explorer import Outcome, Report, Scenario, Scheduler, bound, explore
from tests.schedules.scheduler import Run
from tests.schedules.world import LOCAL, PLAIN, S3, Attempt, World, check, check_truth

ONE = Identity(dag_id="clips", run_id="sunday", task_id="generate")
FIRST, SECOND, THIRD = (ONE.model_copy(update={"map_index": index}) for index in range(3))
MONDAY = ONE.model_copy(update={"run_id": "monday"})
PLACES = pytest.mark.parametrize("place", [LOCAL, S3])


@pytest.fixture(autouse=True)
def two_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "LOOK_DELAYS", (0.0, 60.0))


def scenario(
    attempts: Mapping[str, Attempt], *, place: str = LOCAL, charges: int = 1, finish: bool = True
) -> Callable[[Scheduler], Scenario]:
    """Return the making of a world in which attempts contend.

    :param finish: whether at the end each task instance is tried once more, and then must have its video or ask
    """

    def make(scheduler: Scheduler) -> Scenario:
        world = World(scheduler, kind=place)

        def verify(outcomes: Mapping[str, Outcome]) -> None:
            check(world, list(attempts.values()), charges=charges)
            for name, outcome in outcomes.items():
                if outcome.kind == "raised":
                    check_truth(world, attempts[name], outcome.value)
            if finish:
                come_to_rest(world, list(attempts.values()))
                check(world, list(attempts.values()), charges=charges)

        return Scenario(
            contenders={
                name: lambda attempt=attempt: attempt.run(world)  # type: ignore[misc]
                for name, attempt in attempts.items()
            },
            check=verify,
            fingerprint=world.fingerprint,
            expected=(LumaRayError,),
        )

    return make


def come_to_rest(world: World, attempts: list[Attempt]) -> None:
    """Try each task instance once more with nobody about: it delivers what it bought, or asks a person."""
    for attempt in {attempt.identity: attempt for attempt in attempts}.values():
        last = Attempt(**{**vars(attempt), "name": "last"})
        mine = [sold.request_id for sold in world.sold if sold.poster == attempt.identity]
        try:
            delivered = last.run(world)
        except (LumaRaySubmitUnknown, LumaRayConfigurationError):
            continue
        assert not mine or delivered in mine, f"it delivered {delivered}, and bought {mine}"


def run(
    capsys: pytest.CaptureFixture[str], name: str, make: Callable[[Scheduler], Scenario], **options: object
) -> Report:
    report = explore(make, **options)  # type: ignore[arg-type]
    with capsys.disabled():
        print(f"\n{name}: {report}")
    return report


@PLACES
@pytest.mark.parametrize("stored", [True, False], ids=["with the state store", "without"])
@pytest.mark.parametrize("url", [False, True], ids=["file", "URL"])
def test_two_attempts_of_one_task_instance(
    capsys: pytest.CaptureFixture[str], place: str, stored: bool, url: bool
) -> None:
    attempts = {
        "try1": Attempt(ONE, "try1", stored=stored, url=url),
        "try2": Attempt(ONE, "try2", stored=stored, url=url),
    }
    run(
        capsys,
        f"two attempts, {place}, {stored=}, {url=}",
        scenario(attempts, place=place),
        preemptions=bound(),
        kills=1,
    )
