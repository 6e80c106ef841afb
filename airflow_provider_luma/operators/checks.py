"""The operator's arguments, checked before any money: those that are not templated at parsing, the others rendered."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from airflow_provider_luma.exceptions import LumaRayConfigurationError
from airflow_provider_luma.segmind.models import model_info
from airflow_provider_luma.segmind.money import money

if TYPE_CHECKING:
    from airflow_provider_luma.operators.luma_ray import LumaRayImageToVideoOperator

_CHOICES = {
    "frame_transfer": ("auto", "url", "upload", "base64"),
    "api_version": ("auto", "v2", "v1"),
    "if_exists": ("overwrite", "reuse", "fail"),
    "on_unknown_submit": ("fail", "resubmit"),
}


def require(holds: bool, name: str, value: object, right: str) -> None:
    """Refuse an argument's value that does not hold, saying what would be right."""
    if not holds:
        raise LumaRayConfigurationError(f"{name}={value!r} is wrong: give {right}. Nothing was bought.")


def seconds(interval: object) -> float | None:
    """Return an interval in seconds; None where it is none."""
    if isinstance(interval, timedelta):
        return interval.total_seconds()
    return float(interval) if isinstance(interval, int | float) and not isinstance(interval, bool) else None


def check_arguments(operator: LumaRayImageToVideoOperator) -> None:
    """Check what is not templated."""
    for name, choices in _CHOICES.items():
        value = getattr(operator, name)
        require(value in choices, name, value, f"one of {', '.join(choices)}")
    timeout: object = operator.timeout
    require(
        isinstance(timeout, timedelta) and timeout > timedelta(0), "timeout", timeout, "a positive timedelta"
    )
    interval = operator.poll_interval
    require(
        interval is None or ((pause := seconds(interval)) is not None and pause > 0),
        "poll_interval",
        interval,
        "a positive number of seconds, a timedelta, or None",
    )
    least = operator.min_remaining_credits
    require(
        least is None or ((floor := money(least)) is not None and floor >= 0),
        "min_remaining_credits",
        least,
        "US dollars as a number that is not negative, or None",
    )


def check_rendered(operator: LumaRayImageToVideoOperator) -> None:
    """Check what is templated, and what a mapped task may have got from an XCom."""
    for name in ("prompt", "output_path", "model", "resolution", "aspect_ratio", "luma_ray_conn_id"):
        value = getattr(operator, name)
        require(isinstance(value, str) and value.strip() != "", name, value, "a text that is not empty")
    require(isinstance(operator.loop, bool), "loop", operator.loop, "True or False, not a text")
    concepts: object = operator.concepts
    require(
        concepts is None
        or (isinstance(concepts, list | tuple) and all(isinstance(item, str) for item in concepts)),
        "concepts",
        concepts,
        "a list of camera moves such as ['push_in']",
    )
    extra: object = operator.extra_parameters
    require(
        extra is None or isinstance(extra, Mapping),
        "extra_parameters",
        extra,
        "a dict of further body fields",
    )
    start_frame: object = operator.start_frame
    if start_frame is None:
        require(
            not model_info(operator.model).frame_required,
            "start_frame",
            None,
            f"an image, for {operator.model} would animate the vendor's own sample picture and charge for it",
        )
    else:
        require(
            isinstance(start_frame, str) and start_frame.strip() != "",
            "start_frame",
            start_frame,
            "an image file or an http(s) URL",
        )
