"""The schema of the file beside each video: it fits what is written, and refuses what is none."""

from __future__ import annotations

import importlib
import json
from dataclasses import fields
from datetime import timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_luma.exceptions import LumaRayError
from airflow_provider_luma.jobs.record import JobRecord
from airflow_provider_luma.simulator import Simulator
from tests.support import make_operator, task_context

pytestmark = pytest.mark.usefixtures("connection")

SCHEMA: dict[str, Any] = json.loads(
    files("airflow_provider_luma.jobs").joinpath("record.schema.json").read_text()
)
jsonschema = importlib.import_module("jsonschema")


def check(raw: object) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.Draft202012Validator(SCHEMA).validate(raw)


def test_it_names_each_field_of_the_record() -> None:
    take = SCHEMA["$defs"]["take"]["properties"]
    assert {*take, "superseded"} == {"schema_version", *(field.name for field in fields(JobRecord))}


@pytest.mark.parametrize("api_version", ["v2", "v1"])
def test_delivered_records_fit_with_the_takes_that_they_supersede(
    simulator: Simulator, frame: Path, tmp_path: Path, api_version: str
) -> None:
    clip = tmp_path / "clip.mp4"
    for tag in (None, "second take"):
        arguments = {"api_version": api_version, "generation_tag": tag, "concepts": ["push_in"]}
        make_operator(frame, clip, **arguments).execute(task_context())
    record = json.loads(clip.with_name("clip.mp4.job.json").read_text())
    assert (record["state"], len(record["superseded"])) == ("delivered", 1)
    check(record)


@pytest.mark.parametrize(
    ("fault", "state"),
    [
        (lambda simulator: simulator.set_credits("0"), "failed"),
        (lambda simulator: simulator.fail_next(error="moderated"), "failed"),
        (lambda simulator: simulator.fault("status", "status", status=500, times=99), "submitted"),
        (lambda simulator: simulator.fault("download", "status", status=500, times=99), "completed"),
        (lambda simulator: simulator.fault("submit", "status", status=500, times=1), "intent"),
    ],
)
def test_records_of_bad_days_fit(
    simulator: Simulator, frame: Path, tmp_path: Path, fault: Any, state: str
) -> None:
    fault(simulator)
    clip = tmp_path / "clip.mp4"
    with pytest.raises(LumaRayError):
        make_operator(frame, clip, timeout=timedelta(seconds=1)).execute(task_context())
    record = json.loads(clip.with_name("clip.mp4.job.json").read_text())
    assert record["state"] == state
    check(record)


@pytest.mark.parametrize(
    "change",
    [{"state": "bought"}, {"schema_version": 2}, {"cost": 1.6}, {"request_id": None}, {"superseded": [{}]}],
)
def test_it_refuses_what_is_no_record(
    simulator: Simulator, frame: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    clip = tmp_path / "clip.mp4"
    make_operator(frame, clip).execute(task_context())
    record = json.loads(clip.with_name("clip.mp4.job.json").read_text())
    with pytest.raises(jsonschema.ValidationError):
        check(record | change)
