"""Many deferred tasks in one triggerer: all delivered, with few requests."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import pytest

from tests.e2e.conftest import LONG_RUN
from tests.e2e.runs import HELD, Runs

pytestmark = [pytest.mark.airflow, pytest.mark.slow]
AMOUNT = 100 if LONG_RUN else 20
AT_ONCE, FAILED = (60, 20) if LONG_RUN else (15, 5)


def test_many_deferred_tasks(vendor: Callable[..., Runs]) -> None:
    runs = vendor(latency=HELD)
    began = time.monotonic()
    run = runs.start("mapped", count=AMOUNT)
    runs.wait_deferred(run, AMOUNT)
    deferred = time.monotonic()
    runs.simulator.advance(HELD)
    assert runs.wait([run], timeout=1800) == {run: "success"}
    ended = time.monotonic()

    runs.check_mapped(run, AMOUNT)
    calls = Counter(call for _, call in runs.calls())
    print(
        f"{AMOUNT} tasks deferred after {deferred - began:.0f} s, delivered {ended - deferred:.0f} s later: {calls}"
    )
    assert (runs.simulator.charges, calls["submit"], calls["download"]) == (AMOUNT, AMOUNT, AMOUNT)
    assert calls["status"] <= AMOUNT * 12


def test_jobs_that_end_or_fail_at_once_lose_no_attempt(vendor: Callable[..., Runs]) -> None:
    """Airflow fails a task that is queued again while the process that deferred it is still exiting."""
    runs = vendor(latency=0.0)
    for _ in range(FAILED):
        runs.simulator.fail_next()
    run = runs.start("mapped", count=AT_ONCE)
    assert runs.wait([run]) == {run: "success"}

    tasks = runs.cluster.task_instances(run.dag_id, run.run_id)
    assert sum(task["try_number"] for task in tasks) == AT_ONCE + FAILED, (
        "one attempt for each job, and no other"
    )
    assert (len(runs.simulator.jobs), runs.simulator.charges) == (AT_ONCE + FAILED, AT_ONCE)
