"""MP4s that are all there, and MP4s that are not: made of boxes, by muxers, and by the simulator."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from airflow_provider_luma.mp4 import why_incomplete
from airflow_provider_luma.simulator import boxes, render

TORN = "ends in the middle of an MP4 box"
NO_INDEX = "has no MP4 index (moov)"
SHORT = "ends before the last sample of its MP4 index"


def box(kind: bytes, *contents: bytes, long: bool = False) -> bytes:
    content = b"".join(contents)
    if long:
        return b"\0\0\0\1" + kind + struct.pack(">Q", 16 + len(content)) + content
    return struct.pack(">I", 8 + len(content)) + kind + content


def table(kind: bytes, *numbers: int, width: str = "I") -> bytes:
    return box(kind, bytes(4), struct.pack(f">I{len(numbers)}{width}", len(numbers), *numbers))


def index(*tracks: bytes) -> bytes:
    return box(b"moov", box(b"mvhd", bytes(100)), *tracks)


def track(*tables: bytes) -> bytes:
    return box(b"trak", box(b"mdia", box(b"minf", box(b"stbl", *tables))))


def runs(*numbers: int) -> bytes:
    return box(b"stsc", bytes(4), struct.pack(f">I{len(numbers)}I", len(numbers) // 3, *numbers))


def sizes(*each: int, same: int = 0, count: int = 0) -> bytes:
    return box(b"stsz", bytes(4), struct.pack(f">II{len(each)}I", same, count or len(each), *each))


FTYP = box(b"ftyp", b"isom\0\0\2\0")
MDAT = box(b"mdat", bytes(100))
MOOV = index()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (FTYP + MDAT + MOOV, None),
        (FTYP + MOOV + MDAT, None),
        (FTYP + MOOV + box(b"mdat", bytes(100), long=True), None),
        (FTYP + MOOV + b"\0\0\0\0mdat" + bytes(100), None),
        (FTYP + MOOV + MDAT + box(b"free"), None),
        (FTYP + MOOV + box(b"moof", bytes(9)) + MDAT, None),
        (FTYP, NO_INDEX),
        (FTYP + MDAT, NO_INDEX),
        (FTYP + box(b"moof", bytes(9)) + MDAT, NO_INDEX),
        (FTYP + b"\0\0\0\0mdat" + bytes(100) + MOOV, NO_INDEX),
        ((FTYP + MOOV + MDAT)[:-1], TORN),
        ((FTYP + MDAT + MOOV)[:-1], TORN),
        ((FTYP + MOOV + box(b"mdat", bytes(100), long=True))[:-1], TORN),
        ((FTYP + MOOV + box(b"mdat", long=True))[:-4], TORN),
        (FTYP + MOOV + b"\0\0\0\0", TORN),
        (FTYP + MOOV + b"\0\0\0", TORN),
        (FTYP + MOOV + b"\0\0\0\x04mdat", TORN),
        (FTYP + MOOV + b"\0\0\0\1mdat" + bytes(8), TORN),
        (FTYP[:-1], TORN),
        (b"", TORN),
        (b"\0", TORN),
    ],
)
def test_a_file_has_all_of_its_boxes_and_an_index(content: bytes, problem: str | None) -> None:
    assert why_incomplete(io.BytesIO(content)) == problem


#: Tables for a hundred bytes of samples that begin at a byte.
Tables = Callable[[int], list[bytes]]

WITHIN: dict[str, Tables] = {
    "no chunk": lambda at: [table(b"stco"), runs(), sizes()],
    "one sample": lambda at: [table(b"stco", at), runs(1, 1, 1), sizes(100)],
    "three samples": lambda at: [table(b"stco", at), runs(1, 3, 1), sizes(50, 20, 30)],
    "64 bits": lambda at: [table(b"co64", at, width="Q"), runs(1, 2, 1), sizes(50, 50)],
    "two chunks": lambda at: [table(b"stco", at, at + 60), runs(1, 2, 1), sizes(50, 10, 20, 20)],
    "two runs": lambda at: [table(b"stco", at, at + 60), runs(1, 2, 1, 2, 1, 1), sizes(50, 10, 40)],
    "the last chunk first": lambda at: [table(b"stco", at + 60, at), runs(1, 1, 1), sizes(40, 60)],
    "samples of one size": lambda at: [table(b"stco", at), runs(1, 25, 1), sizes(same=4, count=25)],
    "a run of more samples than there are": lambda at: [
        table(b"stco", at, at),
        runs(1, 2**32 - 1, 1),
        sizes(same=4, count=25),
    ],
    "compact sizes, which are not read": lambda at: [
        table(b"stco", at),
        runs(1, 9, 1),
        box(b"stz2", bytes(20)),
    ],
    "no table of sizes": lambda at: [table(b"stco", at)],
    "a table that is cut off": lambda at: [table(b"stco", at)[:-2]],
}
BEYOND: dict[str, Tables] = {
    "a chunk": lambda at: [table(b"stco", at + 101)],
    "a chunk in 64 bits": lambda at: [table(b"co64", 2**40, width="Q")],
    "a sample": lambda at: [table(b"stco", at), runs(1, 3, 1), sizes(50, 20, 31)],
    "a sample of the second run": lambda at: [
        table(b"stco", at, at + 60),
        runs(1, 2, 1, 2, 1, 1),
        sizes(50, 10, 41),
    ],
    "a sample of a chunk that is not the last": lambda at: [
        table(b"stco", at + 60, at),
        runs(1, 1, 1),
        sizes(41, 10),
    ],
    "a sample of one size": lambda at: [table(b"stco", at), runs(1, 26, 1), sizes(same=4, count=26)],
}


@pytest.mark.parametrize(
    ("tables", "problem"),
    [pytest.param(tables, None, id=name) for name, tables in WITHIN.items()]
    + [pytest.param(tables, SHORT, id=f"{name} beyond the end") for name, tables in BEYOND.items()],
)
def test_all_samples_of_the_index_are_in_the_file(tables: Tables, problem: str | None) -> None:
    start = len(FTYP + index(track(), track(*tables(0)))) + 8
    content = FTYP + index(track(), track(*tables(start))) + b"\0\0\0\0mdat" + bytes(100)
    assert why_incomplete(io.BytesIO(content)) == problem


@pytest.fixture(
    params=[
        pytest.param({}, id="index last"),
        pytest.param({"movflags": "+faststart"}, id="index first"),
        pytest.param({"movflags": "+frag_keyframe+empty_moov"}, id="fragmented"),
    ]
)
def clip(request: pytest.FixtureRequest, tmp_path: Path) -> bytes:
    """Two seconds with sound, as FFmpeg writes them."""
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w", options=request.param) as out:
        video = out.add_stream("libx264", rate=24)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        sound = out.add_stream("aac", rate=48_000, layout="mono")
        for shot in range(48):
            noise = Image.effect_noise((64, 64), shot).convert("RGB")
            out.mux(video.encode(av.VideoFrame.from_image(noise)))
            silence = av.AudioFrame(format="fltp", layout="mono", samples=2000)
            silence.planes[0].update(bytes(silence.planes[0].buffer_size))
            silence.sample_rate, silence.pts = 48_000, shot * 2000
            out.mux(sound.encode(silence))
        out.mux(video.encode(None))
        out.mux(sound.encode(None))
    return path.read_bytes()


def test_a_muxers_clip_is_complete_and_no_beginning_of_it_is(clip: bytes) -> None:
    assert why_incomplete(io.BytesIO(clip)) is None
    cuts = range(0, len(clip), 997)
    assert [cut for cut in cuts if why_incomplete(io.BytesIO(clip[:cut])) is None] == []


def test_the_simulators_clips_are_complete(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    take = render.Take("1:1", "540p", 0.25, False)
    render.film(render.sample_picture(), take, path, lambda: False)
    boxes.pad(path, 1_000_000)
    for film in (path, boxes.with_index_last(path)):
        with film.open("rb") as file:
            assert why_incomplete(file) is None


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_the_check_survives_any_file(content: bytes) -> None:
    why_incomplete(io.BytesIO(content))


@settings(deadline=None)
@given(
    st.sampled_from([b"stco", b"co64", b"stsc", b"stsz"]).flatmap(
        lambda kind: st.builds(lambda content: box(kind, content), st.binary(max_size=40))
    )
)
def test_no_table_whatever_confuses_the_check(odd: bytes) -> None:
    tables = [table(b"stco", 0), runs(1, 1, 1), sizes(1), odd]
    why_incomplete(io.BytesIO(FTYP + index(track(*tables))))
