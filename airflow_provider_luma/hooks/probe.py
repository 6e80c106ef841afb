"""A hook that keeps every reply, and asks what the contract check wants to know. It buys only what its caller buys."""

from __future__ import annotations

import io
import json
import logging
import secrets
import struct
import time
import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from urllib.parse import quote, urlsplit

import requests

from airflow_provider_luma.exceptions import LumaRayError, LumaRayRateLimited
from airflow_provider_luma.hooks.key import KeyFilter, sealed
from airflow_provider_luma.hooks.limiter import Rank, RateLimiter
from airflow_provider_luma.hooks.luma_ray import LumaRayHook, newest_first
from airflow_provider_luma.hooks.settings import Settings
from airflow_provider_luma.hooks.transport import Transport
from airflow_provider_luma.media import Frame, VideoFile
from airflow_provider_luma.segmind.contract import call_of
from airflow_provider_luma.segmind.ids import is_same_id
from airflow_provider_luma.segmind.replies import JobStatus, Reply
from airflow_provider_luma.segmind.transcript import Exchange

#: The vendor's longest range of the history is 31 days.
_DAYS = timedelta(days=30)
#: So that an account with two rows has a full page, and one with three a second one.
_SMALL_PAGE = "2"
_NO_SUCH_MODEL = "airflow-provider-luma-no-such-model"
#: How many calls a host may leave without an answer, each for up to the connection's timeout.
_MOST_FAILURES = 2
#: How often a question is asked until its answer is not a 429, each time after the reset.
_MOST_TRIES = 2
#: Pixels: as small as a model may want a frame, and a few kB as a PNG.
_SIDE = 512

log = logging.getLogger(__name__)

Keep = Callable[[Exchange], None]


class Probe(LumaRayHook):
    """A hook that keeps every reply.

    :param luma_ray_conn_id: the connection
    :param keep: gets each exchange as it happened; it has no key in it, but everything else
    """

    def __init__(self, luma_ray_conn_id: str, keep: Keep) -> None:
        super().__init__(luma_ray_conn_id)
        self._keep = _never_failing(keep)
        self._failures: Counter[str] = Counter()
        self._is_listed = False

    @cached_property
    def _transport(self) -> _Recorder:
        return _Recorder(self.settings, self.limiter, self._keep)

    def ask_for_free(self, model: str, frame: Frame) -> None:
        """Ask everything that costs nothing; whatever goes wrong is kept too.

        A host that does not answer is not asked again. If the key is refused, or the reply is not the vendor's but a
        proxy's, say, nothing else is asked.

        :param model: the slug whose rows of the history are asked for
        :param frame: the picture to upload
        """
        settings, unknown = self.settings, str(uuid.uuid4())
        balance = self.ask_balance("credits")
        if balance is not None and (balance.status in (401, 403) or not balance.object()):
            return
        wrong = _Recorder(replace(settings, api_key=f"SG_{secrets.token_hex(8)}"), self.limiter, self._keep)
        since = newest_first(self.vendor_now() - _DAYS)
        small = since | {"per_page": _SMALL_PAGE}
        api, history = settings.api_url, self._history_url
        self._get("credits/wrong key", f"{api}/v1/get-user-credits", transport=wrong)
        self._get("status/unknown id", f"{api}/v2/requests/{unknown}/status")
        self._get("result/unknown id", f"{api}/v2/requests/{unknown}")
        self._get("slug/unknown", f"{api}/v2/{_NO_SUCH_MODEL}")
        self._get("history_one/unknown id", f"{history}/{unknown}")
        self._get("history/wrong key", history, since, wrong)
        self._get("history/page 1", history, small)
        self._get("history/page 2", history, small | {"page": "2"})
        self._get("history", history, since)
        self._get("history/one model", history, since | {"model_name": model})
        for _ in range(2):
            self._upload(frame)

    def ask_balance(self, call: str) -> Reply | None:
        """Ask for the balance, under a name of its own."""
        return self._get(call, f"{self.settings.api_url}/v1/get-user-credits")

    def ask_after(self, request_id: str) -> None:
        """Ask what the history and the balance say after a purchase."""
        self._get("history", self._history_url, newest_first(self.vendor_now() - _DAYS))
        self._get("history_one", f"{self._history_url}/{quote(request_id, safe='')}")
        self.ask_balance("credits/after")

    def _get(
        self, call: str, url: str, query: Mapping[str, str] | None = None, transport: _Recorder | None = None
    ) -> Reply | None:
        asked = transport or self._transport

        def send() -> Reply:
            with asked.named(call):
                return asked.get(url, query, rank=Rank.POLL)  # a single try

        return self._asked(call, "GET", url, send)

    def _upload(self, frame: Frame) -> None:
        url = f"{self.settings.upload_url}/upload-asset"

        def send() -> Reply:
            with self._transport.post(url, {"data_urls": [frame.data_url]}, paid=False) as response:
                return self._transport.read(response, paid=False)

        self._asked("upload", "POST", url, send)

    def _asked(self, call: str, method: str, url: str, send: Callable[[], Reply]) -> Reply | None:
        host = urlsplit(url).netloc
        problem = f"{host} did not answer before"
        tries = 0
        while self._failures[host] < _MOST_FAILURES:
            try:
                reply = send()
                tries += 1
                if reply.status != 429 or tries == _MOST_TRIES:
                    return reply
            except LumaRayRateLimited as error:
                time.sleep(error.seconds_to_reset())  # nothing was sent
            except LumaRayError as error:
                self._failures[host] += 1
                problem = error.cause
                break
        self._keep(Exchange(call, method, url, self.vendor_now(), problem=problem))
        return None

    def get_status(self, request_id: str, rank: Rank = Rank.POLL) -> JobStatus:
        """Poll a job's status, and until the history shows the job, ask for its newest page as well."""
        status = super().get_status(request_id, rank)
        host = urlsplit(self._history_url).netloc
        if not self._is_listed and self._failures[host] < _MOST_FAILURES:
            try:
                self._is_listed = any(is_same_id(row.request_id, request_id) for row in self.newest_jobs())
            except LumaRayRateLimited:
                pass  # the next poll may have room
            except LumaRayError as error:
                self._failures[host] += 1
                log.debug("The history cannot be asked: %s", error.cause)
        return status

    def download_video(self, url: str, destination: Path, rest: Path | None = None) -> VideoFile:
        """Download a video, and keep what came of it."""
        try:
            video = super().download_video(url, destination, rest)
        except LumaRayError as error:
            self._keep(Exchange("download", "GET", url, self.vendor_now(), problem=error.cause))
            raise
        self._keep(Exchange("download", "GET", url, self.vendor_now(), detail={"bytes": video.size}))
        return video

    def without_key(self, text: str) -> str:
        """Return a text without the connection's key."""
        return KeyFilter(self.settings).clean_text(text)


