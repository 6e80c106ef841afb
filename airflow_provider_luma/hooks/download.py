"""Downloads an output file: without the key, not from private addresses, resumed only if the file is unchanged."""

from __future__ import annotations

import errno
import ipaddress
import logging
import re
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from airflow_provider_luma.exceptions import LumaRayDeliveryFailed
from airflow_provider_luma.hooks.backoff import backoff
from airflow_provider_luma.hooks.clock import parse_http_date
from airflow_provider_luma.hooks.rest import Rest, leave_rest, take_rest
from airflow_provider_luma.hooks.settings import Settings
from airflow_provider_luma.hooks.transport import (
    CONNECT_TIMEOUT,
    RETRIED_STATUSES,
    error_summary,
    open_session,
)
from airflow_provider_luma.media import VideoFile, VideoSink
from airflow_provider_luma.mp4 import why_incomplete

#: At most so much is read at once: a chunk is one write, one digest update and one check of the time.
CHUNK_BYTES = 1024 * 1024
#: A CDN needs one or two; more is a loop.
_MAX_REDIRECTS = 5
#: ``Last-Modified`` has whole seconds, and a file may change twice in one; RFC 9110 (8.8.2.2) asks for a minute.
_STRONG_AFTER = timedelta(seconds=60)
_STRONG_ETAG = re.compile(r'"[!#-~\x80-\xff]*"')

log = logging.getLogger(__name__)


def download(url: str, destination: Path, settings: Settings, rest: Path | None = None) -> VideoFile:
    """Stream a video to a local file, which is overwritten; its content is undefined after an error.

    :param rest: a checkpoint file, written when the download is given up and resumed from by the next; None: no
        checkpoint
    :raises LumaRayDeliveryFailed: not available, or not an MP4; ``status_code`` is the HTTP status, if any
    :raises OSError: the disk is full or the like
    """
    kept = take_rest(rest, destination, url) if rest else None
    with destination.open("r+b" if kept else "w+b") as file, open_session(settings) as session:
        fetcher = _Fetcher(url, file, session, settings, kept)
        try:
            return _fetched(fetcher, destination)
        except BaseException:
            if rest and fetcher.offset:
                leave_rest(rest, destination, file, fetcher.rest())
            raise


def _fetched(fetcher: _Fetcher, destination: Path) -> VideoFile:
    failures = 0
    while True:
        begun_at = fetcher.offset
        problem = fetcher.fetch()
        if problem is None:
            return fetcher.sink.finish(destination)
        failures = 1 if fetcher.offset > begun_at else failures + 1
        delay = backoff(failures)
        if delay is None:
            raise LumaRayDeliveryFailed(f"The download broke {failures} times in a row: {problem}.")
        log.warning("The download broke: %s. Trying again from byte %d.", problem, fetcher.offset)
        time.sleep(delay)


