"""Waiting for one job, blocking or in a trigger alike: when to look, what a look means, and what is learned from it."""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from airflow_provider_luma.exceptions import LumaRayRateLimited, LumaRayUnavailable
from airflow_provider_luma.segmind.models import model_info
from airflow_provider_luma.segmind.polling import Verdict, judge, next_delay, real_time, typical_time
from airflow_provider_luma.segmind.replies import JobStatus, VendorStatus

if TYPE_CHECKING:
    from airflow_provider_luma.hooks.luma_ray import LumaRayHook

_REMEMBERED_JOBS = 25
_REMEMBERED_MODELS = 64
#: Seconds over which the first looks are spread of waits that are taken up again together.
_SPREAD = 5.0


@dataclass(eq=False)
class Wait:
    """One job's part in what is learned.

    :param took: how many seconds the job took, once that is known
    :param is_over: whether nobody waits for it any more
    """

    took: float | None = None
    is_over: bool = False


class Experience:
    """How long the last jobs of one model took on one account.

    Jobs are learned from in the order in which their waits began, each when all before it are over. Otherwise the quick
    ones of a crowd would be the first to be heard, and the slow ones the last. ``typical`` is how many seconds a job
    usually takes.

    :param model: the slug
    """

    def __init__(self, model: str) -> None:
        self._catalogued = model_info(model).typical_seconds
        self._times: deque[float] = deque(maxlen=_REMEMBERED_JOBS)
        self._waits: deque[Wait] = deque()
        self._lock = threading.Lock()
        self.typical = self._catalogued

    @property
    def is_new(self) -> bool:
        """Whether nothing was learned yet."""
        return not self._times

    @contextmanager
    def waiting(self) -> Iterator[Wait]:
        """Take part in what is learned, from the wait's begin to its end."""
        wait = Wait()
        with self._lock:
            self._waits.append(wait)
        try:
            yield wait
        finally:
            with self._lock:
                wait.is_over = True
                while self._waits and self._waits[0].is_over:
                    took = self._waits.popleft().took
                    if took is not None:
                        self._times.append(took)
                self.typical = typical_time(self._catalogued, self._times)


@lru_cache(maxsize=_REMEMBERED_MODELS)
def experience_of(luma_ray_conn_id: str, model: str) -> Experience:
    """Return what this process has learned about an account's jobs."""
    return Experience(model)


class Watch:
    """The wait for one job.

    :param luma_ray_conn_id: the account
    :param request_id: the job
    :param model: its model's slug
    :param waited: tells the seconds since the submission
    :param timeout: seconds from the submission to the deadline
    :param poll_interval: seconds between looks; None: adapted
    """

    def __init__(
        self,
        luma_ray_conn_id: str,
        request_id: str,
        model: str,
        *,
        waited: Callable[[], float],
        timeout: float,
        poll_interval: float | None,
    ) -> None:
        self._request_id = request_id
        self._experience = experience_of(luma_ray_conn_id, model)
        self._waited = waited
        self._timeout = timeout
        self._poll_interval = poll_interval
        self._wait: Wait | None = None
        self._seen_running: float | None = None
        self._looked_at = waited()
        self._has_looked = False
        self._room_at = 0.0
        self._luck = random.random()

    @contextmanager
    def learning(self) -> Iterator[None]:
        """Let later waits know how long this job took."""
        with self._experience.waiting() as self._wait:
            yield

    def delay(self, spacing: float = 0.0) -> float:
        """Return the seconds until the next look; none is later than the deadline.

        :param spacing: seconds between two looks that the request limit asks for at this moment
        """
        due = self._looked_at + next_delay(
            self._looked_at,
            self._experience.typical,
            self._poll_interval,
            spacing=spacing,
            early=self._experience.is_new,
            luck=self._luck,
        )
        if (
            not self._has_looked
            and self._poll_interval is None
            and self._looked_at > self._experience.typical / 2
        ):
            # A wait that was taken up again, by a restarted triggerer with many others: the job may be long done.
            due = self._looked_at + self._luck * max(spacing, _SPREAD)
        if self._room_at:
            due = max(self._room_at, self._looked_at + (self._poll_interval or 0.0))
        return max(min(due, self._timeout) - self._waited(), 0.0)

    def look(self, hook: LumaRayHook) -> tuple[JobStatus, Verdict]:
        """Ask how the job stands, and return that and what to do.

        :raises LumaRayAuthenticationError: the key does not work
        """
        self._room_at = 0.0
        self._has_looked = True
        status = self._ask(hook)
        self._looked_at = waited = self._waited()
        self._luck = random.random()
        if status.state in (VendorStatus.QUEUED, VendorStatus.PROCESSING):
            self._seen_running = waited
        elif status.state is VendorStatus.COMPLETED and self._wait:
            self._wait.took = real_time(status.seconds, self._seen_running, waited)
        return status, judge(status.state, waited, self._timeout)

    def _ask(self, hook: LumaRayHook) -> JobStatus:
        """Make the status call, and ask the history where that no longer (or not yet) knows the job.

        A passing failure is the state UNKNOWN, which never ends a wait.
        """
        try:
            status = hook.get_status(self._request_id)
            if status.state is not VendorStatus.NOT_FOUND:
                return status
            row = hook.find_job(self._request_id)
        except LumaRayRateLimited as error:
            self._room_at = self._waited() + max(error.seconds_to_reset(), 0.1)
            return JobStatus(VendorStatus.UNKNOWN)
        except LumaRayUnavailable:
            return JobStatus(VendorStatus.UNKNOWN)
        return status if row is None else row.status()
