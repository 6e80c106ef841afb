"""Finds a bought job's video and fetches it: where it was delivered before, or by the vendor's URL."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_luma.exceptions import (
    LumaRayDeliveryFailed,
    LumaRayError,
    LumaRayJobFailed,
    LumaRayResultExpired,
    LumaRaySubmitUnknown,
)
from airflow_provider_luma.hooks.backoff import backoff
from airflow_provider_luma.jobs.advice import command, give_up
from airflow_provider_luma.jobs.record import JobRecord, RecordState
from airflow_provider_luma.jobs.recovery import Judgement, judge
from airflow_provider_luma.media import VideoFile
from airflow_provider_luma.segmind.history import HistoryEntry
from airflow_provider_luma.segmind.ids import is_same_id
from airflow_provider_luma.segmind.polling import RECORD_LIFETIME
from airflow_provider_luma.segmind.replies import JobResult, VendorStatus
from airflow_provider_luma.storage import StoredFile, open_file

if TYPE_CHECKING:
    from airflow_provider_luma.hooks.luma_ray import LumaRayHook
    from airflow_provider_luma.jobs.ledger import Ledger
    from airflow_provider_luma.jobs.patience import Patience

#: HTTP statuses with which a file host says that it does not have the video.
_NOT_THERE = (403, 404, 410)

log = logging.getLogger(__name__)


class VideoSource:
    """The places where a bought job's video may be.

    :param output: where the video goes
    :param hook: the account that bought the job
    :param ledger: the job's record
    :param patience: waits out rate limits
    :param result: the job's result, if a poll has just read it
    """

    def __init__(
        self,
        output: StoredFile,
        hook: LumaRayHook,
        ledger: Ledger,
        patience: Patience,
        result: JobResult | None = None,
    ) -> None:
        self._output = output
        self._hook = hook
        self._ledger = ledger
        self._patience = patience
        self._result = result

    def copy(self, take: JobRecord, part: Path) -> VideoFile | None:
        """Copy the video from where it was delivered before, if it is still there."""
        if take.output_path == str(self._output) or take.sha256 is None or take.bytes is None:
            return None
        try:
            elsewhere = open_file(take.output_path)
            if not elsewhere.holds(take.bytes, take.sha256, take.mark) or not elsewhere.fetch(part):
                return None
        except Exception as error:
            log.info("%s: not available from %s (%s).", take.name, take.output_path, error)
            return None
        log.info("%s: copied from %s.", take.name, take.output_path)
        return VideoFile.of(part)

    def fetch(self, take: JobRecord, part: Path) -> tuple[JobRecord, VideoFile]:
        """Download the video, and return its take with what is known of it now.

        :raises LumaRayDeliveryFailed: not this time
        :raises LumaRayResultExpired: the vendor no longer has it
        """
        if not take.output_url:
            take, _ = self._locate(take)
        try:
            return take, self._download(take, part)
        except LumaRayDeliveryFailed as error:
            if error.status_code not in _NOT_THERE:
                raise
            log.info("%s: %s Asking for the video's URL again.", take.name, error.cause)
        take, expired = self._locate(take)
        try:
            return take, self._download(take, part)
        except LumaRayDeliveryFailed as error:
            if expired and error.status_code in _NOT_THERE:
                raise self.expired(take, "its result has expired and its file is gone") from None
            raise

    def _download(self, take: JobRecord, part: Path) -> VideoFile:
        rest = self._output.rest(take.identity.digest)
        return self._hook.download_video(str(take.output_url), part, rest)

    def _locate(self, take: JobRecord) -> tuple[JobRecord, bool]:
        """Find the video's URL, in the result or in the history; also return whether the result has expired.

        Within the vendor's hour a 404 proves nothing, so this attempt asks again, and so does the next.
        """
        if not take.request_id:
            take, judgement = self._found_by_body(take)
            if judgement.row is None:
                raise self._unidentified(take, judgement)
        attempt = 0
        while True:
            attempt += 1
            result, self._result = self._result or self._result_of(str(take.request_id)), None
            may_be_known = take.age(self._hook.vendor_now()) <= RECORD_LIFETIME  # by the clock of that reply
            row = None if result.url else self._hook.find_job(str(take.request_id))
            if not result.url and row is None and not may_be_known:
                row = self.listed(take)
            url = result.url or (row and row.output_url)
            if url:
                cost = result.cost or (row and row.cost)
                is_delivered = take.state is RecordState.DELIVERED  # and its file is gone or damaged
                moved = self._ledger.note(
                    take,
                    state=RecordState.DELIVERED if is_delivered else RecordState.COMPLETED,
                    output_url=url,
                    cost=take.cost if take.cost is not None else cost,
                    remaining_credits=take.remaining_credits or result.remaining_credits,
                )
                return moved, not may_be_known
            if result.state is VendorStatus.FAILED:
                self._ledger.note(take, state=RecordState.FAILED, error="its result says FAILED")
                raise LumaRayJobFailed("Segmind reports FAILED in place of a result.")
            if result.state is not VendorStatus.NOT_FOUND:
                break
            if take.api_version == "v1" and attempt == 1:
                # The id from v1 may have been a gateway's.
                take, judgement = self._found_by_body(take)
                if take.output_url:
                    return take, not may_be_known
                if judgement.candidates and not may_be_known:
                    raise self._unidentified(take, judgement)
            if not may_be_known:
                raise self.expired(take, "neither its result nor its history entry exists")
            delay = backoff(attempt)
            if delay is None:
                raise LumaRayDeliveryFailed(
                    "Segmind says COMPLETED, but currently has neither its result nor its history entry."
                )
            self._patience.pause(delay)
        self._ledger.note(take, state=RecordState.COMPLETED, result=result.body)
        raise LumaRayDeliveryFailed(
            "Segmind says COMPLETED, but its reply names no video; the whole reply is in the record."
        )

    def _result_of(self, request_id: str) -> JobResult:
        return self._patience.past_limit(lambda: self._hook.get_result(request_id))

    def listed(self, take: JobRecord) -> HistoryEntry | None:
        """Return the job's row in the history's list: a 404 of the calls for a single job may be a gateway's."""
        rows = self._hook.find_jobs(take.model, take.started)
        return next((row for row in rows if is_same_id(take.request_id, row.request_id)), None)

    def _found_by_body(self, take: JobRecord) -> tuple[JobRecord, Judgement]:
        """Return the take with the id that the history has for its body, if that is certain."""
        rows = self._hook.find_jobs(take.model, take.started)
        beside = [] if take.body_is_unique else self._ledger.neighbours(take.earliest)
        takes = (*self._ledger.read().takes, *(one for record in beside for one in record.takes))
        judgement = judge(rows, take, takes, is_last=True, now=self._hook.vendor_now())
        if (row := judgement.row) is not None:
            known: dict[str, Any] = {"output_url": row.output_url or take.output_url}
            if take.request_id and not is_same_id(take.request_id, row.request_id):
                known["answered_id"] = take.request_id
            take = self._ledger.note(take, request_id=row.request_id, **known)
        return take, judgement

    def _unidentified(self, take: JobRecord, judgement: Judgement) -> LumaRayError:
        """Return the error of a clip whose job v1 did not name, and the history does not tell."""
        if judgement.is_absent and take.age(self._hook.vendor_now()) > RECORD_LIFETIME:
            return self.expired(take, "its file is gone, and v1 returned no id to look it up by")
        if judgement.is_absent:
            return LumaRayDeliveryFailed(
                "v1 returned no id to look the job up by, and the history does not show it yet."
            )
        of = None if self._ledger.current_key == take.key else take.identity
        named = f"the id {take.request_id}, which may be a gateway's" if take.request_id else "no id"
        return LumaRaySubmitUnknown(
            f"v1 returned {named}, to look the job up by. {judgement.finding}.",
            remedy="Tell which of them is this clip's, then clear the task:\n"
            f"  {command('adopt', self._output, '--call', take.intent_at, of=of)} <request id>",
        ).with_context(None, f"The job was bought; on record at {self._ledger.path}. Airflow will not retry.")

    def expired(self, take: JobRecord, why: str) -> LumaRayResultExpired:
        """Return the error of a video that the vendor no longer has."""
        of = None if self._ledger.current_key == take.key else take.identity
        return LumaRayResultExpired(
            f"Bought at {take.started}, and no longer available from Segmind: {why}.",
            request_id=take.request_id,
            remedy=(
                "To buy the clip again, give this one up, then clear the task:\n"
                f"  {give_up(self._output, take, of=of)}"
            ),
        ).with_context(
            take.request_id, f"The job was bought; on record at {self._ledger.path}. Airflow will not retry."
        )
