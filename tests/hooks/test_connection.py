"""An invalid connection is reported in one sentence, before any request, and without the key."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_luma.exceptions import LumaRayConfigurationError, LumaRayUnavailable
from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.hooks.settings import API_URL, HISTORY_URL, UPLOAD_URL
from airflow_provider_luma.segmind.request import GenerationRequest
from tests.hooks.peer import Peer, to_json
from tests.support import API_KEY, set_connection

KEYS = "put the Segmind API key there"
URLS = "'https://api.segmind.com'"
NUMBERS = "give a positive number"


@pytest.fixture
def host(peer: Callable[..., Peer]) -> Peer:
    return peer(to_json({"credits": 5}))


def refused(hook: LumaRayHook) -> str:
    works, message = hook.test_connection()
    assert not works
    with pytest.raises(LumaRayConfigurationError) as caught:
        hook.get_credits()
    assert caught.value.cause == message
    assert str(caught.value) == f"{message}\nThis attempt bought nothing."
    return message


@pytest.mark.parametrize(
    ("changes", "right"),
    [
        pytest.param({"password": ""}, KEYS, id="an empty key"),
        pytest.param({"password": None}, KEYS, id="no key"),
        pytest.param({"password": "   "}, KEYS, id="a blank key"),
        pytest.param({"password": f"{API_KEY}\n"}, "line break", id="a line break after the key"),
        pytest.param({"password": f"{API_KEY}\r\nX-Evil: 1"}, "line break", id="a header in the key"),
        pytest.param({"password": "SG_0123 456789abcdef"}, "contains a space", id="a space in the key"),
        pytest.param({"password": "SG_0123\t456789abcdef"}, "no API key has", id="a tab in the key"),
        pytest.param({"password": "SG_0123\x00456789abcdef"}, "no API key has", id="a NUL in the key"),
        pytest.param({"password": "SG_0123456789abcd\u00ebf"}, "no API key has", id="a key with an umlaut"),
        pytest.param(
            {"password": "SG_0123456789abcdef\u200b"},
            "no API key has",
            id="a key with an invisible character",
        ),
        pytest.param({"host": "api.segmind.com"}, URLS, id="a host without a scheme"),
        pytest.param({"host": "127.0.0.1:8900"}, "'http://127.0.0.1:8900'", id="a port without a scheme"),
        pytest.param({"host": "localhost"}, "'http://localhost'", id="localhost without a scheme"),
        pytest.param({"host": "https://api.segmind.com/v1"}, "end it before '/v1'", id="a path of the API"),
        pytest.param({"host": "https://x.example/luma/v2/"}, "end it before '/v2/'", id="another one"),
        pytest.param({"extra": {"download_timeout": 0}}, NUMBERS, id="download_timeout 0"),
        pytest.param({"extra": {"max_video_mb": "big"}}, NUMBERS, id="max_video_mb no number"),
        pytest.param({"extra": {"allow_private_outputs": "yes"}}, "give true or false", id="a word for true"),
        pytest.param({"host": "ftp://api.segmind.com"}, URLS, id="another scheme"),
        pytest.param({"host": "https://"}, URLS, id="a scheme without a host"),
        pytest.param({"host": "https:///v1"}, URLS, id="a path without a host"),
        pytest.param({"host": "https://[::1"}, URLS, id="half an IPv6 address"),
        pytest.param({"host": "https://api.segmind.com:port"}, URLS, id="a port that is no number"),
        pytest.param({"host": "https://api.segmind.com:99999"}, URLS, id="a port too high"),
        pytest.param({"host": "https://api..segmind.com"}, URLS, id="an empty label"),
        pytest.param({"host": "https://" + "a" * 64 + ".com"}, URLS, id="a label too long"),
        pytest.param({"host": "https://api.segmind.com evil"}, URLS, id="a space in the host"),
        pytest.param({"host": "https://api.seg\nmind.com"}, URLS, id="a line break in the host"),
        pytest.param(
            {"host": "https://user:secret@api.segmind.com"}, "give the URL alone", id="user information"
        ),
        pytest.param(
            {"host": f"https://{API_KEY}@api.segmind.com"}, "give the URL alone", id="the key as user"
        ),
        pytest.param({"host": "https://api.segmind.com?x=1"}, "give the URL alone", id="a query"),
        pytest.param({"host": "https://api.segmind.com/#x"}, "give the URL alone", id="a fragment"),
        pytest.param({"host": API_KEY}, URLS, id="the key as host"),
        pytest.param({"host": f"me:{API_KEY}@api.segmind.com"}, URLS, id="the key before the host"),
        pytest.param({"extra": "not json"}, "JSON object", id="extra no JSON"),
        pytest.param({"extra": "[1]"}, "JSON object", id="extra a list"),
        pytest.param({"extra": '"text"'}, "JSON object", id="extra a text"),
        pytest.param({"extra": "null"}, "JSON object", id="extra null"),
        pytest.param({"extra": {"timeout": -1}}, NUMBERS, id="a negative timeout"),
        pytest.param({"extra": {"timeout": 0}}, NUMBERS, id="a timeout of 0"),
        pytest.param({"extra": {"timeout": "soon"}}, NUMBERS, id="a timeout that is no number"),
        pytest.param({"extra": {"timeout": "nan"}}, NUMBERS, id="a timeout of NaN"),
        pytest.param({"extra": {"timeout": "inf"}}, NUMBERS, id="an infinite timeout"),
        pytest.param({"extra": {"timeout": True}}, NUMBERS, id="a timeout that is a truth"),
        pytest.param({"extra": {"timeout": [60]}}, NUMBERS, id="a timeout that is a list"),
        pytest.param({"extra": {"requests_per_minute": 0}}, NUMBERS, id="requests_per_minute 0"),
        pytest.param({"extra": {"requests_per_minute": -5}}, NUMBERS, id="requests_per_minute negative"),
        pytest.param({"extra": {"requests_per_minute": "many"}}, NUMBERS, id="requests_per_minute no number"),
        pytest.param({"extra": {"timeout": API_KEY}}, NUMBERS, id="the key as timeout"),
        pytest.param(
            {"extra": {"upload_url": "workflows-api.segmind.com"}}, URLS, id="upload_url without a scheme"
        ),
        pytest.param({"extra": {"history_url": 7}}, URLS, id="history_url a number"),
        pytest.param(
            {"extra": {"upload_url": "https://u:p@x.example"}},
            "give the URL alone",
            id="upload_url with a user",
        ),
    ],
)
def test_the_error_says_what_is_wrong_and_what_is_right(
    monkeypatch: pytest.MonkeyPatch, host: Peer, changes: dict[str, Any], right: str
) -> None:
    connection = {"conn_type": "luma_ray", "password": API_KEY, "host": host.url} | changes
    monkeypatch.setenv("AIRFLOW_CONN_LUMA_RAY_DEFAULT", json.dumps(connection))
    message = refused(LumaRayHook())
    assert (
        message.startswith("Connection 'luma_ray_default' cannot be used: its ")
        or " in its extra is " in message
    )
    assert right in message
    assert len(message.splitlines()) == 1
    assert "SG_0123" not in message
    assert "secret" not in message
    assert host.seen == []


def test_a_missing_connection_may_be_a_secrets_backend_that_is_down() -> None:
    with pytest.raises(LumaRayUnavailable) as caught:
        LumaRayHook("my_segmind").get_credits()
    assert not isinstance(caught.value, AirflowFailException)
    cause, _, remedy = str(caught.value).splitlines()
    assert (
        cause
        == "Connection 'my_segmind' is not defined, cannot be parsed, or its secrets backend did not answer."
    )
    assert "has the type 'luma_ray' and the API key as password" in remedy


@pytest.mark.parametrize("raw", ["[1]", "7", "null", "://"])
def test_an_undefined_connection_is_reported(monkeypatch: pytest.MonkeyPatch, raw: str) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_LUMA_RAY_DEFAULT", raw)
    assert "'luma_ray_default' cannot be used" in refused(LumaRayHook())


def test_a_uri_with_an_underscore_is_told_its_hyphen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow reads no scheme in it, and so no password."""
    monkeypatch.setenv("AIRFLOW_CONN_LUMA_RAY_DEFAULT", f"luma_ray://:{API_KEY}@")
    told = refused(LumaRayHook())
    assert "luma-ray://:<key>@" in told
    assert API_KEY not in told


