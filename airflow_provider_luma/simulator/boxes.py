"""Changes MP4 files box by box: padding, and another order."""

from __future__ import annotations

import os
import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

#: Bytes; a larger `free` box stays sparse in a copy.
_LARGEST_PADDING = 2**16


@dataclass(frozen=True)
class Box:
    """A top-level box of a file, and its position."""

    kind: bytes
    start: int
    size: int


def pad(path: Path, size: int) -> None:
    """Pad an MP4 to a size with one empty `free` box, as a sparse file if possible."""
    missing = size - path.stat().st_size
    if missing < 8:
        return
    with path.open("ab") as file:
        if missing < 2**32:
            file.write(struct.pack(">I4s", missing, b"free"))
        else:
            file.write(struct.pack(">I4sQ", 1, b"free", missing))
    os.truncate(path, size)


def with_index_last(path: Path) -> Path:
    """Return a copy whose `moov` box comes last: an equivalent video of the same size with other bytes.

    So no mixture of the two is a valid video, wherever one continues the other.
    """
    copy = path.with_suffix(".index-last.mp4")
    if not copy.exists():
        draft = path.with_name(f"{uuid.uuid4().hex}.mp4")
        with path.open("rb") as source, draft.open("wb") as target:
            boxes = list(_boxes(source))
            for box in sorted(boxes, key=lambda box: box.kind == b"moov"):
                source.seek(box.start)
                if box.kind == b"moov":
                    target.write(_earlier(source.read(box.size), box.size))
                elif box.kind == b"free" and box.size > _LARGEST_PADDING:
                    target.write(source.read(16))
                    target.seek(box.size - 16, os.SEEK_CUR)
                else:
                    target.write(source.read(box.size))
        draft.replace(copy)
    return copy


def _boxes(file: BinaryIO) -> Iterator[Box]:
    start, end = 0, os.fstat(file.fileno()).st_size
    while start < end:
        file.seek(start)
        size, kind = struct.unpack(">I4s", file.read(8))
        if size == 1:
            (size,) = struct.unpack(">Q", file.read(8))
        yield Box(kind, start, size)
        start += size


def _earlier(moov: bytes, shift: int) -> bytes:
    """Return an index for media that begin earlier by some bytes: each entry of its `stco` box is an offset."""
    table = moov.index(b"stco") + 8
    (count,) = struct.unpack_from(">I", moov, table)
    offsets = struct.unpack_from(f">{count}I", moov, table + 4)
    moved = struct.pack(f">{count}I", *(offset - shift for offset in offsets))
    return moov[: table + 4] + moved + moov[table + 4 + len(moved) :]
