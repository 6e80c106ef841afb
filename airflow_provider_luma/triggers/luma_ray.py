"""Waiting without a worker: triggers ask, and wake whoever decides; they buy and fetch nothing."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.triggers.base import BaseEventTrigger, BaseTrigger, TriggerEvent

from airflow_provider_luma.exceptions import LumaRayError, LumaRayRateLimited, LumaRayUnavailable
from airflow_provider_luma.jobs.polling import HistoryPoller, JobPoller, history_of
from airflow_provider_luma.segmind.credits import CreditThreshold
from airflow_provider_luma.segmind.polling import Verdict
from airflow_provider_luma.segmind.replies import Credits

if TYPE_CHECKING:
    from airflow_provider_luma.hooks.limiter import RateLimiter
    from airflow_provider_luma.hooks.luma_ray import LumaRayHook

#: How many polls may be under way at once; each is over within the connection's timeout.
_POLL_THREADS = 16
#: Seconds after the deferral before which no event is yielded. The process that deferred may linger for up to 5 s, and
#: Airflow fails a task that is queued again before the executor has reported that end; this is twice as long.
_QUIET_TIME = 10.0
#: A trigger that starts so many seconds after its deferral is a restarted triggerer's, and need not be quiet again.
_RESTARTED = 60.0
#: Seconds between two lines of progress in a trigger's log.
_PROGRESS_INTERVAL = 60.0
#: Seconds after which an edited connection is seen by triggers that run.
_HOOK_LIFETIME = 60.0
T = TypeVar("T")

log = logging.getLogger(__name__)


@cache
def _poll_threads() -> ThreadPoolExecutor:
    """Return threads for the polls, apart from the event loop's own, which a slow vendor would take from others."""
    return ThreadPoolExecutor(_POLL_THREADS, thread_name_prefix="luma-ray-poll")


