"""A vendor without HTTP: one account, its clock, and a hook with LumaRayHook's methods and errors.

It behaves like the real hook with the simulator: test_vendor_contract.py holds both to the same contract.

Every read and write goes through World.step, where faults happen: the process dies before or after the effect,
the call fails before or after it, the task is told to stop, or another attempt runs in between.
"""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from queue import Empty
from types import SimpleNamespace
from typing import Any, NoReturn, TypeVar

from airflow_provider_luma.exceptions import (
    LumaRayAuthenticationError,
    LumaRayDeliveryFailed,
    LumaRayInsufficientCredits,
    LumaRayModelUnavailable,
    LumaRayRateLimited,
    LumaRayRefused,
    LumaRaySubmitUnknown,
    LumaRayUnavailable,
)
from airflow_provider_luma.hooks.limiter import Rank, RateLimiter
from airflow_provider_luma.hooks.luma_ray import GeneratedVideo
from airflow_provider_luma.media import VideoFile
from airflow_provider_luma.segmind.history import HistoryEntry, body_digest
from airflow_provider_luma.segmind.replies import Credits, JobResult, JobStatus, VendorStatus
from airflow_provider_luma.segmind.request import GenerationRequest
from airflow_provider_luma.storage.base import Seen, StoredFile, Version
from airflow_provider_luma.storage.local import LocalFile

T = TypeVar("T")

# What may happen at a step.
DIE_BEFORE, DIE_AFTER, STOP = "die before", "die after", "told to stop"
#: Another attempt runs from its beginning to its end, before the step's effect or after it: that of the other task
#: instance, the retry of this one (Airflow took it for dead), or one after a clear, perhaps of other inputs.
OTHER, RETRY, CLEARED = "the other runs", "its retry runs", "it is cleared and runs"
MEANWHILE = {f"{who} {when}": who for who in (OTHER, RETRY, CLEARED) for when in ("before", "after")}
#: The ways in which a call fails; each means to a seam what it can. GATEWAY: the answer is a gateway's, which gives the
#: request an id of its own; CUT_OFF: the answer broke off after its head, which names the job; both after the effect.
REFUSED, BUSY, NOT_FOUND, BROKEN, BROKEN_AFTER = "refused", "busy", "not found", "broken", "broken after"
GATEWAY, CUT_OFF, NO_VIDEO = "gateway", "cut off", "no video named"
FAILURES = (REFUSED, BUSY, NOT_FOUND, BROKEN, BROKEN_AFTER, GATEWAY, CUT_OFF, NO_VIDEO)
TROUBLES = (DIE_BEFORE, DIE_AFTER, STOP, *MEANWHILE, *FAILURES)

VERBS = ("credits", "upload", "submit", "generate", "status", "result", "find one", "find", "download")
FILES = ("read", "write", "put")
STORE = ("get", "set")
#: "trigger" is the time between a deferral and its end, in which nothing of the task instance runs.
SEAMS = (*VERBS, *FILES, *STORE, "trigger")

PRICE = Decimal("1.6")
RECORD_LIFETIME, FILE_LIFETIME = 3600.0, 7 * 86400.0
_HOST = "https://outputs.example.com"
_VIDEO_BYTES = 64


class Died(BaseException):
    """The process ends here."""


@dataclass
class Job:
    """One accepted POST.

    :param api: v1 or v2
    :param ready: when it ends
    :param poster: who made the call, as set by the test
    """

    request_id: str
    api: str
    model: str
    body: dict[str, Any]
    created: float
    ready: float
    doomed: bool
    poster: Any

    @property
    def url(self) -> str:
        return f"{_HOST}/{self.request_id}.mp4"

    @property
    def video(self) -> bytes:
        """The job's file; all have the same size."""
        return self._mp4("")

    @property
    def direct_video(self) -> bytes:
        """The clip as v1 sends it, which need not be the same bytes."""
        return self._mp4(" as v1 sent it")

    def _mp4(self, how: str) -> bytes:
        return b"\0\0\0\x18ftypisom" + f"{self.request_id}{how}".encode().ljust(_VIDEO_BYTES)

    def state(self, now: float) -> VendorStatus:
        if now < self.ready:
            return VendorStatus.PROCESSING
        return VendorStatus.FAILED if self.doomed else VendorStatus.COMPLETED

    def cost(self, now: float) -> Decimal | None:
        """What was charged; None while unknown."""
        state = self.state(now)
        return None if state is VendorStatus.PROCESSING else PRICE * (state is VendorStatus.COMPLETED)


