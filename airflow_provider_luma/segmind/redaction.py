"""What a text must lose before a log, an error or a record shows it. Pure."""

from __future__ import annotations

import re

_KEY = re.compile(r"SG_[0-9A-Fa-f]{16,}")
_ASSET_URL = re.compile(r"https?://[^\s\"'<>]*/assets/[^\s\"'<>]*")
_QUERY = re.compile(r"(https?://[^\s\"'<>?]*)\?[^\s\"'<>]*")
#: Enough for any message of the vendor's, and no more than a line or two of a log.
_LONGEST = 500


def redact(text: str) -> str:
    """Remove API keys, URLs of uploads and the queries of URLs, and put the rest on one short line.

    Lone surrogates, which JSON can carry and UTF-8 cannot, become question marks.
    """
    text = _QUERY.sub(r"\1", _ASSET_URL.sub("<asset url>", _KEY.sub("<api key>", text)))
    return " ".join(text.encode(errors="replace").decode().split())[:_LONGEST]
