"""Sensors for the tests."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_provider_luma.sensors.luma_ray import LumaRayCreditSensor

for name, soft_fail in (("sensor", False), ("soft_sensor", True)):
    with DAG(name, schedule=None, params={"frame": "", "videos": ""}):
        LumaRayCreditSensor(
            task_id="enough", threshold=1, mode="poke", poke_interval=0.1, timeout=60, soft_fail=soft_fail
        )