@dataclass
class Attempt:
    """The attempt that is running, and the faults that it meets.

    :param plan: faults, by step number or by the seam that is used first
    :param outage: a seam that always fails, and how
    :param sees_history: whether the history shows anything
    """

    poster: Any = None
    plan: dict[int | str, str] = field(default_factory=dict)
    outage: tuple[str, str] | None = None
    sees_history: bool = True
    steps: int = 0
    stopped: bool = False
    is_overtaken: bool = False

    def next_trouble(self, seam: str) -> str | None:
        self.steps += 1
        trouble = self.plan.pop(seam, None) or self.plan.get(self.steps)
        if trouble is None and self.outage and self.outage[0] == seam:
            trouble = self.outage[1]
        return trouble


@dataclass
class World:
    """The vendor's state, the time, and the faults to come.

    :param now: seconds since the epoch
    :param latency: seconds that a job takes
    :param lag: seconds until a job shows in the history
    :param credits: the balance at the beginning, in US dollars
    :param v1_reply: "video", "json" with its URL, or "nameless": the video without the job's id
    :param meanwhile: runs somebody else: OTHER, RETRY or CLEARED
    :param on_purchase: checks the record when a paid call is accepted
    """

    now: float = 1_800_000_000.0
    latency: float = 125.0
    lag: float = 0.0
    credits: Decimal = Decimal(1_000_000)
    v1_reply: str = "video"
    doom_next: bool = False
    jobs: dict[str, Job] = field(default_factory=dict)
    attempt: Attempt = field(default_factory=Attempt)
    meanwhile: Callable[[str], None] = lambda who: None
    on_purchase: Callable[[], None] = lambda: None
    #: Whose record did not reach one of its two copies.
    torn: list[Any] = field(default_factory=list)
    #: Who sent a paid call whose outcome is not plain, or stopped where it may have.
    risked: list[Any] = field(default_factory=list)
    _names: int = 0
    _is_locked: bool = False

    def clock(self) -> float:
        return self.now

    def time(self) -> datetime:
        return datetime.fromtimestamp(self.now, UTC)

    def name(self) -> str:
        """Return a unique name."""
        self._names += 1
        return f"{self._names:012d}"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let nobody else run."""
        self._is_locked = True
        try:
            yield
        finally:
            self._is_locked = False

    def step(self, seam: str, effect: Callable[[], T]) -> T:
        """Perform one externally visible effect, or the fault in its place."""
        if self._is_locked:
            return effect()
        self.now += 0.05
        attempt = self.attempt
        trouble = attempt.next_trouble(seam)
        if trouble == STOP:
            attempt.stopped = True
        elif trouble in MEANWHILE:
            self.risked.append(attempt.poster)
            attempt.is_overtaken = True
            if trouble.endswith("before"):
                self.meanwhile(MEANWHILE[trouble])
                return effect()
            done = effect()
            self.meanwhile(MEANWHILE[trouble])
            return done
        elif trouble in (DIE_BEFORE, DIE_AFTER):
            self.risked.append(attempt.poster)
            if trouble == DIE_AFTER:
                effect()
            raise Died
        elif trouble is not None:
            return self._fail(seam, trouble, effect)
        return effect()

    def _fail(self, seam: str, failure: str, effect: Callable[[], T]) -> T:
        if seam in ("submit", "generate"):
            self._fail_paid(failure, effect)
        if failure in (GATEWAY, CUT_OFF, NO_VIDEO) and (seam, failure) != ("result", NO_VIDEO):
            failure = BROKEN_AFTER
        if seam in (*FILES, *STORE, "trigger"):
            return self._fail_here(seam, failure, effect)
        if failure == BROKEN_AFTER:
            effect()
        if seam == "download":
            code = {REFUSED: 401, NOT_FOUND: 404}.get(failure)
            raise LumaRayDeliveryFailed("The download broke.", status_code=code)
        said = {
            ("status", NOT_FOUND): JobStatus(VendorStatus.NOT_FOUND),
            ("status", BROKEN_AFTER): JobStatus(VendorStatus.UNKNOWN),
            ("result", NOT_FOUND): JobResult(VendorStatus.NOT_FOUND, None, None, None, {}),
            ("result", NO_VIDEO): NAMES_NO_VIDEO,
            ("find one", NOT_FOUND): None,
        }
        if (seam, failure) in said:
            answer: Any = said[seam, failure]
            return answer
        if failure == REFUSED:
            raise LumaRayAuthenticationError("Segmind refused the call (401).", status_code=401)
        if failure == BUSY:
            raise LumaRayRateLimited("Segmind's rate limit is reached (429).")
        if (seam, failure) == ("upload", NOT_FOUND):
            raise LumaRayModelUnavailable("Segmind refused the call (404).", status_code=404)
        code = {NOT_FOUND: 404, BROKEN_AFTER: 200}.get(failure)
        raise LumaRayUnavailable("No usable answer.", status_code=code)

    def _fail_here(self, seam: str, failure: str, effect: Callable[[], T]) -> T:
        """Make a disk or Airflow's API server fail; a trigger only fires late."""
        if seam == "trigger":
            self.now += 600
            return effect()
        if seam in ("write", "set"):
            self.torn.append(self.attempt.poster)
        if failure == BROKEN_AFTER:
            effect()
        if seam in STORE:
            raise RuntimeError("API server error")
        raise OSError(errno.EIO if seam == "read" else errno.ENOSPC, "No space left on device")

    def _fail_paid(self, failure: str, effect: Callable[[], object]) -> NoReturn:
        if failure == REFUSED:
            raise LumaRayAuthenticationError("Segmind refused the call (401).", status_code=401)
        if failure == BUSY:
            raise LumaRayRateLimited("Segmind's rate limit is reached (429).")
        if failure == NOT_FOUND:
            raise LumaRayModelUnavailable("Segmind refused the call (404).", status_code=404)
        self.risked.append(self.attempt.poster)
        hint = None
        if failure != BROKEN:
            with suppress(LumaRayRefused):
                effect()
        if failure == GATEWAY:
            hint = f"gateway-{self.name()}"
        if failure == CUT_OFF and (newest := list(self.jobs.values())[-1:]) and newest[0].api == "v1":
            hint = newest[0].request_id
        raise LumaRaySubmitUnknown("The submit was sent, but no answer came.", hint=hint)

    # The vendor's books

    def accept(self, api: str, request: GenerationRequest) -> Job:
        """Accept a paid call, if the balance covers it."""
        reserved = sum(1 for job in self.jobs.values() if job.state(self.now) is VendorStatus.PROCESSING)
        if self.balance - reserved * PRICE < PRICE:
            code = 402 if api == "v2" else 406
            raise LumaRayInsufficientCredits(f"Segmind refused the call ({code}).", status_code=code)
        job = Job(
            request_id=f"job-{len(self.jobs):04}",
            api=api,
            model=request.model,
            body=json.loads(json.dumps(request.body())),
            created=self.now,
            ready=self.now + self.latency,
            doomed=self.doom_next,
            poster=self.attempt.poster,
        )
        self.doom_next = False
        self.jobs[job.request_id] = job
        self.on_purchase()
        return job

    @property
    def balance(self) -> Decimal:
        return self.balance_at(self.now)

    def balance_at(self, moment: float) -> Decimal:
        """Return what was left of the credits, free and paid together."""
        return self.credits - sum((job.cost(moment) or 0 for job in self.jobs.values()), Decimal(0))

    def seen(self) -> list[Job]:
        """The jobs that the history shows, newest first."""
        shown = self.jobs.values() if self.attempt.sees_history else ()
        return [job for job in shown if self.now >= job.created + self.lag][::-1]

    def row(self, job: Job) -> HistoryEntry:
        state = job.state(self.now)
        return HistoryEntry(
            request_id=job.request_id,
            model=job.model,
            state=state,
            body_sha256=body_digest(job.body),
            created=datetime.fromtimestamp(job.created, UTC),
            cost=job.cost(self.now) or Decimal(0),
            output_url=job.url if state is VendorStatus.COMPLETED else None,
            error="doomed" if state is VendorStatus.FAILED else None,
        )


