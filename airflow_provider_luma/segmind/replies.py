"""What the vendor's replies to submit, status, result, credits and upload mean. Pure.

Contract: https://docs.segmind.com (v1 and v2 inference, credits, storage), compiled 2026-11-22.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
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
from airflow_provider_luma.segmind.models import CATALOGUE, SUCCESSOR

_KEY = re.compile(r"SG_[0-9A-Fa-f]{16,}")
_ASSET_URL = re.compile(r"https?://[^\s\"'<>]*/assets/[^\s\"'<>]*")
_FRAME_FIELDS = {*(model.frame_field for model in CATALOGUE.values()), "end_image_url"}
_URL = re.compile(r"https?://\S+")
_QUERY = re.compile(r"(https?://[^\s\"'<>?]*)\?[^\s\"'<>]*")

#: An amount with more digits before the point is no amount.
_MONEY_DIGITS = 12
#: 4xx codes by which a gateway says that it lost the outcome, not that the vendor refused.
_UNKNOWN_OUTCOME_4XX = (408, 499)


def redact(text: str) -> str:
    """Remove what looks like an API key, an uploaded asset's URL or a signature, and put the text on one short line."""
    text = _QUERY.sub(r"\1", _ASSET_URL.sub("<asset url>", _KEY.sub("<api key>", text)))
    return " ".join(text.split())[:500]


def money(value: object) -> Decimal | None:
    """Return an amount of US dollars; None where the value is not a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    try:
        amount = Decimal(str(value).strip())
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and amount.adjusted() < _MONEY_DIGITS else None


@dataclass(frozen=True)
class Reply:
    """One HTTP reply, read whole.

    :param status: the HTTP status
    :param headers: the headers, looked up without regard to case
    :param body: the bytes
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    def json(self) -> Any:
        """Return the parsed body, numbers with a point as Decimal; None where it is not JSON."""
        try:
            return json.loads(self.body, parse_float=Decimal)
        except (ValueError, RecursionError):
            return None

    def object(self) -> dict[str, Any]:
        """Return the body where it is a JSON object, else an empty dict."""
        parsed = self.json()
        return parsed if isinstance(parsed, dict) else {}

    def error_text(self) -> str:
        """Return the vendor's words, redacted; a page or another shape is only named."""
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

    def reset_at(self) -> datetime | None:
        """Return when the rate limit resets, from ``x-rate-limit-reset-at-utc``."""
        return parse_time(self.headers.get("x-rate-limit-reset-at-utc"))


class VendorStatus(StrEnum):
    """A job's state in the vendor's words, and two for what the vendor did not say."""

    QUEUED = "QUEUED"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    #: No usable word: still running, as far as anyone knows.
    UNKNOWN = "UNKNOWN"
    #: 404: expired after an hour, not there yet, or never existed.
    NOT_FOUND = "NOT_FOUND"


@dataclass(frozen=True)
class JobStatus:
    """The answer to one poll.

    :param state: where the job stands
    :param error: the vendor's text of a FAILED job, redacted
    :param cost: US dollars charged
    :param remaining_credits: the balance after the job in US dollars
    :param output_url: where the video is, known only from the request history
    :param seconds: how long the job took, from the submission on
    """

    state: VendorStatus
    error: str | None = None
    cost: Decimal | None = None
    remaining_credits: Decimal | None = None
    output_url: str | None = field(default=None, repr=False)
    seconds: float | None = None


