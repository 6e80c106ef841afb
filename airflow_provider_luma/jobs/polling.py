"""Polls one job, for the blocking wait and the trigger alike, or with one call all the jobs waiting in a triggerer."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow_provider_luma.exceptions import LumaRayError, LumaRayRateLimited, LumaRayUnavailable
from airflow_provider_luma.hooks.limiter import Rank
from airflow_provider_luma.segmind.ids import id_key
from airflow_provider_luma.segmind.models import model_info
from airflow_provider_luma.segmind.polling import Verdict, next_poll, verdict_on
from airflow_provider_luma.segmind.replies import JobResult, JobStatus, VendorStatus

if TYPE_CHECKING:
    from airflow_provider_luma.hooks.luma_ray import LumaRayHook

#: Seconds. A wait whose job is older than this when it begins is a resumed one, perhaps one of many in a restarted
#: triggerer: the job may be long done, so it is polled within this time, at a random moment.
_SPREAD = 5.0
#: While the history answers for many jobs, a job's own status calls are this much rarer than its polls would be: if the
#: history fails to show a job's end, it is noticed one poll later than without the history.
_RARER = 2.0

#: From this many jobs on, a page of a hundred rows is cheaper than their status calls.
_SEVERAL = 3
#: Seconds between pages at least, since two seconds' delay is soon enough (as in ``segmind/polling.py``); and the share
#: of the polls' part of the rate limit that pages may use, which leaves most of it to status calls.
_SHORTEST_PAGE_INTERVAL = 2.0
_PAGE_SHARE = 1 / 3
#: Seconds that a page may hold up the other jobs; with inline frames it can have tens of megabytes.
_SLOWEST_PAGE = 10.0
#: Seconds until a history that was of no use is tried again: an outage is over by then, and if it is not, a page in
#: five minutes is cheap.
_RETRY_HISTORY = 300.0
#: How many jobs in a row the status calls may see end before the history does. One or two are chance.
_MOST_MISSED = 3
#: How many pages in a row may fail: each is tried once, and one gateway error is no reason to stop for minutes.
_MOST_FAILED = 2
#: How many pages in a row: enough for a triggerer with ten thousand jobs.
_MOST_PAGES = 100
#: How many finished jobs are remembered: as many as may wait in a triggerer.
_REMEMBERED = 10_000

_VERDICTS = {VendorStatus.COMPLETED: Verdict.READY, VendorStatus.FAILED: Verdict.FAILED}

log = logging.getLogger(__name__)


class JobPoller:
    """Polls one job.

    Pauses are measured by a monotonic clock, so that a jump of the wall clock cannot lengthen one.

    :param request_id: the job
    :param model: its model's slug
    :param waited: returns the seconds since the submission
    :param timeout: seconds from the submission to the deadline
    :param poll_interval: seconds between polls, kept exactly; None: adapted to the model's typical duration
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
        self._asked_at, self._asked_age = self._polled_at, self._polled_age

    def delay(self, spacing: float = 0.0) -> float:
        """Return the seconds until the next poll, which is never later than the deadline.

        :param spacing: seconds between two polls that the rate limit currently requires
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
        """Poll the job's status; return it, and what it means for the wait.

        :raises LumaRayAuthenticationError: the key does not work
        """
        return self._judged(hook, hook.get_status)

    def poll_result(self, hook: LumaRayHook) -> tuple[JobStatus, Verdict]:
        """Poll like ``poll``, but with the result call; keeps the result."""

        def ask(request_id: str) -> JobStatus:
            self.result = hook.get_result(request_id)
            return self.result.status()

        return self._judged(hook, ask)

    def _judged(self, hook: LumaRayHook, ask: Callable[[str], JobStatus]) -> tuple[JobStatus, Verdict]:
        no_room = 0.0
        try:
            status = ask(self._request_id)
            # The status call may no longer (or not yet) know the job when the history does.
            if status.state is VendorStatus.NOT_FOUND:
                row = hook.find_job(self._request_id, Rank.POLL)
                status = status if row is None else row.status()
        except LumaRayRateLimited as error:
            status, no_room = JobStatus(VendorStatus.UNKNOWN), error.seconds_to_reset()
        except LumaRayUnavailable:
            status = JobStatus(VendorStatus.UNKNOWN)
        self._has_polled = True
        self._mark(no_room)
        self._asked_at, self._asked_age = self._polled_at, self._polled_age
        return status, verdict_on(status.state, self._age(), self._timeout)

    def is_overdue(self, spacing: float, *, is_shown: bool) -> bool:
        """Whether to make the status call although the history answers for many jobs: it may not for this one.

        :param spacing: as for ``delay``
        :param is_shown: whether the history's last page shows the job
        """
        if self._age() >= self._timeout:
            return True
        due = next_poll(self._asked_age, self._typical, spacing=spacing, jitter=self._jitter)
        pause = (due - self._asked_age) * (_RARER if is_shown else 1.0)
        return self._clock() - self._asked_at >= pause

    def passed(self) -> None:
        """Count the history's page as the poll that was due."""
        self._has_polled = True
        self._mark()

    def _mark(self, no_room: float = 0.0) -> None:
        """Start the next pause now.

        :param no_room: seconds for which the rate limit has no room
        """
        self._polled_at, self._polled_age = self._clock(), self._age()
        self._no_room = no_room
        self._jitter = random.random()

    def _age(self) -> float:
        return max(self._waited(), 0.0)


