"""A batch from bucket to bucket; the run's parameters are its inputs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_luma.batch import plan_batch
from airflow_provider_luma.operators.luma_ray import LumaRayImageToVideoOperator

PARAMS = {"frames": "", "videos": "", "connection": "", "max_credits": 0}


@task
def plan(params: Any = None) -> list[dict[str, Any]]:
    return plan_batch(
        params["frames"],
        params["videos"],
        max_credits=params["max_credits"],
        luma_ray_conn_id=params["connection"],
        storage_conn_id="bucket",
    )


with DAG("bucket", schedule=None, params=PARAMS, max_active_tasks=200):
    LumaRayImageToVideoOperator.partial(
        task_id="generate",
        prompt="a slow push in",
        resolution="540p",
        poll_interval=0.5,
        retries=3,
        retry_delay=timedelta(seconds=0),
        map_index_template="{{ task.start_frame.rpartition('/')[2] }}",
    ).expand_kwargs(plan())
