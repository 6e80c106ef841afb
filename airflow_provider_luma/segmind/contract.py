"""The vendor's contract as this provider relies on it: one declaration for each assumption, judged by replies. Pure.

The judges use the functions that the provider itself reads replies with, so an assumption holds if the provider gets
what it needs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from airflow_provider_luma.exceptions import (
    LumaRayAuthenticationError,
    LumaRayError,
    LumaRayInsufficientCredits,
    LumaRayRateLimited,
)
from airflow_provider_luma.segmind.history import (
    CLOCK_SKEW,
    HistoryEntry,
    body_digest,
    created_of,
    find_rows,
    parse_one,
    parse_rows,
)
from airflow_provider_luma.segmind.ids import is_same_id
from airflow_provider_luma.segmind.money import usd
from airflow_provider_luma.segmind.replies import (
    Reply,
    VendorStatus,
    parse_credits,
    parse_result,
    parse_status,
    parse_submit,
    parse_time,
    parse_upload,
)
from airflow_provider_luma.segmind.transcript import Exchange

#: The calls, by the paths of their requests.
_PATHS = (
    (re.compile(r"/v1/get-user-credits"), "credits"),
    (re.compile(r"/v2/requests/[^/]+/status"), "status"),
    (re.compile(r"/v2/requests/([^/]+)"), "result"),
    (re.compile(r"/request-history"), "history"),
    (re.compile(r"/request-history/[^/]+"), "history_one"),
    (re.compile(r"/upload-asset"), "upload"),
    (re.compile(r"/v2/[^/]+"), "submit"),
)
_SUBJECT = re.compile(r"/(?:requests|request-history)/([^/]+)(?:/status)?$")
#: The fields of a row that the provider reads.
_ROW = ("request_id", "model_name", "model_status", "request_body", "model_created", "credits_deduction")
#: A row that appears later may be missed; the searches of ``jobs/recovery.py`` end then.
_LATEST_ROW = timedelta(minutes=2)
#: A line of a table.
_LONGEST_SEEN = 120
#: US dollars: balances come as floats.
_ROUNDING = Decimal("0.00001")


class Outcome(StrEnum):
    """Whether an assumption holds."""

    HOLDS = "holds"
    BROKEN = "does not"
    UNKNOWN = "unknown"


class Judged(NamedTuple):
    """What a judge found.

    :param seen: what was seen, in a few words
    """

    outcome: Outcome
    seen: str


Judge = Callable[[list[Exchange]], Judged]


@dataclass(frozen=True)
class Assumption:
    """Something the provider relies on.

    :param text: what
    :param where: the module
    :param calls: what tells; none: every reply, whatever its status
    :param judge: gets the exchanges of these calls that were answered, at least one of the first
    """

    text: str
    where: str
    calls: tuple[str, ...]
    judge: Judge


@dataclass(frozen=True)
class Finding:
    """An assumption and what was found."""

    assumption: Assumption
    outcome: Outcome
    seen: str


#: In the order in which they are shown.
ASSUMPTIONS: list[Assumption] = []


def call_of(url: str) -> str:
    """Return the name of the call that a request's URL makes."""
    path = urlsplit(url).path
    return next((name for pattern, name in _PATHS if re.search(rf"{pattern.pattern}$", path)), "other")


def subject(exchange: Exchange) -> str:
    """Return the request id that a call asks about."""
    found = _SUBJECT.search(urlsplit(exchange.url).path)
    return unquote(found[1]) if found else ""


def examine(exchanges: Iterable[Exchange]) -> list[Finding]:
    """Tell of each assumption whether it holds."""
    asked = list(exchanges)
    return [
        Finding(one, outcome, _shown(seen)) for one in ASSUMPTIONS for outcome, seen in [_judged(one, asked)]
    ]


def _shown(text: str) -> str:
    """Return what was seen as one printable line."""
    line = "".join(character if character.isprintable() else "?" for character in text)
    half = _LONGEST_SEEN // 2  # the end of a network error has its cause
    return line if len(line) <= _LONGEST_SEEN else f"{line[:half]} ... {line[-half:]}"


