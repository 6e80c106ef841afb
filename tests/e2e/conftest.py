"""One real Airflow for all these tests; a simulator and its runs for each test."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from airflow_provider_luma.simulator import Simulator
from tests.e2e.cluster import Cluster
from tests.e2e.runs import Runs
from tests.support import API_KEY

#: How many kills the long run has to land (``make chaos``); 0: the short run.
LONG_RUN = int(os.environ.get("LUMA_CHAOS_RUNS", "0"))
long_run_only = pytest.mark.skipif(not LONG_RUN, reason="takes minutes: set LUMA_CHAOS_RUNS (make chaos)")

_CLUSTER = pytest.StashKey[Cluster]()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A running Airflow."""
    if sys.platform != "linux":
        pytest.skip("finds processes in /proc")
    with Cluster(tmp_path_factory.mktemp("e2e") / "airflow") as running:
        request.config.stash[_CLUSTER] = running
        yield running


@pytest.fixture
def vendor(request: pytest.FixtureRequest, frame: Path, tmp_path: Path) -> Iterator[Callable[..., Runs]]:
    """Return a factory of simulators with their runs."""
    cluster: Cluster = request.getfixturevalue("cluster")
    simulators = []
    with ExitStack() as stack:

        def make(**options: object) -> Runs:
            # On all addresses of the loopback net, so that each run can have one of its own.
            simulator = Simulator(
                host="0.0.0.0",
                credits="100000",
                api_key=API_KEY,
                clip_seconds=0.2,
                **options,  # type: ignore[arg-type]
            )
            simulators.append(stack.enter_context(simulator))
            return Runs(cluster, simulator, frame, tmp_path)

        yield make
    assert [simulator.leaks for simulator in simulators if simulator.leaks] == []


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show with each failure where Airflow's logs are, and their warnings."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    cluster = item.config.stash.get(_CLUSTER, None)
    if report.failed and cluster is not None:
        report.sections += cluster.complaints()
