"""The vendor's own sample call and ``LumaRayHook.generate``: the same request, bytes, credits and meaning."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import requests

from airflow_provider_luma.exceptions import (
    LumaRayAuthenticationError,
    LumaRayError,
    LumaRayInsufficientCredits,
    LumaRayModelUnavailable,
    LumaRayRateLimited,
    LumaRayRefused,
    LumaRaySubmitUnknown,
)
from airflow_provider_luma.hooks.luma_ray import GeneratedVideo, LumaRayHook
from airflow_provider_luma.segmind.request import GenerationRequest
from airflow_provider_luma.simulator import Simulator
from tests.hooks.conftest import box
from tests.hooks.peer import Peer, chunked, http, to_json
from tests.hooks.test_download import no_file_larger_than
from tests.support import API_KEY, set_connection

HookAt = Callable[..., tuple[LumaRayHook, Peer]]
MODEL = "luma-ray-img-2-video"


def sample(api_url: str, data: dict[str, Any]) -> requests.Response:
    """Call v1 as on the vendor's model page."""
    url = f"{api_url}/v1/{MODEL}"
    return requests.post(url, json=data, headers={"x-api-key": API_KEY}, timeout=20)


def same(data: dict[str, Any]) -> GenerationRequest:
    return GenerationRequest(model=MODEL, **data)


@pytest.fixture(params=["uploaded", "http", "base64"])
def data(
    request: pytest.FixtureRequest,
    simulator: Simulator,
    hook: LumaRayHook,
    peer: Callable[..., Peer],
    frame: Path,
) -> dict[str, Any]:
    """The sample's five fields, with the frame in each possible form."""
    if request.param == "uploaded":
        start_frame = hook.upload_image(frame)
    elif request.param == "http":
        start_frame = f"{peer(http(200, frame.read_bytes(), Content_Type='image/jpeg')).url}/frame.jpg"
    else:
        start_frame = base64.b64encode(frame.read_bytes()).decode()
    return {
        "prompt": "a slow push in over the harbour at dusk",
        "start_frame": start_frame,
        "loop": False,
        "resolution": "540p",
        "aspect_ratio": "16:9",
    }


def test_the_same_video_for_the_same_money(
    simulator: Simulator, hook: LumaRayHook, data: dict[str, Any], tmp_path: Path
) -> None:
    plain = sample(simulator.url, data)
    generated = hook.generate(same(data), tmp_path / "v.mp4")

    assert plain.status_code == 200
    assert (tmp_path / "v.mp4").read_bytes() == plain.content
    assert generated.video is not None
    assert generated.video.path == tmp_path / "v.mp4"
    assert generated.video.size == len(plain.content)
    assert generated.video.sha256 == hashlib.sha256(plain.content).hexdigest()
    assert generated.url is None

    theirs, ours = simulator.jobs
    assert theirs.body == ours.body == data
    assert generated.request_id == ours.request_id
    assert generated.cost == Decimal(plain.headers["x-cost"]) == Decimal("1.6")
    assert generated.remaining_credits == Decimal(plain.headers["x-remaining-credits"]) - Decimal("1.6")
    assert generated.remaining_credits == simulator.balance
    assert simulator.charges == 2

    sent = [entry for entry in simulator.requests if entry.call == "v1"]
    assert [entry.headers["Content-Type"] for entry in sent] == ["application/json"] * 2
    assert [entry.headers["x-api-key"] for entry in sent] == [API_KEY] * 2


@pytest.mark.parametrize("data", ["base64"], indirect=True)
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
        (429, LumaRayRateLimited),
        (500, LumaRaySubmitUnknown),
        (502, LumaRaySubmitUnknown),
        (504, LumaRaySubmitUnknown),
    ],
)
def test_the_same_refusal_with_the_vendors_words(
    simulator: Simulator,
    hook: LumaRayHook,
    data: dict[str, Any],
    tmp_path: Path,
    status: int,
    kind: type[LumaRayError],
) -> None:
    simulator.fault("v1", "status", status=status, times=2)
    plain = sample(simulator.url, data)
    with pytest.raises(kind) as caught:
        hook.generate(same(data), tmp_path / "v.mp4")
    assert type(caught.value) is kind
    assert caught.value.status_code == plain.status_code == status
    if status not in (405, 429):
        assert plain.json()["error"] in str(caught.value)
    assert simulator.calls["v1"] == 2
    assert simulator.charges == 0


@pytest.mark.parametrize("data", ["base64"], indirect=True)
def test_a_job_that_fails_on_v1_is_refused_in_the_same_words(
    simulator: Simulator, hook: LumaRayHook, data: dict[str, Any], tmp_path: Path
) -> None:
    simulator.fail_next("The frame shows a person")
    simulator.fail_next("The frame shows a person")
    plain = sample(simulator.url, data)
    with pytest.raises(LumaRayRefused, match="The frame shows a person") as caught:
        hook.generate(same(data), tmp_path / "v.mp4")
    assert caught.value.status_code == plain.status_code == 422
    assert simulator.charges == 0


