"""The record's JSON form and the fingerprint."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_luma.jobs.record import Identity, JobRecord, fingerprint
from tests.jobs.test_decision import record

FULL = replace(
    record("delivered", size=9),
    submitted_at="2026-11-22T10:00:01+00:00",
    cost=Decimal("1.60"),
    remaining_credits=Decimal("0.0184921035"),
    superseded=record("delivered", fingerprint="old").history(),
)


def test_the_json_form_holds_the_whole_record() -> None:
    assert JobRecord.from_json(json.loads(json.dumps(FULL.to_json()))) == FULL


def test_amounts_keep_all_their_decimals() -> None:
    assert FULL.to_json()["remaining_credits"] == "0.0184921035"


@pytest.mark.parametrize(
    "raw",
    [
        None,
        [],
        "text",
        {},
        {"schema_version": 2},
        {**FULL.to_json(), "schema_version": 2},
        {**FULL.to_json(), "state": "sold"},
        {**FULL.to_json(), "identity": "me"},
        {**FULL.to_json(), "intent_at": "yesterday"},
        {**FULL.to_json(), "cost": "much"},
        {**FULL.to_json(), "fingerprint": None},
        {**record("submitted").to_json(), "request_id": None},
    ],
)
def test_what_is_not_a_record_is_never_read_as_one(raw: object) -> None:
    with pytest.raises(ValueError, match="not"):
        JobRecord.from_json(raw)


def test_an_unknown_field_of_a_later_version_is_passed_over() -> None:
    assert JobRecord.from_json({**FULL.to_json(), "mood": "good"}) == FULL


def test_superseded_records_are_kept_in_order_and_their_jobs_stay_claimed() -> None:
    third = replace(FULL, request_id="r3", superseded=replace(FULL, request_id="r2").history())
    assert third.request_ids() == {"r1", "r2", "r3"}
    assert [earlier["request_id"] for earlier in third.superseded] == ["r1", "r2"]


BILLED = {
    "luma_ray_conn_id": "luma_ray_default",
    "model": "luma-ray-img-2-video",
    "parameters": {"prompt": "p", "loop": False},
    "frame": "sha256:1",
    "tag": None,
}


@pytest.mark.parametrize(
    "change",
    [
        {"luma_ray_conn_id": "other_account"},
        {"model": "luma-ray-3-2"},
        {"parameters": {"prompt": "q", "loop": False}},
        {"parameters": {"prompt": "p", "loop": True}},
        {"frame": "sha256:2"},
        {"frame": None},
        {"tag": "take 2"},
    ],
)
def test_everything_that_is_billed_changes_the_fingerprint(change: dict[str, object]) -> None:
    assert fingerprint(**BILLED) != fingerprint(**{**BILLED, **change})  # type: ignore[arg-type]


def test_the_order_of_parameters_does_not_change_the_fingerprint() -> None:
    turned = {**BILLED, "parameters": {"loop": False, "prompt": "p"}}
    assert fingerprint(**BILLED) == fingerprint(**turned)  # type: ignore[arg-type]


@given(st.text(max_size=5), st.text(max_size=5), st.text(max_size=5), st.integers(-1, 3))
def test_two_task_instances_never_share_a_digest(dag: str, run: str, task: str, index: int) -> None:
    other = Identity("a", "b", "c", 1)
    one = Identity(dag, run, task, index)
    assert (one.digest == other.digest) == (one == other)
