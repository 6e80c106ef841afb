"""The fleet and its surroundings: a bucket, the vendor, and the DAG runs that use them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_luma.simulator import Simulator
from tests.e2e.cluster import FINISHED
from tests.fleet.fleet import Fleet
from tests.storage.conftest import ACCESS_KEY, SECRET, Bucket
from tests.storage.server import Gate, Store
from tests.support import API_KEY

FRAME = "frames/frame.jpg"
_NUMBERS = count(1)


@dataclass(frozen=True)
class Run:
    """One DAG run, with its own way to the vendor and to the bucket.

    :param clips: how many it is to make
    """

    dag_id: str
    run_id: str
    clips: int
    simulator: Simulator
    vendor: Gate
    bucket: Gate

    def __str__(self) -> str:
        return f"{self.dag_id} {self.run_id}"

    def prompt(self, map_index: int) -> str:
        """Return a clip's prompt, which no other has."""
        return f"{self.run_id}, take {map_index}"

    def clip(self, map_index: int) -> str:
        """Return a clip's key in the bucket."""
        return f"clips/{self.dag_id}/{self.run_id}/generate-{map_index}.mp4"


class OneClientBucket(Bucket):
    """The bucket, with one client for thousands of calls: to make one takes longer than a call."""

    @cached_property
    def client(self) -> Any:
        return super().client


class Rig:
    """Starts DAG runs on the fleet.

    :param frame: the first frame of all clips
    """

    def __init__(self, fleet: Fleet, store: Store, frame: Path) -> None:
        self.fleet = fleet
        self.store = store
        self.bucket = OneClientBucket(store)
        self.bucket.create()
        self.bucket.put(FRAME, frame.read_bytes())
        self._stack = ExitStack()

    def close(self) -> None:
        """Close all ways to the vendor and to the bucket."""
        self._stack.close()

    @contextmanager
    def vendor(self, **options: Any) -> Iterator[Simulator]:
        """Run a vendor, for one test."""
        with Simulator(credits="100000", api_key=API_KEY, clip_seconds=0.2, **options) as simulator:
            yield simulator
        assert simulator.leaks == []

    def connect(self, simulator: Simulator, suffix: str) -> tuple[Gate, Gate]:
        """Store the connections ``luma_ray_<suffix>`` and ``aws_<suffix>``; return the gates that they lead through."""
        vendor = self._stack.enter_context(Gate(_Vendor(simulator)))
        bucket = self._stack.enter_context(Gate(self.store))
        self.fleet.store_connection(
            f"luma_ray_{suffix}",
            conn_type="luma_ray",
            host=vendor.url,
            password=simulator.api_key,
            extra=json.dumps({"requests_per_minute": 100_000}),
        )
        self.fleet.store_connection(
            f"aws_{suffix}",
            conn_type="aws",
            login=ACCESS_KEY,
            password=SECRET,
            extra=json.dumps({"endpoint_url": bucket.url, "region_name": "eu-central-1"}),
        )
        return vendor, bucket

    def start(self, dag_id: str, simulator: Simulator, clips: int = 1, **conf: Any) -> Run:
        """Start a run of one of the fleet's own DAGs."""
        run_id = f"run_{next(_NUMBERS)}"
        vendor, bucket = self.connect(simulator, run_id)
        self.fleet.trigger(dag_id, run_id, clips=clips, frame=f"s3://media/{FRAME}", **conf)
        return Run(dag_id, run_id, clips, simulator, vendor, bucket)

    def wait(self, *runs: Run, timeout: float = 900) -> dict[Run, str]:
        """Wait until Airflow has ended the runs; return their states."""

        def ended() -> dict[Run, str]:
            states = {dag_id: self.fleet.run_states(dag_id) for dag_id in {run.dag_id for run in runs}}
            found = {run: states[run.dag_id][run.run_id] for run in runs}
            return found if all(state in FINISHED for state in found.values()) else {}

        return self.fleet.wait(f"{len(runs)} runs end", ended, timeout=timeout, every=1)


class _Vendor:
    """The simulator, as a gate sees it."""

    def __init__(self, simulator: Simulator) -> None:
        port = urlsplit(simulator.url).port
        assert port is not None
        self.port = port

    def kill(self) -> None:
        raise NotImplementedError
