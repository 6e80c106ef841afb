"""The request history, which helps to find a lost job."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import requests

from airflow_provider_luma.simulator import Simulator

HISTORY = "/inference-request/request-history"
DAY = 86400


def rows(api: Any, **query: Any) -> list[dict[str, Any]]:
    reply = api.get(HISTORY, params=query)
    assert reply.status_code == 200, reply.text
    return list(reply.json()["data"])


def ids(api: Any, **query: Any) -> list[str]:
    return [row["request_id"] for row in rows(api, **query)]


def day(sim: Simulator, offset: int = 0) -> str:
    return datetime.fromtimestamp(sim.now() + offset * DAY, UTC).date().isoformat()


def test_rows_of_every_state(sim: Simulator, api: Any) -> None:
    done = api.job(aspect_ratio="16:9", extra=1)
    sim.fail_next("boom")
    failed = api.job()
    sim.advance(60)
    api.v1()
    running = api.job()

    pending, v1, bad, good = rows(api)
    assert (pending["request_id"], pending["model_status"]) == (running, "PENDING")
    assert (pending["credits_deduction"], pending["generation_url"], pending["latency_ms"]) == (0, None, None)
    assert (bad["request_id"], bad["model_status"], bad["error"]) == (failed, "FAILED", "boom")
    assert bad["credits_deduction"] == 0
    assert (good["request_id"], good["model_status"], good["error"]) == (done, "COMPLETED", None)
    assert good["model_name"] == "luma-ray-img-2-video"
    assert good["credits_deduction"] == 1.6
    assert good["request_body"] == {"prompt": "a road", "aspect_ratio": "16:9", "extra": 1}
    assert good["latency_ms"] == pytest.approx(60_000, abs=1000)
    assert datetime.fromisoformat(good["model_created"]).timestamp() == pytest.approx(
        sim.jobs[0].created, abs=0.01
    )
    assert (v1["model_status"], v1["credits_deduction"]) == ("COMPLETED", 1.6)
    assert api.download(v1["generation_url"]).content[4:8] == b"ftyp"


def test_one_request_of_any_age(sim: Simulator, api: Any) -> None:
    request_id = api.job()
    sim.advance(60 * DAY)

    assert api.get(f"{HISTORY}/{request_id}").json()["model_status"] == "COMPLETED"
    missing = api.get(f"{HISTORY}/unknown")
    assert (missing.status_code, missing.json()) == (404, {"error": "Request unknown not found"})


def test_filters(sim: Simulator, api: Any) -> None:
    old = api.job()
    sim.advance(10 * DAY)
    flash = api.job("ray-flash-2-720p")
    sim.fail_next()
    failed = api.job("luma-ray-3-2")
    sim.advance(60)
    running = api.job()

    assert ids(api) == [running, failed, flash]
    assert ids(api, from_date=day(sim, -12), to_date=day(sim, -9)) == [old]
    assert ids(api, from_date=day(sim, -31)) == [running, failed, flash, old]
    assert ids(api, model_name="luma-ray") == [running, failed]
    assert ids(api, model_name="luma-ray-3-2") == [failed]
    assert ids(api, status="COMPLETED") == [flash]
    assert ids(api, status="FAILED") == [failed]
    assert ids(api, status="PENDING") == [running]
    assert ids(api, sort_order="asc") == [flash, failed, running]
    assert ids(api, sort_by="credits_deduction")[0] == flash
    assert ids(api, sort_by="model_name", sort_order="asc")[0] == failed


def test_pages(sim: Simulator, api: Any) -> None:
    sent = [api.job() for _ in range(5)]

    first = api.get(HISTORY, params={"per_page": 2}).json()
    assert (first["page"], first["per_page"], first["total"]) == (1, 2, 5)
    assert [row["request_id"] for row in first["data"]] == sent[:2:-1]
    assert ids(api, per_page=2, page=3) == sent[:1]
    assert ids(api, per_page=2, page=4) == []


@pytest.mark.parametrize(
    "query",
    [
        {"per_page": 0},
        {"per_page": 101},
        {"per_page": "many"},
        {"page": 0},
        {"from_date": "yesterday"},
        {"from_date": "20260101"},
        {"from_date": "2026-01-01", "to_date": "2026-02-02"},
        {"from_date": "2026-01-02", "to_date": "2026-01-01"},
        {"status": "completed"},
        {"sort_by": "request_id"},
        {"sort_order": "up"},
    ],
)
def test_a_refused_query(api: Any, query: dict[str, Any]) -> None:
    reply = api.get(HISTORY, params=query)
    assert reply.status_code == 400
    assert "error" in reply.json()


def test_rows_appear_with_a_lag(clips: Any, connect: Any) -> None:
    with Simulator(latency=60, history_lag=90, clip_seconds=0.25, work_dir=clips) as sim:
        api = connect(sim)
        request_id = api.job()
        sim.advance(80)
        assert rows(api) == []
        assert api.get(f"{HISTORY}/{request_id}").status_code == 404
        sim.advance(10)
        assert ids(api) == [request_id]
        assert api.get(f"{HISTORY}/{request_id}").status_code == 200


def test_the_row_of_a_single_job_is_late(sim: Simulator, api: Any) -> None:
    late = api.job()
    sim.delay_history(late, 90)
    other = api.job()
    assert ids(api) == [other]
    assert api.get(f"{HISTORY}/{late}").status_code == 404
    sim.advance(80)
    assert ids(api) == [other]
    assert api.status(late)["status"] == "COMPLETED"
    sim.advance(10)
    assert ids(api) == [other, late]
    assert api.get(f"{HISTORY}/{late}").status_code == 200


def test_the_rows_of_jobs_to_come_are_late(sim: Simulator, api: Any) -> None:
    sim.delay_history("next", 90)
    sim.delay_history("next", 30)
    sim.fault("submit", "reset", accepted=False)
    for kind in ("reset", "truncated"):
        sim.fault("submit", kind)
    for _ in range(3):
        with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
            api.submit()
    third = api.job()
    lost, found, _ = (job.request_id for job in sim.jobs)
    assert ids(api) == [third]
    sim.advance(30)
    assert ids(api) == [third, found]
    sim.advance(60)
    assert ids(api) == [third, found, lost]


def test_one_row_can_appear_before_all_others(clips: Any, connect: Any) -> None:
    with Simulator(latency=60, history_lag=90, clip_seconds=0.25, work_dir=clips) as sim:
        api = connect(sim)
        sim.delay_history("next", 0)
        early = api.job()
        api.job()
        assert ids(api) == [early]
        with pytest.raises(ValueError, match="no job has this id"):
            sim.delay_history("unknown", 1)


@pytest.mark.parametrize("shape", ["data", "items", "bare_list", "nested"])
def test_shapes(clips: Any, connect: Any, shape: str) -> None:
    paging = {"page": 1, "per_page": 1, "total": 2}
    with Simulator(latency=60, history_shape=shape, clip_seconds=0.25, work_dir=clips) as sim:
        api = connect(sim)
        api.job()
        request_id = api.job()
        row = api.get(f"{HISTORY}/{request_id}").json()
        answer = api.get(HISTORY, params={"per_page": 1}).json()

    assert row["request_id"] == request_id
    assert (
        answer
        == {
            "data": {"data": [row], **paging},
            "items": {"items": [row], **paging},
            "bare_list": [row],
            "nested": {"result": {"pagination": paging, "rows": [row]}},
        }[shape]
    )


def test_rows_in_the_wrong_order(sim: Simulator, api: Any) -> None:
    sent = [api.job() for _ in range(3)]
    sim.fault("history", "wrong_order", times=2)
    assert ids(api, per_page=2) == sent[:2]
    assert ids(api, sort_order="asc") == sent[::-1]
    assert ids(api) == sent[::-1]


def test_rows_that_lie(sim: Simulator, api: Any) -> None:
    done = api.job(prompt="a hill")
    sim.advance(60)
    running = api.job(prompt="a lake")
    sim.fault("history", "history_lies")
    sim.fault("history_one", "history_lies", times=2)

    newer, older = rows(api)
    assert (newer["request_id"], newer["request_body"]) == (running, {"prompt": "a lake"})
    assert (newer["model_status"], newer["credits_deduction"]) == ("COMPLETED", 1.6)
    assert (older["request_id"], older["request_body"]) == (done, {"prompt": "a hill"})
    assert (older["model_status"], older["generation_url"]) == ("PENDING", None)
    assert api.get(f"{HISTORY}/{running}").json() == newer
    assert api.get(f"{HISTORY}/{done}").json() == older
    truth = {row["request_id"]: row for row in rows(api)}
    assert truth[running]["model_status"] == "PENDING"
    assert truth[done]["generation_url"] == newer["generation_url"]


def test_a_row_that_lies_about_another_video(sim: Simulator, api: Any) -> None:
    one, other = api.job(), api.job(loop=True)
    sim.advance(60)
    sim.fault("history_one", "history_lies")
    assert api.get(f"{HISTORY}/{one}").json()["generation_url"] == api.result(other)["output"]


def test_a_single_row_has_nothing_to_lie_about(sim: Simulator, api: Any) -> None:
    request_id = api.job()
    sim.fault("history_one", "history_lies")
    assert api.get(f"{HISTORY}/{request_id}").json()["model_status"] == "PENDING"
    sim.fault("history_one", "history_lies")
    assert api.get(f"{HISTORY}/unknown").status_code == 404