#: A result that says COMPLETED and names no URL.
NAMES_NO_VIDEO = JobResult(
    VendorStatus.COMPLETED, None, None, None, {"status": "COMPLETED", "output": "elsewhere"}
)


class FakeHook:
    """Talks to a world as LumaRayHook talks to the vendor."""

    def __init__(self, world: World) -> None:
        self._world = world
        #: It leaves room for whatever is asked here.
        self.limiter = RateLimiter(1_000_000, clock=world.clock)

    def vendor_now(self) -> datetime:
        return self._world.time()

    submit_timeout = 30.0

    def vendor_time(self, moment: datetime) -> datetime:
        return self.vendor_now()

    def get_credits(self, rank: Rank = Rank.URGENT) -> Credits:
        return self._world.step("credits", lambda: Credits(paid=self._world.balance, free=Decimal(0)))

    def upload_image(self, image: object) -> str:
        return self._world.step("upload", lambda: f"https://assets.example.com/{self._world.name()}.jpg")

    def reaches(self, url: str) -> bool:
        return True

    def reserve(self) -> None:
        """Do nothing: there is no rate limit here."""

    def submit(self, request: GenerationRequest) -> str:
        return self._world.step("submit", lambda: self._world.accept("v2", request).request_id)

    def generate(self, request: GenerationRequest, destination: Path) -> GeneratedVideo:
        return self._world.step("generate", lambda: self._generate(request, destination))

    def _generate(self, request: GenerationRequest, destination: Path) -> GeneratedVideo:
        job = self._world.accept("v1", request)
        self._world.now = max(self._world.now, job.ready)
        if job.doomed:
            raise LumaRayRefused(
                "Segmind refused the call (422): doomed.", request_id=job.request_id, status_code=422
            )
        kind = self._world.v1_reply
        return GeneratedVideo(
            video=None if kind == "json" else _write(destination, job.direct_video),
            url=job.url if kind == "json" else None,
            request_id=None if kind == "nameless" else job.request_id,
            cost=PRICE,
            remaining_credits=self._world.balance_at(job.ready),
        )

    def get_status(self, request_id: str, rank: Rank = Rank.POLL) -> JobStatus:
        return self._world.step("status", lambda: self._status(request_id))

    def _status(self, request_id: str) -> JobStatus:
        job = self._recent(request_id)
        if job is None:
            return JobStatus(VendorStatus.NOT_FOUND)
        state, cost = job.state(self._world.now), job.cost(self._world.now)
        return JobStatus(
            state,
            error="doomed" if state is VendorStatus.FAILED else None,
            cost=cost,
            remaining_credits=None if cost is None else self._world.balance_at(job.ready),
        )

    def get_result(self, request_id: str) -> JobResult:
        return self._world.step("result", lambda: self._result(request_id))

    def _result(self, request_id: str) -> JobResult:
        job, status = self._recent(request_id), self._status(request_id)
        if status.state is VendorStatus.PROCESSING:
            raise LumaRayUnavailable("The result is not there yet.", status_code=200)
        url = job.url if job and status.state is VendorStatus.COMPLETED else None
        return JobResult(status.state, url, status.cost, status.remaining_credits, {"output": url})

    def _recent(self, request_id: str) -> Job | None:
        """The job, if status and result know it: v2 jobs, for an hour."""
        job = self._world.jobs.get(request_id)
        is_known = job and job.api == "v2" and self._world.now <= job.created + RECORD_LIFETIME
        return job if is_known else None

    def find_job(self, request_id: str, rank: Rank = Rank.URGENT) -> HistoryEntry | None:
        return self._world.step("find one", lambda: self._find_job(request_id))

    def _find_job(self, request_id: str) -> HistoryEntry | None:
        return next(
            (self._world.row(job) for job in self._world.seen() if job.request_id == request_id), None
        )

    def find_jobs(self, model: str, since: datetime) -> list[HistoryEntry]:
        return self._world.step("find", lambda: self._find_jobs(model, since))

    def _find_jobs(self, model: str, since: datetime) -> list[HistoryEntry]:
        now = self._world.time()
        first = max(min(since, now) - timedelta(days=1), now - timedelta(days=30)).date()
        rows = [self._world.row(job) for job in self._world.seen() if job.model == model]
        return [row for row in rows if row.created and row.created.date() >= first]

    def download_video(self, url: str, destination: Path, rest: Path | None = None) -> VideoFile:
        return self._world.step("download", lambda: self._download(url, destination))

    def _download(self, url: str, destination: Path) -> VideoFile:
        job = next((job for job in self._world.jobs.values() if job.url == url), None)
        if job is None or not job.ready <= self._world.now <= job.ready + FILE_LIFETIME:
            raise LumaRayDeliveryFailed("The video's host answered 404.", status_code=404)
        return _write(destination, job.video)


