"""A real Airflow for the tests: four processes, LocalExecutor, SQLite, its own home and ports."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import requests

from tests.e2e import processes

COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")
DAGS = Path(__file__).with_name("dags")
FINISHED = ("success", "failed")
_PAGE = 100
_COMPLAINTS = ("warning", "error", "critical")
T = TypeVar("T")


class Cluster:
    """Airflow: started on entry, and gone on exit whatever happens in between.

    Each component has its own process session, so it can be killed alone or with everything that it forked. A subclass
    may have others (``components``), started in another way (``command``, ``environment``, ``folder``).

    :param home: an empty folder for AIRFLOW_HOME
    :param dags: the folder of the DAG files
    :param amount: how many DAGs they hold
    :param parallelism: how many tasks run at once
    :param settings: further environment variables
    :param user: the administrator's name and password; None: everybody is an administrator
    """

    components: Sequence[str] = COMPONENTS

    def __init__(
        self,
        home: Path,
        *,
        dags: Path = DAGS,
        amount: int = 10,
        parallelism: int = 6,
        settings: Mapping[str, str] | None = None,
        user: tuple[str, str] | None = None,
    ) -> None:
        self.home = home
        self._user = user
        self._amount = amount
        self.fernet_key = urlsafe_b64encode(secrets.token_bytes(32)).decode()
        self.database = home / "airflow.db"
        self.logs = home / "logs"
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._env = _environment(home, dags, port, self.fernet_key, parallelism) | dict(settings or {})
        if user:
            self._env |= {
                "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
                "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{user[0]}:admin",
                "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
            }
        self._output = home / "components"
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._warden: subprocess.Popen[str]
        self._http = requests.Session()
        self._http.trust_env = False

    def __enter__(self) -> Self:
        self._output.mkdir(parents=True)
        if self._user:
            (self.home / "passwords.json").write_text(json.dumps(dict([self._user])))
        self._warden = subprocess.Popen(
            [sys.executable, processes.__file__], stdin=subprocess.PIPE, start_new_session=True, text=True
        )
        try:
            self._migrate()
            self.start()
            self.wait("Airflow is healthy and knows the DAGs", self._ready, timeout=300)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Kill all processes and wait until none is left."""
        try:
            self.kill()
        finally:
            self._http.close()
            assert self._warden.stdin is not None
            self._warden.stdin.close()  # it ends whatever may still be there
            self._warden.wait()

    def start(self, *names: str, settings: Mapping[str, str] | None = None) -> None:
        """Start the named components, or all.

        :param settings: more environment variables, only for these
        """
        for name in names or self.components:
            with (self._output / f"{name}.log").open("ab") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "airflow", *self.command(name)],
                    env=self.environment(name) | dict(settings or {}),
                    cwd=self.folder(name),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            self._tell_warden(f"+{process.pid}")
            self._running[name] = process

    def command(self, name: str) -> list[str]:
        """Return a component's ``airflow`` command."""
        return [name]

    def environment(self, name: str) -> dict[str, str]:
        """Return a component's environment."""
        return self._env

    def folder(self, name: str) -> Path | None:
        """Return a component's working folder; None: that of the tests."""
        return None

    def kill(self, *names: str) -> None:
        """Kill the named components, or all, with everything that they forked."""
        for name in names or tuple(self._running):
            process = self._running.pop(name)
            processes.end(process.pid)
            process.wait()
            self._tell_warden(f"-{process.pid}")

    def kill_alone(self, name: str) -> None:
        """Kill only a component's main process; what it forked lives on as orphans until the cluster stops."""
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def owns(self, pid: int) -> bool:
        """Whether a process is alive and belongs to this Airflow's scheduler, as a task's does."""
        process = processes.read(pid)
        scheduler = self._running.get("scheduler")
        return bool(process and scheduler and process.session == scheduler.pid)

    def connect(self, conn_id: str, host: str, key: str) -> None:
        """Store a connection to the vendor."""
        self.store_connection(conn_id, conn_type="luma_ray", host=host, password=key)

    def reconnect(self, conn_id: str, host: str, key: str) -> None:
        """Point a connection to another vendor."""
        changed = {"connection_id": conn_id, "conn_type": "luma_ray", "host": host, "password": key}
        self._call("PATCH", f"connections/{conn_id}", json=changed)

    def store_connection(self, conn_id: str, **fields: str) -> None:
        """Store a connection in Airflow's database, encrypted, like its connection page."""
        self._call("POST", "connections", json={"connection_id": conn_id, **fields})

    def make_pool(self, name: str, slots: int) -> None:
        """Create a pool that counts deferred tasks."""
        self._call("POST", "pools", json={"name": name, "slots": slots, "include_deferred": True})

    def trigger(self, dag_id: str, run_id: str, **conf: Any) -> None:
        """Start a DAG run."""
        self._call(
            "POST",
            f"dags/{dag_id}/dagRuns",
            json={"dag_run_id": run_id, "logical_date": None, "conf": conf},
        )

    def clear(self, dag_id: str, run_id: str, task_id: str = "generate") -> None:
        """Clear all instances of a task."""
        options = {"dag_run_id": run_id, "task_ids": [task_id], "only_failed": False, "reset_dag_runs": True}
        self._call("POST", f"dags/{dag_id}/clearTaskInstances", json={"dry_run": False, **options})

    def run_states(self, dag_id: str) -> dict[str, str]:
        """Return the states of a DAG's runs."""
        runs = self._pages(f"dags/{dag_id}/dagRuns", "dag_runs")
        return {run["dag_run_id"]: run["state"] for run in runs}

    def task_instances(self, dag_id: str, run_id: str, task_id: str = "generate") -> list[dict[str, Any]]:
        """Return a task's instances in a run, as the REST API shows them."""
        found = self._pages(f"dags/{dag_id}/dagRuns/{run_id}/taskInstances", "task_instances")
        return [ti for ti in found if ti["task_id"] == task_id]

    def xcoms(
        self, dag_id: str, run_id: str, map_index: int = -1, task_id: str = "generate"
    ) -> dict[str, Any]:
        """Return the XComs of a task."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries"
        entries = self._call("GET", path, params={"map_index": map_index, "limit": _PAGE})["xcom_entries"]
        query = {"map_index": map_index, "deserialize": False, "stringify": False}
        return {
            entry["key"]: self._call("GET", f"{path}/{entry['key']}", params=query)["value"]
            for entry in entries
            if entry["map_index"] == map_index
        }

    def stored_record(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """Return the job's record from the task state store."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/generate/state-store/luma_ray_job"
        record: dict[str, Any] = self._call("GET", path)["value"]
        return record

    def log_of(self, dag_id: str, run_id: str) -> str:
        """Return the logs of a run's tasks, all attempts in order."""
        files = sorted(self.logs.glob(f"dag_id={dag_id}/run_id={run_id}/**/*.log"))
        return "\n".join(f"== {file.relative_to(self.logs)}\n{file.read_text()}" for file in files)

    def output(self, name: str) -> str:
        """Return what a component wrote."""
        return (self._output / f"{name}.log").read_text(errors="replace")

    def complaints(self, lines: int = 20) -> Iterator[tuple[str, str]]:
        """Yield the components' latest warnings and errors."""
        for file in sorted(self._output.glob("*.log")):
            text = file.read_text(errors="replace").splitlines()
            told = [line for line in text if any(f"[{level}" in line for level in _COMPLAINTS)]
            yield f"{file}", "\n".join(told[-lines:])

    def wait(self, event: str, check: Callable[[], T], *, timeout: float = 300, every: float = 0.5) -> T:
        """Poll a check until it returns something true, and return that; failing calls count as false."""
        deadline = time.monotonic() + timeout
        seen: object = None
        while time.monotonic() < deadline:
            self.look()
            try:
                found = check()
            except requests.RequestException as error:
                seen = error
            else:
                if found:
                    return found
                seen = found
            time.sleep(every)
        raise AssertionError(f"Not within {timeout} s: {event}; last seen: {seen!r}; home: {self.home}")

    def look(self) -> None:
        """Look whether a component ended by itself."""
        for name, process in list(self._running.items()):
            if process.poll() is not None:
                self.ended(name, process.returncode)

    def ended(self, name: str, code: int) -> None:
        """Be told that a component ended by itself."""
        raise AssertionError(f"{name} ended by itself ({code})")

    def _migrate(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "airflow", "db", "migrate"],
            env=self._env,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    def _ready(self) -> bool:
        health = self._call("GET", "monitor/health")
        healthy = all(part["status"] == "healthy" for part in health.values())
        return healthy and self._call("GET", "dags")["total_entries"] == self._amount

    def _pages(self, path: str, name: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            page = self._call("GET", path, params={"limit": _PAGE, "offset": len(found)})
            found += page[name]
            if len(found) >= page["total_entries"] or not page[name]:
                return found

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        if "Authorization" not in self._http.headers:
            if self._user:
                login = dict(zip(("username", "password"), self._user, strict=True))
                token = self._http.post(f"{self.url}/auth/token", json=login, timeout=30)
            else:
                token = self._http.get(f"{self.url}/auth/token", timeout=30)
            token.raise_for_status()
            self._http.headers["Authorization"] = f"Bearer {token.json()['access_token']}"
        for _ in range(5):
            reply = self._http.request(method, f"{self.url}/api/v2/{path}", timeout=60, **arguments)
            if (
                reply.status_code != 500
            ):  # such as "database is locked", which rolls all back: SQLite, under load
                break
        if not reply.ok:
            raise requests.HTTPError(f"{reply.status_code} for {method} {path}: {reply.text[:500]}")
        return reply.json()

    def _tell_warden(self, line: str) -> None:
        assert self._warden.stdin is not None
        self._warden.stdin.write(line + "\n")
        self._warden.stdin.flush()


def _environment(home: Path, dags: Path, port: int, fernet_key: str, parallelism: int) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    options: dict[str, dict[str, object]] = {
        "core": {
            "executor": "LocalExecutor",
            "parallelism": parallelism,
            "dags_folder": dags,
            "load_examples": False,
            "dags_are_paused_at_creation": False,
            "simple_auth_manager_all_admins": True,
            "execution_api_server_url": f"http://127.0.0.1:{port}/execution/",
            "fernet_key": fernet_key,
        },
        "database": {"sql_alchemy_conn": f"sqlite:///{home}/airflow.db"},
        "api": {"host": "127.0.0.1", "port": port, "base_url": f"http://127.0.0.1:{port}", "workers": 1},
        "api_auth": {"jwt_secret": secrets.token_hex(32)},
        "logging": {
            "logging_level": "DEBUG",
            "worker_log_server_port": free_port(),
            "trigger_log_server_port": free_port(),
        },
        # Whoever dies is missed within seconds instead of minutes; but a scheduler that is only slow must not take
        # itself for dead, which it would after ten seconds on a busy machine.
        "scheduler": {
            "task_instance_heartbeat_timeout": 20,
            "task_instance_heartbeat_timeout_detection_interval": 3,
            "scheduler_health_check_threshold": 30,
            "orphaned_tasks_check_interval": 5,
        },
        "triggerer": {"job_heartbeat_sec": 2, "triggerer_health_check_threshold": 10},
        "workers": {"min_heartbeat_interval": 3},
    }
    named = {
        f"AIRFLOW__{section}__{option}".upper(): str(value)
        for section, values in options.items()
        for option, value in values.items()
    }
    return clean | named | {"AIRFLOW_HOME": str(home), "NO_PROXY": "127.0.0.1,localhost,127.0.0.0/8"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
