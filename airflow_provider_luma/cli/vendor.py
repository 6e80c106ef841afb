"""What Segmind says about a job; buys nothing."""

from __future__ import annotations

import argparse

from airflow_provider_luma.cli.found import Found
from airflow_provider_luma.exceptions import LumaRayError
from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.jobs.record import JobRecord
from airflow_provider_luma.jobs.recovery import Judgement, judge
from airflow_provider_luma.segmind.history import HistoryEntry, matches, near_matches
from airflow_provider_luma.segmind.ids import id_key


def hook_for(args: argparse.Namespace, found: Found | None) -> LumaRayHook:
    """Return a hook for the connection that the arguments name, else for the one on record."""
    recorded = found.take.luma_ray_conn_id if found else LumaRayHook.default_conn_name
    return LumaRayHook(args.conn or recorded)


def check(hook: LumaRayHook, found: Found, request_id: str) -> tuple[HistoryEntry | None, str]:
    """Return a job's row in the request history, and a reason why it is not the lost paid call's, if any."""
    try:
        row = hook.find_job(request_id)
        others = found.others()
    except LumaRayError as error:
        return None, f"it cannot be checked whether {request_id} is this call's job: {error.cause}"
    owner = others.get(id_key(request_id))
    if owner is not None:
        return row, f"{request_id} is on record as the job of {owner.identity}"
    if row is None:
        return None, f"Segmind's request history has no job {request_id}"
    return row, _mismatch(row, found.take)


def _mismatch(row: HistoryEntry, take: JobRecord) -> str:
    if row.model != take.model:
        return f"{row.request_id} is a job of {row.model}, but this call asked for {take.model}"
    known = {"model": take.model, "body_sha256": take.body_sha256, "since": take.started, "claimed": ()}
    almost = near_matches([row], **known)  # type: ignore[arg-type]
    if almost:
        return f"the request history has {almost[0]}; this call was made at {take.intent_at}"
    return "" if matches([row], **known) else f"{row.request_id} does not match this call"  # type: ignore[arg-type]


def lost_job(hook: LumaRayHook, found: Found) -> Judgement:
    """Return what the request history says about the job of a lost paid call."""
    take = found.take
    try:
        rows = hook.find_jobs(take.model, take.started)
        neighbours = [] if take.body_is_unique else list(found.ledger.neighbours(take.earliest))
    except LumaRayError as error:
        return Judgement(None, f"Segmind's request history could not be asked: {error.cause}")
    takes = (*found.standing.takes, *(one for record in neighbours for one in record.takes))
    return judge(rows, take, takes, is_last=True, now=hook.vendor_now())
