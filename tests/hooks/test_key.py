"""Where the key is sent, and where neither it nor any other credentials ever appear."""

from __future__ import annotations

import html
import itertools
import json
import logging
import re
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest

from airflow_provider_luma.exceptions import (
    LumaRayDeliveryFailed,
    LumaRayError,
    LumaRaySubmitUnknown,
    LumaRayUnavailable,
)
from airflow_provider_luma.hooks.key import KeyFilter
from airflow_provider_luma.hooks.limiter import Rank
from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.hooks.settings import Settings
from airflow_provider_luma.segmind.request import GenerationRequest
from airflow_provider_luma.simulator import Simulator
from tests.hooks.conftest import box
from tests.hooks.peer import HANG_UP, RESET, Peer, chunked, http, to_json
from tests.support import API_KEY, set_connection

HookAt = Callable[..., tuple[LumaRayHook, Peer]]
StartPeer = Callable[..., Peer]
Verb = Callable[[LumaRayHook], object]

VENDORS_OWN = {"conn_type": "luma_ray", "password": API_KEY, "extra": {"requests_per_minute": 100_000}}
VERBS = "get_credits submit generate get_status get_result find_job find_jobs upload_image".split()


@pytest.fixture
def verbs(request_: GenerationRequest, frame: Path, tmp_path: Path) -> dict[str, Verb]:
    """Every call to the API's own hosts."""
    return {
        "get_credits": lambda hook: hook.get_credits(),
        "submit": lambda hook: hook.submit(request_),
        "generate": lambda hook: hook.generate(request_, tmp_path / "v.mp4"),
        "get_status": lambda hook: hook.get_status("r1"),
        "get_result": lambda hook: hook.get_result("r1"),
        "find_job": lambda hook: hook.find_job("r1"),
        "find_jobs": lambda hook: hook.find_jobs("luma-ray-img-2-video", datetime.now(UTC)),
        "upload_image": lambda hook: hook.upload_image(frame),
    }


def attempt(verb: Callable[[], object]) -> Exception | None:
    """Make a call and return its error, if any."""
    try:
        verb()
    except Exception as error:
        return error
    return None


def told(error: BaseException) -> str:
    """Return everything that an error reporter could show of an exception, local variables included."""
    return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format()) + repr(
        error
    )


@pytest.mark.parametrize("name", VERBS)
def test_the_key_goes_to_the_api(hook_at: HookAt, verbs: dict[str, Verb], name: str) -> None:
    hook, host = hook_at(http(404))
    attempt(lambda: verbs[name](hook))
    assert [seen.headers["x-api-key"] for seen in host.seen] == [API_KEY]
    assert "authorization" not in host.seen[0].headers
    assert API_KEY not in host.seen[0].target


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("name", VERBS)
def test_no_call_is_redirected(
    hook_at: HookAt, peer: StartPeer, verbs: dict[str, Verb], name: str, status: int
) -> None:
    elsewhere = peer(to_json({"credits": 5, "request_id": "r1"}))
    hook, _ = hook_at(http(status, Location=f"{elsewhere.url}/x"))
    attempt(lambda: verbs[name](hook))
    assert elsewhere.seen == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("host_name", ["127.0.0.1", "localhost"])
def test_a_users_own_call_loses_the_key_when_redirected(
    hook_at: HookAt, peer: StartPeer, status: int, method: str, host_name: str
) -> None:
    elsewhere = peer(http(200))
    hook, host = hook_at(http(status, Location=f"http://{host_name}:{elsewhere.port}/x"))
    with hook.get_conn() as session:
        session.request(method, f"{host.url}/v1/models", json={}, timeout=5)
    assert host.seen[0].headers["x-api-key"] == API_KEY
    assert len(elsewhere.seen) == 1
    assert not any(API_KEY in seen for seen in elsewhere.seen)
    assert "authorization" not in elsewhere.seen[0].headers


def test_a_users_own_call_elsewhere_has_no_key(hook_at: HookAt, peer: StartPeer) -> None:
    elsewhere = peer(http(200))
    hook, host = hook_at(http(200))
    with hook.get_conn() as session:
        session.get(elsewhere.url, timeout=5)
        session.get(f"http://127.0.0.1:{host.port}@127.0.0.1:{elsewhere.port}/", timeout=5)
        session.get(f"http://localhost:{host.port}/", timeout=5)
    assert [API_KEY in seen for seen in elsewhere.seen] == [False, False]
    assert [API_KEY in seen for seen in host.seen] == [False], "another name of the host is another host"


