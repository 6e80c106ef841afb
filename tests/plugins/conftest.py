"""One API server for all these tests; each module has its own run id, and thus its own clips."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
import requests

from airflow_provider_luma.jobs.record import Identity
from airflow_provider_luma.plugins.index import FRESH_SECONDS
from tests.plugins import clips
from tests.plugins.server import Server

_RUNS = count(1)


@dataclass(frozen=True)
class Shown:
    """A server, and the folder whose clips it shows.

    :param run_id: a run id that no other module uses
    """

    server: Server
    root: Path
    run_id: str

    def identity(self, dag_id: str = "clips", **parts: object) -> Identity:
        return clips.identity(dag_id, self.run_id, **parts)  # type: ignore[arg-type]

    def path(self, whose: Identity) -> Path:
        index = f"-{whose.map_index}" if whose.map_index >= 0 else ""
        return self.root / whose.dag_id / whose.run_id / f"{whose.task_id}{index}.mp4"

    def get(self, user: str | None, whose: Identity, part: str = "", **headers: str) -> requests.Response:
        return self.server.get(user, clips.url_of(whose, part), headers=headers)

    def wait(self, whose: Identity, text: str, user: str = "anna") -> str:
        """Ask for a page until it has a text: the list of clips is renewed every few seconds."""
        page, deadline = "", time.monotonic() + 10 * FRESH_SECONDS
        while time.monotonic() < deadline:
            page = self.get(user, whose).text
            if text in page:
                return page
            time.sleep(0.1)
        raise AssertionError(f"{text!r} is not on the page: {page}")


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shown")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Iterator[Server]:
    if sys.platform != "linux":
        pytest.skip("finds processes in /proc")
    with Server(tmp_path_factory.mktemp("server") / "airflow", str(root)) as running:
        yield running


@pytest.fixture(scope="module")
def shown(server: Server, root: Path) -> Shown:
    return Shown(server, root, f"run_{next(_RUNS)}")
