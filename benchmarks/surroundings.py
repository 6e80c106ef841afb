"""The environment of the benchmarks: a separate Airflow home, fresh processes, and a server in its own process."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

API_KEY = "SG_simulator"
MODEL = "luma-ray-img-2-video"
ROOT = Path(__file__).parents[1]
FRAME = ROOT / "dags_examples" / "frames" / "coffee.jpg"


@contextmanager
def isolated() -> Iterator[None]:
    """Point Airflow to an empty home before anything imports it, so that no setting of the developer's is read."""
    with tempfile.TemporaryDirectory(prefix="luma_bench_") as home:
        os.environ |= {
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
            "NO_PROXY": "127.0.0.1,localhost",
        }
        yield


def connection(url: str, **extra: Any) -> str:
    """Return the connection to a simulator, as a value for AIRFLOW_CONN_LUMA_RAY_DEFAULT."""
    return json.dumps({"conn_type": "luma_ray", "password": API_KEY, "host": url, "extra": extra})


def run_fresh(*arguments: str, env: dict[str, str] | None = None) -> Any:
    """Run Python in a fresh process and return the JSON object on its last output line."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | (env or {}),
        text=True,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"python {' '.join(arguments)} failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def server(**options: Any) -> Iterator[str]:
    """Run a simulator in its own process, so that its time and memory are not measured; yield its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.server", json.dumps(options)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            if not url:
                raise RuntimeError("the simulator did not start")
            yield url
        finally:
            process.stdin.close()


def task_context(map_index: int = -1, run_id: str = "run") -> Any:
    """Return a task instance's context, with what the operator reads."""
    ti = SimpleNamespace(
        dag_id="bench",
        run_id=run_id,
        task_id="generate",
        map_index=map_index,
        max_tries=0,
        xcom_push=lambda key, value: None,
    )
    return {"ti": ti, "task_instance": ti, "dag_run": SimpleNamespace(clear_number=0)}


def upload(url: str) -> str:
    """Upload the frame to a simulator and return its URL."""
    picture = FRAME.read_bytes()
    body = {"data_urls": [f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"]}
    request = urllib.request.Request(
        f"{url}/upload-asset",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "x-api-key": API_KEY},
    )
    with urllib.request.urlopen(request) as reply:
        address: str = json.load(reply)["file_urls"][0]
    return address
