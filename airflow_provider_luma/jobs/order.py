"""From a clip's arguments to its job, and from its video to what the caller gets; for the operator and the hook."""

from __future__ import annotations

import logging
from collections.abc import Callable
from decimal import Decimal
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from airflow_provider_luma.exceptions import LumaRayConfigurationError, LumaRayError, LumaRayRecordError
from airflow_provider_luma.jobs.checks import Arguments, check_inputs, check_place, duration, seconds
from airflow_provider_luma.jobs.job import Job, Reused
from airflow_provider_luma.jobs.ledger import Ledger, StateStore, clip_name, lateness, state_key
from airflow_provider_luma.jobs.record import Clears, Identity, JobRecord
from airflow_provider_luma.jobs.spec import Inputs, JobSpec
from airflow_provider_luma.media import Frame, read_frame
from airflow_provider_luma.segmind.models import ASPECT_RATIOS, model_info
from airflow_provider_luma.segmind.money import money
from airflow_provider_luma.segmind.ratios import cut_off, nearest
from airflow_provider_luma.segmind.request import GenerationRequest
from airflow_provider_luma.storage import StoredFile, is_lasting, open_file, permission_hint

if TYPE_CHECKING:
    from airflow_provider_luma.hooks.luma_ray import LumaRayHook

#: A share of the frame. Rounding alone cuts a few per cent, which nobody notices.
_NOTABLE_CUT = 0.05

log = logging.getLogger(__name__)


def job_of(
    arguments: Arguments,
    hook: LumaRayHook,
    identity: Identity,
    inputs: Callable[[JobRecord | None], Inputs],
    *,
    store: StateStore | None = None,
    cleared: Clears = Clears(),  # noqa: B008 - it is frozen
    stopped: SimpleQueue[None] | None = None,
    bought: Callable[[JobRecord], None] = lambda take: None,
) -> Job:
    """Return the job that the arguments ask for; nothing is bought yet, and the inputs are not checked.

    :param arguments: rendered
    :param hook: the account
    :param identity: whose job it is
    :param inputs: checks and reads the inputs
    :param store: Airflow's task state store, if there is one
    :param cleared: the task instance's clears as of this attempt
    :param stopped: gets an item when the wait should end
    :param bought: called as soon as the job's id is on record
    """
    try:
        check_place(arguments)
    except LumaRayConfigurationError as error:
        raise _naming_job(error, identity, store) from None
    name = arguments.output_path
    output = open_file(name + clip_name(identity) if name.endswith("/") else name, arguments.storage_conn_id)
    _check_output(output, arguments.output_path)
    is_folder = arguments.output_path.endswith("/")
    folder = open_file(arguments.output_path, arguments.storage_conn_id) if is_folder else None
    tag = arguments.generation_tag
    spec = JobSpec(
        identity=identity,
        cleared=cleared,
        luma_ray_conn_id=arguments.luma_ray_conn_id,
        output=output,
        inputs=inputs,
        frame_transfer=arguments.frame_transfer,
        # Native rendering turns a template's "20261124" into a number; it must remain the same take.
        generation_tag=None if tag is None else str(tag),
        api_version=arguments.api_version,
        if_exists=arguments.if_exists,
        on_unknown_submit=arguments.on_unknown_submit,
        min_remaining_credits=money(arguments.min_remaining_credits),
        timeout=duration(arguments.timeout),
        poll_interval=seconds(arguments.poll_interval),
    )
    ledger = Ledger(identity, output, store, cleared, shared=folder)
    return Job(spec, hook, ledger, SimpleQueue() if stopped is None else stopped, bought)


def _name_connection(uri: str) -> str:
    """Return advice for a bucket's URI that names no connection; else nothing."""
    scheme, separator, rest = uri.partition("://")
    if not separator or "@" in rest.partition("/")[0]:
        return ""
    return f"The path names no connection: write {scheme}://my_conn@{rest}, or give storage_conn_id."


def _check_output(output: StoredFile, given: str) -> None:
    """Refuse a path that cannot hold a video, before any call.

    :param given: the argument's value
    """
    try:
        seen = output.look()
    except Exception as error:
        if is_lasting(error) and not isinstance(error, PermissionError):
            raise LumaRayConfigurationError(f"output_path={given!r} cannot hold a video: {error}.") from None
        raise LumaRayRecordError(
            f"output_path {given!r} cannot be checked: {error}{permission_hint(error)}.",
            remedy=_name_connection(str(output)),
        ) from None
    if seen is not None and seen.is_folder:
        raise LumaRayConfigurationError(
            f"output_path={given!r} is a directory.",
            remedy="End it with '/' to get a file named after the task instance in it.",
        )


