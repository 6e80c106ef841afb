"""Task instances with identical requests at the same time: each gets its own job, or none."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from airflow_provider_luma.exceptions import LumaRaySubmitUnknown
from airflow_provider_luma.hooks.luma_ray import GeneratedVideo, LumaRayHook
from airflow_provider_luma.segmind.request import GenerationRequest
from airflow_provider_luma.simulator import Simulator
from tests.faults.conftest import connect
from tests.faults.harness import Outcome, Task, settle
from tests.support import API_KEY

#: What may happen to a submit: the fault of its reply, and whether the vendor took it.
ANSWERED = ("wrong_content_type", True)
TAKEN = ("reset", True)
NOT_TAKEN = ("reset", False)
FATES = {ANSWERED: "answered", TAKEN: "lost but taken", NOT_TAKEN: "lost and not taken"}


@pytest.fixture
def frame_url(connection: None, frame: Path) -> str:
    """A frame given as a URL, so that all submits have the same body."""
    return LumaRayHook().upload_image(frame)


@pytest.fixture
def tasks(simulator: Simulator, frame_url: str, tmp_path: Path) -> list[Task]:
    """Mapped task instances with the same inputs, half of them with a task state store."""
    return [
        Task(simulator, tmp_path / "videos", frame_url, stored=index % 2 == 0, map_index=index)
        for index in range(4)
    ]


def check(simulator: Simulator, tasks: Sequence[Task], outcomes: Sequence[Outcome]) -> list[str]:
    """Check the final state once each task has made its last attempt; return each one's word."""
    jobs = {job.request_id: job for job in settle(simulator)}
    delivered = [outcome.xcoms["request_id"] for outcome in outcomes if outcome.xcoms]
    assert len(set(delivered)) == len(delivered), "one video was delivered twice"
    told = []
    for task, outcome in zip(tasks, outcomes, strict=True):
        task.check_left_clean()
        if outcome.xcoms:
            task.check_delivered(outcome, jobs[outcome.xcoms["request_id"]])
        else:
            assert isinstance(outcome.error, LumaRaySubmitUnknown)
            assert str(task.record_path) in str(outcome.error)
            told.append(outcome.error)
    assert len(jobs) - len(delivered) <= len(told), "a paid video is lost, and nobody was told"
    assert simulator.charges <= simulator.calls["submit"] <= len(tasks)
    return [outcome.word for outcome in outcomes]


@pytest.mark.parametrize("history", ["up", "down at first"])
@pytest.mark.parametrize("second", FATES, ids=FATES.get)
@pytest.mark.parametrize("first", FATES, ids=FATES.get)
def test_two_in_turn(
    simulator: Simulator, tasks: list[Task], first: tuple[str, bool], second: tuple[str, bool], history: str
) -> None:
    pair = tasks[:2]
    for task, (kind, accepted) in zip(pair, (first, second), strict=True):
        simulator.fault("submit", kind, accepted=accepted)
        if history != "up":
            simulator.fault("history", "status", status=500, times=99)
        task.attempt()
    simulator.clear_faults()
    words = check(simulator, pair, [task.attempt() for task in pair])

    # Who was answered has a job of its own, and so has who was not, as long as there is one for each open outcome.
    first_finds = first == TAKEN and (history == "up" or second != NOT_TAKEN)
    second_finds = second == TAKEN and (first == ANSWERED or first_finds)
    assert words == [
        "delivered" if first == ANSWERED or first_finds else "person",
        "delivered" if second == ANSWERED or second_finds else "person",
    ]
    assert simulator.charges == (first != NOT_TAKEN) + (second != NOT_TAKEN)


@pytest.mark.parametrize("fate", [TAKEN, NOT_TAKEN], ids=FATES.get)
def test_a_job_whose_owner_is_waiting_for_the_answer_is_not_adopted(
    simulator: Simulator, tasks: list[Task], fate: tuple[str, bool]
) -> None:
    """The other's job is in the history before its owner knows its id."""
    waiting, lost = tasks[:2]
    simulator.fault("submit", "slow", seconds=1.5)
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(waiting.attempt)
        while not simulator.jobs:
            time.sleep(0.005)
        simulator.fault("submit", fate[0], accepted=fate[1])
        assert lost.attempt().word == "person"
        assert not answer.done()
        first = answer.result()
    words = check(simulator, (waiting, lost), (first, lost.attempt()))
    assert words == ["delivered", "delivered" if fate == TAKEN else "person"]


