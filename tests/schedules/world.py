"""The world of contenders for one job: a vendor, files, Airflow's task state store and a clock."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from queue import Empty
from types import SimpleNamespace
from typing import Any

from airflow_provider_luma.exceptions import LumaRayError
from airflow_provider_luma.hooks.limiter import Rank, RateLimiter
from airflow_provider_luma.jobs.job import Job, Reused
from airflow_provider_luma.jobs.ledger import STATE_KEY, SUFFIX, Ledger
from airflow_provider_luma.jobs.record import Clears, Identity, JobRecord, RecordState
from airflow_provider_luma.jobs.spec import Inputs, JobSpec
from airflow_provider_luma.media import Frame, VideoFile
from airflow_provider_luma.segmind.history import HistoryEntry, body_digest
from airflow_provider_luma.segmind.replies import Credits, JobResult, JobStatus, VendorStatus
from airflow_provider_luma.segmind.request import GenerationRequest
from airflow_provider_luma.storage import StoredFile, Version
from airflow_provider_luma.storage.base import Seen
from tests.schedules.scheduler import Scheduler

MODEL = "luma-ray-img-2-video"
EPOCH = datetime(2026, 11, 24, tzinfo=UTC)
PRICE = Decimal("1.60")
#: How a place keeps two writers apart: under a lock, by conditions on each write, or not at all.
LOCAL, S3, PLAIN = "local", "s3", "plain"


class Replaced(Exception):
    """What Airflow's API server answers to an attempt that a retry has replaced."""

    def __init__(self) -> None:
        super().__init__("API_SERVER_ERROR: 404")
        self.error = SimpleNamespace(detail={"status_code": 404})


@dataclass
class Sold:
    """One accepted POST."""

    request_id: str
    body: dict[str, Any]
    created: float
    poster: Identity

    @property
    def video(self) -> bytes:
        return b"\0\0\0\x18ftypisom" + self.request_id.encode()


@dataclass
class World:
    """The state that contenders share.

    :param kind: how places protect against concurrent writers
    :param latency: seconds that a job takes
    :param visible: whether jobs show in the history
    """

    scheduler: Scheduler
    kind: str = LOCAL
    latency: float = 0.0
    files: dict[str, bytes] = field(default_factory=dict)
    stored: dict[Identity, Any] = field(default_factory=dict)
    running: dict[Identity, str] = field(default_factory=dict)
    sold: list[Sold] = field(default_factory=list)
    posts: int = 0
    uploads: int = 0
    nonces: int = 0

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.scheduler.now())

    def nonce(self) -> str:
        self.nonces += 1
        return f"{self.nonces:032x}"

    def fingerprint(self) -> Any:
        return (
            tuple(sorted(self.files.items())),
            repr(sorted(self.stored.items(), key=str)),
            repr(sorted(self.running.items(), key=str)),
            repr(self.sold),
            self.uploads,
            self.nonces,
            self.scheduler.now(),
        )

    def records(self) -> list[JobRecord]:
        """All records, of files and of the state store."""
        beside = [JobRecord.load(content) for name, content in self.files.items() if name.endswith(SUFFIX)]
        return beside + [JobRecord.load(raw) for raw in self.stored.values()]


