"""HTTP with one account: what is retried, how much of a reply is read, and what the replies tell about the clock."""

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

CONNECT_TIMEOUT = 10.0
#: How many threads may use one session without closing each other's connections.
_CONNECTIONS = 16
RETRIED_STATUSES = (429, 500, 502, 503, 504)
#: A page of a hundred requests with their frames inline in base64 may have tens of megabytes.
_MAX_REPLY_BYTES = 64 * 1024 * 1024

#: What requests and urllib3 raise; some of it (a bad certificate bundle, a host that cannot be encoded) as it comes.
NETWORK_ERRORS = (OSError, ValueError, urllib3.exceptions.HTTPError)
_URL = re.compile(r"with url: \S+|https?://\S+")

log = logging.getLogger(__name__)


class _Session(requests.Session):
    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Decide anew about the key at each redirect, where requests would keep the header."""
        assert isinstance(self.auth, KeyAuth)
        self.auth(prepared_request)


def open_session(settings: Settings, *key_urls: str) -> requests.Session:
    """Return a session that sends the key to the given URLs' origins and nowhere else."""
    session = _Session()
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=_CONNECTIONS))
    session.auth = KeyAuth(settings, key_urls)
    session.headers["User-Agent"] = f"airflow-provider-luma/{__version__}"
    return session


class _Body(io.BytesIO):
    """A request body that knows whether any of it was taken for sending."""

    taken = False

    def read(self, size: int | None = -1, /) -> bytes:
        self.taken = True
        return super().read(size)


class Transport:
    """Makes the calls to the API's own hosts.

    A GET is retried with backoff; a POST only while no byte of its body has been sent. Every call first takes its place
    in the account's rate limit. Neither a reply nor an exception that leaves this class holds the key.

    :param settings: the checked connection
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

        :param rank: the caller of one that is not urgent asks again anyway: it gets one try, and a rate limit is
            reported and not waited for
        :raises LumaRayUnavailable: no reply after several tries
        :raises LumaRayRateLimited: the rate limit leaves no room for a call that is not urgent
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
                self._close_limit(reply)
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
        """Make a call once, on a new connection, for a stale one could swallow it; give its open response.

        The response's own headers and body may repeat the key: ``head`` and ``read`` give them without it.

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
                raise LumaRaySubmitUnknown(f"The submit was sent, but no answer came: {problem}.")
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
        """Read a reply that is not a video, within the connection's timeout and a bound on its size.

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
        """Return a reply without its body."""
        return self.reply(response, b"")

    @sealed
    def reply(self, response: requests.Response, body: bytes) -> Reply:
        """Return a reply whose body was read; refusals may echo the key, and from here on nothing holds it."""
        clean = self._key_filter
        headers = CaseInsensitiveDict(
            {name: clean.clean_text(value) for name, value in response.headers.items()}
        )
        return Reply(response.status_code, headers, clean.clean(body), self.clock.now())

    def summary(self, error: Exception) -> str:
        """Describe a network error without the key, which a server may have echoed on the line."""
        return error_summary(error, self._key_filter)

    def reserve(self) -> None:
        """Wait until the rate limit lets a call pass, and keep its place for the next paid one."""
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
                log.info("The rate limit leaves no room; waiting, %.0f s at first.", delay)
                told = True
            time.sleep(delay)

    def _close_limit(self, reply: Reply) -> None:
        error = rate_limited(reply)
        if self._limiter.close(error.seconds_to_reset()):
            log.info("%s", error.cause)

    def _timeout(self, read: float | None) -> tuple[float, float]:
        return CONNECT_TIMEOUT, read or self._settings.timeout


def error_summary(error: Exception, key_filter: KeyFilter | None = None) -> str:
    """Describe a network error without the URL at which it happened."""
    text = f"{type(error).__name__}: {_URL.sub('', str(error))}"
    return redact(key_filter.clean_text(text) if key_filter else text)
