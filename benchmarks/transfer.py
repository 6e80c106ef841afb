"""Memory and throughput of delivering a large video to disk and to S3."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

from benchmarks.report import Limit, Report
from benchmarks.surroundings import API_KEY, MODEL, connection, run_fresh, server, upload
from tests.storage.server import Store

MB = 1024**2
ROUNDS = 5
LARGE, SMALL = 500, 50
#: Bytes per second of the throttled line: 1 Gbit/s.
PACE = 125_000_000
LABELS = {
    "plain": "requests, streamed to a file",
    "disk": "ours, to the disk",
    "s3": "ours, to S3",
    "plain, paced": "requests, at 1 Gbit/s",
    "disk, paced": "ours, to the disk, at 1 Gbit/s",
}


def run(rounds: int = ROUNDS, large: int = LARGE, small: int = SMALL) -> Report:
    """Transfer a large and a small video in fresh processes, in turn, so that noise on the machine affects all ways.

    :param large: MB
    :param small: MB
    """
    report = Report(
        f"Delivering one video: {large} MB, same server, {rounds} rounds",
        ("way", "MB", "s (median)", "(best)", "MB/s (best)", "peak memory over idle, MB (worst)"),
        notes=[
            "Idle: the worker has imported what the way needs; for S3 it has also written a small object there.",
            "Ours checks and hashes the video and flushes it to disk, and its file appears complete. The digest alone",
            "takes longer than loopback does; over a network it is computed while the next bytes arrive.",
            "To S3 it goes through a file on disk, with a CRC, to moto's server on the same processors.",
        ],
    )
    times: dict[str, list[float]] = {}
    for size in (small, large):
        found = _measure(size, rounds if size == large else 1)
        for way, figures in found.items():
            seconds = [one["seconds"] for one in figures]
            memory = [one["memory"] for one in figures if one["memory"] is not None]
            best, worst = min(seconds), max(memory, default=None)
            report.rows.append((LABELS[way], size, median(seconds), best, size / best, worst))
            if not way.startswith("plain"):
                what = f"peak memory over idle ({LABELS[way]}, {size} MB)"
                report.limits.append(Limit(what, worst, 40, unit=" MB"))
        times = {way: [one["seconds"] for one in figures] for way, figures in found.items()}
    slower = [ours / plain for plain, ours in zip(times["plain, paced"], times["disk, paced"], strict=True)]
    report.limits.append(
        Limit("time at 1 Gbit/s compared with requests (median)", median(slower), 1 / 0.9, unit="x")
    )
    return report


def _measure(size: int, rounds: int) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in LABELS}
    with (
        tempfile.TemporaryDirectory() as folder,
        server(latency=0, video_size=size * MB, credits="100000") as vendor,
        _store() as store,
        _paced_line(vendor) as line,
    ):
        aws = {
            "conn_type": "aws",
            "login": "AKIA0123456789ABCDEF",
            "password": "secret",
            "extra": {"region_name": "us-east-1", "endpoint_url": store},
        }
        env = {
            "AIRFLOW_CONN_LUMA_RAY_DEFAULT": connection(vendor),
            "AIRFLOW_CONN_STORE": json.dumps(aws),
            "TMPDIR": folder,
        }
        urls = {"plain": _video(vendor)}
        urls["plain, paced"] = urls["plain"].replace(vendor, line)
        for number in range(rounds):
            for way in LABELS:
                output = f"s3://store@bench/{number}.mp4" if way == "s3" else f"{folder}/{way}-{number}.mp4"
                does = "plain" if way.startswith("plain") else "deliver"
                url = urls["plain, paced" if way.endswith("paced") else "plain"]
                found[way].append(run_fresh("-m", "benchmarks.one_transfer", does, url, output, env=env))
                if way != "s3":
                    got = Path(output).stat().st_size
                    if got != size * MB:
                        raise RuntimeError(f"{way} saved {got} bytes")
                    Path(output).unlink()
                os.sync()  # so that one way's pending writes do not slow down the next
    return found


def _video(vendor: str) -> str:
    """Have a video made and return its URL."""
    body = {"prompt": "a slow push in", "start_frame": upload(vendor), "loop": False}
    job = _request(f"{vendor}/v2/{MODEL}", body=body)["request_id"]
    while True:
        result = _request(f"{vendor}/v2/requests/{job}")
        if result["status"] == "COMPLETED":
            return str(result["output"])
        time.sleep(0.2)


def _request(url: str, *, method: str | None = None, body: dict[str, Any] | None = None) -> dict[str, Any]:
    content = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", "x-api-key": API_KEY}
    request = urllib.request.Request(url, content, headers, method=method)
    with urllib.request.urlopen(request) as reply:
        return dict(json.loads(reply.read() or b"{}"))


@contextmanager
def _paced_line(url: str) -> Iterator[str]:
    """Yield a URL through which a server answers only as fast as a network would let it."""
    there = urlsplit(url)

    def serve(client: socket.socket) -> None:
        with client, socket.create_connection((there.hostname, there.port)) as upstream, suppress(OSError):
            upstream.sendall(client.recv(65536))
            began, sent = time.perf_counter(), 0
            while chunk := upstream.recv(256 * 1024):
                client.sendall(chunk)
                sent += len(chunk)
                time.sleep(max(sent / PACE - (time.perf_counter() - began), 0))

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def _store() -> Iterator[str]:
    """Run an S3 server in its own process, with the bucket ``bench``; yield its URL."""
    store = Store()
    try:
        _request(f"{store.url}/bench", method="PUT")
        yield store.url
    finally:
        store.kill()
