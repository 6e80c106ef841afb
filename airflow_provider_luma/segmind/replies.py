"""What the vendor's replies to the submit, status, result, credits and upload calls mean. Pure.

Contract: https://docs.segmind.com (v1 and v2 inference, credits, storage), compiled 2026-11-22.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from airflow_provider_luma.exceptions import (
    LumaRayAuthenticationError,
    LumaRayError,
    LumaRayInsufficientCredits,
    LumaRayModelUnavailable,
    LumaRayRateLimited,
    LumaRayRefused,
    LumaRaySubmitUnknown,
    LumaRayUnavailable,
)
from airflow_provider_luma.segmind.ids import is_same_id, parse_id
from airflow_provider_luma.segmind.models import advice
from airflow_provider_luma.segmind.money import money
from airflow_provider_luma.segmind.redaction import redact
from airflow_provider_luma.segmind.urls import drop_frames, output_url, parse_url

#: 4xx codes that mean that a gateway lost the outcome, not that the vendor refused.
_UNKNOWN_OUTCOME_4XX = (408, 499)
#: The HTTP statuses with which the vendor itself reports COMPLETED and FAILED.
_OUTCOME_STATUSES = (200, 422)


@dataclass(frozen=True)
class Reply:
    """A complete HTTP reply.

    :param status: the HTTP status
    :param headers: the headers, case-insensitive
    :param body: the bytes
    :param received_at: when it arrived, by the vendor's clock if known
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    received_at: datetime = field(default_factory=lambda: datetime.now(UTC), compare=False)

    def json(self) -> Any:
        """Return the parsed body, with non-integers as Decimal; None if it is not JSON."""
        try:
            return json.loads(self.body, parse_float=Decimal)
        except (ValueError, RecursionError):
            return None

    def object(self) -> dict[str, Any]:
        """Return the body if it is a JSON object, else an empty dict."""
        parsed = self.json()
        return parsed if isinstance(parsed, dict) else {}

    def error_text(self) -> str:
        """Return the vendor's error text, redacted; anything else is only described."""
        error = self.object().get("error")
        if isinstance(error, dict):
            error = error.get("message", error)
        if error:
            return redact(str(error))
        if not self.body.strip():
            return "an empty reply"
        if self.body.lstrip()[:1] == b"<":
            return "an HTML page"
        return f"an unreadable reply of {len(self.body)} bytes"

    def named_id(self) -> str | None:
        """Return the request id in the body."""
        return parse_id(self.object().get("request_id"))

    def header_id(self) -> str | None:
        """Return ``x-request-id``: the job's, or a gateway's for the HTTP request."""
        return parse_id(self.headers.get("x-request-id"))

    def reset_at(self) -> datetime | None:
        """Return when the rate limit resets, from ``x-rate-limit-reset-at-utc``."""
        return parse_time(self.headers.get("x-rate-limit-reset-at-utc"))


class VendorStatus(StrEnum):
    """A job's status in the vendor's words, and two of ours."""

    QUEUED = "QUEUED"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    #: No usable status: presumably still running.
    UNKNOWN = "UNKNOWN"
    #: 404: expired after an hour, not visible yet, or never existed.
    NOT_FOUND = "NOT_FOUND"


@dataclass(frozen=True)
class JobStatus:
    """The answer to one poll.

    :param state: the job's status
    :param error: the vendor's error text for a FAILED job, redacted
    :param cost: US dollars charged
    :param remaining_credits: the balance after the job in US dollars
    :param output_url: where the video is; never from the status call itself
    """

    state: VendorStatus
    error: str | None = None
    cost: Decimal | None = None
    remaining_credits: Decimal | None = None
    output_url: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class JobResult:
    """The result of a job.

    :param state: the job's status
    :param url: where the video is; None if the reply names no URL that could be it
    :param cost: US dollars charged
    :param remaining_credits: the balance after the job in US dollars
    :param body: the whole reply, for the record
    """

    state: VendorStatus
    url: str | None = field(repr=False)
    cost: Decimal | None
    remaining_credits: Decimal | None
    body: dict[str, Any] = field(repr=False)

    def status(self) -> JobStatus:
        """Return the result as the answer to a poll."""
        return JobStatus(
            self.state,
            error=_failure(self.body) if self.state is VendorStatus.FAILED else None,
            cost=self.cost,
            remaining_credits=self.remaining_credits,
            output_url=self.url,
        )


