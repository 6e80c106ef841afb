"""Choices where the sources leave the vendor's behaviour open."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass

from airflow_provider_luma.simulator.history import SHAPES

ID_STYLES = ("dashes", "plain")
HISTORY_SHAPES = tuple(SHAPES)
_V1_REPLIES = ("video", "json")


@dataclass(frozen=True)
class Habits:
    """How this vendor replies.

    :param history_lag: seconds until a job is in the history
    :param history_shape: the envelope of the history's rows
    :param id_style: "plain" if status and result write a job's id without dashes, and accept it with
        and without
    :param download_validators: whether videos have `ETag` and `Last-Modified`
    :param v1_content_type: the Content-Type of v1's videos
    :param v1_reply: whether v1 answers with the video, or with JSON that has its URL
    """

    history_lag: float = 0.0
    history_shape: str = "data"
    id_style: str = "dashes"
    download_validators: bool = True
    v1_content_type: str = "video/mp4"
    v1_reply: str = "video"

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("history_shape", self.history_shape, HISTORY_SHAPES),
            ("id_style", self.id_style, ID_STYLES),
            ("v1_reply", self.v1_reply, _V1_REPLIES),
        ):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}: {value!r}")

    def echo(self, request_id: str) -> str:
        """Write an id as status and result do."""
        return request_id.replace("-", "") if self.id_style == "plain" else request_id

    def read_id(self, given: str) -> str:
        """Return the id that a request refers to."""
        if self.id_style == "plain" and re.fullmatch("[0-9a-f]{32}", given):
            return str(uuid.UUID(given))
        return given
