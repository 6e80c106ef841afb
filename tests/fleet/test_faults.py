"""Servers and processes that die while clips are bought, awaited and delivered; alone, and many in a row."""

from __future__ import annotations

import re
from collections import Counter
from random import Random

import pytest

from tests.fleet import audit
from tests.fleet.conftest import SEED, SHORT, long_form_only
from tests.fleet.endings import Endings
from tests.fleet.faults import FAULTS
from tests.fleet.fleet import TRIGGERERS, WORKERS
from tests.fleet.rig import Rig, Run

pytestmark = [pytest.mark.airflow, pytest.mark.slow]
FEW = 8
#: How many faults a storm has; the short form takes them from those that are over soon.
STORM = 3 if SHORT else 20
_KINDS = (
    ["a worker killed", "the scheduler killed", "PostgreSQL crashed", "replies lost"]
    if SHORT
    else list(FAULTS)
)
#: A run begins with every so many faults.
_FAULTS_A_RUN = 4
#: A latency longer than any test: such jobs end when the test advances the clock.
HELD = 1800.0
#: Seconds after which a message that is not acknowledged is delivered again; a worker looks for such messages every
#: hundred seconds.
SHORT_VISIBILITY, LOOKS_FOR_OVERDUE = 30, 120
_VISIBILITY = "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT"


def wait_for_purchases(rig: Rig, run: Run, least: int) -> None:
    rig.fleet.wait(f"{least} jobs are bought", lambda: len(audit.purchases(run)) >= least, every=0.05)


@long_form_only
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault(rig: Rig, endings: Endings, fault: str) -> None:
    """It strikes when some of the clips are bought."""
    random = Random(f"{SEED} {fault}")
    with rig.vendor(latency=4.0) as simulator:
        run = rig.start("deferred", simulator, clips=FEW)
        wait_for_purchases(rig, run, random.randint(1, FEW))
        FAULTS[fault](rig, run, random)
        audit.settle(rig, endings, fault, run)


@long_form_only
def test_a_triggerer_killed_while_jobs_wait(rig: Rig, endings: Endings) -> None:
    """The other one takes its jobs over."""
    with rig.vendor(latency=HELD) as simulator:
        run = rig.start("deferred", simulator, clips=FEW)

        def deferred() -> bool:
            tasks = rig.fleet.task_instances(run.dag_id, run.run_id)
            return [task["state"] for task in tasks] == ["deferred"] * FEW

        rig.fleet.wait("all wait", deferred)
        rig.fleet.kill(TRIGGERERS[0])
        simulator.advance(HELD)
        audit.settle(rig, endings, "a triggerer killed while jobs wait", run)
        rig.fleet.start(TRIGGERERS[0])
        audit.check_delivered(rig, run)


@long_form_only
def test_a_message_delivered_twice(rig: Rig, endings: Endings) -> None:
    """The broker gives a task that is still running to a worker once more."""
    rig.fleet.kill(*WORKERS)
    rig.fleet.start(*WORKERS, settings={_VISIBILITY: str(SHORT_VISIBILITY)})
    with rig.vendor(latency=SHORT_VISIBILITY + LOOKS_FOR_OVERDUE) as simulator:
        run = rig.start("blocking", simulator, clips=2)
        audit.settle(rig, endings, "messages delivered twice", run)
    received = Counter(
        re.findall(r"execute_workload\[(\S+)\] received", "".join(map(rig.fleet.output, WORKERS)))
    )
    assert max(received.values()) > 1
    audit.check_delivered(rig, run)
    rig.fleet.kill(*WORKERS)
    rig.fleet.start(*WORKERS)


def test_a_storm(rig: Rig, endings: Endings) -> None:
    """Random faults at random moments, one after the other."""
    random = Random(SEED)
    faults = random.sample(_KINDS, STORM) if SHORT else random.choices(_KINDS, k=STORM)
    print("\n".join(faults))
    runs = []
    with rig.vendor(latency=4.0) as simulator:
        for number, fault in enumerate(faults):
            if number % _FAULTS_A_RUN == 0:
                runs += [
                    rig.start("deferred", simulator, clips=FEW),
                    rig.start("blocking", simulator, clips=2),
                ]
                wait_for_purchases(rig, runs[-2], 1)
            FAULTS[fault](rig, random.choice(runs[-2:]), random)
            rig.fleet.pause(random.uniform(0, 5))
        audit.settle(rig, endings, f"a storm of {STORM}", *runs)
