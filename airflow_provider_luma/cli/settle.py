"""What a person can settle about a job: it was found, it does not exist, or it is given up."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pendulum

from airflow_provider_luma.cli import words
from airflow_provider_luma.cli.errors import Refused
from airflow_provider_luma.cli.found import Found, change, find
from airflow_provider_luma.jobs import advice
from airflow_provider_luma.jobs.decision import location
from airflow_provider_luma.jobs.delivery import is_in_place
from airflow_provider_luma.jobs.ledger import Ledger
from airflow_provider_luma.jobs.record import JobRecord, RecordState
from airflow_provider_luma.segmind.ids import is_same_id
from airflow_provider_luma.segmind.replies import VendorStatus

#: How long Segmind keeps a clip.
_KEPT = timedelta(days=7)


def adopt(args: argparse.Namespace) -> list[str]:
    """Record the id of a lost call's job."""
    from airflow_provider_luma.cli.vendor import check, hook_for

    request_id = words.request_id(args)
    likely = _about(
        args,
        find(args),
        lambda one: is_same_id(one.request_id, request_id),
        _is_open,
        lambda one: one.state in (RecordState.COMPLETED, RecordState.DELIVERED) and one.request_id is None,
        lambda one: one.bought_nothing or (one.state is RecordState.GIVEN_UP and one.request_id is None),
    )
    first = likely[0]
    take = first.take
    is_gateways = take.api_version == "v1" and take.state is not RecordState.DELIVERED
    if take.request_id and not is_same_id(request_id, take.request_id) and not is_gateways:
        raise Refused(
            f"{_on_record(first)} has another id.",
            f"To fetch the video of {request_id} to another path: {words.fetch(request_id)}",
        )
    is_done = take.state in (RecordState.SUBMITTED, RecordState.COMPLETED, RecordState.DELIVERED)
    if is_same_id(take.request_id, request_id) and is_done:
        return [f"{_on_record(first)} already has that id; nothing was changed.", words.next_attempt(first)]
    if take.request_id is None:
        likely = [one for one in likely if not is_in_place(one.take, one.output)]
        if not likely:
            raise Refused(
                f"{_on_record(first)} is at its path, so it needs no id.", words.next_attempt(first)
            )
    hook = hook_for(args, first)
    checked = [(one, *check(hook, one, request_id)) for one in likely]
    found, row, against = next((one for one in checked if not one[2]), checked[0])
    take = found.take
    known: dict[str, str] = {}
    if take.request_id and not is_same_id(request_id, take.request_id):
        known["answered_id"] = take.request_id
    if against and not args.yes:
        raise _needs_yes(found, f"There is a reason not to adopt it: {against}")
    at = row.created.isoformat() if row and row.created else take.submitted_at
    state = take.state if take.state is RecordState.DELIVERED else RecordState.SUBMITTED
    after, told = change(
        found,
        settled="bought",
        state=state,
        request_id=request_id,
        submitted_at=at,
        error=None,
        **known,
    )
    return [
        f"Adopted: {request_id} is the job that {take.identity} bought at {take.intent_at}.",
        f"Although {against}." if against else "Segmind's request history confirms the model and the inputs.",
        told,
        words.next_attempt(after),
    ]


def not_bought(args: argparse.Namespace) -> list[str]:
    """Record that a paid call bought nothing."""
    from airflow_provider_luma.cli.vendor import hook_for, lost_job
    from airflow_provider_luma.jobs.recovery import is_waiting, longest_call

    found = _about(args, find(args), _is_open)[0]
    take = found.take
    if take.bought_nothing:
        return [f"{_on_record(found)} bought nothing; nothing was changed.", words.next_attempt(found)]
    if not _is_open(take):
        raise Refused(
            f"{_on_record(found)} is not a call of unknown outcome.",
            f"To give it up and buy again: {advice.give_up(found.output, take, of=found.of)}"
            if _is_bought(take)
            else words.next_attempt(found),
        )
    hook = hook_for(args, found)
    judgement = lost_job(hook, found)
    row, seen = judgement.row, judgement.finding
    if row is not None and not args.yes:
        purpose = "put it on record" if row.state is VendorStatus.FAILED else "get its video"
        raise _needs_yes(
            found,
            f"Segmind's request history has its job: {row.request_id}, {row.state}",
            f"To {purpose}: {advice.command('adopt', found.output, row.request_id, call=take, of=found.of)}",
        )
    if judgement.candidates and not args.yes:
        raise _needs_yes(
            found,
            f"{seen}. A clock may have been wrong",
            f"If one of them is its job: {advice.command('adopt', found.output, call=take, of=found.of)} <request id>",
        )
    if (
        is_waiting(take, hook.vendor_now(), longest_call(take.api_version, hook.submit_timeout))
        and not args.yes
    ):
        raise _needs_yes(found, "It may be waiting for its answer at this moment")
    if not isinstance(found.store, str) and found.store.task_runs() and not args.yes:
        raise _needs_yes(found, f"{take.identity} is running, and may be making this call right now")
    after, told = change(
        found, settled="not bought", state=RecordState.FAILED, error="A person found that nothing was bought."
    )
    return [
        f"On record: the paid call of {take.identity} at {take.intent_at} bought nothing.",
        f"{seen}." if seen else "",
        told,
        words.next_attempt(after),
    ]


