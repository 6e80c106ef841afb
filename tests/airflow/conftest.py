"""A real Airflow: its own database for the test session, and its own process for each DAG run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from threading import Timer
from typing import Any

import pytest

from airflow_provider_luma.simulator import Simulator
from tests.support import API_KEY

REPO = Path(__file__).resolve().parents[2]
_RUNS = count()


@dataclass(frozen=True)
class Airflow:
    """An Airflow set up for one test.

    :param env: its processes' environment
    :param tmp_path: where results go
    :param forks: runs DAGs sooner; None if ``env`` has what Airflow reads when it is imported
    """

    env: dict[str, str]
    tmp_path: Path
    forks: Forks | None = None

    def cli(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run an ``airflow`` command."""
        return subprocess.run(
            [sys.executable, "-m", "airflow", *arguments],
            env=self.env | env,
            capture_output=True,
            text=True,
            timeout=180,
        )

    def run_dag(self, file: str, dag_id: str, xcoms_of: str, **conf: Any) -> dict[str, Any]:
        """Run a DAG to completion in its own process; return its state, its errors and one task's XComs."""
        result = self.tmp_path / f"result-{next(_RUNS)}.json"
        at = datetime.now(UTC) + timedelta(seconds=next(_RUNS))
        command = [
            str(REPO / "scripts" / "run_dag.py"),
            file,
            dag_id,
            f"--conf={json.dumps(conf)}",
            f"--at={at.isoformat()}",
            f"--xcoms-of={xcoms_of}",
            f"--result={result}",
        ]
        env = self.env | {"AIRFLOW__CORE__DAGS_FOLDER": str(Path(file).parent)}
        log = result.with_suffix(".log")
        if self.forks:
            self.forks.run(command, env, log)
        else:
            with log.open("w") as out:
                subprocess.run([sys.executable, *command], env=env, stdout=out, stderr=out, timeout=300)
        assert result.exists(), log.read_text()[-3000:]
        outcome: dict[str, Any] = json.loads(result.read_text())
        return outcome | {"log": log.read_text()}


class Forks:
    """A process that has imported Airflow, and forks for each run."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, arguments: list[str], env: dict[str, str], log: Path) -> None:
        """Run a script to its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        told = json.dumps({"arguments": arguments, "env": env, "log": str(log)})
        hung = Timer(300, os.killpg, (self._process.pid, signal.SIGKILL))
        hung.start()
        try:
            print(told, file=self._process.stdin, flush=True)
            ended = self._process.stdout.readline()
        finally:
            hung.cancel()
        assert ended, "the run took more than 300 s, or Airflow could not be imported"


@pytest.fixture(scope="session")
def airflow_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An AIRFLOW_HOME with a migrated database."""
    home = tmp_path_factory.mktemp("airflow")
    subprocess.run(
        [sys.executable, "-m", "airflow", "db", "migrate"],
        env=_environment(home),
        capture_output=True,
        check=True,
        timeout=300,
    )
    return home


@pytest.fixture(scope="session")
def forks(airflow_home: Path) -> Iterator[Forks]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.airflow.preloaded"],
        env=_environment(airflow_home),
        cwd=REPO,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        yield Forks(process)


@pytest.fixture
def airflow(airflow_home: Path, forks: Forks, tmp_path: Path, simulator: Simulator) -> Airflow:
    """Airflow with the default connection to the test's simulator."""
    connection = {"conn_type": "luma_ray", "password": API_KEY, "host": simulator.url}
    env = _environment(airflow_home) | {"AIRFLOW_CONN_LUMA_RAY_DEFAULT": json.dumps(connection)}
    return Airflow(env, tmp_path, forks)


def _environment(home: Path) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    return clean | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
    }
