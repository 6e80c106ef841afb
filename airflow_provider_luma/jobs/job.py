"""The life of one paid job: ensure it is bought, wait, deliver. Blocking, deferred and re-attached jobs share it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from airflow_provider_luma.exceptions import (
    LumaRayAuthenticationError,
    LumaRayConfigurationError,
    LumaRayDeliveryFailed,
    LumaRayError,
    LumaRayJobFailed,
    LumaRayRecordError,
    LumaRaySuperseded,
    LumaRayTimeout,
    LumaRayUnavailable,
)
from airflow_provider_luma.hooks.limiter import Rank
from airflow_provider_luma.jobs.decision import Action, Decision, Place, decide, location
from airflow_provider_luma.jobs.delivery import is_in_place, place, refuse_given_up
from airflow_provider_luma.jobs.ledger import MAX_ROUNDS, Ledger, Standing
from airflow_provider_luma.jobs.patience import Patience
from airflow_provider_luma.jobs.polling import JobPoller
from airflow_provider_luma.jobs.record import JobRecord, RecordState
from airflow_provider_luma.jobs.submit import Submission
from airflow_provider_luma.jobs.video import VideoSource
from airflow_provider_luma.media import is_mp4_head
from airflow_provider_luma.segmind.money import usd
from airflow_provider_luma.segmind.polling import Verdict
from airflow_provider_luma.segmind.replies import JobResult, JobStatus, VendorStatus
from airflow_provider_luma.storage import open_file, permission_hint

if TYPE_CHECKING:
    from airflow_provider_luma.hooks.luma_ray import LumaRayHook
    from airflow_provider_luma.jobs.spec import Inputs, JobSpec

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
        self._buyer = self._hook = hook
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

    @property
    def hook(self) -> LumaRayHook:
        """The account that pays."""
        return self._hook

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
        try:
            decision = decide(
                standing,
                self._look(standing),
                identity=spec.identity,
                cleared=spec.cleared,
                fingerprint=spec.fingerprint(inputs) if inputs else None,
                frame=inputs.frame.identity if inputs and inputs.frame else None,
                output_path=str(spec.output),
                if_exists=spec.if_exists,
            )
        except LumaRayError as error:
            own = standing.own
            if own is not None and own.is_in_flight:
                # Here too: Airflow 3.4 deletes the store's copy at a clear.
                is_busy = isinstance(error, LumaRayDeliveryFailed)
                own = self._ledger.note(own, **self._moved_here(own) if is_busy else {})
                if is_busy:  # two tasks whose paths were swapped would wait for each other
                    self._free_earlier_paths(own)
            raise
        take = decision.take
        self._tell(decision)
        if decision.action is Action.REUSE:
            return self._reused(take)
        self._hook = self._account_of(take) if take else self._buyer
        take = take and take.changed(identity=spec.identity)  # under "keep" it may have been a sibling's
        if decision.action is Action.CHECK_FAILED and take is not None:
            take = self._asked_again(take, standing)
            if take.state is not RecordState.FAILED:
                return take
        if decision.action in (Action.BUY, Action.CHECK_FAILED) or take is None:
            inputs = inputs or spec.inputs(None)  # raises if they are wrong
            self.is_new, self._hook = True, self._buyer
            return self._submission.buy(inputs)
        if decision.action is Action.LOOK_UP:
            if (resubmitted := self._resubmitted(take, standing)) is not None:
                return resubmitted
            # A person may give it up during the search.
            changes = {"cleared": spec.cleared.or_later(take.cleared), **self._moved_here(take)}
            if any(getattr(take, name) != value for name, value in changes.items()):
                take = self._ledger.note(take, **changes)
                self._free_earlier_paths(take)
            submission = Submission(spec, self._hook, self._ledger, self._patience)
            found = submission.look_up(take, standing.current)
            if found is not None:
                self._free_earlier_paths(found)
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
                    None, f"Nothing new was bought; {own.label} stays on record at {self._ledger.path}."
                ) from None
            log.warning("%s Ignored for now: %s is finished first.", error.cause, own.label)
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
                decision.take.label,
            )
        if decision.leaves is not None:
            log.warning(
                "The inputs have changed and the task was cleared, so another clip is bought. %s was bought before and "
                "never delivered; it stays on record at %s.",
                decision.leaves.label,
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

    def _resubmitted(self, lost: JobRecord, standing: Standing) -> JobRecord | None:
        """Return the job that was bought in place of a lost one and is said to have FAILED, if that was a mistake."""
        own = standing.own
        if own is None or own.key == lost.key or own.state is not RecordState.FAILED or not own.request_id:
            return None
        again = self._asked_again(own, standing)
        return None if again.state is RecordState.FAILED else again

    def _asked_again(self, take: JobRecord, standing: Standing) -> JobRecord:
        """Check a FAILED job once more before buying another; the call is free."""
        try:
            status = self._patience.past_limit(
                lambda: self._hook.get_status(str(take.request_id), Rank.URGENT)
            )
        except LumaRayAuthenticationError as error:
            if take.luma_ray_conn_id == self._spec.luma_ray_conn_id:
                raise
            log.warning("%s FAILED, and its account can no longer be asked: %s", take.label, error.cause)
            return take
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
        changes = {"cleared": self._spec.cleared.or_later(take.cleared), **self._moved_here(take)}
        if is_returned:
            log.info("%s: already delivered, and still there; nothing is bought.", take.name)
        else:
            log.info("%s: already bought, now %s; re-attaching, nothing is bought.", take.name, take.state)
            if take.state is RecordState.DELIVERED and standing.other is None:
                changes["state"] = RecordState.COMPLETED
        self._leaving = standing.current
        # Another task instance's video keeps the path until this one is fetched: the vendor may no longer have it.
        leaving = None if standing.other else standing.current
        taken = self._ledger.note(take, leaving=leaving, **changes)
        if not standing.other and self._ledger.current_key not in (None, take.key):
            raise LumaRayDeliveryFailed(
                f"Another job has taken its path {str(self._spec.output)!r} since.",
                request_id=take.request_id,
            )
        if taken.is_in_flight:  # else its video is still at the path on record
            self._free_earlier_paths(taken)
        return taken

    def _free_earlier_paths(self, take: JobRecord) -> None:
        """Tell the records at the paths that the task's output_path led to before that this job has moved on."""
        here = str(self._spec.output)
        for path in take.recorded_at or ():
            if location(path) == location(here):
                continue
            try:
                earlier = Ledger(take.identity, open_file(path), None)
                left = next((one for one in earlier.read().takes if one.key == take.key), None)
                if left is not None and (left.moved_to, left.state) != (here, take.state):
                    earlier.advance(take, moved_to=here)
            except Exception as error:
                log.info("%s: still on record at its earlier path %s: %s", take.name, path, error)

    def _moved_here(self, take: JobRecord) -> dict[str, Any]:
        """Return the changes to a take that goes to this attempt's path, which may have been edited."""
        changes: dict[str, Any] = {"recorded_at": self._recorded_at(take), "moved_to": None}
        if take.is_in_flight and take.sha256 is None:  # else its video may be at the path on record
            changes["output_path"] = str(self._spec.output)
        return changes

    def _recorded_at(self, take: JobRecord) -> tuple[str, ...] | None:
        """Return the paths whose records have a take, this one included; None if there is only this one."""
        known = (*(take.recorded_at or ()), take.output_path, take.moved_to, str(self._spec.output))
        places = {os.path.realpath(location(path)): path for path in known if path}
        return tuple(places.values()) if len(places) > 1 else None

    def recorded(self, request_id: str) -> JobRecord:
        """Return the take of a job bought before this attempt was deferred; a lost record is rebuilt.

        :raises LumaRaySuperseded: the task was cleared while it waited, and its path has a newer job by now
        :raises LumaRayConfigurationError: a person has given the job up
        """
        standing = self._ledger.read()
        take = next((take for take in standing.takes if take.request_id == request_id), None)
        if take is not None:
            self._refuse_obsolete(take, standing)
            other = standing.other
            keeps = other is not None and other.is_in_flight and other.moved_to is None
            self._leaving = None if keeps else standing.current
            self._hook = self._account_of(take)
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
        refuse_given_up(take, self._ledger)
        current = standing.current
        is_own = current is not None and current.identity == take.identity
        if current is not None and is_own and current.key != take.key and not current.bought_nothing:
            raise LumaRaySuperseded(
                f"The task was cleared while it waited for this job, and its path now belongs to {current.label}.",
                request_id=take.request_id,
            ).with_context(take.request_id, f"Both jobs are on record at {self._ledger.path}.")

    def _account_of(self, take: JobRecord) -> LumaRayHook:
        """Return the account that bought the take, even if the task has another connection by now."""
        if take.luma_ray_conn_id == self._spec.luma_ray_conn_id:
            return self._buyer
        from airflow_provider_luma.hooks.luma_ray import LumaRayHook

        log.warning("%s was bought with connection %r, which is used.", take.label, take.luma_ray_conn_id)
        return LumaRayHook(take.luma_ray_conn_id)

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
            waited=lambda: take.age(self._hook.vendor_now()),
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
                waited = take.age(self._hook.vendor_now())
                if verdict is Verdict.WAIT:
                    log.info("%s: %s after %.0f s.", take.request_id, status.state, waited)
                    if not is_patient:
                        break
                    self._pause(poller.delay(limiter.spacing()))
                else:
                    take = self._settle(take, status, verdict, waited)
            self._result = poller.result
        refuse_given_up(take, self._ledger)
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
            failed = self._ledger.note(take, state=RecordState.FAILED, error=status.error)
            refuse_given_up(failed, self._ledger)
            raise LumaRayJobFailed(f"Segmind reports FAILED: {status.error}.", request_id=take.request_id)
        if verdict is Verdict.GONE:
            row = self._source().listed(take)
            if row is None:
                raise self._source().expired(
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
                    source = self._source()
                    video = source.copy(take, part)
                    if video is None:
                        take, video = source.fetch(take, part)
                    take = self._with_path(take)
                    delivered = place(self._ledger, output, take, video, self._hook.vendor_now())
                    self._free_earlier_paths(delivered)
            except OSError as error:
                raise LumaRayDeliveryFailed(f"The video could not be stored at {output}: {error}.") from None
        log.info("Cost: %s; balance after: %s.", usd(delivered.cost), usd(delivered.remaining_credits))
        return delivered

    def _refuse_taken_path(self) -> None:
        """Protect a file that appeared at the path after the purchase, unless ``if_exists`` says "overwrite"."""
        if self._spec.if_exists == "overwrite":
            return
        standing = self._ledger.read()
        place = self._look(standing)
        is_own = place.holds is not None and place.holds.identity == self._spec.identity
        if self._spec.if_exists == "reuse":  # only a file that no job on record has made is left alone
            here = location(str(self._spec.output))
            is_own = any(
                one.state is RecordState.DELIVERED and location(one.output_path) == here
                for one in standing.takes
            )
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
                f"Another job has taken its path {str(self._spec.output)!r} since.",
                request_id=take.request_id,
            )
        return taken

    def _source(self) -> VideoSource:
        return VideoSource(self._spec.output, self._hook, self._ledger, self._patience, self._result)

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
