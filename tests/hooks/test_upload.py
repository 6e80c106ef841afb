"""Uploading a frame: the vendor gets the file's bytes, and the caller gets their URL."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from PIL import Image

from airflow_provider_luma.exceptions import (
    LumaRayAuthenticationError,
    LumaRayConfigurationError,
    LumaRayError,
    LumaRayRateLimited,
    LumaRayRefused,
    LumaRayUnavailable,
)
from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.simulator import Simulator
from tests.hooks.peer import HANG_UP, RESET, Peer, http, to_json
from tests.support import set_connection

HookAt = Callable[..., tuple[LumaRayHook, Peer]]


@pytest.mark.parametrize(
    ("kind", "mime"), [("JPEG", "image/jpeg"), ("PNG", "image/png"), ("WEBP", "image/webp")]
)
def test_the_uploaded_bytes_are_the_files(
    simulator: Simulator, hook: LumaRayHook, tmp_path: Path, kind: str, mime: str
) -> None:
    path = tmp_path / "frame.dat"
    Image.linear_gradient("L").convert("RGB").save(path, kind)
    url = hook.upload_image(path)
    assert requests.get(url, timeout=5).content == path.read_bytes()
    assert simulator.calls["upload"] == 1
    assert simulator.charges == 0


def test_the_request_on_the_wire(hook_at: HookAt, frame: Path) -> None:
    hook, host = hook_at(to_json({"urls": ["https://images.segmind.com/assets/me@example.com/x.jpg"]}))
    assert hook.upload_image(frame) == "https://images.segmind.com/assets/me@example.com/x.jpg"
    (seen,) = host.seen
    assert (seen.method, seen.target) == ("POST", "/upload-asset")
    assert seen.json() == {
        "data_urls": [f"data:image/jpeg;base64,{base64.b64encode(frame.read_bytes()).decode()}"]
    }


def test_a_file_that_is_not_an_image_is_not_sent(
    simulator: Simulator, hook: LumaRayHook, tmp_path: Path
) -> None:
    path = tmp_path / "frame.jpg"
    path.write_text("This is not an image.")
    with pytest.raises(LumaRayConfigurationError, match=r"frame\.jpg.*is not an image"):
        hook.upload_image(path)
    with pytest.raises(LumaRayConfigurationError, match="does not exist"):
        hook.upload_image(tmp_path / "missing.jpg")
    assert simulator.calls == {}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, LumaRayRefused),
        (401, LumaRayAuthenticationError),
        (413, LumaRayRefused),
        (429, LumaRayRateLimited),
        (500, LumaRayUnavailable),
        (502, LumaRayUnavailable),
    ],
)
def test_an_upload_is_not_retried_and_its_error_has_its_class(
    simulator: Simulator, hook: LumaRayHook, frame: Path, status: int, kind: type[LumaRayError]
) -> None:
    simulator.fault("upload", "status", status=status, times=9)
    with pytest.raises(kind) as caught:
        hook.upload_image(frame)
    assert caught.value.status_code == status
    assert simulator.calls == {"upload": 1}


@pytest.mark.parametrize(
    "kind", ["reset", "truncated", "broken_json", "empty", "wrong_shape", "html", "error_object"]
)
def test_a_lost_answer_bought_nothing(
    simulator: Simulator, hook: LumaRayHook, frame: Path, kind: str
) -> None:
    simulator.fault("upload", kind, times=9)
    with pytest.raises(LumaRayUnavailable, match="bought nothing"):
        hook.upload_image(frame)
    assert simulator.calls == {"upload": 1}


@pytest.mark.parametrize("answer", [HANG_UP, RESET, b"garbage\r\n\r\n", http(302, Location="/x")])
def test_garbage_on_the_line_bought_nothing(hook_at: HookAt, frame: Path, answer: bytes) -> None:
    hook, host = hook_at(answer)
    with pytest.raises(LumaRayUnavailable):
        hook.upload_image(frame)
    assert len(host.seen) == 1


def test_an_upload_that_hangs_is_given_up(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, frame: Path
) -> None:
    set_connection(monkeypatch, simulator.url, timeout=0.2)
    simulator.fault("upload", "timeout")
    with pytest.raises(LumaRayUnavailable):
        LumaRayHook().upload_image(frame)
