"""Assets and lineage on a real Airflow, where the clip triggers its consumer."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import av
import pytest

from airflow_provider_luma.simulator import Simulator
from tests.airflow.conftest import REPO, Airflow
from tests.e2e.cluster import Cluster
from tests.support import API_KEY

pytestmark = pytest.mark.airflow
DECORATED = REPO / "tests" / "dags" / "decorated.py"
PRODUCER = REPO / "dags_examples" / "luma_ray_image_to_video.py"
CONSUMER = REPO / "dags_examples" / "luma_ray_clip_consumer.py"


def rows(home: str | Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(Path(home) / "airflow.db")) as database:
        return database.execute(query).fetchall()


def events(home: str | Path, dag_id: str) -> list[tuple[str, int, dict[str, Any]]]:
    """Return a DAG's asset events: asset URI, map index and extra."""
    query = f"""
        SELECT asset.uri, event.source_map_index, event.extra FROM asset_event AS event
        JOIN asset ON asset.id = event.asset_id WHERE event.source_dag_id = '{dag_id}' ORDER BY 1, 2
    """
    return [(uri, index, json.loads(extra)) for uri, index, extra in rows(home, query)]


def test_the_first_example_runs_unchanged_and_emits_an_asset_event(
    airflow: Airflow, simulator: Simulator, tmp_path: Path
) -> None:
    run = airflow.run_dag(str(PRODUCER), "luma_ray_image_to_video", "generate", videos=f"{tmp_path}/asset/")
    assert run["state"] == "success", run["log"][-3000:]
    with av.open(run["xcoms"]["video_path"]) as video:
        stream = video.streams.video[0]
        assert (stream.width, stream.height) == (1280, 720)
    told = events(airflow.env["AIRFLOW_HOME"], "luma_ray_image_to_video")
    assert told[-1] == (
        "luma_ray_clips",
        -1,
        {
            "video_path": run["xcoms"]["video_path"],
            "request_id": simulator.jobs[0].request_id,
            "credits_used": 1.6,
            "remaining_credits": 18.4,
            "reused": False,
        },
    )


@pytest.mark.parametrize(
    ("example", "task_id"), [("luma_ray_clip_consumer", "catalogue"), ("luma_ray_credit_watcher", "remind")]
)
def test_a_dag_for_an_asset_does_nothing_when_started_by_hand(
    airflow: Airflow, example: str, task_id: str
) -> None:
    run = airflow.run_dag(str(CONSUMER.with_name(f"{example}.py")), example, task_id)
    assert run["state"] == "success", run["log"][-3000:]
    assert not run["xcoms"].get("return_value")


def test_a_function_returns_the_inputs_of_mapped_clips(
    airflow: Airflow, simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    run = airflow.run_dag(
        str(DECORATED), "decorated_kwargs", "clip", frame=str(frame), videos=f"{tmp_path}/kwargs/"
    )
    assert run["state"] == "success", run["log"][-3000:]
    assert sorted(job.body["prompt"] for job in simulator.jobs) == ["bag at night", "shoe at dawn"]
    assert sorted(path.name for path in (tmp_path / "kwargs").glob("*.mp4")) == ["bag.mp4", "shoe.mp4"]
    assert simulator.charges == 2


def test_a_consumer_starts_from_clips_and_lineage_names_frame_and_video(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    dags, home, lineage = tmp_path / "dags", tmp_path / "airflow", tmp_path / "lineage.jsonl"
    dags.mkdir()
    for file in (DECORATED, CONSUMER):
        shutil.copy(file, dags)
    connection = {"conn_type": "luma_ray", "password": API_KEY, "host": simulator.url}
    transport = {"type": "file", "log_file_path": str(lineage), "append": True}
    settings = {
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(transport),
        "AIRFLOW_CONN_LUMA_RAY_DEFAULT": json.dumps(connection),
    }
    with Cluster(home, dags=dags, amount=3, settings=settings) as cluster:
        folders = {"videos": f"{tmp_path}/my clips/", "calls": f"{tmp_path}/calls"}
        cluster.trigger("decorated", "evening", frame=str(frame), **folders)
        cluster.wait(
            "both clips are there, and the consumer has run",
            lambda: (
                cluster.run_states("decorated") == {"evening": "success"}
                and "success" in cluster.run_states(CONSUMER.stem).values()
            ),
            timeout=180,
        )
        consumed = next(iter(cluster.run_states(CONSUMER.stem)))
        assert f"New clip {tmp_path}/my clips/decorated/evening/generate-" in cluster.log_of(
            CONSUMER.stem, consumed
        )
    jobs = {job.body["prompt"].split()[0]: job for job in simulator.jobs}
    assert {job.body["prompt"] for job in simulator.jobs} == {"shoe {{ ds }}", "bag {{ ds }}"}
    attempts = rows(home, "SELECT sum(try_number) FROM task_instance WHERE dag_id = 'decorated'")[0][0]
    assert len((tmp_path / "calls").read_text().split()) == attempts  # not again when they resumed
    names = rows(home, "SELECT map_index, rendered_map_index FROM task_instance WHERE dag_id = 'decorated'")
    assert sorted(names) == [(0, "shoe"), (1, "bag")]

    told = events(home, "decorated")
    videos = [f"{tmp_path}/my clips/decorated/evening/{name}.mp4" for name in ("generate-0", "generate-1")]
    assert [(uri, index) for uri, index, _ in told] == [
        *((Path(video).as_uri(), index) for index, video in enumerate(videos)),
        ("luma_ray_clips", 0),
        ("luma_ray_clips", 1),
    ]
    for _, index, extra in told:
        assert extra["video_path"] == videos[index]
        assert extra["request_id"] == jobs[("shoe", "bag")[index]].request_id
        assert extra["credits_used"] == 1.6

    emitted = [json.loads(line) for line in lineage.read_text().splitlines()]
    done = [
        event
        for event in emitted
        if event["eventType"] == "COMPLETE" and event["job"]["name"] == "decorated.generate"
    ]
    seen = [
        [[(data["namespace"], data["name"]) for data in event[side]] for side in ("inputs", "outputs")]
        for event in done
    ]
    assert sorted(seen) == [[[("file", str(frame))], [("file", video)]] for video in videos]
    assert API_KEY not in lineage.read_text()
