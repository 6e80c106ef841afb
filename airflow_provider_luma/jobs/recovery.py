"""Finding out in the vendor's history whether a paid call whose answer was lost bought a job."""

from __future__ import annotations

import logging
import shlex
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
from airflow_provider_luma.jobs.record import JobRecord, RecordState
from airflow_provider_luma.segmind.history import HistoryEntry, matches, near_matches
from airflow_provider_luma.segmind.replies import VendorStatus

if TYPE_CHECKING:
    from airflow_provider_luma.hooks.luma_ray import LumaRayHook
    from airflow_provider_luma.jobs.ledger import Ledger

#: Seconds before each look, for rows appear with a lag: two minutes in all, about as long as the job takes anyway.
LOOK_DELAYS = (0.0, 2.0, 4.0, 8.0, 16.0, 30.0, 60.0)

#: No paid call lasts longer, so a job and an intent further apart have nothing to do with each other.
_LONGEST_CALL = timedelta(minutes=15)

log = logging.getLogger(__name__)


def find_lost_job(
    hook: LumaRayHook,
    ledger: Ledger,
    intent: JobRecord,
    cause: str,
    pause: Callable[[float], None],
    *,
    hint: str | None = None,
) -> HistoryEntry | None:
    """Return the one job in the history that a paid call can have bought.

    :param intent: the call's record
    :param cause: what is known of the call, for the error
    :param pause: waits some seconds
    :param hint: an id that may be the job's
    :return: None where the record has been settled meanwhile, by another attempt or a person
    :raises LumaRaySubmitUnknown: none such, or several, or one that may be another call's
    :raises LumaRayRecordError: a record beside the video cannot be read, whose call may have sent the same body
    """
    log.warning("%s Looking in Segmind's request history for the job.", cause)
    finding = ""
    for number, delay in enumerate(LOOK_DELAYS, start=1):
        pause(delay)
        if _is_settled(ledger.read().takes, intent):
            return None
        try:
            row = _hinted(hook, hint) if hint else None
            if row and (row.model, row.body_sha256) == (intent.model, intent.body_sha256):
                return row
            rows = hook.find_jobs(intent.model, intent.started)
        except LumaRayAuthenticationError as error:
            finding = f"The history refuses the key ({error.cause})"
            break
        except (LumaRayUnavailable, LumaRayRateLimited) as error:
            finding = f"The history gives no answer ({error.cause})"
            continue
        neighbours: list[JobRecord] = []
        if not intent.body_is_unique:
            # After the history: another's intent is on record before its job can be there.
            neighbours = [take for record in ledger.neighbours(intent.started) for take in record.takes]
        takes = ledger.read().takes
        if _is_settled(takes, intent):
            return None
        takes = (*takes, *neighbours)
        judgement = judge(rows, intent, takes, is_last=number == len(LOOK_DELAYS), now=hook.vendor_now())
        if judgement.row is not None:
            return judgement.row
        finding = judgement.finding
        log.info("%s; looking again for up to %.0f s.", finding, sum(LOOK_DELAYS))
    if _is_settled(ledger.read().takes, intent):
        return None
    output = shlex.quote(intent.output_path)
    raise LumaRaySubmitUnknown(
        f"{cause} {finding}.",
        remedy=(
            f"Look at the account's request history for {intent.intent_at} (model {intent.model}). Then, and clear the "
            "task:\n"
            f"  the job is there:  python -m airflow_provider_luma adopt {output} <request id>\n"
            f"  it is not:         python -m airflow_provider_luma not-bought {output}"
        ),
    ).with_context(
        None,
        f"Perhaps a job was bought at {intent.intent_at}; on record at {ledger.path}. Airflow will not retry.",
    )


def _hinted(hook: LumaRayHook, hint: str) -> HistoryEntry | None:
    """Return the job of an id that may be a gateway's; one that the history will not hear of is no hint."""
    try:
        return hook.find_job(hint)
    except LumaRayUnavailable as error:
        log.info("%s: %s", hint, error.cause)
        return None


