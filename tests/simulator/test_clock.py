"""The vendor's clock, which may differ from the worker's."""

from __future__ import annotations

import time
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from airflow_provider_luma.simulator import Simulator

CREDITS = "/v1/get-user-credits"
HISTORY = "/inference-request/request-history"


def date(reply: requests.Response, header: str = "Date") -> float:
    return parsedate_to_datetime(reply.headers[header]).timestamp()


@pytest.mark.parametrize("offset", [0, 7200, -90 * 86400])
def test_everything_uses_one_clock(clips: Path, connect: Any, offset: float) -> None:
    with Simulator(
        latency=60, clock_offset=offset, requests_per_minute=4, clip_seconds=0.25, work_dir=clips
    ) as sim:
        api = connect(sim)
        assert sim.now() == pytest.approx(time.time() + offset, abs=2)
        assert date(api.get(CREDITS)) == pytest.approx(sim.now(), abs=2)

        api.job()
        accepted = sim.now()
        sim.advance(1000)
        assert sim.now() == pytest.approx(time.time() + offset + 1000, abs=5)
        listed = api.get(HISTORY)
        assert date(listed) == pytest.approx(sim.now(), abs=2)
        (row,) = listed.json()["data"]
        assert datetime.fromisoformat(row["model_created"]).timestamp() == pytest.approx(accepted, abs=2)
        assert sim.jobs[0].created == pytest.approx(accepted, abs=2)
        video = api.download(row["generation_url"])
        assert date(video) == pytest.approx(sim.now(), abs=2)
        assert date(video, "Last-Modified") == pytest.approx(accepted + 60, abs=2)

        sim.advance(61)
        limited = [api.get(CREDITS) for _ in range(5)][-1]
        assert limited.status_code == 429
        reset = datetime.fromisoformat(limited.headers["x-rate-limit-reset-at-utc"]).timestamp()
        assert reset == pytest.approx(sim.now() + 60, abs=2)


def test_every_reply_has_the_date(clips: Path, connect: Any) -> None:
    with Simulator(latency=0, clock_offset=7200, clip_seconds=0.25, work_dir=clips) as sim:
        api = connect(sim)
        for kind in ("status", "html", "gateway", "slow", "redirect", "empty"):
            sim.fault("credits", kind, seconds=0)
        replies = [api.get(CREDITS) for _ in range(7)]
        replies += [api.get("/nowhere"), api.call("PUT", CREDITS), api.get("/v2/requests/x")]
        replies.append(requests.get(f"{sim.url}/simulator/state", timeout=20))
        assert [reply.status_code for reply in replies] == [
            *(500, 200, 502, 200, 302, 200, 200),
            *(404, 405, 404, 200),
        ]
        for reply in replies:
            assert date(reply) == pytest.approx(sim.now(), abs=2)


def test_days_of_the_history_are_the_vendor_s(clips: Path, connect: Any) -> None:
    with Simulator(latency=60, clock_offset=-100 * 86400, clip_seconds=0.25, work_dir=clips) as sim:
        api = connect(sim)
        request_id = api.job()
        assert [row["request_id"] for row in api.get(HISTORY).json()["data"]] == [request_id]
        today = datetime.now().date().isoformat()
        here = api.get(HISTORY, params={"from_date": today, "to_date": today})
        assert here.json()["data"] == []
