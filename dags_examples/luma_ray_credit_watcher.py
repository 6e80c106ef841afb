"""Reminds somebody to top up: triggered by a low balance, not by a schedule.

The triggerer checks every five minutes; the DAG runs once each time the balance falls to 10 USD or below.
"""

from __future__ import annotations

import logging
from typing import Any

from airflow.sdk import Asset, AssetWatcher, dag, task

from airflow_provider_luma.triggers.luma_ray import LumaRayCreditTrigger

log = logging.getLogger(__name__)

low_credits = Asset(
    "luma_ray_low_credits",
    watchers=[
        AssetWatcher(
            name="luma_ray_low_credits", trigger=LumaRayCreditTrigger(threshold=10, direction="below")
        )
    ],
)


@dag(schedule=[low_credits], tags=["luma-ray"], doc_md=__doc__)
def luma_ray_credit_watcher() -> None:
    @task
    def remind(triggering_asset_events: Any = None) -> None:
        for event in triggering_asset_events[low_credits]:
            balance = event.extra["payload"]["balance"]
            log.warning("Only %s USD left at Segmind: top up before tonight's batch", balance)

    remind()


luma_ray_credit_watcher()
