"""The free calls about the account: the balance and the connection test."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from threading import Event

import pytest
from airflow.sdk.execution_time.comms import XComResult
from airflow.sdk.execution_time.xcom import XCom

from airflow_provider_luma.exceptions import (
    LumaRayAuthenticationError,
    LumaRayRateLimited,
    LumaRayUnavailable,
)
from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.segmind.replies import Credits
from airflow_provider_luma.simulator import Simulator
from tests.hooks.peer import HANG_UP, RESET, Peer, chunked, http, to_json
from tests.support import set_connection

HookAt = Callable[..., tuple[LumaRayHook, Peer]]


@pytest.mark.parametrize(
    ("paid", "free"), [("20", "0"), ("12.34", "0.0184921035"), ("0", "0"), ("-0.5", "1.25")]
)
def test_the_balance_is_exact(simulator: Simulator, hook: LumaRayHook, paid: str, free: str) -> None:
    simulator.set_credits(paid, free)
    assert hook.get_credits() == Credits(paid=Decimal(paid), free=Decimal(free))
    assert hook.get_credits().total == Decimal(paid) + Decimal(free)
    assert simulator.charges == 0


def test_the_connection_test_shows_the_balance_and_buys_nothing(
    simulator: Simulator, hook: LumaRayHook
) -> None:
    simulator.set_credits("12.34", "0.5")
    works, message = hook.test_connection()
    assert works
    assert "12.84 USD" in message
    assert "0.50 USD of it free" in message
    assert simulator.calls == {"credits": 1}
    assert simulator.charges == 0


def test_the_connection_test_reports_a_wrong_key(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_connection(monkeypatch, simulator.url, password="SG_ffffffffffffffff")
    works, message = LumaRayHook().test_connection()
    assert not works
    assert "Invalid API key" in message
    assert "401" in message
    assert "SG_ffff" not in message
    assert simulator.calls == {"credits": 1}, "a wrong key is not tried again"


def test_the_connection_test_reports_an_outage(hook: LumaRayHook, simulator: Simulator) -> None:
    simulator.fault("credits", "html", status=502, times=9)
    works, message = hook.test_connection()
    assert not works
    assert "502" in message
    assert simulator.calls == {"credits": 4}


def test_the_connection_test_reports_an_unreachable_host(
    monkeypatch: pytest.MonkeyPatch, closed_port: int
) -> None:
    set_connection(monkeypatch, f"http://127.0.0.1:{closed_port}")
    works, message = LumaRayHook().test_connection()
    assert not works
    assert "No answer from 127.0.0.1 after 4 tries" in message


def test_the_connection_test_reports_a_missing_certificate_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    set_connection(monkeypatch, "https://127.0.0.1:1")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
    works, message = LumaRayHook().test_connection()
    assert not works
    assert "/nowhere/ca.pem" in message


@pytest.mark.parametrize(
    ("kind", "status"), [("status", 500), ("status", 503), ("status", 429), ("html", 502)]
)
def test_a_free_call_survives_two_bad_replies(
    simulator: Simulator, hook: LumaRayHook, kind: str, status: int
) -> None:
    simulator.fault("credits", kind, status=status, times=2, seconds=0)
    assert hook.get_credits().paid == 20
    assert simulator.calls == {"credits": 3}


@pytest.mark.parametrize("kind", ["reset", "truncated"])
def test_a_free_call_survives_a_broken_connection(simulator: Simulator, hook: LumaRayHook, kind: str) -> None:
    simulator.fault("credits", kind, times=3)
    assert hook.get_credits().paid == 20
    assert simulator.calls == {"credits": 4}


@pytest.mark.parametrize("kind", ["reset", "truncated"])
def test_a_free_call_is_given_up_after_four_tries(simulator: Simulator, hook: LumaRayHook, kind: str) -> None:
    simulator.fault("credits", kind, times=9)
    with pytest.raises(LumaRayUnavailable, match="after 4 tries"):
        hook.get_credits()
    assert simulator.calls == {"credits": 4}


def test_a_free_call_that_hangs_is_given_up(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    set_connection(monkeypatch, simulator.url, timeout=0.1)
    simulator.fault("credits", "timeout", times=9)
    with pytest.raises(LumaRayUnavailable, match="after 4 tries"):
        LumaRayHook().get_credits()
    assert simulator.calls == {"credits": 4}


@pytest.mark.parametrize("status", [400, 404, 405, 406, 410, 422])
def test_a_refusal_is_not_retried_by_the_hook(simulator: Simulator, hook: LumaRayHook, status: int) -> None:
    simulator.fault("credits", "status", status=status, times=9)
    with pytest.raises(LumaRayUnavailable) as caught:
        hook.get_credits()
    assert caught.value.status_code == status
    assert simulator.calls == {"credits": 1}


def test_a_lasting_rate_limit_is_raised_with_its_reset(simulator: Simulator, hook: LumaRayHook) -> None:
    simulator.fault("credits", "status", status=429, times=9, seconds=0)
    with pytest.raises(LumaRayRateLimited) as caught:
        hook.get_credits()
    assert caught.value.reset_at is not None
    assert abs((caught.value.reset_at - datetime.now(UTC)).total_seconds()) < 60
    assert simulator.calls == {"credits": 4}


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n", id="another protocol"),
        pytest.param(b"\x16\x03\x01\x02\x00" * 40, id="a TLS greeting"),
        pytest.param(b"HTTP/1.1 abc\r\n\r\n", id="no status"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n{}", id="two lengths"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 200 + b"\r\n{}", id="200 headers"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n{}", id="an endless header"),
        pytest.param(http(200, b"zzz\r\n", length=None, Transfer_Encoding="chunked"), id="broken chunks"),
        pytest.param(chunked(b'{"credits": 5}', whole=False), id="chunks that stop"),
        pytest.param(http(200, b"no gzip", Content_Encoding="gzip"), id="broken gzip"),
        pytest.param(http(200, b'{"credits": 5}', length=99), id="fewer bytes than announced"),
        pytest.param(HANG_UP, id="hanging up"),
        pytest.param(RESET, id="reset"),
    ],
)
def test_garbage_on_the_line_is_an_outage(hook_at: HookAt, garbage: bytes) -> None:
    hook, host = hook_at(garbage)
    with pytest.raises(LumaRayUnavailable) as caught:
        hook.get_credits()
    assert str(caught.value).count("bought nothing") == 1
    assert len(host.seen) == 4


def test_a_wrong_key_is_reported_at_once(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    set_connection(monkeypatch, simulator.url, password="wrong")
    with pytest.raises(LumaRayAuthenticationError) as caught:
        LumaRayHook().get_credits()
    assert caught.value.status_code == 401


def test_a_reply_that_trickles_in_is_given_up_in_time(hook_at: HookAt) -> None:
    never = Event()

    class Trickle:
        def __iter__(self) -> Iterator[bytes]:
            yield http(200, length=300)
            for _ in range(300):
                never.wait(0.01)
                yield b" "

    hook, _ = hook_at(Trickle(), timeout=0.2)
    began = time.monotonic()
    with pytest.raises(LumaRayUnavailable):
        hook.get_credits()
    assert time.monotonic() - began < 4 * 2, "four tries, each of which would take 3 s to its end"


def test_an_endless_reply_is_cut_off(hook_at: HookAt, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_luma.hooks import transport

    monkeypatch.setattr(transport, "_MAX_REPLY_BYTES", 100_000)
    hook, _ = hook_at(http(200, b" " * 300_000 + b"{}"))
    with pytest.raises(LumaRayUnavailable, match="too long"):
        hook.get_credits()


def test_a_host_with_a_path_is_kept(hook_at: HookAt, monkeypatch: pytest.MonkeyPatch) -> None:
    _, host = hook_at(to_json({"credits": 5}))
    set_connection(monkeypatch, f"{host.url}/segmind/")
    LumaRayHook().get_credits()
    assert host.seen[0].target == "/segmind/v1/get-user-credits"


def test_making_a_hook_reads_no_connection() -> None:
    assert LumaRayHook("nowhere").luma_ray_conn_id == "nowhere"


def test_the_balance_survives_xcom(simulator: Simulator, hook: LumaRayHook) -> None:
    simulator.set_credits("12.34", "0.5")
    pushed = XCom.serialize_value(hook.get_credits())
    assert XCom.deserialize_value(XComResult(key="return_value", value=pushed)) == {
        "paid": 12.34,
        "free": 0.5,
        "total": 12.84,
    }
