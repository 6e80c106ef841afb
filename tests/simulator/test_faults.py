"""Each kind of fault, as a raw client sees it."""

from __future__ import annotations

import time
from typing import Any

import pytest
import requests
from urllib3.exceptions import ProtocolError

from airflow_provider_luma.simulator import Simulator
from airflow_provider_luma.simulator.faults import Fault
from airflow_provider_luma.simulator.kinds import CALLS

CREDITS = "/v1/get-user-credits"
Broken = (requests.ConnectionError, requests.exceptions.ChunkedEncodingError)


@pytest.fixture
def output(sim: Simulator, api: Any) -> str:
    """Return the URL of a finished video."""
    request_id = api.job()
    sim.advance(60)
    return str(api.result(request_id)["output"])


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 406, 410, 422, 429, 500, 502, 504])
def test_status(sim: Simulator, api: Any, status: int) -> None:
    sim.fault("submit", "status", status=status)
    reply = api.submit()

    assert reply.status_code == status
    assert list(reply.json()) == ["error"]
    assert sim.jobs == []
    assert api.submit().status_code == 200


def test_status_405_is_a_page(sim: Simulator, api: Any) -> None:
    sim.fault("submit", "status", status=405)
    assert api.submit().headers["Content-Type"].startswith("text/html")


def test_a_429_may_have_a_reset_time(sim: Simulator, api: Any) -> None:
    sim.fault("credits", "status", status=429)
    assert "x-rate-limit-reset-at-utc" not in api.get(CREDITS).headers
    sim.fault("credits", "status", status=429, seconds=30)
    assert "x-rate-limit-reset-at-utc" in api.get(CREDITS).headers


@pytest.mark.parametrize(
    ("kind", "status", "content_type", "body"),
    [
        ("html", 200, "text/html", b"502 Bad Gateway"),
        ("broken_json", 200, "application/json", b"{"),
        ("empty", 200, "application/json", b""),
        ("wrong_shape", 200, "application/json", b"[]"),
        ("redirect", 302, "", b""),
        ("error_object", 200, "application/json", b'{"error"'),
        ("not_video", 200, "text/plain", b"not a video"),
    ],
)
@pytest.mark.parametrize("accepted", [None, True, False])
def test_replaced_replies(
    sim: Simulator, api: Any, kind: str, status: int, content_type: str, body: bytes, accepted: bool | None
) -> None:
    sim.fault("submit", kind, accepted=accepted)
    reply = api.submit()

    assert reply.status_code == sim.requests[-1].status == status
    assert reply.headers.get("Content-Type", "").startswith(content_type)
    assert body in reply.content
    carried_out = accepted if accepted is not None else kind not in ("redirect", "error_object", "not_video")
    assert len(sim.jobs) == carried_out
    sim.advance(60)
    assert sim.charges == carried_out


def test_html_with_a_status(sim: Simulator, api: Any) -> None:
    sim.fault("status", "html", status=502)
    assert api.get("/v2/requests/x/status").status_code == 502


def test_a_redirect_goes_to_the_given_location(sim: Simulator, api: Any) -> None:
    sim.fault("credits", "redirect", location="http://127.0.0.1:1/elsewhere")
    assert api.get(CREDITS).headers["Location"] == "http://127.0.0.1:1/elsewhere"


def test_following_a_redirect_with_the_key_is_a_leak(sim: Simulator, api: Any) -> None:
    sim.fault("credits", "redirect")
    api.get(CREDITS, allow_redirects=True)
    assert len(sim.leaks) == 1


@pytest.mark.parametrize("accepted", [True, False])
def test_reset(sim: Simulator, api: Any, accepted: bool) -> None:
    sim.fault("submit", "reset", accepted=accepted)
    with pytest.raises(requests.ConnectionError, match="reset by peer"):
        api.submit()

    assert len(sim.jobs) == accepted
    assert sim.requests[-1].status is None


def test_a_v1_call_cut_off_while_the_job_goes_on(sim: Simulator, api: Any) -> None:
    sim.fault("v1", "reset", seconds=0.05)
    with pytest.raises(requests.ConnectionError):
        api.call("POST", "/v1/luma-ray-img-2-video", json={"prompt": "a"})

    sim.advance(60)
    assert sim.charges == 1


@pytest.mark.parametrize("accepted", [True, False])
def test_timeout(sim: Simulator, api: Any, accepted: bool) -> None:
    sim.fault("submit", "timeout", accepted=accepted)
    with pytest.raises(requests.ReadTimeout):
        api.call("POST", "/v2/luma-ray-img-2-video", json={"prompt": "a"}, timeout=0.5)

    assert len(sim.jobs) == accepted


def test_timeout_ends_by_itself_without_a_reply(sim: Simulator, api: Any) -> None:
    sim.fault("credits", "timeout", seconds=0.05)
    with pytest.raises(requests.ConnectionError, match="closed connection without response"):
        api.get(CREDITS)


