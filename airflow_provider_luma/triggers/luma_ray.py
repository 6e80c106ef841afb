"""Waits without a worker: the triggers poll and wake the task, which decides. They buy and fetch nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.triggers.base import BaseEventTrigger, BaseTrigger, TriggerEvent

from airflow_provider_luma.exceptions import LumaRayConfigurationError
from airflow_provider_luma.jobs.polling import HistoryPoller, JobPoller
from airflow_provider_luma.segmind.credits import CreditThreshold
from airflow_provider_luma.segmind.money import usd
from airflow_provider_luma.segmind.polling import Verdict
from airflow_provider_luma.triggers.account import Account, account_of

if TYPE_CHECKING:
    from airflow_provider_luma.hooks.limiter import RateLimiter
    from airflow_provider_luma.hooks.luma_ray import LumaRayHook

#: Seconds after the deferral in which no event is fired. The worker process may linger for up to 5 s, and Airflow fails
#: a task that is queued again before the executor has reported the end of that process; this is twice as long.
_QUIET_TIME = 10.0
#: Seconds. A trigger that starts longer than this after its deferral belongs to a restarted triggerer and need not be
#: quiet again. Triggerers pick up new triggers within seconds; a minute also allows for clocks that differ.
_RESTARTED = 60.0
#: Seconds for which a trigger that cannot poll keeps trying before it wakes the worker. A worker that can poll defers
#: again while the job runs, so it starts in vain once in this time. By then an edited connection has been noticed.
_TROUBLE_TIME = 60.0
#: Seconds between these tries: enough for a secrets backend to come back from a hiccup.
_RETRY = 10.0
#: Seconds of grace for a poll's answer at the deadline: a poll that is answered at all is usually answered within one.
_LAST_ANSWER = 3.0
#: Seconds between progress lines in a trigger's log: a line a minute is read, one for each poll is not.
_PROGRESS_INTERVAL = 60.0

T = TypeVar("T")

log = logging.getLogger(__name__)


class LumaRayJobTrigger(BaseTrigger):
    """Fire when a job needs its worker again: it is ready, failed, late or gone, or cannot be polled.

    The event has the job's id and the reason; the worker polls for itself. The trigger holds neither key nor URL, and
    any number of copies may run at once.

    :param luma_ray_conn_id: the connection to Segmind
    :param request_id: the job
    :param model: its model, which determines the typical duration
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
        """Poll until the worker is needed; connection look-ups and HTTP calls run in threads of their own."""
        clock = asyncio.get_running_loop().time
        is_new = self._is_new()
        quiet_until = clock() + (_QUIET_TIME if is_new else 0.0)
        reason = await self._reason(is_new=is_new)
        await asyncio.sleep(max(quiet_until - clock(), 0.0))
        yield self._event(reason)

    async def _reason(self, *, is_new: bool) -> str:
        clock = asyncio.get_running_loop().time
        tried_until = clock() + _TROUBLE_TIME
        while True:
            try:
                return (await self._outcome(is_new=is_new)).value
            except Exception as error:
                log.warning("%s: cannot be polled: %s", self.request_id, error)
                left = min(tried_until - clock(), self.timeout - self._waited())
                if left <= 0:
                    return "error"
            await asyncio.sleep(min(_RETRY, left))
            is_new = False

    def _is_new(self) -> bool:
        """Whether the task was deferred just now; the other machine's clock may be some seconds off."""
        deferred_at = datetime.fromisoformat(self.deferred_at) if self.deferred_at else datetime.now(UTC)
        return datetime.now(UTC) - deferred_at <= timedelta(seconds=_RESTARTED)

    async def _outcome(self, *, is_new: bool) -> Verdict:
        """Wait until there is something to decide.

        :param is_new: whether a worker has just submitted or polled the job
        """
        account = account_of(self.luma_ray_conn_id)
        limiter = await self._before_deadline(account.call(lambda hook: hook.limiter))
        if limiter is None:
            return Verdict.LATE
        if is_new:
            limiter.note()
        verdict = await self._poll_until_over(account, limiter)
        if verdict is Verdict.READY:
            await account.make_way(limiter)
        return verdict

    async def _poll_until_over(self, account: Account, limiter: RateLimiter) -> Verdict:
        history = account.history
        loop = asyncio.get_running_loop()
        poller = JobPoller(
            self.request_id,
            self.model,
            waited=self._waited,
            timeout=self.timeout,
            poll_interval=self.poll_interval,
            clock=loop.time,
        )
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
                else:
                    poll = account.call(lambda hook: self._poll(hook, poller, history))
                    verdict = await self._before_deadline(poll, told)
                    if verdict is not Verdict.WAIT and not told.done():
                        return verdict or Verdict.LATE
        return told.result()

    async def _before_deadline(self, work: asyncio.Future[T], *others: asyncio.Future[Any]) -> T | None:
        """Wait for a thread, but not beyond the job's deadline: the vendor or the secrets backend may hang.

        :return: None if it is late, or another future came first
        """
        try:
            left = max(self.timeout - self._waited(), 0.0) + _LAST_ANSWER
            await asyncio.wait({work, *others}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            return work.result() if work.done() else None
        finally:
            work.cancel()

    async def on_kill(self) -> None:
        """Log what killing the wait means: the vendor has no cancel. Airflow calls this from 3.3 on."""
        log.warning(
            "%s: the wait was killed, the job keeps running. It stays on record; the task's next attempt re-attaches.",
            self.request_id,
        )

    def _waited(self) -> float:
        since = datetime.now(UTC) + self._vendor_ahead - datetime.fromisoformat(self.submitted_at)
        return max(since.total_seconds(), 0.0)

    def _poll(self, hook: LumaRayHook, poller: JobPoller, history: HistoryPoller) -> Verdict:
        is_shared = self.poll_interval is None and history.poll(hook)
        state, verdict = "not known to have finished", Verdict.WAIT
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
    """Fire when the balance is at a threshold or beyond it, or cannot be read; the sensor checks again for itself.

    :param luma_ray_conn_id: the connection to Segmind
    :param threshold: US dollars
    :param direction: above or below
    :param include_free_credits: whether free credits count
    :param poke_interval: seconds between checks
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
        """Check until the sensor is needed; the sensor itself made the first check."""
        threshold = CreditThreshold(Decimal(self.threshold), self.direction, self.include_free_credits)
        await asyncio.sleep(self.poke_interval)
        async for look in account_of(self.luma_ray_conn_id).looks(self.poke_interval):
            if look.needs_worker:
                yield TriggerEvent({"reason": "error"})  # type: ignore[no-untyped-call]
                return
            if look.credits is not None and threshold.is_reached(look.credits):
                yield TriggerEvent({"reason": "reached"})  # type: ignore[no-untyped-call]
                return


class LumaRayCreditTrigger(BaseEventTrigger):
    """Fire whenever the balance crosses a threshold; for an ``AssetWatcher``.

    It fires on the crossing, not on every check: nothing more happens while the balance stays beyond the threshold. On
    Airflow 3.3 and later the asset's state store remembers the last side, so a restart neither fires again nor misses a
    crossing. On earlier versions, and if several assets have equal triggers (which Airflow merges into one), the first
    check after a start only determines the side. All watchers of a connection in a triggerer share their checks. A key
    or connection that does not work is logged and read again for the next check: if a watcher ended, Airflow would
    restart it at once, again and again.

    The event: ``{"balance": "<US dollars>", "threshold": ..., "direction": ...}``.

    :param threshold: US dollars
    :param direction: ``below`` (the default) for a balance that runs low, ``above`` for a top-up
    :param include_free_credits: whether free credits count. Default True, as both can presumably be spent
    :param luma_ray_conn_id: the connection to Segmind
    :param poll_interval: seconds (or a timedelta) between checks. Default 300: a balance changes by clips, not by the
        second
    """

    def __init__(
        self,
        *,
        threshold: float | str,
        direction: str = "below",
        include_free_credits: bool = True,
        luma_ray_conn_id: str = "luma_ray_default",
        poll_interval: float | timedelta = 300,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._threshold = CreditThreshold.parse(threshold, direction, include_free_credits)
        self.luma_ray_conn_id = luma_ray_conn_id
        self.poll_interval = _positive_seconds(poll_interval)

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
        """Watch the balance."""
        memory = _Memory(getattr(self, "asset_state_store", None), self._key())
        was_reached = await memory.recall()
        async for look in account_of(self.luma_ray_conn_id).looks(self.poll_interval):
            if look.credits is None:
                continue
            is_reached = self._threshold.is_reached(look.credits)
            if is_reached and was_reached is False:
                balance = self._threshold.balance(look.credits)
                log.info("The balance of %s has crossed %s.", usd(balance), usd(self._threshold.amount))
                yield TriggerEvent(  # type: ignore[no-untyped-call]
                    {
                        "balance": str(balance),
                        "threshold": str(self._threshold.amount),
                        "direction": self._threshold.direction,
                    }
                )
            was_reached = is_reached
            await memory.keep(is_reached)

    def _key(self) -> str:
        """Return the key of what is remembered; one asset may be watched for several accounts and thresholds."""
        threshold = self._threshold
        which = "total" if threshold.include_free_credits else "paid"
        return f"luma_ray_credits:{threshold.direction}:{threshold.amount}:{which}:{self.luma_ray_conn_id}"


class _Memory:
    """Remembers which side of the threshold the balance was last on, in the asset's state store.

    Airflow merges equal triggers into one, and its store then cannot tell which asset is meant, so nothing is
    remembered. A failed write is tried again at the next check.
    """

    def __init__(self, store: Any, key: str) -> None:
        self._store = store
        self._key = key
        self._kept: bool | None = None
        self._is_failing = False

    async def recall(self) -> bool | None:
        if self._store is None:
            return None
        try:
            kept = await self._store.aget(self._key)
        except ValueError:
            log.info(
                "Several assets have equal triggers, so the last side of the threshold is not remembered."
            )
            self._store = None
            return None
        except Exception as error:
            log.warning(
                "The last side of the threshold cannot be read; the first check determines it: %s", error
            )
            return None
        self._kept = kept if isinstance(kept, bool) else None
        return self._kept

    async def keep(self, is_reached: bool) -> None:
        if self._store is None or is_reached is self._kept:
            return
        try:
            await self._store.aset(self._key, is_reached)
        except Exception as error:
            if not self._is_failing:
                log.warning("The side of the threshold cannot be stored; each check tries again: %s", error)
            self._is_failing = True
        else:
            self._kept, self._is_failing = is_reached, False


def _positive_seconds(interval: float | timedelta) -> float:
    given: object = interval.total_seconds() if isinstance(interval, timedelta) else interval
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given < float("inf"):
        raise LumaRayConfigurationError(
            f"poll_interval={interval!r} is wrong: give a positive number of seconds, or a timedelta."
        )
    return float(given)


def _path(trigger: BaseTrigger) -> str:
    return f"{type(trigger).__module__}.{type(trigger).__qualname__}"