def _judged(assumption: Assumption, exchanges: list[Exchange]) -> Judged:
    asked = [one for one in exchanges if not assumption.calls or one.call in assumption.calls]
    answered = [one for one in asked if _is_answered(one) or (not assumption.calls and one.reply)]
    first = [one for one in asked if one.call in assumption.calls[:1] or not assumption.calls]
    if not any(one in answered for one in first):
        return _unknown(_why_unanswered(first[-1]) if first else "not asked")
    try:
        return assumption.judge(answered)
    except (LumaRayRateLimited, LumaRayInsufficientCredits) as error:
        return _unknown(error.cause)
    except LumaRayError as error:
        return _broken(error.cause)


def unanswered(exchanges: Iterable[Exchange]) -> list[str]:
    """Return the names of the calls that were asked and never answered."""
    answers: dict[str, bool] = {}
    for one in exchanges:
        answers[one.call] = answers.get(one.call, False) or _is_answered(one)
    return [call for call, is_known in answers.items() if not is_known]


def _is_answered(exchange: Exchange) -> bool:
    """Whether an exchange tells anything about the contract: a 5xx or a 429 would pass."""
    reply = exchange.reply
    return not exchange.problem and (reply is None or (reply.status < 500 and reply.status != 429))


def _why_unanswered(exchange: Exchange) -> str:
    reply = exchange.reply
    return exchange.problem or (f"HTTP {reply.status} and {reply.error_text()}" if reply else "no answer")


def _assume(text: str, where: str, *calls: str) -> Callable[[Judge], Judge]:
    def declare(function: Judge) -> Judge:
        ASSUMPTIONS.append(Assumption(text, where, calls, function))
        return function

    return declare


def _holds(seen: str) -> Judged:
    return Judged(Outcome.HOLDS, seen)


def _broken(seen: str) -> Judged:
    return Judged(Outcome.BROKEN, seen)


def _unknown(seen: str) -> Judged:
    return Judged(Outcome.UNKNOWN, seen)


def _if(is_so: bool, seen: str) -> Judged:
    return _holds(seen) if is_so else _broken(seen)


def _reply(exchange: Exchange) -> Reply:
    assert exchange.reply is not None, "only a download has none"
    return exchange.reply


def _told(exchange: Exchange) -> str:
    reply = _reply(exchange)
    return f"HTTP {reply.status}, {'JSON' if reply.json() is not None else reply.error_text()}"


def _refused(exchange: Exchange) -> str:
    reply = _reply(exchange)
    return f"HTTP {reply.status}: {reply.error_text()}"


# The account


@_assume("the key is accepted", "hooks/key.py", "credits")
def _key(asked: list[Exchange]) -> Judged:
    reply = _reply(asked[0])
    if reply.status in (401, 403):
        return _broken(_refused(asked[0]))
    return _holds(_told(asked[0])) if reply.status == 200 and reply.object() else _unknown(_told(asked[0]))


@_assume("the balance is credits and free-credits, in USD", "segmind/replies.py parse_credits", "credits")
def _balance(asked: list[Exchange]) -> Judged:
    reply = _reply(asked[0])
    parse_credits(reply)
    names = ", ".join(sorted(reply.object()))
    return _if("free-credits" in reply.object(), f"fields {names}")


@_assume("a wrong key gets a 401", "segmind/replies.py unusable", "credits/wrong key")
def _wrong_key(asked: list[Exchange]) -> Judged:
    return _is_refused(asked, parse_credits)


@_assume("the history refuses a wrong key alike", "segmind/replies.py unusable", "history/wrong key")
def _wrong_key_of_history(asked: list[Exchange]) -> Judged:
    return _is_refused(asked, parse_rows)


def _is_refused(asked: list[Exchange], read: Callable[[Reply], object]) -> Judged:
    try:
        read(_reply(asked[0]))
    except LumaRayAuthenticationError:
        return _holds(_refused(asked[0]))
    return _broken(f"{_told(asked[0])}: accepted")


# Jobs that do not exist


