"""The request history: finding a job whose answer was lost. Pure.

Known from the vendor's SDK 1.3.0 (``segmind/generations.py``); its envelope is not documented, so the rows are the
first list of objects in the reply.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from airflow_provider_luma.segmind.replies import (
    JobStatus,
    Reply,
    VendorStatus,
    money,
    parse_time,
    redact,
    unusable,
    urls_in,
)

#: How far the vendor's clock may lag behind the worker's.
CLOCK_SKEW = timedelta(minutes=2)

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
    :param state: PENDING is given as PROCESSING
    :param body_sha256: digest of the inputs as sent; None where the row has none
    :param created: when the vendor took the job; None where the row does not tell
    :param cost: US dollars charged
    :param output_url: where the video is
    :param error: the vendor's text of a FAILED job, redacted
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


def body_digest(body: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a request body, the same for the same inputs in any order and number format."""
    exact = json.loads(json.dumps(body, default=float), parse_int=float)
    return hashlib.sha256(json.dumps(exact, sort_keys=True).encode()).hexdigest()


def parse_rows(reply: Reply) -> list[HistoryEntry]:
    """Return the rows of a history page, one for each request id.

    :raises LumaRayUnavailable: the reply holds no list, so nothing can be said of what it lacks
    """
    rows = _find_rows(reply.json()) if reply.status == 200 else None
    if rows is None:
        raise unusable(reply, "The request history")
    found = (_row(row) for row in rows)
    return list({row.request_id: row for row in found if row}.values())


def parse_one(reply: Reply, request_id: str) -> HistoryEntry | None:
    """Return the row of one request; None where the history does not have it.

    :raises LumaRayUnavailable: neither the row nor a clear not-found
    """
    if reply.status == 404:
        return None
    pending = deque([reply.json()])
    while reply.status == 200 and pending:
        value = pending.popleft()
        if isinstance(value, dict):
            if value.get("request_id") == request_id:
                return _row(value)
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
    raise unusable(reply, f"The request history of {request_id}")


def matches(
    rows: Iterable[HistoryEntry], *, model: str, body_sha256: str, since: datetime, claimed: Iterable[str]
) -> list[HistoryEntry]:
    """Return the rows that can be the job: same model and inputs, no older than the intent, nobody else's."""
    taken = set(claimed)
    return [
        row
        for row in rows
        if row.model == model
        and row.body_sha256 == body_sha256
        and row.created is not None
        and row.created >= since - CLOCK_SKEW
        and row.request_id not in taken
    ]


def _find_rows(value: object) -> list[Any] | None:
    """Return the first list of requests; an empty one only where there is no other list of objects."""
    pending = deque([value])
    empty: list[Any] | None = None
    strange = False
    while pending:
        item = pending.popleft()
        if isinstance(item, list):
            if item and all(isinstance(row, dict) for row in item):
                if any(row.get("request_id") for row in item):
                    return item
                strange = True
            elif item:
                strange = True
            else:
                empty = item
        elif isinstance(item, dict):
            pending.extend(item.values())
    return None if strange else empty


def _row(row: dict[str, Any]) -> HistoryEntry | None:
    request_id, body = row.get("request_id"), row.get("request_body")
    if not isinstance(request_id, str) or not request_id:
        return None
    if isinstance(body, str):
        try:
            body = json.loads(body)
        except (ValueError, RecursionError):
            body = None
    created = next((row[name] for name in ("model_created", "created_at", "created") if row.get(name)), None)
    error = row.get("error")
    return HistoryEntry(
        request_id=request_id,
        model=str(row.get("model_name")),
        state=_STATES.get(str(row.get("model_status")).upper(), VendorStatus.UNKNOWN),
        body_sha256=body_digest(body) if isinstance(body, dict) else None,
        created=parse_time(created),
        cost=money(row.get("credits_deduction")),
        output_url=next(urls_in(row.get("generation_url")), None),
        error=redact(str(error)) if error else None,
    )
