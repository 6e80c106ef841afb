"""Publishes a clip once a person has approved it; without an answer within 12 hours it counts as rejected.

Needs the connection ``luma_ray_default``. Each run buys one video, for about 1.60 USD. The person answers under
"Required Actions" in Airflow's UI, which shows the start frame and the clip if ``[luma_ray] preview_roots`` has their
folders.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import ObjectStoragePath, Param, dag, task

from airflow_provider_luma.operators.luma_ray import LumaRayImageToVideoOperator

#: The clip's page, relative to Airflow's base URL.
CLIP = "luma/clip/{{ dag.dag_id }}/{{ run_id | urlencode }}/generate/-1"


@dag(
    schedule=None,
    tags=["luma-ray"],
    doc_md=__doc__,
    params={
        "photo": Param(
            str(Path(__file__).parent / "frames" / "coffee.jpg"),
            type="string",
            description="The clip's first frame",
        ),
        "prompt": Param(
            "Slow push-in on the espresso, steam rising, warm morning light",
            type="string",
            description="What the clip shows",
        ),
        "drafts": Param(
            f"{Path.home() / 'luma-ray-videos' / 'drafts'}/",
            type="string",
            description="A folder (ending in /), or a bucket such as s3://aws_default@drafts/",
        ),
        "published": Param(
            f"{Path.home() / 'luma-ray-videos' / 'published'}/",
            type="string",
            description="Where approved clips go: likewise",
        ),
    },
)
def luma_ray_review() -> None:
    generate = LumaRayImageToVideoOperator(
        task_id="generate",
        prompt="{{ params.prompt }}",
        start_frame="{{ params.photo }}",
        output_path="{{ params.drafts }}",
        aspect_ratio="16:9",
        retries=2,
    )

    approve = ApprovalOperator(
        task_id="approve",
        subject="Publish this clip?",
        body=f"[![The start frame]({CLIP}/poster)]({CLIP})\n\n**[Watch the clip]({CLIP})**: {{{{ params.prompt }}}}",
        defaults="Reject",
        response_timeout=timedelta(hours=12),
    )

    @task
    def publish(video_path: str, params: Any = None) -> str:
        draft, folder = ObjectStoragePath(video_path), ObjectStoragePath(params["published"])
        folder.mkdir(parents=True, exist_ok=True)
        published = folder / f"{draft.parent.name}.mp4"  # the run id, made safe for file names
        draft.copy(published)
        return str(published)

    generate >> approve >> publish(generate.output["video_path"])


luma_ray_review()