def test_a_job_is_its_owners_even_if_the_owner_claimed_first_and_sent_last(
    simulator: Simulator, tasks: list[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Assigned in the order of the claims, the owner's job would go to the other, and the other's to nobody."""
    owner, lost = tasks[:2]
    owner_has_claimed, other_has_sent = threading.Event(), threading.Event()
    submit = LumaRayHook.submit

    def in_turn(self: LumaRayHook, request: GenerationRequest) -> str:
        if not owner_has_claimed.is_set():
            owner_has_claimed.set()
            assert other_has_sent.wait(10)
            return submit(self, request)
        try:
            return submit(self, request)
        except LumaRaySubmitUnknown:
            other_has_sent.set()
            while len(simulator.jobs) < 2:
                time.sleep(0.005)
            raise

    simulator.fault("submit", "reset", accepted=True)
    simulator.fault("submit", "slow", seconds=1.5)
    with monkeypatch.context() as for_now, ThreadPoolExecutor(1) as threads:
        for_now.setattr(LumaRayHook, "submit", in_turn)
        answer = threads.submit(owner.attempt)
        assert owner_has_claimed.wait(10)
        assert lost.attempt().word == "person"
        assert not answer.done()
        first = answer.result()
    lost.clear()
    assert check(simulator, (owner, lost), (first, lost.attempt())) == ["delivered", "delivered"]


def test_a_v1_job_without_an_id_is_not_adopted(
    simulator: Simulator, tasks: list[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A v1 reply may be nothing but the video: then its record has no id for a claim."""
    generate = LumaRayHook.generate

    def without_id(self: LumaRayHook, request: GenerationRequest, destination: Path) -> GeneratedVideo:
        return replace(generate(self, request, destination), request_id=None)

    monkeypatch.setattr(LumaRayHook, "generate", without_id)
    nameless, lost = tasks[:2]
    assert nameless.attempt(api_version="v1").word == "delivered"
    simulator.fault("submit", "reset", accepted=False)
    assert lost.attempt().word == "person"


@pytest.mark.parametrize("seed", range(12))
def test_many_at_the_same_time(simulator: Simulator, tasks: list[Task], seed: int) -> None:
    chance = random.Random(seed)
    for _ in tasks:
        kind, accepted = chance.choice((*FATES, ("status", True), ("truncated", True)))
        simulator.fault("submit", kind, accepted=accepted)
    together = threading.Barrier(len(tasks))

    def attempt(task: Task) -> Outcome:
        together.wait()
        return task.attempt()

    with ThreadPoolExecutor(len(tasks)) as threads:
        list(threads.map(attempt, tasks))
        check(simulator, tasks, list(threads.map(attempt, tasks)))


@pytest.mark.parametrize("fate", [TAKEN, NOT_TAKEN], ids=FATES.get)
def test_two_runs_of_one_dag(
    monkeypatch: pytest.MonkeyPatch, frame: Path, tmp_path: Path, fate: tuple[str, bool]
) -> None:
    """A backfill sends the same request in each run; the later run's job is not in the history yet."""
    with Simulator(latency=0.02, clip_seconds=0.2, api_key=API_KEY, history_lag=60) as simulator:
        connect(monkeypatch, simulator)
        frame_url = LumaRayHook().upload_image(frame)
        runs = [
            Task(simulator, tmp_path / "videos", frame_url, stored=True, run_id=run_id)
            for run_id in ("run_1", "run_2")
        ]
        first = runs[0].attempt()
        simulator.advance(60)
        simulator.fault("submit", fate[0], accepted=fate[1])
        second = runs[1].attempt()
        check(simulator, runs, (first, second))
