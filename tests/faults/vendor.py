"""A vendor without HTTP: one account, its clock, and a hook that speaks to it with LumaRayHook's verbs and errors.

Whatever reads or writes goes through World.step, where trouble may be: the process dies before or after the effect,
the call fails before or after it, the task is told to stop, or another task instance runs meanwhile.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from queue import Empty
from typing import Any, NoReturn, TypeVar, cast

from airflow_provider_luma.exceptions import (
    LumaRayAuthenticationError,
    LumaRayDeliveryFailed,
    LumaRayModelUnavailable,
    LumaRayRateLimited,
    LumaRayRecordError,
    LumaRaySubmitUnknown,
    LumaRayUnavailable,
)
from airflow_provider_luma.hooks.luma_ray import GeneratedVideo
from airflow_provider_luma.media import VideoFile
from airflow_provider_luma.segmind.history import HistoryEntry, body_digest
from airflow_provider_luma.segmind.replies import Credits, JobResult, JobStatus, VendorStatus
from airflow_provider_luma.segmind.request import GenerationRequest

T = TypeVar("T")

#: What may happen at a step. The last five are the ways in which a call fails; each means to a seam what it can.
DIE_BEFORE, DIE_AFTER, STOP, OTHER_RUNS = "die before", "die after", "told to stop", "the other runs"
REFUSED, BUSY, BROKEN, BROKEN_AFTER, NOT_FOUND = "refused", "busy", "broken", "broken after", "not found"
FAILURES = (REFUSED, BUSY, BROKEN, BROKEN_AFTER, NOT_FOUND)
TROUBLES = (DIE_BEFORE, DIE_AFTER, STOP, OTHER_RUNS, *FAILURES)
VERBS = ("credits", "upload", "submit", "generate", "status", "result", "find one", "find", "download")
FILES = ("read", "write", "commit")
STORE = ("get", "set")
SEAMS = (*VERBS, *FILES, *STORE)

PRICE = Decimal("1.6")
LATENCY = 125.0
RECORD_LIFETIME, FILE_LIFETIME, HISTORY_LIFETIME = 3600.0, 7 * 86400.0, 30 * 86400.0


class Died(BaseException):
    """The process ends here."""


@dataclass
class Job:
    """One accepted POST.

    :param poster: the task instance, and what it asked for
    """

    request_id: str
    body: dict[str, Any]
    created: float
    doomed: bool
    poster: tuple[int, Any]

    @property
    def ready(self) -> float:
        return self.created + LATENCY

    @property
    def url(self) -> str:
        return f"https://outputs/{self.request_id}.mp4"

    @property
    def video(self) -> bytes:
        number = int(self.request_id.rpartition("-")[2])
        return b"\0\0\0\x18ftypisom" + self.request_id.encode() + bytes(number)

    def state(self, now: float) -> VendorStatus:
        if now < self.ready:
            return VendorStatus.PROCESSING
        return VendorStatus.FAILED if self.doomed else VendorStatus.COMPLETED


@dataclass
class World:
    """The vendor's books, the time, and the trouble to come.

    :param now: seconds since the epoch
    :param lag: seconds before a job shows in the history
    :param plan: troubles of the present attempt, by a step's number or by the seam that is then used first
    :param outage: a seam that fails whenever it is used in the present attempt, and how
    :param poster: who makes the calls
    """

    now: float = 1_800_000_000.0
    lag: float = 0.0
    doom_next: bool = False
    jobs: dict[str, Job] = field(default_factory=dict)
    plan: dict[int | str, str] = field(default_factory=dict)
    outage: tuple[str, str] | None = None
    poster: tuple[int, Any] = (0, None)
    steps: int = 0
    stopped: bool = False
    on_other: Callable[[], None] = lambda: None
    #: Whose record did not reach one of its two copies.
    torn: set[tuple[int, Any]] = field(default_factory=set)
    #: Who sent a paid call whose outcome is not plain, or died where it may have.
    risked: set[tuple[int, Any]] = field(default_factory=set)

    def step(self, seam: str, effect: Callable[[], T]) -> T:
        """Do one thing that the outside can see, or what trouble makes of it."""
        self.now += 0.05
        self.steps += 1
        trouble = self.plan.pop(seam, None) or self.plan.get(self.steps)
        if trouble is None and self.outage and self.outage[0] == seam:
            trouble = self.outage[1]
        if trouble == STOP:
            self.stopped = True
        elif trouble == OTHER_RUNS:
            self.on_other()
        elif trouble in (DIE_BEFORE, DIE_AFTER):
            self.risked.add(self.poster)
            if trouble == DIE_AFTER:
                effect()
            raise Died
        elif trouble is not None:
            return self._fail(seam, trouble, effect)
        return effect()

    def _fail(self, seam: str, failure: str, effect: Callable[[], T]) -> T:
        if seam in ("submit", "generate"):
            self._fail_paid(failure, effect)
        if seam in ("write", "set"):
            self.torn.add(self.poster)
        if failure == BROKEN_AFTER and seam not in ("status", "result"):
            effect()
        if seam == "read":
            raise LumaRayRecordError("The job's record is there but cannot be read; a retry reads it again.")
        if seam in FILES:
            raise OSError(errno.ENOSPC, "No space left on device")
        if seam in STORE:
            raise RuntimeError("API server error")
        if seam == "download":
            raise LumaRayDeliveryFailed(
                "The download broke.", status_code={REFUSED: 401, NOT_FOUND: 404}.get(failure)
            )
        if failure in (NOT_FOUND, BROKEN_AFTER):
            harmless: dict[tuple[str, str], Any] = {
                ("status", NOT_FOUND): JobStatus(VendorStatus.NOT_FOUND),
                ("status", BROKEN_AFTER): JobStatus(VendorStatus.UNKNOWN),
                ("result", NOT_FOUND): JobResult(VendorStatus.NOT_FOUND, None, None, None, {}),
                ("result", BROKEN_AFTER): JobResult(
                    VendorStatus.COMPLETED, None, None, None, {"output": "?"}
                ),
                ("find one", NOT_FOUND): None,
                ("find", NOT_FOUND): [],
            }
            if (seam, failure) in harmless:
                return cast(T, harmless[seam, failure])
        if failure == REFUSED:
            raise LumaRayAuthenticationError("Segmind refused the call (401). The call bought nothing.")
        if failure == BUSY:
            raise LumaRayRateLimited("429. The call bought nothing; a retry may pass.")
        raise LumaRayUnavailable("No answer. This call buys nothing; a retry may pass.")

    def _fail_paid(self, failure: str, effect: Callable[[], object]) -> NoReturn:
        if failure == REFUSED:
            raise LumaRayAuthenticationError("Segmind refused the call (401). The call bought nothing.")
        if failure == BUSY:
            raise LumaRayRateLimited("429. The call bought nothing; a retry may pass.")
        if failure == NOT_FOUND:
            raise LumaRayModelUnavailable("404. The call bought nothing.", status_code=404)
        self.risked.add(self.poster)
        if failure == BROKEN_AFTER:
            effect()
        raise LumaRaySubmitUnknown("The submit was sent, but no answer came.")

    def accept(self, request: GenerationRequest) -> Job:
        """Take a paid call."""
        job = Job(f"job-{len(self.jobs):04}", request.body(), self.now, self.doom_next, self.poster)
        self.doom_next = False
        self.jobs[job.request_id] = job
        return job

    def seen(self) -> list[Job]:
        """The jobs that the history shows."""
        return [job for job in self.jobs.values() if self.now >= job.created + self.lag]

    def row(self, job: Job) -> HistoryEntry:
        state = job.state(self.now)
        done = state is VendorStatus.COMPLETED
        return HistoryEntry(
            request_id=job.request_id,
            model="luma-ray-img-2-video",
            state=state,
            body_sha256=body_digest(job.body),
            created=datetime.fromtimestamp(job.created, UTC),
            cost=PRICE if done else None,
            output_url=job.url if done else None,
            error="doomed" if state is VendorStatus.FAILED else None,
        )


class FakeHook:
    """Speaks to a world as LumaRayHook does to the vendor."""

    def __init__(self, world: World) -> None:
        self._world = world

    def get_credits(self) -> Credits:
        return self._world.step("credits", lambda: Credits(Decimal(100), Decimal(0)))

    def upload_image(self, path: object) -> str:
        return self._world.step("upload", lambda: f"https://assets/{self._world.steps}-{self._world.now}.jpg")

    def reaches(self, url: str) -> bool:
        return True

    def reserve(self) -> None:
        """Here is no request limit."""

    def submit(self, request: GenerationRequest) -> str:
        return self._world.step("submit", lambda: self._world.accept(request).request_id)

    def generate(self, request: GenerationRequest, destination: Path) -> GeneratedVideo:
        return self._world.step("generate", lambda: self._generate(request, destination))

    def _generate(self, request: GenerationRequest, destination: Path) -> GeneratedVideo:
        job = self._world.accept(request)
        self._world.now = job.ready
        if job.doomed:
            raise LumaRayUnavailable("FAILED. The call bought nothing.")
        kind = len(self._world.jobs) % 3
        return GeneratedVideo(
            video=None if kind == 0 else _write(destination, job.video),
            url=job.url if kind == 0 else None,
            request_id=None if kind == 1 else job.request_id,
            cost=PRICE,
            remaining_credits=Decimal(50),
        )

    def get_status(self, request_id: str) -> JobStatus:
        return self._world.step("status", lambda: self._status(request_id))

    def _status(self, request_id: str) -> JobStatus:
        job = self._recent(request_id)
        return (
            JobStatus(VendorStatus.NOT_FOUND)
            if job is None
            else JobStatus(job.state(self._world.now), cost=PRICE)
        )

    def get_result(self, request_id: str) -> JobResult:
        return self._world.step("result", lambda: self._result(request_id))

    def _result(self, request_id: str) -> JobResult:
        job = self._recent(request_id)
        if job is None:
            return JobResult(VendorStatus.NOT_FOUND, None, None, None, {})
        state = job.state(self._world.now)
        if state is VendorStatus.PROCESSING:
            raise LumaRayUnavailable("The result is not there yet.")
        return JobResult(state, job.url if state is VendorStatus.COMPLETED else None, PRICE, Decimal(50), {})

    def _recent(self, request_id: str) -> Job | None:
        job = self._world.jobs[request_id]
        return job if self._world.now < job.created + RECORD_LIFETIME else None

    def find_job(self, request_id: str) -> HistoryEntry | None:
        return self._world.step("find one", lambda: self._find_job(request_id))

    def _find_job(self, request_id: str) -> HistoryEntry | None:
        return next(
            (self._world.row(job) for job in self._world.seen() if job.request_id == request_id), None
        )

    def find_jobs(self, model: str, since: datetime) -> list[HistoryEntry]:
        return self._world.step("find", lambda: self._find_jobs(since))

    def _find_jobs(self, since: datetime) -> list[HistoryEntry]:
        now = self._world.now
        first = max((since - timedelta(days=1)).timestamp(), now - HISTORY_LIFETIME)
        return [self._world.row(job) for job in self._world.seen() if job.created >= first]

    def download_video(self, url: str, destination: Path) -> VideoFile:
        return self._world.step("download", lambda: self._download(url, destination))

    def _download(self, url: str, destination: Path) -> VideoFile:
        job = next(job for job in self._world.jobs.values() if job.url == url)
        if self._world.now > job.ready + FILE_LIFETIME:
            raise LumaRayDeliveryFailed("The video's host answered 404.", status_code=404)
        return _write(destination, job.video)


def _write(path: Path, content: bytes) -> VideoFile:
    path.write_bytes(content)
    return VideoFile(path, len(content), hashlib.sha256(content).hexdigest())


class FakeStore:
    """Airflow's task state store."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.values: dict[str, Any] = {}

    def get(self, key: str) -> Any:
        return self._world.step("get", lambda: self.values.get(key))

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        self._world.step("set", lambda: self.values.update({key: value}))


class FakeQueue:
    """Waits by moving the world's clock; filled by the operator's on_kill, in the world's words."""

    def __init__(self, world: World) -> None:
        self._world = world

    def get(self, timeout: float) -> None:
        if self._world.stopped:
            return
        self._world.now += timeout
        raise Empty
