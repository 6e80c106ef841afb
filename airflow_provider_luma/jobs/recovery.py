"""Finds the job of a paid call whose answer was lost, in the vendor's request history."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from airflow_provider_luma.exceptions import (
    LumaRayAuthenticationError,
    LumaRayRateLimited,
    LumaRaySubmitUnknown,
    LumaRayUnavailable,
)
from airflow_provider_luma.jobs.advice import command
from airflow_provider_luma.jobs.record import JobRecord, RecordState, combine
from airflow_provider_luma.segmind.history import CLOCK_SKEW, HistoryEntry, matches, near_matches
from airflow_provider_luma.segmind.ids import is_same_id
from airflow_provider_luma.segmind.replies import VendorStatus

if TYPE_CHECKING:
    from airflow_provider_luma.hooks.luma_ray import LumaRayHook
    from airflow_provider_luma.jobs.ledger import Ledger

#: Seconds before each query, since rows appear with a lag: two minutes in all, about as long as the job takes anyway.
LOOK_DELAYS = (0.0, 2.0, 4.0, 8.0, 16.0, 30.0, 60.0)
_SEARCH_SECONDS = sum(LOOK_DELAYS)

#: No paid call lasts longer, so a job and an intent further apart are unrelated.
_LONGEST_CALL = timedelta(minutes=15)

#: For four attempts to connect.
_CONNECTING = timedelta(seconds=40)

#: A clock set by a gateway's ``Date`` may be a time zone off; last night's job of the same inputs is further away.
_WRONGEST_CLOCK = timedelta(hours=15)

log = logging.getLogger(__name__)


def find_lost_job(
    hook: LumaRayHook,
    ledger: Ledger,
    intent: JobRecord,
    cause: str,
    pause: Callable[[float], None],
    *,
    is_own: bool = False,
    hint: str | None = None,
    longest: timedelta | None = None,
) -> HistoryEntry | None:
    """Return the only job in the history that a paid call can have bought.

    :param intent: the call's record
    :param cause: what is known of the call, for the error
    :param pause: sleeps some seconds
    :param is_own: this attempt made the call, so that its clock can be corrected afterwards
    :param hint: an id that may be the job's
    :param longest: another attempt's call may still be waiting for its answer, at most this long; None: it has ended
    :return: None if another attempt or a person has settled the record in the meantime
    :raises LumaRaySubmitUnknown: there is none, or several, or one that may be another call's
    :raises LumaRayUnavailable: the call may still be waiting for its answer, which will name the job
    :raises LumaRayRecordError: a record next to the video cannot be read, and its call may have sent the same body
    """
    log.warning("%s Searching Segmind's request history for the job.", cause)
    finding = ""
    candidates: tuple[str, ...] = ()
    is_cut_short = False
    for number, delay in enumerate(LOOK_DELAYS, start=1):
        pause(delay)
        if _is_settled(ledger.read().takes, intent):
            return None
        try:
            row = _hinted(hook, hint) if hint else None
            if row and (row.model, row.body_sha256) == (intent.model, intent.body_sha256):
                return row
            rows = hook.find_jobs(intent.model, intent.started)
            if is_own:
                intent = _dated(hook, ledger, intent)
        except LumaRayAuthenticationError as error:
            finding, is_cut_short = f"The history refuses the key ({error.cause})", True
            if longest is not None:  # the call is to end before anybody says that it has
                pause(sum(LOOK_DELAYS[number:]))
            break
        except (LumaRayUnavailable, LumaRayRateLimited) as error:
            finding = f"The history does not answer ({error.cause})"
            continue
        neighbours: list[JobRecord] = []
        if not intent.body_is_unique:
            # Read after the history: a task records its intent before its job can appear there.
            neighbours = [take for record in ledger.neighbours(intent.earliest) for take in record.takes]
        takes = ledger.read().takes
        if _is_settled(takes, intent):
            return None
        takes = (*takes, *neighbours)
        judgement = judge(rows, intent, takes, is_last=number == len(LOOK_DELAYS), now=hook.vendor_now())
        if judgement.row is not None:
            return judgement.row
        finding, candidates = judgement.finding, judgement.candidates
        log.info("%s; searching for up to %.0f s.", finding, sum(LOOK_DELAYS))
    if _is_settled(ledger.read().takes, intent):
        return None
    if longest is not None:
        outlasts = is_cut_short or longest.total_seconds() > _SEARCH_SECONDS
        if outlasts and is_waiting(intent, hook.vendor_now(), longest):
            raise LumaRayUnavailable(f"{cause} {finding}.")
        cause = ended(intent)
        intent = ledger.note(intent, error=cause)
    of = None if ledger.current_key == intent.key else intent.identity
    raise LumaRaySubmitUnknown(
        f"{cause} {finding}.",
        candidates=candidates,
        remedy=(
            f"Check the account's request history at {intent.intent_at} (model {intent.model}). Run the matching "
            "command, then clear the task:\n"
            f"  the job is there:  {command('adopt', ledger.output, call=intent, of=of)} <request id>\n"
            f"  it is not:         {command('not-bought', ledger.output, call=intent, of=of)}"
        ),
    ).with_context(
        None,
        f"A job may have been bought at {intent.intent_at}; on record at {ledger.path}. Airflow will not retry.",
    )


def _dated(hook: LumaRayHook, ledger: Ledger, intent: JobRecord) -> JobRecord:
    """Date this attempt's call by the vendor's clock, now that a reply has shown it."""
    at = None if intent.called_at else hook.vendor_time(intent.started)
    return intent if at is None else ledger.note(intent, called_at=at.isoformat())


def _hinted(hook: LumaRayHook, hint: str) -> HistoryEntry | None:
    """Return the job of an id that may be a gateway's; one that the history will not hear of is no hint."""
    try:
        return hook.find_job(hint)
    except LumaRayUnavailable as error:
        log.info("%s: %s", hint, error.cause)
        return None


