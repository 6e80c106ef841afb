"""What to do about a job, from what is on record and what lies at the video's path. Pure."""

from __future__ import annotations

from enum import Enum

from airflow_provider_luma.exceptions import LumaRayConfigurationError
from airflow_provider_luma.jobs.record import IN_FLIGHT, Identity, JobRecord, RecordState


class Action(Enum):
    """The next step of a task instance's attempt."""

    #: Buy a job.
    BUY = "buy"
    #: A paid call's outcome is unknown: look it up.
    LOOK_UP = "look up"
    #: Wait for the recorded job, or fetch its video.
    REATTACH = "re-attach"
    #: The recorded video is in its place.
    RETURN = "return"
    #: Take the video that another task instance left, as ``if_exists="reuse"`` says.
    REUSE = "reuse"


def decide(
    own: JobRecord | None,
    other: JobRecord | None,
    *,
    identity: Identity,
    fingerprint: str,
    output_path: str,
    size: int | None,
    if_exists: str,
) -> Action:
    """Return what to do.

    :param own: this task instance's record
    :param other: another task instance's record at the same path
    :param identity: this task instance
    :param fingerprint: of what is asked for now
    :param output_path: where the video goes now
    :param size: of the file at that path in bytes; None where there is none
    :param if_exists: overwrite, reuse or fail
    :raises LumaRayConfigurationError: the path is another task instance's, or taken under ``if_exists="fail"``
    """
    if own and own.fingerprint == fingerprint:
        if own.state is RecordState.INTENT:
            return Action.LOOK_UP
        if own.state is RecordState.DELIVERED and own.output_path == output_path and own.bytes == size:
            return Action.RETURN
        if own.state is not RecordState.FAILED:
            return Action.REATTACH
    if other:
        same = (other.fingerprint, other.bytes) == (fingerprint, size)
        if if_exists == "reuse" and other.state is RecordState.DELIVERED and same and size is not None:
            return Action.REUSE  # a mapping that is expanded anew may give a clip another index
        _refuse_shared_path(other, identity, output_path)
    if size is not None and not _is_ours(own, output_path, size):
        if if_exists == "reuse":
            return Action.REUSE
        if if_exists == "fail":
            raise LumaRayConfigurationError(
                f"output_path {output_path!r} is taken, and if_exists='fail'. Nothing was bought; move the file away, "
                "or set if_exists to 'reuse' or 'overwrite'."
            )
    return Action.BUY


def _is_ours(own: JobRecord | None, output_path: str, size: int) -> bool:
    """Tell whether the file is an earlier take of this task instance's own."""
    takes = [] if own is None else own.history()
    return any(take.get("output_path") == output_path and take.get("bytes") == size for take in takes)


def _refuse_shared_path(other: JobRecord, identity: Identity, output_path: str) -> None:
    same_run = (other.identity.dag_id, other.identity.run_id) == (identity.dag_id, identity.run_id)
    if other.state in IN_FLIGHT:
        job = f"job {other.request_id}" if other.request_id else "a job whose id is not known yet"
        raise LumaRayConfigurationError(
            f"output_path {output_path!r} is in use: {other.identity} has {job} in flight there, so {identity} bought "
            "nothing. Give each task instance a path of its own (one that ends in '/' does); if the other will never "
            "be finished, clear it to collect its video, or delete its record beside the video."
        )
    if same_run and other.state is RecordState.DELIVERED:
        raise LumaRayConfigurationError(
            f"output_path {output_path!r} holds the video of {other.identity} in the same run, so {identity} bought "
            "nothing. Give each task instance a path of its own; one that ends in '/' does."
        )
