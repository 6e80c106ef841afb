"""What a broken download leaves for a later one: the bytes that came, and behind them what proves them right."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

#: The trailer's length in bytes is in the file's last so many.
_LENGTH = 8


@dataclass(frozen=True)
class Rest:
    """How far a download came.

    :param url: what was fetched; on disk only its digest
    :param validator: proves to the server that its file is still the same
    :param total: the whole file's bytes; None where the server did not say
    :param size: the bytes that came
    :param sha256: their digest
    """

    url: str
    validator: str
    total: int | None
    size: int
    sha256: str


def leave_rest(rest: Path, part: Path, file: BinaryIO, kept: Rest) -> None:
    """Move a part away for a later call; where that cannot be done it is not kept.

    :param file: the part, open for writing
    """
    trailer = json.dumps(asdict(kept) | {"url": _digest(kept.url)}).encode()
    with suppress(OSError):
        file.seek(kept.size)
        file.truncate()
        file.write(trailer + len(trailer).to_bytes(_LENGTH, "big"))
        file.flush()
        os.replace(part, rest)


def take_rest(rest: Path, part: Path, url: str) -> Rest | None:
    """Move what an earlier call left to a part and return how far it came; None where there is none of this URL.

    Of several callers one alone gets it.
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