def give_up(args: argparse.Namespace) -> list[str]:
    """Give up a bought job."""
    found = find(args)
    if args.request_id is not None:
        wanted = words.request_id(args)
        its = found.job(wanted)
        if its is None:
            raise Refused(f"{_on_record(found)} has another id, and {wanted} is not on record there.")
        found = its
    elif args.call is not None:
        found = found.call(args.call)
    take = found.take
    if not take.is_in_flight and found.has_file and _is_behind(found):
        found.ledger.advance(take)
        return [
            f"{_on_record(found)} is settled, and nothing was given up.",
            "The record's file here did not know that yet, and is up to date now.",
        ]
    is_elsewhere = location(take.output_path) != location(str(found.output))
    if take.state is RecordState.DELIVERED and is_elsewhere and take.output_path in (take.recorded_at or ()):
        raise Refused(
            f"{_on_record(found)} was delivered to {take.output_path}.",
            f"To give it up there: {advice.give_up(take.output_path, take)}",
        )
    if take.state is RecordState.GIVEN_UP:
        return [f"{_on_record(found)} is already given up; nothing was changed.", words.next_attempt(found)]
    if not _is_bought(take):
        raise Refused(
            f"{_on_record(found)} bought nothing, so there is nothing to give up.",
            *(
                f"To give up an earlier job: {advice.give_up(found.output, one)}"
                for one in found.standing.takes
                if one.is_in_flight
            ),
            words.next_attempt(found),
        )
    money = f"{words.paid(take)}, which Segmind does not refund"
    is_lost = pendulum.now("UTC") - take.started > _KEPT
    if take.state is not RecordState.DELIVERED and not is_lost and not args.yes:
        known = "It was bought" if take.request_id else "It may have been bought"
        raise _needs_yes(
            found,
            f"{known} for {money}, and Segmind keeps its clip for seven days",
            f"To get its video: {words.fetch(take.request_id)}" if take.request_id else "",
        )
    after, told = change(found, state=RecordState.GIVEN_UP)
    paid = "paid for" if take.request_id else "perhaps paid for"
    return [
        f"Given up: {words.job(take)} of {take.identity}, {paid} with {money}.",
        told,
        words.next_attempt(after),
    ]


def _is_behind(found: Found) -> bool:
    """Whether the record's file has not heard of what the store knows: it was delivered on another machine."""
    filed = Ledger(found.take.identity, found.output, None).read().takes
    return any(one.key == found.take.key and one.is_in_flight for one in filed)


def _about(args: argparse.Namespace, found: Found, *kinds: Callable[[JobRecord], bool]) -> list[Found]:
    """Return the takes that a command may be about, the likeliest first; if there are none, the task's last one.

    With ``--call`` it is about that one.

    A task whose inputs are changed back returns to an earlier take.

    :param kinds: which takes qualify, in order of preference; of one kind the path's own first, then the last one
    """
    if args.call is not None:
        return [found.call(args.call)]
    current = found.standing.current
    mine = [take for take in found.standing.takes if take.identity == found.take.identity]
    ordered = sorted(
        mine, key=lambda take: (take is current, take.key == found.take.key, take.intent_at), reverse=True
    )
    wanted = {take.key: take for kind in kinds for take in ordered if kind(take)}
    return [replace(found, take=take) for take in wanted.values()] or [found]


def _is_open(take: JobRecord) -> bool:
    """Whether it is a call of unknown outcome."""
    return take.state is RecordState.INTENT and take.request_id is None


def _is_bought(take: JobRecord) -> bool:
    return take.is_in_flight or take.state is RecordState.DELIVERED


def _on_record(found: Found) -> str:
    """Describe the job on record, as the start of a sentence."""
    take = found.take
    named = words.job(take)
    return f"On record at {found.ledger.path}: {named} of {take.identity}, {take.state} ({words.state(take)}). It"


def _needs_yes(found: Found, against: str, instead: str = "") -> Refused:
    return Refused(
        f"{against}.",
        f"{_on_record(found).removesuffix(' It')} Nothing was changed.",
        instead,
        "To do it anyway, give --yes.",
    )
