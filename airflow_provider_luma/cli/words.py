"""Describes jobs on record for people."""

from __future__ import annotations

import argparse
import shlex

from airflow_provider_luma.cli.errors import Refused
from airflow_provider_luma.cli.found import Found
from airflow_provider_luma.exceptions import LumaRayError
from airflow_provider_luma.jobs.decision import Action, decide
from airflow_provider_luma.jobs.record import JobRecord, RecordState
from airflow_provider_luma.segmind.ids import parse_id
from airflow_provider_luma.segmind.models import model_info
from airflow_provider_luma.segmind.money import usd

_STATES = {
    RecordState.INTENT: "may be bought: its paid call was about to be made, and the outcome is not on record",
    RecordState.SUBMITTED: "bought, not known to be ready yet",
    RecordState.COMPLETED: "bought and ready at Segmind, not delivered yet",
    RecordState.DELIVERED: "bought and delivered",
    RecordState.FAILED: "failed, and not billed",
    RecordState.GIVEN_UP: "given up by a person",
}


def request_id(args: argparse.Namespace) -> str:
    """Return the request id in the arguments.

    :raises Refused: it cannot be a request id
    """
    parsed = parse_id(args.request_id)
    if parsed is None:
        raise Refused(f"{args.request_id!r} is not a request id.", code=2)
    return parsed


def fetch(request_id: str) -> str:
    """Return the command line that fetches a clip; the reader fills in the path."""
    return f"python -m airflow_provider_luma fetch {shlex.quote(request_id)} PATH"


def state(take: JobRecord) -> str:
    """Return how far a job got."""
    return _STATES[take.state]


def job(take: JobRecord) -> str:
    """Return a job's name for a sentence."""
    return f"job {take.request_id}" if take.request_id else f"the job of the paid call of {take.intent_at}"


def price(model: str) -> str:
    """Return what another clip costs."""
    known = model_info(model).price
    return "at an unknown price" if known is None else f"for about {usd(known)}"


def paid(take: JobRecord) -> str:
    """Return what a job cost, or will probably cost."""
    if take.cost is not None:
        return usd(take.cost)
    known = model_info(take.model).price
    return "an unknown amount" if known is None else f"about {usd(known)}"


def next_attempt(found: Found) -> str:
    """Return what the task's next attempt will do, as a sentence."""
    take, identity = found.take, found.take.identity
    who = f"The next attempt of {identity}, its inputs unchanged,"
    cleared = take.cleared
    if take.state is RecordState.GIVEN_UP and identity.is_of_task:
        who = f"Once {identity} is cleared, its inputs unchanged, it"
        cleared = cleared.model_copy(
            update={name: (number or 0) + 1 for name, number in cleared if number is not None}
        )
    if not found.has_file and take.state is RecordState.DELIVERED:
        return f"{who} returns its video, or fetches it again if it is gone; it buys nothing."
    place = found.place()
    try:
        decision = decide(
            found.standing,
            place,
            identity=identity,
            cleared=cleared,
            fingerprint=take.fingerprint,
            frame=take.frame_identity,
            output_path=str(found.output),
            if_exists="overwrite",
        )
    except LumaRayError as error:
        return f"{who} stops: {error.cause}"
    wanted = decision.take or take
    does = {
        Action.BUY: f"buys a clip {price(take.model)}",
        Action.CHECK_FAILED: f"asks Segmind once more about {job(wanted)}, and if it FAILED buys a clip "
        f"{price(take.model)}",
        Action.LOOK_UP: f"looks for {job(wanted)} in Segmind's request history; it buys nothing, unless "
        "on_unknown_submit='resubmit' tells it to",
        Action.REATTACH: f"re-attaches to {job(wanted)} and fetches its video; it buys nothing",
        Action.RETURN: "returns the existing video; it buys nothing",
        Action.REUSE: "reuses the existing video; it buys nothing",
    }[decision.action]
    other = place.is_taken and (place.holds is None or place.holds.identity != identity)
    unless = (
        " (With if_exists='reuse' or 'keep' it takes the existing file, with 'fail' it stops, unless you move it away.)"
        if other and decision.action in (Action.BUY, Action.REATTACH)
        else ""
    )
    return f"{who} {does}.{unless}"
