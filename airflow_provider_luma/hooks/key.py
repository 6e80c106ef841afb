"""The API key: sends it only where it belongs, and scrubs it from replies and tracebacks."""

from __future__ import annotations

import functools
import html.entities
import json
import re
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import requests
from requests.auth import AuthBase

from airflow_provider_luma.hooks.settings import Settings, origin

#: A shorter "key" is a mistake, and would match ordinary words in replies.
_SHORTEST_KEY = 8
#: How JSON, Python and JavaScript begin an escape; each level of quoting doubles the backslashes, up to three levels.
_BACKSLASHES = rb"\\\\{0,7}"

P = ParamSpec("P")
T = TypeVar("T")


def sealed(function: Callable[P, T]) -> Callable[P, T]:
    """Strip the frames below from every exception, since their local variables may hold the key.

    That includes exceptions raised by a signal handler, such as Airflow's task timeout, which can strike anywhere in a
    request. The exception's text alone must say what happened.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            error.__cause__ = error.__context__ = None
            raise error.with_traceback(None) from None

    return call


class KeyAuth(AuthBase):
    """Adds the key only to requests to the given URLs' origins; being an ``auth``, it also disables netrc."""

    def __init__(self, settings: Settings, urls: tuple[str, ...]) -> None:
        self._settings = settings
        self._origins = {origin(url) for url in urls}

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the key to a request, or remove it."""
        request.headers.pop("x-api-key", None)
        if origin(str(request.url)) in self._origins:
            request.headers["x-api-key"] = self._settings.api_key
        return request


class KeyFilter:
    """Removes the key from replies, however JSON, HTML or URLs have escaped it.

    :param settings: the checked connection
    """

    def __init__(self, settings: Settings) -> None:
        self._pattern = _key_pattern(settings)

    def clean(self, body: bytes) -> bytes:
        """Return a reply's body without the key."""
        encoding = json.detect_encoding(body)
        if not encoding.startswith("utf-8"):  # json.loads() reads UTF-16 and UTF-32 as well
            body = body.decode(encoding, "replace").encode()
        return body if self._pattern is None else self._pattern.sub(b"<api key>", body)

    def clean_text(self, text: str) -> str:
        """Return a header's value or an error's text without the key."""
        if self._pattern is None:
            return text
        return self._pattern.sub(b"<api key>", text.encode(errors="surrogatepass")).decode(
            errors="surrogatepass"
        )


@sealed
def _key_pattern(settings: Settings) -> re.Pattern[bytes] | None:
    key = settings.api_key.encode()
    return re.compile(b"".join(map(_escapes, key))) if len(key) >= _SHORTEST_KEY else None


def _escapes(code: int) -> bytes:
    """Return a pattern for every way to write one character of the key."""
    character = chr(code)
    plain = re.escape(character).encode()
    entities = {name.rstrip(";").encode() for name, text in html.entities.html5.items() if text == character}
    references = [b"#0{0,6}%d" % code, b"#[xX]0{0,6}(?i:%x)" % code, *sorted(entities)]
    return b"(?:%s)" % b"|".join(
        [
            plain,
            *([] if character.isalnum() else [_BACKSLASHES + plain]),
            _BACKSLASHES + rb"(?i:u00|x)(?i:%02x)" % code,
            rb"%%(?:25){0,3}(?i:%02x)" % code,
            rb"&(?:amp;){0,3}(?:%s);?" % b"|".join(references),
        ]
    )
