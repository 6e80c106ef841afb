"""URLs in replies: which one is the video's, and which ones to drop. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from airflow_provider_luma.segmind.models import CATALOGUE
from airflow_provider_luma.segmind.walk import walk

_URL = re.compile(r"https?://\S+")
_FRAME_FIELDS = {*(model.frame_field for model in CATALOGUE.values()), "end_image_url"}


def parse_url(value: object) -> str | None:
    """Return an http(s) URL; None for anything else, including text that merely contains one."""
    if not isinstance(value, str):
        return None
    text = value.strip()
    return text if text.isprintable() and _URL.fullmatch(text) else None


def urls_in(value: object) -> Iterator[str]:
    """Yield every string in a JSON value that is a URL, shallowest first."""
    for item in walk(value):
        if url := parse_url(item):
            yield url


def output_url(body: dict[str, Any]) -> str | None:
    """Return the video's URL: ``output``, else ``video.url``, else the only URL in the reply."""
    video = body.get("video")
    named = parse_url(body.get("output")) or parse_url(video.get("url") if isinstance(video, dict) else None)
    if named:
        return named
    found = set(urls_in(body))
    return found.pop() if len(found) == 1 else None


def drop_frames(body: dict[str, Any]) -> None:
    """Remove frames echoed in a reply: they are not the video, and their URLs may be signed."""
    for item in walk(body):
        if isinstance(item, dict):
            for name in _FRAME_FIELDS & item.keys():
                del item[name]