def _naming_job(
    error: LumaRayConfigurationError, identity: Identity, store: StateStore | None
) -> LumaRayConfigurationError:
    """Return an error about an ``output_path`` that names no file, with the job that the task instance has in flight.

    The task state store knows it, if there is one; the sidecar file is at the path as it was.
    """
    try:
        raw = store.get(state_key(identity)) if store else None
        takes = JobRecord.load(raw).takes if raw is not None else ()
    except Exception as problem:
        log.warning("Whether a job is in flight is not known: %s", problem)
        return error
    take = max((one for one in takes if one.identity == identity), key=lateness, default=None)
    if take is None or not take.is_in_flight:
        return error
    return error.with_context(
        take.request_id,
        f"This attempt bought nothing; {take.label} is on record for {take.output_path}.",
        f"With output_path={take.output_path!r} again, clear the task: it fetches that job's video.",
    )


def inputs_of(arguments: Arguments, on_record: JobRecord | None) -> Inputs:
    """Check the inputs and read the frame.

    :param on_record: the take on record, if any, which identifies a frame that is gone by now
    """
    check_inputs(arguments)
    frame = _frame(arguments, on_record)
    request = GenerationRequest(
        model=arguments.model,
        prompt=arguments.prompt,
        start_frame=None,
        loop=arguments.loop,
        resolution=arguments.resolution,
        aspect_ratio=_ratio(arguments, frame, on_record),
        concepts=tuple(arguments.concepts or ()),
        extra_parameters=arguments.extra_parameters or {},
    )
    for doubt in request.doubts():
        log.warning("%s", doubt)
    return Inputs(request, frame)


def _ratio(arguments: Arguments, frame: Frame | None, on_record: JobRecord | None) -> str:
    """Return the clip's aspect ratio, and warn if it crops much of the frame."""
    ratio, shape = arguments.aspect_ratio, frame.shape if frame else None
    documented = model_info(arguments.model).values.get("aspect_ratio", ASPECT_RATIOS)
    best = nearest(shape, documented) if shape else None
    if ratio == "auto":
        known = on_record.parameters.get("aspect_ratio") if on_record else None
        if best is None and not isinstance(known, str):
            raise LumaRayConfigurationError(
                f"aspect_ratio='auto' needs the frame's size, but that of {arguments.start_frame!r} cannot be read: "
                f"give one of {', '.join(ASPECT_RATIOS)}."
            )
        return best or str(known)
    if shape and (share := cut_off(shape, ratio)) > _NOTABLE_CUT:
        log.warning(
            "aspect_ratio=%r crops %.0f %% of the start frame (%d x %d); %r crops least, and 'auto' chooses it.",
            ratio,
            100 * share,
            *shape,
            best,
        )
    return ratio


def _frame(arguments: Arguments, on_record: JobRecord | None) -> Frame | None:
    """Check the start frame; if the file is gone, identify it by the record of the job bought with it."""
    if arguments.start_frame is None:
        return None
    try:
        return read_frame(arguments.start_frame, arguments.storage_conn_id)
    except LumaRayConfigurationError as error:
        if on_record is None or on_record.frame_identity is None:
            raise
        source = str(open_file(arguments.start_frame, arguments.storage_conn_id))
        if on_record.start_frame != source:
            raise
        log.warning("%s Identified by the record of job %s.", error.cause, on_record.request_id)
        return Frame(source=source, identity=on_record.frame_identity)


def outputs_of(
    video: JobRecord | Reused, hook: LumaRayHook, arguments: Arguments, *, is_new: bool
) -> dict[str, Any]:
    """Return what the caller gets, and the operator pushes to XCom.

    :param is_new: this attempt bought the job, so that the balance on record is current
    """
    if isinstance(video, JobRecord):
        take: JobRecord | None = video
        path, cost, remaining = video.output_path, video.cost, video.remaining_credits
    else:
        take, path, cost, remaining = video.take, video.path, Decimal(0), None
    if remaining is None or not is_new:
        try:
            remaining = hook.get_credits().total
        except LumaRayError as error:
            log.warning("The current balance is unknown: %s", error.cause)
    return {
        "video_path": path,
        "remaining_credits": None if remaining is None else float(remaining),
        "credits_used": None if cost is None else float(cost),
        "request_id": take.request_id if take else None,
        "model": take.model if take else arguments.model,
    }