@dataclass(frozen=True)
class Judgement:
    """What one query of the history says.

    :param row: the job; None if that is not certain
    :param finding: what was found instead
    :param candidates: jobs that may be it
    :param is_absent: no job that may be it is there, whenever it was created
    """

    row: HistoryEntry | None
    finding: str = ""
    candidates: tuple[str, ...] = ()
    is_absent: bool = False


def judge(
    rows: Iterable[HistoryEntry],
    intent: JobRecord,
    takes: Iterable[JobRecord],
    *,
    is_last: bool,
    now: datetime | None = None,
) -> Judgement:
    """Decide which row is a paid call's job. Pure.

    A unique body identifies its job. Any other body may also have been sent by a task whose record this one cannot see.
    Then the job is certain only if

    - there are as many matching rows as known calls that they can belong to, once all rows have had time to appear;
    - none of the rows FAILED: adopting the wrong one would lead to a second purchase;
    - none of the other calls still awaits its answer, which will name its job.

    :param takes: all takes on record, this call's own included
    :param is_last: whether all rows have had time to appear
    :param now: the vendor's time; None: no call still awaits its answer
    """
    rows = list(rows)
    known_takes: dict[str, JobRecord] = {}
    for take in takes:  # a record at a task's earlier path has an older copy of its take
        known_takes[take.key] = combine(known_takes[take.key], take) if take.key in known_takes else take
    others = [take for take in known_takes.values() if take.key != intent.key]
    claimed = {one for take in others for one in take.ids}
    known = {
        "model": intent.model,
        "body_sha256": intent.body_sha256,
        "since": intent.started,
        "until": intent.started + _LONGEST_CALL,
        "claimed": claimed,
    }
    found = matches(rows, **known, is_unique=intent.body_is_unique)  # type: ignore[arg-type]
    if not found:
        almost = near_matches(rows, **known)  # type: ignore[arg-type]
        told = "; ".join(map(str, almost[:3]))
        # A worker's clock alone rules nothing out.
        same = [near.entry for near in almost if near.may_match or (near.is_bare and not intent.called_at)]
        candidates = tuple(
            row.request_id
            for row in same
            if not (intent.called_at and row.created) or abs(row.created - intent.started) < _WRONGEST_CLOCK
        )
        return Judgement(
            None,
            f"The history shows no such job{f', but these come close: {told}' if told else ''}",
            candidates=candidates,
            is_absent=not same,
        )
    ids = ", ".join(row.request_id for row in found)
    candidates = tuple(row.request_id for row in found if row.state is not VendorStatus.FAILED)
    if intent.body_is_unique:
        one = found[0] if len(found) == 1 else None
        return Judgement(one, f"The history shows several such jobs ({ids})", candidates)
    rivals = sorted(
        [intent, *(take for take in others if _may_own(take, rows, found, intent))],
        key=lambda take: (take.intent_at, take.key),
    )
    if len(found) > len(rivals):
        finding = f"The history shows {ids}, some of which belong to another task with the same inputs"
    elif len(found) < len(rivals):
        finding = f"The history shows {ids}, which may belong to another lost call with the same inputs"
    elif any(row.state is VendorStatus.FAILED for row in found):
        finding = f"The history shows {ids}, which FAILED and may belong to another task with the same inputs"
    elif any(_may_wait(take, now) for take in rivals if take is not intent):
        finding = f"The history shows {ids}, but another call with the same inputs may still be waiting for its answer"
    elif any(_has_video(take) for take in rivals if take is not intent):
        finding = (
            f"The history shows {ids}, and one of them is another clip's, which v1 delivered without an id"
        )
    elif not is_last:
        finding = f"The history shows {ids} so far"
    else:
        # The inputs are the same, so any assignment will do that gives no job to two calls.
        ordered = sorted(found, key=lambda row: (row.created or datetime.max, row.request_id))
        return Judgement(ordered[rivals.index(intent)])
    return Judgement(None, finding, candidates)


