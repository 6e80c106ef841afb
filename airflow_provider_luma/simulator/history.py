"""The vendor's request history: filters, paging and rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from airflow_provider_luma.simulator.account import Job, utc_text
from airflow_provider_luma.simulator.contract import RefusalError

_STATUSES = ("COMPLETED", "FAILED", "PENDING")
_SORT_KEYS = ("model_created", "model_name", "credits_deduction")
_STATE = ("model_status", "credits_deduction", "generation_url", "latency_ms", "model_updated", "error")

Row = dict[str, Any]

#: Possible envelopes of a list's rows; the vendor's is not known.
SHAPES: Mapping[str, Callable[[list[Row], Mapping[str, int]], object]] = {
    "data": lambda rows, paging: {"data": rows, **paging},
    "items": lambda rows, paging: {"items": rows, **paging},
    "bare_list": lambda rows, paging: rows,
    "nested": lambda rows, paging: {"result": {"pagination": paging, "rows": rows}},
}


def _status(job: Job) -> str:
    return "PENDING" if job.finished_at is None else "COMPLETED" if job.clip else "FAILED"


def row(job: Job) -> Row:
    """Return a job's row: one output, one row."""
    done = job.finished_at
    return {
        "request_id": job.request_id,
        "model_name": job.model.slug,
        "model_status": _status(job),
        "credits_deduction": float(job.cost),
        "request_body": job.body,
        "generation_url": job.output_url if job.clip else None,
        "latency_ms": None if done is None else round(1000 * (done - job.created)),
        "model_created": utc_text(job.created),
        "model_updated": utc_text(job.created if done is None else done),
        "error": job.error,
    }


def lie(job: Job, jobs: Iterable[Job]) -> Row:
    """Return a job's row with another job's state, preferably a different one."""
    others = [other for other in jobs if other is not job]
    contrary = (other for other in others if _status(other) != _status(job))
    told = row(next(contrary, others[0] if others else job))
    return {**row(job), **{name: told[name] for name in _STATE}}


def _day(text: str) -> date:
    return datetime.strptime(text, "%Y-%m-%d").date()


@dataclass(frozen=True)
class Query:
    """A validated list request."""

    page: int
    per_page: int
    first: date
    last: date
    model_name: str
    status: str
    sort_by: str
    descending: bool

    @classmethod
    def parse(cls, given: Mapping[str, str], now: float) -> Query:
        """Parse the query string; anything that the vendor would not understand is a 400."""
        try:
            page, per_page = int(given.get("page", "1")), int(given.get("per_page", "20"))
            today = datetime.fromtimestamp(now, UTC).date()
            last = _day(given["to_date"]) if "to_date" in given else today
            first = _day(given["from_date"]) if "from_date" in given else today - timedelta(days=7)
        except ValueError as error:
            raise RefusalError(400, f"Invalid query: {error}") from error
        if page < 1 or not 1 <= per_page <= 100:
            raise RefusalError(400, "page must be at least 1 and per_page between 1 and 100")
        if not timedelta(0) <= last - first <= timedelta(days=31):
            raise RefusalError(400, "The date range must span 0 to 31 days")
        status, sort_by = given.get("status", ""), given.get("sort_by", "model_created")
        order = given.get("sort_order", "desc")
        if status not in ("", *_STATUSES):
            raise RefusalError(400, f"status must be one of {', '.join(_STATUSES)}")
        if sort_by not in _SORT_KEYS or order not in ("asc", "desc"):
            raise RefusalError(400, "Invalid sort_by or sort_order")
        return cls(page, per_page, first, last, given.get("model_name", ""), status, sort_by, order == "desc")

    def answer(self, jobs: Iterable[Job], shape: str, row_of: Callable[[Job], Row] = row) -> object:
        """Return one page of the matching rows."""
        rows = [
            row_of(job)
            for job in jobs
            if self.model_name in job.model.slug
            and self.first <= datetime.fromtimestamp(job.created, UTC).date() <= self.last
        ]
        rows = [found for found in rows if self.status in ("", found["model_status"])]
        rows.sort(key=lambda found: found[self.sort_by], reverse=self.descending)
        start = (self.page - 1) * self.per_page
        paging = {"page": self.page, "per_page": self.per_page, "total": len(rows)}
        return SHAPES[shape](rows[start : start + self.per_page], paging)
