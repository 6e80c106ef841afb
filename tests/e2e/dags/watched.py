"""DAGs triggered by the balances of ``watched`` and ``watched_too``, connections that a test defines later."""

from __future__ import annotations

from datetime import timedelta
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


@task
def note() -> None:
    pass


def watch(luma_ray_conn_id: str, seconds: int) -> LumaRayCreditTrigger:
    return LumaRayCreditTrigger(
        threshold=20, luma_ray_conn_id=luma_ray_conn_id, poll_interval=timedelta(seconds=seconds)
    )


for side in ("left", "right"):
    # Equal triggers, of which Airflow makes one.
    asset = Asset(f"pair_{side}", watchers=[AssetWatcher(name=side, trigger=watch("watched", 2))])
    with DAG(f"pair_{side}", schedule=[asset]):
        note()

# Other intervals than the pair's: these two triggers are the asset's own.
accounts = [AssetWatcher(name=name, trigger=watch(name, 3)) for name in ("watched", "watched_too")]
with DAG("when_either", schedule=[Asset("either", watchers=accounts)]):
    note()
