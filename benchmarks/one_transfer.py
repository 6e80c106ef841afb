"""Delivers one video in a fresh process: `python -m benchmarks.one_transfer WAY URL OUTPUT`.

Idle means that the worker has imported what the way needs and, for a store, has written a small object there.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import requests
from airflow.sdk import DAG  # noqa: F401 - as in every DAG file

from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.storage import open_file
from benchmarks.one_generation import memory

CHUNK = 1024 * 1024


def plain(url: str, output: str) -> None:
    """Download as one would without us: no check, no digest, no flush to disk."""
    with requests.get(url, stream=True, timeout=60) as response, Path(output).open("wb") as file:
        response.raise_for_status()
        for chunk in response.iter_content(CHUNK):
            file.write(chunk)


def deliver(url: str, output: str) -> None:
    """Deliver a finished video as the operator does."""
    target = open_file(output)
    with target.staged("benchmark") as part:
        target.put(LumaRayHook().download_video(url, part).path, lambda: True)


def main(way: str, url: str, output: str) -> None:
    """Prepare, transfer, and print the figures."""
    open_file(output).beside(".first").create(b"x")
    idle = memory("VmRSS")
    if idle is not None:
        Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    began = time.perf_counter()
    {"plain": plain, "deliver": deliver}[way](url, output)
    seconds = time.perf_counter() - began
    peak = memory("VmHWM")
    print()
    print(json.dumps({"seconds": seconds, "memory": None if idle is None or peak is None else peak - idle}))


if __name__ == "__main__":
    main(*sys.argv[1:])
