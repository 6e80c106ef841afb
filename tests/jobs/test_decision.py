"""What an attempt does, from what is on record and what lies at the path: one table."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_luma.exceptions import LumaRayConfigurationError
from airflow_provider_luma.jobs.decision import Action, decide
from airflow_provider_luma.jobs.record import Identity, JobRecord, RecordState

ME = Identity("clips", "monday", "generate", 0)
SIBLING = Identity("clips", "monday", "generate", 1)
YESTERDAY = Identity("clips", "sunday", "generate", 0)


def record(
    state: str, *, owner: Identity = ME, fingerprint: str = "same", size: int | None = None
) -> JobRecord:
    return JobRecord(
        state=RecordState(state),
        identity=owner,
        fingerprint=fingerprint,
        luma_ray_conn_id="luma_ray_default",
        model="luma-ray-img-2-video",
        parameters={},
        body_sha256="body",
        api_version="v2",
        output_path="/clips/a.mp4",
        intent_at="2026-11-22T10:00:00+00:00",
        request_id="r1",
        bytes=size,
    )


def decision(
    own: JobRecord | None, other: JobRecord | None, size: int | None, if_exists: str = "overwrite"
) -> Action:
    return decide(
        own,
        other,
        identity=ME,
        fingerprint="same",
        output_path="/clips/a.mp4",
        size=size,
        if_exists=if_exists,
    )


@pytest.mark.parametrize(
    ("own", "other", "size", "action"),
    [
        pytest.param(None, None, None, Action.BUY, id="nothing there"),
        pytest.param(record("intent"), None, None, Action.LOOK_UP, id="died around the paid call"),
        pytest.param(record("submitted"), None, None, Action.REATTACH, id="died while waiting"),
        pytest.param(record("completed"), None, None, Action.REATTACH, id="died while downloading"),
        pytest.param(record("delivered", size=9), None, 9, Action.RETURN, id="delivered and present"),
        pytest.param(record("delivered", size=9), None, None, Action.REATTACH, id="delivered and gone"),
        pytest.param(record("delivered", size=9), None, 4, Action.REATTACH, id="delivered and damaged"),
        pytest.param(record("failed"), None, None, Action.BUY, id="failed, unbilled"),
        pytest.param(
            record("delivered", fingerprint="old", size=9), None, 9, Action.BUY, id="edited after delivery"
        ),
        pytest.param(record("submitted", fingerprint="old"), None, None, Action.BUY, id="edited in flight"),
        pytest.param(None, record("failed", owner=SIBLING), None, Action.BUY, id="a sibling's failure"),
        pytest.param(
            None, record("delivered", owner=YESTERDAY, size=9), 9, Action.BUY, id="yesterday's is overwritten"
        ),
        pytest.param(
            None, record("delivered", owner=YESTERDAY, size=9), None, Action.BUY, id="yesterday's is gone"
        ),
        pytest.param(None, None, 9, Action.BUY, id="somebody's file is overwritten"),
    ],
)
def test_action(own: JobRecord | None, other: JobRecord | None, size: int | None, action: Action) -> None:
    assert decision(own, other, size) is action


@pytest.mark.parametrize("if_exists", ["reuse", "fail"])
@pytest.mark.parametrize("state", ["intent", "submitted", "completed"])
def test_a_job_in_flight_outranks_what_lies_at_the_path(state: str, if_exists: str) -> None:
    assert decision(record(state), None, 9, if_exists) in (Action.LOOK_UP, Action.REATTACH)


def test_if_exists_reuse_takes_another_runs_video() -> None:
    assert decision(None, record("delivered", owner=YESTERDAY, size=9), 9, "reuse") is Action.REUSE


def test_if_exists_fail_refuses_another_runs_video() -> None:
    with pytest.raises(LumaRayConfigurationError, match=r"'/clips/a\.mp4' is taken, and if_exists='fail'"):
        decision(None, record("delivered", owner=YESTERDAY, size=9), 9, "fail")


@pytest.mark.parametrize("if_exists", ["reuse", "fail"])
def test_if_exists_does_not_mean_an_earlier_take_of_the_same_task_instance(if_exists: str) -> None:
    assert decision(record("delivered", fingerprint="old", size=9), None, 9, if_exists) is Action.BUY


@pytest.mark.parametrize("state", ["intent", "submitted", "completed"])
@pytest.mark.parametrize("owner", [SIBLING, YESTERDAY])
def test_a_path_with_anothers_job_in_flight_is_refused_naming_both(state: str, owner: Identity) -> None:
    with pytest.raises(LumaRayConfigurationError) as refused:
        decision(None, record(state, owner=owner), None)
    assert str(owner) in str(refused.value)
    assert str(ME) in str(refused.value)


@pytest.mark.parametrize(
    ("if_exists", "fingerprint"),
    [("overwrite", "same"), ("fail", "same"), ("overwrite", "another"), ("reuse", "another")],
)
def test_two_mapped_indices_of_one_run_may_not_share_a_path(if_exists: str, fingerprint: str) -> None:
    with pytest.raises(LumaRayConfigurationError, match="in the same run"):
        decision(
            None, record("delivered", owner=SIBLING, fingerprint=fingerprint, size=9), 9, if_exists=if_exists
        )


@pytest.mark.parametrize("own", [None, record("delivered", fingerprint="old", size=9), record("failed")])
def test_the_same_clip_under_another_index_is_reused(own: JobRecord | None) -> None:
    assert decision(own, record("delivered", owner=SIBLING, size=9), 9, "reuse") is Action.REUSE


@pytest.mark.parametrize(("size", "recorded"), [(None, 9), (4, 9), (None, None)])
def test_the_same_clip_under_another_index_is_refused_where_its_video_is_not_whole(
    size: int | None, recorded: int | None
) -> None:
    with pytest.raises(LumaRayConfigurationError, match="in the same run"):
        decision(None, record("delivered", owner=SIBLING, size=recorded), size, "reuse")


def test_an_identity_does_not_depend_on_the_attempt() -> None:
    class Ti:
        dag_id, run_id, task_id, map_index, try_number = "d", "r", "t", -1, 3

    context: Any = {"ti": Ti}
    assert Identity.of(context) == Identity("d", "r", "t", -1)
