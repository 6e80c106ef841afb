"""The credit watcher in a real triggerer: it triggers a DAG on each crossing; watchers share their checks."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from tests.e2e.cluster import Cluster
from tests.e2e.runs import Runs

pytestmark = [pytest.mark.airflow, pytest.mark.slow]


def test_the_balance_triggers_dags(cluster: Cluster, vendor: Callable[..., Runs]) -> None:
    simulator = vendor(latency=1.0).simulator

    def looks() -> int:
        return simulator.calls.get("credits", 0)

    def wait_looks() -> None:
        seen = looks()
        cluster.wait("the watchers look twice", lambda: looks() >= seen + 2)

    def balances(direction: str, amount: int) -> list[float]:
        dag_id = f"when_{direction}"

        def ended() -> list[str]:
            runs = cluster.run_states(dag_id)
            return sorted(runs) if list(runs.values()) == ["success"] * amount else []

        runs = cluster.wait(f"{dag_id} has run {amount} times", ended) if amount else []
        return sorted(float(cluster.xcoms(dag_id, run)["return_value"]) for run in runs)

    def wait_runs(dag_id: str, amount: int) -> None:
        cluster.wait(f"{dag_id} has run {amount} times", lambda: len(cluster.run_states(dag_id)) == amount)

    # Until now there were no such connections, which the watchers have borne.
    cluster.connect("watched", simulator.url, simulator.api_key)
    other = vendor(latency=1.0).simulator
    cluster.connect("watched_too", other.url, other.api_key)
    wait_looks()
    simulator.set_credits("9.5")
    assert balances("below", 1) == [9.5]
    for dag_id in ("pair_left", "pair_right", "when_either"):
        wait_runs(dag_id, 1)
    simulator.set_credits("9")
    wait_looks()

    cluster.kill("triggerer")
    simulator.set_credits("50")  # crosses while nobody looks
    cluster.start("triggerer")
    assert balances("above", 1) == [50.0]
    wait_looks()
    simulator.set_credits("8.5")
    assert balances("below", 2) == [8.5, 9.5]
    # The pair has no memory, so it saw no crossing while the triggerer was down, but it sees this one.
    for dag_id in ("pair_left", "pair_right", "when_either"):
        wait_runs(dag_id, 2)
    wait_looks()
    assert len(cluster.run_states("when_above")) == 1

    # The other account is above the threshold, which says nothing of this one.
    cluster.kill("triggerer")
    cluster.start("triggerer")
    wait_looks()
    wait_looks()
    assert len(cluster.run_states("when_either")) == 2

    # All watch one account, so one look serves them all.
    times = [request.time for request in simulator.requests if request.call == "credits"][-3:]
    assert all(later - earlier > 1.5 for earlier, later in pairwise(times))
