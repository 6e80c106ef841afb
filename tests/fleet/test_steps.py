"""A worker that dies or is suspended while its tasks are each at a given step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from airflow_provider_luma.simulator import Simulator
from tests.e2e.cluster import FINISHED
from tests.fleet import audit
from tests.fleet.conftest import SHORT, long_form_only
from tests.fleet.endings import Endings
from tests.fleet.fleet import WORKERS
from tests.fleet.rig import Rig, Run
from tests.storage.server import Hold

pytestmark = [pytest.mark.airflow, pytest.mark.slow]


@dataclass(frozen=True)
class Step:
    """A request that is held on its way.

    :param way: to the vendor or to the bucket
    :param line: its first line
    :param after: how many that match pass before
    """

    dag_id: str
    way: str
    line: str
    after: int = 0


Steps = Mapping[str, Step]

_RECORD = r"^PUT .*\.job\.json"
#: As many as a worker has slots. The intent is the first write of the record, and the id the second; between them lies
#: the paid call.
BUYING: Steps = {
    "intent": Step("deferred", "bucket", _RECORD),
    "submit": Step("deferred", "vendor", r"^POST /v2/"),
    "submit of a blocking task": Step("blocking", "vendor", r"^POST /v2/"),
    "id": Step("deferred", "bucket", _RECORD, after=1),
}
FETCHING: Steps = {
    "status": Step("blocking", "vendor", r"^GET .*/status"),
    "result": Step("deferred", "vendor", r"^GET /v2/requests/[^/]+$"),
    "download": Step("deferred", "vendor", r"^GET /outputs/"),
    "delivery": Step("deferred", "bucket", r"^PUT .*\.mp4"),
}
STEPS = {"buying": BUYING, "fetching": FETCHING}
VICTIM, OTHER = WORKERS
BEGUN = ("running", "deferred", *FINISHED)


def hold_all(rig: Rig, simulator: Simulator, steps: Steps) -> dict[Run, Hold]:
    """Have the victim come to all steps, each with a run of its own; the other worker is there, and idle."""
    rig.fleet.kill(OTHER)
    held = {}
    for step in steps.values():
        run = rig.start(step.dag_id, simulator)
        held[run] = getattr(run, step.way).hold(step.line, after=step.after)
    rig.fleet.wait("all steps are reached", lambda: all(hold.reached.is_set() for hold in held.values()))
    rig.fleet.start(OTHER)
    return held


def wait_for_retries(rig: Rig, held: Mapping[Run, Hold]) -> None:
    """Wait until the other worker runs, or has run, the second attempts."""

    def retried() -> bool:
        tasks = [rig.fleet.task_instances(run.dag_id, run.run_id)[0] for run in held]
        return all(task["try_number"] > 1 and task["state"] in BEGUN for task in tasks)

    rig.fleet.wait("the other worker has the retries", retried)


@long_form_only
@pytest.mark.parametrize("arrive", [True, False])
@pytest.mark.parametrize("steps", STEPS)
def test_a_killed_worker(rig: Rig, endings: Endings, steps: str, arrive: bool) -> None:
    """The requests that were on their way arrive nevertheless, or never."""
    with rig.vendor(latency=2.0) as simulator:
        held = hold_all(rig, simulator, STEPS[steps])
        rig.fleet.kill(VICTIM)
        for hold in held.values():
            hold.let_go(passes=arrive)
        wait_for_retries(rig, held)
        rig.fleet.start(VICTIM)
        fate = "arrive" if arrive else "are lost"
        audit.settle(rig, endings, f"a worker killed while {steps}, its requests {fate}", *held)


@pytest.mark.parametrize(
    ("steps", "until"),
    [("buying", "during")] if SHORT else [(steps, until) for steps in STEPS for until in ("during", "after")],
)
def test_a_suspended_worker(rig: Rig, endings: Endings, steps: str, until: str) -> None:
    """It goes on while its successor is at work, or when that has ended."""
    with rig.vendor(latency=2.0) as simulator:
        held = hold_all(rig, simulator, STEPS[steps])
        rig.fleet.freeze(VICTIM)
        wait_for_retries(rig, held)
        if until == "after":
            rig.wait(*held)
        for hold in held.values():
            hold.let_go()
        rig.fleet.thaw(VICTIM)
        rig.fleet.wait("the suspended tasks end", lambda: not rig.fleet.tasks(VICTIM))
        audit.settle(rig, endings, f"a worker suspended while {steps}, until {until} the retry", *held)
