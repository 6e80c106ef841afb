"""Hand-made records for tests."""

from __future__ import annotations

from typing import Any

from airflow_provider_luma.jobs.record import Identity, JobRecord, RecordState

ME = Identity(dag_id="clips", run_id="monday", task_id="generate", map_index=0)
SIBLING = Identity(dag_id="clips", run_id="monday", task_id="generate", map_index=1)
YESTERDAY = Identity(dag_id="clips", run_id="sunday", task_id="generate", map_index=0)
PATH = "/clips/a.mp4"
INTENT_AT = "2026-11-22T10:00:00+00:00"

_WITHOUT_ID = ("intent", "failed")


def take(state: str, *, owner: Identity = ME, claim: str = "c1", **values: Any) -> JobRecord:
    """Return a take in a state, with an id if that state has one."""
    defaults: dict[str, Any] = {
        "fingerprint": "same",
        "luma_ray_conn_id": "luma_ray_default",
        "model": "luma-ray-img-2-video",
        "parameters": {},
        "body_sha256": "body",
        "api_version": "v2",
        "output_path": PATH,
        "intent_at": INTENT_AT,
        "request_id": None if state in _WITHOUT_ID else f"id-of-{claim}",
    }
    return JobRecord(state=RecordState(state), identity=owner, claim=claim, **defaults | values)
