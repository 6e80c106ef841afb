"""HTTP calls to the API: retries, rate limiting, bounded replies, and learning the vendor's clock."""

from __future__ import annotations

import io
import json
import logging
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict

from airflow_provider_luma import __version__
from airflow_provider_luma.exceptions import LumaRayRateLimited, LumaRaySubmitUnknown, LumaRayUnavailable
from airflow_provider_luma.hooks.backoff import backoff
from airflow_provider_luma.hooks.clock import VendorClock
from airflow_provider_luma.hooks.key import KeyAuth, KeyFilter, sealed
from airflow_provider_luma.hooks.limiter import Rank, RateLimiter
from airflow_provider_luma.hooks.settings import Settings
from airflow_provider_luma.segmind.redaction import redact
from airflow_provider_luma.segmind.replies import Reply, rate_limited

#: Seconds: enough for a lost first packet, which Linux sends again after 1, 3 and 7 s.
CONNECT_TIMEOUT = 10.0
#: How many threads may share a session without closing each other's connections: a triggerer's poll threads.
_CONNECTIONS = 16
#: What passes by itself; any other status would be the same again.
RETRIED_STATUSES = (429, 500, 502, 503, 504)
#: A page of a hundred requests with inline base64 frames can have tens of megabytes.
_MAX_REPLY_BYTES = 64 * 1024 * 1024

#: What requests and urllib3 raise, and what they let through (a bad certificate bundle, a host that cannot be encoded).
NETWORK_ERRORS = (OSError, ValueError, urllib3.exceptions.HTTPError)
_URL = re.compile(r"with url: \S+|https?://\S+")

log = logging.getLogger(__name__)


class _Session(requests.Session):
    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Decide at each redirect whether the key may be sent; requests would keep the header."""
        assert isinstance(self.auth, KeyAuth)
        self.auth(prepared_request)


def open_session(settings: Settings, *key_urls: str) -> requests.Session:
    """Return a session that sends the key only to the given URLs' origins."""
    session = _Session()
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=_CONNECTIONS))
    session.auth = KeyAuth(settings, key_urls)
    session.headers["User-Agent"] = f"airflow-provider-luma/{__version__}"
    return session


class _Body(io.BytesIO):
    """A request body that knows whether sending has begun."""

    taken = False

    def read(self, size: int | None = -1, /) -> bytes:
        self.taken = True
        return super().read(size)