@_assume("an unknown id is a 404 of status", "segmind/replies.py parse_status", "status/unknown id")
def _unknown_status(asked: list[Exchange]) -> Judged:
    state = parse_status(_reply(asked[0]), subject(asked[0])).state
    return _if(state is VendorStatus.NOT_FOUND, _refused(asked[0]))


@_assume("an unknown id is a 404 of result", "segmind/replies.py parse_result", "result/unknown id")
def _unknown_result(asked: list[Exchange]) -> Judged:
    state = parse_result(_reply(asked[0]), subject(asked[0])).state
    return _if(state is VendorStatus.NOT_FOUND, _refused(asked[0]))


@_assume("an unknown id is a 404 of history", "segmind/history.py parse_one", "history_one/unknown id")
def _unknown_row(asked: list[Exchange]) -> Judged:
    row = parse_one(_reply(asked[0]), subject(asked[0]))
    return _if(row is None, _refused(asked[0]))


@_assume(
    "a refusal says why in error",
    "segmind/replies.py error_text",
    "status/unknown id",
    "result/unknown id",
    "credits/wrong key",
)
def _envelope_of_errors(asked: list[Exchange]) -> Judged:
    refused = [one for one in asked if _reply(one).status >= 400]
    silent = [one for one in refused if not _reply(one).object().get("error")]
    if not refused:
        return _unknown("nothing was refused")
    return _if(not silent, _refused((silent or refused)[0]))


@_assume("an unknown slug is a 404 or a 405", "segmind/replies.py refusal", "slug/unknown")
def _unknown_slug(asked: list[Exchange]) -> Judged:
    reply = _reply(asked[0])
    return _if(reply.status in (404, 405) and reply.named_id() is None, _refused(asked[0]))


# The request history


@_assume("the history is a list of rows in some envelope", "segmind/history.py parse_rows", "history")
def _envelope_of_history(asked: list[Exchange]) -> Judged:
    for one in asked:
        rows = parse_rows(_reply(one))
    parsed = _reply(asked[-1]).json()
    envelope = f"an object of {', '.join(parsed)}" if isinstance(parsed, dict) else "a bare list"
    return _holds(f"{envelope}; {len(rows)} rows")


@_assume("a row has the fields that are read", "segmind/history.py", "history")
def _fields_of_rows(asked: list[Exchange]) -> Judged:
    rows = _raw_rows(asked)
    missing = [name for name in _ROW if not all(name in row for row in rows)]
    if not rows:
        return _unknown("there are no rows")
    return _if(not missing, f"{', '.join(missing)} missing" if missing else f"also {_others(rows[0])}")


def _others(row: dict[str, Any]) -> str:
    return ", ".join(name for name in row if name not in _ROW) or "nothing else"


@_assume("a row's status is COMPLETED, FAILED or PENDING", "segmind/history.py", "history")
def _status_of_rows(asked: list[Exchange]) -> Judged:
    words = sorted({str(row.get("model_status")) for row in _raw_rows(asked)})
    is_known = all(row.state is not VendorStatus.UNKNOWN for row in _rows(asked))
    return _if(is_known, ", ".join(words)) if words else _unknown("there are no rows")


@_assume("a row's inputs are an object", "jobs/recovery.py", "history")
def _inputs_of_rows(asked: list[Exchange]) -> Judged:
    rows = _rows(asked)
    shown = sum(row.body_sha256 is not None for row in rows)
    return (
        _if(shown == len(rows), f"{shown} of {len(rows)} rows have them")
        if rows
        else _unknown("there are no rows")
    )


@_assume("rows come newest first", "hooks/luma_ray.py newest_jobs", "history")
def _order(asked: list[Exchange]) -> Judged:
    times = [[row.created for row in parse_rows(_reply(one)) if row.created] for one in asked]
    longest = max(times, key=len)
    if len(longest) < 2:
        return _unknown(f"{len(longest)} rows with a time")
    is_sorted = all(page == sorted(page, reverse=True) for page in times)
    return _if(
        is_sorted, f"{len(longest)} rows from {longest[0]:%Y-%m-%d %H:%M} to {longest[-1]:%Y-%m-%d %H:%M}"
    )


