"""What Segmind says of a job, for a command; nothing here buys."""

from __future__ import annotations

import argparse

from airflow_provider_luma.cli.found import Found
from airflow_provider_luma.exceptions import LumaRayError
from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.jobs.record import JobRecord
from airflow_provider_luma.jobs.recovery import judge
from airflow_provider_luma.segmind.history import HistoryEntry, matches


def hook_for(args: argparse.Namespace, found: Found | None) -> LumaRayHook:
    """Return the account that the arguments name, else the one that bought what is on record."""
    recorded = found.take.luma_ray_conn_id if found else LumaRayHook.default_conn_name
    return LumaRayHook(args.conn or recorded)


def check(hook: LumaRayHook, found: Found, request_id: str) -> tuple[HistoryEntry | None, str]:
    """Return a job's row in the request history, and what speaks against its being that of a lost paid call."""
    try:
        row = hook.find_job(request_id)
        others = found.ids_of_others()
    except LumaRayError as error:
        return None, f"it cannot be told whether {request_id} is this call's job: {error.cause}"
    if request_id in others:
        return row, f"{request_id} is on record as the job of {others[request_id].identity}"
    if row is None:
        return None, f"Segmind's request history has no job {request_id}"
    return row, _mismatch(row, found.take)


def _mismatch(row: HistoryEntry, take: JobRecord) -> str:
    known = {"model": take.model, "body_sha256": take.body_sha256, "since": take.started, "claimed": ()}
    if matches([row], **known):  # type: ignore[arg-type]
        return ""
    if row.model != take.model:
        return f"{row.request_id} is a job of {row.model}, and this call asked for {take.model}"
    if row.body_sha256 is None:
        return f"Segmind's request history does not show the inputs of {row.request_id}"
    if row.body_sha256 != take.body_sha256:
        return f"{row.request_id} was made with other inputs than this call's"
    return f"{row.request_id} was made at {row.created}, and this call at {take.intent_at}"


def lost_job(hook: LumaRayHook, found: Found) -> tuple[HistoryEntry | None, str]:
    """Return the job in the request history that a lost paid call is known to have bought, and what was seen."""
    take = found.take
    try:
        rows = hook.find_jobs(take.model, take.started)
        beside = [one for record in found.ledger.neighbours(take.started) for one in record.takes]
    except LumaRayError as error:
        return None, f"Segmind's request history could not be asked: {error.cause}"
    judgement = judge(rows, take, (*found.standing.takes, *beside), is_last=True)
    return judgement.row, judgement.finding