def _may_own(take: JobRecord, rows: list[HistoryEntry], found: list[HistoryEntry], intent: JobRecord) -> bool:
    """Whether another paid call with the same inputs, its job's id unknown, may own one of the jobs.

    A call known to have failed can only own a FAILED job. An id from v1 that the history does not show may be a
    gateway's. A time that is not by the vendor's clock rules nothing out.
    """
    is_known = bool(take.ids) and (
        take.api_version != "v1" or any(is_same_id(one, row.request_id) for one in take.ids for row in rows)
    )
    is_dated = take.called_at and intent.called_at
    return (
        take.body_sha256 == intent.body_sha256
        and not is_known
        and (take.state is not RecordState.FAILED or any(row.state is VendorStatus.FAILED for row in found))
        and (not is_dated or take.started >= intent.started - _LONGEST_CALL)
    )


def longest_call(api_version: str, submit_timeout: float) -> timedelta:
    """Return how long a paid call may wait for its answer; v1 answers with the video.

    :param submit_timeout: seconds for the reply's headers, and again for its body
    """
    return _LONGEST_CALL if api_version == "v1" else _CONNECTING + 2 * timedelta(seconds=submit_timeout)


def needs_clock(api_version: str, submit_timeout: float) -> bool:
    """Whether a paid call may outlast the search for its job, so that only its age tells that it has ended."""
    return api_version == "v1" or submit_timeout > _SEARCH_SECONDS


def is_waiting(intent: JobRecord, now: datetime, longest: timedelta) -> bool:
    """Whether a call of another attempt may be waiting for its answer at this moment.

    :param now: the vendor's time
    :param longest: how long it may wait
    """
    is_ahead = intent.called_at is None and intent.started > now + CLOCK_SKEW
    if (
        is_ahead and intent.api_version != "v1"
    ):  # its worker's clock is wrong, and the search has outlasted it
        return False
    return intent.error is None and now < intent.started + longest


def ended(intent: JobRecord) -> str:
    """Describe a call that no longer awaits its answer, though nobody recorded why."""
    return f"An attempt ended during its paid call of {intent.intent_at}."


def _has_video(take: JobRecord) -> bool:
    return take.state in (RecordState.COMPLETED, RecordState.DELIVERED)


def _may_wait(take: JobRecord, now: datetime | None) -> bool:
    """Whether a call may still get its answer: it is not recorded as lost, and not too old."""
    return now is not None and take.error is None and now < take.started + _LONGEST_CALL


def _is_settled(takes: Iterable[JobRecord], intent: JobRecord) -> bool:
    take = next((take for take in takes if take.key == intent.key), intent)
    return take.state is not RecordState.INTENT
