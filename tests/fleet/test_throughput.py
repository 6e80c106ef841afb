"""Many mapped clips, next to as many tasks that only defer and as many that do the same I/O by hand."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from benchmarks.report import Report
from tests.fleet import audit, cpu
from tests.fleet.conftest import CLIPS, SHORT
from tests.fleet.fleet import TRIGGERERS, WORKERS
from tests.fleet.rig import Rig, Run

pytestmark = [pytest.mark.airflow, pytest.mark.slow]
SECONDS_A_JOB = 2.0
#: The DAGs, and what they are called; the operator's comes last. The short form has no time for comparisons.
WAYS = {"deferred": "operator"} if SHORT else {"empty": "empty", "by_hand": "by hand", "deferred": "operator"}


def test_many_clips(rig: Rig, reports: list[Report]) -> None:
    report = Report(
        f"{CLIPS} deferrable tasks of {SECONDS_A_JOB:g} s on two workers of four slots",
        (
            "way",
            "s",
            "a minute",
            "to empty",
            "to by hand",
            "CPU s",
            "workers",
            "triggerers",
            "Airflow",
            "servers",
            "attempts",
        ),
        notes=[
            "CPU seconds are per task. Airflow: API server, scheduler, DAG processor; servers: PostgreSQL, Redis.",
            "By hand: the frame's signed URL, submit, polls, result, download, one write; no record, no check.",
        ],
    )
    with rig.vendor(latency=SECONDS_A_JOB) as simulator:
        pace: dict[str, float] = {}
        for dag_id, way in WAYS.items():
            before, began = _spent(rig), time.monotonic()
            run = rig.start(dag_id, simulator, clips=CLIPS)
            states = rig.wait(run, timeout=60 + 12 * CLIPS)
            elapsed = time.monotonic() - began
            assert states == {run: "success"}, rig.fleet.log_of(run.dag_id, run.run_id)[-20_000:]
            pace[way] = 60 * CLIPS / elapsed
            spent = [(after - then) / CLIPS for after, then in zip(_spent(rig), before, strict=True)]
            attempts = sum(task["try_number"] for task in rig.fleet.task_instances(run.dag_id, run.run_id))
            ratios = [pace[way] / pace[other] if other in pace else None for other in ("empty", "by hand")]
            row = (way, elapsed, pace[way], *ratios, sum(spent), *spent, attempts)
            report.rows.append(row)
            if dag_id != "empty":
                _check_purchases(run)
        reports.append(report)
        audit.check_delivered(rig, run)
        audit.check_bucket(rig, run)
        audit.check_secrets(rig)
        report.notes.append(f"Calls, all ways together: {simulator.calls}.")


def _check_purchases(run: Run) -> None:
    bought = Counter({prompt: len(jobs) for prompt, jobs in audit.purchases(run).items()})
    assert bought == Counter(map(run.prompt, range(run.clips)))


def _spent(rig: Rig) -> list[float]:
    """Return the CPU seconds so far: of workers, triggerers, the rest of Airflow, and servers."""
    fleet = rig.fleet
    airflow = set(fleet.components) - {*WORKERS, *TRIGGERERS}
    return [
        sum(cpu.seconds(fleet.pid(name)) for name in names) for names in (WORKERS, TRIGGERERS, airflow)
    ] + [cpu.seconds(fleet.postgres.pid) + cpu.seconds(fleet.redis.pid)]
