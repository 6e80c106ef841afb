"""Turns a product photo into a five-second clip, as soon as the account can pay for it.

Needs the connection ``luma_ray_default``. Each run buys one video, for about 1.60 USD; its retries
never buy a second one.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from pathlib import Path

from airflow.sdk import Asset, ObjectStoragePath, Param, dag, task

from airflow_provider_luma.operators.luma_ray import LumaRayImageToVideoOperator
from airflow_provider_luma.sensors.luma_ray import LumaRayCreditSensor

log = logging.getLogger(__name__)


@dag(
    schedule=None,
    tags=["luma-ray"],
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    doc_md=__doc__,
    params={
        "photo": Param(
            str(Path(__file__).parent / "frames" / "coffee.jpg"),
            type="string",
            description="The clip's first frame: a path, an http(s) URL, or s3://aws_default@photos/1.jpg and the like",
        ),
        "prompt": Param(
            "Slow push-in on the espresso, steam rising, warm morning light",
            type="string",
            description="What the clip shows",
        ),
        "videos": Param(
            f"{Path.home() / 'luma-ray-videos'}/",
            type="string",
            description="A folder (ending in /) that all workers share: on a disk, or s3://aws_default@clips/",
        ),
    },
)
def luma_ray_image_to_video() -> None:
    enough_credits = LumaRayCreditSensor(
        task_id="enough_credits",
        threshold=1.60,  # US dollars: one clip
        direction="above",
        mode="reschedule",
        poke_interval=timedelta(minutes=10),
        timeout=timedelta(days=1),
    )

    generate = LumaRayImageToVideoOperator(
        task_id="generate",
        prompt="{{ params.prompt }}",
        start_frame="{{ params.photo }}",
        output_path="{{ params.videos }}",
        aspect_ratio="16:9",
        resolution="720p",
        outlets=[Asset("luma_ray_clips")],  # starts luma_ray_clip_consumer
    )

    @task
    def report(video_path: str, remaining_credits: float) -> None:
        with ObjectStoragePath(video_path).open("rb") as video:
            size = len(video.read())
        log.info("%s: %s bytes; %.2f credits left", video_path, f"{size:,}", remaining_credits)

    enough_credits >> generate >> report(generate.output["video_path"], generate.output["remaining_credits"])


luma_ray_image_to_video()
