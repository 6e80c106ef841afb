"""The life of a job under any trouble at any step: one charge for what is asked for, and none of them is lost.

LUMA_FAULT_EXAMPLES says how many lives are tried (default 300; `make faults` tries many more).
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pendulum
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from airflow_provider_luma.exceptions import LumaRayError, LumaRaySubmitUnknown
from airflow_provider_luma.hooks import luma_ray as hook_module
from airflow_provider_luma.jobs import job as job_module
from airflow_provider_luma.jobs import ledger, submit
from airflow_provider_luma.jobs.ledger import STATE_KEY
from airflow_provider_luma.operators import luma_ray as operator_module
from tests.faults.vendor import (
    BROKEN,
    BROKEN_AFTER,
    DIE_AFTER,
    DIE_BEFORE,
    FAILURES,
    NOT_FOUND,
    SEAMS,
    TROUBLES,
    Died,
    FakeHook,
    FakeQueue,
    FakeStore,
    Job,
    World,
)
from tests.support import make_operator, task_context

EXAMPLES = int(os.environ.get("LUMA_FAULT_EXAMPLES", "300"))
FRAME_URL = "https://pictures.example.com/frame.jpg"
#: A disk in memory, where there is one: the record is synced to disk with each write.
DISK = next((path for path in ("/dev/shm",) if os.access(path, os.W_OK)), None)

Take = tuple[str, str | None]
world = World()


@dataclass
class Instance:
    """One task instance, and what its attempts came to.

    :param take: what it asks for now: the prompt and the generation tag
    :param store: its task state store, where Airflow has one
    :param told: errors for a person, with what was asked for
    """

    index: int
    take: Take
    store: FakeStore | None
    attempts: int = 0
    delivered: set[str] = field(default_factory=set)
    texts: list[str] = field(default_factory=list)
    told: list[tuple[Take, str]] = field(default_factory=list)
    last: Any = None


class LifeOfAJob(RuleBasedStateMachine):
    """Two mapped task instances, retried, cleared, edited and killed, and their vendor.

    Storage is either one folder that all workers see, with both asking for the same thing; then a clear may drop the
    task state store. Or it is a disk of each host, with each asking for its own; then the store is always there.
    """

    def __init__(self) -> None:
        global world
        super().__init__()
        self.world = world = World()
        self.root = Path(tempfile.mkdtemp(prefix="luma_life_", dir=DISK))
        self.folder = self.root / "videos"
        self.running = False
        self.a_copy_is_gone = False

    def teardown(self) -> None:
        try:
            if hasattr(self, "instances"):
                self.world.lag = 0
                for instance in self.instances:
                    self.come_to_rest(instance)
                self.check_jobs_are_accounted_for()
        finally:
            shutil.rmtree(self.root, ignore_errors=True)

    @initialize(
        shared=st.booleans(),
        store=st.sampled_from(("none", "kept", "dropped")),
        arguments=st.fixed_dictionaries(
            {
                "api_version": st.sampled_from(("auto", "v2", "v1")),
                "on_unknown_submit": st.sampled_from(("fail", "fail", "resubmit")),
                "deferrable": st.booleans(),
            }
        ),
        lag=st.sampled_from((0, 30, 300)),
    )
    def begin(self, shared: bool, store: str, arguments: dict[str, Any], lag: float) -> None:
        self.shared = shared
        self.droppable = shared and store == "dropped"
        self.arguments = arguments
        self.world.lag = lag
        stored = not shared or store != "none"
        self.instances = [
            Instance(index, (self.prompt(index, "a"), None), FakeStore(self.world) if stored else None)
            for index in (0, 1)
        ]
        self.frame: object = FRAME_URL
        if not shared:
            self.frame = self.root / "frame.jpg"
            self.frame.write_bytes(b"\xff\xd8\xff" + bytes(10))

    def prompt(self, index: int, letter: str) -> str:
        return letter if self.shared else f"{letter}{index}"

    @property
    def may_pay_again(self) -> bool:
        return bool(self.arguments["on_unknown_submit"] == "resubmit")

    # What may happen

    @rule(
        index=st.sampled_from((0, 1)),
        plan=st.dictionaries(
            st.sampled_from(SEAMS) | st.integers(1, 24), st.sampled_from(TROUBLES), min_size=1, max_size=3
        ),
    )
    def attempt(self, index: int, plan: dict[int | str, str]) -> None:
        self.run(self.instances[index], plan)

    @rule(
        index=st.sampled_from((0, 1)),
        seam=st.sampled_from(SEAMS),
        failure=st.sampled_from(FAILURES),
        plan=st.dictionaries(st.sampled_from(SEAMS), st.sampled_from(TROUBLES), max_size=1),
    )
    def attempt_in_an_outage(self, index: int, seam: str, failure: str, plan: dict[int | str, str]) -> None:
        self.run(self.instances[index], plan, (seam, failure))

    @rule(
        index=st.sampled_from((0, 1)),
        trouble=st.sampled_from((DIE_BEFORE, DIE_AFTER, BROKEN, BROKEN_AFTER)),
        history=st.sampled_from((None, NOT_FOUND, BROKEN)),
    )
    def attempt_whose_answer_is_lost(self, index: int, trouble: str, history: str | None) -> None:
        outage = ("find", history) if history else None
        self.run(self.instances[index], {"submit": trouble, "generate": trouble}, outage)

    @rule(index=st.sampled_from((0, 1)))
    def attempt_without_trouble(self, index: int) -> None:
        self.run(self.instances[index])

    @rule(index=st.sampled_from((0, 1)), letter=st.sampled_from("ab"))
    def edit_the_prompt(self, index: int, letter: str) -> None:
        instance = self.instances[index]
        instance.take = (self.prompt(index, letter), instance.take[1])

    @rule(index=st.sampled_from((0, 1)), tag=st.sampled_from((None, "again")))
    def change_the_tag(self, index: int, tag: str | None) -> None:
        instance = self.instances[index]
        instance.take = (instance.take[0], tag)

    @rule(seconds=st.sampled_from((1, 60, 600, 4000, 8 * 86400, 32 * 86400)))
    def time_passes(self, seconds: float) -> None:
        self.world.now += seconds

    @rule(seconds=st.sampled_from((0, 30, 300)))
    def the_history_lags(self, seconds: float) -> None:
        self.world.lag = seconds

    @rule()
    def the_next_job_is_doomed(self) -> None:
        self.world.doom_next = True

    @rule(index=st.sampled_from((0, 1)))
    def the_video_is_moved_away(self, index: int) -> None:
        self.video(self.instances[index]).unlink(missing_ok=True)

    @precondition(lambda self: self.droppable)
    @rule(index=st.sampled_from((0, 1)))
    def a_clear_drops_the_store(self, index: int) -> None:
        self.instances[index].store = FakeStore(self.world)
        self.a_copy_is_gone = True

    @precondition(lambda self: not self.shared)
    @rule()
    def the_host_changes(self) -> None:
        """There are two; each keeps what was on its disk."""
        elsewhere, here = self.root / "other_host", self.root / "this_host"
        self.folder.mkdir(exist_ok=True)
        elsewhere.mkdir(exist_ok=True)
        self.folder.rename(here)
        elsewhere.rename(self.folder)
        here.rename(elsewhere)
        self.a_copy_is_gone = True

    # One attempt

    def run(
        self,
        instance: Instance,
        plan: dict[int | str, str] | None = None,
        outage: tuple[str, str] | None = None,
    ) -> None:
        """Run an attempt as Airflow does: with a deferral and its end, and with a death."""
        instance.attempts += 1
        mine = {
            "plan": dict(plan or {}),
            "outage": outage,
            "steps": 0,
            "stopped": False,
            "poster": (instance.index, instance.take),
        }
        others = {name: getattr(self.world, name) for name in mine}
        vars(self.world).update(mine)
        try:
            self.note(instance, self.execute(instance))
        except Died:
            instance.last = None
        except LumaRayError as error:
            self.note_error(instance, error)
        finally:
            vars(self.world).update(others)
        self.check_charges()

    def execute(self, instance: Instance) -> dict[str, Any]:
        context = task_context(map_index=instance.index)
        if instance.store is not None:
            context["task_state_store"] = instance.store
        operator = self.operator(instance)
        try:
            return dict(operator.execute(context))
        except TaskDeferred as deferral:
            event = {"request_id": deferral.trigger.request_id, "reason": "ready"}
            return dict(
                self.operator(instance).execute_complete(context, event=event, **deferral.kwargs or {})
            )

    def operator(self, instance: Instance) -> Any:
        prompt, tag = instance.take
        operator = make_operator(
            self.frame,
            f"{self.folder}/",
            prompt=prompt,
            generation_tag=tag,
            poll_interval=50,
            **self.arguments,
        )
        self.world.on_other = lambda: self.run_other(instance)
        return operator

    def run_other(self, instance: Instance) -> None:
        """Let the other task instance run from beginning to end, once within a step."""
        if self.running:
            return
        self.running = True
        on_other = self.world.on_other
        try:
            self.run(self.instances[1 - instance.index])
        finally:
            self.running = False
            self.world.on_other = on_other

    # What must hold

    def note(self, instance: Instance, xcoms: dict[str, Any]) -> None:
        request_id = xcoms["request_id"]
        video = self.video(instance)
        assert xcoms["video_path"] == str(video)
        content = video.read_bytes()
        job = next(job for job in self.world.jobs.values() if job.video == content)
        assert request_id in (job.request_id, None), "the XCom names another job than the one delivered"
        assert job.poster[0] == instance.index, "another task instance's video was delivered"
        assert job.body["prompt"] == instance.take[0], "a video of other inputs was delivered"
        others = self.instances[1 - instance.index].delivered
        assert job.request_id not in others, "one video was delivered to two task instances"
        instance.delivered.add(job.request_id)
        instance.last = "delivered"

    def note_error(self, instance: Instance, error: LumaRayError) -> None:
        text = str(error)
        instance.texts.append(text)
        instance.last = error
        named = self.names_record(instance, text) or any(job in text for job in self.world.jobs)
        if isinstance(error, AirflowFailException):
            instance.told.append((instance.take, text))
        if re.search(r"bought nothing|othing was bought", text) and not named and not self.may_pay_again:
            assert not self.lost(instance), f"a job is bought, and the error denies it: {text}"

    def lost(self, instance: Instance) -> list[Job]:
        """The charged jobs of what is asked for now that were not delivered."""
        return [
            job
            for job in self.charged(instance)
            if job.poster[1] == instance.take and job.request_id not in instance.delivered
        ]

    def charged(self, instance: Instance) -> list[Job]:
        return [job for job in self.world.jobs.values() if job.poster[0] == instance.index and not job.doomed]

    def check_charges(self) -> None:
        if self.may_pay_again:
            return
        for instance in self.instances:
            takes = [job.poster[1] for job in self.charged(instance)]
            assert len(set(takes)) == len(takes), f"paid twice for the same: {takes}"

    def come_to_rest(self, instance: Instance) -> None:
        """Let it be retried without further trouble until it is delivered or for a person."""
        if not instance.attempts:
            return
        for _ in range(8):
            self.run(instance)
            if instance.last == "delivered" or isinstance(instance.last, AirflowFailException):
                break
            self.world.now += 150
        else:
            raise AssertionError(f"never settles: {instance.last!r}")
        if isinstance(instance.last, LumaRaySubmitUnknown):
            asked = (instance.index, instance.take)
            stale = (self.a_copy_is_gone or instance.store is None) and asked in self.world.torn
            assert asked in self.world.risked or self.lost(instance) or stale, (
                "a person is asked about nothing"
            )
            assert self.names_record(instance, str(instance.last))

    def check_jobs_are_accounted_for(self) -> None:
        """Every charged job was delivered, is named by an error or by a record, or its record was shown to a person.

        An edit leaves the job of what was asked for before to the record; so does a policy to buy anew.
        """
        for instance in self.instances:
            entries = self.entries(instance)
            known = {str(entry.get("request_id")) for entry in entries}
            missing = [
                job
                for job in self.charged(instance)
                if job.request_id not in instance.delivered | known
                and not any(job.request_id in text for text in instance.texts)
                and not any(
                    take == job.poster[1] and self.names_record(instance, text)
                    for take, text in instance.told
                )
            ]
            for entry in entries:
                if entry["state"] != "failed" and not entry.get("request_id"):
                    take = (entry["parameters"]["prompt"], entry.get("generation_tag"))
                    job = next((job for job in missing if job.poster[1] == take), None)
                    if job:
                        missing.remove(job)
            assert not missing, f"paid, and lost without a word: {missing}"

    def entries(self, instance: Instance) -> list[dict[str, Any]]:
        """The record and what it superseded, from wherever a copy is."""
        records = [ledger._read_file(path) for path in self.root.rglob(f"*-{instance.index}.mp4.job.json")]
        found = [record.to_json() for record in records if record]
        if instance.store is not None and STATE_KEY in instance.store.values:
            found.append(instance.store.values[STATE_KEY])
        newest = max(found, key=lambda record: record.get("revision", 0), default=None)
        return [] if newest is None else [*newest["superseded"], newest]

    def video(self, instance: Instance) -> Path:
        return self.folder / "clips" / "run_1" / f"generate-{instance.index}.mp4"

    def names_record(self, instance: Instance, text: str) -> bool:
        return f"{self.video(instance)}.job.json" in text


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lead every seam of the package to the world of the machine that runs."""

    def through(module: Any, name: str, seam: str) -> None:
        original: Callable[..., Any] = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *arguments: world.step(seam, lambda: original(*arguments)))

    through(ledger, "write_text", "write")
    through(ledger, "_read_file", "read")
    through(job_module, "commit", "commit")
    through(submit, "commit", "commit")
    monkeypatch.setattr(hook_module, "LumaRayHook", lambda conn_id: FakeHook(world))
    monkeypatch.setattr(operator_module, "SimpleQueue", lambda: FakeQueue(world))
    monkeypatch.setattr(pendulum, "now", lambda tz=None: pendulum.from_timestamp(world.now, "UTC"))
    monkeypatch.setattr(submit, "time", SimpleNamespace(monotonic=lambda: world.now), raising=False)
    # The real ones, for the time that passes is not real.
    monkeypatch.setattr(
        "airflow_provider_luma.jobs.recovery.LOOK_DELAYS", (0.0, 2.0, 4.0, 8.0, 16.0, 30.0, 60.0)
    )
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.slow
def test_life_of_a_job(fakes: None) -> None:
    run_state_machine_as_test(
        LifeOfAJob,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=10,
            deadline=None,
            derandomize=False,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
        ),
    )