@dataclass(frozen=True)
class Place(StoredFile):
    """A file in the world."""

    world: World = field(repr=False)
    where: str = "/clips/clip.mp4"

    def _step(self, what: str, effect: Callable[[], Any]) -> Any:
        return self.world.scheduler.step(f"{what} {self.where.rpartition('/')[2]}", effect)

    def __str__(self) -> str:
        return self.where

    @property
    def is_conditional(self) -> bool:
        return self.world.kind != PLAIN

    @property
    def name(self) -> str:
        return self.where.rpartition("/")[2]

    @property
    def parent(self) -> Place:
        return Place(self.world, self.where.rpartition("/")[0])

    def beside(self, suffix: str) -> Place:
        return Place(self.world, self.where + suffix)

    def below(self, relative: str) -> Place:
        return Place(self.world, f"{self.where}/{relative}")

    def look(self) -> Seen | None:
        return self._step("look", self._look)

    def _look(self) -> Seen | None:
        content = self.world.files.get(self.where)
        return None if content is None else Seen(len(content))

    def read(self, limit: int | None = None) -> bytes | None:
        return self._step("read", lambda: self.world.files.get(self.where))

    def read_version(self) -> Version | None:
        return self._step("read", self._version)

    def _version(self) -> Version | None:
        content = self.world.files.get(self.where)
        return None if content is None else Version(content, _digest(content))

    def _write(self, content: bytes, token: str | None) -> str | None:
        there = self.world.files.get(self.where)
        if (None if there is None else _digest(there)) != token:
            return None
        self.world.files[self.where] = content
        return _digest(content)

    def _put(self, content: bytes) -> str:
        self.world.files[self.where] = content
        return _digest(content)

    def create(self, content: bytes) -> str | None:
        if self.world.kind == PLAIN:
            return None if self.look() is not None else self._step("write", lambda: self._put(content))
        return self._step("create", lambda: self._write(content, None))

    def replace(self, content: bytes, token: str) -> str | None:
        if self.world.kind == PLAIN:
            there = self.read_version()
            if there is None or there.token != token:
                return None
            return self._step("write", lambda: self._put(content))
        return self._step("replace", lambda: self._write(content, token))

    def holds(self, size: int, sha256: str, mark: str | None) -> bool:
        return _digest(self.read() or b"") == sha256

    @contextmanager
    def staged(self, tag: str) -> Iterator[Any]:
        yield SimpleNamespace(content=b"")

    def put(self, local: Any, allowed: Callable[[], bool]) -> str | None:
        if self.world.kind == LOCAL:
            return self._step("put", lambda: self._put_locked(local, allowed))
        seen = self._step("look", lambda: self.world.files.get(self.where))
        if not allowed():
            return None
        token = None if seen is None else _digest(seen)
        if self.world.kind == S3:
            return self._step("put", lambda: self._write(local.content, token))
        return self._step("put", lambda: self._put(local.content))

    def _put_locked(self, local: Any, allowed: Callable[[], bool]) -> str | None:
        scheduler = self.world.scheduler
        self.world.scheduler = Scheduler()  # what is looked at under the lock is no step of its own
        try:
            return self._put(local.content) if allowed() else None
        finally:
            self.world.scheduler = scheduler

    def fetch(self, local: Any) -> bool:
        content = self.read()
        local.content = content or b""
        return content is not None

    def files_below(self, suffix: str, since: datetime, *, deep: bool) -> Iterator[Place]:
        names = self._step("list", lambda: sorted(self.world.files))
        for name in names:
            if name.startswith(self.where) and name.endswith(suffix):
                yield Place(self.world, name)

    def listed_below(self) -> dict[str, datetime | None]:
        raise NotImplementedError

    def sign(self) -> None:
        """Sign nothing."""


class Store:
    """Airflow's task state store, for one attempt; a replaced attempt can no longer write."""

    def __init__(self, world: World, identity: Identity, attempt: str) -> None:
        self._world = world
        self._identity = identity
        self._attempt = attempt

    def get(self, key: str) -> Any:
        assert key == STATE_KEY
        return self._world.scheduler.step("store get", self._get)

    def _get(self) -> Any:
        is_mine = self._world.running.get(self._identity) == self._attempt
        return self._world.stored.get(self._identity) if is_mine else None

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        self._world.scheduler.step("store set", lambda: self._set(value))

    def _set(self, value: Any) -> None:
        if self._world.running.get(self._identity) != self._attempt:
            raise Replaced
        self._world.stored[self._identity] = value


