"""The paid call: its intent on record before it, what became of it on record after it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_luma.exceptions import (
    LumaRayDeliveryFailed,
    LumaRayInsufficientCredits,
    LumaRayRateLimited,
    LumaRayRecordError,
    LumaRayRefused,
    LumaRaySubmitUnknown,
    LumaRayTimeout,
    LumaRayUnavailable,
)
from airflow_provider_luma.jobs.record import IN_FLIGHT, JobRecord, RecordState, now
from airflow_provider_luma.jobs.recovery import find_lost_job
from airflow_provider_luma.media import VideoFile, send_frame, staged
from airflow_provider_luma.segmind.history import body_digest
from airflow_provider_luma.segmind.models import model_info
from airflow_provider_luma.segmind.request import GenerationRequest
from airflow_provider_luma.storage import commit

if TYPE_CHECKING:
    from airflow_provider_luma.hooks.luma_ray import LumaRayHook
    from airflow_provider_luma.jobs.ledger import Ledger
    from airflow_provider_luma.jobs.spec import JobSpec

log = logging.getLogger(__name__)


class Purchase:
    """Buys one task instance's job.

    :param spec: what is asked for
    :param hook: the account
    :param ledger: where the job is on record
    :param pause: waits some seconds
    """

    def __init__(
        self, spec: JobSpec, hook: LumaRayHook, ledger: Ledger, pause: Callable[[float], None]
    ) -> None:
        self._spec = spec
        self._hook = hook
        self._ledger = ledger
        self._pause = pause
        self._may_resubmit = spec.on_unknown_submit == "resubmit"

    def buy(self, revision: int, earlier: tuple[dict[str, Any], ...]) -> JobRecord | None:
        """Buy a job and return its record; None, and nothing bought, where another attempt was quicker.

        :param revision: of the record that this one supersedes; 0 where there is none
        :param earlier: the superseded records, oldest first
        """
        spec = self._spec
        self._check_balance()
        start_frame = None
        if spec.frame:
            model = model_info(spec.request.model)
            start_frame = send_frame(
                spec.frame, spec.frame_transfer, model, self._hook.upload_image, self._hook.reaches
            )
        request = replace(spec.request, start_frame=start_frame)
        api_version = "v2" if spec.api_version == "auto" else spec.api_version
        deadline = time.monotonic() + spec.timeout.total_seconds()
        while True:
            intent = spec.intent(body_sha256=body_digest(request.body()), api_version=api_version)
            intent = replace(intent, revision=revision, superseded=earlier)
            self._hook.reserve()
            own, other = self._ledger.read()
            if (own is not None and own.revision != revision) or (other and other.state in IN_FLIGHT):
                log.warning("Somebody else has written %s meanwhile.", self._ledger.path)
                return None
            try:
                intent = self._ledger.write(intent, before_purchase=True)
            except LumaRayRecordError as error:
                # One copy may have taken it; without this it would pass for a call that was made.
                self.note(replace(intent, state=RecordState.FAILED, error=str(error), revision=revision + 1))
                raise
            try:
                return self._pay(request, intent)
            except LumaRayRateLimited as error:
                # Certainly not bought, and on record as such: the one refusal that passes by waiting.
                wait = error.seconds_to_reset()
                if time.monotonic() + wait > deadline:
                    raise
                log.info("%s Waiting %.0f s.", error, wait)
                self._pause(wait)
            except LumaRayRefused as error:
                if (spec.api_version, api_version) != ("auto", "v2") or error.status_code not in (404, 405):
                    raise
                log.info("Segmind does not have model %r on v2; using v1.", request.model)
                api_version = "v1"
            revision = intent.revision + 1

    def resolve(self, intent: JobRecord, cause: str) -> JobRecord | None:
        """Return the record of the job that a paid call of unknown outcome bought; None as for ``buy``.

        :raises LumaRaySubmitUnknown: it cannot be found, and ``on_unknown_submit`` is not "resubmit"
        :raises LumaRayTimeout: the task was told to stop; the next attempt looks again
        """
        try:
            row = find_lost_job(self._hook, self._ledger, intent, cause, self._pause)
        except (LumaRayTimeout, LumaRayRecordError) as error:
            raise error.about(
                None,
                f"Perhaps a job was bought at {intent.intent_at}; the intent is on record at {self._ledger.path}, and "
                "the next attempt looks for the job again.",
            ) from None
        except LumaRaySubmitUnknown as error:
            if not self._may_resubmit:
                raise
            self._may_resubmit = False
            log.warning("%s on_unknown_submit='resubmit': buying anew.", error)
            return self.buy(intent.revision, intent.history())
        submitted_at = row.created.isoformat() if row.created else now()
        return self.note(
            intent.moved(RecordState.SUBMITTED, request_id=row.request_id, submitted_at=submitted_at)
        )

    def note(self, record: JobRecord) -> JobRecord:
        """Put on record what has happened; where that fails the attempt goes on with what it knows."""
        try:
            return self._ledger.write(record)
        except LumaRayRecordError as error:
            log.error("%s", error)
            return record

    def _check_balance(self) -> None:
        least, price = self._spec.min_remaining_credits, model_info(self._spec.request.model).price
        cost = f"{price} USD" if price is not None else "unknown"
        try:
            balance = self._hook.get_credits().total
        except (LumaRayUnavailable, LumaRayRateLimited) as error:
            if least is not None:
                raise
            log.warning("Balance before: unknown (%s); expected cost: %s.", error, cost)
            return
        log.info("Balance before: %s USD; expected cost: %s.", balance, cost)
        if least is not None and balance - (price or 0) < least:
            raise LumaRayInsufficientCredits(
                f"The balance of {balance} USD less the expected cost ({cost}) is below min_remaining_credits="
                f"{least}. Nothing was bought, and Airflow will not retry: top up the account, then clear the task."
            )

    def _pay(self, request: GenerationRequest, intent: JobRecord) -> JobRecord | None:
        try:
            if intent.api_version == "v1":
                return self._generate(request, intent)
            request_id = self._hook.submit(request)
        except (LumaRayRefused, LumaRayRateLimited, LumaRayUnavailable) as error:
            self.note(intent.moved(RecordState.FAILED, request_id=error.request_id, error=str(error)))
            raise
        except LumaRaySubmitUnknown as error:
            if not error.request_id:
                return self.resolve(intent, str(error))
            request_id = error.request_id
        log.info("%s: submitted to %s.", request_id, request.model)
        return self.note(intent.moved(RecordState.SUBMITTED, request_id=request_id, submitted_at=now()))

    def _generate(self, request: GenerationRequest, intent: JobRecord) -> JobRecord:
        with staged(self._spec.output, self._spec.identity.digest) as part:
            generated = self._hook.generate(request, part)
            log.info("%s: generated by %s on v1.", generated.request_id, request.model)
            paid = replace(
                intent,
                request_id=generated.request_id,
                output_url=generated.url,
                submitted_at=intent.intent_at,
                cost=generated.cost,
                remaining_credits=generated.remaining_credits,
            )
            if generated.request_id or generated.url:
                paid = self.note(paid.moved(RecordState.COMPLETED, completed_at=now()))
            if generated.video is None:
                return paid
            try:
                commit(generated.video.path, self._spec.output)
            except OSError as error:
                raise LumaRayDeliveryFailed(
                    f"The video was bought, but could not be stored at {self._spec.output}: {error}. A retry fetches "
                    "it from Segmind at no charge.",
                    request_id=generated.request_id,
                ) from None
            return self.note(delivered(paid, generated.video))


def delivered(record: JobRecord, video: VideoFile) -> JobRecord:
    """Return the record of a job whose video is in its place."""
    return record.moved(
        RecordState.DELIVERED,
        completed_at=record.completed_at or now(),
        delivered_at=now(),
        bytes=video.size,
        sha256=video.sha256,
    )
