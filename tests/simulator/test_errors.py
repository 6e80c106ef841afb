"""Refusals and errors: a gateway's replies, reset times in the past, an echoed key, reply ids."""

from __future__ import annotations

import html
import http.client
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any
from urllib.parse import unquote

import pytest

from airflow_provider_luma.simulator import Simulator
from tests.simulator.conftest import send_v1

CREDITS = "/v1/get-user-credits"
LUMA = "luma-ray-img-2-video"
RESET = "x-rate-limit-reset-at-utc"


@pytest.mark.parametrize(
    ("status", "told"), [(None, 502), (502, 502), (503, 503), (504, 504), (429, 429), (404, 404)]
)
@pytest.mark.parametrize("accepted", [None, True, False])
def test_a_gateway_has_its_own_messages_and_ids(
    sim: Simulator, api: Any, status: int | None, told: int, accepted: bool | None
) -> None:
    sim.fault("submit", "gateway", status=status, accepted=accepted, times=2)
    replies = [api.submit(), api.submit()]

    for reply in replies:
        assert reply.status_code == told
        assert reply.json() == {"status": "FAILED", "message": "upstream error"}
        assert RESET not in reply.headers
    ids = {reply.headers["x-request-id"] for reply in replies}
    assert len(ids) == 2
    assert {str(uuid.UUID(id_)) for id_ in ids} == ids
    assert not ids & {job.request_id for job in sim.jobs}
    assert len(sim.jobs) == 2 * (told >= 500 if accepted is None else accepted)


def test_a_gateway_before_a_running_job(sim: Simulator, api: Any) -> None:
    request_id = api.job()
    sim.fault("status", "gateway", status=404)
    assert api.get(f"/v2/requests/{request_id}/status").status_code == 404
    sim.advance(60)
    assert api.status(request_id)["status"] == "COMPLETED"


def test_a_gateway_does_not_wait_for_a_v1_job(sim: Simulator, api: Any) -> None:
    sim.fault("v1", "gateway", status=504, seconds=0.05)
    reply = api.call("POST", f"/v1/{LUMA}", json={"prompt": "a"})

    assert (reply.status_code, sim.jobs[0].state) == (504, "QUEUED")
    assert reply.headers["x-request-id"] != sim.jobs[0].request_id
    sim.advance(60)
    assert sim.charges == 1


def test_messages_can_be_set(sim: Simulator, api: Any) -> None:
    sim.fault("submit", 406, message="Team spend limit reached")
    assert api.submit().json() == {"error": "Team spend limit reached"}
    sim.fault("submit", "gateway", message="no healthy upstream", accepted=False)
    assert api.submit().json()["message"] == "no healthy upstream"
    sim.fault("submit", "error_object", message="later")
    assert api.submit().json() == {"error": "later"}


@pytest.mark.parametrize("kind", ["status", "gateway"])
@pytest.mark.parametrize("seconds", [30, 0, -3600])
def test_the_reset_of_a_429_may_be_in_the_past(sim: Simulator, api: Any, kind: str, seconds: float) -> None:
    sim.advance(86400)
    sim.fault("credits", kind, status=429, seconds=seconds)
    reply = api.get(CREDITS)

    assert reply.status_code == 429
    told = datetime.fromisoformat(reply.headers[RESET]).timestamp()
    assert told == pytest.approx(sim.now() + seconds, abs=2)


def test_a_429_without_a_reset(sim: Simulator, api: Any) -> None:
    sim.fault("credits", 429)
    reply = api.get(CREDITS)
    assert reply.status_code == 429
    assert RESET not in reply.headers


@pytest.mark.parametrize(
    ("style", "written", "unescape"),
    [
        (None, "SG_a&b<c>+d'e", lambda text: text),
        ("raw", "SG_a&b<c>+d'e", lambda text: text),
        ("json", r"SG_a\u0026b\u003cc\u003e\u002bd\u0027e", lambda text: text),
        ("html", "SG_a&amp;b&lt;c&gt;+d&#x27;e", html.unescape),
        ("percent", "SG_a%26b%3Cc%3E%2Bd%27e", unquote),
    ],
)
def test_a_refusal_that_echoes_the_key(
    sim: Simulator, api: Any, style: str | None, written: str, unescape: Callable[[str], str]
) -> None:
    key = "SG_a&b<c>+d'e"
    sim.fault("submit", "echo_key", style=style)
    reply = api.call("POST", f"/v2/{LUMA}", json={"prompt": "a"}, headers={"x-api-key": key})

    assert reply.status_code == 401
    assert reply.text == f'{{"error": "Invalid API key: {written}"}}'
    assert unescape(reply.json()["error"]) == f"Invalid API key: {key}"
    assert sim.jobs == []


@pytest.mark.parametrize("style", ["raw", "json", "html"])
def test_an_echoed_key_leaves_json_valid(sim: Simulator, api: Any, style: str) -> None:
    key = 'SG_"\\'
    sim.fault("credits", "echo_key", style=style, status=403)
    reply = api.get(CREDITS, headers={"x-api-key": key})

    assert reply.status_code == 403
    assert html.unescape(reply.json()["error"]) == f"Invalid API key: {key}"


def test_a_truncated_v1_reply_with_another_id(sim: Simulator, api: Any) -> None:
    sim.fault("v1", "truncated", request_id="another")
    with send_v1(sim) as connection:
        sim.advance(60)
        reply = http.client.HTTPResponse(connection)
        reply.begin()
        with pytest.raises(http.client.IncompleteRead):
            reply.read()

    assert reply.headers["x-request-id"] == "another" != sim.jobs[0].request_id
    assert reply.headers["x-cost"] == "1.6"
    assert sim.charges == 1


def test_the_id_of_any_reply_can_be_set(sim: Simulator, api: Any) -> None:
    sim.fault("v1", "slow", seconds=0, request_id="another")
    whole = api.v1()
    assert (whole.headers["x-request-id"], whole.content[4:8]) == ("another", b"ftyp")
    sim.fault("v1", "slow", seconds=0, request_id="")
    assert "x-request-id" not in api.v1().headers
    sim.fault("credits", "gateway", request_id="another")
    assert api.get(CREDITS).headers["x-request-id"] == "another"
    sim.fault("credits", 500, request_id="another")
    assert api.get(CREDITS).headers["x-request-id"] == "another"