@pytest.mark.parametrize("content_type", ["image/jpeg", "video/mp4", "application/octet-stream", "text/html"])
def test_a_video_is_recognized_by_its_bytes_whatever_its_type(
    clips: Path,
    monkeypatch: pytest.MonkeyPatch,
    request_: GenerationRequest,
    tmp_path: Path,
    content_type: str,
) -> None:
    with Simulator(
        latency=0, clip_seconds=0.2, api_key=API_KEY, work_dir=clips, v1_content_type=content_type
    ) as simulator:
        set_connection(monkeypatch, simulator.url, timeout=5)
        plain = sample(simulator.url, request_.body())
        generated = LumaRayHook().generate(request_, tmp_path / "v.mp4")
    assert plain.headers["Content-Type"] == content_type
    assert generated.video is not None
    assert generated.video.sha256 == hashlib.sha256(plain.content).hexdigest()


def test_a_json_reply_has_the_videos_url(
    clips: Path, monkeypatch: pytest.MonkeyPatch, request_: GenerationRequest, tmp_path: Path
) -> None:
    with Simulator(
        latency=0, clip_seconds=0.2, api_key=API_KEY, work_dir=clips, v1_reply="json"
    ) as simulator:
        set_connection(monkeypatch, simulator.url, timeout=5)
        hook = LumaRayHook()
        plain = sample(simulator.url, request_.body())
        generated = hook.generate(request_, tmp_path / "v.mp4")
        assert generated.video is None
        assert not (tmp_path / "v.mp4").exists()
        assert generated.url is not None
        assert generated.cost == Decimal("1.6")
        assert generated.request_id == simulator.jobs[1].request_id
        video = hook.download_video(generated.url, tmp_path / "v.mp4")
        expected = requests.get(plain.json()["output"], timeout=5).content
    assert video.sha256 == hashlib.sha256(expected).hexdigest()
    assert generated.url not in repr(generated)


HEADERS: dict[str, Any] = {"x_request_id": "r1", "x_cost": "1.6", "x_remaining_credits": "18.4"}
PAID = GeneratedVideo(
    video=None,
    url="https://x.example/v.mp4",
    request_id="r1",
    cost=Decimal("1.6"),
    remaining_credits=Decimal("18.4"),
)


@pytest.mark.parametrize(
    "body",
    [
        {"output": "https://x.example/v.mp4"},
        {"video": {"url": "https://x.example/v.mp4"}},
        {"data": ["https://x.example/v.mp4"]},
        {"output": "https://x.example/v.mp4", "error": None},
    ],
)
@pytest.mark.parametrize("content_type", ["application/json", "image/jpeg"])
def test_a_url_is_found_in_any_json(
    hook_at: HookAt, request_: GenerationRequest, tmp_path: Path, body: object, content_type: str
) -> None:
    hook, _ = hook_at(http(200, json.dumps(body), Content_Type=content_type, **HEADERS))
    assert hook.generate(request_, tmp_path / "v.mp4") == PAID


def test_the_id_is_taken_from_the_body_if_no_header_has_it(
    hook_at: HookAt, request_: GenerationRequest, tmp_path: Path
) -> None:
    hook, _ = hook_at(to_json({"request_id": "r1", "output": "https://x.example/v.mp4"}))
    assert hook.generate(request_, tmp_path / "v.mp4").request_id == "r1"
    hook, _ = hook_at(to_json({"request_id": "r1", "status": "PROCESSING"}))
    with pytest.raises(LumaRaySubmitUnknown) as caught:
        hook.generate(request_, tmp_path / "v.mp4")
    assert caught.value.request_id == "r1"
    for wrong in (7, "", ["r1"], {"id": "r1"}, "r 1", "\ud800", "r" * 201):
        hook, _ = hook_at(to_json({"request_id": wrong, "output": "https://x.example/v.mp4"}))
        assert hook.generate(request_, tmp_path / "v.mp4").request_id is None


def test_the_id_in_the_body_takes_precedence_over_a_gateways(
    hook_at: HookAt, request_: GenerationRequest, tmp_path: Path
) -> None:
    hook, _ = hook_at(
        to_json({"request_id": "r1", "output": "https://x.example/v.mp4"}, x_request_id="gateway")
    )
    assert hook.generate(request_, tmp_path / "v.mp4").request_id == "r1"
    hook, _ = hook_at(to_json({"request_id": "r1", "status": "PROCESSING"}, x_request_id="gateway"))
    with pytest.raises(LumaRaySubmitUnknown) as caught:
        hook.generate(request_, tmp_path / "v.mp4")
    assert (caught.value.request_id, caught.value.hint) == ("r1", None)
    assert "gateway" not in str(caught.value)


