"""Real DAG runs: XComs reach downstream tasks, retries re-attach, mapped tasks do not mix."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from airflow_provider_luma.simulator import Simulator
from tests.airflow.conftest import REPO, Airflow

pytestmark = pytest.mark.airflow
CLIPS = str(REPO / "tests" / "dags" / "clips.py")
SENSORS = str(REPO / "tests" / "dags" / "sensors.py")


@pytest.mark.parametrize("dag_id", ["blocking", "deferred"])
def test_a_dag_run_delivers_and_downstream_reads_the_xcoms(
    airflow: Airflow, simulator: Simulator, frame: Path, tmp_path: Path, dag_id: str
) -> None:
    run = airflow.run_dag(CLIPS, dag_id, "use", frame=str(frame), videos=f"{tmp_path}/out/")

    assert run["state"] == "success", run["log"][-3000:]
    used = run["xcoms"]["return_value"]
    assert (used["credits"], simulator.charges) == (18.4, 1)
    assert used["outputs"] == {
        "video_path": used["path"],
        "remaining_credits": 18.4,
        "credits_used": 1.6,
        "request_id": simulator.jobs[0].request_id,
        "model": "luma-ray-img-2-video",
    }
    with av.open(used["path"]) as video:
        assert video.streams.video[0].codec_context.name == "h264"


@pytest.mark.parametrize("dag_id", ["blocking", "deferred"])
def test_airflows_own_retry_delivers_what_was_bought(
    airflow: Airflow, simulator: Simulator, frame: Path, tmp_path: Path, dag_id: str
) -> None:
    simulator.fault("download", "status", status=500, times=6)  # more than one attempt bears
    run = airflow.run_dag(CLIPS, dag_id, "use", frame=str(frame), videos=f"{tmp_path}/out/")
    assert run["state"] == "success", run["log"][-3000:]
    assert (len(simulator.jobs), simulator.charges) == (1, 1)


@pytest.mark.parametrize(
    ("file", "dag_id", "down"),
    [
        (CLIPS, "blocking", "1,2"),
        (CLIPS, "deferred", "1,2"),
        (CLIPS, "deferred", "2,3,4,5"),
        (CLIPS, "deferred", "3,4"),
        (SENSORS, "sensor", "1,2"),
        (SENSORS, "soft_sensor", "1,2"),
    ],
)
def test_a_secrets_backend_that_is_down_for_a_moment_fails_nothing(
    airflow: Airflow, simulator: Simulator, frame: Path, tmp_path: Path, file: str, dag_id: str, down: str
) -> None:
    """Airflow reports it like a connection that does not exist, after asking twice: here and at the server."""
    backend = {
        "AIRFLOW__SECRETS__BACKEND": "tests.dags.moody_secrets.MoodySecrets",
        "AIRFLOW__WORKERS__SECRETS_BACKEND": "tests.dags.moody_secrets.MoodySecrets",
        "PYTHONPATH": str(REPO),
        "MOODY_COUNT": str(tmp_path / "count"),
        "MOODY_DOWN": down,
        "MOODY_HOST": simulator.url,
        "MOODY_PASSWORD": simulator.api_key,
    }
    env = {name: value for name, value in airflow.env.items() if name != "AIRFLOW_CONN_LUMA_RAY_DEFAULT"}
    moody = Airflow(env | backend, tmp_path)
    task_id = "enough" if file == SENSORS else "generate"
    run = moody.run_dag(file, dag_id, task_id, frame=str(frame), videos=f"{tmp_path}/out/")
    assert run["state"] == "success", run["log"][-3000:]
    assert run["xcoms"]["return_value"], "not skipped"
    assert (tmp_path / "count").stat().st_size > int(down[-1]), "it was down"
    assert "othing was bought" not in run["log"]
    assert (len(simulator.jobs), simulator.charges) == ((0, 0) if file == SENSORS else (1, 1))


def test_a_refusal_is_not_retried(
    airflow: Airflow, simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    simulator.set_credits("0.1")
    run = airflow.run_dag(CLIPS, "blocking", "generate", frame=str(frame), videos=f"{tmp_path}/out/")
    assert run["state"] == "failed"
    assert "Top up the account" in run["errors"][0]
    assert sum(request.call == "submit" for request in simulator.requests) == 1


def test_mapped_tasks_buy_one_video_each(
    airflow: Airflow, simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    run = airflow.run_dag(CLIPS, "mapped", "generate", frame=str(frame), videos=f"{tmp_path}/out/")
    assert run["state"] == "success", run["log"][-3000:]
    assert sorted(job.body["prompt"] for job in simulator.jobs) == ["one", "three", "two"]
    assert len(list((tmp_path / "out").rglob("generate-*.mp4"))) == 3


def test_the_key_is_in_no_log_of_a_run(
    airflow: Airflow, simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    simulator.fault("status", "reset", times=2)
    env = airflow.env | {"AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG"}
    run = Airflow(env, tmp_path).run_dag(
        CLIPS, "deferred", "generate", frame=str(frame), videos=f"{tmp_path}/out/"
    )
    assert run["state"] == "success", run["log"][-3000:]
    # Airflow 3.3 itself logs at DEBUG the very message by which it asks for a connection's password to be masked.
    lines = [line for line in run["log"].splitlines() if "MaskSecret(" not in line]
    assert [line for line in lines if simulator.api_key in line] == []
    for path in (tmp_path / "out").rglob("*.json"):
        assert simulator.api_key not in path.read_text()
