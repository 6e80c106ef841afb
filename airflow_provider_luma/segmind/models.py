"""The catalogue: each model's fields, its price, and how long its jobs usually run.

Facts from https://www.segmind.com/models/luma-ray-img-2-video and the other models' pages, compiled 2026-11-22.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches

DEFAULT_MODEL = "luma-ray-img-2-video"
SUCCESSOR = "luma-ray-3-2"

#: From the vendor's model page, as are the concepts; it lists no resolutions, so those are Luma's for Ray 2. Other
#: values only get a warning: the vendor has the last word.
ASPECT_RATIOS = ("1:1", "16:9", "2:3", "3:2", "4:5", "5:4", "9:16", "9:21", "21:9")
RESOLUTIONS = ("540p", "720p", "1080p", "4k")
CONCEPTS = tuple(
    """aerial aerial_drone bolt_cam crane_down crane_up dolly_zoom elevator_doors eye_level ground_level handheld
    high_angle low_angle orbit_left orbit_right over_the_shoulder overhead pan_left pan_right pedestal_down
    pedestal_up pov pull_out push_in roll_left roll_right selfie static tilt_down tilt_up tiny_planet truck_left
    truck_right zoom_in zoom_out""".split()
)


@dataclass(frozen=True)
class Model:
    """One of the vendor's models.

    :param slug: its name in the URL
    :param fields: the documented body fields, without the frame's
    :param price: of the most expensive clip, in US dollars; None where unknown
    :param typical_seconds: how long a job usually takes
    :param frame_field: the body field of the start frame
    :param frame_required: whether a job without a frame would animate the vendor's sample picture, and be charged
    :param takes_base64: whether the frame may be sent inline; otherwise it has to be a URL
    :param values: the documented values of its enumerated fields
    """

    slug: str
    fields: tuple[str, ...]
    price: Decimal | None
    typical_seconds: float
    values: dict[str, tuple[str, ...]]
    frame_field: str = "start_frame"
    frame_required: bool = False
    takes_base64: bool = False


CATALOGUE = {
    model.slug: model
    for model in (
        Model(
            slug=DEFAULT_MODEL,
            fields=("prompt", "loop", "resolution", "aspect_ratio", "concepts"),
            price=Decimal("1.60"),
            typical_seconds=125,
            values={"resolution": RESOLUTIONS, "aspect_ratio": ASPECT_RATIOS, "concepts": CONCEPTS},
            frame_required=True,
            takes_base64=True,
        ),
        Model(
            slug=SUCCESSOR,
            fields=("prompt", "resolution", "duration", "aspect_ratio"),
            price=Decimal("1.32"),
            typical_seconds=52,
            values={"resolution": RESOLUTIONS[:3], "duration": ("5s", "10s")},
        ),
        Model(
            slug="ray-flash-2-720p",
            fields=("prompt", "aspect_ratio", "duration", "loop", "end_image_url"),
            price=Decimal("0.675"),
            typical_seconds=60,
            values={"aspect_ratio": ("1:1", "3:4", "4:3", "9:16", "16:9", "9:21", "21:9")},
            frame_field="start_image_url",
        ),
    )
}


def advice(slug: str) -> str:
    """Return advice on a slug that the vendor does not serve."""
    if slug == DEFAULT_MODEL:  # Luma has withdrawn Ray 2 in places
        return f"{slug!r} is retired there; its successor is {SUCCESSOR!r}."
    if near := get_close_matches(slug, CATALOGUE, n=1):
        return f"Did you mean {near[0]!r}?"
    return f"Check the slug {slug!r} at https://www.segmind.com/models."


def model_info(slug: str) -> Model:
    """Return the catalogue's entry; an unknown slug is assumed to work like the default model, its price unknown."""
    default = CATALOGUE[DEFAULT_MODEL]
    return CATALOGUE.get(slug) or Model(
        slug=slug,
        fields=default.fields,
        price=None,
        typical_seconds=default.typical_seconds,
        values={},
        takes_base64=True,
    )
