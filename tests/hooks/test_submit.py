"""The paid call on v2: made once, whatever the reply; and what is then known of the money."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_provider_luma.exceptions import (
    LumaRayAuthenticationError,
    LumaRayConfigurationError,
    LumaRayError,
    LumaRayInsufficientCredits,
    LumaRayModelUnavailable,
    LumaRayRateLimited,
    LumaRayRefused,
    LumaRaySubmitUnknown,
    LumaRayUnavailable,
)
from airflow_provider_luma.hooks import luma_ray, transport
from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.segmind.request import GenerationRequest
from airflow_provider_luma.simulator import Simulator
from tests.hooks.peer import HANG_UP, RESET, Peer, chunked, http, to_json
from tests.support import set_connection

HookAt = Callable[..., tuple[LumaRayHook, Peer]]


@pytest.fixture(params=["v2", "v1"])
def buy(request: pytest.FixtureRequest, tmp_path: Any) -> Callable[[LumaRayHook, GenerationRequest], object]:
    """Both paid calls: what these tests say about money holds for either."""
    if request.param == "v2":
        return lambda hook, wanted: hook.submit(wanted)
    return lambda hook, wanted: hook.generate(wanted, tmp_path / "video.mp4")


Buy = Callable[[LumaRayHook, GenerationRequest], object]


def call_of(buy: Buy, request: pytest.FixtureRequest) -> str:
    return "submit" if request.node.callspec.params["buy"] == "v2" else "v1"


def test_a_submit_returns_the_id_of_the_job_it_bought(
    simulator: Simulator, hook: LumaRayHook, request_: GenerationRequest
) -> None:
    request_id = hook.submit(request_)
    (job,) = simulator.jobs
    assert (job.request_id, job.api, job.slug) == (request_id, "v2", request_.model)
    assert job.body == request_.body()


def test_each_submit_is_a_separate_purchase(
    simulator: Simulator, hook: LumaRayHook, request_: GenerationRequest
) -> None:
    assert hook.submit(request_) != hook.submit(request_)
    assert len(simulator.jobs) == 2


def test_the_request_on_the_wire(hook_at: HookAt, request_: GenerationRequest) -> None:
    hook, host = hook_at(to_json({"request_id": "r1"}))
    hook.submit(replace(request_, prompt="caf\u00e9 \u2603", extra_parameters={"seed": 7}))
    (seen,) = host.seen
    assert (seen.method, seen.target) == ("POST", "/v2/luma-ray-img-2-video")
    assert seen.headers["content-type"] == "application/json"
    assert seen.headers["x-api-key"] == "SG_0123456789abcdef"
    assert seen.headers["user-agent"].startswith("airflow-provider-luma/")
    assert "authorization" not in seen.headers
    assert "transfer-encoding" not in seen.headers
    assert int(seen.headers["content-length"]) == len(seen.body)
    assert seen.json() == replace(request_, prompt="caf\u00e9 \u2603", extra_parameters={"seed": 7}).body()


@pytest.mark.parametrize("slug", ["../v1/x", "a/b?c=d#e", "caf\u00e9"])
def test_a_model_name_cannot_change_the_host_or_path(
    hook_at: HookAt, request_: GenerationRequest, slug: str
) -> None:
    hook, host = hook_at(to_json({"request_id": "r1"}))
    hook.submit(replace(request_, model=slug))
    assert host.seen[0].target.startswith("/v2/")
    assert host.seen[0].target.count("/") == 2
    assert not set("?#") & set(host.seen[0].target)


@pytest.mark.parametrize("accepted", [True, False], ids=["bought", "not bought"])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("status", {"status": 500}),
        ("status", {"status": 408}),
        ("html", {"status": 502}),
        ("html", {"status": 504}),
        ("reset", {}),
        ("timeout", {}),
    ],
)
def test_a_lost_answer_is_unknown_and_not_retried(
    simulator: Simulator,
    monkeypatch: pytest.MonkeyPatch,
    request_: GenerationRequest,
    buy: Buy,
    request: pytest.FixtureRequest,
    kind: str,
    options: dict[str, Any],
    accepted: bool,
) -> None:
    call = call_of(buy, request)
    if kind == "timeout":
        set_connection(monkeypatch, simulator.url, timeout=0.3)
        monkeypatch.setattr(luma_ray, "_GENERATE_TIMEOUT", 0.3)
    else:
        set_connection(monkeypatch, simulator.url)
    simulator.fault(call, kind, accepted=accepted, times=9, **options)
    with pytest.raises(LumaRaySubmitUnknown):
        buy(LumaRayHook(), request_)
    assert simulator.calls == {call: 1}
    assert [entry.method for entry in simulator.requests] == ["POST"]
    assert len(simulator.jobs) == accepted


@pytest.mark.parametrize("kind", ["truncated", "broken_json", "empty", "wrong_shape", "html"])
def test_an_unreadable_answer_is_unknown_and_not_retried(
    simulator: Simulator, hook: LumaRayHook, request_: GenerationRequest, kind: str
) -> None:
    simulator.fault("submit", kind, times=9)
    with pytest.raises(LumaRaySubmitUnknown):
        hook.submit(request_)
    assert simulator.calls == {"submit": 1}
    assert len(simulator.jobs) == 1


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(HANG_UP, id="hanging up"),
        pytest.param(RESET, id="reset"),
        pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n", id="another protocol"),
        pytest.param(b"HTTP/1.1 abc\r\n\r\n", id="no status"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n{}", id="two lengths"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 200 + b"\r\n{}", id="200 headers"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000, id="an endless header"),
        pytest.param(http(200, b"zzz\r\n", length=None, Transfer_Encoding="chunked"), id="broken chunks"),
        pytest.param(chunked(b'{"request_id": "r1"}', whole=False), id="chunks that stop"),
        pytest.param(http(200, b"no gzip", Content_Encoding="gzip"), id="broken gzip"),
        pytest.param(http(200, b'{"request_id": "r1"}', length=99), id="fewer bytes than announced"),
        pytest.param(http(500, b"oops", length=99), id="500, and fewer bytes than announced"),
        pytest.param(http(302, Location="/elsewhere"), id="a redirect"),
        pytest.param(http(302, Location="http://[::1/x"), id="a redirect to nowhere"),
        pytest.param(http(307, Location="http://127.0.0.1:8080\\.x/"), id="a redirect to no port"),
        pytest.param(http(308, Location="http://a..b/"), id="a redirect to no name"),
        pytest.param(http(204), id="no content"),
    ],
)
def test_garbage_on_the_line_is_unknown(
    hook_at: HookAt, request_: GenerationRequest, buy: Buy, garbage: bytes
) -> None:
    hook, host = hook_at(garbage)
    with pytest.raises(LumaRaySubmitUnknown):
        buy(hook, request_)
    assert [seen.method for seen in host.seen] == ["POST"]


@pytest.mark.parametrize("port", ["closed", "no name", "no TLS"])
def test_nothing_was_bought_if_no_byte_was_sent(
    monkeypatch: pytest.MonkeyPatch,
    closed_port: int,
    peer: Callable[..., Peer],
    request_: GenerationRequest,
    buy: Buy,
    port: str,
) -> None:
    host = peer(b"220 smtp.example ESMTP\r\n")
    url = {
        "closed": f"http://127.0.0.1:{closed_port}",
        "no name": "http://nowhere.invalid",
        "no TLS": f"https://127.0.0.1:{host.port}",
    }[port]
    set_connection(monkeypatch, url, timeout=2)
    with pytest.raises(LumaRayUnavailable, match="bought nothing") as caught:
        buy(LumaRayHook(), request_)
    assert vars(caught.value)["status_code"] is None
    assert len(host.seen) == (4 if port == "no TLS" else 0)
    assert {seen.method for seen in host.seen} <= {"a TLS greeting"}


def test_the_call_is_retried_while_no_byte_was_sent(
    monkeypatch: pytest.MonkeyPatch,
    closed_socket: socket.socket,
    closed_port: int,
    peer: Callable[..., Peer],
    request_: GenerationRequest,
    buy: Buy,
    mp4: bytes,
) -> None:
    hosts: list[Peer] = []

    def open_the_port(attempt: int) -> float:
        hosts.append(
            peer(
                lambda seen: to_json({"request_id": "r1"}) if "/v2/" in seen else http(200, mp4),
                bound=closed_socket,
            )
        )
        return 0.001

    monkeypatch.setattr(transport, "backoff", open_the_port)
    set_connection(monkeypatch, f"http://127.0.0.1:{closed_port}", timeout=5)
    buy(LumaRayHook(), request_)
    (host,) = hosts
    (seen,) = host.seen
    assert seen.json() == request_.body()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, LumaRayRefused),
        (401, LumaRayAuthenticationError),
        (402, LumaRayInsufficientCredits),
        (403, LumaRayAuthenticationError),
        (404, LumaRayModelUnavailable),
        (405, LumaRayRefused),
        (406, LumaRayInsufficientCredits),
        (410, LumaRayModelUnavailable),
        (422, LumaRayRefused),
    ],
)
def test_a_refusal_has_its_class_and_costs_nothing(
    simulator: Simulator,
    hook: LumaRayHook,
    request_: GenerationRequest,
    buy: Buy,
    request: pytest.FixtureRequest,
    status: int,
    kind: type[LumaRayError],
) -> None:
    call = call_of(buy, request)
    simulator.fault(call, "status", status=status, times=9)
    with pytest.raises(LumaRayRefused) as caught:
        buy(hook, request_)
    assert type(caught.value) is kind
    assert caught.value.status_code == status
    assert simulator.calls == {call: 1}
    assert (simulator.charges, simulator.jobs) == (0, [])


def test_a_rate_limit_has_a_reset_time_and_costs_nothing(
    simulator: Simulator,
    hook: LumaRayHook,
    request_: GenerationRequest,
    buy: Buy,
    request: pytest.FixtureRequest,
) -> None:
    simulator.fault(call_of(buy, request), "status", status=429, seconds=30, times=9)
    with pytest.raises(LumaRayRateLimited) as caught:
        buy(hook, request_)
    assert caught.value.status_code == 429
    assert caught.value.reset_at is not None
    assert 0 < (caught.value.reset_at - datetime.now(UTC)).total_seconds() <= 31
    assert simulator.calls == {call_of(buy, request): 1}
    assert simulator.jobs == []


def test_the_vendors_own_refusals(
    simulator: Simulator, hook: LumaRayHook, request_: GenerationRequest, buy: Buy
) -> None:
    for change, kind in (
        ({"model": "luma-ray-9"}, LumaRayModelUnavailable),
        ({"resolution": "8k"}, LumaRayRefused),
        ({"concepts": ("barrel_roll",)}, LumaRayRefused),
        ({"extra_parameters": {"end": 1}, "prompt": " "}, LumaRayRefused),
    ):
        with pytest.raises(kind):
            buy(hook, replace(request_, **change))
    simulator.retire(request_.model)
    with pytest.raises(LumaRayModelUnavailable, match="luma-ray-3-2"):
        buy(hook, request_)
    simulator.set_credits("1.59")
    with pytest.raises(LumaRayModelUnavailable):
        buy(hook, request_)
    assert (simulator.charges, simulator.jobs) == (0, [])


def test_insufficient_credits_are_reported(
    simulator: Simulator, hook: LumaRayHook, request_: GenerationRequest, buy: Buy
) -> None:
    simulator.set_credits("1.59")
    with pytest.raises(LumaRayInsufficientCredits, match="Top up") as caught:
        buy(hook, request_)
    assert caught.value.status_code in (402, 406)
    assert (simulator.charges, simulator.jobs) == (0, [])


def test_a_model_that_v2_does_not_have_is_refused_there(
    simulator: Simulator, hook: LumaRayHook, request_: GenerationRequest
) -> None:
    for status in (404, 405):
        simulator.v1_only(request_.model, status)
        with pytest.raises(LumaRayRefused) as caught:
            hook.submit(request_)
        assert caught.value.status_code == status


def test_a_refusal_whose_text_breaks_off_is_still_a_refusal(
    hook_at: HookAt, request_: GenerationRequest, buy: Buy
) -> None:
    hook, _ = hook_at(http(402, b'{"error": "Insuff', length=99))
    with pytest.raises(LumaRayInsufficientCredits):
        buy(hook, request_)


def test_conflicting_parameters_are_refused_before_the_call(
    simulator: Simulator, hook: LumaRayHook, request_: GenerationRequest, buy: Buy
) -> None:
    with pytest.raises(LumaRayConfigurationError, match="extra_parameters"):
        buy(hook, replace(request_, extra_parameters={"prompt": "other"}))
    assert simulator.calls == {}


def test_values_that_are_not_json_are_not_sent(
    simulator: Simulator, hook: LumaRayHook, request_: GenerationRequest, buy: Buy
) -> None:
    for wrong in (datetime(2026, 11, 22, tzinfo=UTC), b"bytes", {1, 2}):
        with pytest.raises((TypeError, LumaRayConfigurationError)):
            buy(hook, replace(request_, extra_parameters={"x": wrong}))
    assert simulator.calls == {}


def test_a_large_frame_is_sent_completely(hook_at: HookAt, request_: GenerationRequest) -> None:
    hook, host = hook_at(to_json({"request_id": "r1"}))
    frame = "A" * 30_000_000
    hook.submit(replace(request_, start_frame=frame))
    assert json.loads(host.seen[0].body)["start_frame"] == frame