class HistoryPoller:
    """Polls for all of an account's jobs that wait in one process, with pages of the request history.

    The first page has the newest hundred requests; further pages are read while several of the jobs are older than it.
    Only a row with a job's id that says COMPLETED or FAILED counts; a missing or pending row proves nothing. The
    history is trusted once a status call has confirmed one such row. A job that keeps waiting after it was told of its
    end is not told again, and polls for itself. A history that turns out useless is left alone for some minutes.

    :param clock: a monotonic clock, in seconds
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._jobs: dict[str, tuple[str, list[Callable[[Verdict], None]]]] = {}
        self._lock = threading.Lock()
        self._polling = threading.Lock()
        self._due = 0.0
        self._off_until = 0.0
        self._is_checked = False
        self._missed = self._failed = 0
        self._failed = 0
        self._page = 1
        self._shown: set[str] = set()
        self._seen: set[str] = set()
        self._told: dict[str, None] = {}

    @contextmanager
    def waiting(self, request_id: str, tell: Callable[[Verdict], None]) -> Iterator[None]:
        """Register a job to be told of its end, from whichever thread polls."""
        key = id_key(request_id)
        with self._lock:
            self._jobs.setdefault(key, (request_id, []))[1].append(tell)
        try:
            yield
        finally:
            with self._lock:
                self._jobs[key][1].remove(tell)
                if not self._jobs[key][1]:
                    del self._jobs[key]

    @property
    def is_of_use(self) -> bool:
        """Whether pages can replace the polls of several jobs."""
        return len(self._jobs) >= _SEVERAL and self._clock() >= self._off_until

    @property
    def is_due(self) -> bool:
        """Whether it is time for a page, and nobody is fetching one."""
        return self._clock() >= self._due and not self._polling.locked()

    def shows(self, request_id: str) -> bool:
        """Whether the last pages can replace a job's polls."""
        key = id_key(request_id)
        return (key in self._shown or key in self._seen) and key not in self._told

    def poll(self, hook: LumaRayHook) -> bool:
        """Fetch a page if one is due, and tell the jobs that it shows to have ended; return ``is_of_use``."""
        if self.is_of_use and self._polling.acquire(blocking=False):
            try:
                if self._clock() >= self._due:
                    self._poll(hook)
            except LumaRayRateLimited:
                pass  # a status call would have no room either
            except LumaRayError as error:
                self._failed += 1
                if self._failed >= _MOST_FAILED or not isinstance(error, LumaRayUnavailable):
                    self._leave(error.cause)
            finally:
                self._polling.release()
        return self.is_of_use

    def _poll(self, hook: LumaRayHook) -> None:
        asked_at = self._clock()
        interval = hook.limiter.spacing(jobs=1) / _PAGE_SHARE
        self._due = asked_at + max(interval, _SHORTEST_PAGE_INTERVAL)
        rows = {id_key(row.request_id): row.state for row in hook.newest_jobs(self._page)}
        self._failed = 0
        with self._lock:
            self._turn_page(rows.keys() & self._jobs.keys())
            ended = {
                key: _VERDICTS[state]
                for key, state in rows.items()
                if state in _VERDICTS and key in self._jobs and key not in self._told
            }
            jobs = {key: self._jobs[key] for key in ended}
        if not self._is_checked and jobs:
            request_id = next(iter(jobs.values()))[0]
            seen = hook.get_status(request_id).state
            if seen in (VendorStatus.QUEUED, VendorStatus.PROCESSING):
                self._leave(f"it says that {request_id} has ended, but that job is {seen}")
            self._is_checked = seen in _VERDICTS
        if self._is_checked:
            for key, (_, told) in jobs.items():
                self._missed = 0
                self._told[key] = None
                for tell in tuple(told):
                    tell(ended[key])
            while len(self._told) > _REMEMBERED:
                del self._told[next(iter(self._told))]
        if self._clock() - asked_at > _SLOWEST_PAGE:
            self._leave("it is too slow")

    def _turn_page(self, shown: set[str]) -> None:
        self._seen |= shown
        if shown and self._page < _MOST_PAGES and len(self._jobs.keys() - self._seen) >= _SEVERAL:
            self._page += 1
        else:
            self._page, self._shown, self._seen = 1, self._seen, set()

    def missed(self) -> None:
        """Note that a job's status call saw its end before the history did."""
        self._missed += 1
        if self._missed >= _MOST_MISSED and self.is_of_use:
            self._leave("it lags behind them")

    def _leave(self, why: str) -> None:
        log.warning(
            "The request history cannot replace the status calls: %s. Trying again in %.0f minutes.",
            why.rstrip("."),
            _RETRY_HISTORY / 60,
        )
        self._off_until = self._clock() + _RETRY_HISTORY
        self._is_checked = False
        self._missed = 0
