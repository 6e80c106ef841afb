"""What was spent on the clips in a folder and below, according to their records."""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from airflow_provider_luma.cli.errors import Refused
from airflow_provider_luma.exceptions import LumaRayError
from airflow_provider_luma.jobs.ledger import SUFFIX
from airflow_provider_luma.jobs.record import JobRecord, RecordState, combine
from airflow_provider_luma.segmind.history import HistoryEntry
from airflow_provider_luma.segmind.ids import id_key
from airflow_provider_luma.segmind.models import model_info
from airflow_provider_luma.segmind.money import usd
from airflow_provider_luma.storage import StoredFile, open_file

GROUPS = ("dag", "day", "model")
#: A store's clock and the vendor's differ by less than this.
_MARGIN = timedelta(days=1)


@dataclass
class _Sum:
    """What one group of clips cost.

    :param usd: US dollars; clips of unknown cost count at their model's price
    :param estimated: how many clips are of unknown cost
    """

    clips: int = 0
    usd: Decimal = Decimal(0)
    estimated: int = 0


def spent(args: argparse.Namespace) -> list[str]:
    """Add up the records in a folder and below; changes nothing."""
    groups = args.by.split(",") if args.by else []
    if wrong := [group for group in groups if group not in GROUPS]:
        raise Refused(f"--by {args.by}: {', '.join(wrong)} is not one of {', '.join(GROUPS)}.", code=2)
    since, until = _day(args.since), _day(args.until)
    takes, unreadable = _takes(open_file(args.folder, args.storage_conn_id), since)
    billed = [take for take in takes if _is_billed(take) and _is_within(take.started.date(), since, until)]
    sums = _grouped(billed, groups)
    total = _total(sums.values())
    vendor = _vendor(args.conn, billed, since, until) if args.conn else None
    if args.json:
        rows = [dict(zip(groups, key, strict=True)) | _as_json(row) for key, row in sorted(sums.items())]
        told = {"rows": rows, "total": _as_json(total), "unreadable": unreadable}
        return [json.dumps(told | ({"vendor": vendor} if vendor else {}), indent=2)]
    table = [(*key, f"{row.clips}", usd(row.usd)) for key, row in sorted(sums.items())] if groups else []
    foot = (*("total", *[""] * (len(groups) - 1))[: len(groups)], f"{total.clips}", usd(total.usd))
    lines = _aligned([(*groups, "clips", "spent"), *table, foot])
    if total.estimated:
        lines.append(
            f"The cost of {total.estimated} is not on record, and counted as the price of the model."
        )
    lines += [f"Left out, cannot be read: {name}" for name in unreadable]
    return lines + (_told(vendor) if vendor else [])


def _day(text: str | None) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise Refused(f"{text!r} is not a date; write it as 2026-11-01.", code=2) from None


def _is_within(day: date, since: date | None, until: date | None) -> bool:
    return (since is None or day >= since) and (until is None or day <= until)


def _takes(folder: StoredFile, since: date | None) -> tuple[list[JobRecord], list[str]]:
    """Return the jobs on record below a folder, each once, and the records that cannot be read."""
    oldest = datetime.combine(since, time(), UTC) - _MARGIN if since else None
    takes: dict[str, JobRecord] = {}
    unreadable = []
    for name, written in sorted(folder.listed_below().items()):
        if not name.endswith(SUFFIX) or (oldest and written and written < oldest):
            continue
        try:
            record = JobRecord.load(folder.below(name).read() or b"")
        except ValueError:
            unreadable.append(name)
            continue
        for take in record.takes:
            known = takes.get(take.key)
            takes[take.key] = combine(known, take) if known else take
    jobs: dict[str, JobRecord] = {}
    for take in takes.values():  # a record that was lost and rebuilt has the job under another key
        key = id_key(take.request_id) if take.request_id else take.key
        jobs[key] = combine(jobs[key], take) if key in jobs else take
    return list(jobs.values()), unreadable


def _is_billed(take: JobRecord) -> bool:
    """Whether a job is on record as charged; one in flight is not, as it may still fail.

    A job that was given up is, since nobody waits any longer to see whether it fails.
    """
    is_bought = take.state in (RecordState.COMPLETED, RecordState.DELIVERED) or (
        take.state is RecordState.GIVEN_UP and take.request_id is not None
    )
    return take.cost is not None or is_bought


def _grouped(takes: Iterable[JobRecord], groups: list[str]) -> dict[tuple[str, ...], _Sum]:
    sums: dict[tuple[str, ...], _Sum] = defaultdict(_Sum)
    for take in takes:
        of = {"dag": take.identity.dag_id, "day": take.started.date().isoformat(), "model": take.model}
        row = sums[tuple(of[group] for group in groups)]
        row.clips += 1
        row.estimated += take.cost is None
        row.usd += take.cost if take.cost is not None else model_info(take.model).price or Decimal(0)
    return sums


def _total(sums: Iterable[_Sum]) -> _Sum:
    total = _Sum()
    for row in sums:
        total.clips += row.clips
        total.usd += row.usd
        total.estimated += row.estimated
    return total


def _as_json(row: _Sum) -> dict[str, Any]:
    return {"clips": row.clips, "usd": str(row.usd), "estimated": row.estimated}


def _vendor(conn_id: str, takes: list[JobRecord], since: date | None, until: date | None) -> dict[str, Any]:
    """Return what the vendor's request history has for the same days, and how it differs."""
    from airflow_provider_luma.hooks.luma_ray import LumaRayHook

    first = (
        datetime.combine(since, time(), UTC) if since else min((take.started for take in takes), default=None)
    )
    if first is None:
        return {"note": "there is nothing to compare"}
    try:
        rows = list(_billed_rows(LumaRayHook(conn_id), {take.model for take in takes}, first, since, until))
    except LumaRayError as error:
        return {"note": f"Segmind's request history could not be asked: {error.cause}"}
    ours = {id_key(take.request_id): take for take in takes if take.request_id}
    theirs = {id_key(row.request_id): row for row in rows}
    return {
        "clips": len(rows),
        "usd": str(sum((row.cost or Decimal(0) for row in rows), Decimal(0))),
        "only_there": sorted(theirs[key].request_id for key in theirs.keys() - ours.keys()),
        "only_on_record": sorted(str(ours[key].request_id) for key in ours.keys() - theirs.keys()),
    }


def _billed_rows(
    hook: Any, models: set[str], first: datetime, since: date | None, until: date | None
) -> Iterator[HistoryEntry]:
    for model in sorted(models):
        for row in hook.find_jobs(model, first):
            is_billed = row.cost is not None and row.cost > 0
            if is_billed and row.created and _is_within(row.created.date(), since, until):
                yield row


def _told(vendor: dict[str, Any]) -> list[str]:
    if "note" in vendor:
        return [f"{vendor['note']}."]
    lines = [
        f"Segmind's history of the same days and models: {vendor['clips']} clips, {usd(Decimal(vendor['usd']))}."
    ]
    if vendor["only_there"]:
        lines.append(f"Only there: {', '.join(vendor['only_there'])}.")
    if vendor["only_on_record"]:
        lines.append(f"Only on record: {', '.join(vendor['only_on_record'])}.")
    return lines


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    text = len(widths) - 2
    return [
        "  ".join(
            cell.ljust(width) if place < text else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
