"""Start frames: allowed sources, and uploads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from airflow_provider_luma.simulator import Simulator


@pytest.fixture
def elsewhere(picture: bytes) -> Iterator[str]:
    """Another web server on this machine, with one picture and one page."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path in ("/frame.png", "/page") else 404)
            self.end_headers()
            self.wfile.write(picture if self.path == "/frame.png" else b"<html>")

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def upload(api: Any, *data_urls: object) -> Any:
    return api.call("POST", "/upload-asset", json={"data_urls": list(data_urls)})


def test_frames_that_are_accepted(sim: Simulator, api: Any, elsewhere: str, picture_base64: str) -> None:
    data_uri = f"data:image/png;base64,{picture_base64}"
    asset = upload(api, data_uri).json()["file_urls"][0]
    for frame in (picture_base64, data_uri, asset, f"{elsewhere}/frame.png"):
        api.job(start_frame=frame)
    api.job("luma-ray-3-2", start_frame=asset)
    api.job("ray-flash-2-720p", start_image_url=asset, end_image_url=f"{elsewhere}/frame.png")
    sim.advance(60)

    assert [job.state for job in sim.jobs] == ["COMPLETED"] * 6


@pytest.mark.parametrize(
    "frame",
    ["", "hello", "aGVsbG8=", "data:image/png;base64,???", "data:text/plain;base64,aGVsbG8=", "http://[bad"],
)
def test_an_unreadable_frame_fails_the_job_unbilled(sim: Simulator, api: Any, frame: str) -> None:
    request_id = api.job(start_frame=frame)
    sim.advance(60)

    assert api.status(request_id)["status"] == "FAILED"
    assert "frame" in api.status(request_id)["error"]
    assert sim.charges == 0


def test_a_frame_that_cannot_be_fetched_fails_the_job(sim: Simulator, api: Any, elsewhere: str) -> None:
    api.job(start_frame=f"{elsewhere}/missing.png")
    api.job(start_frame=f"{elsewhere}/page")
    api.job(start_frame=f"{sim.url}/assets/simulator@example.com/missing.png")
    api.job(start_frame="http://127.0.0.1:1/")
    api.job("ray-flash-2-720p", end_image_url=f"{elsewhere}/page")
    sim.advance(60)

    assert [job.state for job in sim.jobs] == ["FAILED"] * 5
    assert sim.spent == 0


def test_without_a_frame_the_vendors_sample_is_animated_and_charged(sim: Simulator, api: Any) -> None:
    request_id = api.job()
    sim.advance(60)

    assert api.status(request_id)["status"] == "COMPLETED"
    assert sim.charges == 1


def test_uploads_are_served_back(sim: Simulator, api: Any, picture: bytes, picture_base64: str) -> None:
    reply = upload(api, *[f"data:image/png;base64,{picture_base64}"] * 2)

    urls = reply.json()["file_urls"]
    assert len(set(urls)) == 2
    assert reply.json()["message"]
    assert urls[0].startswith(f"{sim.url}/assets/")
    assert "@" in urls[0]
    assert api.download(urls[0]).content == picture
    assert api.download(urls[0]).headers["Content-Type"] == "image/png"
    assert api.download(f"{sim.url}/assets/simulator@example.com/..%2F..%2Fpasswd").status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"data_urls": []},
        {"data_urls": "data:image/png;base64,AAAA"},
        {"data_urls": [7]},
        {"data_urls": ["https://example.com/a.png"]},
        {"data_urls": ["data:video/mp4;base64,AAAA"]},
        {"data_urls": ["data:image/png,AAAA"]},
        {"data_urls": ["data:image/png;base64,A A"]},
        {"data_urls": ["data:image/png;base64,aGVsbG8="]},
    ],
)
def test_a_refused_upload(api: Any, body: Any) -> None:
    reply = api.call("POST", "/upload-asset", json=body)

    assert reply.status_code == 400
    assert list(reply.json()) == ["error"]
