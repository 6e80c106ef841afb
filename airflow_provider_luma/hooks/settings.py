"""Validates the settings of an Airflow connection of type ``luma_ray``. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from airflow_provider_luma.segmind.redaction import redact

API_URL = "https://api.segmind.com"
UPLOAD_URL = "https://workflows-api.segmind.com"
HISTORY_URL = "https://api.spotprod.segmind.com"
#: Seconds: as long as gateways usually wait for their back end (nginx's default), so a later answer would be a 504.
DEFAULT_TIMEOUT = 60.0
#: The vendor's limit for pay-as-you-go accounts, by its documentation.
DEFAULT_REQUESTS_PER_MINUTE = 60.0
#: Seconds: four times what 100 MB take at 1 Mbit/s.
DEFAULT_DOWNLOAD_TIMEOUT = 3600.0
#: Four times what ten seconds of 4k take at 400 Mbit/s.
DEFAULT_MAX_VIDEO_MB = 2048.0


@dataclass(frozen=True)
class Settings:
    """A validated connection.

    :param api_key: the key, for the three hosts below only
    :param api_url: base URL of inference and credits
    :param upload_url: base URL of the storage
    :param history_url: base URL of the request history
    :param timeout: seconds without a byte until a call times out
    :param requests_per_minute: the account's rate limit
    :param download_timeout: seconds that one attempt may spend on downloading a video
    :param max_video_mb: megabytes above which a download is refused
    :param allow_private_outputs: whether a video may be fetched from a private address, for networks where only a proxy
        resolves public hosts
    """

    api_key: str = field(repr=False)
    api_url: str = API_URL
    upload_url: str = UPLOAD_URL
    history_url: str = HISTORY_URL
    timeout: float = DEFAULT_TIMEOUT
    requests_per_minute: float = DEFAULT_REQUESTS_PER_MINUTE
    download_timeout: float = DEFAULT_DOWNLOAD_TIMEOUT
    max_video_mb: float = DEFAULT_MAX_VIDEO_MB
    allow_private_outputs: bool = False


def origin(url: str) -> tuple[str, str | None, int | None]:
    """Return a URL's scheme, host and port; the port defaults to the scheme's."""
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    return scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(scheme)


_LABEL = "[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*\.?|[0-9a-f:.]+")
_HOST_AND_PORT = re.compile(r"(localhost|[0-9]+(\.[0-9]+){3})(:[0-9]+)?/?")
#: The path that calls append to a base URL.
_API_PATH = re.compile(r"/v[12](/.*)?$")


def read_settings(password: str | None, host: str | None, extra_json: str) -> Settings | str:
    """Return the validated settings, or a clause that says what is wrong and never holds the key."""
    try:
        extra = json.loads(extra_json)
    except ValueError:
        extra = None
    if not isinstance(extra, dict):
        return "its extra is not a JSON object"
    key = (password or "").strip(" ")
    if not key:
        return "its password is empty; put the Segmind API key there (as a URI it is luma-ray://:<key>@, with a hyphen)"
    if not key.isascii() or not key.isprintable() or " " in key:
        return "its password contains a space, a line break or another character that no API key has"
    urls: dict[str, str] = {"api_url": API_URL, "upload_url": UPLOAD_URL, "history_url": HISTORY_URL}
    # The default host, written out, means the same as an empty one: uploads and history keep their own hosts.
    if host and host.rstrip("/").lower() not in (API_URL, f"{API_URL}:443"):
        urls = dict.fromkeys(urls, host)
    urls |= {name: str(extra[name]) for name in ("upload_url", "history_url") if extra.get(name)}
    for name, url in urls.items():
        try:
            parts = urlsplit(url)
            usable = (
                parts.scheme in ("http", "https")
                and _HOST.fullmatch(parts.hostname or "")
                and parts.port != 0
            )
        except ValueError:
            usable = False
        what = "host" if url == host else name
        if not usable or not url.isprintable():
            shown = redact(repr(url).replace(key, "<api key>"))
            right = f"'http://{url}'" if _HOST_AND_PORT.fullmatch(url) and key not in url else f"'{API_URL}'"
            return f"its {what} {shown} is not a base URL such as {right}"
        if parts.username is not None or parts.query or parts.fragment:
            return f"its {what} has a user, a query or a fragment; give the URL alone"
        if _API_PATH.search(parts.path):
            return f"its {what} includes a path of the API; end it before {_API_PATH.search(parts.path)[0]!r}"  # type: ignore[index]
        urls[name] = url.rstrip("/")
    numbers = {
        "timeout": DEFAULT_TIMEOUT,
        "requests_per_minute": DEFAULT_REQUESTS_PER_MINUTE,
        "download_timeout": DEFAULT_DOWNLOAD_TIMEOUT,
        "max_video_mb": DEFAULT_MAX_VIDEO_MB,
    }
    for name, default in numbers.items():
        value = extra.get(name)
        try:
            numbers[name] = default if value in (None, "") else float(str(value))
        except ValueError:
            numbers[name] = -1
        if not 0 < numbers[name] < 1e6:
            shown = redact(repr(value).replace(key, "<api key>"))
            return f"{name} in its extra is {shown}; give a positive number"
    private = extra.get("allow_private_outputs") or False
    if not isinstance(private, bool):
        shown = redact(repr(private).replace(key, "<api key>"))
        return f"allow_private_outputs in its extra is {shown}; give true or false"
    return Settings(api_key=key, allow_private_outputs=private, **urls, **numbers)  # type: ignore[arg-type]
