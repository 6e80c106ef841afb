"""Every night a folder of photos becomes a folder of clips: what is missing is bought, and no more than the budget.

**It buys nothing until somebody sets `max_credits`**, in the DAG's params or when a run is triggered. A clip costs
about 1.60 USD; of the photos that have no clip yet, the first ones that the budget covers get theirs tonight, the next
ones tomorrow. A clip that lies there is never bought again: move it away to get another.

Needs the connection ``luma_ray_default``, for buckets theirs (``aws_default``), and a pool ``luma_ray`` that counts
deferred tasks, which is how many jobs may be in flight at once:
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
    max_active_runs=1,  # two nights at once would be in each other's way
    tags=["luma-ray"],
    doc_md=__doc__,
    params={
        "photos": Param(
            str(Path(__file__).parent / "frames"),
            type="string",
            description="The folder of the photos: a path, or s3://..., gs://..., abfs://...",
        ),
        "videos": Param(
            str(Path.home() / "luma-ray-videos" / "nightly"),
            type="string",
            description="The folder of the clips, the same way",
        ),
        "prompt": Param(
            "Slow orbit around the product, soft studio light",
            type="string",
            description="What all clips show",
        ),
        "max_credits": Param(
            0, type="number", minimum=0, description="US dollars that a night may spend; 0 buys nothing"
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

    @task(trigger_rule="all_done_min_one_success")  # a clip that fails does not sink the others
    def report(clips: Any) -> float:
        clips = list(clips or ())
        spent = sum(clip["credits_used"] or 0 for clip in clips)
        log.info("%d clips are there; %.2f USD were spent on them tonight", len(clips), spent)
        return round(spent, 2)

    report(generate.output)


luma_ray_nightly_batch()
