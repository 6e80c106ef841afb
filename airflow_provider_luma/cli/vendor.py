"""What Segmind says of a job, for a command; nothing here buys."""

from __future__ import annotations

import argparse

from airflow_provider_luma.cli.found import Found
from airflow_provider_luma.exceptions import LumaRayError
from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.jobs.record import JobRecord
from airflow_provider_luma.jobs.recovery import judge
from airflow_provider_luma.segmind.history import HistoryEntry, matches, near_matches
from airflow_provider_luma.segmind.ids import id_key


def hook_for(args: argparse.Namespace, found: Found | None) -> LumaRayHook:
    """Return the account that the arguments name, else the one that bought what is on record."""
    recorded = found.take.luma_ray_conn_id if found else LumaRayHook.default_conn_name
    return LumaRayHook(args.conn or recorded)


def check(hook: LumaRayHook, found: Found, request_id: str) -> tuple[HistoryEntry | None, str]:
    """Return a job's row in the request history, and what speaks against its being that of a lost paid call."""
    try:
        row = hook.find_job(request_id)
        others = found.others()
    except LumaRayError as error:
        return None, f"it cannot be told whether {request_id} is this call's job: {error.cause}"
    owner = others.get(id_key(request_id))
    if owner is not None:
        return row, f"{request_id} is on record as the job of {owner.identity}"
    if row is None:
        return None, f"Segmind's request history has no job {request_id}"
    return row, _mismatch(row, found.take)


def _mismatch(row: HistoryEntry, take: JobRecord) -> str:
    if row.model != take.model:
        return f"{row.request_id} is a job of {row.model}, and this call asked for {take.model}"
    known = {"model": take.model, "body_sha256": take.body_sha256, "since": take.started, "claimed": ()}
    almost = near_matches([row], **known)  # type: ignore[arg-type]
    if almost:
        return f"the request history has {almost[0]}; this call was made at {take.intent_at}"
    return "" if matches([row], **known) else f"{row.request_id} does not match this call"  # type: ignore[arg-type]


def lost_job(hook: LumaRayHook, found: Found) -> tuple[HistoryEntry | None, str]:
    """Return the job in the request history that a lost paid call is known to have bought, and what was seen."""
    take = found.take
    try:
        rows = hook.find_jobs(take.model, take.started)
        neighbours = [] if take.body_is_unique else list(found.ledger.neighbours(take.started))
    except LumaRayError as error:
        return None, f"Segmind's request history could not be asked: {error.cause}"
    takes = (*found.standing.takes, *(one for record in neighbours for one in record.takes))
    judgement = judge(rows, take, takes, is_last=True, now=hook.vendor_now())
    return judgement.row, judgement.finding
