"""DAGs that are started by the balance of the connection ``watched``, which a test defines while they wait."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher, task

from airflow_provider_luma.triggers.luma_ray import LumaRayCreditTrigger

for direction in ("below", "above"):
    trigger = LumaRayCreditTrigger(
        threshold=10, direction=direction, luma_ray_conn_id="watched", poll_interval=2
    )
    balance = Asset(f"balance_{direction}", watchers=[AssetWatcher(name=direction, trigger=trigger)])

    with DAG(f"when_{direction}", schedule=[balance]):

        @task(inlets=[balance])
        def generate(inlet_events: Any = None) -> str:
            (events,) = inlet_events.values()
            return str(events[-1].extra["payload"]["balance"])

        generate()
