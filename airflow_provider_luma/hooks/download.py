"""Fetching an output file: without the key, not from private addresses, going on where it broke."""

from __future__ import annotations

import ipaddress
import logging
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from airflow_provider_luma.exceptions import LumaRayDeliveryFailed
from airflow_provider_luma.hooks.backoff import backoff
from airflow_provider_luma.hooks.settings import Settings
from airflow_provider_luma.hooks.transport import (
    CONNECT_TIMEOUT,
    RETRIED_STATUSES,
    error_summary,
    open_session,
)
from airflow_provider_luma.media import VideoFile, VideoSink, ends_whole

CHUNK_BYTES = 1024 * 1024
_MAX_REDIRECTS = 5

log = logging.getLogger(__name__)


def download(url: str, destination: Path, settings: Settings) -> VideoFile:
    """Stream a video to a local file, which is overwritten; on an error its content is of no use.

    :raises LumaRayDeliveryFailed: not to be had, or not an MP4; ``status_code`` tells a 404
    :raises OSError: the disk is full or the like
    """
    with destination.open("w+b") as file, open_session(settings) as session:
        fetcher = _Fetcher(url, file, session, settings)
        attempt = 0
        while True:
            attempt += 1
            problem = fetcher.fetch()
            if problem is None:
                return fetcher.sink.finish(destination)
            delay = backoff(attempt)
            if delay is None:
                raise LumaRayDeliveryFailed(f"The download broke {attempt} times: {problem}.")
            log.warning("The download broke at byte %d: %s. It goes on.", fetcher.sink.size, problem)
            time.sleep(delay)


class _Fetcher:
    def __init__(self, url: str, file: BinaryIO, session: requests.Session, settings: Settings) -> None:
        self._url = url
        self._file = file
        self._session = session
        self._settings = settings
        self.sink = VideoSink(file)
        #: What tells that the file is still the same; empty where the server does not say, None where it cannot go on.
        self._validator: str | None = ""
        self._told = ""

    def fetch(self) -> str | None:
        """Fetch the rest of the video; return what broke it, or None when it is whole."""
        headers = {"Accept-Encoding": "identity"}
        if self.sink.size and self._validator is not None:
            headers["Range"] = f"bytes={self.sink.size}-"
            if self._validator:
                headers["If-Range"] = self._validator
        try:
            with self._open(headers) as response:
                if response.status_code not in (200, 206):
                    return self._refused(response.status_code)
                expected, problem = self._begin(response)
                if problem:
                    return problem
                for chunk in response.iter_content(CHUNK_BYTES):
                    self.sink.write(chunk)
        except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
            return error_summary(error)
        if expected is not None and self.sink.size != expected:
            return f"{self.sink.size} of {expected} bytes came"
        if expected is None and not ends_whole(self._file):
            self.sink.restart()
            return "the file ends in the middle of an MP4 box"
        return None

    def _begin(self, response: requests.Response) -> tuple[int | None, str | None]:
        """Return the whole file's size where the server tells it, and what is wrong with the reply."""
        if response.status_code == 206:
            span, _, total = response.headers.get("Content-Range", "").partition("/")
            if not span.startswith(f"bytes {self.sink.size}-"):
                self.sink.restart()
                return None, "the server sent another range than asked for"
            if self._told.isdigit() and total.isdigit() and total != self._told:
                self.sink.restart()
                return None, "the file has changed meanwhile"
        else:
            self.sink.restart()
            total = response.headers.get("Content-Length", "")
            etag = response.headers.get("ETag", "")
            self._validator = "" if etag.startswith("W/") else etag
            if response.headers.get("Content-Encoding"):
                total, self._validator = "", None  # both speak of the compressed bytes
        self._told = total
        return (int(total) if total.isdigit() else None), None

    def _refused(self, status: int) -> str:
        if status == 416:
            self.sink.restart()
        elif status not in RETRIED_STATUSES:
            raise LumaRayDeliveryFailed(f"The video's host answered {status}.", status_code=status)
        return f"the video's host answered {status}"

    @contextmanager
    def _open(self, headers: Mapping[str, str]) -> Iterator[requests.Response]:
        url = self._url
        for _ in range(_MAX_REDIRECTS + 1):
            self._check_address(url)
            with self._session.get(
                url,
                headers=headers,
                timeout=(CONNECT_TIMEOUT, self._settings.timeout),
                stream=True,
                allow_redirects=False,
            ) as response:
                if not response.is_redirect:
                    yield response
                    return
                url = urljoin(url, response.headers["Location"])
        raise LumaRayDeliveryFailed(f"The download was redirected more than {_MAX_REDIRECTS} times.")

    def _check_address(self, url: str) -> None:
        try:
            parts = urllib3.util.parse_url(url)  # what requests goes by; others see other hosts in odd URLs
        except urllib3.exceptions.LocationParseError:
            parts = urllib3.util.Url()
        host = (parts.host or "").strip("[]")
        if parts.scheme not in ("http", "https") or not host:
            raise LumaRayDeliveryFailed("The output URL is not an http(s) URL.")
        if not vendor_can_reach(host, self._settings):
            raise LumaRayDeliveryFailed(
                f"The output URL points to {host}, an address of this network; it was not fetched."
            )


def vendor_can_reach(host: str, settings: Settings) -> bool:
    """Tell whether this worker and the vendor mean the same by a host: a public one, or one beside the API's own."""
    return not is_private(host) or is_private(urlsplit(settings.api_url).hostname or "")


def is_private(host: str) -> bool:
    """Tell whether a host is, or resolves to, an address that is not public."""
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return False
    return any(not ipaddress.ip_address(address.partition("%")[0]).is_global for address in found)
