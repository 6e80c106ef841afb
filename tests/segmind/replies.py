"""Replies as the vendor, a gateway or a stranger might send them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict

from airflow_provider_luma.exceptions import LumaRayError
from airflow_provider_luma.segmind.replies import Reply

REQUEST_ID = "3f2b8c1e-9a4d-4f5e-8b7a-0c1d2e3f4a5b"
VIDEO_URL = "https://images.segmind.com/outputs/clip.mp4"
KEY = "SG_0123456789abcdef"
ASSET_URL = "https://images.segmind.com/assets/someone@example.com/0f9b.jpg"

#: Bodies without a usable word in them.
HOSTILE = {
    "empty": b"",
    "blank": b" \r\n",
    "html": b"<html><body><h1>502 Bad Gateway</h1></body></html>",
    "text": b"upstream connect error",
    "truncated json": b'{"request_id": "0f9b',
    "binary": bytes(range(256)),
    "half a utf-8 character": b'{"request_id": "\xc3"}',
    "null": b"null",
    "true": b"true",
    "number": b"12",
    "string": b'"COMPLETED"',
    "list": b"[]",
    "list of the right thing": b'[{"request_id": "r1", "status": "COMPLETED", "credits": 1}]',
    "empty object": b"{}",
    "other object": b'{"message": "ok", "detail": [{"loc": ["body"]}]}',
    "two objects": b'{"credits": 1}{"credits": 2}',
    "a number of 5000 digits": b'{"credits": ' + b"9" * 5000 + b"}",
    "deep list": b"[" * 100_000 + b"]" * 100_000,
    "deep object": b'{"status":' * 900 + b"1" + b"}" * 900,
}


def outcome(read: Callable[..., object], *args: object) -> object:
    """Return a function's result: a value, or one of our errors."""
    try:
        return read(*args)
    except LumaRayError as error:
        return error


def reply(body: object = b"", status: int = 200, **headers: str) -> Reply:
    """Return a reply; a body that is not bytes is sent as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, CaseInsensitiveDict(named), content)


def anything() -> st.SearchStrategy[Any]:
    """Generate JSON values, mostly with names from the contract."""
    names = st.sampled_from(
        "request_id status error output video url metrics cost remaining_credits credits free-credits file_urls urls "
        "data model_name model_status request_body model_created generation_url credits_deduction".split()
    )
    words = st.sampled_from(
        [
            REQUEST_ID,
            VIDEO_URL,
            KEY,
            ASSET_URL,
            "COMPLETED",
            "FAILED",
            "QUEUED",
            "PENDING",
            "1e999",
            "NaN",
            "{}",
            "",
        ]
    )
    leaves = (
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | words
    )  # floats: NaN and Infinity too, which Python's JSON writes and reads
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(names | st.text(max_size=5), inner, max_size=5)
        ),
        max_leaves=12,
    )


def anyhow() -> st.SearchStrategy[Reply]:
    """Generate complete replies."""
    codes = st.sampled_from(
        [200, 201, 204, 302, 400, 401, 403, 404, 406, 408, 410, 422, 429, 499, 500, 502, 504]
    )
    bodies = anything().map(lambda value: json.dumps(value).encode()) | st.sampled_from(
        list(HOSTILE.values())
    )
    resets = st.none() | st.sampled_from(
        ["2026-11-22T10:00:00Z", "soon", "", "1763805600", "0001-01-01T00:00:00+05:00"]
    )
    return st.builds(
        lambda body, code, reset: reply(
            body, code, **({} if reset is None else {"x_rate_limit_reset_at_utc": reset})
        ),
        bodies,
        codes,
        resets,
    )
