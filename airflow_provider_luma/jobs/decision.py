"""Decides what to do about a job, from its record and the file at the video's path. Pure."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from enum import Enum

from airflow_provider_luma.exceptions import LumaRayConfigurationError, LumaRayDeliveryFailed
from airflow_provider_luma.jobs.advice import give_up
from airflow_provider_luma.jobs.ledger import Standing
from airflow_provider_luma.jobs.record import Clears, Identity, JobRecord, RecordState

#: By what a path's clip is told among a task's takes: a job that is bought before one that perhaps is.
_CERTAINTY = {
    RecordState.INTENT: 1,
    RecordState.SUBMITTED: 2,
    RecordState.COMPLETED: 2,
    RecordState.DELIVERED: 2,
}


class Action(Enum):
    """The next step of a task instance's attempt."""

    #: Buy a job.
    BUY = "buy"
    #: The vendor said FAILED: ask once more, and buy if it says so again.
    CHECK_FAILED = "check failed"
    #: A paid call's outcome is unknown: look it up.
    LOOK_UP = "look up"
    #: Wait for the recorded job, or fetch its video.
    REATTACH = "re-attach"
    #: The recorded video is already delivered.
    RETURN = "return"
    #: Return the file at the path, bought by another task instance or by nobody on record.
    REUSE = "reuse"


@dataclass(frozen=True)
class Decision:
    """The next step, and the take it concerns.

    :param take: None to buy, or to reuse a file without a record
    :param inputs_left_aside: the take was bought for other inputs, and a retry finishes it anyway
    :param leaves: an earlier take of this task instance, in flight, that the new one replaces
    """

    action: Action
    take: JobRecord | None = None
    inputs_left_aside: bool = False
    leaves: JobRecord | None = None


@dataclass(frozen=True)
class Place:
    """What is at the video's path.

    :param is_taken: whether there is a file
    :param holds: the take whose digest the file has; None if it matches no take
    """

    is_taken: bool
    holds: JobRecord | None = None


def decide(
    standing: Standing,
    place: Place,
    *,
    identity: Identity,
    cleared: Clears,
    fingerprint: str | None,
    output_path: str,
    if_exists: str,
    frame: str | None = None,
) -> Decision:
    """Return what to do.

    A retry finishes what its task instance bought, even if the inputs have changed; only a clear or a new run buys for
    the current inputs.

    :param identity: this task instance
    :param cleared: its clears as of this attempt
    :param fingerprint: of the current inputs; None if one of them is no longer valid
    :param output_path: where the video goes now
    :param if_exists: overwrite, reuse, fail or keep
    :param frame: the current frame's digest or URL, by which "keep" tells an edited clip from another one
    :raises LumaRayConfigurationError: the path is another task instance's, or exists under ``if_exists="fail"``
    :raises LumaRayDeliveryFailed: the video is bought, but another task instance has a job in flight at its path
    """
    if if_exists == "keep":
        return _keep(standing, place, identity, cleared, fingerprint, frame, output_path)
    own, other = standing.own, standing.other
    take = _to_finish(standing, identity, cleared, fingerprint)
    if take is not None:
        aside = take.fingerprint != fingerprint and fingerprint is not None
        if aside and not identity.is_of_task:
            raise _is_another_clip(take, identity)
        if other is not None and _holds_path(other, place):
            raise _path_is_busy(take, other, output_path, if_exists)
        if place.holds is not None and place.holds.key == take.key and take.state is RecordState.DELIVERED:
            if take.output_path == output_path:
                return Decision(Action.RETURN, take, aside)
        elif other is not None and not take.is_in_flight:
            if if_exists == "reuse" and place.holds is not None and place.holds.key == other.key:
                return Decision(Action.REUSE, other)
            if place.is_taken and if_exists == "fail":
                raise _path_is_taken(output_path)
        if other is not None and place.is_taken and _has_video_here(other, identity):
            raise LumaRayConfigurationError(
                f"output_path {output_path!r} holds the video of {other.identity} in the same run, so that of "
                f"{take.label} was not put there.",
                # A clear with another path might not find the job, so the path stays.
                remedy="Give each task instance its own path from now on. To get this video, move that one away, then "
                f"clear the task{', with the inputs that it was bought for' if aside else ''}: it fetches it.",
            ).with_context(take.request_id, f"This attempt bought nothing; {take.label} stays on record.")
        if take.state is RecordState.INTENT:
            return Decision(Action.LOOK_UP, take, aside)
        return Decision(Action.REATTACH, take, aside)
    if other is not None:
        same = place.holds is not None and (place.holds.key, other.fingerprint) == (other.key, fingerprint)
        if if_exists == "reuse" and other.state is RecordState.DELIVERED and same:
            return Decision(
                Action.REUSE, other
            )  # a mapping that is expanded anew may give a clip another index
        _refuse_shared_path(other, place, identity, output_path)
    _refuse_given_up(own, cleared, place, if_exists)
    is_own = place.holds is not None and place.holds.identity == identity
    if place.is_taken and not is_own:
        if if_exists == "reuse":
            return Decision(Action.REUSE, place.holds)
        if if_exists == "fail":
            raise _path_is_taken(output_path)
    if (
        own is not None
        and own.state is RecordState.FAILED
        and own.request_id
        and own.fingerprint == fingerprint
    ):
        return Decision(Action.CHECK_FAILED, own)
    return Decision(Action.BUY, leaves=own if own and own.is_in_flight else None)


