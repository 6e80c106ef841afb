"""Helpers for tests: a connection, a task instance's context, an operator."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_luma.operators.luma_ray import LumaRayImageToVideoOperator

API_KEY = "SG_0123456789abcdef"


class MemoryStore:
    """Airflow's task state store, as the operator uses it."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def get(self, key: str) -> Any:
        """Return a value; None if there is none."""
        return json.loads(self.values[key]) if key in self.values else None

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        """Store a value as JSON, so that only JSON values are accepted."""
        self.values[key] = json.dumps(value)


def set_connection(
    monkeypatch: pytest.MonkeyPatch, host: str, *, password: str = API_KEY, **extra: Any
) -> None:
    """Define the connection ``luma_ray_default`` in the environment."""
    extra = {"requests_per_minute": 100_000, **extra}
    connection = {"conn_type": "luma_ray", "password": password, "host": host, "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_LUMA_RAY_DEFAULT", json.dumps(connection))


def task_context(
    task_id: str = "generate",
    *,
    dag_id: str = "clips",
    run_id: str = "run_1",
    map_index: int = -1,
    store: Any = None,
    clears: int = 0,
) -> Any:
    """Return a task instance's context, with what the operator reads.

    :param clears: how often the task was cleared; attempts with the same number are retries
    """
    pushed: dict[str, Any] = {}
    ti = SimpleNamespace(
        dag_id=dag_id,
        run_id=run_id,
        task_id=task_id,
        map_index=map_index,
        max_tries=clears,
        try_number=clears + 1,
        pushed=pushed,
        xcom_push=lambda key, value: pushed.update({key: value}),
    )
    run = SimpleNamespace(clear_number=clears)
    return {"ti": ti, "task_instance": ti, "dag_run": run} | ({"task_state_store": store} if store else {})


def record_path(clip: Path) -> Path:
    """Return the path of a local video's record."""
    return clip.with_name(f"{clip.name}.job.json")


def recorded(clip: Path) -> dict[str, Any]:
    """Return a local video's sidecar record."""
    record: dict[str, Any] = json.loads(record_path(clip).read_text())
    return record


def make_operator(start_frame: object, output_path: object, **arguments: Any) -> LumaRayImageToVideoOperator:
    """Return an operator that polls quickly; a new one per call, as per attempt of a task."""
    defaults: dict[str, Any] = {
        "task_id": "generate",
        "prompt": "a slow push in",
        "start_frame": str(start_frame) if isinstance(start_frame, Path) else start_frame,
        "output_path": str(output_path) if isinstance(output_path, Path) else output_path,
        "resolution": "540p",
        "poll_interval": 0.05,
    }
    return LumaRayImageToVideoOperator(**defaults | arguments)
