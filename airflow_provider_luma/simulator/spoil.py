"""Carries out faults: what a request gets in place of its answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

from aiohttp import web

from airflow_provider_luma.simulator import boxes
from airflow_provider_luma.simulator.clips import ClipResponse
from airflow_provider_luma.simulator.errors import echo_reply, error_page, gateway_reply, status_reply
from airflow_provider_luma.simulator.faults import Fault
from airflow_provider_luma.simulator.wire import drip, hang_up

_A_DAY = 86400.0
_IMPATIENT = ("reset", "timeout", "gateway")
_ODD_IDS: dict[str, object] = {"surrogate": "\ud800", "empty": "", "number": 20261122}

Answer = Callable[[], Awaitable[web.StreamResponse]]


async def spoil(fault: Fault, request: web.Request, answer: Answer, now: float) -> web.StreamResponse:
    """Reply to a request as the fault says, after carrying it out if it is accepted."""
    await request.read()
    true_reply: web.StreamResponse = web.Response()
    if fault.kind in _IMPATIENT:
        await _carry_out(fault, answer)
    elif fault.accepted:
        true_reply = await answer()
    if fault.kind == "reset":
        await hang_up(request, abruptly=True)
    if fault.kind == "timeout":
        await asyncio.sleep(_A_DAY if fault.seconds is None else fault.seconds)
        await hang_up(request)
    reply = await _reply(fault, request, true_reply, now)
    if fault.request_id is not None:
        reply.headers.pop("x-request-id", None)
        if fault.request_id:
            reply.headers["x-request-id"] = fault.request_id
    match fault.kind:
        case "slow":
            return await drip(request, reply, seconds=1.0 if fault.seconds is None else fault.seconds)
        case "truncated":
            return await drip(request, reply, share=0.5)
        case "cut":
            return await drip(request, reply, most=1024 if fault.bytes is None else fault.bytes)
    return reply


async def _reply(
    fault: Fault, request: web.Request, true_reply: web.StreamResponse, now: float
) -> web.StreamResponse:
    """Return the reply's content: the true one if something else is wrong with it."""
    match fault.kind:
        case "status":
            return status_reply(fault, now)
        case "gateway":
            return gateway_reply(fault, now)
        case "html":
            return error_page(fault.status or 200)
        case "error_object":
            return web.json_response({"error": fault.message or "Something went wrong"})
        case "echo_key":
            return echo_reply(fault, request.headers.get("x-api-key", ""))
        case "redirect":
            location = fault.location or "/outputs/elsewhere.mp4"
            return web.Response(status=302, headers={"Location": location})
        case "broken_json":
            return web.Response(text='{"request_id": "0f9b', content_type="application/json")
        case "empty":
            return web.Response(content_type="application/json")
        case "wrong_shape":
            return web.json_response([])
        case "not_video":
            return web.Response(text="This is not a video.")
        case "wrong_content_type":
            true_reply.headers["Content-Type"] = "text/plain"
        case "odd_id" if isinstance(true_reply, web.Response) and true_reply.status == 200:
            body = json.loads(true_reply.text or "")
            return web.json_response({**body, "request_id": _ODD_IDS[str(fault.style)]})
        case "short_file" if isinstance(true_reply, ClipResponse):
            half = true_reply.clip.stat().st_size // 2
            true_reply.size = half if fault.bytes is None else fault.bytes
        case "changed" if isinstance(true_reply, ClipResponse):
            true_reply.clip = await asyncio.to_thread(boxes.with_index_last, true_reply.clip)
            true_reply.validators = False
    return true_reply


async def _carry_out(fault: Fault, answer: Answer) -> None:
    """Carry out the request, for at most the fault's seconds, unless those are a 429's reset."""
    if fault.accepted:
        carrying_out = asyncio.ensure_future(answer())
        await asyncio.wait({carrying_out}, timeout=None if fault.status == 429 else fault.seconds)
        carrying_out.cancel()
