"""Clips from and to a bucket, deferred or holding their workers; and what they are compared with."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_luma.operators.luma_ray import LumaRayImageToVideoOperator
from tests.fleet.by_hand import ByHandOperator, EmptyOperator

PARAMS = {"clips": 1, "frame": ""}
EACH: dict[str, Any] = {"params": PARAMS, "max_active_runs": 100}
#: More than any test needs: whatever fails, Airflow tries again.
RETRIES: dict[str, Any] = {
    "retries": 12,
    "retry_delay": timedelta(seconds=1),
    "retry_exponential_backoff": False,
}
CLIP: dict[str, Any] = {
    "task_id": "generate",
    "start_frame": "{{ params.frame }}",
    "luma_ray_conn_id": "luma_ray_{{ run_id }}",
    "storage_conn_id": "aws_{{ run_id }}",
    **RETRIES,
}


@task(**RETRIES)
def prompts(params: Any = None, run_id: Any = None) -> list[str]:
    return [f"{run_id}, take {number}" for number in range(params["clips"])]


for name, deferrable in (("deferred", True), ("blocking", False)):
    with DAG(name, schedule=None, **EACH):
        LumaRayImageToVideoOperator.partial(
            output_path="s3://media/clips/", resolution="540p", deferrable=deferrable, **CLIP
        ).expand(prompt=prompts())

with DAG("by_hand", schedule=None, **EACH):
    ByHandOperator.partial(output_path="s3://media/by_hand/{{ run_id }}", **CLIP).expand(prompt=prompts())

with DAG("empty", schedule=None, **EACH):
    EmptyOperator.partial(task_id="generate").expand(prompt=prompts())