def test_the_key_never_goes_to_an_output_url(
    simulator: Simulator, hook: LumaRayHook, request_: GenerationRequest, frame: Path, tmp_path: Path
) -> None:
    """Not even if the video is on the API's own host."""
    hook.upload_image(frame)
    request_id = hook.submit(request_)
    simulator.advance(60)
    simulator.fault("download", "truncated")
    url = str(hook.get_result(request_id).url)
    hook.download_video(url, tmp_path / "v.mp4")
    hook.generate(request_, tmp_path / "v.mp4")
    assert simulator.leaks == []
    assert [entry.has_key for entry in simulator.requests if entry.call == "download"] == [False, False]


def test_a_netrc_file_adds_nothing(
    hook_at: HookAt,
    peer: StartPeer,
    verbs: dict[str, Verb],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    mp4: bytes,
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text(
        "machine 127.0.0.1 login me password hunter2\nmachine localhost login me password hunter2\n"
        "default login me password hunter2\n"
    )
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    hook, host = hook_at(http(404))
    for verb in verbs.values():
        attempt(lambda verb=verb: verb(hook))  # type: ignore[misc]
    assert len(host.seen) == len(verbs)

    last = peer(http(200, mp4))
    first = peer(http(302, Location=f"http://localhost:{last.port}/v.mp4"))
    hook.download_video(f"{first.url}/v.mp4", tmp_path / "v.mp4")
    with hook.get_conn() as session:
        session.get(f"{first.url}/mine", timeout=5)
    for seen in host.seen + first.seen + last.seen:
        assert "authorization" not in seen.headers
        assert "hunter2" not in seen


@pytest.mark.parametrize("user", ["", "proxy-user:proxy-password@"])
def test_a_proxy_is_used_and_gets_no_credentials_of_ours(
    peer: StartPeer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mp4: bytes, user: str
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login me password hunter2\n")
    monkeypatch.setenv("NETRC", str(netrc))
    proxy = peer(lambda seen: http(200, mp4) if "mp4" in seen.target else to_json({"credits": 5}))
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", f"http://{user}127.0.0.1:{proxy.port}")
    monkeypatch.setenv("http_proxy", f"http://{user}127.0.0.1:{proxy.port}")
    set_connection(monkeypatch, "http://segmind.test", timeout=5)
    hook = LumaRayHook()
    hook.get_credits()
    hook.download_video("http://images.test/v.mp4", tmp_path / "v.mp4")
    assert [seen.target for seen in proxy.seen] == [
        "http://segmind.test/v1/get-user-credits",
        "http://images.test/v.mp4",
    ]
    for seen in proxy.seen:
        assert ("proxy-authorization" in seen.headers) == bool(user)
        assert "authorization" not in seen.headers
        assert "hunter2" not in seen
    assert [API_KEY in seen for seen in proxy.seen] == [True, False]


@pytest.mark.parametrize("name", VERBS)
def test_a_proxy_tunnel_is_opened_without_the_key(
    peer: StartPeer, monkeypatch: pytest.MonkeyPatch, verbs: dict[str, Verb], name: str
) -> None:
    proxy = peer(http(403))
    for variable in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    monkeypatch.setenv("https_proxy", proxy.url)
    monkeypatch.setenv("AIRFLOW_CONN_LUMA_RAY_DEFAULT", json.dumps(VENDORS_OWN))
    error = attempt(lambda: verbs[name](LumaRayHook()))
    assert isinstance(error, LumaRayUnavailable), "no byte of the call had left"
    assert len(proxy.seen) == (1 if name == "get_status" else 4)
    for seen in proxy.seen:
        assert (seen.method, seen.target.rpartition(":")[2]) == ("CONNECT", "443")
        assert seen.target.partition(":")[0].endswith("segmind.com")
        assert API_KEY not in seen
        assert "proxy-authorization" not in seen.headers


def test_no_repr_holds_the_key(hook: LumaRayHook, request_: GenerationRequest) -> None:
    session = hook.get_conn()
    prepared = session.prepare_request(__import__("requests").Request("GET", hook.settings.api_url))
    assert prepared.headers["x-api-key"] == API_KEY
    for thing in (hook, hook.settings, session, session.auth, hook._transport, request_, prepared):
        assert API_KEY not in repr(thing) + str(thing)
    assert API_KEY not in repr(vars(session))


WRONG = {
    "401": to_json({"error": f"Invalid API key {API_KEY}"}, 401),
    "404": to_json({"error": "Not Found"}, 404),
    "429": to_json({"error": "Rate limit exceeded"}, 429, x_rate_limit_reset_at_utc="2026-01-01T00:00:00Z"),
    "500": to_json({"error": "oops"}, 500),
    "html": http(502, "<html>Bad Gateway</html>"),
    "a redirect": http(302, Location="/elsewhere"),
    "a redirect to nowhere": http(302, Location="http://[::1/x"),
    "a redirect to no port": http(307, Location="http://127.0.0.1:8080\\.x/"),
    "garbage": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "a broken header": b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n{}",
    "hanging up": HANG_UP,
    "a reset": RESET,
    "broken gzip": http(200, "no gzip", Content_Encoding="gzip"),
    "a body that breaks off": http(200, '{"x":', length=99),
    "a body of the wrong shape": to_json([1]),
    "deep nesting": http(200, "[" * 100_000),
}


@pytest.mark.parametrize("name", VERBS)
@pytest.mark.parametrize("wrong", WRONG)
def test_no_error_holds_the_key(hook_at: HookAt, verbs: dict[str, Verb], name: str, wrong: str) -> None:
    hook, _ = hook_at(WRONG[wrong])
    error = attempt(lambda: verbs[name](hook))
    if error is not None:
        assert isinstance(error, LumaRayError)
        assert API_KEY not in told(error)


@pytest.mark.parametrize("name", VERBS)
@pytest.mark.parametrize(
    "host",
    [
        "http://127.0.0.1:{closed}",
        "https://127.0.0.1:{closed}",
        "http://nowhere.invalid",
        "http://a..b",
        "http://*.example",
        "http://" + "a" * 64 + ".example",
        "http://x y",
        "http://[::1]:{closed}",
        "api.segmind.com",
        "https://[",
        API_KEY,
        f"https://{API_KEY}@api.segmind.com",
    ],
)
def test_no_error_of_a_bad_host_holds_the_key(
    monkeypatch: pytest.MonkeyPatch, closed_port: int, verbs: dict[str, Verb], name: str, host: str
) -> None:
    set_connection(monkeypatch, host.replace("{closed}", str(closed_port)), timeout=5)
    error = attempt(lambda: verbs[name](LumaRayHook()))
    assert isinstance(error, LumaRayError)
    assert not isinstance(error, LumaRaySubmitUnknown), "nothing was sent"
    assert API_KEY not in told(error)


@pytest.mark.parametrize("name", VERBS)
def test_no_error_of_a_missing_certificate_bundle_holds_the_key(
    monkeypatch: pytest.MonkeyPatch, closed_port: int, verbs: dict[str, Verb], name: str
) -> None:
    set_connection(monkeypatch, f"https://127.0.0.1:{closed_port}", timeout=5)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
    error = attempt(lambda: verbs[name](LumaRayHook()))
    assert isinstance(error, LumaRayUnavailable)
    assert API_KEY not in told(error)


@pytest.mark.parametrize(
    "raw",
    [
        f'{{"password": "{API_KEY}"',
        json.dumps({"password": API_KEY, "extra": "not json"}),
        json.dumps({"password": API_KEY, "extra": "[1]"}),
        json.dumps({"password": API_KEY, "extra": {"timeout": "soon"}}),
        json.dumps({"password": API_KEY, "extra": {"timeout": API_KEY}}),
        json.dumps({"password": API_KEY, "extra": "[" * 100_000}),
        json.dumps({"password": API_KEY, "extra": '{"a":' * 3000 + "1" + "}" * 3000}),
        json.dumps({"password": f"{API_KEY}\n"}),
        json.dumps({"password": API_KEY, "bogus": 1}),
        json.dumps({"password": API_KEY, "port": "x"}),
        json.dumps({"password": "https://api.segmind.com", "host": API_KEY}),
        f"luma-ray://:{API_KEY}@api.segmind.com",
        f"luma-ray://:{API_KEY}@[::1",
        f"luma-ray://:{API_KEY}@host:port",
    ],
)
def test_no_error_of_a_bad_connection_holds_the_key(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    raw: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("AIRFLOW_CONN_LUMA_RAY_DEFAULT", raw)
    error = attempt(LumaRayHook().get_credits)
    assert isinstance(error, LumaRayError)
    assert API_KEY not in told(error)
    assert API_KEY not in caplog.text


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{closed}/v.mp4",
        "http://a..b/v.mp4",
        "http://[::1/v.mp4",
        "{host}/v.mp4",
        "file:///x",
        "",
    ],
)
def test_no_error_of_a_download_holds_the_key(
    hook_at: HookAt, closed_port: int, tmp_path: Path, url: str
) -> None:
    hook, host = hook_at(http(200, "This is not a video."))
    url = url.replace("{closed}", str(closed_port)).replace("{host}", host.url)
    error = attempt(lambda: hook.download_video(url, tmp_path / "v.mp4"))
    assert isinstance(error, LumaRayDeliveryFailed)
    assert API_KEY not in told(error)
    assert not any(API_KEY in seen for seen in host.seen)


@pytest.mark.parametrize("name", VERBS)
@pytest.mark.parametrize("status", [200, 401, 422, 500])
def test_an_unusual_key_is_not_repeated_either(
    hook_at: HookAt, monkeypatch: pytest.MonkeyPatch, verbs: dict[str, Verb], name: str, status: int
) -> None:
    key = "sk-live.0123_XYZ"
    _, host = hook_at(to_json({"error": f"Invalid API key: {key}"}, status))
    set_connection(monkeypatch, host.url, password=key)
    error = attempt(lambda: verbs[name](LumaRayHook()))
    if error is not None:
        assert isinstance(error, LumaRayError)
        assert key not in told(error)


ODD_KEY = "sk&<live>'0\"1/2\\3%4+5=="
#: How software writes a text into JSON, HTML and URLs; each is a JSON string's content, for the reply is JSON.
ESCAPED: dict[str, Callable[[str], str]] = {
    "json": lambda key: json.dumps(key)[1:-1],
    "json in json": lambda key: json.dumps(json.dumps(key)[1:-1])[1:-1],
    "json in json in json": lambda key: json.dumps(json.dumps(json.dumps(key)[1:-1])[1:-1])[1:-1],
    "json as Go and Rails write it": lambda key: re.sub(
        "[<>&'+]", lambda found: f"\\u{ord(found[0]):04x}", json.dumps(key)[1:-1]
    ),
    "json as PHP writes it": lambda key: json.dumps(key)[1:-1].replace("/", "\\/"),
    "every character as \\u": lambda key: "".join(f"\\u{ord(character):04x}" for character in key),
    "every character as \\U": lambda key: "".join(f"\\u{ord(character):04X}" for character in key),
    "every second one": lambda key: "".join(
        f"\\u{ord(character):04X}" if at % 2 else json.dumps(character)[1:-1]
        for at, character in enumerate(key)
    ),
    "a Python repr": lambda key: json.dumps(repr(key)[1:-1])[1:-1],
    "html": lambda key: json.dumps(html.escape(key))[1:-1],
    "html twice": lambda key: json.dumps(html.escape(html.escape(key)))[1:-1],
    "html numbers": lambda key: "".join(f"&#{ord(character)};" for character in key),
    "html hexadecimal numbers": lambda key: "".join(f"&#x{ord(character):04X};" for character in key),
    "html names": lambda key: (
        json.dumps(key)[1:-1]
        .replace("&", "&AMP")
        .replace("/", "&sol;")
        .replace("+", "&plus;")
        .replace("=", "&equals;")
    ),
    "percent": lambda key: quote(key, safe=""),
    "percent, lower case": lambda key: re.sub("%..", lambda found: found[0].lower(), quote(key, safe="")),
    "percent twice": lambda key: quote(quote(key, safe=""), safe=""),
    "every character in percent": lambda key: "".join(f"%{ord(character):02x}" for character in key),
}


def unescaped(text: str) -> set[str]:
    """Return a text with its possible unescaped forms."""
    found = {text}
    for _ in range(3):
        for reading in list(found):
            found |= {html.unescape(reading), unquote(reading), reading.replace("\\/", "/")}
            found.add(re.sub(r"\\+(?:u00|x)(..)", lambda hexed: chr(int(hexed[1], 16)), reading))
            found.add(re.sub(r"\\+", r"\\", reading).replace('\\"', '"').replace("\\'", "'"))
    return found


@pytest.mark.parametrize("escape", ESCAPED.values(), ids=ESCAPED)
@pytest.mark.parametrize("key", [API_KEY, ODD_KEY, "0123456789abcdef-0123-4567"])
@pytest.mark.parametrize("status", [401, 500, 200])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-32-be"])
def test_an_echo_of_the_key_is_not_repeated_however_it_is_escaped(
    hook_at: HookAt,
    monkeypatch: pytest.MonkeyPatch,
    request_: GenerationRequest,
    escape: Callable[[str], str],
    key: str,
    status: int,
    encoding: str,
) -> None:
    body = f'{{"error": "Invalid API key \\"{escape(key)}\\" given", "credits": null}}'
    _, host = hook_at(http(status, body.encode(encoding), x_request_id=f"r-{escape(key)}"))
    set_connection(monkeypatch, host.url, password=key)
    for verb in (lambda hook: hook.submit(request_), lambda hook: hook.get_credits()):
        error = attempt(lambda verb=verb: verb(LumaRayHook()))  # type: ignore[misc]
        assert isinstance(error, LumaRayError)
        assert "Invalid API key" in str(error)
        assert "<api key>" in str(error)
        for reading in unescaped(str(error)) | unescaped(str(getattr(error, "hint", None))):
            assert key not in reading


@pytest.mark.parametrize("escape", ESCAPED.values(), ids=ESCAPED)
def test_the_recorded_result_has_no_key(
    hook_at: HookAt, monkeypatch: pytest.MonkeyPatch, escape: Callable[[str], str]
) -> None:
    body = f'{{"status": "COMPLETED", "request_id": "r1", "note": ["{escape(ODD_KEY)}"]}}'
    _, host = hook_at(http(200, body))
    set_connection(monkeypatch, host.url, password=ODD_KEY)
    assert LumaRayHook().get_result("r1").body["note"] == ["<api key>"]


def test_a_reply_without_the_key_is_unchanged(hook_at: HookAt, monkeypatch: pytest.MonkeyPatch) -> None:
    note = "caf\u00e9 \U0001f600 &amp; %26 \\ / sk&<live> C:\\\\x \\u0026 " + "\\" * 99
    _, host = hook_at(to_json({"status": "COMPLETED", "request_id": "r1", "note": note}))
    set_connection(monkeypatch, host.url, password=ODD_KEY)
    assert LumaRayHook().get_result("r1").body["note"] == note


def test_a_long_reply_is_searched_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clean = KeyFilter(Settings(api_key=ODD_KEY)).clean
    for text in (b"\\", b"%25", b"&amp;", b"s", b"sk&<live>'0"):
        body = b" " + text * (2_000_000 // len(text))
        started = time.process_time()
        assert clean(body) == body
        assert time.process_time() - started < 5


@pytest.mark.parametrize(
    "line",
    [
        "BOGUS {key}\r\n\r\n",
        "HTTP/1.1 {key} OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{key}\r\n",
    ],
)
@pytest.mark.parametrize("key", [ODD_KEY, "0123456789abcdef-0123-4567"])
@pytest.mark.parametrize("name", VERBS)
def test_a_line_that_repeats_the_key_is_not_quoted(
    hook_at: HookAt, monkeypatch: pytest.MonkeyPatch, verbs: dict[str, Verb], line: str, key: str, name: str
) -> None:
    _, host = hook_at(line.replace("{key}", key).encode())
    set_connection(monkeypatch, host.url, password=key, timeout=5)
    error = attempt(lambda: verbs[name](LumaRayHook()))
    assert isinstance(error, LumaRayError)
    assert not any(key in reading for reading in unescaped(str(error)))


class TaskTimeout(BaseException):
    """Like Airflow's, which no ``except Exception`` catches."""


@pytest.fixture
def alarm() -> Iterator[Callable[[], None]]:
    """Let SIGALRM interrupt the test, like Airflow's task timeout; return what triggers it."""

    def time_out(*_: object) -> None:
        raise TaskTimeout("Timeout")

    before = signal.signal(signal.SIGALRM, time_out)
    main = threading.main_thread().ident
    assert main is not None
    yield lambda: signal.pthread_kill(main, signal.SIGALRM)
    signal.signal(signal.SIGALRM, before)


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception, its causes and its contexts."""
    pending: list[BaseException | None] = [error]
    seen: set[int] = set()
    while pending:
        if (item := pending.pop()) is not None and id(item) not in seen:
            seen.add(id(item))
            yield item
            pending += [item.__cause__, item.__context__]


def below(error: BaseException) -> list[str]:
    """Return the reprs of all local variables in an exception's frames, except this module's."""
    return [
        f"{frame.f_code.co_name}: {name} = {value!r}"
        for item in chain(error)
        for frame, _ in traceback.walk_tb(item.__traceback__)
        if frame.f_globals["__name__"] != __name__
        for name, value in frame.f_locals.items()
    ]


BROKEN_OFF = {
    "before the reply": b"",
    "in the headers": b"HTTP/1.1 200 OK\r\nX-A: b\r\n",
    "in the body": http(200, b'{"error": "the key ' + API_KEY.encode() + b" is", length=99),
    "in a chunk": chunked(b'{"error": "the key ' + API_KEY.encode() + b" is", whole=False),
    "in a video": http(200, box(b"ftyp", b"isom\0\0\2\0"), length=99),
}


@pytest.mark.parametrize("moment", BROKEN_OFF)
@pytest.mark.parametrize("name", VERBS)
def test_a_task_timeout_within_a_request_does_not_carry_the_key(
    hook_at: HookAt, verbs: dict[str, Verb], alarm: Callable[[], None], name: str, moment: str
) -> None:
    over = threading.Event()

    class Slow:
        def __iter__(self) -> Iterator[bytes]:
            yield BROKEN_OFF[moment]
            alarm()
            over.wait(10)

    hook, host = hook_at(Slow())
    with pytest.raises(TaskTimeout) as caught:
        verbs[name](hook)
    over.set()
    assert len(host.seen) == 1
    assert [line for line in below(caught.value) if API_KEY in line] == []
    assert API_KEY not in told(caught.value)


def test_the_debug_log_has_neither_the_key_nor_an_uploads_url(
    simulator: Simulator,
    hook: LumaRayHook,
    request_: GenerationRequest,
    frame: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "urllib3")
    for call, kind in itertools.product(("credits", "upload", "status"), ("reset", "status", "html")):
        simulator.fault(call, kind)
    asset = ""
    for _ in range(4):
        error = attempt(lambda: hook.upload_image(frame))
        asset = asset if error else hook.upload_image(frame)
    hook.test_connection()
    request = GenerationRequest(
        model=request_.model, prompt="x", start_frame=asset, resolution="540p", extra_parameters={"seed": 1}
    )
    request_id = hook.submit(request)
    hook.get_status(request_id, Rank.URGENT)
    simulator.advance(60)
    hook.download_video(str(hook.get_result(request_id).url), tmp_path / "v.mp4")
    hook.find_job(request_id)
    hook.find_jobs(request.model, datetime.now(UTC))
    hook.generate(request, tmp_path / "v.mp4")
    for kind in ("status", "reset", "truncated", "html", "error_object"):
        for call in ("submit", "v1"):
            simulator.fault(call, kind)
        attempt(lambda: hook.submit(request))
        attempt(lambda: hook.generate(request, tmp_path / "v.mp4"))

    assert "@example.com" in asset
    assert len(caplog.records) > 20, "urllib3 tells each request at DEBUG"
    shown = caplog.text + "".join(capfd.readouterr())
    assert API_KEY not in shown
    assert "@example.com" not in shown
    assert not any(API_KEY in repr(vars(record)) for record in caplog.records)


PUBLIC = {"api.segmind.com": ["93.184.216.34"], "public.example": ["93.184.216.34"]}
PRIVATE = {
    "loopback.example": ["127.0.0.1"],
    "intranet.example": ["10.1.2.3"],
    "metadata.example": ["169.254.169.254"],
    "six.example": ["::1"],
    "mapped.example": ["::ffff:10.0.0.1"],
    "scoped.example": ["fe80::1%lo"],
    "both.example": ["93.184.216.34", "192.168.0.1"],
}


@pytest.fixture
def public_hook(lookups: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> LumaRayHook:
    """A hook on the vendor's own hosts, and other hosts here and there."""
    lookups |= PUBLIC | PRIVATE
    monkeypatch.setenv("AIRFLOW_CONN_LUMA_RAY_DEFAULT", json.dumps(VENDORS_OWN))
    return LumaRayHook()


PRIVATE_URLS = [
    "http://127.0.0.1:{port}/v.mp4",
    "http://127.1:{port}/v.mp4",
    "http://localhost:{port}/v.mp4",
    "http://LOCALHOST:{port}/v.mp4",
    "http://localhost.:{port}/v.mp4",
    "http://2130706433:{port}/v.mp4",
    "http://0x7f000001:{port}/v.mp4",
    "http://0177.0.0.1:{port}/v.mp4",
    "http://0.0.0.0:{port}/v.mp4",
    "http://0:{port}/v.mp4",
    "http://[::1]:{port}/v.mp4",
    "http://[::]:{port}/v.mp4",
    "http://[::ffff:127.0.0.1]:{port}/v.mp4",
    "http://[::ffff:7f00:1]:{port}/v.mp4",
    "http://user:password@127.0.0.1:{port}/v.mp4",
    "http://public.example@127.0.0.1:{port}/v.mp4",
    "http://127.0.0.1:{port}\\@public.example/v.mp4",
    "http://127.0.0.1:{port}\\.public.example/v.mp4",
    " http://127.0.0.1:{port}/v.mp4",
    "http://\uff11\uff12\uff17.0.0.1:{port}/v.mp4",
    "http://10.0.0.1/v.mp4",
    "http://172.16.0.1/v.mp4",
    "http://192.168.1.1/v.mp4",
    "http://100.64.0.1/v.mp4",
    "http://169.254.169.254/latest/meta-data/",
    "http://[fe80::1]/v.mp4",
    "http://[fd00::1]/v.mp4",
    "https://10.0.0.1/v.mp4",
    *(f"http://{name}/v.mp4" for name in PRIVATE),
]


@pytest.mark.parametrize("url", PRIVATE_URLS)
def test_a_private_address_is_refused_for_a_public_hosts_video(
    public_hook: LumaRayHook, peer: StartPeer, tmp_path: Path, mp4: bytes, url: str
) -> None:
    host = peer(http(200, mp4))
    with pytest.raises(LumaRayDeliveryFailed):
        public_hook.download_video(url.replace("{port}", str(host.port)), tmp_path / "v.mp4")
    assert host.seen == []


@pytest.fixture
def proxy_to(monkeypatch: pytest.MonkeyPatch, peer: StartPeer) -> Callable[..., Peer]:
    """Start a proxy that answers for every host."""

    def start(*answers: Any) -> Peer:
        proxy = peer(*answers)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        for name in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, proxy.url)
        return proxy

    return start


@pytest.mark.parametrize(
    "url", [url for url in PRIVATE_URLS if url.isascii() and "localhost." not in url and "\\." not in url]
)
def test_a_private_address_is_refused_after_a_redirect(
    public_hook: LumaRayHook,
    peer: StartPeer,
    proxy_to: Callable[..., Peer],
    tmp_path: Path,
    mp4: bytes,
    url: str,
) -> None:
    location = url.replace("{port}", "8080").strip()
    proxy = proxy_to(lambda seen: http(302, Location=location) if "public" in seen.target else http(200, mp4))
    with pytest.raises(LumaRayDeliveryFailed):
        public_hook.download_video("http://public.example/v.mp4", tmp_path / "v.mp4")
    assert {seen.target for seen in proxy.seen} == {"http://public.example/v.mp4"}


def test_a_public_address_is_allowed(
    public_hook: LumaRayHook, proxy_to: Callable[..., Peer], tmp_path: Path, mp4: bytes
) -> None:
    proxy = proxy_to(http(302, Location="http://public.example/w.mp4"), http(200, mp4))
    assert public_hook.download_video("http://public.example/v.mp4", tmp_path / "v.mp4").size == len(mp4)
    assert len(proxy.seen) == 2
    assert not any(API_KEY in seen for seen in proxy.seen)


def test_a_private_address_is_allowed_if_the_connections_host_is_private(
    hook_at: HookAt, tmp_path: Path, mp4: bytes
) -> None:
    hook, host = hook_at(http(200, mp4))
    assert hook.download_video(f"http://localhost:{host.port}/v.mp4", tmp_path / "v.mp4").size == len(mp4)