class Credits(dict[str, float]):
    """The workspace's balance in US dollars; as an XCom, a dict of ``paid``, ``free`` and ``total``.

    :param paid: purchased credits
    :param free: free credits
    """

    def __init__(self, paid: Decimal, free: Decimal) -> None:
        self.paid = paid
        self.free = free
        #: What can be spent: presumably the sum of both.
        self.total = paid + free
        super().__init__(paid=float(paid), free=float(free), total=float(self.total))


def parse_submit(reply: Reply, model: str) -> str:
    """Return the request id of an accepted v2 submit.

    :param model: the slug that was asked for
    :raises LumaRayRefused: the vendor refused; nothing was bought
    :raises LumaRayRateLimited: 429; nothing was bought
    :raises LumaRaySubmitUnknown: any other answer: it may have been bought
    """
    request_id = reply.named_id()
    if request_id and (reply.status < 300 or reply.status == 422):
        return request_id
    raise submit_error(reply, model)


def submit_error(reply: Reply, model: str, request_id: str | None = None) -> LumaRayError:
    """Return the error for a v1 or v2 submit that was not accepted: refused, rate-limited, or of unknown outcome.

    :param model: the slug that was asked for
    :param request_id: the FAILED job's, for a refusal on v1
    """
    if reply.status == 429:
        return rate_limited(reply)
    body = reply.object()
    # A reply with an unreadable job id is not a refusal.
    names_none = not body.get("request_id") or reply.named_id()
    refused = 400 <= reply.status < 500 and reply.status not in _UNKNOWN_OUTCOME_4XX
    if names_none and (refused or (reply.status < 300 and body.get("error"))):
        return refusal(reply, request_id, model)
    return LumaRaySubmitUnknown(
        f"The submit got HTTP {reply.status} and {reply.error_text()}, which does not say whether the job was bought.",
        status_code=reply.status,
        hint=reply.named_id() or reply.header_id(),
    )


def rate_limited(reply: Reply) -> LumaRayRateLimited:
    """Return the error for a 429."""
    reset_at = reply.reset_at()
    when = f" until {reset_at:%H:%M:%S} UTC" if reset_at else ""
    return LumaRayRateLimited(
        f"Segmind's rate limit is reached{when} (429).",
        reset_at=reset_at,
        now=reply.received_at,
    )


def refusal(reply: Reply, request_id: str | None = None, model: str | None = None) -> LumaRayRefused:
    """Return the error for a 4xx, or for a 200 that carries an ``error``.

    :param model: the slug that was asked for
    """
    text = reply.error_text()
    lacks_credits = reply.status == 402 or (
        reply.status == 406 and re.search(r"credit|balance|fund", text, re.IGNORECASE)
    )
    kind, remedy = LumaRayRefused, "Correct the request, then clear the task."
    if lacks_credits:
        kind, remedy = LumaRayInsufficientCredits, "Top up the account, then clear the task."
    elif reply.status in (401, 403):
        kind, remedy = LumaRayAuthenticationError, "Check the API key in the connection's password."
    elif reply.status in (404, 410):
        kind = LumaRayModelUnavailable
        remedy = (
            "Check the URLs in the connection: the host does not know this call."
            if model is None
            else advice(model)
        )
    return kind(
        f"Segmind refused the call ({reply.status}): {text}.",
        remedy=remedy,
        request_id=request_id,
        status_code=reply.status,
    )


def unusable(reply: Reply, what: str) -> LumaRayError:
    """Return the error for a free call with an unusable reply."""
    if reply.status == 429:
        return rate_limited(reply)
    if reply.status in (401, 403):
        return refusal(reply)
    return LumaRayUnavailable(
        f"{what} got HTTP {reply.status} and {reply.error_text()}.",
        status_code=reply.status,
    )


