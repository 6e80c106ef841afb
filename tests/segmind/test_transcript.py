"""What a transcript keeps, and what it must not."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_luma.segmind.transcript import Exchange, Redactor, dump, load
from tests.segmind.replies import ASSET_URL, HOSTILE, KEY, REQUEST_ID, VIDEO_URL, reply

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
REDACTOR = Redactor(b"salt")
EMAIL = "some.one+x@example.com"
SIGNED = "https://b.example/f.jpg?X-Amz-Signature=0a1b2c&X-Amz-Credential=AKIA%2F20261128"


def exchange(body: object, **headers: Any) -> Exchange:
    return Exchange("history", "GET", "https://api.example/h?page=1", NOW, 0.5, reply(body, **headers))


def kept(body: object, **headers: Any) -> str:
    return json.dumps(dump([REDACTOR.exchange(exchange(body, **headers))]))


def redacted(body: object) -> Any:
    answer = REDACTOR.exchange(exchange(body)).reply
    assert answer
    return answer.json()


@pytest.mark.parametrize(
    "text",
    [
        EMAIL,
        EMAIL.replace("@", "%40"),
        EMAIL.replace("@", "\\u0040"),
        EMAIL.replace("@", "&#64;"),
        EMAIL.replace("@", "%25252540"),
        EMAIL.replace("@", "\\u0026#64;"),
        f"x{'%25' * 20}40{EMAIL}",
        KEY.replace("_", "&#95;"),
        f"mail to <{EMAIL}>, please",
        KEY,
        f"Invalid key {KEY}",
        SIGNED,
        f"cannot fetch {SIGNED}",
        f"cannot fetch {SIGNED}".replace("/", "\\/"),
        f"cannot fetch {SIGNED}".replace("/", "\\u002f"),
        f"cannot fetch {SIGNED}".replace("/", "%5C%2F"),
        "cannot fetch https%3A%2F%2Fb.example%2Ff.jpg%3FX-Amz-Signature%3D0a1b2c",
        "f.jpg?X-Amz-Signature=0a1b2c",
        ASSET_URL,
        "Bearer 0a1b2c.some.one",
        f"x{' ' * 5000}{EMAIL}",
        f"{'x' * 5000}{EMAIL}",
    ],
)
@pytest.mark.parametrize(
    "name", ["error", "message", "request_id", "model_name", "user", "prompt", "request_body"]
)
def test_nothing_private_is_kept_under_any_name(name: str, text: str) -> None:
    for body in ({name: text}, {"data": [{name: text}]}, {name: {"inner": text}}, {name: [text]}, [text]):
        told = kept(body) + kept(json.dumps(json.dumps(body)).encode())
        for secret in ("some.one", "example.com", "0a1b2c", "AKIA", "0123456789abcdef", "assets"):
            assert secret not in told


QUOTES: list[Callable[[str], str]] = [
    lambda text: quote(text, safe=""),
    html.escape,
    json.dumps,
    lambda text: text.replace("/", "\\/"),
    lambda text: "".join(one if one.isalnum() else f"\\u{ord(one):04x}" for one in text),
    lambda text: "".join(one if one.isalnum() else f"&#{ord(one)};" for one in text),
    lambda text: f"({text})",
    lambda text: f"a={text}; b",
]


@settings(deadline=None)
@given(
    st.sampled_from([EMAIL, KEY, SIGNED, ASSET_URL]),
    st.lists(st.sampled_from(QUOTES), max_size=4),
    st.sampled_from(
        ["error", "message", "request_id", "model_status", "created_at", "cost", "request_body", "x"]
    ),
)
def test_nothing_private_is_kept_however_it_is_quoted(
    text: str, quotes: list[Callable[[str], str]], name: str
) -> None:
    for one in quotes:
        text = one(text)
    told = kept({name: text}) + kept([{text: 1}]) + kept(f"<html> {text} </html>".encode())
    for secret in ("some.one", "example.com", "0a1b2c", "AKIA", "0123456789abcdef", "0f9b"):
        assert secret not in told


@pytest.mark.parametrize("text", [EMAIL, KEY, SIGNED, "a name"])
def test_nothing_private_is_kept_of_names_headers_and_pages(text: str) -> None:
    page = f"<html> <body> {text if text != 'a name' else ''} </body></html>".encode()
    told = kept({text: 1}) if text != "a name" else ""
    told += kept(page) + kept({}, set_cookie=text, location=text, x_user=text)
    for secret in ("some.one", "0a1b2c", "0123456789abcdef", "a name"):
        assert secret not in told
    assert "x-user" in told


def test_the_vendors_words_are_kept() -> None:
    body = {
        "status": "COMPLETED",
        "request_id": REQUEST_ID,
        "error": "Request not found",
        "model_created": "2026-11-28T13:21:51.562Z",
        "created": "Sat, 28 Nov 2026 13:21:51 GMT",
        "cost": "1.6",
        "credits": 12.5,
        "flag": None,
    }
    assert redacted(body) == pytest.approx(body)


def test_what_was_equal_stays_equal() -> None:
    told = redacted({"a": "a prompt", "b": {"request_body": {"x": "a prompt", "n": 5}}, "c": "another"})
    assert told["a"] == told["b"]["request_body"]["x"] != told["c"]
    assert told["b"]["request_body"]["n"] == 5
    assert redacted({"output": VIDEO_URL}) == redacted({"output": VIDEO_URL})
    assert redacted({"output": VIDEO_URL})["output"].startswith("https://images.segmind.com/")
    assert redacted({"output": VIDEO_URL})["output"].endswith(".mp4")
    other = Redactor(b"other").exchange(exchange({"a": "a prompt"})).reply
    assert other
    assert other.json()["a"] != told["a"]


@pytest.mark.parametrize(
    "body",
    [
        {"phone": "+49 151 123456"},
        {"phone": "49151123456"},
        {"inputs": {"message": "a prompt"}},
        {"data": [{"payload": [{"error": "a prompt"}]}]},
        {"request_body": "a prompt"},
        {"request_body": '{"status": "a prompt"}'},
        {"updated_by": "a prompt", "title": "a prompt"},
    ],
)
def test_a_text_of_the_users_becomes_a_pseudonym(body: object) -> None:
    told = kept(body)
    assert "<text " in told
    assert "a prompt" not in told
    assert "151" not in told


def test_inputs_in_a_string_remain_one() -> None:
    told = redacted({"request_body": json.dumps({"prompt": "a prompt", "loop": False})})
    inputs = json.loads(told["request_body"])
    assert inputs["prompt"].startswith("<text ")
    assert inputs["loop"] is False


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_any_reply_survives_the_way_to_a_file_and_back(body: bytes) -> None:
    before = REDACTOR.exchange(exchange(body))
    (after,) = load(json.loads(json.dumps(dump([before], provider="1"))))
    assert after == before
    assert load(dump([REDACTOR.exchange(exchange(b"\xff" + body))]))


def test_a_page_that_is_cut_does_not_become_json() -> None:
    told = REDACTOR.exchange(exchange(b'{"credits": 1} ' + b"x" * 5000)).reply
    assert told
    assert told.json() is None


@pytest.mark.parametrize("path", ["/v2/requests/r1/status", "/v1/get-user-credits", "/upload-asset"])
def test_the_path_of_a_private_gateway_is_not_kept(path: str) -> None:
    for host in ("https://api.example", "http://127.0.0.1:8900"):
        for prefix in ("", "/secret", "/secret/v3"):
            told = REDACTOR.exchange(replace(exchange({}), url=f"{host}{prefix}{path}?page=1"))
            assert told.url == f"{host}{path}?page=1"


def test_calls_without_a_reply_survive_it_too() -> None:
    problem = replace(exchange({}), reply=None, problem="No answer")
    file = Exchange("download", "GET", VIDEO_URL, NOW, detail={"bytes": 7})
    told = [REDACTOR.exchange(problem), REDACTOR.exchange(file)]
    assert load(json.loads(json.dumps(dump(told)))) == told
    assert "clip" not in told[1].url


@pytest.mark.parametrize(
    "told", [None, [], {}, {"format": 2}, {"format": 1}, {"format": 1, "exchanges": [{"call": "x"}]}, "x"]
)
def test_what_is_no_transcript_is_refused(told: object) -> None:
    with pytest.raises(ValueError, match=r"it (is not a transcript|has format)"):
        load(told)


def test_nothing_private_is_kept_of_a_problem_or_of_what_was_sent() -> None:
    sent = {"prompt": "a secret road", "start_frame": SIGNED, "error": "of the user's own", "list": ["too"]}
    asked = replace(exchange({}), problem=f"no answer for {EMAIL} from {SIGNED}", detail=sent)
    told = REDACTOR.exchange(asked)
    assert told.problem.startswith("no answer for <e-mail> from https://b.example/")
    assert set(told.detail) == set(sent)
    private = ("some.one", "0a1b2c", "f.jpg", "secret", "user's", "too")
    assert not [one for one in private if one in told.problem + json.dumps(told.detail)]


def test_headers_that_are_known_are_kept_without_what_is_private_in_them() -> None:
    told = REDACTOR.exchange(exchange({}, **{"X-Request-Id": f"id of {EMAIL}", "X-Account": "acme"})).reply
    assert told
    assert dict(told.headers) == {"x-request-id": "id of <e-mail>", "x-account": "..."}


def test_the_vendors_clock_survives() -> None:
    asked = exchange({})
    assert asked.reply
    asked = replace(asked, reply=replace(asked.reply, received_at=NOW))
    told = REDACTOR.exchange(asked).reply
    assert told
    assert told.received_at == NOW


@pytest.mark.parametrize(
    "url",
    ["https://b.example/a.mysecretname", "https://b_ü:x@/a.jpg", "https://some one/a.jpg", "https:///a.jpg"],
)
def test_of_a_url_nothing_is_kept_but_host_and_suffix(url: str) -> None:
    told = redacted({"output": url, "error": f"cannot fetch {url}"})
    assert "mysecretname" not in str(told)
    assert "some one" not in told["output"]


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"a": inner}])
def test_what_is_nested_too_deeply_is_left_out(wrap: Callable[[Any], Any]) -> None:
    value: Any = "the end"
    for _ in range(100):
        value = wrap(value)
    told = REDACTOR.exchange(replace(exchange({}), detail=value)).detail
    depth = 0
    while isinstance(told, list | dict):
        (told,), depth = (told if isinstance(told, list) else told.values()), depth + 1
    assert (told, depth) == ("<too deep>", 51)


def test_a_long_text_is_cut_between_words() -> None:
    told = redacted({"error": f"{'word ' * 799}{'x' * 4}{EMAIL}"})["error"]
    assert told.startswith("word word")
    assert "one" not in told


@pytest.mark.parametrize(("body", "kept_as"), [(b"null", {"json": None}), (b" oops ", {"text": "oops"})])
def test_a_page_stays_text_and_null_stays_null(body: bytes, kept_as: dict[str, object]) -> None:
    (told,) = dump([REDACTOR.exchange(exchange(body))])["exchanges"]
    assert {name: value for name, value in told["reply"].items() if name in ("json", "text")} == kept_as
