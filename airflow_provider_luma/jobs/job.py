"""The life of one paid job: ensure submitted, wait, deliver; one path for blocking, deferred and re-attached."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

import pendulum

from airflow_provider_luma.exceptions import (
    LumaRayDeliveryFailed,
    LumaRayError,
    LumaRayJobFailed,
    LumaRayRateLimited,
    LumaRayRecordError,
    LumaRayResultExpired,
    LumaRayTimeout,
    LumaRayUnavailable,
)
from airflow_provider_luma.hooks.backoff import backoff
from airflow_provider_luma.jobs.decision import Action, decide
from airflow_provider_luma.jobs.record import JobRecord, RecordState, now
from airflow_provider_luma.jobs.submit import Purchase, delivered
from airflow_provider_luma.jobs.waiting import Watch
from airflow_provider_luma.media import VideoFile, staged
from airflow_provider_luma.segmind.polling import RECORD_LIFETIME, Verdict
from airflow_provider_luma.segmind.replies import JobStatus, VendorStatus
from airflow_provider_luma.storage import commit, size

if TYPE_CHECKING:
    from airflow_provider_luma.hooks.luma_ray import LumaRayHook
    from airflow_provider_luma.jobs.ledger import Ledger
    from airflow_provider_luma.jobs.spec import JobSpec

#: Answers of a file host that say that it does not have the video.
_NOT_THERE = (403, 404, 410)

log = logging.getLogger(__name__)


class Job:
    """One task instance's job.

    :param spec: what is asked for
    :param hook: the account
    :param ledger: where the job is on record
    :param stopped: gets an item when the task is told to stop, which ends a wait at once; unlike an event it may be
        filled from a signal handler
    """

    def __init__(self, spec: JobSpec, hook: LumaRayHook, ledger: Ledger, stopped: SimpleQueue[None]) -> None:
        self._spec = spec
        self._hook = hook
        self._ledger = ledger
        self._stopped = stopped
        self._purchase = Purchase(spec, hook, ledger, self._pause)

    @property
    def output_path(self) -> str:
        """Where the video goes."""
        return str(self._spec.output)

    def ensure_submitted(self) -> JobRecord:
        """Return the record of the job, which is bought only where none is on record."""
        while True:
            record = self._find_or_buy()
            if record is not None:
                return record

    def _find_or_buy(self) -> JobRecord | None:
        spec = self._spec
        own, other = self._ledger.read()
        if own is not None and (recalled := own.recalled(spec.fingerprint)) is not own:
            log.info("%s: bought before as an earlier take of this task instance.", recalled.request_id)
            own = self._ledger.write(recalled)
        there = size(spec.output)
        action = decide(
            own,
            other,
            identity=spec.identity,
            fingerprint=spec.fingerprint,
            output_path=str(spec.output),
            size=there,
            if_exists=spec.if_exists,
        )
        if action is Action.REUSE:
            log.info("%s is there already and is reused; nothing is bought.", spec.output)
            return spec.intent(body_sha256="", api_version="").moved(
                RecordState.DELIVERED,
                request_id=other.request_id if other else None,
                cost=Decimal(0),
                bytes=there,
            )
        if action is Action.BUY or own is None:
            earlier = (*(other.history() if other else ()), *(own.history() if own else ()))
            return self._purchase.buy(own.revision if own else 0, earlier)
        if action is Action.LOOK_UP:
            return self._purchase.resolve(own, f"An attempt ended around its paid call of {own.intent_at}.")
        if action is Action.RETURN:
            log.info("%s: delivered before and in its place; nothing is bought.", own.request_id)
        else:
            log.info(
                "%s: bought before and now %s; re-attaching, nothing is bought.", own.request_id, own.state
            )
        return own if self._ledger.legs_agree else self._purchase.note(own)

    def recorded(self, request_id: str) -> JobRecord:
        """Return the record of a job that an earlier phase of this attempt submitted.

        :raises LumaRayRecordError: it is not on record
        """
        own, _ = self._ledger.read()
        if own is None or own.request_id != request_id:
            raise LumaRayRecordError(
                f"Bought, but not on record at {self._ledger.path} any more. Look it up in Segmind's request history.",
                request_id=request_id,
            )
        return own

    def wait(self, record: JobRecord) -> JobRecord:
        """Block until the video is ready, and return the record.

        :raises LumaRayJobFailed: the vendor's FAILED
        :raises LumaRayTimeout: the deadline has passed, or the task was told to stop
        :raises LumaRayResultExpired: the vendor does not know the job any more
        """
        watch = Watch(
            record.luma_ray_conn_id,
            str(record.request_id),
            record.model,
            waited=lambda: _seconds_since(record),
            timeout=self._spec.timeout.total_seconds(),
            poll_interval=self._spec.poll_interval,
        )
        with self._about(record), watch.learning():
            if record.state is RecordState.SUBMITTED and _seconds_since(record) < 1:
                self._pause(watch.delay())
            elif record.state is RecordState.SUBMITTED:
                record = self._ready(record)
            while record.state is RecordState.SUBMITTED:
                status, verdict = watch.look(self._hook)
                waited = _seconds_since(record)
                if verdict is Verdict.WAIT:
                    log.info("%s: %s after %.0f s.", record.request_id, status.state, waited)
                    self._pause(watch.delay())
                else:
                    record = self._settle(record, status, verdict, waited)
        return record

    def _ready(self, record: JobRecord) -> JobRecord:
        """Ask for the result of a job that was waited for before: where it is there, no status call is needed."""
        try:
            result = self._hook.get_result(str(record.request_id))
        except (LumaRayRateLimited, LumaRayUnavailable):
            return record
        if not result.url:
            return record
        status = JobStatus(
            VendorStatus.COMPLETED,
            cost=result.cost,
            remaining_credits=result.remaining_credits,
            output_url=result.url,
        )
        return self._settle(record, status, Verdict.READY, _seconds_since(record))

    def _settle(self, record: JobRecord, status: JobStatus, verdict: Verdict, waited: float) -> JobRecord:
        if verdict is Verdict.READY:
            return self._purchase.note(
                record.moved(
                    RecordState.COMPLETED,
                    completed_at=now(),
                    output_url=status.output_url,
                    cost=status.cost,
                    remaining_credits=status.remaining_credits,
                )
            )
        if verdict is Verdict.FAILED:
            self._purchase.note(record.moved(RecordState.FAILED, error=status.error))
            raise LumaRayJobFailed(
                f"Segmind reports FAILED: {status.error}. That is not billed; a retry submits a new job.",
                request_id=record.request_id,
            )
        if verdict is Verdict.GONE:
            raise self._expired(
                record, f"neither its status nor its history knows the job after {waited:.0f} s"
            )
        raise LumaRayTimeout(
            f"Not ready {waited:.0f} s after the submission (timeout={self._spec.timeout}), last seen "
            f"{status.state}. Bought; the job goes on. On record at {self._ledger.path}: a retry looks again.",
            request_id=record.request_id,
        )

    def deliver(self, record: JobRecord) -> JobRecord:
        """Fetch the video of a job that is ready and put it in its place; return the record.

        :raises LumaRayDeliveryFailed: not this time
        :raises LumaRayResultExpired: the vendor no longer has it
        """
        here = self.output_path
        if record.state is RecordState.DELIVERED and size(self._spec.output) == record.bytes:
            return (
                record
                if record.output_path == here
                else self._ledger.write(replace(record, output_path=here))
            )
        with self._about(record), staged(self._spec.output, self._spec.identity.digest) as part:
            if not record.output_url:
                record, _ = self._locate(record)
            try:
                video = self._download(record, part)
                commit(video.path, self._spec.output)
            except OSError as error:
                raise LumaRayDeliveryFailed(
                    f"The video could not be stored at {self._spec.output}: {error}."
                ) from None
        moved = delivered(record, video)
        log.info("%s: %d bytes at %s.", record.request_id, video.size, self._spec.output)
        log.info("Cost: %s USD; balance after: %s USD.", record.cost, record.remaining_credits)
        return self._ledger.write(replace(moved, output_path=here))

    def _download(self, record: JobRecord, part: Path) -> VideoFile:
        try:
            return self._hook.download_video(str(record.output_url), part)
        except LumaRayDeliveryFailed as error:
            if error.status_code not in _NOT_THERE:
                raise
            log.info("%s: %s Asking for the video's address again.", record.request_id, error)
        record, expired = self._locate(record)
        try:
            return self._hook.download_video(str(record.output_url), part)
        except LumaRayDeliveryFailed as error:
            if expired and error.status_code in _NOT_THERE:
                raise self._expired(record, "its result has expired and its file is gone") from None
            raise

    def _locate(self, record: JobRecord) -> tuple[JobRecord, bool]:
        """Find out where the video is, from the result, or from the history; tell whether the result has expired.

        Within the vendor's hour a 404 proves nothing, so it is asked again, now and by the next attempt.
        """
        if not record.request_id:
            raise self._expired(record, "its file is gone and v1 named no id to ask for it")
        may_be_known = _seconds_since(record) <= RECORD_LIFETIME
        attempt = 0
        while True:
            attempt += 1
            result = self._hook.get_result(record.request_id)
            row = None if result.url else self._hook.find_job(record.request_id)
            url = result.url or (row and row.output_url)
            if url:
                cost = result.cost or (row and row.cost)
                moved = record.moved(
                    RecordState.COMPLETED,
                    output_url=url,
                    cost=record.cost if record.cost is not None else cost,
                    remaining_credits=record.remaining_credits or result.remaining_credits,
                )
                return self._purchase.note(moved), not may_be_known
            if result.state is not VendorStatus.NOT_FOUND:
                break
            if not may_be_known:
                raise self._expired(record, "neither its result nor its history is there")
            delay = backoff(attempt)
            if delay is None:
                raise LumaRayDeliveryFailed(
                    "Segmind says COMPLETED, but neither its result nor its history is there at the moment."
                )
            self._pause(delay)
        self._purchase.note(record.moved(RecordState.COMPLETED, result=result.body))
        raise LumaRayDeliveryFailed(
            "Segmind says COMPLETED, but its reply names no video; the whole reply is in the record."
        )

    def _expired(self, record: JobRecord, why: str) -> LumaRayResultExpired:
        return LumaRayResultExpired(
            f"Bought at {record.started}, and no longer to be had from Segmind: {why}. On record at "
            f"{self._ledger.path}. Airflow will not retry; to buy the clip again, change generation_tag.",
            request_id=record.request_id,
        )

    @contextmanager
    def _about(self, record: JobRecord) -> Iterator[None]:
        """Tell every error of a bought job of it: its id, and what a retry will do."""
        try:
            yield
        except LumaRayError as error:
            if error.request_id:
                raise
            standing = f"The job is bought and on record at {self._ledger.path}; "
            raise error.about(
                record.request_id, standing + "the next attempt re-attaches at no charge."
            ) from None

    def _pause(self, seconds: float) -> None:
        try:
            self._stopped.get(timeout=seconds)
        except Empty:
            return
        raise LumaRayTimeout("The task was told to stop, so the wait ended.")


def _seconds_since(record: JobRecord) -> float:
    return (pendulum.now("UTC") - record.started).total_seconds()