def _keep(
    standing: Standing,
    place: Place,
    identity: Identity,
    cleared: Clears,
    fingerprint: str | None,
    frame: str | None,
    output_path: str,
) -> Decision:
    """Decide under ``if_exists="keep"``: a path is one clip, whatever its inputs, bought at most once per run."""
    here = location(output_path)
    # The folder may have been moved, with all that is in it, so the path's own take is of this path all the same.
    current = standing.current and standing.current.key
    # The clip may have another index, since its mapping was expanded anew, or its task another name.
    mine = [
        take
        for take in standing.takes
        if (take.identity == identity or _are_of_one_run(take.identity, identity))
        and (location(take.output_path) == here or take.key == current)
    ]
    if not any(_CERTAINTY.get(take.state) for take in mine):  # output_path may have been edited
        mine += [
            take
            for take in standing.takes
            if take.identity == identity
            and (
                take.fingerprint == fingerprint
                or (
                    # A retry with the same frame: its clip was edited, not exchanged.
                    frame is not None
                    and take.frame_identity == frame
                    and not cleared.is_cleared_since(take.cleared)
                )
            )
        ]

    def weight(take: JobRecord) -> tuple[object, ...]:
        # A job that a "resubmit" bought counts more than the earlier call of unknown outcome.
        is_adopted = take.settled == "bought" and take.is_in_flight
        return is_adopted, _CERTAINTY.get(take.state, 0), not take.bought_nothing, take.started, take.key

    take = max(mine, key=weight, default=None)
    if take is not None:
        aside = fingerprint is not None and take.fingerprint != fingerprint
        if aside and not identity.is_of_task and _CERTAINTY.get(take.state):
            raise _is_another_clip(take, identity)
        if take.state is RecordState.INTENT:
            return Decision(Action.LOOK_UP, take, aside)
        other = standing.other
        if other is not None and other.key != take.key and take.is_in_flight and _holds_path(other, place):
            raise _path_is_busy(take, other, output_path, "keep")
        # v1 sends a video once: one whose path had a file by then was put beside it.
        is_beside = location(take.output_path).startswith(f"{here}.")
        if take.is_in_flight or (take.state is RecordState.DELIVERED and (is_beside or not place.is_taken)):
            return Decision(Action.REATTACH, take, aside)
        if take.state is RecordState.DELIVERED and place.holds is not None and place.holds.key == take.key:
            return Decision(Action.RETURN, take, aside)
    if place.is_taken:
        return Decision(Action.REUSE, place.holds)
    if standing.other is not None and _holds_path(standing.other, place):
        _refuse_shared_path(standing.other, place, identity, output_path)
    if take is not None and take.state is RecordState.FAILED and take.request_id:
        return Decision(Action.CHECK_FAILED, take)
    _refuse_given_up(take, cleared, place, "keep")
    return Decision(Action.BUY)


def location(path: str) -> str:
    """Return where a path leads, however it is spelled: without the id of a connection, and without detours."""
    scheme, separator, rest = path.partition("://")
    if not separator:
        return posixpath.normpath(path)
    bucket, _, key = rest.partition("/")
    return f"{scheme}://{bucket.rpartition('@')[2]}/{key}"


