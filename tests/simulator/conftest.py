from __future__ import annotations

import base64
import io
import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image, ImageDraw

from airflow_provider_luma.simulator import Simulator

KEY = "SG_simulator"


class Api:
    """A raw client: no retries, no opinions."""

    def __init__(self, sim: Simulator) -> None:
        self.sim = sim
        self.session = requests.Session()
        self.session.headers["x-api-key"] = KEY
        self._threads = ThreadPoolExecutor(1)

    def close(self) -> None:
        self.session.close()
        self._threads.shutdown()

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        options.setdefault("timeout", 20)
        options.setdefault("allow_redirects", False)
        return self.session.request(method, self.sim.url + path, **options)

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.call("GET", path, **options)

    def submit(self, slug: str = "luma-ray-img-2-video", **body: Any) -> requests.Response:
        return self.call("POST", f"/v2/{slug}", json={"prompt": "a road", **body})

    def job(self, slug: str = "luma-ray-img-2-video", **body: Any) -> str:
        reply = self.submit(slug, **body)
        assert reply.status_code == 200, reply.text
        return str(reply.json()["request_id"])

    def status(self, request_id: str) -> dict[str, Any]:
        return dict(self.get(f"/v2/requests/{request_id}/status").json())

    def result(self, request_id: str) -> dict[str, Any]:
        return dict(self.get(f"/v2/requests/{request_id}").json())

    def v1(self, slug: str = "luma-ray-img-2-video", **body: Any) -> requests.Response:
        """Make a v1 call in a thread, and advance the clock once it has arrived."""
        before = len(self.sim.jobs)
        waiting = self._threads.submit(self.call, "POST", f"/v1/{slug}", json={"prompt": "a road", **body})
        until(lambda: len(self.sim.jobs) > before or waiting.done())
        self.sim.advance(60)
        return waiting.result(20)

    def download(self, url: str, **options: Any) -> requests.Response:
        return requests.get(url, timeout=20, **options)


def send_v1(sim: Simulator, **body: Any) -> socket.socket:
    """Send a v1 request, wait until its job exists, and return the open connection."""
    before = len(sim.jobs)
    text = json.dumps({"prompt": "a road", **body})
    connection = socket.create_connection(("127.0.0.1", int(sim.url.rpartition(":")[2])))
    connection.sendall(
        f"POST /v1/luma-ray-img-2-video HTTP/1.1\r\nHost: x\r\nx-api-key: {KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()
    )
    until(lambda: len(sim.jobs) > before)
    return connection


def until(condition: Callable[[], object]) -> None:
    """Wait until another thread or process has done something."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)


@pytest.fixture
def sim(clips: Path) -> Iterator[Simulator]:
    """A simulator with jobs of a minute; tests advance its clock."""
    with Simulator(latency=60, clip_seconds=0.25, work_dir=clips) as simulator:
        yield simulator


@pytest.fixture
def connect() -> Iterator[Callable[[Simulator], Api]]:
    """Open clients for simulators that a test starts itself."""
    opened = []

    def connect(sim: Simulator) -> Api:
        opened.append(Api(sim))
        return opened[-1]

    yield connect
    for client in opened:
        client.close()


@pytest.fixture
def api(sim: Simulator, connect: Callable[[Simulator], Api]) -> Api:
    return connect(sim)


@pytest.fixture(scope="session")
def picture() -> bytes:
    """A landscape PNG with four coloured quarters and a ring."""
    image = Image.new("RGB", (640, 400), "#c03030")
    pen = ImageDraw.Draw(image)
    pen.rectangle((320, 0, 640, 200), fill="#30c030")
    pen.rectangle((0, 200, 320, 400), fill="#3030c0")
    pen.rectangle((320, 200, 640, 400), fill="#e0e0e0")
    pen.ellipse((200, 80, 440, 320), outline="black", width=20)
    target = io.BytesIO()
    image.save(target, "PNG")
    return target.getvalue()


@pytest.fixture(scope="session")
def picture_base64(picture: bytes) -> str:
    return base64.b64encode(picture).decode()
