"""Runs for each new clip of ``luma_ray_image_to_video``: triggered by its asset, not by a schedule.

Clips that finish together share one run; each has an event with its path and cost.
"""

from __future__ import annotations

import logging
from typing import Any

from airflow.sdk import Asset, dag, task

log = logging.getLogger(__name__)

clips = Asset("luma_ray_clips")


@dag(schedule=[clips], tags=["luma-ray"], doc_md=__doc__)
def luma_ray_clip_consumer() -> None:
    @task
    def catalogue(triggering_asset_events: Any = None) -> list[str]:
        events = [event for event in triggering_asset_events[clips] if not event.extra["reused"]]
        for event in events:
            log.info("New clip %s for %s USD", event.extra["video_path"], event.extra["credits_used"])
        return [event.extra["video_path"] for event in events]

    catalogue()


luma_ray_clip_consumer()