class _Recorder(Transport):
    """Keeps every reply that is read to its end, scrubbed of the key."""

    def __init__(self, settings: Settings, limiter: RateLimiter, keep: Keep) -> None:
        super().__init__(settings, limiter)
        self._keep = keep
        self._name = ""

    @contextmanager
    def named(self, call: str) -> Iterator[None]:
        """Keep replies under a name that their URL does not tell."""
        self._name = call
        try:
            yield
        finally:
            self._name = ""

    @sealed
    def read(self, response: requests.Response, *, paid: bool) -> Reply:
        """Read a reply as every call does, and keep it."""
        reply = super().read(response, paid=paid)
        request = response.request
        url = str(request.url)
        call = self._name or call_of(url)
        body: object = request.body
        sent = body.getvalue() if call == "submit" and isinstance(body, io.BytesIO) else b"null"
        self._keep(
            Exchange(
                call=call,
                method=str(request.method),
                url=url,
                at=reply.received_at,
                seconds=response.elapsed.total_seconds(),
                reply=reply,
                detail=json.loads(sent),
            )
        )
        return reply


def _never_failing(keep: Keep) -> Keep:
    """Return a function that keeps an exchange or logs why not: the reply may name a bought job, which comes first."""

    def kept(exchange: Exchange) -> None:
        try:
            keep(exchange)
        except Exception as error:
            log.warning(
                "A reply to %s is missing from the transcript: %s", exchange.call, type(error).__name__
            )

    return kept


def picture() -> bytes:
    """Return a PNG with a gradient, the same in each run: a small frame that a clip can be made from."""
    rows = b"".join(
        b"\0" + b"".join(bytes((x >> 4 << 3, y >> 4 << 3, 128)) for x in range(_SIDE)) for y in range(_SIDE)
    )
    header = struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
