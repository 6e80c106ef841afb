"""On a real Airflow: a retry finishes what its task instance bought, and a clear may buy."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.runs import Runs

pytestmark = [pytest.mark.airflow, pytest.mark.slow]


def test_a_retry_finishes_and_a_clear_buys(vendor: Callable[..., Runs]) -> None:
    """Each try renders a different prompt; the first try's download breaks."""
    runs = vendor(latency=0.5)
    runs.simulator.fault("download", "status", status=500, times=4)
    run = runs.start("drifting")
    assert runs.wait([run], timeout=300) == {run: "success"}
    (task,) = runs.cluster.task_instances(run.dag_id, run.run_id)
    assert task["try_number"] == 2
    (job,) = runs.jobs(run)
    assert job.body["prompt"] == "take 1"
    assert run.record()["request_id"] == job.request_id
    assert "inputs have changed since job" in runs.cluster.log_of(run.dag_id, run.run_id)

    runs.cluster.clear(run.dag_id, run.run_id)
    runs.cluster.wait(
        "the run begins anew", lambda: runs.cluster.run_states(run.dag_id)[run.run_id] != "success"
    )
    assert runs.wait([run], timeout=300) == {run: "success"}
    jobs = runs.jobs(run)
    assert [job.body["prompt"] for job in jobs] == ["take 1", "take 3"]
    record = run.record()
    assert record["request_id"] == jobs[1].request_id
    assert [take["request_id"] for take in record["superseded"]] == [jobs[0].request_id]
    assert runs.simulator.charges == 2
