"""Fixtures of the hook's tests: a folder of clips, custom hosts, a hook, and a request."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from airflow_provider_luma.hooks import backoff
from airflow_provider_luma.hooks.limiter import limiter_of
from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.segmind.request import GenerationRequest
from tests.hooks.peer import Answer, Peer
from tests.support import set_connection


@pytest.fixture(autouse=True)
def quicker(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the waits between tries even more, as there are hundreds of them."""
    monkeypatch.setattr(backoff, "_FIRST_RETRY", 0.001)
    limiter_of.cache_clear()  # a port may be used again, and be another account


@pytest.fixture(autouse=True)
def lookups(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Replace DNS, so that no test uses the network; return the known hosts, to be extended."""
    resolve, known = socket.getaddrinfo, {"localhost": ["127.0.0.1"], "localhost.": ["127.0.0.1"]}

    def getaddrinfo(host: Any, port: Any, *args: Any, **options: Any) -> list[Any]:
        name = host.lower() if isinstance(host, str) else host
        if name in known:
            return [
                (socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port or 0))
                for ip in known[name]
            ]
        return resolve(host, port, flags=socket.AI_NUMERICHOST, type=socket.SOCK_STREAM)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return known


@pytest.fixture
def frame(tmp_path: Path, picture: bytes) -> Path:
    path = tmp_path / "frame.jpg"
    path.write_bytes(picture)
    return path


@pytest.fixture
def hook(connection: None) -> LumaRayHook:
    """A hook on the simulator."""
    return LumaRayHook()


@pytest.fixture
def peer() -> Iterator[Callable[..., Peer]]:
    """Start hosts that send the test's own replies."""
    with ExitStack() as stack:
        yield lambda *answers, **options: stack.enter_context(Peer(*answers, **options))


@pytest.fixture
def hook_at(
    monkeypatch: pytest.MonkeyPatch, peer: Callable[..., Peer]
) -> Callable[..., tuple[LumaRayHook, Peer]]:
    """Start a host that sends the test's own replies, and a hook on it."""

    def start(*answers: Answer, **extra: Any) -> tuple[LumaRayHook, Peer]:
        host = peer(*answers)
        set_connection(monkeypatch, host.url, **{"timeout": 5} | extra)
        return LumaRayHook(), host

    return start


@pytest.fixture
def closed_socket() -> Iterator[socket.socket]:
    """A port that refuses connections until somebody listens, reserved so that nobody else gets it."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound


@pytest.fixture
def closed_port(closed_socket: socket.socket) -> int:
    return int(closed_socket.getsockname()[1])


@pytest.fixture(scope="session")
def picture() -> bytes:
    target = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(target, "JPEG")
    return target.getvalue()


@pytest.fixture(scope="session")
def request_(picture: bytes) -> GenerationRequest:
    """The vendor's sample, with the frame inline."""
    return GenerationRequest(
        model="luma-ray-img-2-video",
        prompt="a slow push in",
        start_frame=base64.b64encode(picture).decode(),
        resolution="540p",
    )


def box(kind: bytes, content: bytes) -> bytes:
    return (8 + len(content)).to_bytes(4, "big") + kind + content


@pytest.fixture(scope="session")
def mp4() -> bytes:
    """Bytes that look like an MP4: a sane sequence of boxes, too random to be compressed."""
    return (
        box(b"ftyp", b"isom\0\0\2\0isomiso2avc1mp41")
        + box(b"mdat", os.urandom(2_500_000))
        + box(b"moov", b"\0" * 99)
    )


@pytest.fixture(scope="session")
def mp4_sha256(mp4: bytes) -> str:
    return hashlib.sha256(mp4).hexdigest()
