"""A triggerer in virtual time: while all triggers pause, its clock and the simulator's are advanced."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from types import SimpleNamespace
from typing import Any, TypeVar
from unittest import mock

from airflow_provider_luma.hooks.clock import VendorClock
from airflow_provider_luma.hooks.limiter import RateLimiter
from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.jobs.polling import HistoryPoller
from airflow_provider_luma.simulator import Simulator
from airflow_provider_luma.simulator.account import Clock
from airflow_provider_luma.triggers import account as accounts
from airflow_provider_luma.triggers.account import Account
from airflow_provider_luma.triggers.luma_ray import LumaRayJobTrigger

#: Seconds that one iteration of the loop takes, so that even a pause of almost zero ends.
_TICK = 1e-6
T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    """Advances time instead of waiting."""

    def __init__(self, pass_by: Callable[[float], None]) -> None:
        super().__init__()
        self._pass_by = pass_by

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0 if timeout is not None else None)
        if not ready and timeout is not None:
            self._pass_by(timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop for coroutines that wait only for time.

    :param advance: advances the rest of the world by some seconds
    """

    def __init__(self, advance: Callable[[float], None]) -> None:
        self._now = 0.0
        self._advance = advance
        super().__init__(_Selector(self._pass_by))

    def time(self) -> float:
        """Return the seconds since the loop was created."""
        return self._now

    def _pass_by(self, seconds: float) -> None:
        self._now += max(seconds, _TICK)
        if seconds:
            self._advance(seconds)


class _NoThreads:
    """Does each piece of work at once, so that it takes no time."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def submit(self, function: Callable[..., T], *args: Any) -> Future[T]:
        done: Future[T] = Future()
        try:
            done.set_result(function(*args))
        except Exception as error:
            done.set_exception(error)
        return done


@contextmanager
def triggerer(simulator: Simulator, per_minute: float = 100_000) -> Iterator[VirtualLoop]:
    """Yield a loop in which triggers run in the simulator's time; their polls and checks take no time."""
    loop = VirtualLoop(simulator.advance)
    limiter = RateLimiter(per_minute, loop.time)
    began = simulator.now()

    def now(_: object = None) -> float:
        return began + loop.time()

    def vendor_now(_: VendorClock) -> datetime:
        return datetime.fromtimestamp(now(), UTC)

    def call(account: Account, function: Callable[[LumaRayHook], T]) -> asyncio.Future[T]:
        answer: asyncio.Future[T] = loop.create_future()
        try:
            answer.set_result(function(account.hook()))
        except Exception as error:
            answer.set_exception(error)
        return answer

    def waited(trigger: LumaRayJobTrigger) -> float:
        return max(now() - datetime.fromisoformat(trigger.submitted_at).timestamp(), 0.0)

    accounts.account_of.cache_clear()
    with (
        mock.patch.object(accounts, "time", SimpleNamespace(monotonic=loop.time)),
        mock.patch.object(accounts, "ThreadPoolExecutor", _NoThreads),
        mock.patch.object(Account, "call", call),
        mock.patch.object(accounts, "limiter_of", return_value=limiter),
        mock.patch.object(LumaRayJobTrigger, "_waited", waited),
        mock.patch.object(VendorClock, "now", vendor_now),
        mock.patch.object(Clock, "now", now),
        mock.patch.object(accounts, "HistoryPoller", partial(HistoryPoller, loop.time)),
    ):
        try:
            yield loop
        finally:
            loop.close()
            accounts.account_of.cache_clear()