def test_an_error_object_under_200_is_a_refusal(
    simulator: Simulator, hook: LumaRayHook, request_: GenerationRequest, tmp_path: Path
) -> None:
    simulator.fault("v1", "error_object")
    with pytest.raises(LumaRayRefused, match="Something went wrong"):
        hook.generate(request_, tmp_path / "v.mp4")
    assert simulator.charges == 0


def test_a_video_that_broke_off_is_unknown_with_a_possible_id(
    simulator: Simulator, hook: LumaRayHook, request_: GenerationRequest, tmp_path: Path
) -> None:
    simulator.fault("v1", "truncated", times=9)
    with pytest.raises(LumaRaySubmitUnknown) as caught:
        hook.generate(request_, tmp_path / "v.mp4")
    assert (caught.value.request_id, caught.value.hint) == (None, simulator.jobs[0].request_id)
    assert simulator.jobs[0].request_id in str(caught.value)
    assert simulator.calls == {"v1": 1}


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(
            lambda mp4: http(200, mp4[:-1], length=len(mp4), **HEADERS), id="one byte less than announced"
        ),
        pytest.param(
            lambda mp4: http(200, mp4[:1_500_000], length=None, **HEADERS), id="half of it, of unknown length"
        ),
        pytest.param(
            lambda mp4: chunked(mp4[:100], mp4[100:1_500_000], whole=False, **HEADERS),
            id="half of the chunks",
        ),
        pytest.param(
            lambda mp4: http(200, mp4[:1_500_000], **HEADERS), id="half of it, announced as if it were whole"
        ),
        pytest.param(lambda mp4: http(200, mp4[:6], length=len(mp4), **HEADERS), id="six bytes"),
        pytest.param(lambda mp4: http(200, b"", **HEADERS), id="nothing"),
        pytest.param(lambda mp4: http(200, b"\xff\xd8\xff\xe0\0\x10JFIF\0" * 50, **HEADERS), id="an image"),
        pytest.param(lambda mp4: http(200, "This is not a video.", **HEADERS), id="text"),
        pytest.param(lambda mp4: http(200, "<html>Please log in</html>", **HEADERS), id="a page"),
        pytest.param(lambda mp4: http(200, "{}", **HEADERS), id="an empty object"),
        pytest.param(lambda mp4: http(200, '{"output": null}', **HEADERS), id="no output"),
        pytest.param(
            lambda mp4: http(200, '{"a": "https://x.example/1", "b": "https://x.example/2"}', **HEADERS),
            id="two URLs",
        ),
        pytest.param(lambda mp4: http(200, "[" * 100_000, **HEADERS), id="deep nesting"),
        pytest.param(lambda mp4: http(202, '{"status": "QUEUED"}', **HEADERS), id="202"),
    ],
)
def test_any_other_answer_is_unknown_with_a_possible_id(
    hook_at: HookAt, request_: GenerationRequest, tmp_path: Path, mp4: bytes, answer: Callable[[bytes], bytes]
) -> None:
    hook, host = hook_at(answer(mp4))
    with pytest.raises(LumaRaySubmitUnknown) as caught:
        hook.generate(request_, tmp_path / "v.mp4")
    assert len(host.seen) == 1
    assert (caught.value.request_id, caught.value.hint) == (None, "r1")


