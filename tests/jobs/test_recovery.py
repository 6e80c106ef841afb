"""Which job in the vendor's history belongs to a lost paid call, and when that is certain."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.jobs import recovery
from airflow_provider_luma.jobs.record import JobRecord
from airflow_provider_luma.jobs.recovery import judge
from airflow_provider_luma.segmind.history import HistoryEntry
from airflow_provider_luma.segmind.replies import VendorStatus
from airflow_provider_luma.simulator import Simulator
from tests.jobs.takes import SIBLING, take
from tests.support import make_operator, recorded, task_context

AT = datetime(2026, 11, 22, 10, tzinfo=UTC)
LOST = take("intent", claim="lost", called_at=AT.isoformat(), error="The connection was reset.")


def row(request_id: str, *, seconds: float = 1, **values: Any) -> HistoryEntry:
    """Return a job with the lost call's body, created some seconds after the call."""
    defaults: dict[str, Any] = {
        "model": LOST.model,
        "state": VendorStatus.PROCESSING,
        "body_sha256": LOST.body_sha256,
        "created": AT + timedelta(seconds=seconds),
        "cost": None,
        "output_url": None,
        "error": None,
    }
    return HistoryEntry(request_id=request_id, **defaults | values)


def other(state: str, seconds: float = 0, **values: Any) -> JobRecord:
    """Return another task instance's call with the same body."""
    at = (AT + timedelta(seconds=seconds)).isoformat()
    return take(state, owner=SIBLING, **{"claim": "other", "intent_at": at, "called_at": at} | values)


LOST_TOO = other("intent", seconds=5, error="The connection was reset.")
FAILED: dict[str, Any] = {"state": VendorStatus.FAILED}


@pytest.mark.parametrize(
    ("rows", "others", "found"),
    [
        pytest.param([row("a")], [], "a", id="one job and one call"),
        pytest.param([], [], None, id="no job"),
        pytest.param([row("a", body_sha256="x")], [], None, id="of other inputs"),
        pytest.param([row("a", body_sha256=None)], [], None, id="of inputs that are not shown"),
        pytest.param([row("a", model="x")], [], None, id="of another model"),
        pytest.param([row("a", seconds=-600)], [], None, id="too early"),
        pytest.param([row("a", seconds=-60)], [], "a", id="early by the clocks"),
        pytest.param([row("a", seconds=3600)], [], None, id="too late"),
        pytest.param([row("a"), row("b")], [], None, id="two jobs and one call"),
        pytest.param([row("a")], [other("submitted", request_id="a")], None, id="another call's"),
        pytest.param(
            [row("A-B")], [other("submitted", request_id="ab")], None, id="another call's, respelled"
        ),
        pytest.param(
            [row("a"), row("b")], [other("delivered", request_id="a")], "b", id="the one that is left"
        ),
        pytest.param([row("a")], [LOST_TOO], None, id="one job and two lost calls"),
        pytest.param([row("a"), row("b", seconds=6)], [LOST_TOO], "a", id="two jobs and two lost calls"),
        pytest.param(
            [row("b", seconds=6), row("a")], [LOST_TOO], "a", id="two jobs and two lost calls, in any order"
        ),
        pytest.param(
            [row("a"), row("b")],
            [other("intent", seconds=5)],
            None,
            id="one of the calls may still be answered",
        ),
        pytest.param(
            [row("a"), row("b")],
            [other("intent", seconds=-1000)],
            None,
            id="a call of long ago has nothing to do with it",
        ),
        pytest.param(
            [row("a")],
            [other("intent", seconds=-1000, called_at=None)],
            None,
            id="a call whose worker's clock may have been wrong",
        ),
        pytest.param(
            [row("a"), row("b")],
            [other("delivered", api_version="v1")],
            None,
            id="another call has its video from v1, and no id",
        ),
        pytest.param(
            [row("a"), row("b", seconds=6)],
            [LOST_TOO, LOST_TOO],
            "a",
            id="a call that both the record and its neighbour name",
        ),
        pytest.param(
            [row("a")],
            [other("submitted", request_id="gateway", api_version="v1")],
            None,
            id="a call of v1 whose id may be a gateway's",
        ),
        pytest.param(
            [row("a"), row("b", seconds=6)],
            [other("submitted", request_id=one, api_version="v1") for one in ("gateway", "b")],
            "a",
            id="a call of v1 whose copies name a gateway's id and the job's",
        ),
        pytest.param([row("a")], [other("failed")], "a", id="the other call was refused"),
        pytest.param([row("a", **FAILED)], [], None, id="a job that FAILED may be another's"),
        pytest.param([row("a", **FAILED), row("b")], [other("failed")], None, id="one of two FAILED"),
    ],
)
def test_a_body_that_others_may_have_sent(
    rows: list[HistoryEntry], others: list[JobRecord], found: str | None
) -> None:
    takes, now = (LOST, *others), AT + timedelta(minutes=2)
    last = judge(rows, LOST, takes, is_last=True, now=now)
    assert (last.row and last.row.request_id) == found
    assert bool(last.finding) is (found is None), "a person is told what was seen"
    assert judge(rows, LOST, takes, is_last=False, now=now).row is None, "another row may still appear"


