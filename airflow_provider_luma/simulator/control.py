"""The simulator's own routes, for tests and rehearsals; they need no key."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

from aiohttp import web

from airflow_provider_luma.simulator.account import utc_text
from airflow_provider_luma.simulator.contract import RefusalError
from airflow_provider_luma.simulator.faults import Fault

if TYPE_CHECKING:
    from airflow_provider_luma.simulator.server import Server


class Control:
    """Faults, credits and the state of a server."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def routes(self) -> list[tuple[str, str, Callable[[web.Request], Awaitable[web.Response]]]]:
        """Return methods, paths and handlers."""
        return [
            ("POST", "/simulator/faults", self._add_fault),
            ("DELETE", "/simulator/faults", self._clear_faults),
            ("POST", "/simulator/credits", self._top_up),
            ("GET", "/simulator/state", self._state),
        ]

    async def _add_fault(self, request: web.Request) -> web.Response:
        faults = self._server.faults
        try:
            faults.add(Fault.from_json(json.loads(await request.text())))
        except ValueError as error:
            raise RefusalError(400, str(error)) from error
        return web.json_response({"faults": faults.listing()})

    async def _clear_faults(self, request: web.Request) -> web.Response:
        self._server.faults.clear()
        return web.json_response({"faults": []})

    async def _top_up(self, request: web.Request) -> web.Response:
        try:
            given = json.loads(await request.text(), parse_float=Decimal)
            if not isinstance(given, dict) or set(given) != {"credits"}:
                raise ValueError('a top-up must be a JSON object such as {"credits": "50"}')
            self._server.account.top_up(Decimal(str(given["credits"])))
        except (ValueError, InvalidOperation) as error:
            message = str(error) if isinstance(error, ValueError) else "credits must be a number"
            raise RefusalError(400, message) from error
        return web.json_response({"balance": str(self._server.account.balance)})

    async def _state(self, request: web.Request) -> web.Response:
        account = self._server.account
        jobs = [
            {
                "request_id": job.request_id,
                "api": job.api,
                "slug": job.model.slug,
                "state": job.state(account.clock.now()),
                "cost": float(job.cost),
                "created": utc_text(job.created),
                "error": job.error,
            }
            for job in account.jobs.values()
        ]
        return web.json_response(
            {
                "charges": account.charges,
                "spent": str(account.spent),
                "balance": str(account.balance),
                "jobs": jobs,
                "calls": self._server.calls,
                "refused": self._server.account.refused,
                "leaks": len(self._server.leaks),
                "faults": self._server.faults.listing(),
            }
        )
