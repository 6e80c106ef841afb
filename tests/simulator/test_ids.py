"""A job's id: with dashes, without, and malformed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_luma.simulator import Simulator

HISTORY = "/inference-request/request-history"


@pytest.fixture
def plain(clips: Path) -> Iterator[Simulator]:
    with Simulator(latency=60, id_style="plain", clip_seconds=0.25, work_dir=clips) as simulator:
        yield simulator


def test_the_plain_style(plain: Simulator, connect: Any) -> None:
    api = connect(plain)
    request_id = api.job()
    bare = request_id.replace("-", "")
    assert request_id == plain.jobs[0].request_id != bare

    for given in (request_id, bare):
        assert api.status(given)["request_id"] == bare
        assert api.result(given)["request_id"] == bare
    plain.advance(60)
    for given in (request_id, bare):
        assert api.status(given)["request_id"] == bare
        result = api.result(given)
        assert (result["request_id"], result["status"]) == (bare, "COMPLETED")
        assert api.get(f"{HISTORY}/{given}").json()["request_id"] == request_id
    unknown = "0" * 32
    assert api.result(unknown) == {"error": f"Request {unknown} not found"}


def test_the_plain_style_of_a_failure(plain: Simulator, connect: Any) -> None:
    api = connect(plain)
    plain.fail_next()
    request_id = api.job()
    plain.advance(60)
    assert api.status(request_id)["request_id"] == request_id.replace("-", "")


def test_without_the_plain_style_an_id_is_matched_exactly(sim: Simulator, api: Any) -> None:
    request_id = api.job()
    bare = request_id.replace("-", "")
    assert api.status(request_id)["request_id"] == request_id
    for path in (f"/v2/requests/{bare}/status", f"/v2/requests/{bare}", f"{HISTORY}/{bare}"):
        assert api.get(path).status_code == 404


def test_an_unknown_habit_is_refused() -> None:
    for options in ({"id_style": "upper"}, {"history_shape": "xml"}, {"v1_reply": "letter"}):
        with pytest.raises(ValueError, match="must be one of"):
            Simulator(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("style", "written"),
    [(None, r'"\ud800"'), ("surrogate", r'"\ud800"'), ("empty", '""'), ("number", "20261122")],
)
def test_an_odd_id(sim: Simulator, api: Any, style: str | None, written: str) -> None:
    sim.fault("submit", "odd_id", style=style)
    reply = api.submit()

    assert reply.status_code == 200
    assert f'"request_id": {written}, "status": "QUEUED"' in reply.text
    assert len(sim.jobs) == 1
    sim.advance(60)
    assert sim.charges == 1


def test_a_refusal_has_no_id_to_change(sim: Simulator, api: Any) -> None:
    sim.fault("submit", "odd_id")
    assert api.submit(loop="yes").status_code == 400
