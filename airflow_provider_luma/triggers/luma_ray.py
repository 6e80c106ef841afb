"""Waiting without a worker: the trigger asks how a job stands; it buys, fetches and decides nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pendulum
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_luma.exceptions import LumaRayError
from airflow_provider_luma.jobs.record import read_time
from airflow_provider_luma.jobs.waiting import look
from airflow_provider_luma.segmind.models import describe
from airflow_provider_luma.segmind.polling import Verdict, judge, next_delay

log = logging.getLogger(__name__)


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
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.luma_ray_conn_id = luma_ray_conn_id
        self.request_id = request_id
        self.model = model
        self.submitted_at = submitted_at
        self.timeout = timeout
        self.poll_interval = poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments, all of them plain JSON."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "luma_ray_conn_id": self.luma_ray_conn_id,
                "request_id": self.request_id,
                "model": self.model,
                "submitted_at": self.submitted_at,
                "timeout": self.timeout,
                "poll_interval": self.poll_interval,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until the worker is needed; connection look-up and HTTP happen in threads."""
        from airflow_provider_luma.hooks.luma_ray import LumaRayHook

        hook = LumaRayHook(self.luma_ray_conn_id)
        typical = describe(self.model).typical_seconds
        while True:
            waited = self._waited()
            if waited < self.timeout:
                delay = next_delay(waited, typical, self.poll_interval)
                await asyncio.sleep(min(delay, self.timeout - waited))
            try:
                status = await asyncio.to_thread(look, hook, self.request_id)
            except LumaRayError as error:
                log.warning("%s: %s", self.request_id, error)
                yield self._event("error")
                return
            verdict = judge(status.state, self._waited(), self.timeout)
            if verdict is not Verdict.WAIT:
                yield self._event(verdict.value)
                return

    async def on_kill(self) -> None:
        """Say what a killed wait means; the vendor has no cancel (Airflow 3.3 and later call this)."""
        log.warning(
            "%s: the wait was ended, the job goes on; it stays on record, and the task's next attempt re-attaches.",
            self.request_id,
        )

    def _waited(self) -> float:
        return (pendulum.now("UTC") - read_time(self.submitted_at)).total_seconds()

    def _event(self, reason: str) -> TriggerEvent:
        return TriggerEvent({"request_id": self.request_id, "reason": reason})  # type: ignore[no-untyped-call]
