"""The paid call: claims the purchase before it, and records the outcome after it."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_luma.exceptions import (
    LumaRayDeliveryFailed,
    LumaRayError,
    LumaRayInsufficientCredits,
    LumaRayRateLimited,
    LumaRayRecordError,
    LumaRayRefused,
    LumaRaySubmitUnknown,
    LumaRayUnavailable,
)
from airflow_provider_luma.jobs.patience import Patience
from airflow_provider_luma.jobs.record import JobRecord, RecordState
from airflow_provider_luma.jobs.recovery import ended, find_lost_job, is_waiting, longest_call, needs_clock
from airflow_provider_luma.media import Frame, send_frame
from airflow_provider_luma.segmind.history import HistoryEntry, body_digest
from airflow_provider_luma.segmind.models import model_info
from airflow_provider_luma.segmind.money import usd
from airflow_provider_luma.segmind.replies import VendorStatus
from airflow_provider_luma.segmind.request import GenerationRequest

if TYPE_CHECKING:
    from airflow_provider_luma.hooks.luma_ray import LumaRayHook
    from airflow_provider_luma.jobs.ledger import Ledger
    from airflow_provider_luma.jobs.spec import Inputs, JobSpec

log = logging.getLogger(__name__)


class Submission:
    """Buys one task instance's job.

    :param spec: what is asked for
    :param hook: the account
    :param ledger: the job's record
    :param patience: waits out rate limits
    """

    def __init__(self, spec: JobSpec, hook: LumaRayHook, ledger: Ledger, patience: Patience) -> None:
        self._spec = spec
        self._hook = hook
        self._ledger = ledger
        self._patience = patience
        self._may_resubmit = spec.on_unknown_submit == "resubmit"

    def buy(self, inputs: Inputs) -> JobRecord | None:
        """Buy a job and return its record; None if another writer was first: then nothing was bought."""
        spec = self._spec
        self._check_balance(inputs)
        start_frame, is_unique = None, False
        if inputs.frame:
            model = model_info(inputs.request.model)
            start_frame, is_unique = send_frame(
                inputs.frame, spec.frame_transfer, model, self._upload, self._hook.reaches
            )
        request = replace(inputs.request, start_frame=start_frame)
        api_version = "v2" if spec.api_version == "auto" else spec.api_version
        claim_and_pay = partial(self._claim_and_pay, inputs, request, is_unique)
        try:
            # Safe to repeat: a call that got a 429 bought nothing, and is recorded as FAILED.
            return self._patience.past_limit(partial(claim_and_pay, api_version))
        except LumaRayRefused as error:
            if (spec.api_version, api_version) != ("auto", "v2") or error.status_code not in (404, 405):
                raise
            log.info("Segmind does not have model %r on v2; using v1.", request.model)
        return self._patience.past_limit(partial(claim_and_pay, "v1"))

    def _upload(self, frame: Frame) -> str:
        return self._patience.past_limit(lambda: self._hook.upload_image(frame))

    def _claim_and_pay(
        self, inputs: Inputs, request: GenerationRequest, is_unique: bool, api_version: str
    ) -> JobRecord | None:
        self._hook.reserve()
        if needs_clock(api_version, self._hook.submit_timeout) and (silence := self._learn_clock()):
            raise silence  # a call that cannot be dated may later be taken for one that has ended
        now = datetime.now(UTC)
        intent = self._spec.intent(
            inputs,
            body_sha256=body_digest(request.body()),
            body_is_unique=is_unique,
            api_version=api_version,
            at=now,
            called_at=self._hook.vendor_time(now),
        )
        claim = self._claim(intent)
        if claim is None:
            log.warning("Another writer has changed %s; reading it again.", self._ledger.path)
            return None
        return self._pay(request, claim)

    def look_up(self, intent: JobRecord, leaving: JobRecord | None) -> JobRecord | None:
        """Return the record of the job that an earlier attempt's paid call bought; None: read the record again.

        :param leaving: the take that the path belongs to
        :raises LumaRaySubmitUnknown: the job cannot be found, and ``on_unknown_submit`` is not "resubmit"
        :raises LumaRayUnavailable: the call may still be waiting for its answer
        :raises LumaRayTimeout: the task was told to stop; the next attempt searches again
        """
        timeout = self._hook.submit_timeout
        if intent.error is None and needs_clock(intent.api_version, timeout):
            self._learn_clock()
        longest = longest_call(intent.api_version, timeout)
        if is_waiting(intent, self._hook.vendor_now(), longest):
            cause = (
                f"An earlier attempt's paid call of {intent.intent_at} may still be waiting for its answer."
            )
            return self._resolve(intent, cause, leaving=leaving, longest=longest)
        cause = intent.error or ended(intent)
        return self._resolve(self._ended(intent, cause), cause, leaving=leaving)

    def _learn_clock(self) -> LumaRayUnavailable | None:
        """Ask for any reply, if there was none yet: only the vendor's clock can tell how old a call is.

        :return: why there is none
        """
        if self._hook.vendor_time(datetime.now(UTC)) is None:
            try:
                self._hook.get_credits()
            except LumaRayError as error:
                log.info("The vendor's time is not known: %s", error.cause)
                return error if isinstance(error, LumaRayUnavailable) and not error.status_code else None
        return None

    def _ended(self, intent: JobRecord, cause: str) -> JobRecord:
        """Record that a paid call no longer awaits its answer."""
        return self._ledger.note(intent, error=cause)

    def _resolve(
        self,
        intent: JobRecord,
        cause: str,
        *,
        is_own: bool = False,
        hint: str | None = None,
        leaving: JobRecord | None = None,
        longest: timedelta | None = None,
    ) -> JobRecord | None:
        """Find the job of a paid call of unknown outcome, or raise.

        :param is_own: this attempt made the call
        :param hint: an id that may be the job's
        :param longest: another attempt's call may still be waiting for its answer, at most this long
        """
        known = self._ledger.bought
        try:
            found = find_lost_job(
                self._hook,
                self._ledger,
                intent,
                cause,
                self._patience.pause,
                is_own=is_own,
                hint=hint,
                longest=longest,
            )
        except LumaRaySubmitUnknown as error:
            is_ours = intent.luma_ray_conn_id == self._spec.luma_ray_conn_id
            if not self._may_resubmit or not is_ours or error.candidates:
                raise
            self._may_resubmit = False
            self._ledger.read()
            if self._ledger.bought != known:
                return None  # another attempt that searched for it, or another run, has bought one meanwhile
            log.warning("%s on_unknown_submit='resubmit': buying again.", error.cause)
            try:
                return self.buy(self._spec.inputs(intent))
            except LumaRayError as refused:
                if refused.standing:
                    raise
                raise refused.with_context(
                    None,
                    f"No second job was bought. The lost call of {intent.intent_at} may have bought one; it is on "
                    f"record at {self._ledger.path}.",
                ) from None
        except LumaRayError as error:
            raise error.with_context(
                None,
                f"A job may have been bought at {intent.intent_at}. The intent is on record at {self._ledger.path}; "
                "the next attempt searches for the job again.",
            ) from None
        if found is None:
            return None
        log.info(
            "%s: found in the history: the lost call bought it, and no second one is made.", found.request_id
        )
        return self._bought(intent, found.request_id, found, leaving)

    def _claim(self, intent: JobRecord) -> JobRecord | None:
        claim = self._ledger.claim(intent)
        if claim is None:
            return None
        try:
            if self._ledger.confirm(claim):
                return claim
            why = "another attempt has taken over the claim"
        except LumaRayError as error:
            self._ledger.withdraw(claim, str(error))
            raise
        self._ledger.withdraw(claim, why)
        return None

    def _check_balance(self, inputs: Inputs) -> None:
        least, price = self._spec.min_remaining_credits, model_info(inputs.request.model).price
        cost = usd(price)
        if least is None:
            log.info("Expected cost: %s.", cost)
            return
        balance = self._patience.past_limit(self._hook.get_credits).total
        reserved = self._in_flight()
        log.info(
            "Balance before: %s, %s of it for jobs in flight; expected cost: %s.",
            usd(balance),
            usd(reserved),
            cost,
        )
        if balance - reserved - (price or 0) < least:
            raise LumaRayInsufficientCredits(
                f"The balance of {usd(balance)} less {usd(reserved)} for jobs in flight and the expected cost ({cost}) "
                f"is below min_remaining_credits={least}.",
                remedy="Top up the account, then clear the task.",
            )

    def _in_flight(self) -> Decimal:
        """Return what the account's jobs in flight will cost, going by the newest page of its history."""
        try:
            rows = self._hook.newest_jobs()
        except LumaRayError as error:
            log.info("The jobs in flight are unknown: %s", error.cause)
            return Decimal(0)
        running = [row.model for row in rows if row.state in (VendorStatus.QUEUED, VendorStatus.PROCESSING)]
        return sum((model_info(model).price or Decimal(0) for model in running), Decimal(0))

    def _pay(self, request: GenerationRequest, claim: JobRecord) -> JobRecord | None:
        try:
            if claim.api_version == "v1":
                return self._generate(request, claim)
            request_id = self._hook.submit(request)
        except (LumaRayRefused, LumaRayRateLimited, LumaRayUnavailable) as error:
            self._ledger.note(claim, state=RecordState.FAILED, request_id=error.request_id, error=error.cause)
            raise
        except LumaRaySubmitUnknown as error:
            if not error.request_id:
                ended = self._ended(claim, error.cause)
                return self._resolve(ended, error.cause, is_own=True, hint=error.hint)
            request_id = error.request_id
        log.info("%s: submitted to %s.", request_id, request.model)
        return self._bought(claim, request_id)

    def _bought(
        self,
        take: JobRecord,
        request_id: str,
        found: HistoryEntry | None = None,
        leaving: JobRecord | None = None,
    ) -> JobRecord:
        """Record the id of a bought job; if that fails, carry on with what is known."""
        at = found.created if found and found.created else self._hook.vendor_now()
        return self._ledger.note(
            take,
            leaving=leaving,
            state=RecordState.SUBMITTED,
            request_id=request_id,
            submitted_at=at.isoformat(),
            error=None,
            cleared=self._spec.cleared.or_later(take.cleared),
        )

    def _generate(self, request: GenerationRequest, claim: JobRecord) -> JobRecord:
        from airflow_provider_luma.jobs.delivery import place

        with ExitStack() as stack:
            try:
                part = stack.enter_context(self._spec.output.staged(f"{claim.identity.digest}.{claim.claim}"))
            except OSError as error:
                self._ledger.withdraw(claim, str(error))
                raise LumaRayRecordError(f"This worker cannot store the video: {error}.") from None
            was_taken = self._is_taken(claim)
            generated = self._hook.generate(request, part)
            log.info(
                "%s: generated by %s on v1.", generated.request_id or "A job without an id", request.model
            )
            paid = self._ledger.note(
                claim,
                state=RecordState.COMPLETED,
                request_id=generated.request_id,
                output_url=generated.url,
                submitted_at=claim.intent_at,
                completed_at=self._hook.vendor_now().isoformat(),
                cost=generated.cost,
                remaining_credits=generated.remaining_credits,
            )
            if generated.video is None:
                return paid
            output, is_taken = self._spec.output, not was_taken and self._is_taken(claim)
            if is_taken:  # v1 sends the video only once
                output = output.beside(f".{claim.claim[:8]}.mp4")
            try:
                delivered = place(self._ledger, output, paid, generated.video, self._hook.vendor_now())
            except OSError as error:
                raise LumaRayDeliveryFailed(
                    f"The video could not be stored at {output}: {error}.", request_id=generated.request_id
                ) from None
            except LumaRayRecordError as error:
                raise error.with_context(
                    generated.request_id, f"The job is bought, and its video is at {output}."
                ) from None
            if is_taken:
                raise LumaRayDeliveryFailed(
                    f"Its path {str(self._spec.output)!r} has a file by now, and if_exists={self._spec.if_exists!r}; "
                    f"the video is at {output}.",
                    request_id=generated.request_id,
                    remedy="Move that file away; the next attempt copies the video there.",
                )
            return delivered

    def _is_taken(self, claim: JobRecord) -> bool:
        """Whether there is a file at the path that is not to be overwritten if it appears during the paid call.

        A retry may have fetched this very job's video in the meantime.
        """
        try:
            if self._spec.if_exists == "overwrite" or self._spec.output.look() is None:
                return False
            takes = self._ledger.read().takes
            return not any(one.key == claim.key and one.state is RecordState.DELIVERED for one in takes)
        except Exception as error:
            log.info("%s cannot be looked at: %s", self._spec.output, error)
            return False
