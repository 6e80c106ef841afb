"""Real processes behind a barrier, on a local disk and a real S3 server: always a single purchase.

LUMA_TRIALS sets the number of trials of each kind (default 2; 50 in `make faults`).
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_luma.simulator import Simulator
from tests.buckets import s3_server
from tests.claims.contender import serve
from tests.support import API_KEY

TRIALS = int(os.environ.get("LUMA_TRIALS", "2"))
CONTENDERS = 4


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    folder = tmp_path_factory.mktemp("vendor")
    with Simulator(
        latency=0.05, clip_seconds=0.2, credits="100000", api_key=API_KEY, work_dir=folder
    ) as running:
        yield running


@pytest.fixture(scope="module")
def bucket() -> Iterator[tuple[str, Any]]:
    with s3_server() as (connection, client):
        client.create_bucket(Bucket="clips")
        yield connection, client


class Crowd:
    """Processes that wait for attempts."""

    def __init__(self, environment: dict[str, str]) -> None:
        context = multiprocessing.get_context("spawn")
        self._tasks, self._results = context.SimpleQueue(), context.Queue()
        self._barrier = context.Barrier(CONTENDERS)  # it has to outlive the start of the processes
        self._processes = [
            context.Process(
                target=serve, args=(self._tasks, self._results, self._barrier, environment), daemon=True
            )
            for _ in range(CONTENDERS)
        ]
        for process in self._processes:
            process.start()

    def contend(self, attempts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Run attempts at the same time, one per process."""
        assert len(attempts) == CONTENDERS
        for told in attempts:
            self._tasks.put(told)
        return [json.loads(self._results.get(timeout=60)) for _ in attempts]

    def stop(self) -> None:
        for _ in self._processes:
            self._tasks.put(None)
        for process in self._processes:
            process.join(30)


@pytest.fixture(scope="module")
def crowd(simulator: Simulator, bucket: tuple[str, Any]) -> Iterator[Crowd]:
    extra = {"requests_per_minute": 100_000, "timeout": 30}
    luma = {"conn_type": "luma_ray", "password": API_KEY, "host": simulator.url, "extra": extra}
    crowd = Crowd({"AIRFLOW_CONN_LUMA_RAY_DEFAULT": json.dumps(luma), "AIRFLOW_CONN_STORE": bucket[0]})
    yield crowd
    crowd.stop()


@pytest.mark.slow
@pytest.mark.parametrize("place", ["local disk", "S3"])
@pytest.mark.parametrize("kind", ["two attempts of each", "mapped siblings", "runs"])
def test_contenders_for_one_path(
    crowd: Crowd,
    simulator: Simulator,
    bucket: tuple[str, Any],
    frame: Path,
    tmp_path: Path,
    place: str,
    kind: str,
) -> None:
    """No task instance is charged twice, and of several that want the same path at once only one is charged."""
    for trial in range(TRIALS):
        name = f"{kind.replace(' ', '-')}-{trial}"
        folder = f"s3://store@clips/{name}" if place == "S3" else str(tmp_path / name)
        before = {job.request_id for job in simulator.jobs}
        ends = crowd.contend([_told(kind, index, f"{folder}/clip.mp4", frame) for index in range(CONTENDERS)])
        bought = {job.request_id for job in simulator.jobs} - before
        assert len(bought) == 1, (trial, ends)
        delivered = {end["delivered"] for end in ends if "delivered" in end}
        assert delivered == bought, (trial, ends)
        for end in ends:
            assert "delivered" in end or end["error"] in (
                "LumaRayConfigurationError",
                "LumaRayDeliveryFailed",
            ), end
        record = _record(bucket[1], folder, name)
        assert (record["state"], record["request_id"]) == ("delivered", *bought)


def _told(kind: str, index: int, output: str, frame: Path) -> dict[str, Any]:
    told = {"frame": str(frame), "output": output, "stored": False, "run_id": "sunday", "map_index": -1}
    if kind == "mapped siblings":
        told["map_index"] = index
    elif kind == "runs":
        told["run_id"] = f"run-{index}"
        told["arguments"] = {"if_exists": "fail"}
    return told


def _record(client: Any, folder: str, name: str) -> dict[str, Any]:
    if folder.startswith("s3://"):
        content = client.get_object(Bucket="clips", Key=f"{name}/clip.mp4.job.json")["Body"].read()
    else:
        content = Path(folder, "clip.mp4.job.json").read_bytes()
    record: dict[str, Any] = json.loads(content)
    return record
