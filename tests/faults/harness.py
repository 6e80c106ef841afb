"""One task instance against the simulator, and what can be observed from outside."""

from __future__ import annotations

import hashlib
import json
import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_luma.cli.main import main
from airflow_provider_luma.exceptions import LumaRayError
from airflow_provider_luma.jobs.ledger import STATE_KEY
from airflow_provider_luma.simulator import JobSnapshot, Simulator
from airflow_provider_luma.storage.local import LOCK_NAME
from tests.support import MemoryStore, make_operator, task_context


@dataclass
class Outcome:
    """How one attempt ended."""

    xcoms: dict[str, Any] | None = None
    error: LumaRayError | None = None

    @property
    def word(self) -> str:
        """What Airflow makes of it: delivered, retry, or person (fails for good)."""
        if self.error is None:
            return "delivered"
        return "person" if isinstance(self.error, AirflowFailException) else "retry"


class Task:
    """One task instance: its attempts, its record and its video.

    :param simulator: the vendor
    :param base: the operator's output_path, a folder
    :param frame: a file or a URL
    :param stored: whether Airflow has a task state store
    :param arguments: the operator's
    """

    def __init__(
        self,
        simulator: Simulator,
        base: Path,
        frame: Path | str,
        *,
        stored: bool,
        run_id: str = "run_1",
        map_index: int = -1,
        **arguments: Any,
    ) -> None:
        self.simulator = simulator
        self.store = MemoryStore() if stored else None
        mapped = f"-{map_index}" if map_index >= 0 else ""
        self.video = base / "clips" / run_id / f"generate{mapped}.mp4"
        self.record_path = self.video.with_name(self.video.name + ".job.json")
        self._who: dict[str, Any] = {"run_id": run_id, "map_index": map_index, "store": self.store}
        self._clears = 0
        self._frame = frame
        self._arguments: dict[str, Any] = {"output_path": f"{base}/", "poll_interval": 0.02, **arguments}

    def attempt(self, **changes: Any) -> Outcome:
        """Run one attempt, with a new operator as in Airflow; it is a retry of the one before."""
        operator = make_operator(self._frame, **self._arguments | changes)
        try:
            return Outcome(xcoms=operator.execute(task_context(clears=self._clears, **self._who)))
        except LumaRayError as error:
            return Outcome(error=error)

    def clear(self) -> None:
        """Clear the task: the next attempt is one that a person has asked for."""
        self._clears += 1

    @property
    def record(self) -> dict[str, Any]:
        return dict(json.loads(self.record_path.read_text()))

    def check_delivered(self, outcome: Outcome, job: JobSnapshot) -> None:
        """Check that the video is the vendor's, and that XComs and records are right."""
        assert outcome.xcoms is not None, outcome
        xcoms = outcome.xcoms
        assert set(xcoms) == {"video_path", "remaining_credits", "credits_used", "request_id", "model"}
        assert (xcoms["video_path"], xcoms["request_id"]) == (str(self.video), job.request_id)
        assert (xcoms["credits_used"], xcoms["model"]) == (pytest.approx(1.6), job.slug)
        content = self.video.read_bytes()
        assert content == self._at_vendor(job.request_id)
        for record in (self.record, *([self.store.get(STATE_KEY)] if self.store else [])):
            assert (record["state"], record["request_id"]) == ("delivered", job.request_id)
            assert record["sha256"] == hashlib.sha256(content).hexdigest()
            assert record["bytes"] == len(content)

    def _at_vendor(self, request_id: str) -> bytes:
        history = f"{self.simulator.url}/inference-request/request-history/{request_id}"
        row = requests.get(history, headers={"x-api-key": self.simulator.api_key}, timeout=10).json()
        return requests.get(row["generation_url"], timeout=10).content

    def check_left_clean(self) -> None:
        """Check that the folder has only videos, records, the lock and checkpoints, and that the video is complete."""
        left = {path.name for path in self.video.parent.glob("*")} - {LOCK_NAME}
        if not self.video.exists():
            left = {name for name in left if not name.endswith(".rest")}
        assert not {
            name for name in left if name.startswith(".") or not name.endswith((".mp4", ".mp4.job.json"))
        }
        if self.video.exists():
            assert self.record["bytes"] == self.video.stat().st_size

    def tells_of(self, error: LumaRayError, job: JobSnapshot) -> bool:
        """Whether the error mentions the job's id or the record."""
        return job.request_id in str(error) or str(self.record_path) in str(error)


def follow(error: LumaRayError | None, command: str, **values: str) -> None:
    """Run a command that an error advises, exactly as printed.

    :param values: what the person has to fill in
    """
    told = [line.partition("python -m airflow_provider_luma ")[2] for line in str(error).splitlines()]
    (advised,) = (line for line in told if line.startswith(f"{command} "))
    for name, value in values.items():
        advised = advised.replace(f"<{name.replace('_', ' ')}>", value)
    assert main(shlex.split(advised)) == 0, advised


def settle(simulator: Simulator) -> list[JobSnapshot]:
    """Wait until all accepted jobs have ended, and return them."""
    deadline = time.monotonic() + 30
    while any(job.state in ("QUEUED", "PROCESSING") for job in simulator.jobs):
        assert time.monotonic() < deadline, "a job does not end"
        time.sleep(0.005)
    return simulator.jobs
