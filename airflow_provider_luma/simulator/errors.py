"""Error replies: the vendor's envelope, a gateway's, an HTML page, and a message that echoes the key."""

from __future__ import annotations

import html
import json
import re
import uuid
from collections.abc import Callable
from urllib.parse import quote

from aiohttp import web

from airflow_provider_luma.simulator.account import utc_text
from airflow_provider_luma.simulator.faults import Fault

_MESSAGES = {
    400: "Malformed request",
    401: "Invalid API key",
    402: "Insufficient credits to run this model",
    403: "This model is not allowed for your account",
    404: "Not Found",
    406: "Insufficient credits to run this model",
    410: "This model has been retired",
    422: "Validation failed",
    429: "Rate limit exceeded",
}
_ESCAPES: dict[str, Callable[[str], str]] = {
    "raw": lambda key: _in_json(key),
    "json": lambda key: re.sub(r"""[&'+<>`]""", lambda found: f"\\u{ord(found[0]):04x}", _in_json(key)),
    "html": lambda key: _in_json(html.escape(key)),
    "percent": lambda key: quote(key, safe=""),
}


def error_page(status: int) -> web.Response:
    """Return a gateway's HTML error page."""
    title = {405: "405 Method Not Allowed", 404: "404 Not Found"}.get(status, "502 Bad Gateway")
    text = f"<html><head><title>{title}</title></head><body><center><h1>{title}</h1></center></body></html>"
    return web.Response(status=status, text=text, content_type="text/html")


def status_reply(fault: Fault, now: float) -> web.Response:
    """Return a status with the vendor's envelope."""
    status = fault.status or 500
    if status == 405:
        return error_page(status)
    message = fault.message or _MESSAGES.get(status, "Internal server error")
    if fault.message is None and (fault.call, status) == ("credits", 404):
        message = "No credits found for the user"
    return web.json_response({"error": message}, status=status, headers=_reset(fault, status, now))


def gateway_reply(fault: Fault, now: float) -> web.Response:
    """Return a reply of a gateway in front of the vendor, with its own message and id."""
    status = fault.status or 502
    headers = {"x-request-id": str(uuid.uuid4()), **_reset(fault, status, now)}
    body = {"status": "FAILED", "message": fault.message or "upstream error"}
    return web.json_response(body, status=status, headers=headers)


def echo_reply(fault: Fault, key: str) -> web.Response:
    """Return a refusal that echoes the key, escaped in one of the ways of real servers."""
    text = f'{{"error": "Invalid API key: {_ESCAPES[str(fault.style)](key)}"}}'
    return web.Response(status=fault.status or 401, text=text, content_type="application/json")


def _reset(fault: Fault, status: int, now: float) -> dict[str, str]:
    """Return the header with the limit's reset: only for a 429 whose fault has seconds, which may be negative."""
    if status != 429 or fault.seconds is None:
        return {}
    return {"x-rate-limit-reset-at-utc": utc_text(now + fault.seconds)}


def _in_json(text: str) -> str:
    return json.dumps(text)[1:-1]
