"""Whether an MP4 is all there, by its boxes: a truncated file can have an honest Content-Length."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

#: Where a track's sample tables are.
_TRACK = (b"trak", b"mdia", b"minf", b"stbl")
_TABLES = (b"stco", b"co64", b"stsc", b"stsz")
#: So much of a table is read: four million samples. A clip has a few hundred.
_MAX_TABLE_BYTES = 16 * 1024 * 1024

Span = tuple[int, int]


def why_incomplete(file: BinaryIO) -> str | None:
    """Return what shows that an MP4 is incomplete, as a verb phrase; None if nothing does.

    Its top-level boxes must end where the file does. There must be an index (``moov``), and no sample in it may end
    beyond the file: a cut between two boxes, or in a last box without a length, shows only there.
    """
    end = file.seek(0, 2)
    index: list[Span] = []
    reached = 0
    for kind, start, reached in _boxes(file, (0, end)):
        if kind == b"moov":
            index.append((start, reached))
    if reached != end or not end:
        return "ends in the middle of an MP4 box"
    if not index:
        return "has no MP4 index (moov)"
    for kind in _TRACK:
        index = [
            (start, stop) for span in index for found, start, stop in _boxes(file, span) if found == kind
        ]
    if any(_samples_end(file, span) > end for span in index):
        return "ends before the last sample of its MP4 index"
    return None


def _boxes(file: BinaryIO, span: Span) -> Iterator[tuple[bytes, int, int]]:
    """Yield each box's type, where its content starts, and where it ends; a torn box ends beyond the span."""
    at, end = span
    while at < end:
        file.seek(at)
        header = file.read(min(16, end - at))
        length, shortest = int.from_bytes(header[:4], "big"), 8
        if length == 1:
            length, shortest = int.from_bytes(header[8:16], "big"), 16
        elif length == 0:  # up to the end
            length = end - at
        if length < shortest or len(header) < shortest:
            yield b"", end, end + 1
            return
        yield header[4:8], at + shortest, at + length
        at += length


def _samples_end(file: BinaryIO, span: Span) -> int:
    """Return where the last sample of a track's tables ends; 0 if they are empty, as in a fragmented file."""
    tables: dict[bytes, bytes] = {}
    for kind, start, stop in _boxes(file, span):
        if kind in _TABLES:
            file.seek(start)
            tables[kind] = file.read(min(stop - start, _MAX_TABLE_BYTES))[4:]  # without version and flags
    offsets = _numbers("I", tables.get(b"stco", b"")[4:]) + _numbers("Q", tables.get(b"co64", b"")[4:])
    runs = _numbers("I", tables.get(b"stsc", b"")[4:])
    counts = dict(
        zip(runs[::3], runs[1::3], strict=False)
    )  # from which chunk on there are how many samples in each
    size, samples, *_ = (*_numbers("I", tables.get(b"stsz", b"")[:8]), 0, 0)
    sizes = _numbers("I", tables.get(b"stsz", b"")[8:])
    furthest = count = seen = 0
    for chunk, offset in enumerate(offsets, start=1):
        count = counts.get(chunk, count)
        length = size * max(min(count, samples - seen), 0) or sum(sizes[seen : seen + count])
        furthest = max(furthest, offset + length)
        seen += count
    return furthest


def _numbers(kind: str, table: bytes) -> tuple[int, ...]:
    width = struct.calcsize(kind)
    count = len(table) // width
    return struct.unpack(f">{count}{kind}", table[: count * width])
