"""The request history: finding a job whose answer was lost. Pure.

Known from the vendor's SDK 1.3.0 (``segmind/generations.py``). Its envelope is undocumented, so the first list of
requests in the reply is taken for the rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from airflow_provider_luma.segmind.ids import id_key, is_same_id, parse_id
from airflow_provider_luma.segmind.money import money
from airflow_provider_luma.segmind.redaction import redact
from airflow_provider_luma.segmind.replies import JobStatus, Reply, VendorStatus, parse_time, unusable
from airflow_provider_luma.segmind.urls import urls_in
from airflow_provider_luma.segmind.walk import walk

#: How far apart the vendor's clock and the time of an intent may be.
CLOCK_SKEW = timedelta(minutes=2)
#: As many as a person wants to compare by hand.
_MOST_NEAR_MATCHES = 3

_STATES = {
    "COMPLETED": VendorStatus.COMPLETED,
    "FAILED": VendorStatus.FAILED,
    "PENDING": VendorStatus.PROCESSING,
}


@dataclass(frozen=True)
class HistoryEntry:
    """One request in the vendor's history.

    :param request_id: the job's id
    :param model: the model's slug
    :param state: the status; PENDING is mapped to PROCESSING
    :param body_sha256: digest of the inputs as sent; None if the row has none
    :param created: when the vendor accepted the job; None if the row does not say
    :param cost: US dollars charged
    :param output_url: where the video is
    :param error: the vendor's error text for a FAILED job, redacted
    """

    request_id: str
    model: str
    state: VendorStatus
    body_sha256: str | None
    created: datetime | None
    cost: Decimal | None
    output_url: str | None = field(repr=False)
    error: str | None

    def status(self) -> JobStatus:
        """Return the row as the answer to a poll."""
        return JobStatus(self.state, error=self.error, cost=self.cost, output_url=self.output_url)


class NearMatch(NamedTuple):
    """A request that matches in all but one respect; ``str()`` is for error messages.

    :param entry: the request
    :param difference: how it fails to match
    :param may_match: whether only a clock or the history itself may be to blame
    :param is_bare: it shows no inputs, and was created at another time
    """

    entry: HistoryEntry
    difference: str
    may_match: bool = False
    is_bare: bool = False

    def __str__(self) -> str:
        return f"{self.entry.request_id} ({self.difference})"


def body_digest(body: Mapping[str, Any]) -> str:
    """Return a request body's SHA-256, independent of key order and number format."""
    exact = json.loads(json.dumps(body, default=float), parse_int=float)
    return hashlib.sha256(json.dumps(exact, sort_keys=True).encode()).hexdigest()


def parse_rows(reply: Reply) -> list[HistoryEntry]:
    """Return the rows of a history page, one for each request.

    :raises LumaRayUnavailable: there is no list of requests in the reply, or an id in it cannot be read: then a missing
        job proves nothing
    """
    rows = find_rows(reply.json()) if reply.status == 200 else None
    if rows is None:
        raise unusable(reply, "The request history")
    named = [row for row in rows if row.get("request_id")]
    found = [_row(row) for row in named]
    if None in found:
        raise unusable(reply, "The request history")
    return list({id_key(row.request_id): row for row in found if row}.values())


def parse_one(reply: Reply, request_id: str) -> HistoryEntry | None:
    """Return the row of one request; None if the history does not have it.

    :raises LumaRayUnavailable: neither the row nor an unambiguous "not found"
    """
    if reply.status == 404 and reply.object():  # a 404 without JSON is a gateway's, not the vendor's
        return None
    if reply.status == 200:
        for value in walk(reply.json()):
            if isinstance(value, dict) and is_same_id(value.get("request_id"), request_id):
                return _row(value)
    raise unusable(reply, f"The request history of {request_id}")


