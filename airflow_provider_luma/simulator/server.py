"""All the vendor's hosts on one port: routes, key checks, refusals and the request log."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from typing import Any

from aiohttp import web

from airflow_provider_luma.simulator import history
from airflow_provider_luma.simulator.account import Account, Job
from airflow_provider_luma.simulator.clips import ClipResponse
from airflow_provider_luma.simulator.contract import MODELS, RefusalError, check_upload
from airflow_provider_luma.simulator.control import Control
from airflow_provider_luma.simulator.errors import error_page
from airflow_provider_luma.simulator.faults import FAILURE, Fault, FaultPlan
from airflow_provider_luma.simulator.habits import Habits
from airflow_provider_luma.simulator.spoil import spoil
from airflow_provider_luma.simulator.studio import FrameError, Studio

log = logging.getLogger(__name__)

_KEYLESS = ("download", "asset", "control", "other")
_OWNER = "simulator@example.com"
#: Bytes: enough for an upload of several large frames in base64.
_LARGEST_BODY = 256 * 2**20
#: How many requests the log keeps: more than any test looks at, and still little memory.
_REMEMBERED_REQUESTS = 100_000
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class LoggedRequest:
    """One request as it arrived; the status is None until there is a reply."""

    call: str
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    has_key: bool
    time: float
    status: int | None = None


_entry: ContextVar[LoggedRequest] = ContextVar("the request that this task answers")
_fault: ContextVar[Fault | None] = ContextVar("what goes wrong with it")


@dataclass
class Server:
    """The vendor's server; everything runs on one event loop."""

    account: Account
    studio: Studio
    api_key: str
    habits: Habits
    faults: FaultPlan = field(default_factory=FaultPlan)
    requests: deque[LoggedRequest] = field(default_factory=lambda: deque(maxlen=_REMEMBERED_REQUESTS))
    leaks: list[LoggedRequest] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)
    retired: set[str] = field(default_factory=set)
    v1_only: dict[str, int] = field(default_factory=dict)
    productions: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    names: dict[web.AbstractRoute, str] = field(default_factory=dict)

    def application(self) -> web.Application:
        """Return the application with all routes."""
        app = web.Application(middlewares=[self._middleware], client_max_size=_LARGEST_BODY)
        app.on_response_prepare.append(self._note_reply)
        for call, method, path, handler in (
            ("credits", "GET", "/v1/get-user-credits", self._credits),
            ("result", "GET", "/v1/requests/{id}", self._result),
            ("v1", "POST", "/v1/{slug}", self._v1),
            ("status", "GET", "/v2/requests/{id}/status", self._status),
            ("result", "GET", "/v2/requests/{id}", self._result),
            ("submit", "POST", "/v2/{slug}", self._submit),
            ("history", "GET", "/inference-request/request-history", self._history),
            ("history_one", "GET", "/inference-request/request-history/{id}", self._history_one),
            ("upload", "POST", "/upload-asset", self._upload),
            ("download", "GET", "/outputs/{name}", self._download),
            ("download", "HEAD", "/outputs/{name}", self._download),
            ("asset", "GET", f"/assets/{_OWNER}/{{name}}", self._asset),
            *(("control", *route) for route in Control(self).routes()),
        ):
            self.names[app.router.add_route(method, path, handler)] = call
        return app

    async def close(self) -> None:
        """Abandon the jobs in flight."""
        abandoned = list(self.productions.values())
        for task in abandoned:
            task.cancel()
        await asyncio.gather(*abandoned, return_exceptions=True)
        await self.studio.close()

    async def settle(self) -> None:
        """Wait for the jobs that are due."""
        now = self.account.clock.now()
        due = [task for id_, task in self.productions.items() if self.account.jobs[id_].ready_at <= now]
        if due:
            await asyncio.wait(due)

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        call = self.names.get(request.match_info.route, "other")
        entry = LoggedRequest(
            call=call,
            method=request.method,
            path=request.path,
            query=dict(request.query),
            headers=dict(request.headers),
            has_key="x-api-key" in request.headers,
            time=self.account.clock.now(),
        )
        _entry.set(entry)
        self.requests.append(entry)
        self.calls[call] += 1

        async def answer() -> web.StreamResponse:
            try:
                self._check_key(call, request, entry)
                return await handler(request)
            except RefusalError as refusal:
                if refusal.status == 405:
                    return error_page(405)
                return web.json_response(
                    {"error": refusal.message}, status=refusal.status, headers=refusal.headers
                )
            except web.HTTPMethodNotAllowed:
                return error_page(405)
            except web.HTTPException as error:
                return web.json_response({"error": error.reason}, status=error.status)
            except Exception:
                log.exception("The simulator itself failed on %s %s", request.method, request.path)
                return web.json_response({"error": "Internal server error"}, status=500)

        fault = self.faults.take(call)
        _fault.set(fault)
        if fault is None:
            return await answer()
        log.warning("%s %s gets the fault %s", request.method, request.path, fault.kind)
        return await spoil(fault, request, answer, entry.time)

    async def _note_reply(self, request: web.Request, response: web.StreamResponse) -> None:
        """Date every reply by the vendor's clock, and log it."""
        response.headers["Date"] = formatdate(self.account.clock.now(), usegmt=True)
        _entry.get().status = response.status
        log.info("%s %s -> %s", request.method, request.path, response.status)

    def _check_key(self, call: str, request: web.Request, entry: LoggedRequest) -> None:
        if call in ("download", "asset"):
            texts = [*entry.headers.values(), *entry.query.values()]
            if entry.has_key or any(self.api_key in text for text in texts):
                self.leaks.append(entry)
                log.error("THE API KEY WAS SENT TO A PUBLIC FILE: %s %s", entry.method, entry.path)
                raise RefusalError(400, "Never send the API key to a public file")
        elif call not in _KEYLESS:
            given = request.headers.get("x-api-key")
            if given != self.api_key:
                raise RefusalError(401, "Invalid API key" if given else "API key is missing")
            self.account.admit()

    async def _credits(self, request: web.Request) -> web.Response:
        account = self.account
        return web.json_response({"credits": float(account.paid), "free-credits": float(account.free)})

    async def _accept(self, request: web.Request, api: str) -> Job:
        """Check a paid POST in the vendor's order and start its production."""
        slug = request.match_info["slug"]
        if slug not in MODELS:
            raise RefusalError(404, f"Model {slug} not found")
        if slug in self.retired:
            raise RefusalError(410, f"Model {slug} has been retired")
        if api == "v2" and slug in self.v1_only:
            raise RefusalError(self.v1_only[slug], f"Model {slug} is not available on v2")
        model = MODELS[slug]
        body = model.check(await _json(request))
        job = self.account.open_job(api, model, body, f"{request.scheme}://{request.host}")
        fault = _fault.get()
        if fault is not None and fault.kind == "failed":
            job.doomed = fault.message or FAILURE
        task = asyncio.create_task(self._produce(job))
        self.productions[job.request_id] = task
        task.add_done_callback(lambda _: self.productions.pop(job.request_id))
        return job

    async def _produce(self, job: Job) -> None:
        """Finish one job once it is due and its clip is rendered."""
        clip, error = None, job.doomed
        started = time.monotonic()
        try:
            if error is None:
                clip = await self.studio.clip(job.model, job.body, job.base_url)
        except FrameError as refusal:
            error = str(refusal)
        except Exception:
            log.exception("The simulator could not render %s", job.request_id)
            error = "Internal error"
        finished_at = max(job.ready_at, job.created + time.monotonic() - started)
        await self.account.clock.sleep_until(job.ready_at)
        if clip is None:
            self.account.fail(job, error or "Internal error", finished_at)
        else:
            self.account.complete(job, clip, finished_at)

    async def _v1(self, request: web.Request) -> web.StreamResponse:
        job = await self._accept(request, "v1")
        await asyncio.shield(self.productions[job.request_id])
        headers = {
            "x-request-id": job.request_id,
            "x-cost": str(job.cost),
            "x-remaining-credits": str(job.balance_after),
            "x-generation-time": str(job.metrics()["inference_time"]),
        }
        if job.clip is None:
            return web.json_response({"error": job.error}, status=422, headers=headers)
        if self.habits.v1_reply == "json":
            return web.json_response({"status": "COMPLETED", "output": job.output_url}, headers=headers)
        headers["Content-Type"] = self.habits.v1_content_type
        return ClipResponse(job.clip, headers, modified=self.account.clock.now())

    async def _submit(self, request: web.Request) -> web.Response:
        job = await self._accept(request, "v2")
        v2_url = f"{job.base_url}/v2/requests/{job.request_id}"
        return web.json_response(
            {
                "request_id": job.request_id,
                "status": "QUEUED",
                "poll_url": f"{job.base_url}/v1/requests/{job.request_id}",
                "status_url": f"{v2_url}/status",
                "response_url": v2_url,
            }
        )

    def _job(self, request: web.Request, known: Callable[[Job], bool]) -> Job:
        """Return the job that a request refers to, if this route knows it."""
        asked = request.match_info["id"]
        job = self.account.jobs.get(self.habits.read_id(asked))
        if job is None or not known(job):
            raise RefusalError(404, f"Request {asked} not found")
        return job

    async def _status(self, request: web.Request) -> web.Response:
        return self._progress(self._job(request, self.account.has_record))

    def _progress(self, job: Job) -> web.Response:
        state = job.state(self.account.clock.now())
        body = {
            "status": state,
            "request_id": self.habits.echo(job.request_id),
            "metrics": job.metrics(),
        }
        if state != "FAILED":
            return web.json_response(body)
        return web.json_response({**body, "error": job.error}, status=422)

    async def _result(self, request: web.Request) -> web.Response:
        job = self._job(request, self.account.has_record)
        if job.clip is None:
            return self._progress(job)
        # The vendor's own sample of a result has no id.
        echo = {"request_id": self.habits.echo(job.request_id)} if self.habits.id_style == "plain" else {}
        return web.json_response(
            {
                **echo,
                "status": "COMPLETED",
                "output": job.output_url,
                "video": {
                    "url": job.output_url,
                    "content_type": "video/mp4",
                    "file_name": job.output_name,
                    "file_size": job.clip.stat().st_size,
                },
                "metrics": job.metrics(),
                "seed": int(job.request_id[:8], 16),
                "error": None,
            }
        )

    def _visible(self, job: Job) -> bool:
        lag = self.habits.history_lag if job.history_lag is None else job.history_lag
        return self.account.clock.now() >= job.created + lag

    def _row(self, job: Job) -> history.Row:
        fault = _fault.get()
        if fault is not None and fault.kind == "history_lies":
            return history.lie(job, filter(self._visible, self.account.jobs.values()))
        return history.row(job)

    async def _history(self, request: web.Request) -> web.Response:
        query = history.Query.parse(request.query, self.account.clock.now())
        fault = _fault.get()
        if fault is not None and fault.kind == "wrong_order":
            query = replace(query, descending=not query.descending)
        jobs = filter(self._visible, self.account.jobs.values())
        return web.json_response(query.answer(jobs, self.habits.history_shape, self._row))

    async def _history_one(self, request: web.Request) -> web.Response:
        return web.json_response(self._row(self._job(request, self._visible)))

    async def _upload(self, request: web.Request) -> web.Response:
        names = await self.studio.save_assets(check_upload(await _json(request)))
        folder = f"{request.scheme}://{request.host}/assets/{_OWNER}"
        return web.json_response(
            {"file_urls": [f"{folder}/{name}" for name in names], "message": "Files uploaded successfully"}
        )

    async def _download(self, request: web.Request) -> web.StreamResponse:
        clip, finished_at = self.account.output(request.match_info["name"])
        return ClipResponse(
            clip,
            {"Content-Type": "video/mp4"},
            modified=finished_at,
            validators=self.habits.download_validators,
        )

    async def _asset(self, request: web.Request) -> web.StreamResponse:
        path = self.studio.asset(request.match_info["name"])
        if not path.is_file():
            raise RefusalError(404, "Not Found")
        return web.FileResponse(path)


async def _json(request: web.Request) -> Any:
    if request.content_type != "application/json":
        raise RefusalError(406, "Content-Type must be application/json")
    try:
        return await request.json()
    except ValueError as error:
        raise RefusalError(400, "Malformed JSON in request body") from error