def test_slow(sim: Simulator, api: Any, output: str) -> None:
    whole = api.download(output).content
    sim.fault("download", "slow", seconds=0.3)
    started = time.monotonic()
    with api.download(output, stream=True) as reply:
        first_byte = reply.raw.read(1)
        began = time.monotonic() - started
        assert first_byte + reply.raw.read() == whole
    ended = time.monotonic() - started
    assert ended >= 0.25
    assert ended - began >= 0.1

    sim.fault("credits", "slow", seconds=0.1)
    assert api.get(CREDITS).json()["credits"] == 18.4


def test_truncated_download_can_be_resumed(sim: Simulator, api: Any, output: str) -> None:
    true = api.download(output)
    sim.fault("download", "truncated", times=2)
    with api.download(output, stream=True) as reply:
        assert reply.headers["Content-Length"] == str(len(true.content))
        assert reply.headers["ETag"] == true.headers["ETag"]
        first = reply.raw.read(len(true.content) // 2)
        with pytest.raises(ProtocolError):
            reply.raw.read()

    rest = {"Range": f"bytes={len(first)}-", "If-Range": true.headers["ETag"]}
    with api.download(output, headers=rest, stream=True) as reply:
        assert reply.status_code == 206
        assert reply.headers["Content-Range"].startswith(f"bytes {len(first)}-")
        with pytest.raises(Broken):
            assert reply.content
    reply = api.download(output, headers=rest)
    assert reply.status_code == 206
    assert first + reply.content == true.content


def test_truncated_json_is_carried_out(sim: Simulator, api: Any) -> None:
    sim.fault("submit", "truncated")
    with pytest.raises(Broken):
        api.submit()
    assert len(sim.jobs) == 1


def test_wrong_content_type(sim: Simulator, api: Any, output: str) -> None:
    sim.fault("download", "wrong_content_type")
    reply = api.download(output)
    assert reply.headers["Content-Type"] == "text/plain"
    assert reply.content[4:8] == b"ftyp"
    sim.fault("credits", "wrong_content_type")
    reply = api.get(CREDITS)
    assert reply.headers["Content-Type"] == "text/plain"
    assert reply.json()["credits"] == 18.4


def test_times_and_order(sim: Simulator, api: Any) -> None:
    sim.fault("credits", "status", status=500, times=2)
    sim.fault("credits", "status", status=429)
    assert [api.get(CREDITS).status_code for _ in range(4)] == [500, 500, 429, 200]


def test_every_call_can_fail(sim: Simulator, api: Any, output: str) -> None:
    paths = {
        "submit": ("POST", "/v2/luma-ray-img-2-video"),
        "v1": ("POST", "/v1/luma-ray-img-2-video"),
        "status": ("GET", "/v2/requests/x/status"),
        "result": ("GET", "/v2/requests/x"),
        "download": ("GET", output.removeprefix(sim.url)),
        "credits": ("GET", CREDITS),
        "upload": ("POST", "/upload-asset"),
        "history": ("GET", "/inference-request/request-history"),
        "history_one": ("GET", "/inference-request/request-history/x"),
    }
    assert set(paths) == set(CALLS)
    for call, (method, path) in paths.items():
        sim.fault(call, "status", status=504)
        assert api.call(method, path).status_code == 504, call


def test_clear_faults(sim: Simulator, api: Any) -> None:
    sim.fault("credits", "reset", times=99)
    sim.clear_faults()
    assert api.get(CREDITS).status_code == 200


def test_faults_over_http(sim: Simulator) -> None:
    control = f"{sim.url}/simulator/faults"
    answer = requests.post(control, data='{"call": "credits", "kind": "status", "status": 503}', timeout=20)
    assert answer.json()["faults"][0]["kind"] == "status"
    headers = {"x-api-key": "SG_simulator"}
    assert requests.get(sim.url + CREDITS, headers=headers, timeout=20).status_code == 503
    assert requests.post(control, data='{"call": "credits", "kind": "reset"}', timeout=20).status_code == 200
    assert requests.delete(control, timeout=20).json() == {"faults": []}
    for wrong in ("", "[]", '{"call": "credits"}', '{"call": "x", "kind": "reset"}', '{"kin": 1}'):
        assert requests.post(control, data=wrong, timeout=20).status_code == 400, wrong


def test_state_over_http(sim: Simulator, api: Any, output: str) -> None:
    sim.fault("credits", "reset")
    state = requests.get(f"{sim.url}/simulator/state", timeout=20).json()

    assert (state["charges"], state["spent"], state["balance"], state["leaks"]) == (1, "1.6", "18.4", 0)
    assert state["jobs"][0]["request_id"] == sim.jobs[0].request_id
    assert state["jobs"][0]["state"] == "COMPLETED"
    assert state["calls"]["submit"] == 1
    assert state["faults"][0]["call"] == "credits"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("submit:reset", Fault("submit", "reset", accepted=True)),
        ("status:503:3", Fault("status", "status", accepted=False, status=503, times=3)),
    ],
)
def test_faults_as_text(text: str, fault: Fault) -> None:
    assert Fault.from_text(text) == fault


@pytest.mark.parametrize(
    "text", ["", "submit", "nothing:reset", "submit:nothing", "submit:reset:x", "v1:500:0"]
)
def test_faults_as_wrong_text(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be|invalid literal"):
        Fault.from_text(text)