@dataclass(frozen=True)
class Judgement:
    """What one look into the history says.

    :param row: the job; None where it is not known for certain
    :param finding: what was seen instead
    """

    row: HistoryEntry | None
    finding: str = ""


def judge(
    rows: Iterable[HistoryEntry],
    intent: JobRecord,
    takes: Iterable[JobRecord],
    *,
    is_last: bool,
    now: datetime | None = None,
) -> Judgement:
    """Tell which row is a paid call's job. Pure.

    A body that no other call can have sent is known by itself. Any other may also have been sent by a task whose record
    is not to be seen from here: then the rows have to be as many as the known calls that they can belong to, once all
    rows have had the time to appear, and none of them FAILED, as a wrong one of those would lead to a second purchase.
    Nor may one of those calls still wait for its answer, which will name a job.

    :param takes: all takes on record, this call's own among them
    :param is_last: whether all rows have had the time to appear
    :param now: the vendor's time; None: no call waits any more
    """
    others = [take for take in takes if take.key != intent.key]
    claimed = {take.request_id for take in others if take.request_id}
    known = {
        "model": intent.model,
        "body_sha256": intent.body_sha256,
        "since": intent.started,
        "until": intent.started + _LONGEST_CALL,
        "claimed": claimed,
    }
    found = matches(rows, **known)  # type: ignore[arg-type]
    if not found:
        almost = near_matches(rows, **known)  # type: ignore[arg-type]
        told = "; ".join(map(str, almost[:3]))
        return Judgement(
            None, f"The history shows no such job{f', but these come near it: {told}' if told else ''}"
        )
    ids = ", ".join(row.request_id for row in found)
    if intent.body_is_unique:
        one = found[0] if len(found) == 1 else None
        return Judgement(one, f"The history shows several such jobs ({ids})")
    rivals = sorted(
        [intent, *(take for take in others if _may_own(take, found, intent))],
        key=lambda take: (take.intent_at, take.key),
    )
    if len(found) > len(rivals):
        finding = f"The history shows {ids}, of which some are another task's with the same inputs"
    elif len(found) < len(rivals):
        finding = f"The history shows {ids}, which may be that of another lost call with the same inputs"
    elif any(row.state is VendorStatus.FAILED for row in found):
        finding = (
            f"The history shows {ids}, which FAILED, and which may be another task's with the same inputs"
        )
    elif any(_may_wait(take, now) for take in rivals if take is not intent):
        finding = (
            f"The history shows {ids}, and another call with the same inputs may still wait for its answer"
        )
    elif not is_last:
        finding = f"The history shows {ids} so far"
    else:
        # The inputs are the same, so any assignment is right in which no two calls take the same job.
        ordered = sorted(found, key=lambda row: (row.created or datetime.max, row.request_id))
        return Judgement(ordered[rivals.index(intent)])
    return Judgement(None, finding)


def _may_own(take: JobRecord, found: list[HistoryEntry], intent: JobRecord) -> bool:
    """Tell whether a job is perhaps that of another paid call of the same inputs which does not know its job's id.

    A call that is known to have failed can own a FAILED job only.
    """
    return (
        take.body_sha256 == intent.body_sha256
        and not take.request_id
        and (take.state is not RecordState.FAILED or any(row.state is VendorStatus.FAILED for row in found))
        and take.started >= intent.started - _LONGEST_CALL
    )


def _may_wait(take: JobRecord, now: datetime | None) -> bool:
    """Tell whether a call may still get its answer: it is not on record as lost, and not too old for that."""
    return now is not None and take.error is None and now < take.started + _LONGEST_CALL


def _is_settled(takes: Iterable[JobRecord], intent: JobRecord) -> bool:
    take = next((take for take in takes if take.key == intent.key), intent)
    return take.state is not RecordState.INTENT
