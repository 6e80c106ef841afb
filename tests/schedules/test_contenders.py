"""Contenders for one job, in every schedule: at most one charge each, and no paid video is lost.

LUMA_SCHEDULES says how many preemptions are explored (default 1; `make faults` explores 3). With one preemption less,
one of the contenders may also be killed at any step, before its effect or right after it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from airflow_provider_luma.exceptions import LumaRayConfigurationError, LumaRayError, LumaRaySubmitUnknown
from airflow_provider_luma.jobs import recovery
from airflow_provider_luma.jobs.ledger import Ledger
from airflow_provider_luma.jobs.record import Identity, RecordState
from tests.schedules.explorer import Broken, Outcome, Scenario, Scheduler, bound, explore
from tests.schedules.world import LOCAL, PLAIN, S3, Attempt, Place, World, check

ONE = Identity(dag_id="clips", run_id="sunday", task_id="generate")
FIRST, SECOND, THIRD = (ONE.model_copy(update={"map_index": index}) for index in range(3))
MONDAY = ONE.model_copy(update={"run_id": "monday"})
PLACES = pytest.mark.parametrize("place", [LOCAL, S3])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Search only twice for a lost job, and log nothing: logging would take most of the time."""
    monkeypatch.setattr(recovery, "LOOK_DELAYS", (0.0, 60.0))
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def scenario(
    attempts: Mapping[str, Attempt],
    *,
    place: str = LOCAL,
    charges: int = 1,
    total: int = 9,
    finish: bool = True,
    person: Callable[[World], None] | None = None,
    charged: Counter[int] | None = None,
) -> Callable[[Scheduler], Scenario]:
    """Return a factory of worlds in which attempts contend.

    :param charges: how many charges one task instance may have
    :param total: how many charges all may have
    :param finish: whether each task instance gets one more try at the end, and then must deliver or ask
    :param person: what a person does in the meantime
    :param charged: counts the schedules by their charges
    """

    def make(scheduler: Scheduler) -> Scenario:
        world = World(scheduler, kind=place)

        def verify(outcomes: Mapping[str, Outcome]) -> None:
            if charged is not None:
                charged[len(world.sold)] += 1
            told = " ".join(str(outcome.value) for outcome in outcomes.values()) if place == PLAIN else ""
            check(world, list(attempts.values()), charges=charges, told=told)
            assert len(world.sold) <= total, f"{len(world.sold)} charges in all"
            if finish:
                come_to_rest(world, list(attempts.values()))
                check(world, list(attempts.values()), charges=charges)

        contenders: dict[str, Callable[[], object]] = {
            name: partial(attempt.run, world) for name, attempt in attempts.items()
        }
        if person is not None:
            contenders["person"] = partial(person, world)
        return Scenario(
            contenders=contenders, check=verify, fingerprint=world.fingerprint, expected=(LumaRayError,)
        )

    return make


def come_to_rest(world: World, attempts: list[Attempt]) -> None:
    """Try each task instance once more, without contention: it delivers what it bought, or asks a person."""
    for attempt in {attempt.identity: attempt for attempt in attempts}.values():
        last = replace(attempt, name="last", starts=0)
        mine = [sold.request_id for sold in world.sold if sold.poster == attempt.identity]
        try:
            delivered = last.run(world)
        except (LumaRaySubmitUnknown, LumaRayConfigurationError):
            continue
        assert not mine or delivered in mine, f"it delivered {delivered}, and bought {mine}"


def explored(
    capsys: pytest.CaptureFixture[str],
    name: str,
    attempts: Mapping[str, Attempt],
    *,
    preemptions: int | None = None,
    kills: int = 1,
    stalls: bool = False,
    **options: Any,
) -> None:
    """Explore all schedules, then those with a kill and one preemption less; print how many there were.

    :param stalls: whether a suspended contender may stay suspended for hours
    """
    most = bound() if preemptions is None else preemptions
    make = scenario(attempts, **options)
    reports = [explore(make, preemptions=most, stalls=stalls)]
    if kills:
        reports.append(explore(make, preemptions=most - 1, kills=kills, stalls=stalls))
    with capsys.disabled():
        print(*(f"\n{name}: {report}" for report in reports), end="")


@PLACES
@pytest.mark.parametrize("stored", [True, False], ids=["with the state store", "without"])
@pytest.mark.parametrize("url", [False, True], ids=["file", "URL"])
def test_two_attempts_of_one_task_instance(
    capsys: pytest.CaptureFixture[str], place: str, stored: bool, url: bool
) -> None:
    attempts = {name: Attempt(ONE, name, stored=stored, url=url) for name in ("try1", "try2")}
    explored(capsys, f"two attempts, {place}, {stored=}, {url=}", attempts, place=place)


def test_three_attempts_of_one_task_instance(capsys: pytest.CaptureFixture[str]) -> None:
    attempts = {name: Attempt(ONE, name) for name in ("try1", "try2", "try3")}
    explored(capsys, "three attempts", attempts, preemptions=min(bound(), 2))


@PLACES
def test_attempts_on_two_hosts_that_share_only_the_state_store(
    capsys: pytest.CaptureFixture[str], place: str
) -> None:
    attempts = {name: Attempt(ONE, name, path=f"/{name}/clip.mp4") for name in ("try1", "try2")}
    explored(capsys, f"two hosts, {place}", attempts, place=place)


@PLACES
@pytest.mark.parametrize("stored", [True, False], ids=["with the state store", "without"])
def test_mapped_siblings_on_one_path(capsys: pytest.CaptureFixture[str], place: str, stored: bool) -> None:
    attempts = {
        "first": Attempt(FIRST, "first", prompt="a", stored=stored),
        "second": Attempt(SECOND, "second", prompt="b", stored=stored),
    }
    explored(capsys, f"siblings, {place}, {stored=}", attempts, place=place)


