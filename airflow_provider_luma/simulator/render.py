"""Renders a short H.264 clip that slowly pushes into a picture."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.filter
from PIL import Image, ImageDraw, ImageOps

FRAMES_PER_SECOND = 24
_PUSH_IN = 0.2
_TICK = Fraction(1, FRAMES_PER_SECOND)
_SHORT_SIDE = {"540p": 540, "720p": 720, "1080p": 1080, "4k": 2160}


@dataclass(frozen=True)
class Take:
    """What to render, apart from the picture."""

    aspect_ratio: str
    resolution: str
    seconds: float
    loop: bool

    @property
    def size(self) -> tuple[int, int]:
        """Return the width and the height in pixels, both even."""
        wide, high = (int(part) for part in self.aspect_ratio.split(":"))
        scale = _SHORT_SIDE[self.resolution] / min(wide, high)
        return 2 * round(wide * scale / 2), 2 * round(high * scale / 2)


def open_picture(data: bytes) -> Image.Image:
    """Decode a picture completely; ValueError if the bytes are not one."""
    try:
        picture = Image.open(io.BytesIO(data))
        picture.load()
        return ImageOps.exif_transpose(picture).convert("RGB")
    except Exception as error:
        raise ValueError("not a readable image") from error


def sample_picture() -> Image.Image:
    """Return a picture in place of the vendor's sample: an evening sky over a road."""
    sky = Image.linear_gradient("L").resize((1280, 1280))
    picture = ImageOps.colorize(sky, "#1b2a6b", "#f6a35c", "#a04a83")
    pen = ImageDraw.Draw(picture)
    pen.ellipse((540, 620, 740, 820), fill="#ffe9b0")
    pen.rectangle((0, 800, 1280, 1280), fill="#20242e")
    pen.polygon([(610, 800), (670, 800), (1000, 1280), (280, 1280)], fill="#3a3f4b")
    return picture


def film(picture: Image.Image, take: Take, path: Path, cancelled: Callable[[], bool]) -> None:
    """Write the clip to the path; stop with an unfinished one if cancelled."""
    width, height = take.size
    count = max(1, round(take.seconds * FRAMES_PER_SECOND))
    push = f"(1-cos(2*PI*on/{count}))/2" if take.loop else f"on/{count}"
    # Twice the size, so that one source pixel is half a pixel of the clip: this keeps the push-in smooth.
    still = ImageOps.fit(picture, (2 * width, 2 * height), Image.Resampling.BICUBIC)
    frame = av.VideoFrame.from_image(still).reformat(format="yuv420p")  # type: ignore[no-untyped-call]
    camera = av.filter.Graph()
    source = camera.add_buffer(
        width=frame.width, height=frame.height, format=frame.format.name, time_base=_TICK
    )
    zoom = camera.add(
        "zoompan",
        f"z='1+{_PUSH_IN}*{push}':x='iw/2-iw/zoom/2':y='ih/2-ih/zoom/2'"
        f":d={count}:s={width}x{height}:fps={FRAMES_PER_SECOND}",
    )
    sink = camera.add("buffersink")
    source.link_to(zoom)
    zoom.link_to(sink)
    camera.configure()
    camera.vpush(frame)
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "ultrafast", "crf": "23", "threads": "1"}
        for index in range(count):
            if cancelled():
                break
            shot = camera.vpull()
            shot.pts, shot.time_base = index, _TICK
            container.mux(stream.encode(shot))
        container.mux(stream.encode(None))
