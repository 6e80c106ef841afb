"""The simulator as an object: it runs in its own thread, and tests inspect it from theirs."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from aiohttp import web

from airflow_provider_luma.simulator.account import Account, Clock
from airflow_provider_luma.simulator.faults import FAILURE, Fault
from airflow_provider_luma.simulator.habits import Habits
from airflow_provider_luma.simulator.server import LoggedRequest, Server
from airflow_provider_luma.simulator.studio import Studio

#: Connections waiting to be accepted: a thousand clients may connect at once.
_BACKLOG = 4096
T = TypeVar("T")


@dataclass(frozen=True)
class JobSnapshot:
    """One job at one moment, as the vendor knows it; `created` is in seconds since the epoch."""

    request_id: str
    api: str
    slug: str
    body: dict[str, Any]
    state: str
    cost: Decimal
    charged: bool
    error: str | None
    created: float


class Simulator:
    """A local Segmind with one account. Use it as a context manager, or start() and stop() it.

    :param latency: seconds that a job takes
    :param credits: the balance in USD
    :param requests_per_minute: the rate limit; 0 for none
    :param api_key: the only key that it accepts
    :param clock_offset: seconds by which its clock is ahead of the machine's, for `Date`, the rate limit's
        reset and all timestamps
    :param history_lag: seconds until a job is in the history
    :param history_shape: the envelope of the history's rows: "data", "items", "bare_list" or "nested"
    :param id_style: "plain" if status and result write a job's id without dashes and accept both
    :param download_validators: whether videos have `ETag` and `Last-Modified`
    :param v1_content_type: the Content-Type of v1's videos
    :param v1_reply: whether v1 answers with the "video" or with "json" that has its URL
    :param clip_seconds: the length of all clips, instead of the requested one
    :param video_size: the size in bytes to which all videos are padded
    :param work_dir: where videos and uploads are kept, for the next simulator too
    """

    def __init__(
        self,
        *,
        latency: float = 2.0,
        credits: str | Decimal = "20",
        requests_per_minute: int = 0,
        api_key: str = "SG_simulator",
        history_lag: float = 0.0,
        host: str = "127.0.0.1",
        port: int = 0,
        clip_seconds: float | None = None,
        video_size: int | None = None,
        work_dir: str | Path | None = None,
        v1_content_type: str = "video/mp4",
        v1_reply: str = "video",
        clock_offset: float = 0.0,
        id_style: str = "dashes",
        history_shape: str = "data",
        download_validators: bool = True,
    ) -> None:
        self.url = ""
        self.api_key = api_key
        self._latency = latency
        self._credits = Decimal(credits)
        self._requests_per_minute = requests_per_minute
        self._clock_offset = clock_offset
        self._habits = Habits(
            history_lag=history_lag,
            history_shape=history_shape,
            id_style=id_style,
            download_validators=download_validators,
            v1_content_type=v1_content_type,
            v1_reply=v1_reply,
        )
        self._host = host
        self._port = port
        self._clip_seconds = clip_seconds
        self._video_size = video_size
        self._work_dir = work_dir
        self._server: Server
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event
        self._thread = threading.Thread(target=self._run, name="luma-simulator", daemon=True)
        self._started: Future[None] = Future()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> Self:
        """Start serving; `url` accepts connections when this returns."""
        self._thread.start()
        self._started.result()
        return self

    def stop(self) -> None:
        """Close all connections and end the thread; the state can still be read."""
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    @property
    def charges(self) -> int:
        """The number of jobs paid for."""
        return self._look(lambda: self._server.account.charges)

    @property
    def spent(self) -> Decimal:
        """What was paid for them."""
        return self._look(lambda: self._server.account.spent)

    @property
    def balance(self) -> Decimal:
        """The remaining credits, paid and free together."""
        return self._look(lambda: self._server.account.balance)

    @property
    def jobs(self) -> list[JobSnapshot]:
        """All accepted jobs, oldest first."""
        return self._look(self._snapshots)

    @property
    def requests(self) -> list[LoggedRequest]:
        """The log of requests, oldest first."""
        return self._look(lambda: [replace(entry) for entry in self._server.requests])

    @property
    def calls(self) -> dict[str, int]:
        """How often each call was made, by its name in faults."""
        return self._look(lambda: dict(self._server.calls))

    @property
    def leaks(self) -> list[LoggedRequest]:
        """The requests that carried the key to a public file."""
        return self._look(lambda: list(self._server.leaks))

    def now(self) -> float:
        """Return the simulator's time, in seconds since the epoch."""
        return self._look(lambda: self._server.account.clock.now())

    def fault(
        self,
        call: str,
        kind: str | int,
        *,
        accepted: bool | None = None,
        times: int = 1,
        status: int | None = None,
        seconds: float | None = None,
        location: str | None = None,
        bytes: int | None = None,
        request_id: str | None = None,
        style: str | None = None,
        message: str | None = None,
    ) -> None:
        """Make the next calls of this name go wrong, as `Fault` and the table in `kinds` describe."""
        fault = Fault.named(
            call,
            kind,
            accepted=accepted,
            times=times,
            status=status,
            seconds=seconds,
            location=location,
            bytes=bytes,
            request_id=request_id,
            style=style,
            message=message,
        )
        self._look(lambda: self._server.faults.add(fault))

    def clear_faults(self) -> None:
        """Drop the remaining faults."""
        self._look(lambda: self._server.faults.clear())

    def advance(self, seconds: float) -> None:
        """Advance the clock; jobs that are due by then have ended when this returns."""
        assert self._loop is not None, "the simulator does not run"

        async def jump() -> None:
            self._server.account.clock.advance(seconds)
            await self._server.settle()

        asyncio.run_coroutine_threadsafe(jump(), self._loop).result()

    def set_credits(self, credits: str | Decimal, free: str | Decimal = "0") -> None:
        """Set the balance: paid credits, and free ones on top."""

        def replace_balance() -> None:
            self._server.account.paid, self._server.account.free = Decimal(credits), Decimal(free)

        self._look(replace_balance)

    def top_up(self, credits: str | Decimal) -> None:
        """Add to the balance."""
        self._look(lambda: self._server.account.top_up(Decimal(credits)))

    def delay_history(self, request_id: str, seconds: float) -> None:
        """Show a job in the history only this long after its creation; "next" is the next accepted job."""
        self._look(lambda: self._server.account.delay_history(request_id, seconds))

    def retire(self, slug: str) -> None:
        """Answer 410 to new jobs of this model."""
        self._look(lambda: self._server.retired.add(slug))

    def v1_only(self, slug: str, refusal: int = 404) -> None:
        """Refuse this model on v2, with 404 or with 405 and its HTML page."""
        self._look(lambda: self._server.v1_only.update({slug: refusal}))

    def fail_next(self, error: str = FAILURE) -> None:
        """Make the next accepted job end FAILED, at no charge."""
        self._look(lambda: self._server.account.doom_next(error))

    def _snapshots(self) -> list[JobSnapshot]:
        now = self._server.account.clock.now()
        return [
            JobSnapshot(
                request_id=job.request_id,
                api=job.api,
                slug=job.model.slug,
                body=job.body,
                state=job.state(now),
                cost=job.cost,
                charged=job.clip is not None,
                error=job.error,
                created=job.created,
            )
            for job in self._server.account.jobs.values()
        ]

    def _look(self, function: Callable[[], T]) -> T:
        """Call a function on the event loop, which owns the state, while it runs."""
        if self._loop is None:
            return function()

        async def call() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if self._started.done():
                raise
            self._started.set_exception(error)

    async def _serve(self) -> None:
        with tempfile.TemporaryDirectory(prefix="luma-simulator-") as temporary:
            account = Account(Clock(self._clock_offset), self._latency, self._requests_per_minute)
            account.paid = self._credits
            studio = Studio(Path(self._work_dir or temporary), self._clip_seconds, self._video_size)
            self._server = Server(account, studio, self.api_key, self._habits)
            runner = web.AppRunner(
                self._server.application(), handler_cancellation=True, access_log=None, shutdown_timeout=0.1
            )
            try:
                await runner.setup()
                site = web.TCPSite(runner, self._host, self._port, backlog=_BACKLOG)
                await site.start()
                port = runner.addresses[0][1]
                shown = "127.0.0.1" if self._host in ("0.0.0.0", "::") else self._host  # noqa: S104
                self.url = f"http://{shown}:{port}"
                self._stopping = asyncio.Event()
                self._loop = asyncio.get_running_loop()
                self._started.set_result(None)
                await self._stopping.wait()
            finally:
                await runner.cleanup()
                await self._server.close()