class Hook:
    """Calls the vendor for one task instance."""

    def __init__(self, world: World, poster: Identity) -> None:
        self._world = world
        self._poster = poster
        self.limiter = RateLimiter(100_000)

    def _step(self, label: str, effect: Callable[[], Any]) -> Any:
        return self._world.scheduler.step(label, effect)

    def vendor_now(self) -> datetime:
        return self._world.now()

    submit_timeout = 30.0

    def vendor_time(self, moment: datetime) -> datetime:
        return self.vendor_now()

    def get_credits(self, rank: Rank = Rank.URGENT) -> Credits:
        return Credits(Decimal(100), Decimal(0))  # nothing depends on it: no step

    def reserve(self) -> None:
        """Do nothing: there is no rate limit."""

    def reaches(self, url: str) -> bool:
        return True

    def upload_image(self, image: object) -> str:
        self._world.uploads += 1
        return f"https://assets/{self._world.uploads}.jpg"

    def submit(self, request: GenerationRequest) -> str:
        return self._step("POST", lambda: self._accept(request))

    def _accept(self, request: GenerationRequest) -> str:
        number = len(self._world.sold)
        sold = Sold(f"job-{number}", request.body(), self._world.scheduler.now(), self._poster)
        self._world.sold.append(sold)
        return sold.request_id

    def _is_done(self, sold: Sold) -> bool:
        return self._world.scheduler.now() >= sold.created + self._world.latency

    def _find(self, request_id: str) -> Sold | None:
        return next((sold for sold in self._world.sold if sold.request_id == request_id), None)

    def get_status(self, request_id: str, rank: Rank = Rank.POLL) -> JobStatus:
        return self._step("status", lambda: self._status(request_id))

    def _status(self, request_id: str) -> JobStatus:
        sold = self._find(request_id)
        if sold is None:
            return JobStatus(VendorStatus.NOT_FOUND)
        done = self._is_done(sold)
        return JobStatus(
            VendorStatus.COMPLETED if done else VendorStatus.PROCESSING, cost=PRICE if done else None
        )

    def get_result(self, request_id: str) -> JobResult:
        return self._step("result", lambda: self._result(request_id))

    def _result(self, request_id: str) -> JobResult:
        state = self._status(request_id).state
        url = f"https://outputs/{request_id}.mp4" if state is VendorStatus.COMPLETED else None
        return JobResult(state, url, PRICE if url else None, None, {})

    def find_job(self, request_id: str, rank: Rank = Rank.URGENT) -> HistoryEntry | None:
        return self._step("history one", lambda: self._row(self._find(request_id)))

    def find_jobs(self, model: str, since: datetime) -> list[HistoryEntry]:
        return self._step("history", lambda: [self._row(sold) for sold in self._world.sold])

    def _row(self, sold: Sold | None) -> HistoryEntry | None:
        if sold is None:
            return None
        done = self._is_done(sold)
        return HistoryEntry(
            request_id=sold.request_id,
            model=MODEL,
            state=VendorStatus.COMPLETED if done else VendorStatus.PROCESSING,
            body_sha256=body_digest(sold.body),
            created=EPOCH + timedelta(seconds=sold.created),
            cost=PRICE if done else None,
            output_url=f"https://outputs/{sold.request_id}.mp4" if done else None,
            error=None,
        )

    def download_video(self, url: str, destination: Any, rest: Any = None) -> VideoFile:
        return self._step("download", lambda: self._download(url, destination))

    def _download(self, url: str, destination: Any) -> VideoFile:
        content = next(sold.video for sold in self._world.sold if sold.request_id in url)
        destination.content = content
        return VideoFile(destination, len(content), _digest(content))