def matches(
    rows: Iterable[HistoryEntry],
    *,
    model: str,
    body_sha256: str,
    since: datetime,
    claimed: Iterable[str],
    until: datetime | None = None,
    is_unique: bool = False,
) -> list[HistoryEntry]:
    """Return the rows that can be the lost job: same model and inputs, created in time, nobody else's.

    :param rows: rows of the history
    :param model: the model's slug
    :param body_sha256: digest of the inputs as sent
    :param since: the time of the intent, by the vendor's clock
    :param claimed: ids of other tasks' jobs
    :param until: when the job was created at the latest; None: open
    :param is_unique: nobody can have sent these inputs before, so an earlier time is a clock's mistake
    """
    return [
        row
        for row in _unclaimed(rows, model, claimed)
        if row.body_sha256 == body_sha256 and _missed(row, None if is_unique else since, until) is None
    ]


def near_matches(
    rows: Iterable[HistoryEntry],
    *,
    model: str,
    body_sha256: str,
    since: datetime,
    claimed: Iterable[str],
    until: datetime | None = None,
) -> list[NearMatch]:
    """Return up to three rows that fail to match in one respect only, those with the same inputs first.

    A person has to judge them; they rule out reporting that there is no such job. Parameters as for ``matches``.
    """
    same_inputs, unknown_inputs, bare, other_inputs = [], [], [], []
    for row in _unclaimed(rows, model, claimed):
        missed = _missed(row, since, until)
        if row.body_sha256 == body_sha256:
            if missed:
                same_inputs.append(NearMatch(row, f"same inputs, {missed}", may_match=True))
        elif row.body_sha256 is None and (not missed or row.created is None):
            when = "created in time" if row.created else missed
            unknown_inputs.append(NearMatch(row, f"{when}, inputs not shown", may_match=True))
        elif row.body_sha256 is None:
            bare.append(NearMatch(row, f"{missed}, inputs not shown", is_bare=True))
        elif not missed:
            other_inputs.append(NearMatch(row, "created in time, other inputs"))
    return [*same_inputs, *unknown_inputs, *bare, *other_inputs][:_MOST_NEAR_MATCHES]


def _missed(row: HistoryEntry, since: datetime | None, until: datetime | None) -> str | None:
    """Say how a row is outside the time in which the job was created; None if it is inside."""
    if row.created is None:
        return "created at an unknown time"
    if since is not None and row.created < since - CLOCK_SKEW:
        return f"created too early, at {row.created:%Y-%m-%d %H:%M:%S} UTC"
    if until is not None and row.created > until + CLOCK_SKEW:
        return f"created too late, at {row.created:%Y-%m-%d %H:%M:%S} UTC"
    return None


def _unclaimed(rows: Iterable[HistoryEntry], model: str, claimed: Iterable[str]) -> list[HistoryEntry]:
    taken = {id_key(request_id) for request_id in claimed}
    return [row for row in rows if row.model == model and id_key(row.request_id) not in taken]


def find_rows(value: object) -> list[dict[str, Any]] | None:
    """Return the first list of requests, or an empty list if all lists are empty; None if unclear."""
    lists = [item for item in walk(value, into_lists=False) if isinstance(item, list)]
    for rows in lists:
        if rows and all(isinstance(row, dict) for row in rows) and any(row.get("request_id") for row in rows):
            return rows
    return [] if lists and not any(lists) else None


def created_of(row: Mapping[str, Any]) -> object:
    """Return when the vendor accepted a job, as its row says it."""
    return next((row[name] for name in ("model_created", "created_at", "created") if row.get(name)), None)


def _row(row: dict[str, Any]) -> HistoryEntry | None:
    request_id, body = parse_id(row.get("request_id")), row.get("request_body")
    if request_id is None:
        return None
    if isinstance(body, str):
        try:
            body = json.loads(body)
        except (ValueError, RecursionError):
            body = None
    error = row.get("error")
    return HistoryEntry(
        request_id=request_id,
        model=str(row.get("model_name")),
        state=_STATES.get(str(row.get("model_status")).upper(), VendorStatus.UNKNOWN),
        body_sha256=body_digest(body) if isinstance(body, dict) else None,
        created=parse_time(created_of(row)),
        cost=money(row.get("credits_deduction")),
        output_url=next(urls_in(row.get("generation_url")), None),
        error=redact(str(error)) if error else None,
    )
