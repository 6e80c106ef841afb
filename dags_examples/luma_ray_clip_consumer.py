"""Started by a new clip of ``luma_ray_image_to_video``: by the asset, not by a clock.

Airflow starts it once for the clips that came together; each one's event says where it is and what it cost.
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
