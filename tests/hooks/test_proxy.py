"""A company's network: every call and every download goes through its proxy, which never sees the key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from aiohttp import web

from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.simulator import Simulator
from tests.hooks.proxy import ForwardProxy, make_certificate
from tests.support import API_KEY, make_operator, recorded, set_connection, task_context

HOST = "segmind.test"


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clips: Path) -> Iterator[Simulator]:
    """A simulator that speaks TLS, and its certificate in the environment."""
    bundle, context = make_certificate(HOST, tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    monkeypatch.setattr(web, "TCPSite", partial(web.TCPSite, ssl_context=context))
    with Simulator(latency=0.02, clip_seconds=0.2, api_key=API_KEY, work_dir=clips) as running:
        yield running


@pytest.fixture
def start_proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Simulator], ForwardProxy]]:
    """Start a proxy to a simulator, whose name nobody else resolves, in an environment that names no other."""
    for variable in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)
    with ExitStack() as stack:
        yield lambda simulator: stack.enter_context(ForwardProxy(port_of(simulator)))


def port_of(simulator: Simulator) -> int:
    return int(simulator.url.rpartition(":")[2])


@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY", "ALL_PROXY"])
@pytest.mark.parametrize("user", ["", "proxy-user:proxy-password@"])
def test_a_clip_is_bought_and_fetched_through_a_proxy(
    vendor: Simulator,
    start_proxy: Callable[[Simulator], ForwardProxy],
    monkeypatch: pytest.MonkeyPatch,
    frame: Path,
    clip: Path,
    variable: str,
    user: str,
) -> None:
    proxy = start_proxy(vendor)
    set_connection(monkeypatch, f"https://{HOST}", timeout=5)
    assert not LumaRayHook().test_connection()[0], "there is no other way"
    monkeypatch.setenv(variable, proxy.url.replace("://", f"://{user}"))

    assert LumaRayHook().test_connection()[0]
    make_operator(frame, clip).execute(task_context())

    assert recorded(clip)["state"] == "delivered"
    calls = {entry.call for entry in vendor.requests}
    assert calls >= {"upload", "submit", "status", "result", "download", "credits"}
    assert vendor.leaks == []
    assert {head.rpartition(" HTTP/1")[0] for head in proxy.heads} == {f"CONNECT {HOST}:443"}
    assert all(("proxy-authorization" in head.lower()) == bool(user) for head in proxy.heads)
    assert not any("Proxy-Authorization" in entry.headers for entry in vendor.requests)
    assert API_KEY.encode() not in proxy.received


@pytest.mark.parametrize("exception", [HOST, ".test", "*"])
def test_a_host_in_no_proxy_is_reached_directly(
    simulator: Simulator,
    start_proxy: Callable[[Simulator], ForwardProxy],
    lookups: dict[str, list[str]],
    monkeypatch: pytest.MonkeyPatch,
    frame: Path,
    clip: Path,
    exception: str,
) -> None:
    proxy = start_proxy(simulator)
    lookups[HOST] = ["127.0.0.1"]
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.setenv("no_proxy", exception)
    set_connection(monkeypatch, f"http://{HOST}:{port_of(simulator)}", timeout=5)
    make_operator(frame, clip).execute(task_context())
    assert recorded(clip)["state"] == "delivered"
    assert proxy.heads == []