class Wait:
    """Waits on the scheduler's clock."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def get(self, timeout: float) -> None:
        self._scheduler.sleep(timeout)
        raise Empty


@dataclass(frozen=True)
class Attempt:
    """One attempt of a task instance.

    :param name: its name, different for each try
    :param prompt: its prompt
    :param cleared: how often the task was cleared before
    :param stored: whether Airflow has a task state store
    :param starts: after how many seconds it starts
    :param url: whether its frame is a URL, so that other calls may have the same body
    """

    identity: Identity
    name: str
    prompt: str = "a"
    cleared: int = 0
    path: str = "/clips/clip.mp4"
    stored: bool = True
    url: bool = False
    if_exists: str = "overwrite"
    on_unknown_submit: str = "fail"
    starts: float = 0.0

    def run(self, world: World) -> str | None:
        """Run a try as Airflow does; return the id of the delivered job."""
        if self.starts:
            world.scheduler.sleep(self.starts)
        if self.stored:
            world.scheduler.step(
                "Airflow starts the try", lambda: world.running.update({self.identity: self.name})
            )
        output = Place(world, self.path)
        clears = Clears(max_tries=self.cleared, clear_number=self.cleared)
        store = Store(world, self.identity, self.name) if self.stored else None
        ledger = Ledger(self.identity, output, store, clears, clock=world.scheduler.now, nonce=world.nonce)
        hook: Any = Hook(world, self.identity)
        wait: Any = Wait(world.scheduler)
        job = Job(self._spec(world, output, clears), hook, ledger, wait, clock=world.scheduler.now)
        try:
            take = job.ensure_bought()
            if isinstance(take, Reused):
                return take.take.request_id if take.take else None
            return job.deliver(job.wait(take)).request_id
        except LumaRayError as error:
            check_truth(world, self.identity, error)
            raise

    def _spec(self, world: World, output: Place, clears: Clears) -> JobSpec:
        request = GenerationRequest(model=MODEL, prompt=self.prompt, start_frame=None)
        frame = (
            Frame(source="https://f/1.jpg", identity="https://f/1.jpg", url="https://f/1.jpg")
            if self.url
            else Frame(source="/f.jpg", identity="sha256:f", file=Place(world, "/f.jpg"), content=b"f")
        )
        return JobSpec(
            identity=self.identity,
            cleared=clears,
            luma_ray_conn_id="luma_ray_default",
            output=output,
            inputs=lambda take: Inputs(request, frame),
            frame_transfer="auto",
            generation_tag=None,
            api_version="v2",
            if_exists=self.if_exists,
            on_unknown_submit=self.on_unknown_submit,
            min_remaining_credits=None,
            timeout=timedelta(minutes=15),
            poll_interval=5.0,
        )


def check(world: World, attempts: list[Attempt], *, charges: int = 1, told: str = "") -> None:
    """Check the end, whoever was killed where: at most one charge per task instance, and no job lost.

    :param charges: the most that any one task instance may have been charged for
    :param told: what the attempts returned and raised, where an id that it names counts as kept
    """
    for identity in {attempt.identity for attempt in attempts}:
        mine = [sold for sold in world.sold if sold.poster == identity]
        assert len(mine) <= charges, f"{identity} paid {len(mine)} times"
    check_records(world, told)


def check_records(world: World, told: str = "") -> None:
    """Check that no delivered record has wrong bytes, and that every paid id is on record unless its call is open."""
    records = world.records()
    for name, content in world.files.items():
        if name.endswith(SUFFIX):
            record = JobRecord.load(content)
            video = world.files.get(name.removesuffix(SUFFIX))
            if record.state is RecordState.DELIVERED:
                assert video is not None, "delivered, and no video"
                assert _digest(video) == record.sha256, f"{record.request_id} is delivered over other bytes"
    known = {one for record in records for take in record.takes for one in take.ids}
    open_calls = {
        take.key
        for record in records
        for take in record.takes
        if take.state is RecordState.INTENT and take.request_id is None
    }
    ids = [sold.request_id for sold in world.sold]
    missing = [request_id for request_id in ids if request_id not in known and request_id not in told]
    assert len(missing) <= len(open_calls), f"{missing} are on no record"


def check_truth(world: World, identity: Identity, error: LumaRayError) -> None:
    """Check that no error says that nothing was bought although something was when it was raised."""
    mine = [sold for sold in world.sold if sold.poster == identity]
    if "This attempt bought nothing" in str(error) and mine:
        raise AssertionError(f"{identity} bought {mine[0].request_id}, and is told: {error}")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