@_assume("their times are UTC", "segmind/history.py", "history", "submit")
def _time_zone(asked: list[Exchange]) -> Judged:
    pages = [one for one in asked if one.call == "history"]
    texts = [created_of(row) for row in _raw_rows(pages)]
    if not texts:
        return _unknown("there are no rows")
    if unreadable := [text for text in texts if parse_time(text) is None]:
        return _broken(f"unreadable: {unreadable[0]!r}")
    shown = f"such as {texts[0]}"
    newest = max(row.created for row in _rows(pages) if row.created)
    if newest > pages[-1].at + CLOCK_SKEW:
        return _broken(f"{shown}, in the future at {pages[-1].at:%Y-%m-%d %H:%M} UTC")
    bought = _bought(asked)
    row = bought and _row_of(pages, bought.request_id)
    if bought and row and row.created:
        off = row.created - bought.at
        return _if(abs(off) < CLOCK_SKEW, f"{shown}; of a job, {_seconds(off)} from its submit")
    has_zone = all(not isinstance(text, str) or re.search(r"(Z|UTC|[+-]\d\d:?\d\d)$", text) for text in texts)
    return _holds(shown) if has_zone else _unknown(f"{shown}, without a zone")


@_assume("a row appears within two minutes", "jobs/recovery.py LOOK_DELAYS", "history", "submit")
def _lag(asked: list[Exchange]) -> Judged:
    pages = [one for one in asked if one.call == "history"]
    bought = _bought(asked)
    if bought is None:
        times = [row.created for row in _rows(pages) if row.created]
        age = (
            f"the newest row was {_seconds(pages[-1].at - max(times))} old" if times else "there are no rows"
        )
        return _unknown(f"{age}; tells only with a purchase")
    after = [one for one in pages if one.at >= bought.at]
    shown = next((one.at for one in after if _row_of([one], bought.request_id)), None)
    if shown is not None:
        return _if(shown - bought.at < _LATEST_ROW, f"seen {_seconds(shown - bought.at)} after the submit")
    waited = after[-1].at - bought.at if after else timedelta(0)
    seen = f"not seen {_seconds(waited)} after the submit"
    return _broken(seen) if waited >= _LATEST_ROW else _unknown(seen)


@_assume("a page has as many rows as asked for", "hooks/luma_ray.py find_jobs", "history/page 1", "history")
def _page_size(asked: list[Exchange]) -> Judged:
    for one in asked:
        if (got := len(_raw_rows([one]))) > _per_page(one):
            return _broken(f"{got} rows for per_page={_per_page(one)}")
    most = max(len(_raw_rows([one])) for one in asked)
    small = [one for one in asked if one.call == "history/page 1"]
    if not small or most < _per_page(small[0]):
        return _unknown(f"{most} rows at most")
    got = len(_raw_rows(small))
    return _if(got == _per_page(small[0]), f"{got} for per_page={_per_page(small[0])}, {most} at most")


def _per_page(exchange: Exchange) -> int:
    return int(parse_qs(urlsplit(exchange.url).query).get("per_page", ["100"])[0])


@_assume("the next page has other rows", "hooks/luma_ray.py find_jobs", "history/page 1", "history/page 2")
def _paging(asked: list[Exchange]) -> Judged:
    pages = {one.call: {row.request_id for row in parse_rows(_reply(one))} for one in asked}
    first, second = (pages.get(f"history/page {number}", set()) for number in (1, 2))
    if not second:
        return _unknown("there is no second page")
    seen = f"{len(first)} and {len(second)} rows, {len(first & second)} of them the same"
    if first & second and first != second:
        return _unknown(seen)  # a job was submitted in between
    return _if(first != second, seen)


