"""A real Airflow API server with the plugin and predefined users."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import requests

from tests.e2e import processes

REPO = Path(__file__).resolve().parents[2]
#: Reads all DAGs; reads one DAG each; may sign in, and read nothing.
USERS = {
    "anna": "viewer",
    "of_clips": "viewer",
    "of_others": "viewer",
    "of_plots": "viewer",
    "of_damaged": "viewer",
    "nobody": "viewer",
}
_AIRFLOW = (sys.executable, "-m", "airflow")


class Server:
    """An API server: started on entry, gone on exit.

    :param home: an empty folder for AIRFLOW_HOME
    :param roots: what ``preview_roots`` is set to
    :param settings: further environment variables
    """

    def __init__(self, home: Path, roots: str, settings: Mapping[str, str] | None = None) -> None:
        self.home = home
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        clean = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        named = {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__AUTH_MANAGER": "tests.plugins.auth.ByName",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{u}:{r}" for u, r in USERS.items()),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
            # The plugin is found by the provider's metadata too, as in an install that was not renewed since.
            "AIRFLOW__CORE__LAZY_DISCOVER_PROVIDERS": "False",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "AIRFLOW__LUMA_RAY__PREVIEW_ROOTS": roots,
            "PYTHONPATH": f"{REPO}:{os.environ.get('PYTHONPATH', '')}",
            "NO_PROXY": "127.0.0.1,localhost",
        }
        self.env = clean | named | dict(settings or {})
        self._log = home / "api-server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._warden: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.home.mkdir(parents=True, exist_ok=True)
        self.airflow("db", "migrate")
        self.make_users()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*_AIRFLOW, "api-server"],
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        # It ends the server should these tests be killed.
        self._warden = subprocess.Popen(
            [sys.executable, processes.__file__], stdin=subprocess.PIPE, start_new_session=True, text=True
        )
        assert self._warden.stdin is not None
        self._warden.stdin.write(f"+{self._process.pid}\n")
        self._warden.stdin.flush()
        deadline = time.monotonic() + 120
        try:
            while not self._answers():
                assert self._process.poll() is None, self.log()
                assert time.monotonic() < deadline, self.log()
                time.sleep(0.2)
        except BaseException:
            self.stop()
            raise
        return self

    def airflow(self, *arguments: str) -> None:
        """Run a command of Airflow's."""
        done = subprocess.run(
            [*_AIRFLOW, *arguments], env=self.env, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def make_users(self) -> None:
        """Make the users, each with a password that `session` knows."""
        (self.home / "passwords.json").write_text(json.dumps({user: f"{user}'s" for user in USERS}))

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Kill the server and everything that it forked."""
        if self._process is not None:
            processes.end(self._process.pid)
            self._process.wait()
        if self._warden is not None:
            self._warden.communicate()

    def log(self) -> str:
        """Return the server's log."""
        return self._log.read_text(errors="replace")

    def session(self, user: str | None, *, by_cookie: bool = True) -> requests.Session:
        """Return a client that is signed in, as a browser is or by a header; None: that is not."""
        client = requests.Session()
        client.trust_env = False
        if user is None:
            return client
        reply = client.post(f"{self.url}/auth/token", json={"username": user, "password": f"{user}'s"})
        reply.raise_for_status()
        token = reply.json()["access_token"]
        client.cookies.clear()
        if by_cookie:
            client.cookies.set("_token", token)
        else:
            client.headers["Authorization"] = f"Bearer {token}"
        return client

    def get(self, user: str | None, path: str, **arguments: Any) -> requests.Response:
        """Get a page of the plugin."""
        with self.session(user) as client:
            return client.get(f"{self.url}/luma/{path}", timeout=30, **arguments)

    def _answers(self) -> bool:
        try:
            return requests.get(f"{self.url}/api/v2/version", timeout=5).ok
        except requests.RequestException:
            return False
