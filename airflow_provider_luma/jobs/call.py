"""The hook's ``image_to_video``: the operator's record and promise for code outside an operator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, fields
from datetime import timedelta
from decimal import Decimal
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any

from airflow.sdk import get_current_context

from airflow_provider_luma.exceptions import LumaRayConfigurationError, LumaRayError, LumaRayRefused
from airflow_provider_luma.jobs.checks import (
    ApiVersion,
    Arguments,
    FrameTransfer,
    IfExists,
    OnUnknownSubmit,
    as_text,
    check_arguments,
    require,
)
from airflow_provider_luma.jobs.order import inputs_of, job_of, outputs_of
from airflow_provider_luma.jobs.record import Clears, Identity, JobRecord
from airflow_provider_luma.segmind.models import DEFAULT_MODEL

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_luma.hooks.luma_ray import LumaRayHook

#: Where an attempt keeps its calls, in the context that Airflow creates for each attempt.
_CALLS = "luma_ray_calls"

#: What errors say to a task, and what that means outside tasks.
_FOR_A_SCRIPT = {
    "clear the task": "call it again",
    "Clear the task": "Call it again",
    " Airflow will not retry.": "",
    ", and Airflow will not retry it": "",
    ", and Airflow will not retry": "",
    "a retry": "the next call",
    "each task instance": "each key",
}


@dataclass(kw_only=True, eq=False)
class Clip:
    """The operator's arguments, with its defaults. The ``repr`` has those that tell one clip from another."""

    prompt: str
    start_frame: str | None
    output_path: str
    model: str = DEFAULT_MODEL
    resolution: str = "720p"
    aspect_ratio: str = "1:1"
    loop: bool = False
    concepts: Sequence[str] | None = None
    extra_parameters: Mapping[str, Any] | None = None
    generation_tag: str | None = None
    luma_ray_conn_id: str
    storage_conn_id: str | None = None
    frame_transfer: FrameTransfer = field(default="auto", repr=False)
    api_version: ApiVersion = field(default="auto", repr=False)
    if_exists: IfExists = field(default="overwrite", repr=False)
    on_unknown_submit: OnUnknownSubmit = field(default="fail", repr=False)
    min_remaining_credits: float | Decimal | None = field(default=None, repr=False)
    timeout: float | timedelta = field(default=timedelta(minutes=15), repr=False)
    poll_interval: float | timedelta | None = field(default=None, repr=False)

    @classmethod
    def of(cls, arguments: Arguments) -> Clip:
        """Return what an operator asks for."""
        return cls(**{one.name: getattr(arguments, one.name) for one in fields(cls)})


def image_to_video(
    hook: LumaRayHook,
    key: str | None,
    start_frame: str | PathLike[str] | None,
    output_path: str | PathLike[str],
    **arguments: Any,
) -> dict[str, Any]:
    """See ``LumaRayHook.image_to_video``."""
    clip = Clip(
        start_frame=as_text(start_frame),
        output_path=as_text(output_path),
        luma_ray_conn_id=hook.luma_ray_conn_id,
        **arguments,
    )
    check_arguments(clip)
    given: object = key
    require(
        given is None or (isinstance(given, str) and given.strip() != ""),
        "key",
        key,
        "a non-empty string, or None",
    )
    context = _running_task()
    if context is None:
        if key is None:
            raise LumaRayConfigurationError(
                "Outside a task, image_to_video needs a key such as key='coffee'; the same key finds the clip again."
            )
        job = job_of(clip, hook, Identity.outside_tasks(key), partial(inputs_of, clip))
    else:
        job = job_of(
            clip,
            hook,
            Identity.of(context, key),
            partial(inputs_of, clip),
            store=context.get("task_state_store"),
            cleared=Clears.of(context),
            bought=lambda take: context["ti"].xcom_push(key="request_id", value=take.request_id),
        )
    with only_clip(context, key, clip) if context else _outside_tasks():
        video = job.ensure_bought()
    with nullcontext() if context else _outside_tasks():
        if isinstance(video, JobRecord):
            video = job.deliver(job.wait(video))
    return outputs_of(video, job.hook, clip, is_new=job.is_new)


@contextmanager
def _outside_tasks() -> Iterator[None]:
    """Make an error's advice fit a caller that no task runs."""
    try:
        yield
    except LumaRayError as error:
        standing, remedy = error.standing or error.money, error.remedy
        for in_a_task, here in _FOR_A_SCRIPT.items():
            standing, remedy = standing.replace(in_a_task, here), remedy.replace(in_a_task, here)
        raise error.with_context(None, standing, remedy) from None


def _running_task() -> Context | None:
    try:
        return get_current_context()
    except RuntimeError:
        return None


@contextmanager
def only_clip(context: Context, key: str | None, clip: Clip) -> Iterator[None]:
    """Refuse a second clip with the same key in one attempt; an operator's own clip is the one without a key.

    A retry could not tell it from the first one with changed inputs, and would return the first. One that is refused,
    and so not bought, does not count: the task may fall back to another frame or model at the same path.
    """
    asked, output_path = asked_first(context, key, clip)
    if asked != repr(clip) and not (asked is None and output_path == clip.output_path):
        named = f"with key={key!r}" if key is not None else "without a key"
        raise LumaRayConfigurationError(
            f"This attempt has already asked for another clip {named} (output_path={output_path!r}).",
            remedy="Give each call of image_to_video its own key, such as key='tea', and its own output_path. A clip "
            "that was bought without a key is found without one. Clear the task.",
        ).with_context(None, "This call bought nothing.")

    try:
        yield
    except (LumaRayConfigurationError, LumaRayRefused):
        # The next one goes to the same path, where a retry finds it.
        _calls(context)[key] = (None, clip.output_path)
        raise


def asked_first(context: Context, key: str | None, clip: Clip) -> tuple[str | None, str]:
    """Return what this attempt has asked for first with a key, and its ``output_path``: this clip, if nothing yet.

    None instead of what was asked for if it was refused.
    """
    # As text, since its dicts and lists may be changed before the next call.
    return _calls(context).setdefault(key, (repr(clip), clip.output_path))


def _calls(context: Context) -> dict[str | None, tuple[str | None, str]]:
    shared: dict[str, Any] = context  # type: ignore[assignment]  # a task may keep additional names in it
    calls: dict[str | None, tuple[str | None, str]] = shared.setdefault(_CALLS, {})
    return calls
