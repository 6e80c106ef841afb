"""Charging, credits and the rate limit."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
import requests

from airflow_provider_luma.simulator import Simulator
from tests.simulator.conftest import send_v1


@pytest.mark.parametrize(
    ("slug", "body", "price"),
    [
        ("luma-ray-img-2-video", {}, "1.6"),
        ("luma-ray-3-2", {"duration": "9s"}, "1.32"),
        ("ray-flash-2-720p", {}, "0.375"),
        ("ray-flash-2-720p", {"duration": 9}, "0.675"),
    ],
)
def test_a_completed_job_is_charged_once(
    sim: Simulator, api: Any, slug: str, body: dict[str, Any], price: str
) -> None:
    request_id = api.job(slug, **body)
    assert (sim.charges, sim.spent) == (0, Decimal(0))
    sim.advance(60)
    for _ in range(3):
        assert api.status(request_id)["metrics"]["cost"] == float(price)

    assert (sim.charges, sim.spent, sim.balance) == (1, Decimal(price), 20 - Decimal(price))
    assert sim.jobs[0].charged
    assert sim.jobs[0].cost == Decimal(price)


def test_nothing_refused_or_failed_is_charged(sim: Simulator, api: Any) -> None:
    sim.fail_next("boom")
    api.job()
    api.job(start_frame="not a picture")
    api.submit(resolution="9000p")
    api.call("POST", "/v2/luma-ray-9", json={"prompt": "a"})
    sim.fault("submit", "status", status=500)
    api.submit()
    sim.retire("luma-ray-img-2-video")
    api.submit()
    sim.advance(60)

    assert [job.charged for job in sim.jobs] == [False, False]
    assert (sim.charges, sim.spent, sim.balance) == (0, Decimal(0), Decimal(20))


def test_jobs_in_flight_count_against_the_balance(sim: Simulator, api: Any) -> None:
    sim.set_credits("3.2")
    api.job()
    sim.fail_next("boom")
    api.job()

    refused = api.submit()
    assert refused.status_code == 402
    assert "credits" in refused.json()["error"]
    v1 = api.call("POST", "/v1/luma-ray-img-2-video", json={"prompt": "a"})
    assert v1.status_code == 406
    assert "credits" in v1.json()["error"]

    sim.advance(60)
    assert api.submit().status_code == 200
    sim.advance(60)
    assert sim.balance == 0


def test_credits(sim: Simulator, api: Any) -> None:
    sim.set_credits("12.34", free="0.0184921035")
    assert api.get("/v1/get-user-credits").json() == {"credits": 12.34, "free-credits": 0.0184921035}
    assert sim.balance == Decimal("12.3584921035")

    api.job()
    sim.advance(60)
    assert api.get("/v1/get-user-credits").json() == {"credits": 10.7584921035, "free-credits": 0.0}

    sim.fault("credits", "status", status=404)
    missing = api.get("/v1/get-user-credits")
    assert (missing.status_code, missing.json()) == (404, {"error": "No credits found for the user"})


def test_a_client_that_disconnects_still_pays(sim: Simulator) -> None:
    send_v1(sim).close()
    sim.advance(60)

    assert sim.charges == 1


def test_the_rate_limit_is_a_sliding_minute(clips: Any) -> None:
    headers = {"x-api-key": "SG_simulator"}
    with Simulator(requests_per_minute=3, work_dir=clips) as sim:

        def status(path: str = "/v1/get-user-credits", **options: Any) -> int:
            reply = requests.get(sim.url + path, timeout=20, **options)
            if reply.status_code == 429:
                assert reply.headers["x-rate-limit-reset-at-utc"].endswith("Z")
                assert "error" in reply.json()
            return reply.status_code

        assert status(headers=headers) == 200
        sim.advance(30)
        assert status(headers={"x-api-key": "wrong"}) == 401
        assert status("/v2/requests/x", headers=headers) == 404
        assert status(headers=headers) == 200
        assert status(headers=headers) == 429
        assert status("/outputs/x.mp4") == 404
        sim.advance(31)
        assert status(headers=headers) == 200
        assert status(headers=headers) == 429


def test_a_thousand_jobs_in_flight(clips: Any) -> None:
    with Simulator(latency=600, credits="5000", clip_seconds=0.25, work_dir=clips) as sim:
        with requests.Session() as session:
            session.headers["x-api-key"] = "SG_simulator"
            for _ in range(1000):
                session.post(f"{sim.url}/v2/luma-ray-img-2-video", json={"prompt": "a"}, timeout=20)
        assert sim.charges == 0
        sim.advance(600)
        assert sim.charges == 1000
        assert sim.balance == 5000 - 1000 * Decimal("1.6")
