"""Polling one job, from the blocking wait and from the trigger alike: when to ask, and what the answer means."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from airflow_provider_luma.exceptions import LumaRayRateLimited, LumaRayUnavailable
from airflow_provider_luma.segmind.models import model_info
from airflow_provider_luma.segmind.polling import Verdict, judge, next_poll
from airflow_provider_luma.segmind.replies import JobResult, JobStatus, VendorStatus

if TYPE_CHECKING:
    from airflow_provider_luma.hooks.luma_ray import LumaRayHook

#: A wait that is older when it begins was taken up again, perhaps with many others by a restarted triggerer: the job
#: may be long done, so it is polled within so many seconds, at a moment of its own.
_SPREAD = 5.0


class JobPoller:
    """Polls one job.

    Pauses are measured by a clock that only grows, so that no other clock's jump makes one longer.

    :param request_id: the job
    :param model: its model's slug
    :param waited: tells the seconds since the submission
    :param timeout: seconds from the submission to the deadline
    :param poll_interval: seconds between polls, kept exactly; None: adapted to the model's typical time
    :param clock: a monotonic clock, in seconds
    """

    def __init__(
        self,
        request_id: str,
        model: str,
        *,
        waited: Callable[[], float],
        timeout: float,
        poll_interval: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._request_id = request_id
        self._typical = model_info(model).typical_seconds
        self._waited = waited
        self._timeout = timeout
        self._poll_interval = poll_interval
        self._clock = clock
        self._has_polled = False
        self.result: JobResult | None = None
        self._mark()

    def delay(self, spacing: float = 0.0) -> float:
        """Return the seconds until the next poll; none is later than the deadline.

        :param spacing: seconds between two polls that the request limit asks for at this moment
        """
        due = max(self._pause(spacing), self._no_room) - (self._clock() - self._polled_at)
        return max(min(due, self._timeout - self._age()), 0.0)

    def _pause(self, spacing: float) -> float:
        if self._poll_interval is not None:
            return self._poll_interval
        if not self._has_polled and self._polled_age > _SPREAD:
            return self._jitter * max(spacing, _SPREAD)
        due = next_poll(self._polled_age, self._typical, spacing=spacing, jitter=self._jitter)
        return due - self._polled_age

    def poll(self, hook: LumaRayHook) -> tuple[JobStatus, Verdict]:
        """Ask how the job stands, and return that and what to do.

        :raises LumaRayAuthenticationError: the key does not work
        """
        return self._judged(hook, hook.get_status)

    def poll_result(self, hook: LumaRayHook) -> tuple[JobStatus, Verdict]:
        """Ask as ``poll`` does, by the call for the result, which is kept."""

        def ask(request_id: str) -> JobStatus:
            self.result = hook.get_result(request_id)
            return self.result.status()

        return self._judged(hook, ask)

    def _judged(self, hook: LumaRayHook, ask: Callable[[str], JobStatus]) -> tuple[JobStatus, Verdict]:
        no_room = 0.0
        try:
            status = ask(self._request_id)
            # The history is asked where the call no longer (or not yet) knows the job.
            row = hook.find_job(self._request_id) if status.state is VendorStatus.NOT_FOUND else None
            status = status if row is None else row.status()
        except LumaRayRateLimited as error:
            status, no_room = JobStatus(VendorStatus.UNKNOWN), error.seconds_to_reset()
        except LumaRayUnavailable:
            status = JobStatus(VendorStatus.UNKNOWN)
        self._has_polled = True
        self._mark(no_room)
        return status, judge(status.state, self._age(), self._timeout)

    def _mark(self, no_room: float = 0.0) -> None:
        """Count the pause from now on.

        :param no_room: seconds for which the request limit leaves no room
        """
        self._polled_at, self._polled_age = self._clock(), self._age()
        self._no_room = no_room
        self._jitter = random.random()

    def _age(self) -> float:
        return max(self._waited(), 0.0)
