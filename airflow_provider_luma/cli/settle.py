"""What a person settles about a job: it was found, it does not exist, or nobody wants it any more."""

from __future__ import annotations

import argparse
from datetime import timedelta

import pendulum

from airflow_provider_luma.cli import words
from airflow_provider_luma.cli.errors import Refused
from airflow_provider_luma.cli.found import Found, change, find
from airflow_provider_luma.jobs.record import JobRecord, RecordState

#: How long Segmind keeps a clip.
_KEPT = timedelta(days=7)


def adopt(args: argparse.Namespace) -> None:
    """Put the id of a lost call's job on record."""
    from airflow_provider_luma.cli.vendor import check, hook_for

    found = find(args)
    take, request_id = found.take, args.request_id.strip()
    if not request_id:
        raise Refused("REQUEST_ID is empty.", code=2)
    if take.request_id not in (None, request_id):
        raise Refused(
            f"{_on_record(found)} has another id.",
            f"To have the video of {request_id} elsewhere: {words.fetch(request_id)}",
        )
    if take.request_id is None and take.state is not RecordState.INTENT:
        raise Refused(f"{_on_record(found)} is not a call of unknown outcome, so no id can be its own.")
    if take.state in (RecordState.SUBMITTED, RecordState.COMPLETED, RecordState.DELIVERED):
        words.tell(
            f"{_on_record(found)} has that id already; nothing was changed.", words.next_attempt(found)
        )
        return
    row, against = check(hook_for(args, found), found, request_id)
    if against and not args.yes:
        raise _needs_yes(found, against[0].upper() + against[1:])
    at = row.created.isoformat() if row and row.created else take.submitted_at
    after, told = change(
        found, state=RecordState.SUBMITTED, request_id=request_id, submitted_at=at, error=None
    )
    words.tell(
        f"Adopted: {request_id} is the job that {take.identity} bought at {take.intent_at}.",
        f"Although {against}."
        if against
        else "Segmind's request history has it with the same model and inputs.",
        told,
        words.next_attempt(after),
    )


def not_bought(args: argparse.Namespace) -> None:
    """Put on record that a paid call bought nothing."""
    from airflow_provider_luma.cli.vendor import hook_for, lost_job

    found = find(args)
    take = found.take
    if take.state is RecordState.FAILED and take.request_id is None:
        words.tell(f"{_on_record(found)} bought nothing; nothing was changed.", words.next_attempt(found))
        return
    if take.state is not RecordState.INTENT or take.request_id is not None:
        raise Refused(
            f"{_on_record(found)} is no call of unknown outcome.",
            f"To leave it aside and buy anew: {words.command('give-up', found.output)}"
            if _is_bought(take)
            else "",
        )
    row, seen = lost_job(hook_for(args, found), found)
    if row is not None and not args.yes:
        raise _needs_yes(
            found,
            f"Segmind's request history has its job: {row.request_id}, {row.state}",
            f"To have its video: {words.command('adopt', found.output, row.request_id)}",
        )
    if not isinstance(found.store, str) and found.store.task_runs() and not args.yes:
        raise _needs_yes(found, f"{take.identity} runs at this moment, and may be making that very call")
    after, told = change(found, state=RecordState.FAILED, error="A person found that nothing was bought.")
    words.tell(
        f"On record: the paid call of {take.identity} at {take.intent_at} bought nothing.",
        f"{seen}." if seen else "",
        told,
        words.next_attempt(after),
    )


def give_up(args: argparse.Namespace) -> None:
    """Leave a bought job aside."""
    found = find(args)
    take = found.take
    if take.state is RecordState.GIVEN_UP:
        words.tell(
            f"{_on_record(found)} is left aside already; nothing was changed.", words.next_attempt(found)
        )
        return
    if not _is_bought(take):
        raise Refused(
            f"{_on_record(found)} bought nothing, so there is nothing to give up.", words.next_attempt(found)
        )
    money = f"{words.paid(take)}, which Segmind does not refund"
    is_lost = pendulum.now("UTC") - take.started > _KEPT
    if take.state is not RecordState.DELIVERED and not is_lost and not args.yes:
        known = "it is bought" if take.request_id else "it is perhaps bought"
        raise _needs_yes(
            found,
            f"{known[0].upper()}{known[1:]} for {money}, and Segmind keeps its clip for seven days",
            f"To have its video: python -m airflow_provider_luma fetch {take.request_id} PATH"
            if take.request_id
            else "",
        )
    after, told = change(found, state=RecordState.GIVEN_UP)
    perhaps = "paid" if take.request_id else "perhaps paid"
    words.tell(
        f"Given up: {words.job(take)} of {take.identity}; {perhaps} were {money}.",
        told,
        words.next_attempt(after),
    )


def _is_bought(take: JobRecord) -> bool:
    return take.is_in_flight or take.state is RecordState.DELIVERED


def _on_record(found: Found) -> str:
    """Return the job that is on record, as the beginning of a sentence."""
    take = found.take
    named = words.job(take)
    return f"On record at {found.ledger.path}: {named} of {take.identity}, {take.state} ({words.state(take)}). It"


def _needs_yes(found: Found, against: str, instead: str = "") -> Refused:
    return Refused(
        f"{against}.",
        f"{_on_record(found).removesuffix(' It')} Nothing was changed.",
        instead,
        "If it is right all the same, give --yes.",
    )
