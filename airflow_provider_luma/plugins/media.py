"""Sends a file, or the range of it that a player asks for, piece by piece: memory stays flat however long the video."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator

import anyio.to_thread
from fastapi import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from airflow_provider_luma.plugins.folders import Opened

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def asked_for(header: str | None, size: int) -> tuple[int, int] | None:
    """Return the part of a file that a Range header asks for, as start and stop; None: all of it.

    Several ranges at once, and units other than bytes, may be answered with the whole file.

    :raises ValueError: the file has no such part
    """
    match = _RANGE.fullmatch((header or "").strip())
    if match is None or match[0] == "bytes=-":
        return None
    first, last = match.groups()
    start = int(first) if first else max(size - int(last), 0)
    stop = min(int(last) + 1, size) if first and last else size
    if last and first and int(last) < int(first):
        return None  # not a range at all, so it is ignored
    if start >= stop:
        raise ValueError("not satisfiable")
    return start, stop


class _Stream(StreamingResponse):
    """A reply that closes its file however it ends."""

    def __init__(self, opened: Opened, start: int, stop: int, status: int, headers: dict[str, str]) -> None:
        super().__init__(_pieces(opened, start, stop), status, headers)
        self._opened = opened

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._opened.close()


async def _pieces(opened: Opened, start: int, stop: int) -> AsyncIterator[bytes]:
    while start < stop:
        piece = await anyio.to_thread.run_sync(opened.read, start, min(start + opened.piece, stop))
        if not piece:
            raise OSError("the file has become shorter")
        start += len(piece)
        yield piece


def send_file(request: Request, opened: Opened, media_type: str) -> Response:
    """Answer a request for a file, and close it in the end. No header has a word of a record's in it."""
    etag = hashlib.sha256(opened.mark.encode()).hexdigest()
    headers = {
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        # Airflow would compress the bytes of a range under the Content-Range of the plain ones.
        "Content-Encoding": "identity",
        "Content-Type": media_type,
        "ETag": f'"{etag}"',
    }
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        opened.close()
        return Response(status_code=304, headers=headers)
    header = request.headers.get("range")
    if request.headers.get("if-range", headers["ETag"]) != headers["ETag"]:
        header = None
    try:
        part = asked_for(header, opened.size)
    except ValueError:
        opened.close()
        return Response(status_code=416, headers=headers | {"Content-Range": f"bytes */{opened.size}"})
    start, stop = part or (0, opened.size)
    headers["Content-Length"] = str(stop - start)
    if part:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{opened.size}"
    return _Stream(opened, start, stop, 206 if part else 200, headers)