class _Fetcher:
    def __init__(
        self, url: str, file: BinaryIO, session: requests.Session, settings: Settings, kept: Rest | None
    ) -> None:
        self._url = url
        self._file = file
        self._session = session
        self._settings = settings
        self.sink = VideoSink(file, settings.max_video_mb, *((kept.size, kept.sha256) if kept else ()))
        self._until = time.monotonic() + settings.download_timeout
        #: Lets the server and us check that the file is unchanged; None: the download cannot be resumed.
        self._validator: str | None = None
        self._total: int | None = None
        if kept and self.sink.size:
            self._validator, self._total = kept.validator, kept.total
            log.info("Resuming at byte %d, where an earlier attempt stopped.", kept.size)

    @property
    def offset(self) -> int:
        """The byte at which the next request starts."""
        return 0 if self._validator is None else self.sink.size

    def rest(self) -> Rest:
        """Return the checkpoint from which a later call can resume."""
        assert self._validator is not None
        return Rest(self._url, self._validator, self._total, self.sink.size, self.sink.sha256)

    def fetch(self) -> str | None:
        """Fetch the rest of the video; return what interrupted it, or None when it is complete."""
        headers = {"Accept-Encoding": "identity"}
        if self._validator is not None and self.offset:
            headers |= {"Range": f"bytes={self.offset}-", "If-Range": self._validator}
        try:
            with self._open(headers) as response:
                if response.status_code not in (200, 206):
                    return self._refused(response.status_code)
                if response.status_code == 200:
                    self._begin(response)
                elif problem := self._resume(response):
                    self._start_over()
                    return problem
                # read1 returns whatever has arrived: an unstable line makes progress, and a slow one is noticed.
                while chunk := response.raw.read1(CHUNK_BYTES, decode_content=True):
                    self._write(chunk)
                    self._check_time()
        except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
            return error_summary(error)
        if self._total not in (None, self.sink.size):
            return f"{self.sink.size} of {self._total} bytes arrived"
        if problem := why_incomplete(self._file):
            self._start_over()
            return f"the file {problem}"
        return None

    def _write(self, chunk: bytes) -> None:
        try:
            self.sink.write(chunk)
        except LumaRayDeliveryFailed:
            self._start_over()  # nothing to resume from
            raise

    def _check_time(self) -> None:
        if time.monotonic() > self._until:
            of = f" of {self._total}" if self._total else ""
            raise LumaRayDeliveryFailed(
                f"The download was given up after {self._settings.download_timeout:.0f} s: {self.sink.size}{of} bytes "
                "arrived.",
                remedy="If the line is that slow, raise download_timeout in the connection's extra.",
            )

    def _begin(self, response: requests.Response) -> None:
        self.sink.restart()
        headers = response.headers
        if headers.get("Content-Encoding"):  # length and validator are those of the compressed bytes
            self._total, self._validator = None, None
        else:
            self._total, self._validator = _number(headers.get("Content-Length", "")), _validator(headers)
        self._check_room(self._total or 0)

    def _check_room(self, needed: int) -> None:
        """Refuse a video that is too large, or larger than the free disk space."""
        self.sink.check_size(needed)
        free = shutil.disk_usage(Path(self._file.name).parent).free
        if needed > free:
            raise OSError(errno.ENOSPC, f"the video needs {needed} bytes, but only {free} are free there")

    def _resume(self, response: requests.Response) -> str | None:
        """Return why a partial reply does not continue the file; None if it does."""
        span, _, total = response.headers.get("Content-Range", "").partition("/")
        if not self.offset or not span.startswith(f"bytes {self.offset}-"):
            return "the server sent a different range than requested"
        size = _number(total)
        if self._is_another(response.headers) or (size and self._total and size != self._total):
            return "the file has changed in the meantime"
        self._total = self._total or size
        return None

    def _is_another(self, headers: Mapping[str, str]) -> bool:
        # Some servers ignore If-Range. A reply to it must repeat an ETag, but may omit Last-Modified.
        etag, modified = headers.get("ETag"), headers.get("Last-Modified")
        if headers.get("Content-Encoding"):
            return True
        if self._validator is not None and self._validator.startswith('"'):
            return etag != self._validator
        return etag is not None or modified not in (None, self._validator)

    def _start_over(self) -> None:
        self.sink.restart()
        self._total, self._validator = None, None

    def _refused(self, status: int) -> str:
        if status == 416:
            self._start_over()
        elif status not in RETRIED_STATUSES:
            raise LumaRayDeliveryFailed(f"The video's host answered {status}.", status_code=status)
        return f"the video's host answered {status}"

    @contextmanager
    def _open(self, headers: Mapping[str, str]) -> Iterator[requests.Response]:
        url = self._url
        for _ in range(_MAX_REDIRECTS + 1):
            self._check_address(url)
            with self._get(url, headers) as response:
                if not response.is_redirect:
                    yield response
                    return
                url = urljoin(url, response.headers["Location"])
        raise LumaRayDeliveryFailed(f"The download was redirected more than {_MAX_REDIRECTS} times.")

    def _get(self, url: str, headers: Mapping[str, str]) -> requests.Response:
        try:
            return self._session.get(
                url,
                headers=headers,
                timeout=(CONNECT_TIMEOUT, self._settings.timeout),
                stream=True,
                allow_redirects=False,
            )
        except requests.RequestException:
            raise
        except (
            OSError
        ) as error:  # such as a missing CA bundle: not about the disk, as it would be to the caller
            raise LumaRayDeliveryFailed(
                f"The video's host cannot be reached: {error_summary(error)}."
            ) from None

    def _check_address(self, url: str) -> None:
        try:
            parts = urllib3.util.parse_url(
                url
            )  # as requests does; other parsers may see another host in an odd URL
        except urllib3.exceptions.LocationParseError:
            parts = urllib3.util.Url()
        host = (parts.host or "").strip("[]")
        if parts.scheme not in ("http", "https") or not host:
            raise LumaRayDeliveryFailed("The output URL is not an http(s) URL.")
        if not self._settings.allow_private_outputs and not vendor_can_reach(host, self._settings):
            raise LumaRayDeliveryFailed(
                f"The output URL points to {host}, a private address; it was not fetched.",
                remedy="If a proxy fetches it, set allow_private_outputs to true in the connection's extra.",
            )


def _validator(headers: Mapping[str, str]) -> str | None:
    """Return a strong validator for ``If-Range``: a strong ETag, else a ``Last-Modified`` that is old enough."""
    etag, modified = headers.get("ETag", ""), headers.get("Last-Modified", "")
    if etag:
        return etag if _STRONG_ETAG.fullmatch(etag) else None
    date, changed = parse_http_date(headers.get("Date")), parse_http_date(modified)
    return modified if date and changed and date - changed >= _STRONG_AFTER else None


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


def vendor_can_reach(host: str, settings: Settings) -> bool:
    """Whether the vendor sees the same host as this worker: it is public, or private like the API's own."""
    return not is_private(host) or is_private(urlsplit(settings.api_url).hostname or "")


def is_private(host: str) -> bool:
    """Whether a host is, or resolves to, a private address."""
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return False
    return any(not ipaddress.ip_address(address.partition("%")[0]).is_global for address in found)
