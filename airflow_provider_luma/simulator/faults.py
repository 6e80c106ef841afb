"""Bad days on demand: ways in which a reply can go wrong, injected call by call."""

from __future__ import annotations

import asyncio
import io
import socket
import struct
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from aiohttp import web

from airflow_provider_luma.simulator.account import utc_text

CALLS = ("submit", "v1", "status", "result", "download", "credits", "upload", "history", "history_one")
_ACCEPTED_BY_DEFAULT = {
    "status": False,
    "html": True,
    "reset": True,
    "timeout": True,
    "slow": True,
    "truncated": True,
    "broken_json": True,
    "empty": True,
    "wrong_shape": True,
    "redirect": False,
    "wrong_content_type": True,
    "error_object": False,
    "not_video": False,
}
KINDS = tuple(_ACCEPTED_BY_DEFAULT)
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
_BROKEN_BODIES = {
    "broken_json": ("application/json", '{"request_id": "0f9b'),
    "empty": ("application/json", ""),
    "wrong_shape": ("application/json", "[]"),
    "error_object": ("application/json", '{"error": "Something went wrong"}'),
    "not_video": ("text/plain", "This is not a video."),
}
_DRIPS = 20

Answer = Callable[[], Awaitable[web.StreamResponse]]


class ClipResponse(web.FileResponse):
    """A reply with a video, which remembers its file."""

    def __init__(self, clip: Path, headers: Mapping[str, str]) -> None:
        super().__init__(clip, headers=headers)
        self.clip = clip


@dataclass
class Fault:
    """One kind of trouble for the next so many calls of one name."""

    call: str
    kind: str
    accepted: bool | None = None
    times: int = 1
    status: int | None = None
    seconds: float | None = None
    location: str | None = None

    def __post_init__(self) -> None:
        if self.call not in CALLS:
            raise ValueError(f"call must be one of {', '.join(CALLS)}: {self.call!r}")
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}: {self.kind!r}")
        if self.times < 1:
            raise ValueError(f"times must be at least 1: {self.times}")
        if self.accepted is None:
            self.accepted = _ACCEPTED_BY_DEFAULT[self.kind]

    @classmethod
    def from_text(cls, text: str) -> Fault:
        """Read CALL:KIND[:TIMES]; a number as KIND is a status to answer."""
        call, _, rest = text.partition(":")
        kind, _, times = rest.partition(":")
        if kind.isdigit():
            return cls(call, "status", status=int(kind), times=int(times or 1))
        return cls(call, kind, times=int(times or 1))

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Fault:
        """Read the same fields from a JSON object."""
        unknown = set(given) - {field.name for field in fields(cls)}
        if unknown:
            raise ValueError(f"unknown fields: {', '.join(sorted(unknown))}")
        return cls(**given)


class FaultPlan:
    """The faults to come, in the order they were asked for."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[Fault]] = defaultdict(deque)

    def add(self, fault: Fault) -> None:
        """Append a fault to its call's queue."""
        self._queues[fault.call].append(fault)

    def clear(self) -> None:
        """Forget all of them."""
        self._queues.clear()

    def take(self, call: str) -> Fault | None:
        """Use up one fault of this call, if there is any."""
        queue = self._queues.get(call)
        if not queue:
            return None
        queue[0].times -= 1
        return queue[0] if queue[0].times else queue.popleft()

    def listing(self) -> list[dict[str, Any]]:
        """Return what is left, for the state page."""
        return [asdict(fault) for queue in self._queues.values() for fault in queue]


def error_page(status: int) -> web.Response:
    """Return a gateway's HTML error page."""
    title = {405: "405 Method Not Allowed", 404: "404 Not Found"}.get(status, "502 Bad Gateway")
    text = f"<html><head><title>{title}</title></head><body><center><h1>{title}</h1></center></body></html>"
    return web.Response(status=status, text=text, content_type="text/html")


