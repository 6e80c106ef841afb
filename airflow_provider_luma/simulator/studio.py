"""Makes the videos: fetches frames, renders clips in threads, and keeps them as files."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from PIL import Image

from airflow_provider_luma.simulator import boxes, render
from airflow_provider_luma.simulator.contract import Model, RefusalError, decode_frame, is_url

_FETCH = aiohttp.ClientTimeout(total=30)


class FrameError(Exception):
    """A frame that cannot be fetched or decoded: the job ends FAILED."""


class Studio:
    """Renders clips and stores uploads, all in one folder."""

    def __init__(self, folder: Path, clip_seconds: float | None, video_size: int | None) -> None:
        self._assets = folder / "assets"
        self._clips = folder / "clips"
        self._assets.mkdir(parents=True, exist_ok=True)
        self._clips.mkdir(exist_ok=True)
        self._clip_seconds = clip_seconds
        self._video_size = video_size
        self._rendering: dict[Path, asyncio.Future[None]] = {}
        self._renderers = ThreadPoolExecutor(2, thread_name_prefix="luma-simulator-render")
        self._closing = threading.Event()
        self._session = aiohttp.ClientSession(timeout=_FETCH)

    async def close(self) -> None:
        """Cancel all rendering and fetching."""
        self._closing.set()
        await self._session.close()
        await asyncio.to_thread(self._renderers.shutdown, cancel_futures=True)

    async def clip(self, model: Model, body: dict[str, Any], base_url: str) -> Path:
        """Return the file with the clip that a body requests; FrameError if its frame is not a picture."""
        if model.end_frame_field in body:
            await asyncio.to_thread(_open, await self._frame(body[model.end_frame_field], base_url))
        frame = await self._frame(body[model.frame_field], base_url) if model.frame_field in body else None
        take = render.Take(
            aspect_ratio=body.get("aspect_ratio", model.aspect_ratio),
            resolution=body.get("resolution", "720p"),
            seconds=self._clip_seconds or model.seconds_of(body),
            loop=body.get("loop", False) is True,
        )
        key = await asyncio.to_thread(
            lambda: hashlib.sha256(repr((take, frame is None)).encode() + (frame or b"")).hexdigest()
        )
        path = self._clips / f"{key}-{self._video_size or 0}.mp4"
        if not path.exists():
            task = self._rendering.get(path)
            if task is None:
                loop = asyncio.get_running_loop()
                task = loop.run_in_executor(self._renderers, self._render, frame, take, path)
                task.add_done_callback(lambda _: self._rendering.pop(path))
                self._rendering[path] = task
            await asyncio.shield(task)
        return path

    async def save_assets(self, files: list[tuple[str, bytes]]) -> list[str]:
        """Store uploaded pictures and return their names; refuse other files."""
        return await asyncio.to_thread(self._save_assets, files)

    def asset(self, name: str) -> Path:
        """Return the path of an uploaded picture; it may not exist."""
        return self._assets / Path(name).name

    def _save_assets(self, files: list[tuple[str, bytes]]) -> list[str]:
        names = []
        for mime, data in files:
            try:
                render.open_picture(data)
            except ValueError as error:
                raise RefusalError(400, f"Invalid image data: {error}") from error
            subtype = "".join(filter(str.isalnum, mime.removeprefix("image/")))
            names.append(f"{uuid.uuid4()}.{'jpg' if subtype == 'jpeg' else subtype}")
            (self._assets / names[-1]).write_bytes(data)
        return names

    async def _frame(self, value: str, base_url: str) -> bytes:
        if not is_url(value):
            try:
                return await asyncio.to_thread(decode_frame, value)
            except ValueError as error:
                raise FrameError(f"Could not decode the frame: {error}") from error
        if value.startswith(f"{base_url}/assets/"):
            asset = self.asset(urlsplit(value).path)
            if not asset.is_file():
                raise FrameError("Could not fetch the frame: HTTP 404")
            return asset.read_bytes()
        try:
            async with self._session.get(value) as reply:
                if reply.status != 200:
                    raise FrameError(f"Could not fetch the frame: HTTP {reply.status}")
                return await reply.read()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise FrameError(f"Could not fetch the frame: {type(error).__name__}") from error

    def _render(self, frame: bytes | None, take: render.Take, path: Path) -> None:
        picture = render.sample_picture() if frame is None else _open(frame)
        draft = path.with_name(f"{uuid.uuid4().hex}.mp4")
        render.film(picture, take, draft, self._closing.is_set)
        if self._video_size:
            boxes.pad(draft, self._video_size)
        if not self._closing.is_set():
            draft.replace(path)


def _open(frame: bytes) -> Image.Image:
    try:
        return render.open_picture(frame)
    except ValueError as error:
        raise FrameError(f"Could not decode the frame: {error}") from error
