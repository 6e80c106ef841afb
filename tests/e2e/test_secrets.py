"""The key is only in the connection, encrypted: searched for in the whole database and all logs."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from cryptography.fernet import Fernet

from tests.e2e.cluster import Cluster
from tests.e2e.runs import HELD, Runs
from tests.support import API_KEY

pytestmark = [pytest.mark.airflow, pytest.mark.slow]
WRONG_KEY = "SG_fedcba9876543210"
TABLES = {"trigger", "xcom", "task_state_store"}


def test_the_key_is_in_no_row_and_no_log(cluster: Cluster, vendor: Callable[..., Runs]) -> None:
    runs = vendor(latency=HELD)
    runs.simulator.fault("status", "reset", times=3)
    runs.simulator.fault("download", "status", status=500, times=6)  # more than one attempt bears
    good = [runs.start("deferred"), runs.start("blocking")]
    bad = runs.start("blocking", key=WRONG_KEY)
    runs.wait_deferred(good[0], 1)
    assert runs.wait([bad]) == {bad: "failed"}

    arguments = trigger_arguments(cluster)
    assert len(arguments) == 1
    assert "http" not in json.dumps(arguments)
    in_flight = list(cells(cluster))
    runs.simulator.advance(HELD)
    assert set(runs.wait(good).values()) == {"success"}
    for run in good:
        runs.check_delivered(run)

    found = [*in_flight, *cells(cluster)]
    request_id = runs.jobs(good[0])[0].request_id
    assert {table for table, text in found if request_id in text} >= TABLES  # it does find what is there
    assert any(request_id in line for line in log_lines(cluster))
    for key in (API_KEY, WRONG_KEY):
        assert [(table, text) for table, text in found if key in text] == []
        # Airflow itself may log, at DEBUG, the message by which it has a connection's password masked.
        lines = [line for line in log_lines(cluster) if key in line and "MaskSecret(" not in line]
        assert lines == []


def trigger_arguments(cluster: Cluster) -> list[dict[str, object]]:
    """Return the arguments of all job triggers; Airflow 3.3 encrypts only those that the task encrypted."""
    with closing(sqlite3.connect(f"file:{cluster.database}?mode=ro", uri=True)) as database:
        query = "SELECT kwargs FROM trigger WHERE classpath LIKE '%.LumaRayJobTrigger'"
        rows = database.execute(query).fetchall()
    fernet = Fernet(cluster.fernet_key)
    return [json.loads(text if text.startswith("{") else fernet.decrypt(text)) for (text,) in rows]


def cells(cluster: Cluster) -> Iterator[tuple[str, str]]:
    """Yield everything in the database, as table and text; trigger arguments also decrypted."""
    with closing(sqlite3.connect(f"file:{cluster.database}?mode=ro", uri=True)) as database:
        tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            for row in database.execute(f'SELECT * FROM "{table}"'):
                for cell in row:
                    text = cell.decode(errors="replace") if isinstance(cell, bytes) else str(cell)
                    yield table, text
    for arguments in trigger_arguments(cluster):
        yield "trigger", json.dumps(arguments)


def log_lines(cluster: Cluster) -> Iterator[str]:
    """Yield all log lines of Airflow's components, tasks and triggers."""
    for file in (*cluster.logs.rglob("*.log"), *cluster.home.glob("components/*.log")):
        yield from file.read_text(errors="replace").splitlines()