async def spoil(fault: Fault, request: web.Request, answer: Answer, now: float) -> web.StreamResponse:
    """Reply to a request the way the fault wants, carrying it out first if it is to be accepted."""
    await request.read()
    if fault.kind == "reset":
        await _carry_out(fault, answer)
        await _hang_up(request, abruptly=True)
    if fault.kind == "timeout":
        await _carry_out(fault, answer)
        await asyncio.sleep(fault.seconds if fault.seconds is not None else 86400)
        await _hang_up(request)
    reply = await answer() if fault.accepted else web.Response()
    if fault.kind == "slow":
        return await _drip(request, reply, 1.0, 1.0 if fault.seconds is None else fault.seconds)
    if fault.kind == "truncated":
        return await _drip(request, reply, 0.5, 0.0)
    if fault.kind == "wrong_content_type":
        reply.headers["Content-Type"] = "text/plain"
        return reply
    if fault.kind == "status":
        return _error(fault, now)
    if fault.kind == "html":
        return error_page(fault.status or 200)
    if fault.kind == "redirect":
        return web.Response(status=302, headers={"Location": fault.location or "/outputs/elsewhere.mp4"})
    content_type, text = _BROKEN_BODIES[fault.kind]
    return web.Response(text=text, content_type=content_type)


def _error(fault: Fault, now: float) -> web.Response:
    """Return a status with its envelope; a 429 that has seconds tells when the limit is lifted."""
    status = fault.status or 500
    if status == 405:
        return error_page(status)
    message = _MESSAGES.get(status, "Internal server error")
    if (fault.call, status) == ("credits", 404):
        message = "No credits found for the user"
    headers = {}
    if status == 429 and fault.seconds is not None:
        headers["x-rate-limit-reset-at-utc"] = utc_text(now + fault.seconds)
    return web.json_response({"error": message}, status=status, headers=headers)


async def _carry_out(fault: Fault, answer: Answer) -> None:
    """Let the request have its effect, for no longer than the fault's seconds."""
    if fault.accepted:
        carrying_out = asyncio.ensure_future(answer())
        await asyncio.wait({carrying_out}, timeout=fault.seconds)
        carrying_out.cancel()


async def _hang_up(request: web.Request, abruptly: bool = False) -> NoReturn:
    """Close the connection, and wait there for the cancellation that this brings."""
    transport = request.transport
    if transport is not None and abruptly:
        linger = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()
    elif transport is not None:
        transport.close()
    await asyncio.Future()
    raise AssertionError("the connection outlived its end")


async def _drip(
    request: web.Request, true_reply: web.StreamResponse, share: float, seconds: float
) -> web.StreamResponse:
    """Send the true headers, then a share of the true body over so many seconds; hang up if it is not all."""
    reply = web.StreamResponse(status=true_reply.status, headers=true_reply.headers)
    source: BinaryIO
    if isinstance(true_reply, ClipResponse):
        source = true_reply.clip.open("rb")
        part = request.http_range
        file = true_reply.clip.stat()
        reply.etag, reply.last_modified = f"{file.st_mtime_ns:x}-{file.st_size:x}", file.st_mtime
        reply.headers["Accept-Ranges"] = "bytes"
    else:
        assert isinstance(true_reply, web.Response)
        source = io.BytesIO(true_reply.body if isinstance(true_reply.body, bytes) else b"")
        part = slice(None)
    with source:
        total = source.seek(0, io.SEEK_END)
        start, stop, _ = part.indices(total)
        reply.content_length = stop - start
        if stop - start < total:
            reply.set_status(206)
            reply.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{total}"
        await reply.prepare(request)
        source.seek(start)
        left = int((stop - start) * share)
        piece = min(max(1, -(-left // _DRIPS)), 2**20)
        pause = seconds * piece / max(1, left)
        while left > 0:
            await reply.write(source.read(min(piece, left)))
            left -= piece
            await asyncio.sleep(pause)
    if share < 1:
        await _hang_up(request)
    await reply.write_eof()
    return reply
