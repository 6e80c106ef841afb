"""Redacts vendor text before it reaches a log, an error or a record. Pure."""

from __future__ import annotations

import re

_KEY = re.compile(r"SG_[0-9A-Fa-f]{16,}")
_ASSET_URL = re.compile(r"https?://[^\s\"'<>]*/assets/[^\s\"'<>]*")
_QUERY = re.compile(r"(https?://[^\s\"'<>?]*)\?[^\s\"'<>]*")
#: Enough for any of the vendor's messages, and only a line or two in a log.
_LONGEST = 500


def redact(text: str) -> str:
    """Remove API keys, upload URLs and URL queries, and shorten the rest to a single line.

    Lone surrogates, which JSON can carry but UTF-8 cannot, become question marks.
    """
    text = _QUERY.sub(r"\1", _ASSET_URL.sub("<asset url>", _KEY.sub("<api key>", text)))
    return " ".join(text.encode(errors="replace").decode().split())[:_LONGEST]
