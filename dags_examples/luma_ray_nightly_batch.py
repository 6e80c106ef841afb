"""Turns a folder of photos into a folder of clips, every night: buys the missing ones, as far as the budget goes.

**It buys nothing until somebody sets `max_credits`**, in the DAG's params or when triggering a run. A clip costs about
1.60 USD. Photos without a clip get one, as many as the budget covers tonight, the rest in the following nights. An
existing clip is never bought again: move it away to get another.

Needs the connection ``luma_ray_default``, for buckets their connection (``aws_default``), and a pool ``luma_ray`` that
counts deferred tasks, whose size limits the jobs in flight:
``airflow pools set luma_ray 8 "jobs at Segmind" --include-deferred``.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import Param, dag, task

from airflow_provider_luma.batch import plan_batch
from airflow_provider_luma.operators.luma_ray import LumaRayImageToVideoOperator

log = logging.getLogger(__name__)


@dag(
    schedule="@daily",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,  # two nights at once would plan the same photos
    tags=["luma-ray"],
    doc_md=__doc__,
    params={
        "photos": Param(
            str(Path(__file__).parent / "frames"),
            type="string",
            description="The folder with the photos: a path, or a bucket such as s3://aws_default@photos/",
        ),
        "videos": Param(
            str(Path.home() / "luma-ray-videos" / "nightly"),
            type="string",
            description="The folder for the clips: likewise",
        ),
        "prompt": Param(
            "Slow orbit around the product, soft studio light",
            type="string",
            description="What all clips show",
        ),
        "max_credits": Param(
            0,
            type="number",
            minimum=0,
            description="The most that one night may spend, in USD; 0 buys nothing",
        ),
    },
)
def luma_ray_nightly_batch() -> None:
    @task
    def plan(params: Any = None) -> list[dict[str, Any]]:
        return plan_batch(params["photos"], params["videos"], max_credits=params["max_credits"])

    generate = LumaRayImageToVideoOperator.partial(
        task_id="generate",
        prompt="{{ params.prompt }}",
        aspect_ratio="16:9",
        deferrable=True,
        pool="luma_ray",
        retries=3,
        retry_delay=timedelta(minutes=1),
        map_index_template="{{ task.start_frame.rpartition('/')[2] }}",
    ).expand_kwargs(plan())

    @task(trigger_rule="all_done_min_one_success")  # one failed clip does not fail the report
    def report(clips: Any) -> float:
        clips = list(clips or ())
        spent = sum(clip["credits_used"] or 0 for clip in clips)
        log.info("%d clips are ready; they cost %.2f USD", len(clips), spent)
        return round(spent, 2)

    report(generate.output)


luma_ray_nightly_batch()
