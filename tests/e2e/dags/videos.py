"""DAGs for real processes; each task writes its process id as a file name, so that tests can kill it."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_luma.operators.luma_ray import LumaRayImageToVideoOperator

PARAMS = {"frame": "", "videos": "", "connection": "", "pids": "", "count": 1}


def leave_pid(context: Any) -> None:
    ti = context["ti"]
    Path(context["params"]["pids"], f"{ti.try_number}_{ti.map_index}_{os.getpid()}").touch()


CLIP: dict[str, Any] = {
    "task_id": "generate",
    "start_frame": "{{ params.frame }}",
    "output_path": "{{ params.videos }}/",
    "luma_ray_conn_id": "{{ params.connection }}",
    "resolution": "540p",
    "retries": 5,
    "retry_delay": timedelta(seconds=0),
    "on_execute_callback": leave_pid,
}
EACH: dict[str, Any] = {"params": PARAMS, "max_active_runs": 200, "max_active_tasks": 200}


@task
def prompts(params: Any = None) -> list[str]:
    return [f"take {number}" for number in range(params["count"])]


for name, deferrable in (("blocking", False), ("deferred", True)):
    with DAG(name, schedule=None, **EACH):
        LumaRayImageToVideoOperator(prompt="a slow push in", poll_interval=0.3, deferrable=deferrable, **CLIP)

with DAG("mapped", schedule=None, **EACH):
    LumaRayImageToVideoOperator.partial(deferrable=True, **CLIP).expand(prompt=prompts())

with DAG("drifting", schedule=None, **EACH):
    # Its inputs differ in each try, as an edited file or a rendered variable may.
    LumaRayImageToVideoOperator(prompt="take {{ ti.try_number }}", poll_interval=0.3, **CLIP)
