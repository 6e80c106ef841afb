"""The hook: one connection to Segmind and the calls of its API."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cached_property
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import requests
from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

from airflow_provider_luma.exceptions import (
    LumaRayConfigurationError,
    LumaRayDeliveryFailed,
    LumaRayError,
    LumaRaySubmitUnknown,
    LumaRayUnavailable,
    without_traceback,
)
from airflow_provider_luma.hooks.download import CHUNK_BYTES, download, vendor_can_reach
from airflow_provider_luma.hooks.key import sealed
from airflow_provider_luma.hooks.limiter import Rank, RateLimiter, limiter_of
from airflow_provider_luma.hooks.settings import Settings, read_settings
from airflow_provider_luma.hooks.transport import CONNECT_TIMEOUT, NETWORK_ERRORS, Transport
from airflow_provider_luma.media import Frame, VideoFile, VideoSink, is_mp4_head, read_frame
from airflow_provider_luma.mp4 import why_incomplete
from airflow_provider_luma.segmind.history import HistoryEntry, parse_one, parse_rows
from airflow_provider_luma.segmind.ids import id_key
from airflow_provider_luma.segmind.money import money, usd
from airflow_provider_luma.segmind.replies import (
    Credits,
    JobResult,
    JobStatus,
    Reply,
    parse_credits,
    parse_result,
    parse_status,
    parse_submit,
    parse_upload,
    submit_error,
)
from airflow_provider_luma.segmind.request import GenerationRequest
from airflow_provider_luma.segmind.urls import drop_frames, output_url

#: Seconds. v1 sends no byte until the video is done: two minutes usually, sometimes several times that.
_GENERATE_TIMEOUT = 600.0
#: Of a hundred rows each; beyond 2,000 jobs since a lost call, a person has to search for it.
_MAX_HISTORY_PAGES = 20
#: How much of a v1 reply that is not a video is read, in download chunks; the same limit as for other replies.
_MAX_REPLY_CHUNKS = 64


@dataclass(frozen=True)
class GeneratedVideo:
    """The answer to a v1 call: the video itself, or its URL.

    :param video: the video, streamed to disk
    :param url: the video's URL, if the reply was JSON
    :param request_id: the job's id from the reply's body, else from ``x-request-id``
    :param cost: US dollars charged
    :param remaining_credits: the balance after the job in US dollars, from ``x-remaining-credits``
    """

    video: VideoFile | None
    url: str | None = field(repr=False)
    request_id: str | None
    cost: Decimal | None
    remaining_credits: Decimal | None


class LumaRayHook(BaseHook):
    """Calls Segmind's Luma Ray API (https://www.segmind.com/models/luma-ray-img-2-video/api).

    A GET is retried with backoff; a POST only while no byte of its body has been sent. The key is sent only to the
    API's own hosts, never along a redirect or to an output URL. No I/O happens before a method is called.

    :param luma_ray_conn_id: the Airflow connection whose password is the API key
    """

    conn_name_attr = "luma_ray_conn_id"
    default_conn_name = "luma_ray_default"
    conn_type = "luma_ray"
    hook_name = "Luma Ray (Segmind)"

    def __init__(self, luma_ray_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.luma_ray_conn_id = luma_ray_conn_id

    @cached_property
    def settings(self) -> Settings:
        """The validated connection.

        :raises LumaRayUnavailable: no such connection; Airflow reports a secrets backend that is down the same way
        :raises LumaRayConfigurationError: the connection is invalid
        """
        settings = self._read_connection()
        if settings is None:
            raise LumaRayUnavailable(
                f"Connection {self.luma_ray_conn_id!r} is not defined, cannot be parsed, or its secrets backend "
                "did not answer.",
                remedy="Check luma_ray_conn_id. A new connection has the type 'luma_ray' and the API key as password.",
            )
        if isinstance(settings, str):
            raise LumaRayConfigurationError(
                f"Connection {self.luma_ray_conn_id!r} cannot be used: {settings}."
            )
        return settings

    def _read_connection(self) -> Settings | str | None:
        # A problem is returned, not raised: a traceback would hold the connection, and its repr has the key.
        try:
            connection = self.get_connection(self.luma_ray_conn_id)
        except AirflowNotFoundException:
            return None
        return read_settings(connection.password, connection.host, connection.extra or "{}")

    def get_conn(self) -> requests.Session:
        """Return a session that sends the key only to the API's own hosts."""
        return self._transport.session

    @property
    def submit_timeout(self) -> float:
        """How long a submit may wait for its answer, in seconds."""
        return CONNECT_TIMEOUT + self.settings.timeout

    @cached_property
    def limiter(self) -> RateLimiter:
        """The account's rate limit, shared by everything in this process that uses the connection."""
        settings = self.settings
        return limiter_of(self.luma_ray_conn_id, settings.api_url, settings.requests_per_minute)

    @cached_property
    def _transport(self) -> Transport:
        return Transport(self.settings, self.limiter)

    def vendor_now(self) -> datetime:
        """Return the time in UTC by the vendor's clock, as of its last reply; before any reply, by the worker's."""
        return self._transport.clock.now()

    def vendor_time(self, moment: datetime) -> datetime | None:
        """Translate a time of the worker's clock to the vendor's; None before any reply."""
        return self._transport.clock.of(moment)

    def test_connection(self) -> tuple[bool, str]:
        """Check the key with the credits call, which is free; the message has the balance."""
        try:
            balance = self.get_credits()
        except LumaRayError as error:
            return False, f"{error.cause} {error.remedy}".rstrip()
        message = f"The key works; the balance is {usd(balance.total)} ({usd(balance.free)} of it free)."
        print(message)  # noqa: T201 - `airflow connections test` shows no message of a success, and no log
        return True, message

    def get_credits(self, rank: Rank = Rank.URGENT) -> Credits:
        """Return the balance; the call is free.

        :param rank: its priority under the rate limit; below ``URGENT`` it gets a single try
        :raises LumaRayAuthenticationError: the key does not work
        :raises LumaRayRateLimited: the rate limit leaves no room
        :raises LumaRayUnavailable: no usable answer
        """
        return parse_credits(self._transport.get(f"{self.settings.api_url}/v1/get-user-credits", rank=rank))

    @without_traceback
    def image_to_video(
        self,
        *,
        prompt: str,
        start_frame: str | PathLike[str] | None,
        output_path: str | PathLike[str],
        key: str | None = None,
        **arguments: Any,
    ) -> dict[str, Any]:
        """Buy a clip once, wait for it, and return the operator's outputs; for a ``@task`` or a script.

        It keeps the operator's record and promise: a retry of the task finishes what it bought, and a clear buys for
        changed inputs. Outside a task, the same ``key`` with the same ``output_path`` finds the clip again, and is
        refused for other inputs.

        :param prompt: what to render
        :param start_frame: as for the operator
        :param output_path: as for the operator; in a folder, a clip with a key is named after it
        :param key: distinguishes the clips that one task buys, and must be the same in each try; required outside a
            task. Default None: the task buys one clip
        :param arguments: the operator's others, except ``deferrable`` and the connection, which is this hook's
        :raises LumaRayConfigurationError: an argument is wrong, or this attempt has used the key for another clip
        :raises LumaRayError: see ``airflow_provider_luma.exceptions``
        """
        from airflow_provider_luma.jobs.call import image_to_video

        try:
            return image_to_video(self, key, start_frame, output_path, prompt=prompt, **arguments)
        except LumaRayConfigurationError as error:
            if error.standing:
                raise
            # Its own words would speak for the whole attempt, which may have bought other clips.
            raise error.with_context(None, "This call bought nothing.") from None

    def reserve(self) -> None:
        """Reserve a slot in the rate limit for the next paid call, so that it does not wait with its intent written."""
        self._transport.reserve()

    def submit(self, request: GenerationRequest) -> str:
        """Buy one job on v2 and return its request id. Retried only while no byte has been sent.

        :raises LumaRayRefused: refused; nothing was bought
        :raises LumaRayRateLimited: too many requests; nothing was bought
        :raises LumaRayUnavailable: no connection; nothing was bought
        :raises LumaRaySubmitUnknown: sent, but the answer is lost or unclear; it may have been bought
        """
        url = f"{self.settings.api_url}/v2/{quote(request.model, safe='')}"
        with self._transport.post(url, request.body(), paid=True) as response:
            return parse_submit(self._transport.read(response, paid=True), request.model)

    def generate(self, request: GenerationRequest, destination: Path) -> GeneratedVideo:
        """Buy one job on v1, wait for it, and stream its video to a file. Retried only while no byte has been sent.

        :param request: what to render
        :param destination: a local file, overwritten; not written if the reply is JSON with a URL
        :raises LumaRayRefused: refused, or the job FAILED; nothing was bought. Its ``request_id`` is set if the reply
            named the job
        :raises LumaRayRateLimited: too many requests; nothing was bought
        :raises LumaRayUnavailable: no connection; nothing was bought
        :raises LumaRaySubmitUnknown: sent, but no complete video came back; it may have been bought. Its ``request_id``
            is set if the reply's body named the job, its ``hint`` if only ``x-request-id`` may have
        """
        url = f"{self.settings.api_url}/v1/{quote(request.model, safe='')}"
        with self._transport.post(url, request.body(), paid=True, read_timeout=_GENERATE_TIMEOUT) as response:
            head = self._transport.head(response)
            if head.status >= 300:
                reply = self._transport.read(response, paid=True)
                raise submit_error(reply, request.model, reply.named_id() or reply.header_id())
            request_id = None
            try:
                received = _receive(response, destination, self._transport, self.settings.max_video_mb)
            except LumaRayDeliveryFailed as error:
                problem = error.cause
            except NETWORK_ERRORS as error:
                problem = self._transport.summary(error)
            else:
                video, reply = (received, head) if isinstance(received, VideoFile) else (None, received)
                body = reply.object()
                drop_frames(body)
                url_found = output_url(body)
                request_id = reply.named_id()
                if video or url_found:
                    return GeneratedVideo(
                        video=video,
                        url=url_found,
                        request_id=request_id or head.header_id(),
                        cost=money(head.headers.get("x-cost")),
                        remaining_credits=money(head.headers.get("x-remaining-credits")),
                    )
                if body.get("error"):
                    raise submit_error(reply, request.model, request_id or reply.header_id())
                problem = f"it is {reply.error_text()}"
        raise LumaRaySubmitUnknown(
            f"The v1 call was answered, but not with a complete video: {problem}.",
            request_id=request_id,
            hint=head.header_id(),
        )

    def get_status(self, request_id: str, rank: Rank = Rank.POLL) -> JobStatus:
        """Poll a job's status. "Not found" is an answer too, and proves nothing.

        :param rank: its priority under the rate limit; below ``URGENT`` it gets a single try
        :raises LumaRayAuthenticationError: the key does not work
        :raises LumaRayRateLimited: the rate limit leaves no room
        :raises LumaRayUnavailable: no answer
        """
        reply = self._transport.get(f"{self._request_url(request_id)}/status", rank=rank)
        return parse_status(reply, request_id)

    def get_result(self, request_id: str) -> JobResult:
        """Return a completed job's result; it has priority over polls under the rate limit.

        :raises LumaRayAuthenticationError: the key does not work
        :raises LumaRayRateLimited: still rate-limited after several tries
        :raises LumaRayUnavailable: no usable answer after several tries
        """
        return parse_result(self._transport.get(self._request_url(request_id)), request_id)

    def _request_url(self, request_id: str) -> str:
        return f"{self.settings.api_url}/v2/requests/{quote(request_id, safe='')}"

    def find_job(self, request_id: str, rank: Rank = Rank.URGENT) -> HistoryEntry | None:
        """Return a job of any age from the request history; None if it is not there.

        :param rank: its priority under the rate limit; below ``URGENT`` it gets a single try
        :raises LumaRayAuthenticationError: the history refuses the key
        :raises LumaRayRateLimited: the rate limit leaves no room
        :raises LumaRayUnavailable: the history gives no usable answer
        """
        url = f"{self._history_url}/{quote(request_id, safe='')}"
        return parse_one(self._transport.get(url, rank=rank), request_id)

    def find_jobs(self, model: str, since: datetime) -> list[HistoryEntry]:
        """Return a model's recent jobs, newest first, in-flight and failed ones included.

        :param model: the model's slug
        :param since: in UTC; the vendor filters by whole days, at most 31 of them
        :raises LumaRayAuthenticationError: the history refuses the key
        :raises LumaRayRateLimited: still rate-limited after several tries
        :raises LumaRayUnavailable: the history gives no usable answer
        """
        rows: dict[str, HistoryEntry] = {}
        for page in self._history_pages(model, since):
            new = {key: row for row in page if (key := id_key(row.request_id)) not in rows}
            if not new:
                break
            rows |= new
        return list(rows.values())

    def newest_jobs(self, page: int = 1) -> list[HistoryEntry]:
        """Return the account's hundred newest jobs since yesterday, in-flight and failed ones included; it is a poll.

        :param page: 2 for the hundred before those, and so on
        :raises LumaRayAuthenticationError: the history refuses the key
        :raises LumaRayRateLimited: the rate limit leaves no room for a poll
        :raises LumaRayUnavailable: the history gives no usable answer
        """
        query = newest_first(self.vendor_now() - timedelta(days=1)) | {"page": str(page)}
        return parse_rows(self._transport.get(self._history_url, query, rank=Rank.POLL))

    def _history_pages(self, model: str, since: datetime) -> Iterator[list[HistoryEntry]]:
        now = self.vendor_now()
        first_day = max(min(since, now) - timedelta(days=1), now - timedelta(days=30))
        query = newest_first(first_day) | {"model_name": model}
        for page in range(1, _MAX_HISTORY_PAGES + 1):
            yield parse_rows(self._transport.get(self._history_url, query | {"page": str(page)}))

    @property
    def _history_url(self) -> str:
        return f"{self.settings.history_url}/inference-request/request-history"

    def upload_image(self, image: Frame | str | Path) -> str:
        """Upload an image to the vendor's storage and return its URL; keep that out of logs and XCom.

        :param image: a path or URI of an image file, or one that ``read_frame`` has checked
        :raises LumaRayConfigurationError: not an image, or larger than 20 MB
        :raises LumaRayRefused: the vendor refused it
        :raises LumaRayUnavailable: no usable answer; a retry uploads again
        """
        frame = image if isinstance(image, Frame) else read_frame(str(image))
        body = {"data_urls": [frame.data_url]}
        with self._transport.post(f"{self.settings.upload_url}/upload-asset", body, paid=False) as response:
            return parse_upload(self._transport.read(response, paid=False))

    def reaches(self, url: str) -> bool:
        """Whether the vendor can fetch a URL; it cannot reach private networks."""
        return vendor_can_reach(urlsplit(url).hostname or "", self.settings)

    def download_video(self, url: str, destination: Path, rest: Path | None = None) -> VideoFile:
        """Stream a video to a local file, without the key; a broken download is resumed if that is safe.

        :param url: an output URL; a private address is refused unless the connection's own host is one, or its extra
            ``allow_private_outputs`` is set
        :param destination: overwritten; undefined after an error
        :param rest: a checkpoint file on the same disk: a download that is given up is saved there, and a later call
            resumes from it. Default None: no checkpoint
        :raises LumaRayDeliveryFailed: not available, or not an MP4; ``status_code`` is the HTTP status, if any
        :raises OSError: the disk is full or the like
        """
        return download(url, destination, self.settings, rest)


def newest_first(first_day: datetime) -> dict[str, str]:
    """Return the query for the history's rows since a day, newest first."""
    return {
        "per_page": "100",
        "from_date": f"{first_day:%Y-%m-%d}",
        "sort_by": "model_created",
        "sort_order": "desc",
    }


@sealed
def _receive(
    response: requests.Response, destination: Path, transport: Transport, most: float
) -> VideoFile | Reply:
    """Stream a v1 reply to disk if it begins like a video, else read it; its Content-Type is unreliable."""
    chunks = response.iter_content(CHUNK_BYTES)
    head = b""
    while len(head) < 8 and (chunk := next(chunks, b"")):
        head += chunk
    if not is_mp4_head(head):
        return transport.reply(response, head + b"".join(islice(chunks, _MAX_REPLY_CHUNKS)))
    with destination.open("w+b") as file:
        sink = VideoSink(file, most)
        sink.write(head)
        for chunk in chunks:
            sink.write(chunk)
        told = None if response.headers.get("Content-Encoding") else response.headers.get("Content-Length")
        if told not in (None, str(sink.size)) or why_incomplete(file):
            raise requests.ConnectionError("the body is incomplete")
        return sink.finish(destination)
