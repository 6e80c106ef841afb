"""What is on record of a clip."""

from __future__ import annotations

import argparse
import json

from airflow_provider_luma.cli import words
from airflow_provider_luma.cli.found import Found, find
from airflow_provider_luma.jobs.ledger import state_key
from airflow_provider_luma.jobs.record import JobRecord, RecordState, assemble
from airflow_provider_luma.segmind.money import usd


def show(args: argparse.Namespace) -> list[str]:
    """Show what is on record; changes nothing."""
    found = find(args)
    if args.json:
        record = assemble(found.take, found.standing.takes)
        return [json.dumps(record.dump(), indent=2)]
    rows = (f"  {name:<11} {value}" for name, value in _rows(found).items() if value)
    return [str(found.output), *rows, words.next_attempt(found)]


def _rows(found: Found) -> dict[str, str | None]:
    take, standing = found.take, found.standing
    earlier = [other for other in standing.takes if other.key != take.key]
    left = take.remaining_credits
    balance = "" if left is None else f"; balance after it {usd(left)}"
    cost = "none" if take.state is RecordState.FAILED else words.paid(take)
    other = standing.other
    return {
        "state": f"{take.state}: {words.state(take)}",
        "error": take.error,
        "bought by": str(take.identity),
        "path of": f"{other.identity} ({other.state})" if other else None,
        "request id": take.request_id or "not known",
        "cost": f"{cost}{balance}",
        "model": f"{take.model} ({take.api_version}) by connection {take.luma_ray_conn_id}",
        "frame": take.start_frame,
        "goes to": None if take.output_path == str(found.output) else take.output_path,
        "call": take.intent_at,
        "submitted": take.submitted_at,
        "completed": take.completed_at,
        "delivered": take.delivered_at,
        "video": _video(found),
        "takes": "\n              ".join(_take(one) for one in earlier) or "no earlier one",
        "on record": _copies(found),
    }


def _take(take: JobRecord) -> str:
    cost = "not billed" if take.state is RecordState.FAILED else words.paid(take)
    return f"{take.intent_at}: {words.job(take)}, {take.state}, {cost}, by {take.identity}"


def _video(found: Found) -> str:
    place = found.place()
    if not place.is_taken:
        return "missing" if found.has_file else "not on this machine"
    if place.holds is None:
        return "a file exists, but its digest matches no job on record"
    if place.holds.key != found.take.key:
        return f"the file is that of {words.job(place.holds)}, by its digest"
    return f"exists, {place.holds.bytes} bytes with the digest on record"


def _copies(found: Found) -> str:
    if not found.has_file:
        return "in Airflow's task state store; there is no file on this machine"
    if isinstance(found.store, str):
        return f"in the file; {found.store}"
    if found.store.get(state_key(found.take.identity)) is None:
        return "in the file; Airflow's task state store has nothing of it"
    return "in the file and in Airflow's task state store"
