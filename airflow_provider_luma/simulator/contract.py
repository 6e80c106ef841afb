"""What the vendor accepts: models, their fields, and how it refuses a request body."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any


class RefusalError(Exception):
    """A refusal: the status and the message of the vendor's error envelope."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers or {}


@dataclass(frozen=True)
class Field:
    """A field's JSON type and, if the vendor publishes them, its values."""

    kind: type
    values: frozenset[object] = frozenset()


@dataclass(frozen=True)
class Model:
    """One of the vendor's models."""

    slug: str
    price: Decimal
    frame_field: str
    fields: Mapping[str, Field]
    end_frame_field: str = ""
    only_url_frames: bool = True
    aspect_ratio: str = "16:9"
    price_by_duration: Mapping[object, Decimal] = field(default_factory=dict)

    def price_of(self, body: Mapping[str, Any]) -> Decimal:
        """Return what a job with this body costs."""
        return self.price_by_duration.get(body.get("duration"), self.price)

    def seconds_of(self, body: Mapping[str, Any]) -> float:
        """Return the length of the clip that this body requests."""
        if "duration" not in self.fields:
            return 5.0
        return float(str(body.get("duration", 5)).removesuffix("s"))

    def check(self, body: object) -> dict[str, Any]:
        """Return the body if the vendor would accept it; refuse it otherwise."""
        if not isinstance(body, dict):
            raise RefusalError(400, "Request body must be a JSON object")
        if "prompt" not in body:
            raise RefusalError(400, "Missing required field: prompt")
        known = {name: body[name] for name in self.fields if name in body}
        for name, value in known.items():
            self._check_type(name, value)
        for name, value in known.items():
            allowed = self.fields[name].values
            for item in value if isinstance(value, list) else [value]:
                if allowed and item not in allowed:
                    options = ", ".join(sorted(map(str, allowed)))
                    raise RefusalError(406, f"Invalid value for {name}: {item!r}. Allowed values: {options}")
        return body

    def _check_type(self, name: str, value: object) -> None:
        kind = self.fields[name].kind
        if type(value) is not kind:
            raise RefusalError(400, f"Invalid type for field {name}: expected {kind.__name__}")
        if isinstance(value, list) and not all(isinstance(item, str) for item in value):
            raise RefusalError(400, f"Invalid type for field {name}: expected a list of strings")
        if name == "prompt" and not str(value).strip():
            raise RefusalError(400, "Field prompt must not be empty")
        if name in (self.frame_field, self.end_frame_field) and self.only_url_frames and not is_url(value):
            raise RefusalError(400, f"Field {name} must be a URL")


def is_url(value: object) -> bool:
    """Whether a frame is given as a URL."""
    return str(value).startswith(("http://", "https://"))


def decode_frame(value: str) -> bytes:
    """Return the bytes of a frame given as base64 or as a data URI; ValueError if it is neither."""
    if value.startswith("data:"):
        head, _, value = value.partition(",")
        if not head.startswith("data:image/") or not head.endswith(";base64"):
            raise ValueError("not a base64 data URI of an image")
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ValueError("not valid base64") from error


def check_upload(body: object) -> list[tuple[str, bytes]]:
    """Return the media type and the bytes of each uploaded file, or refuse the upload."""
    urls = body.get("data_urls") if isinstance(body, dict) else None
    if not isinstance(urls, list) or not urls:
        raise RefusalError(400, "data_urls must be a non-empty list of data URLs")
    files = []
    for url in urls:
        if not isinstance(url, str) or not url.startswith("data:image/"):
            raise RefusalError(400, "data_urls takes data URLs of images only")
        try:
            files.append((url[5:].partition(";")[0], decode_frame(url)))
        except ValueError as error:
            raise RefusalError(400, f"Invalid data URL: {error}") from error
    return files


_CONCEPTS = frozenset(
    "aerial aerial_drone bolt_cam crane_down crane_up dolly_zoom elevator_doors eye_level ground_level handheld "
    "high_angle low_angle orbit_left orbit_right over_the_shoulder overhead pan_left pan_right pedestal_down "
    "pedestal_up pov pull_out push_in roll_left roll_right selfie static tilt_down tilt_up tiny_planet truck_left "
    "truck_right zoom_in zoom_out".split()
)
_RATIOS = Field(str, frozenset({"1:1", "16:9", "2:3", "3:2", "4:5", "5:4", "9:16", "9:21", "21:9"}))

MODELS = {
    model.slug: model
    for model in (
        Model(
            slug="luma-ray-img-2-video",
            price=Decimal("1.6"),
            frame_field="start_frame",
            only_url_frames=False,
            aspect_ratio="1:1",
            fields={
                "prompt": Field(str),
                "start_frame": Field(str),
                "loop": Field(bool),
                "resolution": Field(str, frozenset({"540p", "720p", "1080p", "4k"})),
                "aspect_ratio": _RATIOS,
                "concepts": Field(list, _CONCEPTS),
            },
        ),
        Model(
            slug="luma-ray-3-2",
            price=Decimal("1.32"),
            frame_field="start_frame",
            fields={
                "prompt": Field(str),
                "start_frame": Field(str),
                "resolution": Field(str, frozenset({"540p", "720p", "1080p"})),
                "duration": Field(str, frozenset({"5s", "9s", "10s"})),
                "aspect_ratio": _RATIOS,
            },
        ),
        Model(
            slug="ray-flash-2-720p",
            price=Decimal("0.375"),
            price_by_duration={9: Decimal("0.675")},
            frame_field="start_image_url",
            end_frame_field="end_image_url",
            fields={
                "prompt": Field(str),
                "start_image_url": Field(str),
                "end_image_url": Field(str),
                "loop": Field(bool),
                "duration": Field(int, frozenset({5, 9})),
                "aspect_ratio": Field(str, frozenset({"1:1", "3:4", "4:3", "9:16", "16:9", "9:21", "21:9"})),
            },
        ),
    )
}
