"""The life of one paid job: ensure it is bought, wait, deliver. Blocking, deferred and re-attached jobs share it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from airflow_provider_luma.exceptions import (
    LumaRayConfigurationError,
    LumaRayDeliveryFailed,
    LumaRayError,
    LumaRayJobFailed,
    LumaRayRecordError,
    LumaRayResultExpired,
    LumaRaySubmitUnknown,
    LumaRaySuperseded,
    LumaRayTimeout,
    LumaRayUnavailable,
)
from airflow_provider_luma.hooks.backoff import backoff
from airflow_provider_luma.hooks.limiter import Rank
from airflow_provider_luma.jobs.advice import command
from airflow_provider_luma.jobs.decision import Action, Decision, Place, decide, location
from airflow_provider_luma.jobs.delivery import is_in_place, place
from airflow_provider_luma.jobs.ledger import MAX_ROUNDS, Ledger, Standing
from airflow_provider_luma.jobs.patience import Patience
from airflow_provider_luma.jobs.polling import JobPoller
from airflow_provider_luma.jobs.record import JobRecord, RecordState
from airflow_provider_luma.jobs.recovery import Judgement, judge
from airflow_provider_luma.jobs.submit import Submission
from airflow_provider_luma.media import VideoFile, is_mp4_head
from airflow_provider_luma.segmind.history import HistoryEntry
from airflow_provider_luma.segmind.ids import is_same_id
from airflow_provider_luma.segmind.money import usd
from airflow_provider_luma.segmind.polling import RECORD_LIFETIME, Verdict
from airflow_provider_luma.segmind.replies import JobResult, JobStatus, VendorStatus
from airflow_provider_luma.storage import StoredFile, is_lasting, open_file, permission_hint

if TYPE_CHECKING:
    from airflow_provider_luma.hooks.luma_ray import LumaRayHook
    from airflow_provider_luma.jobs.spec import Inputs, JobSpec

#: HTTP statuses with which a file host says that it does not have the video.
_NOT_THERE = (403, 404, 410)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reused:
    """A video found at the path and returned unchanged, bought by another task instance or by nobody on record.

    :param take: its record; None if it has none
    """

    path: str
    take: JobRecord | None


class Job:
    """One attempt at a task instance's job.

    :param spec: what is asked for
    :param hook: the account
    :param ledger: the job's record
    :param stopped: an item in it means that the task was told to stop, and ends a wait at once; unlike an Event it is
        safe to fill from a signal handler
    :param bought: called with a take as soon as its id is on record
    :param clock: a monotonic clock, in seconds
    """

    def __init__(
        self,
        spec: JobSpec,
        hook: LumaRayHook,
        ledger: Ledger,
        stopped: SimpleQueue[None],
        bought: Callable[[JobRecord], None] = lambda take: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spec = spec
        self._hook = hook
        self._ledger = ledger
        self._stopped = stopped
        self._bought = bought
        self._clock = clock
        self._patience = Patience(spec.timeout.total_seconds(), self._pause, clock)
        self._submission = Submission(spec, hook, ledger, self._patience)
        #: Whether this attempt bought the job.
        self.is_new = False
        self._leaving: JobRecord | None = None
        self._result: JobResult | None = None

    def ensure_bought(self) -> JobRecord | Reused:
        """Return the take to wait for, bought only if none is on record, or the video to reuse."""
        for _ in range(MAX_ROUNDS):
            found = self._find_or_buy()
            if found is not None:
                if isinstance(found, JobRecord):
                    self._bought(found)
                return found
        raise LumaRayRecordError(
            f"Another writer changed the job's record at {self._ledger.path} before this attempt could, {MAX_ROUNDS} "
            "times in a row."
        )

    def _find_or_buy(self) -> JobRecord | Reused | None:
        spec = self._spec
        standing = self._ledger.read()
        inputs = self._inputs(standing.own)
        decision = decide(
            standing,
            self._look(standing),
            identity=spec.identity,
            cleared=spec.cleared,
            fingerprint=spec.fingerprint(inputs) if inputs else None,
            output_path=str(spec.output),
            if_exists=spec.if_exists,
        )
        take = decision.take
        self._tell(decision)
        if take is not None and decision.action is not Action.REUSE:
            self._use_account_of(take)
        if decision.action is Action.REUSE:
            return self._reused(take)
        if decision.action is Action.CHECK_FAILED and take is not None:
            take = self._asked_again(take, standing)
            if take.state is not RecordState.FAILED:
                return take
        if decision.action in (Action.BUY, Action.CHECK_FAILED) or take is None:
            inputs = inputs or spec.inputs(None)  # raises if they are wrong
            self.is_new = True
            return self._submission.buy(inputs)
        if decision.action is Action.LOOK_UP:
            submission = Submission(spec, self._hook, self._ledger, self._patience)
            found = submission.look_up(take, standing.current)
            if found is not None:
                self._free_earlier_path(take)
            return found
        return self._taken_up(standing, take, is_returned=decision.action is Action.RETURN)

    def _inputs(self, own: JobRecord | None) -> Inputs | None:
        """Return the checked inputs; None if they are no longer valid but a retry has a bought job to finish."""
        is_bought = own is not None and (own.is_in_flight or own.state is RecordState.DELIVERED)
        try:
            return self._spec.inputs(own)
        except (LumaRayConfigurationError, LumaRayUnavailable) as error:
            if own is None or not is_bought or not self._spec.identity.is_of_task:
                raise
            if self._spec.cleared.is_cleared_since(own.cleared):
                raise error.with_context(
                    None, f"Nothing new was bought; {_named(own)} stays on record at {self._ledger.path}."
                ) from None
            log.warning("%s Ignored for now: %s is finished first.", error.cause, _named(own))
            return None

    def _look(self, standing: Standing) -> Place:
        """Return what is at the video's path."""
        output = self._spec.output
        try:
            seen = output.look()
            if seen is None or seen.is_folder:
                return Place(is_taken=False)
            likely = [standing.current, standing.own, *reversed(standing.takes)]
            delivered = (take for take in likely if take is not None and take.bytes == seen.size)
            return Place(is_taken=True, holds=next((t for t in delivered if is_in_place(t, output)), None))
        except LumaRayError:
            raise
        except Exception as error:
            raise LumaRayRecordError(
                f"output_path {str(output)!r} cannot be checked: {error}{permission_hint(error)}."
            ) from None

    def _tell(self, decision: Decision) -> None:
        if decision.take is not None and decision.inputs_left_aside:
            log.warning(
                "The inputs have changed since %s was bought. A retry finishes what was bought; to buy a clip for the "
                "new inputs, clear the task once this one is done.",
                _named(decision.take),
            )
        if decision.leaves is not None:
            log.warning(
                "The inputs have changed and the task was cleared, so another clip is bought. %s was bought before and "
                "never delivered; it stays on record at %s.",
                _named(decision.leaves),
                self._ledger.path,
            )

    def _reused(self, take: JobRecord | None) -> Reused:
        output = self._spec.output
        if take is None and not is_mp4_head(output.read(8) or b""):
            raise LumaRayConfigurationError(
                f"The file at output_path {str(output)!r} is not an MP4, so if_exists={self._spec.if_exists!r} cannot "
                "use it.",
                remedy="Move it away, or set if_exists='overwrite'.",
            )
        log.info("%s already exists and is reused; nothing is bought.", output)
        return Reused(str(output), take)

    def _asked_again(self, take: JobRecord, standing: Standing) -> JobRecord:
        """Check a FAILED job once more before buying another; the call is free."""
        status = self._patience.past_limit(lambda: self._hook.get_status(str(take.request_id), Rank.URGENT))
        if status.state is VendorStatus.NOT_FOUND:
            row = self._hook.find_job(str(take.request_id))
            status = status if row is None else row.status()
        if status.state in (VendorStatus.FAILED, VendorStatus.NOT_FOUND):
            return take
        if status.state is VendorStatus.UNKNOWN:
            raise LumaRayUnavailable(
                f"The job FAILED before, but now its status cannot be read. Nothing is bought until it is certain that "
                f"{take.request_id} failed.",
                request_id=take.request_id,
            )
        log.warning("%s: FAILED before, but now %s; re-attaching.", take.request_id, status.state)
        cleared = self._spec.cleared.or_later(take.cleared)
        return self._ledger.advance(
            take, leaving=standing.current, state=RecordState.SUBMITTED, error=None, cleared=cleared
        )

    def _taken_up(self, standing: Standing, take: JobRecord, *, is_returned: bool) -> JobRecord:
        """Re-attach this attempt to a bought take, and give the take the path."""
        changes: dict[str, object] = {"cleared": self._spec.cleared.or_later(take.cleared), "moved_to": None}
        if take.is_in_flight and take.sha256 is None:  # else its video may be at the path on record
            changes["output_path"] = str(self._spec.output)
        if is_returned:
            log.info("%s: already delivered, and still there; nothing is bought.", take.request_id)
        else:
            log.info(
                "%s: already bought, now %s; re-attaching, nothing is bought.", take.request_id, take.state
            )
            if take.state is RecordState.DELIVERED and standing.other is None:
                changes["state"] = RecordState.COMPLETED
        self._leaving = standing.current
        # Another task instance's video keeps the path until this one is fetched: the vendor may no longer have it.
        leaving = None if standing.other else standing.current
        taken = self._ledger.note(take, leaving=leaving, **changes)
        if not standing.other and self._ledger.current_key not in (None, take.key):
            raise LumaRayDeliveryFailed(
                f"Another task instance has taken its path {str(self._spec.output)!r} since.",
                request_id=take.request_id,
            )
        self._free_earlier_path(take)
        return taken

    def _free_earlier_path(self, take: JobRecord) -> None:
        """Tell the record at a path that the task's output_path led to before that this job has moved on."""
        here = str(self._spec.output)
        known = {os.path.realpath(location(path)): path for path in (take.moved_to, take.output_path) if path}
        known.pop(os.path.realpath(location(here)), None)
        for path in known.values() if take.is_in_flight else ():
            try:
                earlier = Ledger(take.identity, open_file(path), None)
                left = next(
                    (one for one in earlier.read().takes if one.key == take.key and one.is_in_flight), None
                )
                if left is not None:
                    earlier.advance(left, moved_to=here)
            except Exception as error:
                log.info("%s: still on record at its earlier path %s: %s", take.request_id, path, error)

    def recorded(self, request_id: str) -> JobRecord:
        """Return the take of a job bought before this attempt was deferred; a lost record is rebuilt.

        :raises LumaRaySuperseded: the task was cleared while it waited, and its path has a newer job by now
        :raises LumaRayConfigurationError: a person has given the job up
        """
        standing = self._ledger.read()
        take = next((take for take in standing.takes if take.request_id == request_id), None)
        if take is not None:
            self._refuse_obsolete(take, standing)
            self._leaving = None if standing.other and standing.other.is_in_flight else standing.current
            self._use_account_of(take)
            return take
        log.warning("%s: no longer on record at %s; the record is rebuilt.", request_id, self._ledger.path)
        row = self._hook.find_job(request_id)
        created = row.created if row and row.created else self._hook.vendor_now()
        try:
            inputs: Inputs | None = self._spec.inputs(None)
        except LumaRayError as error:
            log.warning("%s The job is delivered anyway.", error.cause)
            inputs = None
        return self._ledger.note(
            JobRecord(
                state=RecordState.SUBMITTED,
                identity=self._spec.identity,
                claim=request_id,
                cleared=self._spec.cleared,
                fingerprint=self._spec.fingerprint(inputs) if inputs else "",
                luma_ray_conn_id=self._spec.luma_ray_conn_id,
                model=inputs.request.model if inputs else row.model if row else "",
                parameters=inputs.parameters if inputs else {},
                body_sha256=row.body_sha256 if row and row.body_sha256 else "",
                api_version="v2",
                output_path=str(self._spec.output),
                intent_at=created.isoformat(),
                submitted_at=created.isoformat(),
                request_id=request_id,
            )
        )

    def _refuse_obsolete(self, take: JobRecord, standing: Standing) -> None:
        """Deliver nothing that the task, or a person, no longer wants."""
        if take.state is RecordState.GIVEN_UP:
            raise LumaRayConfigurationError(
                "A person gave this job up while the task waited for it.",
                request_id=take.request_id,
                remedy="To buy another clip, clear the task.",
            ).with_context(
                take.request_id, f"The job is on record at {self._ledger.path}. Nothing else was bought."
            )
        current = standing.current
        is_own = current is not None and current.identity == take.identity
        if current is not None and is_own and current.key != take.key and not current.bought_nothing:
            raise LumaRaySuperseded(
                f"The task was cleared while it waited for this job, and its path now belongs to {_named(current)}.",
                request_id=take.request_id,
            ).with_context(take.request_id, f"Both jobs are on record at {self._ledger.path}.")

    def _use_account_of(self, take: JobRecord) -> None:
        """Use the connection that bought the take, even if the task has another one by now."""
        if take.luma_ray_conn_id != self._spec.luma_ray_conn_id:
            from airflow_provider_luma.hooks.luma_ray import LumaRayHook

            log.warning(
                "%s was bought with connection %r, which is used.", _named(take), take.luma_ray_conn_id
            )
            self._hook = LumaRayHook(take.luma_ray_conn_id)

    def wait(self, take: JobRecord, *, is_patient: bool = True) -> JobRecord:
        """Block until the video is ready, and return the take.

        :param is_patient: False: poll once, and return even if the job is still running
        :raises LumaRayJobFailed: the vendor's FAILED
        :raises LumaRayTimeout: the deadline has passed, or the task was told to stop
        :raises LumaRayResultExpired: the vendor no longer knows the job
        """
        with self._context(take):
            return self._waited_for(take, is_patient)

    def _waited_for(self, take: JobRecord, is_patient: bool) -> JobRecord:
        poller = JobPoller(
            str(take.request_id),
            take.model,
            waited=lambda: self._seconds_since(take),
            timeout=self._spec.timeout.total_seconds(),
            poll_interval=self._spec.poll_interval,
            clock=self._clock,
        )
        limiter = self._hook.limiter
        with limiter.waiting():
            # For a re-attached job ask for the result first: one call gives both status and URL.
            ask = poller.poll if self.is_new else poller.poll_result
            if take.state is RecordState.SUBMITTED and self.is_new:
                self._pause(poller.delay(limiter.spacing()))
            while take.state is RecordState.SUBMITTED:
                status, verdict = ask(self._hook)
                ask = poller.poll
                waited = self._seconds_since(take)
                if verdict is Verdict.WAIT:
                    log.info("%s: %s after %.0f s.", take.request_id, status.state, waited)
                    if not is_patient:
                        break
                    self._pause(poller.delay(limiter.spacing()))
                else:
                    take = self._settle(take, status, verdict, waited)
            self._result = poller.result
        return take

    def _settle(self, take: JobRecord, status: JobStatus, verdict: Verdict, waited: float) -> JobRecord:
        if verdict is Verdict.READY:
            return self._ledger.note(
                take,
                state=RecordState.COMPLETED,
                completed_at=self._hook.vendor_now().isoformat(),
                output_url=status.output_url or take.output_url,
                cost=status.cost if take.cost is None else take.cost,
                remaining_credits=status.remaining_credits,
            )
        if verdict is Verdict.FAILED:
            self._ledger.note(take, state=RecordState.FAILED, error=status.error)
            raise LumaRayJobFailed(f"Segmind reports FAILED: {status.error}.", request_id=take.request_id)
        if verdict is Verdict.GONE:
            row = self._listed(take)
            if row is None:
                raise self._expired(
                    take, f"neither the status call nor the history knows the job after {waited:.0f} s"
                )
            if row.state in (VendorStatus.COMPLETED, VendorStatus.FAILED):
                ended = Verdict.READY if row.state is VendorStatus.COMPLETED else Verdict.FAILED
                return self._settle(take, row.status(), ended, waited)
            raise LumaRayUnavailable(
                f"The history's list has the job ({row.state}), but no other call finds it."
            )
        raise LumaRayTimeout(
            f"Not ready {waited:.0f} s after the submission (timeout={self._spec.timeout}), last seen {status.state}.",
        )

    def deliver(self, take: JobRecord) -> JobRecord:
        """Fetch the video of a completed job, move it into place, and return the take.

        :raises LumaRayDeliveryFailed: not this time; a retry fetches it again
        :raises LumaRayResultExpired: the vendor no longer has it
        """
        output = self._spec.output
        tag = f"{self._spec.identity.digest}.{self._ledger.attempt}"
        with self._context(take):
            try:
                if is_in_place(take, output):
                    return self._returned(take)
                self._refuse_taken_path()
                with output.staged(tag) as part:
                    video = self._copied(take, part)
                    if video is None:
                        take, video = self._fetched(take, part)
                    take = self._with_path(take)
                    delivered = place(self._ledger, output, take, video, self._hook.vendor_now())
            except OSError as error:
                raise LumaRayDeliveryFailed(f"The video could not be stored at {output}: {error}.") from None
        log.info("Cost: %s; balance after: %s.", usd(delivered.cost), usd(delivered.remaining_credits))
        return delivered

    def _refuse_taken_path(self) -> None:
        """Protect a file that appeared at the path after the purchase, under ``if_exists`` "fail" and "keep"."""
        if self._spec.if_exists not in ("fail", "keep"):
            return
        place = self._look(self._ledger.read())
        is_own = place.holds is not None and place.holds.identity == self._spec.identity
        if place.is_taken and not is_own:
            raise LumaRayDeliveryFailed(
                f"Its path {str(self._spec.output)!r} has a file by now, and if_exists={self._spec.if_exists!r}.",
                remedy="Move that file away; the next attempt delivers the video.",
            )

    def _returned(self, take: JobRecord) -> JobRecord:
        """Return the take of a video that is already in place, recorded as delivered there."""
        here = str(self._spec.output)
        if take.state is RecordState.DELIVERED and take.output_path == here:
            return take
        now = self._hook.vendor_now().isoformat()
        return self._ledger.note(
            self._with_path(take),
            state=RecordState.DELIVERED,
            output_path=here,
            completed_at=take.completed_at or now,
            delivered_at=take.delivered_at or now,
        )

    def _with_path(self, take: JobRecord) -> JobRecord:
        """Give the path to the take, now that its video is here."""
        if self._ledger.current_key in (None, take.key):
            return take
        taken = self._ledger.note(take, leaving=self._leaving, state=RecordState.COMPLETED)
        if self._ledger.current_key != take.key:
            raise LumaRayDeliveryFailed(
                f"Another task instance has taken its path {str(self._spec.output)!r} since.",
                request_id=take.request_id,
            )
        return taken

    def _copied(self, take: JobRecord, part: Path) -> VideoFile | None:
        """Copy the video from where it was delivered before, if it is still there."""
        if take.output_path == str(self._spec.output) or take.sha256 is None or take.bytes is None:
            return None
        try:
            elsewhere = open_file(take.output_path)
            if not elsewhere.holds(take.bytes, take.sha256, take.mark) or not elsewhere.fetch(part):
                return None
        except Exception as error:
            log.info("%s: not available from %s (%s).", take.request_id, take.output_path, error)
            return None
        log.info("%s: copied from %s.", take.request_id, take.output_path)
        return VideoFile.of(part)

    def _fetched(self, take: JobRecord, part: Path) -> tuple[JobRecord, VideoFile]:
        if not take.output_url:
            take, _ = self._locate(take)
        try:
            return take, self._download(take, part)
        except LumaRayDeliveryFailed as error:
            if error.status_code not in _NOT_THERE:
                raise
            log.info("%s: %s Asking for the video's URL again.", take.request_id, error.cause)
        take, expired = self._locate(take)
        try:
            return take, self._download(take, part)
        except LumaRayDeliveryFailed as error:
            if expired and error.status_code in _NOT_THERE:
                raise self._expired(take, "its result has expired and its file is gone") from None
            raise

    def _download(self, take: JobRecord, part: Path) -> VideoFile:
        rest = self._spec.output.rest(self._spec.identity.digest)
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
            may_be_known = self._seconds_since(take) <= RECORD_LIFETIME  # by the clock of that reply
            row = None if result.url else self._hook.find_job(str(take.request_id))
            if not result.url and row is None and not may_be_known:
                row = self._listed(take)
            url = result.url or (row and row.output_url)
            if url:
                cost = result.cost or (row and row.cost)
                moved = self._ledger.note(
                    take,
                    state=RecordState.COMPLETED,
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
                take, _ = self._found_by_body(take)
                if take.output_url:
                    return take, not may_be_known
            if not may_be_known:
                raise self._expired(take, "neither its result nor its history entry exists")
            delay = backoff(attempt)
            if delay is None:
                raise LumaRayDeliveryFailed(
                    "Segmind says COMPLETED, but currently has neither its result nor its history entry."
                )
            self._pause(delay)
        self._ledger.note(take, state=RecordState.COMPLETED, result=result.body)
        raise LumaRayDeliveryFailed(
            "Segmind says COMPLETED, but its reply names no video; the whole reply is in the record."
        )

    def _result_of(self, request_id: str) -> JobResult:
        return self._patience.past_limit(lambda: self._hook.get_result(request_id))

    def _listed(self, take: JobRecord) -> HistoryEntry | None:
        """Return the job's row in the history's list: a 404 of the calls for a single job may be a gateway's."""
        rows = self._hook.find_jobs(take.model, take.started)
        return next((row for row in rows if is_same_id(take.request_id, row.request_id)), None)

    def _found_by_body(self, take: JobRecord) -> tuple[JobRecord, Judgement]:
        """Return the take with the id that the history has for its body, if that is certain."""
        rows = self._hook.find_jobs(take.model, take.started)
        beside = [] if take.body_is_unique else self._ledger.neighbours(take.started)
        takes = (*self._ledger.read().takes, *(one for record in beside for one in record.takes))
        judgement = judge(rows, take, takes, is_last=True, now=self._hook.vendor_now())
        if (row := judgement.row) is not None:
            url = row.output_url or take.output_url
            take = self._ledger.note(take, request_id=row.request_id, output_url=url)
        return take, judgement

    def _unidentified(self, take: JobRecord, judgement: Judgement) -> LumaRayError:
        """Return the error of a clip whose job v1 did not name, and the history does not tell."""
        if judgement.is_absent and self._seconds_since(take) > RECORD_LIFETIME:
            return self._expired(take, "its file is gone, and v1 returned no id to look it up by")
        if judgement.is_absent:
            return LumaRayDeliveryFailed(
                "v1 returned no id to look the job up by, and the history does not show it yet."
            )
        of = None if self._ledger.current_key == take.key else take.identity
        return LumaRaySubmitUnknown(
            f"v1 returned no id to look the job up by. {judgement.finding}.",
            remedy="Tell which of them is this clip's, then clear the task:\n"
            f"  {command('adopt', self._spec.output, of=of)} <request id>",
        ).with_context(None, f"The job was bought; on record at {self._ledger.path}. Airflow will not retry.")

    def _expired(self, take: JobRecord, why: str) -> LumaRayResultExpired:
        of = None if self._ledger.current_key == take.key else take.identity
        return LumaRayResultExpired(
            f"Bought at {take.started}, and no longer available from Segmind: {why}.",
            request_id=take.request_id,
            remedy=(
                "To buy the clip again, give this one up, then clear the task:\n"
                f"  {command('give-up', self._spec.output, *filter(None, [take.request_id]), of=of)}"
            ),
        ).with_context(
            take.request_id, f"The job was bought; on record at {self._ledger.path}. Airflow will not retry."
        )

    @contextmanager
    def _context(self, take: JobRecord) -> Iterator[None]:
        """Make every error of a bought job name its id and its record."""
        try:
            yield
        except LumaRayError as error:
            if error.standing:
                raise
            standing = error.money
            if not isinstance(error, LumaRayJobFailed):
                where = f"The job is bought and on record at {self._ledger.path}"
                standing = f"{where}; the next attempt re-attaches at no charge."
            raise error.with_context(take.request_id, standing) from None

    def _pause(self, seconds: float) -> None:
        try:
            self._stopped.get(timeout=seconds)
        except Empty:
            return
        raise LumaRayTimeout("The task was told to stop, so the wait ended.")

    def _seconds_since(self, take: JobRecord) -> float:
        """Return how long the vendor has had a job; never negative, whatever the clocks say."""
        return max((self._hook.vendor_now() - take.started).total_seconds(), 0.0)


def _named(take: JobRecord) -> str:
    return (
        f"job {take.request_id}"
        if take.request_id
        else f"a job that may have been bought at {take.intent_at}"
    )


def _name_connection(uri: str) -> str:
    """Return advice for a bucket's URI that names no connection; else nothing."""
    scheme, separator, rest = uri.partition("://")
    if not separator or "@" in rest.partition("/")[0]:
        return ""
    return f"The path names no connection: write {scheme}://my_conn@{rest}, or give storage_conn_id."


def check_output(output: StoredFile, given: str) -> None:
    """Refuse a path that cannot hold a video, before any call.

    :param given: the argument's value
    """
    try:
        seen = output.look()
    except Exception as error:
        if is_lasting(error) and not isinstance(error, PermissionError):
            raise LumaRayConfigurationError(f"output_path={given!r} cannot hold a video: {error}.") from None
        raise LumaRayRecordError(
            f"output_path {given!r} cannot be checked: {error}{permission_hint(error)}.",
            remedy=_name_connection(str(output)),
        ) from None
    if seen is not None and seen.is_folder:
        raise LumaRayConfigurationError(
            f"output_path={given!r} is a directory.",
            remedy="End it with '/' to get a file named after the task instance in it.",
        )
