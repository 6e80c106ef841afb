"""The unchanged examples on real Airflow and the simulator; the nightly batch from bucket to bucket."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_luma.simulator import Simulator
from tests.airflow.conftest import REPO, Airflow
from tests.buckets import SECRET_KEY, s3_server

pytestmark = pytest.mark.airflow
EXAMPLES = REPO / "dags_examples"


def run_example(airflow: Airflow, name: str, xcoms_of: str, **conf: Any) -> dict[str, Any]:
    return airflow.run_dag(str(EXAMPLES / f"{name}.py"), name, xcoms_of, **conf)


@pytest.fixture
def s3(airflow: Airflow) -> Iterator[Any]:
    """A client of this test's S3 server, which is also Airflow's ``aws_default``."""
    with s3_server() as (connection, client):
        airflow.env["AIRFLOW_CONN_AWS_DEFAULT"] = connection
        yield client


def keys(s3: Any, bucket: str) -> list[str]:
    return [item["Key"] for item in s3.list_objects_v2(Bucket=bucket).get("Contents", ())]


def test_a_nightly_batch_buys_what_is_missing_from_a_bucket_to_a_bucket(
    airflow: Airflow, simulator: Simulator, s3: Any, frame: Path
) -> None:
    pool = airflow.cli("pools", "set", "luma_ray", "8", "jobs at Segmind", "--include-deferred")
    assert pool.returncode == 0, pool.stderr
    for bucket in ("photos", "clips"):
        s3.create_bucket(Bucket=bucket)
    for name in ("new/shoe.jpg", "new/shoe.png", "new/bag one.jpg"):
        s3.upload_file(str(frame), "photos", name)
    s3.put_object(Bucket="photos", Key="new/broken.jpg", Body=b"no image")
    s3.put_object(Bucket="photos", Key="new/notes.txt", Body=b"not a frame")

    def night(**conf: Any) -> dict[str, Any]:
        folders = {"photos": "s3://aws_default@photos/new/", "videos": "s3://aws_default@clips/"}
        return run_example(airflow, "luma_ray_nightly_batch", "report", **folders, **conf)

    first = night(max_credits=8)
    assert first["state"] == "success", first["log"][
        -3000:
    ]  # the broken frame's task failed, and only that one
    assert first["errors"] != []
    assert "broken.jpg' is not an image" in first["errors"][0]
    videos = [key for key in keys(s3, "clips") if key.endswith(".mp4")]
    assert len(videos) == 3
    assert {"shoe.jpg.mp4", "shoe.png.mp4"} < set(videos)
    assert (first["xcoms"]["return_value"], simulator.charges) == (4.8, 3)

    s3.delete_object(Bucket="clips", Key="shoe.png.mp4")
    s3.delete_object(Bucket="photos", Key="new/broken.jpg")
    second = night(max_credits=1.6)
    assert second["state"] == "success", second["log"][-3000:]
    assert (second["xcoms"]["return_value"], simulator.charges) == (1.6, 4)
    assert [key for key in keys(s3, "clips") if key.endswith(".mp4")] == videos
    assert SECRET_KEY not in first["log"] + second["log"]

    s3.upload_file(str(frame), "photos", "new/hat.jpg")
    for too_little in ({"max_credits": 1.5}, {}):  # left as it is, the example buys nothing
        third = night(**too_little)
        assert third["errors"] == [], third["log"][-3000:]
        assert "1 frame left (1.60 USD)" in third["log"]
        assert simulator.charges == 4


@pytest.mark.parametrize(("answer", "published"), [("Approve", 1), ("Reject", 0), (None, 0)])
def test_a_person_or_the_timeout_decides_what_is_published(
    airflow: Airflow, simulator: Simulator, tmp_path: Path, answer: str | None, published: int
) -> None:
    script = Path(__file__).with_name("answer.py")
    command = [sys.executable, str(script), "luma_ray_review", "approve", *([answer] if answer else [])]
    folders = {"drafts": f"{tmp_path}/drafts/", "published": f"{tmp_path}/published/"}
    with subprocess.Popen(command, env=airflow.env) as person:
        try:
            run = run_example(airflow, "luma_ray_review", "publish", **folders)
        finally:
            person.terminate()
    assert run["state"] == "success", run["log"][-3000:]
    assert len(list((tmp_path / "published").glob("*.mp4"))) == published
    assert simulator.charges == 1
