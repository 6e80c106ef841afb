"""Serves videos like a static file host: ranges, validators and Content-Length."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter


class ClipResponse(web.StreamResponse):
    """A reply with a video, or with the range that a GET requests.

    aiohttp's FileResponse will not do: it ignores the ETag in If-Range, and dates a file by the machine's
    clock.

    :param modified: the `Last-Modified`, in seconds since the epoch
    :param validators: whether there are `ETag` and `Last-Modified` at all
    """

    def __init__(
        self, clip: Path, headers: Mapping[str, str], *, modified: float, validators: bool = True
    ) -> None:
        super().__init__(headers=headers)
        self.clip = clip
        self.modified = modified
        self.validators = validators
        self.size: int | None = None

    def open(self, request: web.BaseRequest) -> tuple[BinaryIO, int]:
        """Set the headers; return the file, positioned at the first byte to send, and the number of bytes."""
        file = self.clip.open("rb")
        stat = os.fstat(file.fileno())
        size = stat.st_size if self.size is None else min(self.size, stat.st_size)
        self.headers["Accept-Ranges"] = "bytes"
        if self.validators:
            self.etag, self.last_modified = f"{stat.st_mtime_ns:x}-{size:x}", int(self.modified)
        start, stop = 0, size
        if request.method == "GET" and "Range" in request.headers and self._is_still(request):
            try:
                start, stop, _ = request.http_range.indices(size)
            except ValueError:
                start = size
            if start >= stop:
                self.set_status(416)
                self.headers["Content-Range"] = f"bytes */{size}"
                return file, 0
            self.set_status(206)
            self.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        file.seek(start)
        return file, stop - start

    def _is_still(self, request: web.BaseRequest) -> bool:
        """Whether the file still matches If-Range, if there is such a condition."""
        wanted = request.headers.get("If-Range")
        return wanted is None or wanted in (self.headers.get("ETag"), self.headers.get("Last-Modified"))

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send everything, the body with ``sendfile``."""
        if self.prepared:
            return await super().prepare(request)
        file, self.content_length = self.open(request)
        with file:
            writer = await super().prepare(request)
            if self.content_length and request.method != "HEAD":
                transport = request.transport
                if transport is None or transport.is_closing():
                    raise ConnectionResetError("Connection lost")
                loop = asyncio.get_running_loop()
                await loop.sendfile(transport, file, file.tell(), self.content_length)
                await super().write_eof()
        return writer
