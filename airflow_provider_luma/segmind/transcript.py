"""What the vendor was asked and what it answered, without anything private: for reports, and to be judged again. Pure.

A text in a reply is kept only under a name that is known to hold nothing private. A URL keeps its host, anything else
becomes a pseudonym, which is the same for the same text within one transcript: what was equal stays equal.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from airflow_provider_luma.segmind.money import money
from airflow_provider_luma.segmind.redaction import redact
from airflow_provider_luma.segmind.replies import Reply
from airflow_provider_luma.segmind.urls import parse_url

FORMAT = 1

#: The fields whose text is kept, redacted: the vendor's own words, and ids.
_KEPT = frozenset(
    "request_id status model_name model_status error message detail code type content_type".split()
)
_AMOUNT = re.compile(r"credit|cost|balance|price|amount", re.IGNORECASE)
_TIME = re.compile(r"(_at|created|updated|time|timestamp|date)$", re.IGNORECASE)
#: The field with a job's inputs as sent, and what else it may be called: no text in it is the vendor's.
_INPUTS = frozenset("request_body body input inputs parameters params payload request".split())
_KEPT_HEADER = re.compile(
    r"date|age|content-(type|length)|server|allow|retry-after|x-(request-id|cost|generation-time|remaining-credits)"
    r"|.*rate-?limit.*"
)
#: Instead of a header's value that is not kept.
_HIDDEN = "..."
#: Of a time, in whatever format the vendor has: "Saturday, 28 November 2026 12:34:56 +0000".
_LONGEST_TIME = 42
#: Deeper is no reply of the vendor's, and would exhaust the stack.
_DEEPEST = 50
#: Of a reply that is not JSON: its title, and more than enough to recognize a proxy or a gateway.
_LONGEST_TEXT = 300
#: Of a text: a message may echo a frame in base64, and only a line of it is shown.
_LONGEST_READ = 4000

#: How deep text may be quoted in text; deeper is not shown at all.
_MOST_QUOTED = 8
_ESCAPE = re.compile(r"\\+(?:u00|x)([0-9a-f]{2})|\\+(?=[/\"'])", re.IGNORECASE)

_URL = re.compile(r"https?://[^\s\"'<>]+", re.IGNORECASE)
_EMAIL = re.compile(r"[\w.+%-]+@[\w.-]+")
_TOKEN = re.compile(r"\bBearer \S+|\beyJ[\w.-]+", re.IGNORECASE)
_SIGNATURE = re.compile(
    r"([\w-]*(?:signature|sig|token|secret|credential|policy|key))=[^\s&\"'<>]+", re.IGNORECASE
)
_PREFIX = re.compile(r"^(https?://[^/]+)/(?:.*/)?(?=(?:v1|v2|inference-request|upload-asset)\b)")


@dataclass(frozen=True)
class Exchange:
    """One call and what came of it.

    :param call: what was asked; see ``segmind/contract.py``
    :param method: of the request
    :param url: of the request, with its query
    :param at: when the reply arrived, by the vendor's clock if known
    :param seconds: how long it took to begin
    :param reply: None if there was none, or if it was a video
    :param problem: why there was no reply
    :param detail: of a submit, the body sent; of a download, what was fetched
    """

    call: str
    method: str
    url: str
    at: datetime
    seconds: float = 0.0
    reply: Reply | None = None
    problem: str = ""
    detail: Any = None


class Redactor:
    """Removes what is private from exchanges.

    :param salt: random, and not kept, so that nobody can test a guess against a pseudonym
    """

    def __init__(self, salt: bytes) -> None:
        self._salt = salt

    def exchange(self, exchange: Exchange) -> Exchange:
        """Return an exchange without anything private."""
        reply = exchange.reply
        return replace(
            exchange,
            url=self._url(exchange.url) if exchange.call == "download" else _without_prefix(exchange.url),
            reply=None if reply is None else self._reply(reply),
            problem=self.text(exchange.problem),
            detail=self._value(exchange.detail, is_inputs=True),
        )

    def _reply(self, reply: Reply) -> Reply:
        headers = {
            name.lower(): self.text(value) if _KEPT_HEADER.fullmatch(name.lower()) else _HIDDEN
            for name, value in reply.headers.items()
        }
        parsed = reply.json()
        if not _is_json(reply):
            body = self.text(reply.body.decode(errors="backslashreplace"))[:_LONGEST_TEXT].encode()
            if _is_json(
                Reply(reply.status, headers, body)
            ):  # it was cut; it must not become readable by that
                body += b"..."
        else:
            body = _dumped(self._value(parsed))
        return Reply(reply.status, headers, body, reply.received_at)

    def _value(self, value: Any, name: str = "", depth: int = 0, *, is_inputs: bool = False) -> Any:
        if depth > _DEEPEST:
            return "<too deep>"
        if isinstance(value, dict):
            return {
                self.text(key): self._value(item, key, depth + 1, is_inputs=is_inputs or key in _INPUTS)
                for key, item in value.items()
            }
        if isinstance(value, list):
            return [self._value(item, name, depth + 1, is_inputs=is_inputs) for item in value]
        if isinstance(value, str):
            return self._inputs(value, depth) if name in _INPUTS else self._string(value, name, is_inputs)
        return value

    def _inputs(self, value: str, depth: int) -> Any:
        """Redact inputs that are JSON in a string; it remains a string."""
        parsed = Reply(200, {}, value.encode(errors="replace")).json()
        return (
            _dumped(self._value(parsed, depth=depth + 1, is_inputs=True)).decode()
            if isinstance(parsed, dict)
            else self._pseudonym(value)
        )

    def _string(self, value: str, name: str, is_inputs: bool) -> str:
        if is_inputs:
            return self._pseudonym(value)
        if parse_url(value):
            return self._url(value)
        is_time = _TIME.search(name) and len(value) <= _LONGEST_TIME
        is_amount = _AMOUNT.search(name) and money(value) is not None
        if name in _KEPT or is_time or is_amount or not value:
            return self.text(value)
        return self._pseudonym(value)

    def text(self, text: str) -> str:
        """Return text without e-mail addresses, keys, tokens, and the paths of URLs."""
        if len(text) > _LONGEST_READ:  # nothing is cut in two, lest half of it be shown
            text = text[:_LONGEST_READ].rpartition(" ")[0]
        text = _unquoted(text)
        text = _URL.sub(lambda found: self._url(found[0]), text)
        text = _TOKEN.sub("<token>", _EMAIL.sub("<e-mail>", text))
        return redact(_SIGNATURE.sub(r"\1=<hidden>", text))

    def _url(self, url: str) -> str:
        """Return a URL of the same scheme and host whose path tells only its suffix."""
        try:
            parts = urlsplit(url.strip())
            host = parts.hostname
        except ValueError:
            host = None
        if not host or not re.fullmatch(r"[\w.-]+", host):
            return f"<url {self._digest(url)}>"
        suffix = PurePosixPath(parts.path).suffix
        known = suffix if re.fullmatch(r"\.\w{1,5}", suffix) else ""
        return f"{parts.scheme}://{host}/{self._digest(url)}{known}"

    def _pseudonym(self, text: str) -> str:
        return f"<text {self._digest(text)}>"

    def _digest(self, text: str) -> str:
        return hashlib.sha256(self._salt + text.encode(errors="replace")).hexdigest()[:8]


def _unquoted(text: str) -> str:
    """Undo what URLs, HTML and JSON do to text that is quoted in them, however often."""
    for _ in range(_MOST_QUOTED):
        plain = html.unescape(unquote(text))
        plain = _ESCAPE.sub(lambda found: chr(int(found[1], 16)) if found[1] else "", plain)
        if plain == text:
            return text
        text = plain
    return "<quoted text>"


def _without_prefix(url: str) -> str:
    """Return a call's URL without the path of a connection's own gateway, which may be a secret."""
    return _PREFIX.sub(r"\1/", url)


def _is_json(reply: Reply) -> bool:
    return reply.json() is not None or reply.body.strip() == b"null"


def _dumped(value: Any) -> bytes:
    return json.dumps(value, default=_number).encode()


def _number(value: object) -> float:
    assert isinstance(value, Decimal)
    return float(value)


def dump(exchanges: Iterable[Exchange], **about: str) -> dict[str, Any]:
    """Return a transcript as JSON values.

    :param about: what else to say in it
    """
    return {"format": FORMAT, **about, "exchanges": [_dump_one(exchange) for exchange in exchanges]}


def _dump_one(exchange: Exchange) -> dict[str, Any]:
    told: dict[str, Any] = {
        "call": exchange.call,
        "request": f"{exchange.method} {exchange.url}",
        "at": exchange.at.isoformat(),
        "seconds": round(exchange.seconds, 3),
    }
    if exchange.problem:
        told["problem"] = exchange.problem
    if exchange.detail is not None:
        told["detail"] = exchange.detail
    reply = exchange.reply
    if reply is not None:
        parsed = reply.json()
        body = {"json": parsed} if _is_json(reply) else {"text": reply.body.decode(errors="replace")}
        told["reply"] = {"status": reply.status, "headers": dict(reply.headers), **body}
    return json.loads(json.dumps(told, default=_number))  # type: ignore[no-any-return]


def load(told: object) -> list[Exchange]:
    """Return a transcript's exchanges.

    :raises ValueError: it is not a transcript
    """
    try:
        assert isinstance(told, dict)
        if told["format"] != FORMAT:
            raise ValueError(f"it has format {told['format']!r}, and this version reads {FORMAT}")
        return [_load_one(one) for one in told["exchanges"]]
    except (AssertionError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"it is not a transcript ({type(error).__name__}: {error})") from None


def _load_one(told: Mapping[str, Any]) -> Exchange:
    method, _, url = told["request"].partition(" ")
    at = datetime.fromisoformat(told["at"])
    reply = None
    if (answer := told.get("reply")) is not None:
        body = answer["text"].encode() if "text" in answer else _dumped(answer["json"])
        reply = Reply(int(answer["status"]), dict(answer["headers"]), body, at)
    return Exchange(
        call=told["call"],
        method=method,
        url=url,
        at=at,
        seconds=float(told["seconds"]),
        reply=reply,
        problem=str(told.get("problem", "")),
        detail=told.get("detail"),
    )
