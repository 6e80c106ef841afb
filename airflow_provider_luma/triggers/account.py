"""What a connection's triggers share in one triggerer: hook, threads, history polls and balance checks."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from airflow_provider_luma.exceptions import LumaRayError, LumaRayRateLimited, LumaRayUnavailable
from airflow_provider_luma.hooks.limiter import Rank, RateLimiter, limiter_of
from airflow_provider_luma.jobs.polling import HistoryPoller

if TYPE_CHECKING:
    from airflow_provider_luma.hooks.luma_ray import LumaRayHook
    from airflow_provider_luma.segmind.replies import Credits

#: How many polls of a connection may run at once: as many as the hook's session keeps connections open. A poll usually
#: takes less than a second and ends within the connection's timeout, so the rate limit runs out before the threads do.
_POLL_THREADS = 16
#: Seconds until running triggers notice that a connection was edited. Reading it is a call to the database or a secrets
#: backend, too much for every poll of thousands of jobs.
_HOOK_LIFETIME = 60.0
#: Seconds until the same kind of problem is logged again: a vendor that fails for a day is a page of log, and the last
#: hour's log tells why nothing fires.
_TELL_INTERVAL = 3600.0
T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Look:
    """One balance check.

    :param at: when it began, on a monotonic clock
    :param credits: the balance; None: it could not be read
    :param needs_worker: whether the key or the connection is the reason, which checking again does not fix
    :param retry_after: seconds until the rate limit may have room, if it had none
    """

    at: float
    credits: Credits | None
    needs_worker: bool = False
    retry_after: float = math.inf


class Account:
    """The Segmind account behind a connection, shared by the triggers of a process.

    It has threads of its own, so that a slow vendor or secrets backend takes none from other providers' triggers.

    :param luma_ray_conn_id: the connection to Segmind
    """

    def __init__(self, luma_ray_conn_id: str) -> None:
        self.history = HistoryPoller()
        self._conn_id = luma_ray_conn_id
        self._threads = ThreadPoolExecutor(_POLL_THREADS, thread_name_prefix="luma-ray-poll")
        self._look_thread = ThreadPoolExecutor(1, thread_name_prefix="luma-ray-balance")
        self._lock = threading.Lock()
        self._hook: LumaRayHook | None = None
        self._hook_until = 0.0
        self._way = asyncio.Lock()
        self._last: Look | None = None
        self._told: dict[type[LumaRayError], float] = {}

    def hook(self) -> LumaRayHook:
        """Return a hook whose connection was read within the last minute, or before its backend failed. Blocks.

        :raises LumaRayError: the connection cannot be read or used
        """
        with self._lock:
            if self._hook is None or time.monotonic() >= self._hook_until:
                try:
                    self._hook = self._new_hook()
                except LumaRayUnavailable:
                    if self._hook is None:
                        raise
                self._hook_until = time.monotonic() + _HOOK_LIFETIME
            return self._hook

    def _new_hook(self) -> LumaRayHook:
        from airflow_provider_luma.hooks.luma_ray import LumaRayHook

        hook = LumaRayHook(self._conn_id)
        settings = hook.settings
        # Not shared with tasks in the same process (dag.test): ``note`` and ``make_way`` already count their calls.
        name = f"triggers of {self._conn_id}"
        hook.limiter = limiter_of(name, settings.api_url, settings.requests_per_minute)
        return hook

    def call(self, function: Callable[[LumaRayHook], T]) -> asyncio.Future[T]:
        """Run a function with the hook in a thread."""
        return _awaitable(self._threads.submit(copy_context().run, lambda: function(self.hook())))

    async def make_way(self, limiter: RateLimiter) -> None:
        """Wait until the rate limit has room for the call that a woken worker will make, and count it."""
        async with self._way:
            while delay := limiter.take(Rank.URGENT):
                await asyncio.sleep(delay)

    async def looks(self, interval: float) -> AsyncIterator[Look]:
        """Yield balance checks, shared by all who watch the balance; the shortest interval sets the rate."""
        seen = time.monotonic() - interval
        while True:
            look = await _awaitable(self._look_thread.submit(copy_context().run, self._look, seen))
            yield look
            seen = look.at
            await asyncio.sleep(max(seen + min(interval, look.retry_after) - time.monotonic(), 0.0))

    def _look(self, seen: float) -> Look:
        """Return a check newer than ``seen``: somebody else's if there is one, else a new one."""
        if self._last is None or self._last.at <= seen:
            self._last = self._new_look(time.monotonic())
        return self._last

    def _new_look(self, at: float) -> Look:
        try:
            hook = self.hook()
        except LumaRayError as error:
            self._tell(error)
            return Look(at, None, needs_worker=True)
        try:
            credits = hook.get_credits(Rank.BALANCE)
        except LumaRayRateLimited as error:
            self._tell(error)
            return Look(at, None, retry_after=error.seconds_to_reset())
        except LumaRayUnavailable as error:
            self._tell(error)
            return Look(at, None)
        except LumaRayError as error:
            self._tell(error)
            self._hook_until = 0.0  # read the connection again next time: the key may have been corrected
            return Look(at, None, needs_worker=True)
        return Look(at, credits)

    def _tell(self, error: LumaRayError) -> None:
        kind, now = type(error), time.monotonic()
        if kind not in self._told or now - self._told[kind] >= _TELL_INTERVAL:
            self._told[kind] = now
            log.warning("The balance of %r cannot be read: %s", self._conn_id, error)


@cache
def account_of(luma_ray_conn_id: str) -> Account:
    """Return the account that all triggers of a connection in this process share."""
    return Account(luma_ray_conn_id)


def _awaitable(work: Future[T]) -> asyncio.Future[T]:
    """Let a coroutine await a thread's work; cancelled work does not start, and its errors are dropped."""
    future = asyncio.wrap_future(work)
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    return future