@_assume("model_name selects a model's rows", "hooks/luma_ray.py find_jobs", "history/one model", "history")
def _filter(asked: list[Exchange]) -> Judged:
    pages = {one.call: one for one in reversed(asked)}
    if len(pages) < 2:
        return _unknown("one of two pages is missing")
    chosen, everything = (parse_rows(_reply(pages[call])) for call in ("history/one model", "history"))
    model = parse_qs(urlsplit(pages["history/one model"].url).query)["model_name"][0]
    ids = {row.request_id for row in chosen}
    lost = [row for row in everything if row.model == model and row.request_id not in ids]
    others = [row for row in chosen if model not in row.model]
    if not chosen and not lost:
        return _unknown(f"there are no rows of {model}")
    return _if(
        not lost and not others, f"{len(ids)} rows; {len(lost)} missing, {len(others)} of other models"
    )


def _raw_rows(asked: Sequence[Exchange]) -> list[dict[str, Any]]:
    """Return the last page's rows as they are."""
    parse_rows(_reply(asked[-1]))
    return [row for row in find_rows(_reply(asked[-1]).json()) or [] if row.get("request_id")]


def _rows(asked: Sequence[Exchange]) -> list[HistoryEntry]:
    return parse_rows(_reply(asked[-1]))


# All replies


@_assume("replies carry a Date", "hooks/clock.py")
def _dates(asked: list[Exchange]) -> Judged:
    replies = [one.reply for one in asked if one.reply and one.reply.status < 500]
    dated = [reply for reply in replies if _is_date(reply.headers.get("date"))]
    if not replies:
        return _unknown("there are no replies")
    return _if(len(dated) == len(replies), f"{len(dated)} of {len(replies)} replies")


def _is_date(text: str | None) -> bool:
    try:
        return parsedate_to_datetime(text or "") is not None
    except ValueError:
        return False


@_assume("the rate limit's reset is a time in UTC", "hooks/limiter.py")
def _rate_limit(asked: list[Exchange]) -> Judged:
    replies = [one.reply for one in asked if one.reply]
    names = sorted({name for reply in replies for name in reply.headers if re.search("rate-?limit", name)})
    resets = [reply for reply in replies if "x-rate-limit-reset-at-utc" in reply.headers]
    seen = f"headers {', '.join(names)}" if names else "no header about a limit"
    if not resets:
        return _unknown(seen)
    return _if(all(reply.reset_at() for reply in resets), seen)


@_assume("the API does not redirect", "hooks/transport.py")
def _redirects(asked: list[Exchange]) -> Judged:
    replied = [one for one in asked if one.reply]
    redirects = [one for one in replied if 300 <= _reply(one).status < 400]
    return _if(not redirects, _told(redirects[0]) if redirects else f"{len(replied)} replies")


# Uploads


@_assume("an upload returns its URL", "segmind/replies.py parse_upload", "upload")
def _upload(asked: list[Exchange]) -> Judged:
    url = parse_upload(_reply(asked[0]))
    return _holds(f"{', '.join(_reply(asked[0]).object())}; at {urlsplit(url).hostname}")


@_assume("the same picture gets another URL each time", "jobs/recovery.py", "upload")
def _uploads_differ(asked: list[Exchange]) -> Judged:
    urls = [parse_upload(_reply(one)) for one in asked]
    if len(urls) < 2:
        return _unknown(f"{len(urls)} upload")
    return _if(len(set(urls)) == len(urls), f"{len(set(urls))} URLs of {len(urls)} uploads")


# A purchase


class _Purchase(NamedTuple):
    submit: Exchange
    request_id: str

    @property
    def at(self) -> datetime:
        return self.submit.at


def _bought(asked: list[Exchange]) -> _Purchase | None:
    submits = [one for one in asked if one.call == "submit" and one.reply]
    named = [(one, request_id) for one in submits if (request_id := _reply(one).named_id())]
    return _Purchase(*named[-1]) if named else None


def _row_of(pages: list[Exchange], request_id: str) -> HistoryEntry | None:
    rows = (row for one in reversed(pages) for row in parse_rows(_reply(one)))
    return next((row for row in rows if is_same_id(row.request_id, request_id)), None)


@_assume("a submit returns the job's id", "segmind/replies.py parse_submit", "submit")
def _submit(asked: list[Exchange]) -> Judged:
    reply = _reply(asked[-1])
    parse_submit(reply, urlsplit(asked[-1].url).path.rpartition("/")[2])
    return _holds(f"HTTP {reply.status}, {reply.object().get('status')}; fields {', '.join(reply.object())}")


