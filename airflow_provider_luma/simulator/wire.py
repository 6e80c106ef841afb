"""Replies that trickle, break off or never arrive."""

from __future__ import annotations

import asyncio
import io
import socket
import struct
from typing import BinaryIO, NoReturn

from aiohttp import web

from airflow_provider_luma.simulator.clips import ClipResponse

#: A reply trickles in this many pieces, or in more if they would be larger than a megabyte.
_DRIPS = 20
_LARGEST_DRIP = 2**20


async def hang_up(request: web.Request, abruptly: bool = False) -> NoReturn:
    """Close the connection, and wait for the resulting cancellation."""
    transport = request.transport
    if transport is not None and abruptly:
        linger = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()
    elif transport is not None:
        transport.close()
    await asyncio.Future()
    raise AssertionError("the connection outlived its end")


async def drip(
    request: web.Request,
    true_reply: web.StreamResponse,
    *,
    seconds: float = 0.0,
    share: float = 1.0,
    most: int | None = None,
) -> web.StreamResponse:
    """Send the true headers, then a share of the true body over some seconds; hang up if that is not all of it."""
    if request.method == "HEAD":
        return true_reply
    source: BinaryIO
    if isinstance(true_reply, ClipResponse):
        source, length = true_reply.open(request)
    else:
        assert isinstance(true_reply, web.Response)
        body = true_reply.body if isinstance(true_reply.body, bytes) else b""
        source, length = io.BytesIO(body), len(body)
    reply = web.StreamResponse(status=true_reply.status, headers=true_reply.headers)
    reply.content_length = length
    with source:
        await reply.prepare(request)
        sent = left = int(length * share) if most is None else min(length, most)
        piece = min(max(1, -(-left // _DRIPS)), _LARGEST_DRIP)
        pause = seconds * piece / max(1, left)
        while left > 0:
            await reply.write(source.read(min(piece, left)))
            left -= piece
            await asyncio.sleep(pause)
    if sent < length:
        await hang_up(request)
    await reply.write_eof()
    return reply