@pytest.mark.parametrize("raw", ["{", '{"password": "SG_0123456789abcdef"'])
def test_an_unparsable_connection_is_reported_without_its_text(
    monkeypatch: pytest.MonkeyPatch, raw: str
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_LUMA_RAY_DEFAULT", raw)
    with pytest.raises(
        LumaRayUnavailable, match="'luma_ray_default' is not defined, cannot be parsed"
    ) as caught:
        LumaRayHook().get_credits()
    assert "SG_" not in str(caught.value)


def test_no_call_is_sent_with_an_invalid_connection(
    monkeypatch: pytest.MonkeyPatch, host: Peer, request_: GenerationRequest, frame: Path, tmp_path: Path
) -> None:
    set_connection(monkeypatch, host.url, password="")
    hook = LumaRayHook()
    for verb in (
        lambda: hook.get_conn(),
        lambda: hook.submit(request_),
        lambda: hook.generate(request_, tmp_path / "v.mp4"),
        lambda: hook.get_status("r1"),
        lambda: hook.get_result("r1"),
        lambda: hook.find_job("r1"),
        lambda: hook.find_jobs("m", datetime.now(UTC)),
        lambda: hook.upload_image(frame),
        lambda: hook.download_video(f"{host.url}/v.mp4", tmp_path / "v.mp4"),
    ):
        with pytest.raises(LumaRayConfigurationError, match=KEYS):
            verb()
    assert host.seen == []


def test_the_key_alone_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "AIRFLOW_CONN_LUMA_RAY_DEFAULT", json.dumps({"conn_type": "luma_ray", "password": API_KEY})
    )
    settings = LumaRayHook().settings
    assert (settings.api_url, settings.upload_url, settings.history_url) == (
        "https://api.segmind.com",
        "https://workflows-api.segmind.com",
        "https://api.spotprod.segmind.com",
    )
    assert (settings.timeout, settings.requests_per_minute) == (60, 60)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(f"luma-ray://:{API_KEY}@/", id="a URI without a host"),
        pytest.param(
            f"luma-ray://:{API_KEY}@https%3A%2F%2Fapi.segmind.com/?timeout=30&requests_per_minute=5",
            id="a URI with all",
        ),
        pytest.param(
            json.dumps({"conn_type": "luma_ray", "password": f" {API_KEY} "}), id="spaces around the key"
        ),
        pytest.param(
            json.dumps({"conn_type": "luma_ray", "password": API_KEY, "extra": ""}), id="an empty extra"
        ),
        pytest.param(
            json.dumps(
                {"password": API_KEY, "extra": {"timeout": None, "upload_url": "", "history_url": None}}
            ),
            id="an empty form",
        ),
        pytest.param(json.dumps({"password": API_KEY, "extra": '{"timeout": "30"}'}), id="numbers as texts"),
        pytest.param(json.dumps({"password": API_KEY, "host": "HTTPS://API.SEGMIND.COM/"}), id="a loud host"),
        pytest.param(json.dumps({"password": API_KEY, "extra": {"unknown": 1}}), id="an unknown extra"),
    ],
)
def test_other_ways_to_write_a_good_connection(monkeypatch: pytest.MonkeyPatch, raw: str) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_LUMA_RAY_DEFAULT", raw)
    settings = LumaRayHook().settings
    assert settings.api_key == API_KEY
    assert settings.api_url.lower() == "https://api.segmind.com"
    assert settings.timeout in (60, 30)


def test_a_host_also_sets_uploads_and_history(monkeypatch: pytest.MonkeyPatch) -> None:
    set_connection(monkeypatch, "http://127.0.0.1:8900/", history_url="https://history.example/x/")
    settings = LumaRayHook().settings
    assert (settings.api_url, settings.upload_url, settings.history_url) == (
        "http://127.0.0.1:8900",
        "http://127.0.0.1:8900",
        "https://history.example/x",
    )


@pytest.mark.parametrize(
    "host", ["", "https://api.segmind.com", "https://API.segmind.com/", "https://api.segmind.com:443"]
)
def test_the_default_host_written_out_means_the_same_as_empty(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    set_connection(monkeypatch, host)
    settings = LumaRayHook().settings
    assert (settings.api_url, settings.upload_url, settings.history_url) == (API_URL, UPLOAD_URL, HISTORY_URL)
