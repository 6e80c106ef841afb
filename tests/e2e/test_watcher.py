"""The credit watcher in a real triggerer: it starts a DAG on each crossing, and its siblings share its looks."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from tests.e2e.cluster import Cluster
from tests.e2e.runs import Runs

pytestmark = [pytest.mark.airflow, pytest.mark.slow]


def test_the_balance_starts_dags(cluster: Cluster, vendor: Callable[..., Runs]) -> None:
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

    # Until now there was no such connection, which the watchers have borne.
    cluster.connect("watched", simulator.url, simulator.api_key)
    wait_looks()
    simulator.set_credits("9.5")
    assert balances("below", 1) == [9.5]
    simulator.set_credits("9")
    wait_looks()

    cluster.kill("triggerer")
    simulator.set_credits("50")  # crosses while nobody looks
    cluster.start("triggerer")
    assert balances("above", 1) == [50.0]
    simulator.set_credits("8.5")
    assert balances("below", 2) == [8.5, 9.5]
    wait_looks()
    assert len(cluster.run_states("when_above")) == 1

    # Both watch one account at one interval, so one look serves both.
    times = [request.time for request in simulator.requests if request.call == "credits"][-3:]
    assert all(later - earlier > 1.5 for earlier, later in pairwise(times))