class Transport:
    """Makes the calls to the API's own hosts.

    A GET is retried with backoff; a POST only while no byte of its body has been sent. Every call first takes a slot of
    the account's rate limit. No reply or exception that leaves this class holds the key.

    :param settings: the validated connection
    :param limiter: the account's rate limit
    """

    def __init__(self, settings: Settings, limiter: RateLimiter) -> None:
        self._settings = settings
        self._limiter = limiter
        self._key_filter = KeyFilter(settings)
        self.clock = VendorClock()
        self.session = self._open_session()
        self._reserved = False

    def _open_session(self) -> requests.Session:
        settings = self._settings
        return open_session(settings, settings.api_url, settings.upload_url, settings.history_url)

    @sealed
    def get(self, url: str, query: Mapping[str, str] | None = None, *, rank: Rank = Rank.URGENT) -> Reply:
        """Make a free call and return its reply, whatever its status.

        :param rank: its priority. Below ``URGENT``, whose callers ask again anyway, it is tried once, and a rate limit
            is raised instead of waited for
        :raises LumaRayUnavailable: no reply after several tries
        :raises LumaRayRateLimited: the rate limit has no room for a call that is not urgent
        """
        attempt = 0
        while True:
            attempt += 1
            self._take_place(rank)
            reply: Reply | None = None
            try:
                sent_at = datetime.now(UTC)
                with self.session.get(
                    url, params=query, timeout=self._timeout(None), stream=True, allow_redirects=False
                ) as response:
                    self.clock.learn(response.headers, sent_at)
                    reply = self.read(response, paid=False)
                problem = f"HTTP {reply.status}"
            except NETWORK_ERRORS as error:
                problem = self.summary(error)
            except LumaRayUnavailable as error:
                problem = error.cause.rstrip(".")
            if reply is not None and reply.status not in RETRIED_STATUSES:
                return reply
            delay = backoff(attempt) if rank is Rank.URGENT else None
            if reply is not None and reply.status == 429:
                self._close_limit(reply, rank)
            if delay is not None:
                log.debug("GET %s: %s; retrying in %.1f s", urlsplit(url).path, problem, delay)
                time.sleep(delay)
            elif reply is not None:
                return reply
            else:
                tries = "a try" if attempt == 1 else f"{attempt} tries"
                raise LumaRayUnavailable(f"No answer from {urlsplit(url).hostname} after {tries}: {problem}.")

    @contextmanager
    def post(
        self, url: str, payload: Mapping[str, Any], *, paid: bool, read_timeout: float | None = None
    ) -> Iterator[requests.Response]:
        """Make a call once and yield its open response. The connection is new, as a stale one could swallow the call.

        The response's own headers and body may echo the key: ``head`` and ``read`` return them without it.

        :param paid: whether the call buys something
        :param read_timeout: seconds without a byte; None: the connection's ``timeout``
        :raises LumaRayUnavailable: no byte of the body had been sent after several tries, or the call is not paid
        :raises LumaRaySubmitUnknown: a paid call was sent and got no answer
        """
        content = json.dumps(payload).encode()
        attempt = 0
        while True:
            attempt += 1
            if paid and self._reserved:
                self._reserved = False
            else:
                self._take_place()
            body = _Body(content)
            with self._open_session() as session:
                try:
                    response = self._send(session, url, body, read_timeout)
                except NETWORK_ERRORS as error:
                    problem = self.summary(error)
                else:
                    with response:
                        if response.status_code == 429:
                            self._close_limit(self.head(response))
                        yield response
                    return
            delay = None if body.taken else backoff(attempt)
            if delay is not None:
                time.sleep(delay)
            elif body.taken and paid:
                raise LumaRaySubmitUnknown(f"The submit was sent, but got no answer: {problem}.")
            else:
                raise LumaRayUnavailable(f"No answer from {urlsplit(url).hostname}: {problem}.")

    @sealed
    def _send(
        self, session: requests.Session, url: str, body: _Body, read_timeout: float | None
    ) -> requests.Response:
        sent_at = datetime.now(UTC)
        response = session.post(
            url,
            data=body,
            headers={"Content-Type": "application/json"},
            timeout=self._timeout(read_timeout),
            stream=True,
            allow_redirects=False,
        )
        self.clock.learn(response.headers, sent_at)
        return response

    @sealed
    def read(self, response: requests.Response, *, paid: bool) -> Reply:
        """Read a reply that is not a video, bounded in time and size.

        :raises LumaRaySubmitUnknown: the answer to a paid call broke off
        :raises LumaRayUnavailable: the answer to another call broke off
        """
        deadline = time.monotonic() + self._settings.timeout
        body = bytearray()
        problem = ""
        try:
            while chunk := response.raw.read1(64 * 1024, decode_content=True):
                body += chunk
                if len(body) > _MAX_REPLY_BYTES or time.monotonic() > deadline:
                    problem = "it is too long or too slow"
                    break
        except NETWORK_ERRORS as error:
            problem = self.summary(error)
        if not problem:
            return self.reply(response, bytes(body))
        if not paid:
            raise LumaRayUnavailable(f"The answer broke off: {problem}.")
        head = self.head(response)
        if 400 <= head.status < 500:
            return head
        raise LumaRaySubmitUnknown(
            f"The submit was sent, but its answer broke off: {problem}.", hint=head.header_id()
        )

    def head(self, response: requests.Response) -> Reply:
        """Return a reply without reading its body."""
        return self.reply(response, b"")

    @sealed
    def reply(self, response: requests.Response, body: bytes) -> Reply:
        """Return a reply with its body, scrubbed of the key, which refusals may echo."""
        clean = self._key_filter
        headers = CaseInsensitiveDict(
            {name: clean.clean_text(value) for name, value in response.headers.items()}
        )
        return Reply(response.status_code, headers, clean.clean(body), self.clock.now())

    def summary(self, error: Exception) -> str:
        """Describe a network error without the key, which a server may have echoed."""
        return error_summary(error, self._key_filter)

    def reserve(self) -> None:
        """Wait for a slot of the rate limit, and keep it for the next paid call."""
        if not self._reserved:
            self._take_place()
            self._reserved = True

    def _take_place(self, rank: Rank = Rank.URGENT) -> None:
        told = False
        while delay := self._limiter.take(rank):
            if rank is not Rank.URGENT:
                now = self.clock.now()
                raise LumaRayRateLimited(
                    "The connection's requests_per_minute are used up; nothing was sent.",
                    reset_at=now + timedelta(seconds=delay),
                    now=now,
                )
            if not told and delay > 1:
                log.info("The rate limit is used up; waiting, %.0f s at first.", delay)
                told = True
            time.sleep(delay)

    def _close_limit(self, reply: Reply, rank: Rank = Rank.URGENT) -> None:
        error = rate_limited(reply)
        if self._limiter.close(error.seconds_to_reset()):
            # Balance checks go on for as long as it lasts; who makes them says so, once an hour.
            log.log(logging.DEBUG if rank is Rank.BALANCE else logging.INFO, "%s", error.cause)

    def _timeout(self, read: float | None) -> tuple[float, float]:
        return CONNECT_TIMEOUT, read or self._settings.timeout


def error_summary(error: Exception, key_filter: KeyFilter | None = None) -> str:
    """Describe a network error without its URL."""
    text = f"{type(error).__name__}: {_URL.sub('', str(error))}"
    return redact(key_filter.clean_text(text) if key_filter else text)