def test_three_mapped_siblings_on_one_path(capsys: pytest.CaptureFixture[str]) -> None:
    attempts = {f"index{one.map_index}": Attempt(one, "try1", url=True) for one in (FIRST, SECOND, THIRD)}
    explored(capsys, "three siblings", attempts, place=S3, preemptions=min(bound(), 2))


@PLACES
@pytest.mark.parametrize("if_exists", ["overwrite", "reuse"])
@pytest.mark.parametrize("later", [0, 3600])
def test_two_runs_on_one_path(
    capsys: pytest.CaptureFixture[str], place: str, if_exists: str, later: float
) -> None:
    attempts = {
        "sunday": Attempt(ONE, "sunday", if_exists=if_exists),
        "monday": Attempt(MONDAY, "monday", if_exists=if_exists, prompt="b", starts=later),
    }
    explored(capsys, f"two runs, {place}, {if_exists}, {later} s apart", attempts, place=place, finish=False)


@PLACES
@pytest.mark.parametrize("stored", [True, False], ids=["with the state store", "without"])
def test_a_retry_with_changed_inputs(capsys: pytest.CaptureFixture[str], place: str, stored: bool) -> None:
    attempts = {
        "try1": Attempt(ONE, "try1", prompt="a", stored=stored),
        "try2": Attempt(ONE, "try2", prompt="b", stored=stored),
    }
    explored(capsys, f"changed inputs, {place}, {stored=}", attempts, place=place)


@PLACES
@pytest.mark.parametrize("stored", [True, False], ids=["with the state store", "without"])
def test_a_zombie_and_a_run_that_took_the_path(
    capsys: pytest.CaptureFixture[str], place: str, stored: bool
) -> None:
    """The first try is considered dead; its retry delivers; then another run overwrites the path."""
    attempts = {
        "try1": Attempt(ONE, "try1", stored=stored),
        "try2": Attempt(ONE, "try2", stored=stored),
        "monday": Attempt(MONDAY, "monday", prompt="b", stored=stored, starts=3600),
    }
    explored(
        capsys,
        f"zombie, {place}, {stored=}",
        attempts,
        place=place,
        preemptions=min(bound(), 2),
        stalls=True,
        finish=False,
    )


@PLACES
def test_a_person_who_adopts_the_job_of_a_lost_call(capsys: pytest.CaptureFixture[str], place: str) -> None:
    """Between any two steps of an attempt and its retry, a person finds the job in the history and records it."""
    attempts = {"try1": Attempt(ONE, "try1", stored=False), "try2": Attempt(ONE, "try2", stored=False)}
    explored(
        capsys, f"a person adopts, {place}", attempts, place=place, person=adopt, preemptions=min(bound(), 2)
    )


def adopt(world: World) -> None:
    """Do what the command ``adopt`` does."""
    ledger = Ledger(ONE, Place(world), None, clock=world.scheduler.now, nonce=world.nonce)
    take = ledger.read().current
    if take is not None and take.state is RecordState.INTENT and world.sold:
        ledger.advance(
            take,
            state=RecordState.SUBMITTED,
            request_id=world.sold[0].request_id,
            submitted_at=world.now().isoformat(),
        )


def test_a_store_without_conditional_writes(capsys: pytest.CaptureFixture[str]) -> None:
    """A second charge is possible there, as documented, and the explorer finds it.

    One writer may even erase another's id; its buyer has then returned it, or its error has it.
    """
    attempts = {
        "try1": Attempt(ONE, "try1", stored=False, path="/clips/clip.mp4"),
        "try2": Attempt(ONE, "try2", stored=False, path="/clips/clip.mp4"),
    }
    with pytest.raises(Broken, match="paid 2 times") as found:
        explore(scenario(attempts, place=PLAIN), preemptions=3)
    assert found.value.preemptions >= 1
    charged: Counter[int] = Counter()
    explored(
        capsys,
        "no conditional writes",
        attempts,
        place=PLAIN,
        charges=2,
        finish=False,
        charged=charged,
        kills=0,
    )
    with capsys.disabled():
        print(f"  schedules by charges: {dict(charged)}")
    assert charged[1] > charged[2]


def test_the_state_store_keeps_attempts_apart_even_there(capsys: pytest.CaptureFixture[str]) -> None:
    attempts = {"try1": Attempt(ONE, "try1"), "try2": Attempt(ONE, "try2")}
    explored(capsys, "no conditional writes, state store", attempts, place=PLAIN, finish=False, charges=1)


def test_a_claim_that_is_not_exclusive_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check that the explorer finds what it is made to find."""
    monkeypatch.setattr(
        Place, "create", lambda self, content: self._step("write", lambda: self._put(content))
    )
    attempts = {
        "first": Attempt(FIRST, "first", stored=False),
        "second": Attempt(SECOND, "second", stored=False),
    }
    with pytest.raises(Broken):
        explore(scenario(attempts, finish=False, total=1), preemptions=1)


def test_an_overwrite_of_what_was_not_read_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Place, "replace", lambda self, content, token: self._step("write", lambda: self._put(content))
    )
    attempts = {
        "try1": Attempt(ONE, "try1", stored=False),
        "try2": Attempt(ONE, "try2", stored=False),
        "monday": Attempt(MONDAY, "monday", prompt="b", stored=False, starts=3600),
    }
    with pytest.raises(Broken):
        explore(scenario(attempts, finish=False), preemptions=1, stalls=True)
