"""Measures one generation in a fresh process: `python -m benchmarks.one_generation WAY URL FRAME OUTPUT`.

Every way starts where an Airflow task does, after the DAG file's imports. Later imports count, in time and in memory;
their time is also shown separately.
"""

# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path

from benchmarks.surroundings import API_KEY, MODEL, task_context

STATUS = Path("/proc/self/status")
PROMPT = "a slow push in"


def operator(url: str, frame: str, output: str, poll_interval: float | None) -> None:
    """Run our operator as a task does; the connection to `url` comes from the environment."""
    from airflow_provider_luma.operators.luma_ray import LumaRayImageToVideoOperator

    task = LumaRayImageToVideoOperator(
        task_id="generate",
        prompt=PROMPT,
        start_frame=frame,
        output_path=output,
        api_version="v2",
        poll_interval=poll_interval,
    )
    task.execute(task_context())


def sdk(url: str, frame: str, output: str) -> None:
    """Run the vendor's SDK, and download the file from the URL that it returns."""
    import httpx
    from segmind import SegmindClient

    client = SegmindClient(api_key=API_KEY, base_url=f"{url}/v1")
    job = client.submit_async(MODEL, prompt=PROMPT, start_frame=frame, loop=False)
    Path(output).write_bytes(httpx.get(job.wait()["output"]).raise_for_status().content)


def sample(url: str, frame: str, output: str) -> None:
    """Run the vendor's sample code for v1."""
    import requests

    data = {
        "prompt": PROMPT,
        "start_frame": frame,
        "loop": False,
        "resolution": "720p",
        "aspect_ratio": "1:1",
    }
    response = requests.post(f"{url}/v1/{MODEL}", json=data, headers={"x-api-key": API_KEY})
    response.raise_for_status()
    Path(output).write_bytes(response.content)


@dataclass(frozen=True)
class Way:
    """One way to a video.

    :param parsed: what its DAG file imports
    :param imports: what it imports when its task runs
    :param generate: takes the server's URL, the frame's URL and the video's path
    """

    parsed: str
    imports: tuple[str, ...]
    generate: Callable[[str, str, str], None]


_OPERATOR = partial(
    Way,
    "airflow_provider_luma.operators.luma_ray",
    tuple(f"airflow_provider_luma.{name}" for name in ("hooks.luma_ray", "jobs.ledger", "jobs.job")),
)
WAYS = {
    "operator": _OPERATOR(partial(operator, poll_interval=1)),
    "adaptive": _OPERATOR(partial(operator, poll_interval=None)),
    "sdk": Way("airflow.sdk", ("httpx", "segmind"), sdk),
    "sample": Way("airflow.sdk", ("requests",), sample),
}


def memory(name: str) -> float | None:
    """Return one of this process's memory figures in MB; None if the system has none."""
    if not STATUS.exists():
        return None
    lines = (line.split() for line in STATUS.read_text().splitlines())
    return next(int(words[1]) / 1024 for words in lines if words[0] == f"{name}:")


def main(name: str, *arguments: str) -> None:
    """Parse, import, generate, and print the figures."""
    from airflow.sdk import DAG  # noqa: F401 - as in every DAG file

    way = WAYS[name]
    import_module(way.parsed)
    idle = memory("VmRSS")
    if idle is not None:
        Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    began, cpu = time.perf_counter(), time.process_time()
    for module in way.imports:
        import_module(module)
    imported = time.perf_counter()
    way.generate(*arguments)
    done, busy = time.perf_counter(), time.process_time() - cpu
    peak = memory("VmHWM")
    over_idle = None if idle is None or peak is None else peak - idle
    figures = {"imports": imported - began, "seconds": done - began, "cpu": busy, "memory": over_idle}
    print()
    print(json.dumps(figures))


if __name__ == "__main__":
    main(*sys.argv[1:])
