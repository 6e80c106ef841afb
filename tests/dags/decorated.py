"""A decorated function returns the inputs of mapped, deferrable tasks, whose clips are assets."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Asset, AssetAlias, task

with DAG("decorated", schedule=None, params={"frame": "", "videos": "", "calls": ""}):

    @task.luma_ray(
        output_path="{{ params.videos }}",
        resolution="540p",
        poll_interval=4,  # a trigger that fires at once overtakes the executor's word that the task is deferred
        retries=2,
        retry_delay=timedelta(seconds=0),
        deferrable=True,
        outlets=[Asset("luma_ray_clips"), AssetAlias("luma_ray_videos")],
        map_index_template="{{ task.op_kwargs['subject'] }}",
    )
    def generate(subject: str, params: Any = None) -> dict[str, str]:
        with Path(params["calls"]).open("a") as calls:
            calls.write(f"{subject}\n")
        return {"prompt": f"{subject} {{{{ ds }}}}", "start_frame": params["frame"]}

    generate.expand(subject=["shoe", "bag"])

with DAG("decorated_kwargs", schedule=None, params={"frame": "", "videos": ""}):

    @task.luma_ray(resolution="540p", poll_interval=0.1, deferrable=True)
    def clip(subject: str, folder: str, scene: str, params: Any = None) -> dict[str, str]:
        return {
            "prompt": f"{subject} {scene}",
            "start_frame": params["frame"],
            "output_path": f"{folder}{subject}.mp4",
        }

    clip.partial(folder="{{ params.videos }}").expand_kwargs(
        [{"subject": "shoe", "scene": "at dawn"}, {"subject": "bag", "scene": "at night"}]
    )
