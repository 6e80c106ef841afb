"""Finding out in the vendor's history whether a paid call whose answer was lost bought a job."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_luma.exceptions import (
    LumaRayAuthenticationError,
    LumaRayRateLimited,
    LumaRaySubmitUnknown,
    LumaRayUnavailable,
)
from airflow_provider_luma.jobs.record import JobRecord, RecordState, read_time
from airflow_provider_luma.segmind.history import HistoryEntry, matches
from airflow_provider_luma.segmind.replies import VendorStatus

if TYPE_CHECKING:
    from airflow_provider_luma.hooks.luma_ray import LumaRayHook
    from airflow_provider_luma.jobs.ledger import Ledger

#: Seconds before each look, for rows appear with a lag: two minutes in all.
LOOK_DELAYS = (0.0, 2.0, 4.0, 8.0, 16.0, 30.0, 60.0)

#: No paid call lasts longer, so a job and an intent further apart have nothing to do with each other.
_LONGEST_CALL = timedelta(minutes=15)

log = logging.getLogger(__name__)


def find_lost_job(
    hook: LumaRayHook, ledger: Ledger, record: JobRecord, cause: str, pause: Callable[[float], None]
) -> HistoryEntry:
    """Return the one job in the history that an intent can have bought.

    :param record: the intent
    :param cause: what is known of the paid call, for the error
    :param pause: waits some seconds
    :raises LumaRaySubmitUnknown: none such, or several, or one that may be another task instance's
    :raises LumaRayRecordError: a record beside the video, which may lay claim to the job, cannot be read
    """
    log.warning("%s Looking in Segmind's request history for the job.", cause)
    since = read_time(record.intent_at)
    finding = ""
    for delay in LOOK_DELAYS:
        pause(delay)
        try:
            rows = hook.find_jobs(record.model, since)
        except LumaRayAuthenticationError as error:
            finding = f"The history refuses the key ({error})"
            break
        except (LumaRayUnavailable, LumaRayRateLimited) as error:
            finding = f"The history gives no answer ({error})"
            continue
        # In this order: another's intent is on record before its job can be in the history.
        claimed = record.request_ids()
        unresolved = list(record.superseded)
        for neighbour in ledger.neighbours(since):
            claimed |= neighbour.request_ids()
            unresolved.extend(neighbour.history())
        rows = [row for row in rows if row.created is None or row.created <= since + _LONGEST_CALL]
        found = matches(
            rows, model=record.model, body_sha256=record.body_sha256, since=since, claimed=claimed
        )
        if len(found) == 1 and not any(_may_own(take, found[0], record, since) for take in unresolved):
            log.info(
                "%s: found in the history; it is adopted, and nothing is bought anew.", found[0].request_id
            )
            return found[0]
        ids = ", ".join(row.request_id for row in found)
        if len(found) > 1:
            finding = f"The history shows several such jobs ({ids})"
            break
        if found:
            finding = f"The history shows {ids}, which may be that of another lost call with the same inputs"
        else:
            finding = "The history shows no such job"
        log.info("%s; looking again for up to %.0f s.", finding, sum(LOOK_DELAYS))
    raise LumaRaySubmitUnknown(
        f"{cause} Perhaps a job was bought at {record.intent_at} (model {record.model}). {finding}. On record: "
        f"{ledger.path}. Airflow will not retry. Look at the account's request history for that time: if the job is "
        'there, write its "request_id" and the state "submitted" into the record and clear the task; if it is not, '
        "change generation_tag, or set on_unknown_submit='resubmit', and clear the task to buy it."
    )


def _may_own(take: Mapping[str, Any], row: HistoryEntry, record: JobRecord, since: datetime) -> bool:
    """Tell whether a job is perhaps that of another paid call of the same inputs which does not know its job's id.

    A call that is known to have failed can own a FAILED job only.
    """
    return (
        take["body_sha256"] == record.body_sha256
        and not take.get("request_id")
        and (take["state"] != RecordState.FAILED or row.state is VendorStatus.FAILED)
        and read_time(take["intent_at"]) >= since - _LONGEST_CALL
    )
