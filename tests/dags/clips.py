"""DAGs for the tests; the run's parameters are their inputs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_luma.operators.luma_ray import LumaRayImageToVideoOperator

PARAMS = {"frame": "", "videos": ""}
CLIP: dict[str, Any] = {
    "prompt": "a slow push in",
    "start_frame": "{{ params.frame }}",
    "output_path": "{{ params.videos }}",
    "resolution": "540p",
    "poll_interval": 0.1,
    "retries": 2,
    "retry_delay": timedelta(seconds=0),
}


@task(multiple_outputs=False)
def use(video_path: str, remaining_credits: float, outputs: Any) -> dict[str, Any]:
    return {"path": video_path, "credits": remaining_credits, "outputs": outputs}


for name, deferrable in (("blocking", False), ("deferred", True)):
    with DAG(name, schedule=None, params=PARAMS):
        generate = LumaRayImageToVideoOperator(task_id="generate", deferrable=deferrable, **CLIP)
        use(generate.output["video_path"], generate.output["remaining_credits"], generate.output)

with DAG("mapped", schedule=None, params=PARAMS):
    LumaRayImageToVideoOperator.partial(
        task_id="generate", **{key: value for key, value in CLIP.items() if key != "prompt"}
    ).expand(prompt=["one", "two", "three"])