def parse_status(reply: Reply, request_id: str) -> JobStatus:
    """Parse a poll's reply. When in doubt, the job is still running.

    COMPLETED and FAILED count with any HTTP status if the body names the job. If it names none, the body may be a
    gateway's, and they count only with the vendor's own statuses.

    :raises LumaRayAuthenticationError: 401 or 403
    :raises LumaRayRateLimited: 429
    """
    body = reply.object()
    word = body.get("status")
    named = body.get("request_id")
    is_ours = is_same_id(named, request_id)
    may_be_ours = is_ours or named is None
    is_believed = is_ours or (named is None and reply.status in _OUTCOME_STATUSES)
    if is_believed and word in (VendorStatus.COMPLETED, VendorStatus.FAILED):
        return _outcome(VendorStatus(word), body)
    if reply.status in (401, 403, 429):
        raise unusable(reply, "The status call")
    if reply.status == 404 and body and may_be_ours:  # a 404 without JSON is a gateway's, not the vendor's
        return JobStatus(VendorStatus.NOT_FOUND)
    if reply.status == 200 and may_be_ours and word in (VendorStatus.QUEUED, VendorStatus.PROCESSING):
        return JobStatus(VendorStatus(word))
    return JobStatus(VendorStatus.UNKNOWN)


def _failure(body: dict[str, Any]) -> str:
    return redact(str(body.get("error") or "no reason given"))


def _outcome(state: VendorStatus, body: dict[str, Any]) -> JobStatus:
    metrics = body.get("metrics")
    amounts = metrics if isinstance(metrics, dict) else {}
    return JobStatus(
        state,
        error=_failure(body) if state is VendorStatus.FAILED else None,
        cost=money(amounts.get("cost")),
        remaining_credits=money(amounts.get("remaining_credits")),
    )


def parse_result(reply: Reply, request_id: str) -> JobResult:
    """Parse a result, and find the video's URL.

    :raises LumaRayAuthenticationError: 401 or 403
    :raises LumaRayRateLimited: 429
    :raises LumaRayUnavailable: not the result of this job
    """
    body = reply.object()
    drop_frames(body)
    status = parse_status(reply, request_id)
    if status.state in (VendorStatus.UNKNOWN, VendorStatus.QUEUED, VendorStatus.PROCESSING):
        raise unusable(reply, f"The result of {request_id}")
    url = output_url(body) if status.state is VendorStatus.COMPLETED else None
    return JobResult(status.state, url, status.cost, status.remaining_credits, body)


def parse_credits(reply: Reply) -> Credits:
    """Parse the balance.

    :raises LumaRayAuthenticationError: 401 or 403
    :raises LumaRayRateLimited: 429
    :raises LumaRayUnavailable: no balance in the reply, or one that is not a finite number
    """
    body = reply.object()
    paid, free = money(body.get("credits")), money(body.get("free-credits", 0))
    if reply.status != 200 or paid is None or free is None:
        raise unusable(reply, "The credits call")
    return Credits(paid=paid, free=free)


def parse_upload(reply: Reply) -> str:
    """Return the uploaded asset's URL.

    :raises LumaRayRefused: the vendor refused the file
    :raises LumaRayRateLimited: 429
    :raises LumaRayUnavailable: no URL in the reply
    """
    body = reply.object()
    urls = body.get("file_urls") or body.get("urls")
    url = parse_url(urls[0]) if isinstance(urls, list) and urls else None
    if reply.status < 300 and url:
        return url
    if 400 <= reply.status < 500 and reply.status not in (*_UNKNOWN_OUTCOME_4XX, 429):
        raise refusal(reply)
    raise unusable(reply, "The upload of the start frame")


def parse_time(value: object) -> datetime | None:
    """Parse ISO 8601 text, or a Unix time in seconds or milliseconds, as a UTC datetime; None if it is neither."""
    try:
        if isinstance(value, int | Decimal) and not isinstance(value, bool):
            seconds = float(value)
            return datetime.fromtimestamp(seconds / 1000 if seconds > 1e11 else seconds, UTC)
        moment = datetime.fromisoformat(str(value).replace(" UTC", "+00:00"))
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        return None
