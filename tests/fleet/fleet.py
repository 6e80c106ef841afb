"""A Celery fleet: PostgreSQL, Redis, two workers and two triggerers that share no disk, under a supervisor."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from pathlib import Path

from tests.e2e import processes
from tests.e2e.cluster import Cluster
from tests.fleet.services import Postgres, Redis

REPO = Path(__file__).resolve().parents[2]
WORKERS = ("worker-1", "worker-2")
TRIGGERERS = ("triggerer-1", "triggerer-2")
SLOTS = 4
#: Those in the folder ``dags``.
OWN_DAGS = ("deferred", "blocking", "by_hand", "empty")
#: Seconds. A task that misses its heartbeat for so long is taken for dead.
HEARTBEAT_TIMEOUT = 20
#: Seconds. A message that is not acknowledged for so long is delivered again; on Airflow 3.3 that ends the attempt that
#: still runs, as the token in the message has expired. Longer than the search for a lost call, so that it can end.
_VISIBILITY_TIMEOUT = 150
_BUNDLES = {"fleet": REPO / "tests" / "fleet" / "dags", "examples": REPO / "dags_examples"}


class Fleet(Cluster):
    """Airflow with the CeleryExecutor.

    Each component has a home and a working folder of its own. One that ends by itself, as most do when their database
    is gone, is started again, like under systemd or Kubernetes.

    :param home: an empty folder that others may enter
    """

    components = ("api-server", "scheduler", "dag-processor", *TRIGGERERS, *WORKERS)

    def __init__(self, home: Path) -> None:
        examples = len(list(_BUNDLES["examples"].glob("*.py")))
        super().__init__(home, amount=examples + len(OWN_DAGS), parallelism=4 * SLOTS)
        self.restarts: Counter[str] = Counter()
        folders = {name: home / name for name in ("postgres", "redis")}
        for folder in folders.values():
            folder.mkdir(parents=True)
        self.postgres = Postgres(folders["postgres"], self.watch)
        self.redis = Redis(folders["redis"], self.watch)
        self._env |= self._settings()

    def _settings(self) -> dict[str, str]:
        path = "airflow.dag_processing.bundles.local.LocalDagBundle"
        bundles = [
            {"name": name, "classpath": path, "kwargs": {"path": str(folder)}}
            for name, folder in _BUNDLES.items()
        ]
        options: dict[str, dict[str, object]] = {
            "core": {"executor": "CeleryExecutor", "max_active_tasks_per_dag": 1024, "max_map_length": 1024},
            "database": {"sql_alchemy_conn": self.postgres.url},
            "dag_processor": {"dag_bundle_config_list": json.dumps(bundles)},
            "operators": {"default_deferrable": True},
            "logging": {"logging_level": "INFO"},
            "celery": {
                "broker_url": f"redis://127.0.0.1:{self.redis.port}/0",
                "result_backend": f"db+{self.postgres.url}",
                "worker_concurrency": SLOTS,
            },
            "celery_broker_transport_options": {"visibility_timeout": _VISIBILITY_TIMEOUT},
            "scheduler": {
                "task_instance_heartbeat_timeout": HEARTBEAT_TIMEOUT,
                # A broker that lost its messages is noticed by tasks that stay queued: all of them at once, and all
                # queued again. A task that is queued behind them must not run out of its attempts to be.
                "task_queued_timeout": 60,
                "num_stuck_in_queued_retries": 20,
            },
        }
        return {
            f"AIRFLOW__{section}__{option}".upper(): str(value)
            for section, values in options.items()
            for option, value in values.items()
        } | {"PYTHONPATH": str(REPO)}

    def command(self, name: str) -> list[str]:
        """Return a component's ``airflow`` command."""
        role = name.partition("-")[0]
        if role == "worker":
            return ["celery", "worker", "--celery-hostname", f"{name}@fleet", "--skip-serve-logs"]
        return [role, "--skip-serve-logs"] if role in ("triggerer", "scheduler") else [name]

    def environment(self, name: str) -> dict[str, str]:
        """Return a component's environment."""
        folder = self.home / name
        (folder / "tmp").mkdir(parents=True, exist_ok=True)
        (folder / "airflow-worker.pid").unlink(missing_ok=True)  # a killed worker's: gone with its container
        return self._env | {"AIRFLOW_HOME": str(folder), "HOME": str(folder), "TMPDIR": str(folder / "tmp")}

    def folder(self, name: str) -> Path:
        """Return a component's working folder."""
        return self.home / name

    def ended(self, name: str, code: int) -> None:
        """Start a component again, with all that it left behind gone."""
        self.restarts[name] += 1
        self.kill(name)
        self.start(name)

    def pause(self, seconds: float) -> None:
        """Let time pass, under supervision."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.look()
            time.sleep(min(left, 0.2))

    def stop(self) -> None:
        """Kill everything."""
        try:
            super().stop()
        finally:
            self.redis.stop()
            self.postgres.crash()

    def watch(self, pid: int) -> None:
        """Have a process session killed even if the tests are."""
        self._tell_warden(f"+{pid}")

    def pid(self, name: str) -> int:
        """Return a component's main process."""
        return self._running[name].pid

    def freeze(self, name: str) -> None:
        """Stop a component with everything that it forked, as a suspended machine does."""
        self._signal(name, signal.SIGSTOP)
        self._signal(name, signal.SIGSTOP)  # what was forked during the first round

    def thaw(self, name: str) -> None:
        """Let it continue."""
        self._signal(name, signal.SIGCONT)

    def tasks(self, name: str) -> list[int]:
        """Return the processes of the tasks that a worker runs: grandchildren, as its own children are its slots."""
        members = processes.members(self.pid(name))
        slots = {process.pid for process in members if process.parent == self.pid(name)}
        return [process.pid for process in members if process.parent in slots]

    def _signal(self, name: str, number: int) -> None:
        for process in processes.members(self.pid(name)):
            os.kill(process.pid, number)

    def log_of(self, dag_id: str, run_id: str) -> str:
        """Return the logs of a run's tasks, all attempts in order, from all workers and triggerers."""
        files = sorted(self.home.glob(f"*/logs/dag_id={dag_id}/run_id={run_id}/**/*.log*"))
        return "\n".join(f"== {file.relative_to(self.home)}\n{file.read_text()}" for file in files)

    def _ready(self) -> bool:
        errors = self._call("GET", "importErrors")["import_errors"]
        assert not errors, errors
        return super()._ready()

    def _migrate(self) -> None:
        self.postgres.create()
        self.postgres.start()
        self.redis.start()
        super()._migrate()
