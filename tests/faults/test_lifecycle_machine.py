"""The life of a job with any fault at any step: one charge per request, and no paid job is lost.

LUMA_FAULT_EXAMPLES sets the number of lives (default 300; many more in `make faults`).
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

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

from airflow_provider_luma.exceptions import LumaRayError, LumaRayResultExpired, LumaRaySubmitUnknown
from airflow_provider_luma.hooks import backoff
from airflow_provider_luma.jobs.job import Job as PaidJob
from airflow_provider_luma.jobs.ledger import STATE_KEY, SUFFIX, Ledger
from airflow_provider_luma.jobs.record import Identity, JobRecord, RecordState
from airflow_provider_luma.operators.luma_ray import LumaRayImageToVideoOperator
from airflow_provider_luma.segmind.history import body_digest
from airflow_provider_luma.storage.local import LocalFile
from tests.faults.vendor import (
    BROKEN,
    BROKEN_AFTER,
    CLEARED,
    CUT_OFF,
    DIE_AFTER,
    DIE_BEFORE,
    FAILURES,
    GATEWAY,
    MEANWHILE,
    OTHER,
    RETRY,
    SEAMS,
    TROUBLES,
    Attempt,
    Died,
    FakeHook,
    FakeQueue,
    FakeStore,
    FakeStoreOfAttempt,
    Job,
    World,
    WorldFile,
)
from tests.support import task_context

EXAMPLES = int(os.environ.get("LUMA_FAULT_EXAMPLES", "300"))
FRAME_URL = "https://pictures.example.com/frame.jpg"
#: Seconds; also of a trigger that wakes its task while the job runs, so that it is deferred again.
POLL_INTERVAL = 50
#: A disk in memory, where there is one: the record is synced to disk with each write.
DISK = next((path for path in ("/dev/shm",) if os.access(path, os.W_OK)), None)

#: What is asked for: the prompt and the generation tag.
Take = tuple[str, str | None]
#: What a person is told to settle by a command.
ASKING = (LumaRaySubmitUnknown, LumaRayResultExpired)
INDEX = st.sampled_from((0, 1))


@dataclass(frozen=True)
class Poster:
    """The maker of a call.

    :param clears: how often the task instance was cleared before the attempt
    """

    index: int
    take: Take
    clears: int


@dataclass
class Instance:
    """One task instance, and the outcome of its attempts.

    :param take: what it asks for now
    :param store: its task state store, if Airflow has one
    :param asked: what its attempts asked for, by the number of clears before them
    :param texts: the texts of all errors
    """

    index: int
    take: Take
    store: FakeStore | None
    clears: int = 0
    attempts: int = 0
    asked: dict[int, set[Take]] = field(default_factory=dict)
    delivered: set[str] = field(default_factory=set)
    texts: list[str] = field(default_factory=list)
    last: Any = None


class WorldOperator(LumaRayImageToVideoOperator):
    """The operator in a world, with the world's vendor, disk and clock.

    ``world`` and ``is_conditional`` are set right after it is made.
    """

    world: World
    is_conditional: bool

    def _job(self, context: Any) -> Any:
        job = super()._job(context)
        world, hook = self.world, FakeHook(self.world)
        spec = replace(job._spec, output=self._in_world(job._spec.output))
        shared = job._ledger._shared
        ledger = Ledger(
            spec.identity,
            spec.output,
            context.get("task_state_store"),
            spec.cleared,
            shared=shared and self._in_world(shared),
            clock=world.clock,
            nonce=world.name,
        )
        queue: Any = FakeQueue(world)
        return PaidJob(spec, hook, ledger, queue, job._bought, world.clock)  # type: ignore[arg-type]

    def _in_world(self, file: Any) -> WorldFile:
        return WorldFile(file, self.world, self.is_conditional)


def digests(job: Job) -> set[str]:
    return {hashlib.sha256(video).hexdigest() for video in (job.video, job.direct_video)}


class LifeOfAJob(RuleBasedStateMachine):
    """Two task instances that are retried, cleared, edited, overtaken and killed, and their vendor.

    The layout says where their videos are. "folder": in one that all workers see, with identical requests;
    then a clear may drop the task state store. "one path": they are of two runs, and the later one overwrites the video
    of the earlier. "hosts": on the disk of each host, with each asking for its own; then the store is always there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.world = World(meanwhile=self.run_meanwhile, on_purchase=self.check_claim)
        self.root = Path(tempfile.mkdtemp(prefix="luma_life_", dir=DISK))
        self.folder = self.root / "videos"
        self.running: list[Instance] = []
        self.meanwhile_plan: dict[int | str, str] = {}
        self.clear_number = 0
        self.a_copy_is_gone = False
        self.given_up: set[str] = set()
        self.used_claims: set[str] = set()

    def teardown(self) -> None:
        try:
            if hasattr(self, "instances"):
                self.world.lag = 0
                self.come_to_rest()
                self.check_jobs_are_accounted_for()
        finally:
            shutil.rmtree(self.root, ignore_errors=True)

    @initialize(
        layout=st.sampled_from(("folder", "one path", "hosts")),
        store=st.sampled_from(("none", "kept", "dropped")),
        is_conditional=st.booleans(),
        frame=st.sampled_from(("url", "upload")),
        arguments=st.fixed_dictionaries(
            {
                "api_version": st.sampled_from(("auto", "v2", "v1")),
                "on_unknown_submit": st.sampled_from(("fail", "fail", "resubmit")),
                "deferrable": st.booleans(),
            }
        ),
        v1_reply=st.sampled_from(("video", "json", "nameless")),
        lag=st.sampled_from((0, 30, 300)),
    )
    def begin(
        self,
        layout: str,
        store: str,
        is_conditional: bool,
        frame: str,
        arguments: dict[str, Any],
        v1_reply: str,
        lag: float,
    ) -> None:
        self.layout = layout
        self.droppable = layout == "folder" and store == "dropped"
        self.is_conditional = is_conditional
        self.arguments = arguments
        self.world.lag, self.world.v1_reply = lag, v1_reply
        stored = layout == "hosts" or store != "none"
        self.instances = [
            Instance(index, (self.prompt(index, "a"), None), FakeStore(self.world) if stored else None)
            for index in (0, 1)
        ]
        self.frame = FRAME_URL
        if frame == "upload" or layout == "hosts":
            path = self.root / "frame.jpg"
            path.write_bytes(b"\xff\xd8\xff" + bytes(10))
            self.frame = str(path)

    def prompt(self, index: int, letter: str) -> str:
        return f"{letter}{index}" if self.layout == "hosts" else letter

    @property
    def may_pay_again(self) -> bool:
        return bool(self.arguments["on_unknown_submit"] == "resubmit")

    # What may happen

    @rule(
        index=INDEX,
        plan=st.dictionaries(
            st.sampled_from(SEAMS) | st.integers(1, 40), st.sampled_from(TROUBLES), min_size=1, max_size=3
        ),
        meanwhile=st.dictionaries(st.sampled_from(SEAMS), st.sampled_from(TROUBLES), max_size=1),
    )
    def attempt(self, index: int, plan: dict[int | str, str], meanwhile: dict[int | str, str]) -> None:
        self.run(self.instances[index], plan, meanwhile=meanwhile)

    @rule(
        index=INDEX,
        seam=st.sampled_from(SEAMS),
        failure=st.sampled_from(FAILURES),
        plan=st.dictionaries(st.sampled_from(SEAMS), st.sampled_from(TROUBLES), max_size=1),
    )
    def attempt_in_an_outage(self, index: int, seam: str, failure: str, plan: dict[int | str, str]) -> None:
        self.run(self.instances[index], plan, outage=(seam, failure))

    @rule(
        index=INDEX,
        trouble=st.sampled_from((DIE_BEFORE, DIE_AFTER, BROKEN, BROKEN_AFTER, GATEWAY, CUT_OFF)),
        history=st.sampled_from(("up", "empty", "down")),
    )
    def attempt_whose_answer_is_lost(self, index: int, trouble: str, history: str) -> None:
        self.run(
            self.instances[index],
            {"submit": trouble, "generate": trouble},
            outage=("find", BROKEN) if history == "down" else None,
            sees_history=history != "empty",
        )

    @rule(
        index=INDEX,
        step=st.sampled_from(SEAMS) | st.integers(1, 40),
        who=st.sampled_from(tuple(MEANWHILE)),
        plan=st.dictionaries(st.sampled_from(SEAMS), st.sampled_from(TROUBLES), max_size=1),
        meanwhile=st.dictionaries(
            st.sampled_from(SEAMS) | st.integers(1, 40), st.sampled_from(TROUBLES), max_size=2
        ),
    )
    def attempt_that_is_overtaken(
        self,
        index: int,
        step: int | str,
        who: str,
        plan: dict[int | str, str],
        meanwhile: dict[int | str, str],
    ) -> None:
        self.run(self.instances[index], {**plan, step: who}, meanwhile=meanwhile)

    @rule(index=INDEX)
    def attempt_without_trouble(self, index: int) -> None:
        self.run(self.instances[index])

    @rule(index=INDEX)
    def clear(self, index: int) -> None:
        self.instances[index].clears += 1
        self.clear_number += 1

    @rule(index=INDEX, letter=st.sampled_from("ab"))
    def edit_the_prompt(self, index: int, letter: str) -> None:
        instance = self.instances[index]
        instance.take = (self.prompt(index, letter), instance.take[1])

    @rule(index=INDEX, tag=st.sampled_from((None, "again")))
    def change_the_tag(self, index: int, tag: str | None) -> None:
        instance = self.instances[index]
        instance.take = (instance.take[0], tag)

    @rule(index=INDEX)
    def a_person_does_as_told(self, index: int) -> None:
        if isinstance(self.instances[index].last, ASKING):
            self.settle(self.instances[index])

    @rule(seconds=st.sampled_from((1, 60, 600, 4000, 8 * 86400, 32 * 86400)))
    def time_passes(self, seconds: float) -> None:
        self.world.now += seconds

    @rule(seconds=st.sampled_from((0, 30, 300)))
    def the_history_lags(self, seconds: float) -> None:
        self.world.lag = seconds

    @rule()
    def the_next_job_is_doomed(self) -> None:
        self.world.doom_next = True

    @rule(index=INDEX)
    def the_video_is_moved_away(self, index: int) -> None:
        self.video(self.instances[index]).unlink(missing_ok=True)

    @precondition(lambda self: self.droppable)
    @rule(index=INDEX)
    def a_clear_drops_the_store(self, index: int) -> None:
        self.clear(index)
        self.instances[index].store = FakeStore(self.world)
        self.a_copy_is_gone = True

    @precondition(lambda self: self.layout == "hosts")
    @rule()
    def the_host_changes(self) -> None:
        """Switch between the two hosts; each keeps its disk."""
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
        *,
        outage: tuple[str, str] | None = None,
        sees_history: bool = True,
        meanwhile: dict[int | str, str] | None = None,
    ) -> None:
        """Run an attempt as Airflow does, with deferral and resumption, and with a death."""
        instance.attempts += 1
        instance.asked.setdefault(instance.clears, set()).add(instance.take)
        poster = Poster(instance.index, instance.take, instance.clears)
        mine = Attempt(poster, dict(plan or {}), outage, sees_history)
        others, self.world.attempt = self.world.attempt, mine
        is_first = not self.running
        if is_first:
            self.meanwhile_plan = dict(meanwhile or {})
        self.running.append(instance)
        try:
            self.note(instance, poster, self.execute(instance, poster))
        except Died:
            instance.last = None
        except LumaRayError as error:
            self.note_error(instance, poster, error)
        finally:
            self.world.attempt = others
            self.running.pop()
        self.check_charges()
        if is_first:
            self.check_places()

    def execute(self, instance: Instance, poster: Poster) -> dict[str, Any]:
        context = self.context(instance)
        prompt, tag = poster.take
        arguments = {"prompt": prompt, "generation_tag": tag}
        event: dict[str, str] = {}
        deferred: dict[str, Any] = {}
        while True:
            operator = self.operator(**arguments)
            try:
                if event:
                    return dict(operator.execute_complete(context, event=event, **deferred))
                return dict(operator.execute(context))
            except TaskDeferred as deferral:
                event = {"request_id": deferral.trigger.request_id, "reason": "ready"}
                deferred = deferral.kwargs or {}
            self.world.step("trigger", lambda: None)
            self.world.now += POLL_INTERVAL

    def context(self, instance: Instance) -> Any:
        attempt = instance.attempts
        identity = self.identity(instance)
        store = instance.store and FakeStoreOfAttempt(instance.store, lambda: instance.attempts != attempt)
        context = task_context(run_id=identity.run_id, map_index=identity.map_index, store=store)
        context["ti"].max_tries = instance.clears
        context["dag_run"].clear_number = self.clear_number
        return context

    def operator(self, **arguments: Any) -> WorldOperator:
        operator = WorldOperator(
            task_id="generate",
            start_frame=self.frame,
            output_path=str(self.folder / "clip.mp4") if self.layout == "one path" else f"{self.folder}/",
            resolution="540p",
            poll_interval=POLL_INTERVAL,
            **self.arguments,
            **arguments,
        )
        operator.world, operator.is_conditional = self.world, self.is_conditional
        return operator

    def run_meanwhile(self, who: str) -> None:
        """Run another attempt from beginning to end within a step of one, nested at most three deep."""
        if len(self.running) > 2:
            return
        instance = self.running[-1]
        plan, self.meanwhile_plan = self.meanwhile_plan, {}
        if who == OTHER:
            other = self.instances[1 - instance.index]
            if other not in self.running:
                self.run(other, plan)
            return
        if who == CLEARED:
            self.clear(instance.index)
            letter = "b" if instance.take[0].startswith("a") else "a"
            instance.take = (self.prompt(instance.index, letter), instance.take[1])
        else:
            assert who == RETRY
        self.run(instance, plan)

    # What must hold

    def note(self, instance: Instance, poster: Poster, xcoms: dict[str, Any]) -> None:
        request_id = xcoms["request_id"]
        video = self.video(instance)
        assert xcoms["video_path"] == str(video)
        if request_id is None:
            assert self.world.v1_reply == "nameless"
            request_id = self.job_of(instance).request_id
        job = self.world.jobs[request_id]
        if video.exists() and not self.world.attempt.is_overtaken:
            assert self.job_in(video) is job, "the XCom names another job than the one delivered"
        asked = {
            take for clears, takes in instance.asked.items() if clears >= poster.clears for take in takes
        }
        assert job.body["prompt"] in {prompt for prompt, _ in asked}, "a video of other inputs was delivered"
        if self.frame != FRAME_URL:
            assert job.poster.index == instance.index, "another task instance's video was delivered"
        others = self.instances[1 - instance.index].delivered
        assert job.request_id not in others, "one video was delivered to two task instances"
        instance.delivered.add(job.request_id)
        instance.last = "delivered"

    def job_of(self, instance: Instance) -> Job:
        """Return the job whose video is delivered, by the digests on record: another's may be at the path by now."""
        identity = self.identity(instance)
        known = {take.sha256 for take in self.takes() if take.identity == identity and take.sha256}
        there = self.job_in(self.video(instance))
        own = [job for job in self.world.jobs.values() if known & digests(job)]
        return there if there in own or not own else own[-1]

    def job_in(self, video: Path) -> Job:
        content = video.read_bytes()
        return next(job for job in self.world.jobs.values() if content in (job.video, job.direct_video))

    def note_error(self, instance: Instance, poster: Poster, error: LumaRayError) -> None:
        text = str(error)
        instance.texts.append(text)
        instance.last = error
        named = self.names_record(instance, text) or any(job in text for job in self.world.jobs)
        knows_all = not self.may_pay_again and not self.world.attempt.is_overtaken
        if re.search(r"ought nothing|othing was bought", text) and not named and knows_all:
            assert not self.lost(instance, poster), f"a job is bought, and the error denies it: {text}"

    def lost(self, instance: Instance, poster: Poster) -> list[Job]:
        """The charged jobs that were asked for and not delivered."""
        return [
            job
            for job in self.charged(instance)
            if job.poster.take == poster.take and job.request_id not in instance.delivered
        ]

    def charged(self, instance: Instance) -> list[Job]:
        return [
            job for job in self.world.jobs.values() if job.poster.index == instance.index and not job.doomed
        ]

    def check_claim(self) -> None:
        """Every paid call has a claim on record before it, and no claim has two paid calls."""
        identity = self.identity(self.running[-1])
        claims = [
            take
            for take in self.takes()
            if (take.identity, take.state) == (identity, RecordState.INTENT)
            and take.key not in self.used_claims
        ]
        assert claims, "bought without a claim on record"
        self.used_claims.add(max(claims, key=lambda take: take.intent_at).key)

    def check_charges(self) -> None:
        """Nothing is paid for twice, and no retry buys without a clear."""
        if self.may_pay_again:
            return
        for instance in self.instances:
            kept = (job for job in self.charged(instance) if job.request_id not in self.given_up)
            posters = [job.poster for job in kept]
            takes = [poster.take for poster in posters]
            assert len(set(takes)) == len(takes), f"paid twice for the same: {takes}"
            clears = [poster.clears for poster in posters]
            assert len(set(clears)) == len(clears), f"paid twice without a clear: {posters}"

    def check_places(self) -> None:
        """No record has a digest that the file at its path contradicts."""
        for record in self.records_in(self.folder):
            video = Path(record.output_path)
            if record.state is RecordState.DELIVERED and video.exists():
                job = self.job_in(video)
                assert record.request_id in (job.request_id, None), "the record is over another's video"
                known = WorldFile(LocalFile(video), self.world).file
                assert known.holds(record.bytes or 0, record.sha256 or "", None), (
                    "the record is of other bytes"
                )

    def come_to_rest(self) -> None:
        """Retry without further faults until each is delivered or needs a person, who follows the advice."""
        waiting = self.retried([instance for instance in self.instances if instance.attempts])
        settled: list[Instance] = []
        for _ in range(3):  # a job that was found may have expired
            asking = [one for one in self.instances if isinstance(one.last, ASKING)]
            settled = [one for one in asking if self.settle(one)]
            waiting = self.retried(waiting + settled)
        assert not waiting, f"never settles: {waiting[0].last!r}"
        asking = [one for one in settled if isinstance(one.last, ASKING)]
        assert not asking, f"the advice is of no use: {asking[0].last!r}"

    def retried(self, waiting: list[Instance]) -> list[Instance]:
        """Return those that are still waiting after many retries."""
        for _ in range(8):
            for instance in tuple(waiting):
                self.run(instance)
                if instance.last == "delivered" or isinstance(instance.last, AirflowFailException):
                    waiting.remove(instance)
                    self.check_what_a_person_is_asked(instance)
            self.world.now += 150
        return waiting

    def check_what_a_person_is_asked(self, instance: Instance) -> None:
        if isinstance(instance.last, LumaRaySubmitUnknown):
            assert self.names_record(instance, str(instance.last))
            if "v1 returned no id" in str(instance.last):
                return  # it is certainly bought, and only a person can tell which of the jobs in the history it is
            posters = [*self.world.risked]
            if self.a_copy_is_gone or instance.store is None:
                posters += self.world.torn
            assert instance.index in {poster.index for poster in posters}, "a person is asked about nothing"

    def settle(self, instance: Instance) -> bool:
        """Do what an error tells a person to do, after checking the account, and clear.

        Return whether the record was there: it may be on another host.
        """
        identity, error = self.identity(instance), instance.last
        ledger = Ledger(identity, LocalFile(self.video(instance)), None)
        mine = [take for take in ledger.read().takes if take.identity == identity]
        lost = isinstance(error, LumaRaySubmitUnknown) and "v1 returned no id" in str(error)
        takes = [
            take
            for take in mine
            if take.is_in_flight or (lost and take.state is RecordState.DELIVERED and not take.request_id)
        ]
        for take in takes:
            if isinstance(error, LumaRayResultExpired):
                self.give_up(instance, ledger, take)
            elif take.request_id is None:
                self.adopt_or_deny(instance, ledger, take)
        self.clear(instance.index)
        instance.last = None
        return bool(takes)

    def give_up(self, instance: Instance, ledger: Ledger, take: JobRecord) -> None:
        asked = (take.parameters["prompt"], take.generation_tag)
        self.given_up |= {
            job.request_id
            for job in self.charged(instance)
            if job.request_id == take.request_id or (not take.request_id and job.poster.take == asked)
        }
        ledger.advance(take, state=RecordState.GIVEN_UP)

    def adopt_or_deny(self, instance: Instance, ledger: Ledger, take: JobRecord) -> None:
        claimed = {take.request_id for take in self.takes()}
        own = [
            job
            for job in self.charged(instance)
            if job.request_id not in claimed and body_digest(job.body) == take.body_sha256
        ]
        if own:
            ledger.advance(
                take,
                settled="bought",
                state=RecordState.SUBMITTED,
                request_id=own[0].request_id,
                error=None,
            )
        elif take.is_in_flight:
            ledger.advance(take, state=RecordState.FAILED, error="A person found that nothing was bought.")

    def check_jobs_are_accounted_for(self) -> None:
        """Every charged job is on record by its id or as an open call; v1 may not have returned an id."""
        takes = self.takes()
        known = {take.request_id for take in takes}
        for instance in self.instances:
            missing = [job for job in self.charged(instance) if job.request_id not in known]
            for take in takes:
                is_own = take.identity == self.identity(instance)
                if is_own and take.state is not RecordState.FAILED and not take.request_id:
                    asked = (take.parameters["prompt"], take.generation_tag)
                    job = next((job for job in missing if job.poster.take == asked), None)
                    if job:
                        missing.remove(job)
            assert not missing, f"paid, and on no record: {missing}"

    def takes(self) -> list[JobRecord]:
        """All takes on record, in any copy."""
        records = list(self.records_in(self.root))
        records += [
            JobRecord.load(one.store.get(STATE_KEY))
            for one in self.instances
            if one.store is not None and STATE_KEY in one.store.values
        ]
        newest: dict[str, JobRecord] = {}
        for take in (take for record in records for take in record.takes):
            known = newest.get(take.key)
            if known is None or take.revision > known.revision:
                newest[take.key] = take
        return list(newest.values())

    def records_in(self, folder: Path) -> Iterator[JobRecord]:
        return (JobRecord.load(path.read_bytes()) for path in folder.rglob(f"*{SUFFIX}"))

    def identity(self, instance: Instance) -> Identity:
        run_id, map_index = ("run_1", instance.index)
        if self.layout == "one path":
            run_id, map_index = f"run_{instance.index}", -1
        return Identity(dag_id="clips", run_id=run_id, task_id="generate", map_index=map_index)

    def video(self, instance: Instance) -> Path:
        if self.layout == "one path":
            return self.folder / "clip.mp4"
        return self.folder / "clips" / "run_1" / f"generate-{instance.index}.mp4"

    def names_record(self, instance: Instance, text: str) -> bool:
        return f"{self.video(instance)}{SUFFIX}" in text


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Real waits, as time is virtual, but without randomness; and no logging."""
    monkeypatch.setattr(
        "airflow_provider_luma.jobs.recovery.LOOK_DELAYS", (0.0, 2.0, 4.0, 8.0, 16.0, 30.0, 60.0)
    )
    monkeypatch.setattr(backoff, "_JITTER", 0.0)
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.slow
@pytest.mark.usefixtures("unhurried")
def test_life_of_a_job() -> None:
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
