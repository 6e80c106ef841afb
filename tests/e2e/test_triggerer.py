"""A triggerer that cannot read the connection neither occupies workers nor keeps waking them."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.e2e.cluster import Cluster
from tests.e2e.runs import HELD, Runs

pytestmark = [pytest.mark.airflow, pytest.mark.slow]


def test_a_triggerer_that_cannot_read_the_connection_wakes_the_worker_rarely(
    cluster: Cluster, vendor: Callable[..., Runs]
) -> None:
    runs = vendor(latency=HELD)
    run = runs.start("deferred")
    runs.wait_deferred(run, 1)
    cluster.kill("triggerer")
    empty = json.dumps({"conn_type": "luma_ray", "password": ""})
    cluster.start("triggerer", settings={f"AIRFLOW_CONN_{run.run_id.upper()}": empty})

    def is_told() -> bool:
        return "could not poll the job, see its log. Deferring again." in cluster.log_of(
            run.dag_id, run.run_id
        )

    cluster.wait("the task says so and sleeps again", is_told)
    runs.wait_deferred(run, 1)
    assert len(run.task_pids(1)) == 2, "two processes: the one that bought, and the one that looked"
    cluster.kill("triggerer")
    cluster.start("triggerer")
    runs.simulator.advance(HELD)
    assert runs.wait([run]) == {run: "success"}
    runs.check_delivered(run)
