"""Clips on disk with their records, both as the operator writes them and as it never would."""

from __future__ import annotations

import hashlib
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

from airflow_provider_luma.jobs.ledger import SUFFIX
from airflow_provider_luma.jobs.record import Identity, JobRecord, RecordState

VIDEO = b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 400


def identity(
    dag_id: str = "clips", run_id: str = "run_1", task_id: str = "generate", map_index: int = -1
) -> Identity:
    return Identity(dag_id=dag_id, run_id=run_id, task_id=task_id, map_index=map_index)


def url_of(whose: Identity, part: str = "") -> str:
    """Return the URL of a clip's page, as Airflow fills it in."""
    index = "{MAP_INDEX}" if whose.map_index < 0 else whose.map_index
    query = "" if whose.key is None else f"?key={quote(whose.key, safe='')}"
    return f"clip/{whose.dag_id}/{whose.run_id}/{whose.task_id}/{index}{part}{query}"


def record(clip: Path, whose: Identity, **changes: Any) -> JobRecord:
    """Return a delivered clip's record."""
    base = JobRecord(
        state=RecordState.DELIVERED,
        identity=whose,
        claim="0123456789abcdef",
        fingerprint="f" * 64,
        luma_ray_conn_id="luma_ray_default",
        model="luma-ray-img-2-video",
        parameters={"prompt": "a slow push in", "loop": False, "resolution": "540p", "aspect_ratio": "16:9"},
        body_sha256="b" * 64,
        api_version="v2",
        output_path=str(clip),
        intent_at="2026-11-25T14:02:02.223213+00:00",
        submitted_at="2026-11-25T14:02:02.728376+00:00",
        completed_at="2026-11-25T14:04:07.283210+00:00",
        delivered_at="2026-11-25T14:04:09.299295+00:00",
        request_id="b61cd32f-1228-4b98-bfa1-14f186f9cd63",
        output_url="https://images.segmind.com/outputs/990897869f364d04b63faae0c2d33948.mp4",
        cost=Decimal("1.6"),
        remaining_credits=Decimal("16.8"),
        bytes=len(VIDEO),
        sha256=hashlib.sha256(VIDEO).hexdigest(),
    )
    return base.changed(**changes)


def put(clip: Path, whose: Identity, *, video: bytes | None = VIDEO, **changes: Any) -> JobRecord:
    """Lay a clip and its record on the disk."""
    clip.parent.mkdir(parents=True, exist_ok=True)
    if video is not None:
        clip.write_bytes(video)
        changes = {"bytes": len(video), "sha256": hashlib.sha256(video).hexdigest()} | changes
    made = record(clip, whose, **changes)
    clip.with_name(clip.name + SUFFIX).write_bytes(made.to_bytes())
    return made
