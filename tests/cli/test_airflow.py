"""The commands with a real Airflow: both copies of the record, and ``airflow luma-ray COMMAND``."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_luma.simulator import Simulator
from tests.airflow.conftest import REPO, Airflow, airflow, airflow_home, forks
from tests.cli.conftest import Done, advised, program, shell
from tests.cli.test_settle import submits

__all__ = ["airflow", "airflow_home", "forks"]
pytestmark = [pytest.mark.airflow, pytest.mark.slow]
PROMPTS = ["one", "two", "three"]
CLIPS = str(REPO / "tests" / "dags" / "clips.py")


def stored(airflow: Airflow, dag_id: str) -> dict[int, dict[str, Any]]:
    """The records of a DAG's jobs in the metadata database, by map index; none ever expires."""
    query = (
        "select map_index, value, expires_at from task_state_store where key = 'luma_ray_job' and dag_id = ?"
    )
    with closing(sqlite3.connect(f"{airflow.env['AIRFLOW_HOME']}/airflow.db")) as database:
        rows = database.execute(query, [dag_id]).fetchall()
    assert all(expires is None for _, _, expires in rows)
    return {index: json.loads(value) for index, value, _ in rows}


def next_attempt(airflow: Airflow, dag_id: str, tmp_path: Path) -> dict[str, str]:
    """Clear the tasks and run them again; return their states."""
    result = tmp_path / "states.json"
    done = subprocess.run(
        [
            sys.executable,
            str(REPO / "tests/cli/next_attempt.py"),
            CLIPS,
            dag_id,
            "generate",
            f"--result={result}",
        ],
        env=airflow.env | {"AIRFLOW__CORE__DAGS_FOLDER": str(Path(CLIPS).parent)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.exists(), done.stdout[-3000:] + done.stderr[-3000:]
    states: dict[str, str] = json.loads(result.read_text())
    return states


def records(folder: Path) -> dict[int, dict[str, Any]]:
    """The sidecar records, by map index."""
    found = [json.loads(path.read_text()) for path in folder.rglob("*.job.json")]
    return {record["identity"]["map_index"]: record for record in found}


def test_three_lost_calls_of_a_mapped_task(
    airflow: Airflow, simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    """One was bought and is adopted, one was not bought, and one is given up from a machine without its file."""
    for bought in (True, False, True):
        simulator.fault("submit", "reset", accepted=bought)
    simulator.fault("history", "status", status=401, times=3)
    run = airflow.run_dag(CLIPS, "mapped", "generate", frame=str(frame), videos=f"{tmp_path}/out/")
    assert run["state"] == "failed"
    assert set(stored(airflow, "mapped")) == {0, 1, 2}
    clips = {index: record["output_path"] for index, record in records(tmp_path / "out").items()}
    bought_by = {PROMPTS.index(job.body["prompt"]): job.request_id for job in simulator.jobs}
    adopted, given_up = sorted(bought_by)
    (absent,) = {0, 1, 2} - set(bought_by)  # they run in any order

    def both(command: str) -> None:
        done = shell(f"python -m airflow_provider_luma {command}", **airflow.env)
        assert (done.code, done.err) == (0, ""), done
        assert "It is on record in the file and in Airflow's task state store." in done.out

    both(f"adopt '{clips[adopted]}' {bought_by[adopted]}")
    both(f"not-bought '{clips[absent]}'")
    now = stored(airflow, "mapped")
    assert now == records(tmp_path / "out")
    states = [now[index]["state"] for index in (adopted, absent, given_up)]
    assert states == ["submitted", "failed", "intent"]
    run_id = now[given_up]["identity"]["run_id"]
    named = ("--dag-id", "mapped", "--task-id", "generate", "--map-index", f"{given_up}", "--run-id", run_id)
    done = program(
        *(
            sys.executable,
            "-m",
            "airflow_provider_luma",
            "give-up",
            "/on/another/machine.mp4",
            "--yes",
            *named,
        ),
        **airflow.env,
    )
    assert (done.code, done.err) == (0, ""), done
    assert "Only Airflow's task state store was changed" in done.out
    assert stored(airflow, "mapped")[given_up]["state"] == "given_up"
    assert not Path("/on").exists()

    assert next_attempt(airflow, "mapped", tmp_path) == {str(index): "success" for index in range(3)}
    bought_now = sorted(PROMPTS.index(job.body["prompt"]) for job in simulator.jobs)
    assert bought_now == sorted([0, 1, 2, given_up])
    assert (submits(simulator), simulator.charges) == (5, 4)
    after = records(tmp_path / "out")
    assert [after[index]["state"] for index in range(3)] == ["delivered"] * 3
    assert after[adopted]["request_id"] == bought_by[adopted]
    assert [take["state"] for take in after[given_up]["superseded"]] == ["given_up"]


def test_under_airflow_with_the_connection_in_its_database(
    airflow: Airflow, simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    simulator.fault("submit", "reset")
    simulator.fault("history", "status", status=401)
    run = airflow.run_dag(CLIPS, "blocking", "generate", frame=str(frame), videos=f"{tmp_path}/out/")
    (job,) = simulator.jobs
    error = "\n".join(run["errors"])
    adopt = advised(error, "adopt").replace("<request id>", job.request_id).replace("'", "").split()
    connection = airflow.env["AIRFLOW_CONN_LUMA_RAY_DEFAULT"]
    assert airflow.cli("connections", "add", "luma_ray_default", "--conn-json", connection).returncode == 0
    bare = Airflow(
        {name: value for name, value in airflow.env.items() if name != "AIRFLOW_CONN_LUMA_RAY_DEFAULT"},
        tmp_path,
    )

    def below(*words: str) -> Done:
        done = bare.cli("luma-ray", *words)
        assert simulator.api_key not in done.stdout + done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    try:
        assert "not-bought" in below("--help").out
        assert below("show").code == 2
        refused = below("adopt", adopt[4], "another-id")
        assert refused.code == 1, refused
        assert "history has no job another-id" in refused.err
        done = below(*adopt[3:])
        assert done.code == 0, done
        assert "It is on record in the file and in Airflow's task state store." in done.out
        shown = below("show", adopt[4], "--json")
        assert json.loads(shown.out) == stored(airflow, "blocking")[-1]
        assert next_attempt(airflow, "blocking", tmp_path) == {"-1": "success"}

        Path(adopt[4]).unlink()
        done = below("fetch", job.request_id, adopt[4])
        assert done.code == 0, done
        done = below("give-up", adopt[4])
        assert done.code == 0, done
        assert "1.60 USD, which Segmind does not refund" in done.out
        assert stored(airflow, "blocking")[-1]["state"] == "given_up"
        assert next_attempt(airflow, "blocking", tmp_path) == {"-1": "success"}
        assert (submits(simulator), simulator.charges) == (2, 2)
    finally:
        airflow.cli("connections", "delete", "luma_ray_default")
