from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_luma.cli import found as found_module
from airflow_provider_luma.cli.store import NoStore
from airflow_provider_luma.jobs.record import Identity
from tests.support import MemoryStore


class Database:
    """Airflow's metadata database for the command line: the stores by map index."""

    def __init__(self) -> None:
        self.stores: dict[tuple[str, int], MemoryStore] = {}
        self.running: set[int] = set()

    def __call__(self, identity: Identity) -> Any:
        if identity.dag_id != "clips":
            raise NoStore("it has no such run")
        opened = _Opened()
        one = self.stores.setdefault((identity.run_id, identity.map_index), MemoryStore())
        opened.get, opened.set = one.get, one.set
        opened.task_runs = lambda: identity.map_index in self.running
        return opened


class _Opened:
    get: Any
    set: Any
    task_runs: Any


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Database:
    made = Database()
    monkeypatch.setattr(found_module, "DatabaseStore", made)
    return made
