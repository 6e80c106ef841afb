"""A folder of photos becomes a folder of clips: one mapped task for each photo, none holding a worker while it waits.

Needs the connection ``luma_ray_default`` and a pool ``luma_ray`` that counts deferred tasks, which is how many jobs may
be in flight at once: ``airflow pools set luma_ray 8 "jobs at Segmind" --include-deferred``. A run that is cleared buys
only what it has not bought before.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from airflow.sdk import Param, dag, task

from airflow_provider_luma.operators.luma_ray import LumaRayImageToVideoOperator


@dag(
    schedule=None,
    tags=["luma-ray"],
    params={
        "photos": Param(str(Path(__file__).parent / "frames"), description="a folder of JPEG files"),
        "prompt": "Slow orbit around the product, soft studio light",
        "videos": f"{Path.home() / 'luma-ray-videos'}/",
    },
)
def luma_ray_mapped() -> None:
    @task
    def photos(params: dict[str, str] | None = None) -> list[str]:
        return sorted(str(photo) for photo in Path((params or {})["photos"]).glob("*.jpg"))

    LumaRayImageToVideoOperator.partial(
        task_id="generate",
        prompt="{{ params.prompt }}",
        output_path="{{ params.videos }}",
        aspect_ratio="16:9",
        deferrable=True,
        min_remaining_credits=5,  # what the night's batch leaves to others
        pool="luma_ray",
        retries=3,
        retry_delay=timedelta(minutes=1),
        map_index_template="{{ task.start_frame.rpartition('/')[2] }}",
    ).expand(start_frame=photos())


luma_ray_mapped()
