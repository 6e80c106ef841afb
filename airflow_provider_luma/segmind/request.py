"""The body of a paid request. Pure.

Fields from https://www.segmind.com/models/luma-ray-img-2-video/api, compiled 2026-11-22.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_luma.exceptions import LumaRayConfigurationError
from airflow_provider_luma.segmind.models import SUCCESSOR, model_info


@dataclass(frozen=True)
class GenerationRequest:
    """The inputs of one clip.

    :param model: the model's slug
    :param prompt: what to render
    :param start_frame: a URL, bare base64, or None for models that need only text
    :param loop: whether the clip ends where it began
    :param resolution: 540p, 720p, 1080p or 4k, where the model offers them
    :param aspect_ratio: width to height, such as 16:9
    :param concepts: camera moves
    :param extra_parameters: additional body fields, passed through unchanged
    """

    model: str
    prompt: str
    start_frame: str | None = field(repr=False)
    loop: bool = False
    resolution: str = "720p"
    aspect_ratio: str = "1:1"
    concepts: tuple[str, ...] = ()
    extra_parameters: Mapping[str, Any] = field(default_factory=dict)

    def parameters(self) -> dict[str, Any]:
        """Return the body without the frame, and without default values of fields that the model does not list."""
        model = model_info(self.model)
        ours: dict[str, Any] = {"prompt": self.prompt}
        for name, default in (("loop", False), ("resolution", "720p"), ("aspect_ratio", "1:1")):
            value = getattr(self, name)
            if name in model.fields or value != default:
                ours[name] = value
        if self.concepts:
            ours["concepts"] = list(self.concepts)
        managed = {"prompt", "loop", "resolution", "aspect_ratio", "concepts", model.frame_field}
        if clash := sorted(managed & set(self.extra_parameters)):
            raise LumaRayConfigurationError(
                f"extra_parameters names {clash}, which have their own arguments."
            )
        try:
            json.dumps(dict(self.extra_parameters), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise LumaRayConfigurationError(
                f"extra_parameters={dict(self.extra_parameters)!r} is wrong: give JSON values ({error})."
            ) from None
        return ours | dict(self.extra_parameters)

    def body(self) -> dict[str, Any]:
        """Return the submit's JSON body."""
        body = self.parameters()
        if self.start_frame is not None:
            body[model_info(self.model).frame_field] = self.start_frame
        return body

    def doubts(self) -> list[str]:
        """Return warnings about undocumented values; only warnings, as the vendor has the last word."""
        model = model_info(self.model)
        if not model.values:
            return [f"model {self.model!r} is not in the catalogue; its price is unknown"]
        doubts = []
        for name, value in self.parameters().items():
            allowed = model.values.get(name)
            unknown = [
                v for v in (value if isinstance(value, list) else [value]) if allowed and v not in allowed
            ]
            if unknown:
                given = unknown if isinstance(value, list) else value
                doubts.append(
                    f"{name}={given!r} is not among the documented values: {', '.join(allowed or ())}"
                )
            elif name not in model.fields:
                doubts.append(f"the field {name!r} is not documented for {self.model}; it is sent unchanged")
        if self.model == SUCCESSOR and self.extra_parameters.get("duration") == "10s":
            doubts.append(
                "duration='10s' is for clips without a start frame; with one, Ray 3.2 renders 5 seconds"
            )
        return doubts
