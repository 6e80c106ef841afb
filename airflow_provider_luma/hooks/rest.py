"""Checkpoints of broken downloads: the bytes so far, followed by a trailer that validates them."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

#: The file's last bytes, this many, hold the trailer's length.
_LENGTH = 8


@dataclass(frozen=True)
class Rest:
    """How far a download got.

    :param url: what was fetched; on disk only its digest
    :param validator: lets the server check that its file is unchanged (``If-Range``)
    :param total: the whole file's bytes; None if the server did not say
    :param size: the bytes received
    :param sha256: their digest
    """

    url: str
    validator: str
    total: int | None
    size: int
    sha256: str


def leave_rest(rest: Path, part: Path, file: BinaryIO, kept: Rest) -> None:
    """Save a partial download for a later call, best effort.

    :param rest: where to save it
    :param part: the partial download
    :param file: the same, open for writing
    :param kept: how far it got
    """
    trailer = json.dumps(asdict(kept) | {"url": _digest(kept.url)}).encode()
    with suppress(OSError):
        file.seek(kept.size)
        file.truncate()
        file.write(trailer + len(trailer).to_bytes(_LENGTH, "big"))
        file.flush()
        os.replace(part, rest)


def take_rest(rest: Path, part: Path, url: str) -> Rest | None:
    """Move a saved download to ``part`` and return how far it got; None if there is none of this URL.

    Only one of several callers gets it.
    """
    try:
        os.replace(rest, part)
        with part.open("r+b") as file:
            end = file.seek(-_LENGTH, os.SEEK_END)
            length = int.from_bytes(file.read(_LENGTH), "big")
            file.seek(max(end - length, 0))
            kept = Rest(**json.loads(file.read(min(length, end))))
            file.truncate(kept.size)
    except (OSError, ValueError, TypeError):
        return None
    return Rest(url, kept.validator, kept.total, kept.size, kept.sha256) if kept.url == _digest(url) else None


def _digest(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()