async def _in_thread(function: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(_poll_threads(), copy_context().run, function)


def _hook(luma_ray_conn_id: str) -> LumaRayHook:
    """Return the hook that all triggers of a connection share: one look-up and one set of open connections."""
    return _hook_of_period(luma_ray_conn_id, int(time.monotonic() / _HOOK_LIFETIME))


@lru_cache(maxsize=16)
def _hook_of_period(luma_ray_conn_id: str, period: int) -> LumaRayHook:
    from airflow_provider_luma.hooks.luma_ray import LumaRayHook

    return LumaRayHook(luma_ray_conn_id)


class LumaRayJobTrigger(BaseTrigger):
    """Fire when a job needs its worker again: ready, failed, late, gone, or not to be asked about.

    The event names the job and the reason; the worker looks again for itself. The trigger holds neither key nor URL,
    and any number of copies of it may run at once.

    :param luma_ray_conn_id: the connection to Segmind
    :param request_id: the job
    :param model: its model, for the typical time
    :param submitted_at: when it was submitted (ISO 8601, UTC)
    :param timeout: seconds from the submission to the deadline
    :param poll_interval: seconds between status calls; None: adapted to the model
    :param deferred_at: when the task was deferred (ISO 8601, UTC); None: just now
    """

    def __init__(
        self,
        *,
        luma_ray_conn_id: str,
        request_id: str,
        model: str,
        submitted_at: str,
        timeout: float,
        poll_interval: float | None = None,
        deferred_at: str | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.luma_ray_conn_id = luma_ray_conn_id
        self.request_id = request_id
        self.model = model
        self.submitted_at = submitted_at
        self.timeout = timeout
        self.poll_interval = poll_interval
        self.deferred_at = deferred_at
        self._vendor_ahead = timedelta(0)
        self._told_at = 0.0

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments, all of them plain JSON."""
        return (
            _path(self),
            {
                "luma_ray_conn_id": self.luma_ray_conn_id,
                "request_id": self.request_id,
                "model": self.model,
                "submitted_at": self.submitted_at,
                "timeout": self.timeout,
                "poll_interval": self.poll_interval,
                "deferred_at": self.deferred_at,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until the worker is needed; connection look-up and HTTP happen in threads of their own."""
        clock = asyncio.get_running_loop().time
        quiet_until = clock() + self._quiet_time()
        try:
            reason = (await self._outcome()).value
        except LumaRayError as error:
            log.warning("%s: %s", self.request_id, error)
            reason = "error"
        await asyncio.sleep(max(quiet_until - clock(), 0.0))
        yield self._event(reason)

    def _quiet_time(self) -> float:
        deferred_at = datetime.fromisoformat(self.deferred_at) if self.deferred_at else datetime.now(UTC)
        # Whole, and not what is left of it: another machine's clock may be some seconds off.
        return 0.0 if datetime.now(UTC) - deferred_at > timedelta(seconds=_RESTARTED) else _QUIET_TIME

    async def _outcome(self) -> Verdict:
        poller = JobPoller(
            self.request_id,
            self.model,
            waited=self._waited,
            timeout=self.timeout,
            poll_interval=self.poll_interval,
        )
        limiter = await _in_thread(lambda: _hook(self.luma_ray_conn_id).limiter)
        history = history_of(self.luma_ray_conn_id)
        loop = asyncio.get_running_loop()
        told: asyncio.Future[Verdict] = loop.create_future()

        def note(verdict: Verdict) -> None:
            if not told.done():
                told.set_result(verdict)

        def tell(verdict: Verdict) -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(note, verdict)

        with limiter.waiting(), history.waiting(self.request_id, tell):
            while not told.done():
                is_shared = self.poll_interval is None and history.is_of_use
                if delay := poller.delay(0.0 if is_shared else limiter.spacing()):
                    await asyncio.wait({told}, timeout=delay)
                elif is_shared and not history.is_due and not self._is_overdue(poller, history, limiter):
                    poller.passed()
                elif (verdict := await _in_thread(lambda: self._poll(poller, history))) is not Verdict.WAIT:
                    return verdict
        return told.result()

    async def on_kill(self) -> None:
        """Say what a killed wait means; the vendor has no cancel (Airflow 3.3 and later call this)."""
        log.warning(
            "%s: the wait was ended, the job goes on; it stays on record, and the task's next attempt re-attaches.",
            self.request_id,
        )

    def _waited(self) -> float:
        since = datetime.now(UTC) + self._vendor_ahead - datetime.fromisoformat(self.submitted_at)
        return max(since.total_seconds(), 0.0)

    def _poll(self, poller: JobPoller, history: HistoryPoller) -> Verdict:
        hook = _hook(self.luma_ray_conn_id)
        is_shared = self.poll_interval is None and history.poll(hook)
        state, verdict = "not known to have ended", Verdict.WAIT
        if is_shared and not self._is_overdue(poller, history, hook.limiter):
            poller.passed()
        else:
            status, verdict = poller.poll(hook)
            state = status.state
            if is_shared and verdict in (Verdict.READY, Verdict.FAILED):
                history.missed()
        self._vendor_ahead = hook.vendor_now() - datetime.now(UTC)
        waited = self._waited()
        if verdict is Verdict.WAIT and waited >= self._told_at + _PROGRESS_INTERVAL:
            self._told_at = waited
            log.info("%s: %s after %.0f s.", self.request_id, state, waited)
        return verdict

    def _is_overdue(self, poller: JobPoller, history: HistoryPoller, limiter: RateLimiter) -> bool:
        return poller.is_overdue(limiter.spacing(), is_shown=history.shows(self.request_id))

    def _event(self, reason: str) -> TriggerEvent:
        return TriggerEvent({"request_id": self.request_id, "reason": reason})  # type: ignore[no-untyped-call]


class LumaRayCreditSensorTrigger(BaseTrigger):
    """Fire when the balance is at a threshold or beyond it, or cannot be asked for; the sensor looks again for itself.

    :param luma_ray_conn_id: the connection to Segmind
    :param threshold: US dollars
    :param direction: above or below
    :param include_free_credits: whether given credits count
    :param poke_interval: seconds between looks
    """

    def __init__(
        self,
        *,
        luma_ray_conn_id: str,
        threshold: str,
        direction: str,
        include_free_credits: bool,
        poke_interval: float,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.luma_ray_conn_id = luma_ray_conn_id
        self.threshold = threshold
        self.direction = direction
        self.include_free_credits = include_free_credits
        self.poke_interval = poke_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments, all of them plain JSON."""
        return (
            _path(self),
            {
                "luma_ray_conn_id": self.luma_ray_conn_id,
                "threshold": self.threshold,
                "direction": self.direction,
                "include_free_credits": self.include_free_credits,
                "poke_interval": self.poke_interval,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until the sensor is needed; the first look was the sensor's own."""
        threshold = CreditThreshold(Decimal(self.threshold), self.direction, self.include_free_credits)
        await asyncio.sleep(self.poke_interval)
        async for answer in _looks(self.luma_ray_conn_id, self.poke_interval):
            if isinstance(answer, LumaRayError):
                yield TriggerEvent({"reason": "error"})  # type: ignore[no-untyped-call]
                return
            if threshold.is_reached(answer):
                yield TriggerEvent({"reason": "reached"})  # type: ignore[no-untyped-call]
                return


class LumaRayCreditTrigger(BaseEventTrigger):
    """Fire whenever the balance crosses a threshold; for an ``AssetWatcher``.

    It fires on the crossing, not on every look: while the balance stays beyond the threshold nothing more happens. On
    Airflow 3.3 and later the asset's state store remembers the last side, so that neither a restart fires again nor a
    crossing during one is missed, and all triggers of one connection and interval share one look. Earlier, the first
    look after a start only tells the side. A key or connection that does not work is logged, and looked at anew at the
    next look: a watcher that ended would be restarted by Airflow at once, again and again.

    The event: ``{"balance": "<US dollars>", "threshold": ..., "direction": ...}``.

    :param threshold: US dollars
    :param direction: ``below`` (the default) for money that runs low, ``above`` for a top-up
    :param include_free_credits: whether given credits count. Default True, as both can presumably be spent
    :param luma_ray_conn_id: the connection to Segmind
    :param poll_interval: seconds between looks. Default 300: a balance moves by clips, not by seconds
    """

    def __init__(
        self,
        *,
        threshold: float | str,
        direction: str = "below",
        include_free_credits: bool = True,
        luma_ray_conn_id: str = "luma_ray_default",
        poll_interval: float = 300,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._threshold = CreditThreshold.parse(threshold, direction, include_free_credits)
        self.luma_ray_conn_id = luma_ray_conn_id
        self.poll_interval = poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments, all of them plain JSON."""
        return (
            _path(self),
            {
                "threshold": str(self._threshold.amount),
                "direction": self._threshold.direction,
                "include_free_credits": self._threshold.include_free_credits,
                "luma_ray_conn_id": self.luma_ray_conn_id,
                "poll_interval": self.poll_interval,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Watch the balance with looks of its own, where Airflow shares none."""
        async for event in self._crossings(_looks(self.luma_ray_conn_id, self.poll_interval)):
            yield event

    def shared_stream_key(self) -> Hashable:
        """All that watch one account at one interval share its looks (Airflow 3.3 and later)."""
        return ("luma_ray_credits", self.luma_ray_conn_id, str(self.poll_interval))

    @classmethod
    async def open_shared_stream(cls, kwargs: dict[str, Any]) -> AsyncIterator[Credits | LumaRayError]:
        """Look at the balance for all that share the stream."""
        async for answer in _looks(kwargs["luma_ray_conn_id"], kwargs["poll_interval"]):
            yield answer

    async def filter_shared_stream(
        self, shared_stream: AsyncIterator[Credits | LumaRayError]
    ) -> AsyncIterator[TriggerEvent]:
        """Pick this trigger's crossings out of the shared looks."""
        async for event in self._crossings(shared_stream):
            yield event

    async def _crossings(self, answers: AsyncIterator[Credits | LumaRayError]) -> AsyncIterator[TriggerEvent]:
        store = getattr(self, "asset_state_store", None)
        key = f"luma_ray_credits_{self._threshold.direction}_{self._threshold.amount}"
        was_reached = None if store is None else await store.aget(key)
        async for answer in answers:
            if isinstance(answer, LumaRayError):
                continue
            is_reached = self._threshold.is_reached(answer)
            if is_reached and was_reached is False:
                balance = self._threshold.balance(answer)
                log.info("The balance of %s USD has crossed %s.", balance, self._threshold.amount)
                yield TriggerEvent(  # type: ignore[no-untyped-call]
                    {
                        "balance": str(balance),
                        "threshold": str(self._threshold.amount),
                        "direction": self._threshold.direction,
                    }
                )
            if is_reached != was_reached and store is not None:
                await store.aset(key, is_reached)
            was_reached = is_reached


async def _looks(luma_ray_conn_id: str, interval: float) -> AsyncIterator[Credits | LumaRayError]:
    """Yield the balance at an interval, or why it cannot be asked for; what passes is passed over.

    Look-up and HTTP happen in threads, with the connection as it is by then.
    """
    from airflow_provider_luma.hooks.luma_ray import LumaRayHook

    while True:
        try:
            yield await asyncio.to_thread(LumaRayHook(luma_ray_conn_id).get_credits)
        except (LumaRayRateLimited, LumaRayUnavailable) as error:
            log.warning("The balance cannot be read this time: %s", error)
        except LumaRayError as error:
            log.error("The balance cannot be asked for: %s", error)
            yield error
        await asyncio.sleep(interval)


def _path(trigger: BaseTrigger) -> str:
    return f"{type(trigger).__module__}.{type(trigger).__qualname__}"
