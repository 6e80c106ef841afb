"""The body of a paid request, for each model."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_luma.exceptions import LumaRayConfigurationError
from airflow_provider_luma.segmind.models import CATALOGUE, model_info
from airflow_provider_luma.segmind.request import GenerationRequest

FRAME = "https://x.example/f.jpg"


def make(model: str = "luma-ray-img-2-video", **changes: Any) -> GenerationRequest:
    return GenerationRequest(**{"model": model, "prompt": "a road", "start_frame": FRAME} | changes)


@pytest.mark.parametrize(
    ("request_", "body"),
    [
        pytest.param(
            make(),
            {
                "prompt": "a road",
                "start_frame": FRAME,
                "loop": False,
                "resolution": "720p",
                "aspect_ratio": "1:1",
            },
            id="the vendor's sample: its five fields",
        ),
        pytest.param(
            make(loop=True, resolution="1080p", aspect_ratio="16:9", concepts=("pan_left", "zoom_in")),
            {
                "prompt": "a road",
                "start_frame": FRAME,
                "loop": True,
                "resolution": "1080p",
                "aspect_ratio": "16:9",
                "concepts": ["pan_left", "zoom_in"],
            },
            id="everything set",
        ),
        pytest.param(
            make(extra_parameters={"seed": 7, "nested": {"a": [1]}}),
            {
                "prompt": "a road",
                "start_frame": FRAME,
                "loop": False,
                "resolution": "720p",
                "aspect_ratio": "1:1",
                "seed": 7,
                "nested": {"a": [1]},
            },
            id="further fields pass through",
        ),
        pytest.param(
            make("luma-ray-3-2", extra_parameters={"duration": "5s"}),
            {
                "prompt": "a road",
                "start_frame": FRAME,
                "resolution": "720p",
                "aspect_ratio": "1:1",
                "duration": "5s",
            },
            id="luma-ray-3-2 has no loop",
        ),
        pytest.param(
            make("luma-ray-3-2", loop=True),
            {
                "prompt": "a road",
                "start_frame": FRAME,
                "resolution": "720p",
                "aspect_ratio": "1:1",
                "loop": True,
            },
            id="what the user sets is sent, documented or not",
        ),
        pytest.param(
            make("ray-flash-2-720p", aspect_ratio="16:9"),
            {"prompt": "a road", "start_image_url": FRAME, "loop": False, "aspect_ratio": "16:9"},
            id="ray-flash-2-720p names the frame differently",
        ),
        pytest.param(
            make("ray-flash-2-720p", start_frame=None, extra_parameters={"end_image_url": FRAME}),
            {"prompt": "a road", "loop": False, "aspect_ratio": "1:1", "end_image_url": FRAME},
            id="no start frame",
        ),
        pytest.param(
            make("luma-ray-9"),
            {
                "prompt": "a road",
                "start_frame": FRAME,
                "loop": False,
                "resolution": "720p",
                "aspect_ratio": "1:1",
            },
            id="an unknown model is sent the default one's fields",
        ),
    ],
)
def test_body(request_: GenerationRequest, body: dict[str, Any]) -> None:
    assert request_.body() == body
    assert {name: request_.body()[name] for name in request_.parameters()} == request_.parameters()
    assert FRAME not in request_.parameters().values() or "end_image_url" in body


@pytest.mark.parametrize(
    ("model", "name"),
    [
        *(
            ("luma-ray-img-2-video", name)
            for name in "prompt start_frame loop resolution aspect_ratio concepts".split()
        ),
        ("luma-ray-3-2", "start_frame"),
        ("luma-ray-3-2", "loop"),
        ("ray-flash-2-720p", "start_image_url"),
        ("luma-ray-9", "start_frame"),
    ],
)
def test_extra_parameters_cannot_override_an_argument(model: str, name: str) -> None:
    request = make(model, extra_parameters={name: "other", "seed": 1})
    for method in (request.parameters, request.body, request.doubts):
        if method == request.doubts and model == "luma-ray-9":
            continue
        with pytest.raises(
            LumaRayConfigurationError,
            match=rf"extra_parameters names \['{name}'\].*\nThis attempt bought nothing",
        ):
            method()


@pytest.mark.parametrize(
    ("request_", "doubts"),
    [
        pytest.param(make(), [], id="the sample"),
        pytest.param(
            make(resolution="4k", aspect_ratio="9:21", concepts=("truck_left",)), [], id="documented values"
        ),
        pytest.param(make(resolution="8k"), ["resolution='8k'", "540p, 720p, 1080p, 4k"], id="a resolution"),
        pytest.param(make(aspect_ratio="3:4"), ["aspect_ratio='3:4'", "16:9"], id="an aspect ratio"),
        pytest.param(
            make(concepts=("pan_left", "barrel_roll")), ["concepts=['barrel_roll']", "zoom_in"], id="a move"
        ),
        pytest.param(make(extra_parameters={"seed": 1}), ["luma-ray-img-2-video", "'seed'"], id="a field"),
        pytest.param(
            make("luma-ray-3-2", resolution="4k"), ["resolution='4k'", "1080p"], id="another model's value"
        ),
        pytest.param(make("luma-ray-3-2", loop=True), ["luma-ray-3-2", "'loop'"], id="another model's field"),
        pytest.param(
            make("luma-ray-3-2", extra_parameters={"duration": "5s"}), [], id="luma-ray-3-2's own field"
        ),
        pytest.param(
            make("luma-ray-3-2", extra_parameters={"duration": "5"}),
            ["duration='5' is not among the documented values: 5s, 10s"],
            id="another spelling",
        ),
        pytest.param(
            make("luma-ray-3-2", extra_parameters={"duration": "10s"}),
            ["duration='10s' is for clips without a start frame"],
            id="an image-anchored clip has five seconds",
        ),
        pytest.param(make("ray-flash-2-720p", aspect_ratio="3:4"), [], id="ray-flash's own value"),
        pytest.param(
            make("ray-flash-2-720p", aspect_ratio="2:3"),
            ["aspect_ratio='2:3'", "3:4"],
            id="not ray-flash's",
        ),
        pytest.param(
            make("ray-flash-2-720p", aspect_ratio="16:9", extra_parameters={"end_image_url": FRAME}),
            [],
            id="ray-flash's end frame is documented",
        ),
        pytest.param(
            make("luma-ray-9"), ["'luma-ray-9' is not in the catalogue", "price"], id="an unknown model"
        ),
    ],
)
def test_undocumented_values_are_named_with_the_documented_ones(
    request_: GenerationRequest, doubts: list[str]
) -> None:
    found = request_.doubts()
    assert len(found) == bool(doubts)
    for text in doubts:
        assert text in found[0]


def test_each_warning_is_one_sentence() -> None:
    assert (
        len(
            make(
                resolution="8k", aspect_ratio="3:4", concepts=("a", "b"), extra_parameters={"x": 1, "y": 2}
            ).doubts()
        )
        == 5
    )


def test_a_request_does_not_show_its_frame() -> None:
    assert FRAME not in repr(make())


@pytest.mark.parametrize("slug", CATALOGUE)
def test_the_catalogue_describes_each_model(slug: str) -> None:
    model = model_info(slug)
    assert model.slug == slug
    assert model.price
    assert model.typical_seconds > 0
    assert set(model.values) <= set(model.fields)
    assert model.frame_field not in model.fields


def test_prices_and_times_are_the_vendors() -> None:
    assert {slug: (str(model.price), model.typical_seconds) for slug, model in CATALOGUE.items()} == {
        "luma-ray-img-2-video": ("1.60", 125),
        "luma-ray-3-2": ("1.32", 52),
        "ray-flash-2-720p": ("0.675", 60),
    }


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), {"a": [float("-inf")]}, {1, 2}, object(), b"x"]
)
def test_extra_parameters_that_json_cannot_carry_are_refused_before_anything_is_bought(value: object) -> None:
    with pytest.raises(LumaRayConfigurationError, match="give JSON values") as refused:
        make(extra_parameters={"seed": value}).body()
    assert "This attempt bought nothing" in str(refused.value)


def test_an_unknown_model_has_no_price_and_otherwise_the_defaults() -> None:
    model = model_info("luma-ray-9")
    assert model.takes_base64
    assert model.values == {}
    assert (model.slug, model.price, model.frame_field) == ("luma-ray-9", None, "start_frame")
    assert model.typical_seconds > 0