@dataclass(frozen=True)
class JobResult:
    """The result of a job.

    :param state: where the job stands
    :param url: where the video is; None where the reply names no URL that could be it
    :param cost: US dollars charged
    :param remaining_credits: the balance after the job in US dollars
    :param body: the whole reply, for the record
    """

    state: VendorStatus
    url: str | None = field(repr=False)
    cost: Decimal | None
    remaining_credits: Decimal | None
    body: dict[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Credits:
    """The workspace's balance in US dollars.

    :param paid: bought credits
    :param free: given ones
    """

    paid: Decimal
    free: Decimal

    @property
    def total(self) -> Decimal:
        """What can be spent, presumably the sum of both."""
        return self.paid + self.free


def parse_submit(reply: Reply) -> str:
    """Return the request id of an accepted v2 submit.

    :raises LumaRayRefused: the vendor refused; nothing was bought
    :raises LumaRayRateLimited: 429; nothing was bought
    :raises LumaRaySubmitUnknown: any other answer: perhaps bought
    """
    request_id = reply.object().get("request_id")
    if isinstance(request_id, str) and request_id.strip() and (reply.status < 300 or reply.status == 422):
        return request_id.strip()
    raise submit_error(reply)


def submit_error(reply: Reply) -> LumaRayError:
    """Return the error for a v1 or v2 submit that was not accepted: refused, rate-limited, or unknown."""
    if reply.status == 429:
        return rate_limited(reply)
    if 400 <= reply.status < 500 and reply.status not in _UNKNOWN_OUTCOME_4XX:
        return refusal(reply)
    if reply.status < 300 and reply.object().get("error"):
        return refusal(reply)
    return LumaRaySubmitUnknown(
        f"The submit got HTTP {reply.status} and {reply.error_text()}, which does not tell whether the job was "
        "bought.",
        status_code=reply.status,
    )


def rate_limited(reply: Reply) -> LumaRayRateLimited:
    """Return the error for a 429."""
    reset_at = reply.reset_at()
    when = f" until {reset_at:%H:%M:%S} UTC" if reset_at else ""
    return LumaRayRateLimited(
        f"Segmind's request limit is used up{when} (429). The call bought nothing; a retry may pass.",
        reset_at=reset_at,
    )


def refusal(reply: Reply) -> LumaRayRefused:
    """Return the error for a 4xx, or for a 200 that carries an ``error``."""
    text = reply.error_text()
    said = f"Segmind refused the call ({reply.status}): {text}. The call bought nothing, and Airflow will not retry it"
    lacks_credits = reply.status == 402 or (
        reply.status == 406 and re.search(r"credit|balance|fund", text, re.IGNORECASE)
    )
    if lacks_credits:
        return LumaRayInsufficientCredits(
            f"{said}: top up the account, then clear the task.", status_code=reply.status
        )
    if reply.status in (401, 403):
        return LumaRayAuthenticationError(
            f"{said}: check the API key in the connection's password.", status_code=reply.status
        )
    if reply.status in (404, 410):
        return LumaRayModelUnavailable(
            f"{said}: the model is unknown or retired; its successor is {SUCCESSOR!r}.",
            status_code=reply.status,
        )
    return LumaRayRefused(f"{said}: correct the request, then clear the task.", status_code=reply.status)


def unusable(reply: Reply, what: str) -> LumaRayError:
    """Return the error for a free call whose reply cannot be used."""
    if reply.status == 429:
        return rate_limited(reply)
    if reply.status in (401, 403):
        return refusal(reply)
    return LumaRayUnavailable(
        f"{what} got HTTP {reply.status} and {reply.error_text()}. This call buys nothing; a retry may pass.",
        status_code=reply.status,
    )


def parse_status(reply: Reply, request_id: str) -> JobStatus:
    """Read a poll's reply; a terminal state in the body outranks the HTTP status, and doubt means still running.

    :raises LumaRayAuthenticationError: 401 or 403
    :raises LumaRayRateLimited: 429
    """
    body = reply.object()
    word = body.get("status")
    if body.get("request_id") not in (None, request_id):
        return JobStatus(VendorStatus.UNKNOWN)
    if word in (VendorStatus.COMPLETED, VendorStatus.FAILED):
        cost, remaining, seconds = (
            money(_metrics(body).get(name)) for name in ("cost", "remaining_credits", "total_time")
        )
        error = redact(str(body.get("error") or "no reason given")) if word == VendorStatus.FAILED else None
        return JobStatus(
            VendorStatus(word),
            error=error,
            cost=cost,
            remaining_credits=remaining,
            seconds=None if seconds is None else float(seconds),
        )
    if reply.status in (401, 403, 429):
        raise unusable(reply, "The status call")
    if reply.status == 404:
        return JobStatus(VendorStatus.NOT_FOUND)
    if reply.status == 200 and word in (VendorStatus.QUEUED, VendorStatus.PROCESSING):
        return JobStatus(VendorStatus(word))
    return JobStatus(VendorStatus.UNKNOWN)


def parse_result(reply: Reply, request_id: str) -> JobResult:
    """Read a result: ``output``, else ``video.url``, else the one URL in the body.

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
    """Read the balance.

    :raises LumaRayAuthenticationError: 401 or 403
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
    :raises LumaRayUnavailable: no URL in the reply
    """
    body = reply.object()
    urls = body.get("file_urls") or body.get("urls")
    if reply.status < 300 and isinstance(urls, list) and urls and _is_url(urls[0]):
        return str(urls[0]).strip()
    if 400 <= reply.status < 500 and reply.status not in (*_UNKNOWN_OUTCOME_4XX, 429):
        raise refusal(reply)
    raise unusable(reply, "The upload of the start frame")


def urls_in(value: object) -> Iterator[str]:
    """Yield every string in a JSON value that is an URL, in order."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            pending.extend(reversed(item.values()))
        elif isinstance(item, list):
            pending.extend(reversed(item))
        elif _is_url(item):
            yield str(item).strip()


def parse_time(value: object) -> datetime | None:
    """Read an ISO 8601 text or a Unix time in seconds or milliseconds as a UTC datetime."""
    try:
        if isinstance(value, int | Decimal) and not isinstance(value, bool):
            seconds = float(value)
            return datetime.fromtimestamp(seconds / 1000 if seconds > 1e11 else seconds, UTC)
        moment = datetime.fromisoformat(str(value).replace(" UTC", "+00:00"))
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _metrics(body: dict[str, Any]) -> dict[str, Any]:
    metrics = body.get("metrics")
    return metrics if isinstance(metrics, dict) else {}


def drop_frames(body: dict[str, Any]) -> None:
    """Take out of a reply the frames that it echoes: no URL of theirs is the video's, and it may be a signed one."""
    pending: list[Any] = [body]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            for name in _FRAME_FIELDS & item.keys():
                del item[name]
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)


def output_url(body: dict[str, Any]) -> str | None:
    if _is_url(body.get("output")):
        return str(body["output"]).strip()
    video = body.get("video")
    if isinstance(video, dict) and _is_url(video.get("url")):
        return str(video["url"]).strip()
    found = set(urls_in(body))
    return found.pop() if len(found) == 1 else None


def _is_url(value: object) -> bool:
    return isinstance(value, str) and _URL.fullmatch(value.strip()) is not None