def _to_finish(
    standing: Standing, identity: Identity, cleared: Clears, fingerprint: str | None
) -> JobRecord | None:
    """Return the take that this attempt must finish or return; None if it may buy one."""
    own = standing.own
    if own is None:
        return None
    # Whoever adopts a job wants its clip, though the error said to clear the task, and its inputs may have changed.
    for take in reversed(standing.takes):
        if take.identity == identity and take.settled == "bought" and take.is_in_flight:
            return take
    is_bought = own.is_in_flight or own.state is RecordState.DELIVERED
    if is_bought and (own.fingerprint == fingerprint or not cleared.is_cleared_since(own.cleared)):
        return own
    for take in reversed(standing.takes):
        wanted = take.identity == identity and take.fingerprint == fingerprint
        if wanted and (take.is_in_flight or take.state is RecordState.DELIVERED):
            return take
    return None


def _refuse_given_up(own: JobRecord | None, cleared: Clears, place: Place, if_exists: str) -> None:
    away = "move its file away and " if place.is_taken and if_exists != "overwrite" else ""
    if own is not None and own.state is RecordState.GIVEN_UP and cleared.is_retry_of(own.cleared):
        raise LumaRayConfigurationError(
            f"A person has given up {own.label}, and a retry buys no other clip.",
            # A clear while it runs, or with fewer retries, leaves max_tries as it was.
            remedy=f"To buy another clip, {away}clear the task; if you have just done so, once more.",
        )


def _is_another_clip(take: JobRecord, identity: Identity) -> LumaRayConfigurationError:
    return LumaRayConfigurationError(
        f"{identity} has {_job(take)}, bought for other inputs, so nothing was bought for these.",
        remedy="Give these another key and another output_path. With the earlier inputs, this key returns its clip.",
    )


def _path_is_busy(
    take: JobRecord, other: JobRecord, output_path: str, if_exists: str
) -> LumaRayDeliveryFailed:
    bought = "may be bought" if take.state is RecordState.INTENT else "is bought"
    then = "Once that job is done, a retry delivers this one's video."
    if if_exists == "fail" or _are_of_one_run(other.identity, take.identity):
        then = "Once that job is done, move its video away; a retry then delivers this one's."
    return LumaRayDeliveryFailed(
        f"Its path {output_path!r} is in use: {other.identity} has {_job(other)} in flight there.",
        remedy=f"{then}\nIf that job will never be finished:\n  {give_up(output_path, other)}",
    ).with_context(take.request_id, f"The job {bought}, and stays on record.")


def _has_video_here(other: JobRecord, identity: Identity) -> bool:
    """Whether a path is the only place of a clip of the same run."""
    return (
        other.state in (RecordState.COMPLETED, RecordState.DELIVERED)
        and other.moved_to is None
        and _are_of_one_run(other.identity, identity)
    )


def _are_of_one_run(one: Identity, other: Identity) -> bool:
    return one.is_of_task and (one.dag_id, one.run_id) == (other.dag_id, other.run_id)


def _path_is_taken(output_path: str) -> LumaRayConfigurationError:
    return LumaRayConfigurationError(
        f"output_path {output_path!r} already exists, and if_exists='fail'. Move the file away, or set if_exists to "
        "'reuse' or 'overwrite'."
    )


def _holds_path(other: JobRecord, place: Place) -> bool:
    """Whether a path is a job's until it is delivered: not if it has moved on, nor if only that write was lost."""
    is_there = place.holds is not None and place.holds.key == other.key
    return other.is_in_flight and other.moved_to is None and not is_there


def _refuse_shared_path(other: JobRecord, place: Place, identity: Identity, output_path: str) -> None:
    if _holds_path(other, place):
        raise LumaRayConfigurationError(
            f"output_path {output_path!r} is in use: {other.identity} has {_job(other)} in flight there, so {identity} "
            "bought nothing.",
            remedy="Give each task instance its own path; one ending in '/' does.\n"
            f"If the other job will never be finished: {give_up(output_path, other)}",
        )
    is_there = place.is_taken or location(other.output_path) == location(output_path)
    is_bought = other.state is RecordState.DELIVERED or other.is_in_flight
    if is_there and is_bought and other.moved_to is None and _are_of_one_run(other.identity, identity):
        holds = "holds" if place.is_taken else "is that of"
        raise LumaRayConfigurationError(
            f"output_path {output_path!r} {holds} the video of {other.identity} in the same run, so {identity} bought "
            "nothing. Give each task instance its own path; one ending in '/' does."
        )


def _job(record: JobRecord) -> str:
    return f"job {record.request_id}" if record.request_id else "a job whose id is not known yet"