@pytest.mark.parametrize("header", ["", "r 1", "r" * 201])
def test_an_invalid_header_id_is_not_a_hint(
    hook_at: HookAt, request_: GenerationRequest, tmp_path: Path, header: str
) -> None:
    hook, _ = hook_at(http(200, "{}", x_request_id=header))
    with pytest.raises(LumaRaySubmitUnknown) as caught:
        hook.generate(request_, tmp_path / "v.mp4")
    assert (caught.value.request_id, caught.value.hint) == (None, None)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(http(302, b"", Location="/x", **HEADERS), id="a redirect"),
        pytest.param(http(408, '{"error": "oops"}', **HEADERS), id="408"),
        pytest.param(http(500, '{"error": "oops"}', **HEADERS), id="500"),
        pytest.param(http(504, "<html>Gateway Time-out</html>", **HEADERS), id="504"),
        pytest.param(http(504, "<html>Gate", length=99, **HEADERS), id="504 that broke off"),
    ],
)
def test_a_gateways_answer_is_unknown(
    hook_at: HookAt, request_: GenerationRequest, tmp_path: Path, answer: bytes
) -> None:
    hook, host = hook_at(answer)
    with pytest.raises(LumaRaySubmitUnknown) as caught:
        hook.generate(request_, tmp_path / "v.mp4")
    assert len(host.seen) == 1
    assert (caught.value.request_id, caught.value.hint) == (None, "r1")


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(lambda mp4: http(200, mp4, **HEADERS), id="with its length"),
        pytest.param(lambda mp4: http(200, mp4, length=None, **HEADERS), id="ending with the connection"),
        pytest.param(lambda mp4: chunked(mp4[:3], mp4[3:7], mp4[7:], **HEADERS), id="in odd chunks"),
        pytest.param(
            lambda mp4: http(200, gzip.compress(mp4), Content_Encoding="gzip", **HEADERS), id="compressed"
        ),
        pytest.param(
            lambda mp4: chunked(gzip.compress(mp4), Content_Encoding="gzip", **HEADERS),
            id="compressed chunks",
        ),
    ],
)
def test_the_video_is_complete_however_it_is_sent(
    hook_at: HookAt, request_: GenerationRequest, tmp_path: Path, mp4: bytes, answer: Callable[[bytes], bytes]
) -> None:
    hook, host = hook_at(answer(mp4))
    assert sample(host.url, {}).content == mp4
    generated = hook.generate(request_, tmp_path / "v.mp4")
    assert (tmp_path / "v.mp4").read_bytes() == mp4
    assert generated.video is not None
    assert generated.video.sha256 == hashlib.sha256(mp4).hexdigest()


@pytest.mark.parametrize(
    ("cost", "balance", "read"),
    [
        ("1.6", "18.4", (Decimal("1.6"), Decimal("18.4"))),
        ("0.3333333333", "0.0184921035", (Decimal("0.3333333333"), Decimal("0.0184921035"))),
        ("0", "-0.2", (Decimal(0), Decimal("-0.2"))),
        ("free", "lots", (None, None)),
        ("NaN", "Infinity", (None, None)),
        ("", "", (None, None)),
    ],
)
def test_the_amounts_in_the_headers_are_parsed_exactly_or_not_at_all(
    hook_at: HookAt,
    request_: GenerationRequest,
    tmp_path: Path,
    cost: str,
    balance: str,
    read: tuple[Decimal | None, Decimal | None],
) -> None:
    content = box(b"ftyp", b"isom") + box(b"moov", b"")
    hook, _ = hook_at(http(200, content, x_cost=cost, x_remaining_credits=balance))
    generated = hook.generate(request_, tmp_path / "v.mp4")
    assert (generated.cost, generated.remaining_credits) == read
    assert generated.request_id is None


def test_the_headers_may_be_missing(hook_at: HookAt, request_: GenerationRequest, tmp_path: Path) -> None:
    hook, _ = hook_at(http(200, box(b"ftyp", b"isom") + box(b"moov", b"")))
    generated = hook.generate(request_, tmp_path / "v.mp4")
    assert (generated.request_id, generated.cost, generated.remaining_credits) == (None, None, None)


@pytest.mark.parametrize("place", ["a full disk", "a missing folder"])
def test_a_video_that_cannot_be_written_does_not_lose_its_id(
    hook_at: HookAt, request_: GenerationRequest, tmp_path: Path, mp4: bytes, place: str
) -> None:
    hook, _ = hook_at(http(200, mp4, **HEADERS))
    target = tmp_path / "v.mp4" if place == "a full disk" else tmp_path / "missing" / "v.mp4"
    with no_file_larger_than(50_000), pytest.raises(LumaRayError) as caught:
        hook.generate(request_, target)
    assert isinstance(caught.value, LumaRaySubmitUnknown)
    assert caught.value.hint == "r1"


def test_reading_a_reply_that_is_not_a_video_is_bounded(
    hook_at: HookAt, request_: GenerationRequest, tmp_path: Path
) -> None:
    sent = []

    class Endless:
        def __iter__(self) -> Any:
            yield http(200, b"", length=None, **HEADERS)
            for _ in range(400):
                sent.append(1)
                yield b"x" * 2**20

    hook, _ = hook_at(Endless())
    with pytest.raises(LumaRaySubmitUnknown) as caught:
        hook.generate(request_, tmp_path / "v.mp4")
    assert caught.value.hint == "r1"
    assert len(sent) < 200


@pytest.mark.parametrize("data", ["base64"], indirect=True)
def test_v1_has_a_longer_timeout_than_other_calls(
    monkeypatch: pytest.MonkeyPatch, data: dict[str, Any], tmp_path: Path
) -> None:
    with Simulator(latency=0.6, clip_seconds=0.2, api_key=API_KEY) as slow:
        set_connection(monkeypatch, slow.url, timeout=0.2)
        assert LumaRayHook().generate(same(data), tmp_path / "v.mp4").video is not None