@pytest.mark.parametrize("is_last", [True, False])
@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ([row("a")], "a"),
        ([row("a", **FAILED)], "a"),
        ([row("a"), row("b", body_sha256="x")], "a"),
        ([row("a"), row("b")], None),
        ([], None),
    ],
)
def test_a_unique_body_is_recognized_at_once(
    rows: list[HistoryEntry], found: str | None, is_last: bool
) -> None:
    unique = LOST.changed(body_is_unique=True)
    judged = judge(rows, unique, (unique, LOST_TOO), is_last=is_last, now=AT)
    assert (judged.row and judged.row.request_id) == found


def test_two_lost_calls_never_take_the_same_job() -> None:
    rows = [row("b", seconds=3), row("a", seconds=3), row("c", seconds=1)]
    calls = [
        take("intent", claim=claim, owner=SIBLING, error="lost", intent_at=AT.isoformat()) for claim in "zxy"
    ]
    taken = [judge(rows, call, calls, is_last=True, now=AT).row for call in calls]
    assert {one.request_id for one in taken if one} == {"a", "b", "c"}


def test_near_matches_are_named() -> None:
    judged = judge([row("a", body_sha256="x")], LOST, (LOST,), is_last=True)
    assert "come close: a (created in time, other inputs)" in judged.finding


# Over real HTTP


@pytest.mark.parametrize(
    ("arguments", "is_unique"),
    [
        ({"frame_transfer": "upload"}, True),
        ({"frame_transfer": "base64"}, False),
        ({"start_frame": "URL"}, False),
    ],
    ids=["upload", "base64", "URL"],
)
def test_a_lost_job_is_adopted_at_once_if_its_body_is_unique_else_at_the_last_look(
    simulator: Simulator,
    connection: None,
    frame: Path,
    tmp_path: Path,
    arguments: dict[str, Any],
    is_unique: bool,
) -> None:
    if "start_frame" in arguments:
        arguments = {"start_frame": LumaRayHook().upload_image(frame)}
    simulator.fault("submit", "reset", accepted=True)
    clip = tmp_path / "clip.mp4"
    outputs = make_operator(**{"start_frame": frame, "output_path": clip} | arguments).execute(task_context())
    assert outputs["request_id"] == simulator.jobs[0].request_id
    assert recorded(clip)["body_is_unique"] is is_unique
    looks = simulator.calls["history"] / 2  # each one ends with a page that has no more jobs
    assert looks == (1 if is_unique else len(recovery.LOOK_DELAYS))
    assert simulator.charges == 1


@pytest.mark.parametrize("status", [400, 500])
def test_an_id_unknown_to_the_history_is_not_a_hint(
    simulator: Simulator, connection: None, frame: Path, tmp_path: Path, status: int
) -> None:
    simulator.fault("submit", "gateway", request_id="gw-1")
    simulator.fault("history_one", "status", status=status, times=99)
    outputs = make_operator(frame, tmp_path / "clip.mp4", frame_transfer="upload").execute(task_context())
    assert (outputs["request_id"], simulator.charges) == (simulator.jobs[0].request_id, 1)
