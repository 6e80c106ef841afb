"""Checks the arguments of a clip before any money is spent: untemplated ones at parse time, the others rendered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any, Literal, Protocol, get_args

from airflow_provider_luma.exceptions import LumaRayConfigurationError
from airflow_provider_luma.segmind.models import model_info
from airflow_provider_luma.segmind.money import money

FrameTransfer = Literal["auto", "url", "upload", "base64"]
ApiVersion = Literal["auto", "v2", "v1"]
IfExists = Literal["overwrite", "reuse", "fail", "keep"]
OnUnknownSubmit = Literal["fail", "resubmit"]


class Arguments(Protocol):
    """The arguments of the operator, or of the hook's ``image_to_video``, as attributes."""

    prompt: str
    start_frame: str | None
    output_path: str
    model: str
    resolution: str
    aspect_ratio: str
    loop: bool
    concepts: Sequence[str] | None
    extra_parameters: Mapping[str, Any] | None
    frame_transfer: FrameTransfer
    api_version: ApiVersion
    if_exists: IfExists
    on_unknown_submit: OnUnknownSubmit
    min_remaining_credits: float | Decimal | None
    generation_tag: str | None
    timeout: float | timedelta
    poll_interval: float | timedelta | None
    luma_ray_conn_id: str
    storage_conn_id: str | None


_CHOICES = {
    "frame_transfer": get_args(FrameTransfer),
    "api_version": get_args(ApiVersion),
    "if_exists": get_args(IfExists),
    "on_unknown_submit": get_args(OnUnknownSubmit),
}


def require(holds: bool, name: str, value: object, right: str) -> None:
    """Reject an argument's value unless ``holds``, and say what would be right."""
    if not holds:
        raise LumaRayConfigurationError(f"{name}={value!r} is wrong: give {right}.")


def seconds(interval: object) -> float | None:
    """Return an interval in seconds; None if it is not an interval."""
    if isinstance(interval, timedelta):
        return interval.total_seconds()
    return float(interval) if isinstance(interval, int | float) and not isinstance(interval, bool) else None


def duration(timeout: float | timedelta) -> timedelta:
    """Convert seconds to a timedelta; return a timedelta unchanged."""
    return timeout if isinstance(timeout, timedelta) else timedelta(seconds=timeout)


def as_text(path: Any) -> Any:
    """Convert a path object to str; return anything else unchanged."""
    return str(path) if hasattr(type(path), "__fspath__") else path


def check_arguments(given: Arguments) -> None:
    """Check the untemplated arguments."""
    for name, choices in _CHOICES.items():
        value = getattr(given, name)
        require(value in choices, name, value, f"one of {', '.join(choices)}")
    path: object = as_text(given.output_path)
    require(
        not (isinstance(path, str) and "try_number" in path),
        "output_path",
        path,
        "a path that is the same in each try: a retry finds its bought job by the record next to the video",
    )
    for name, more in (("timeout", "or a timedelta"), ("poll_interval", "a timedelta, or None")):
        interval = getattr(given, name)
        is_right = (pause := seconds(interval)) is not None and 0 < pause < 1e9
        is_left_out = interval is None and name == "poll_interval"
        require(is_right or is_left_out, name, interval, f"a positive number of seconds, {more}")
    least = given.min_remaining_credits
    require(
        least is None or ((floor := money(least)) is not None and floor >= 0),
        "min_remaining_credits",
        least,
        "a non-negative number of US dollars, or None",
    )


def check_place(given: Arguments) -> None:
    """Check the rendered arguments that locate the record; without it nothing is known of earlier attempts."""
    for name in ("output_path", "luma_ray_conn_id"):
        value = getattr(given, name)
        require(isinstance(value, str) and value.strip() != "", name, value, "a non-empty string")

    path = given.output_path
    require(
        "://" in path or path.startswith(("/", "~")),
        "output_path",
        path,
        "an absolute path or a URI: a retry may run in another folder, and finds its job by this path",
    )
    require(
        path.lower().endswith((".mp4", "/")),
        "output_path",
        path,
        "a path ending in '.mp4', or in '/' for a folder",
    )


def check_inputs(given: Arguments) -> None:
    """Check the other rendered arguments, and those that a mapped task may have got from an XCom."""
    for name in ("prompt", "model", "resolution", "aspect_ratio"):
        value = getattr(given, name)
        require(isinstance(value, str) and value.strip() != "", name, value, "a non-empty string")
    for name in ("prompt", "start_frame"):
        value = getattr(given, name)
        require(
            value != "None",
            name,
            value,
            "another string; templates render a missing XCom as 'None'",
        )
    require(isinstance(given.loop, bool), "loop", given.loop, "True or False, not a string")
    concepts: object = given.concepts
    require(
        concepts is None
        or (isinstance(concepts, list | tuple) and all(isinstance(item, str) for item in concepts)),
        "concepts",
        concepts,
        "a list of camera moves such as ['push_in']",
    )
    extra: object = given.extra_parameters
    require(
        extra is None or isinstance(extra, Mapping),
        "extra_parameters",
        extra,
        "a dict of further body fields",
    )
    start_frame: object = given.start_frame
    if start_frame is None:
        require(
            not model_info(given.model).frame_required,
            "start_frame",
            None,
            f"an image; without one, {given.model} would animate the vendor's sample picture and charge for it",
        )
    else:
        require(
            isinstance(start_frame, str) and start_frame.strip() != "",
            "start_frame",
            start_frame,
            "an image file or an http(s) URL",
        )
