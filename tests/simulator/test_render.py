"""The clips, decoded."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image, ImageChops, ImageOps, ImageStat

from airflow_provider_luma.simulator import Simulator
from airflow_provider_luma.simulator.render import Take


def decode(data: bytes) -> tuple[list[Image.Image], Any]:
    with av.open(io.BytesIO(data), "r") as container:
        stream = container.streams.video[0]
        frames = [frame.to_image() for frame in container.decode(stream)]
        return frames, (stream.codec_context.name, stream.codec_context.pix_fmt, stream.average_rate)


def difference(one: Image.Image, other: Image.Image) -> float:
    return max(ImageStat.Stat(ImageChops.difference(one, other)).mean)


def video(sim: Simulator, api: Any, slug: str = "luma-ray-img-2-video", **body: Any) -> bytes:
    request_id = api.job(slug, **body)
    sim.advance(60)
    return bytes(api.download(api.result(request_id)["output"]).content)


@pytest.mark.parametrize(
    ("slug", "body", "size"),
    [
        ("luma-ray-img-2-video", {}, (720, 720)),
        ("luma-ray-img-2-video", {"aspect_ratio": "16:9", "resolution": "540p"}, (960, 540)),
        ("luma-ray-img-2-video", {"aspect_ratio": "4:5", "resolution": "540p"}, (540, 676)),
        ("luma-ray-img-2-video", {"aspect_ratio": "9:21", "resolution": "720p"}, (720, 1680)),
        ("luma-ray-3-2", {}, (1280, 720)),
        ("ray-flash-2-720p", {"aspect_ratio": "3:4"}, (720, 960)),
    ],
)
def test_size_and_codec(sim: Simulator, api: Any, slug: str, body: Any, size: tuple[int, int]) -> None:
    frames, codec = decode(video(sim, api, slug, **body))

    assert codec == ("h264", "yuv420p", 24)
    assert len(frames) == 6
    assert frames[0].size == size


@pytest.mark.parametrize(
    ("ratio", "resolution", "size"),
    [
        ("1:1", "4k", (2160, 2160)),
        ("16:9", "4k", (3840, 2160)),
        ("2:3", "1080p", (1080, 1620)),
        ("21:9", "1080p", (2520, 1080)),
        ("5:4", "540p", (676, 540)),
    ],
)
def test_larger_sizes(ratio: str, resolution: str, size: tuple[int, int]) -> None:
    assert Take(ratio, resolution, seconds=5, loop=False).size == size


@pytest.mark.parametrize("ratio", ["1:1", "16:9", "9:16"])
def test_the_first_frame_is_the_start_frame_cropped(
    sim: Simulator, api: Any, picture: bytes, picture_base64: str, ratio: str
) -> None:
    frames, _ = decode(video(sim, api, start_frame=picture_base64, aspect_ratio=ratio, resolution="540p"))

    expected = ImageOps.fit(Image.open(io.BytesIO(picture)), frames[0].size)
    assert difference(frames[0], expected) < 3


def test_the_camera_pushes_in_and_a_loop_returns(clips: Path, connect: Any, picture_base64: str) -> None:
    with Simulator(latency=60, clip_seconds=1, work_dir=clips) as sim:
        api = connect(sim)
        frame = {"start_frame": picture_base64, "resolution": "540p", "aspect_ratio": "3:2"}
        straight, _ = decode(video(sim, api, **frame))
        loop, _ = decode(video(sim, api, loop=True, **frame))

    assert len(straight) == len(loop) == 24
    assert difference(straight[0], loop[0]) < 1
    assert difference(straight[0], straight[-1]) > difference(straight[0], straight[12]) > 0.5
    assert difference(loop[0], loop[12]) > 2 * difference(loop[0], loop[-1])


def test_the_duration_field_is_obeyed_unless_overridden(clips: Path, connect: Any) -> None:
    with Simulator(latency=60, work_dir=clips) as sim:
        api = connect(sim)
        data = video(sim, api, "luma-ray-3-2", duration="9s", aspect_ratio="1:1", resolution="540p")

    with av.open(io.BytesIO(data)) as container:
        assert container.streams.video[0].frames == 9 * 24


def test_the_moov_box_comes_first(sim: Simulator, api: Any) -> None:
    data = video(sim, api)
    assert data[4:8] == b"ftyp"
    assert 0 < data.index(b"moov") < data.index(b"mdat")


def test_padding_is_sparse_and_the_clip_still_plays(clips: Path, connect: Any) -> None:
    size = 64 * 2**20
    with Simulator(latency=60, clip_seconds=0.25, video_size=size, work_dir=clips) as sim:
        api = connect(sim)
        data = video(sim, api)

    assert len(data) == size
    assert len(decode(data)[0]) == 6
    padded = next(path for path in (clips / "clips").iterdir() if path.stat().st_size == size)
    assert os.stat(padded).st_blocks * 512 < size / 4


def test_the_same_clip_is_rendered_once(tmp_path: Path, connect: Any) -> None:
    with Simulator(latency=60, clip_seconds=0.25, work_dir=tmp_path) as fresh:
        client = connect(fresh)
        for index in range(50):
            client.submit(prompt=f"take {index}", some_seed=index)
        fresh.set_credits("100")
        for index in range(50):
            client.submit(prompt=f"take {index}")
        fresh.advance(60)
        assert fresh.charges > 50
    assert len(list((tmp_path / "clips").iterdir())) == 1