@_assume("status is QUEUED, PROCESSING, then COMPLETED", "segmind/replies.py parse_status", "status")
def _status(asked: list[Exchange]) -> Judged:
    states = [parse_status(_reply(one), subject(one)).state for one in asked]
    seen = " ".join(dict.fromkeys(states))
    if VendorStatus.UNKNOWN in states:
        return _broken(f"{seen}: {_told(asked[states.index(VendorStatus.UNKNOWN)])}")
    return _holds(seen) if VendorStatus.COMPLETED in states else _unknown(seen)


@_assume("a completed job says what it cost, and the balance", "segmind/replies.py", "status")
def _cost(asked: list[Exchange]) -> Judged:
    ends = [parse_status(_reply(one), subject(one)) for one in asked]
    done = [end for end in ends if end.state is VendorStatus.COMPLETED]
    if not done:
        return _unknown("no job was seen to complete")
    seen = f"{usd(done[-1].cost)}; balance {'unknown' if done[-1].remaining_credits is None else 'told'}"
    return _if(None not in (done[-1].cost, done[-1].remaining_credits), seen)


@_assume("the result names the video", "segmind/urls.py", "result")
def _result(asked: list[Exchange]) -> Judged:
    reply = _reply(asked[-1])
    result = parse_result(reply, subject(asked[-1]))
    return _if(result.url is not None, f"{result.state}; fields {', '.join(reply.object())}")


@_assume("the video is an MP4, public and without a key", "hooks/download.py", "download")
def _download(asked: list[Exchange]) -> Judged:
    return _holds(f"{asked[-1].detail['bytes']} bytes from {urlsplit(asked[-1].url).hostname}")


@_assume("the history shows the inputs as sent", "jobs/recovery.py", "submit", "history_one", "history")
def _inputs(asked: list[Exchange]) -> Judged:
    bought = _bought(asked)
    if bought is None:
        return _unknown("nothing was bought")
    rows = [
        row for one in asked if one.call == "history_one" if (row := parse_one(_reply(one), subject(one)))
    ]
    rows = [row for row in rows if is_same_id(row.request_id, bought.request_id)]
    row = rows[-1] if rows else _row_of([one for one in asked if one.call == "history"], bought.request_id)
    if row is None:
        return _unknown("the job was not seen there")
    return _if(
        row.body_sha256 == body_digest(bought.submit.detail), f"{len(bought.submit.detail)} fields sent"
    )


@_assume("the history finds one job by its id", "segmind/history.py parse_one", "history_one")
def _one(asked: list[Exchange]) -> Judged:
    row = parse_one(_reply(asked[-1]), subject(asked[-1]))
    return _unknown(_refused(asked[-1])) if row is None else _holds(f"{row.state}, {usd(row.cost)}")


@_assume("a clip is charged once", "jobs/", "submit", "status", "credits", "credits/after")
def _charge(asked: list[Exchange]) -> Judged:
    before, after = (
        [left for one in asked if one.call == call and (left := _left(one)) is not None]
        for call in ("credits", "credits/after")
    )
    ends = [parse_status(_reply(one), subject(one)) for one in asked if one.call == "status"]
    costs = [end.cost for end in ends if end.cost is not None]
    if _bought(asked) is None or not (before and after and costs):
        return _unknown("nothing was bought")
    spent = before[0] - after[-1]
    seen = f"{usd(spent)} less for a job of {usd(costs[-1])}"
    is_once = abs(spent - costs[-1]) < _ROUNDING
    return _holds(seen) if is_once else _unknown(f"{seen}; the account may have other jobs")


def _left(exchange: Exchange) -> Decimal | None:
    try:
        return parse_credits(_reply(exchange)).total
    except LumaRayError:
        return None


def _seconds(time: timedelta) -> str:
    seconds = time.total_seconds()
    return f"{seconds:.1f} s" if abs(seconds) < 600 else f"{time - timedelta(microseconds=time.microseconds)}"
