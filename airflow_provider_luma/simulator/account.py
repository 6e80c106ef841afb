"""One account's balance, jobs and rate limit, by the simulator's own clock."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from airflow_provider_luma.simulator.contract import Model, RefusalError

#: By the vendor's documentation: status and result live for an hour, files for seven days.
RECORD_SECONDS = 3600
FILE_SECONDS = 7 * 24 * 3600
#: The share of its time that a job is QUEUED: short, but long enough to be seen by a poll.
QUEUED_SHARE = 0.2


class Clock:
    """Wall-clock time with an offset in seconds, which a test can advance."""

    def __init__(self, offset: float = 0.0) -> None:
        self._offset = time.time() - time.monotonic() + offset
        self._moved = asyncio.Event()

    def now(self) -> float:
        """Return the seconds since the epoch."""
        return time.monotonic() + self._offset

    def advance(self, seconds: float) -> None:
        """Jump ahead and wake up everyone who waits."""
        self._offset += seconds
        self._moved.set()
        self._moved = asyncio.Event()

    async def sleep_until(self, moment: float) -> None:
        """Return once the moment has come, by waiting or by advancing."""
        while (left := moment - self.now()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._moved.wait()


def utc_text(moment: float) -> str:
    """Format a moment like the vendor's timestamps."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass
class Job:
    """One accepted POST."""

    api: str
    model: Model
    body: dict[str, Any]
    price: Decimal
    base_url: str
    created: float
    ready_at: float
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    output_name: str = field(default_factory=lambda: f"{uuid.uuid4().hex}.mp4")
    doomed: str | None = None
    history_lag: float | None = None
    finished_at: float | None = None
    clip: Path | None = None
    error: str | None = None
    cost: Decimal = Decimal(0)
    balance_after: Decimal = Decimal(0)

    @property
    def output_url(self) -> str:
        """Return the public URL of the video."""
        return f"{self.base_url}/outputs/{self.output_name}"

    def state(self, now: float) -> str:
        """Return the job's status in the vendor's words."""
        if self.finished_at is not None:
            return "COMPLETED" if self.clip else "FAILED"
        queued_until = self.created + QUEUED_SHARE * (self.ready_at - self.created)
        return "QUEUED" if now < queued_until else "PROCESSING"

    def metrics(self) -> dict[str, float]:
        """Return the metrics that come with a terminal status."""
        if self.finished_at is None:
            return {}
        total = self.finished_at - self.created
        queued = QUEUED_SHARE * (self.ready_at - self.created)
        return {
            "inference_time": round(total - queued, 3),
            "queue_time": round(queued, 3),
            "total_time": round(total, 3),
            "cost": float(self.cost),
            "remaining_credits": float(self.balance_after),
        }


class Account:
    """What the vendor knows about its only customer here."""

    def __init__(self, clock: Clock, latency: float, requests_per_minute: int) -> None:
        self.clock = clock
        self.latency = latency
        self.requests_per_minute = requests_per_minute
        self.paid = Decimal(0)
        self.free = Decimal(0)
        self.spent = Decimal(0)
        self.charges = 0
        self.refused = 0
        self.jobs: dict[str, Job] = {}
        self._reserved = Decimal(0)
        self._outputs: dict[str, Job] = {}
        self._dooms: deque[str] = deque()
        self._history_lags: deque[float] = deque()
        self._recent: deque[float] = deque()

    @property
    def balance(self) -> Decimal:
        """Return what can be spent: paid and free credits."""
        return self.paid + self.free

    def admit(self) -> None:
        """Count one request with a key, or refuse it, by a sliding window of a minute."""
        if not self.requests_per_minute:
            return
        now = self.clock.now()
        while self._recent and self._recent[0] <= now - 60:
            self._recent.popleft()
        if len(self._recent) >= self.requests_per_minute:
            self.refused += 1
            reset = utc_text(self._recent[0] + 60)
            raise RefusalError(429, "Rate limit exceeded", {"x-rate-limit-reset-at-utc": reset})
        self._recent.append(now)

    def doom_next(self, error: str) -> None:
        """Make the next accepted job end FAILED."""
        self._dooms.append(error)

    def delay_history(self, request_id: str, seconds: float) -> None:
        """Show a job, or the "next" accepted one, in the history only this long after its creation."""
        if request_id == "next":
            self._history_lags.append(seconds)
        elif request_id in self.jobs:
            self.jobs[request_id].history_lag = seconds
        else:
            raise ValueError(f"no job has this id: {request_id!r}")

    def top_up(self, credits: Decimal) -> None:
        """Add paid credits."""
        if not credits.is_finite() or credits <= 0:
            raise ValueError(f"credits must be a positive number: {credits}")
        self.paid += credits

    def open_job(self, api: str, model: Model, body: dict[str, Any], base_url: str) -> Job:
        """Accept a job and reserve its price, or refuse it for lack of credits."""
        price = model.price_of(body)
        if self.balance - self._reserved < price:
            raise RefusalError(402 if api == "v2" else 406, "Insufficient credits to run this model")
        now = self.clock.now()
        job = Job(api, model, body, price, base_url, created=now, ready_at=now + self.latency)
        job.doomed = self._dooms.popleft() if self._dooms else None
        job.history_lag = self._history_lags.popleft() if self._history_lags else None
        self._reserved += price
        self.jobs[job.request_id] = job
        self._outputs[job.output_name] = job
        return job

    def complete(self, job: Job, clip: Path, finished_at: float) -> None:
        """Deliver and charge, free credits first."""
        self._reserved -= job.price
        from_free = min(self.free, job.price)
        self.free -= from_free
        self.paid -= job.price - from_free
        self.spent += job.price
        self.charges += 1
        job.clip, job.cost = clip, job.price
        job.finished_at, job.balance_after = finished_at, self.balance

    def fail(self, job: Job, error: str, finished_at: float) -> None:
        """End a job FAILED and release its price: a failure costs nothing."""
        self._reserved -= job.price
        job.error = error
        job.finished_at, job.balance_after = finished_at, self.balance

    def has_record(self, job: Job) -> bool:
        """Whether status and result still know a job: a v2 job, for an hour."""
        return job.api == "v2" and self.clock.now() <= job.created + RECORD_SECONDS

    def output(self, name: str) -> tuple[Path, float]:
        """Return the file at a public URL, kept for seven days, and when it was finished."""
        job = self._outputs.get(name)
        if job is None or job.clip is None or job.finished_at is None:
            raise RefusalError(404, "Not Found")
        if self.clock.now() > job.finished_at + FILE_SECONDS:
            raise RefusalError(404, "Not Found")
        return job.clip, job.finished_at