def _write(path: Path, content: bytes) -> VideoFile:
    path.write_bytes(content)
    return VideoFile(path, len(content), hashlib.sha256(content).hexdigest())


@dataclass(frozen=True)
class WorldFile(StoredFile):
    """A file on a world's disk; the world decides what fails and what others do in the meantime.

    :param conditional: False for a store without conditional writes
    """

    file: LocalFile
    world: World
    conditional: bool = True

    def __str__(self) -> str:
        return str(self.file)

    def _like(self, file: LocalFile) -> WorldFile:
        return WorldFile(file, self.world, self.conditional)

    @property
    def is_conditional(self) -> bool:
        return self.conditional

    @property
    def name(self) -> str:
        return self.file.name

    @property
    def parent(self) -> WorldFile:
        return self._like(self.file.parent)

    def beside(self, suffix: str) -> WorldFile:
        return self._like(self.file.beside(suffix))

    def below(self, relative: str) -> WorldFile:
        return self._like(self.file.below(relative))

    def look(self) -> Seen | None:
        return self.world.step("read", self.file.look)

    def read(self, limit: int | None = None) -> bytes | None:
        return self.world.step("read", lambda: self.file.read(limit))

    def read_version(self) -> Version | None:
        return self.world.step("read", self.file.read_version)

    def create(self, content: bytes) -> str | None:
        return self.world.step("write", lambda: self.file.create(content))

    def replace(self, content: bytes, token: str) -> str | None:
        return self.world.step("write", lambda: self.file.replace(content, token))

    def holds(self, size: int, sha256: str, mark: str | None) -> bool:
        return self.world.step("read", lambda: self.file.holds(size, sha256, mark))

    def staged(self, tag: str) -> AbstractContextManager[Path]:
        return self.file.staged(tag)

    def put(self, local: Path, allowed: Callable[[], bool]) -> str | None:
        def put() -> str | None:
            with self.world.locked():  # as the file is, against all who would write there
                return self.file.put(local, allowed)

        return self.world.step("put", put)

    def fetch(self, local: Path) -> bool:
        return self.world.step("read", lambda: self.file.fetch(local))

    def files_below(self, suffix: str, since: datetime, *, deep: bool) -> Iterator[WorldFile]:
        # The machine's clock is not the world's, by which nothing is old here.
        files = self.file.files_below(suffix, datetime.fromtimestamp(86400, UTC), deep=deep)
        yield from map(self._like, self.world.step("read", lambda: list(files)))

    def listed_below(self) -> dict[str, datetime | None]:
        return self.file.listed_below()

    def sign(self) -> None:
        return None


class FakeStore:
    """Airflow's task state store of one task instance."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.values: dict[str, str] = {}

    def get(self, key: str) -> Any:
        return json.loads(self.values[key]) if key in self.values else None


class FakeStoreOfAttempt:
    """The store as one attempt sees it, until a retry or a clear replaces the attempt.

    :param is_replaced: returns whether it was replaced
    """

    def __init__(self, store: FakeStore, is_replaced: Callable[[], bool]) -> None:
        self._store = store
        self._is_replaced = is_replaced

    def get(self, key: str) -> Any:
        return self._store.world.step("get", lambda: None if self._is_replaced() else self._store.get(key))

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        def put() -> None:
            if self._is_replaced():
                error: Any = RuntimeError("404")
                error.error = SimpleNamespace(detail={"status_code": 404})
                raise error
            self._store.values[key] = json.dumps(value)

        self._store.world.step("set", put)


class FakeQueue:
    """Waits by advancing the world's clock, unless the task was told to stop."""

    def __init__(self, world: World) -> None:
        self._world = world

    def get(self, timeout: float) -> None:
        if self._world.attempt.stopped:
            return
        self._world.now += timeout
        raise Empty
