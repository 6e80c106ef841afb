"""Fetches a paid clip by its job's id."""

from __future__ import annotations

import argparse
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

from airflow_provider_luma.cli import words
from airflow_provider_luma.cli.errors import Refused
from airflow_provider_luma.cli.found import Found, find_if_any, open_clip, reread
from airflow_provider_luma.cli.vendor import hook_for
from airflow_provider_luma.exceptions import LumaRayDeliveryFailed, LumaRayRateLimited, LumaRayUnavailable
from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.jobs.advice import command
from airflow_provider_luma.jobs.delivery import is_in_place, place
from airflow_provider_luma.jobs.record import JobRecord, RecordState
from airflow_provider_luma.media import VideoFile
from airflow_provider_luma.storage import StoredFile


def fetch(args: argparse.Namespace) -> list[str]:
    """Fetch a clip to a path, and update the record there if it is the job's."""
    output, request_id = open_clip(args), words.request_id(args)
    if args.path.endswith("/"):
        raise Refused(f"PATH must be a file, but {args.path!r} is a folder.", code=2)
    found = find_if_any(args)
    take = None
    if found and (its := found.job(request_id)):
        found, take = its, its.take
    if found and take and is_in_place(take, output):
        return [f"The clip of {request_id} is already at {output}.", words.next_attempt(found)]
    _check_path(output, found, take, args)
    hook = hook_for(args, found)
    with output.staged(f"fetch.{uuid.uuid4().hex[:12]}") as part:
        video, url, cost = _download(hook, request_id, take, part)
        if found and take:
            found, told = _put_on_record(found, take, video, hook, output_url=url, cost=cost)
        else:
            _put(video, output, args)
            told = "" if found else "There is no record at that path, so no task knows of it."
    return [
        f"Fetched: the clip of {request_id}, {video.size} bytes, is at {output}.",
        told,
        words.next_attempt(found) if found else "",
    ]


def _check_path(
    output: StoredFile, found: Found | None, take: JobRecord | None, args: argparse.Namespace
) -> None:
    """Refuse a path that belongs to another job, or already has a file."""
    current = (found.standing.current or found.standing.own) if found else None
    is_bought = (
        current
        and current.moved_to is None
        and (current.is_in_flight or current.state is RecordState.DELIVERED)
    )
    if current and is_bought and (take is None or take.key != current.key):
        adopts = current.state is RecordState.INTENT and current.request_id is None
        raise Refused(
            f"{output} is the path of {words.job(current)} of {current.identity}, {current.state}.",
            "Nothing was fetched, and nothing changed.",
            "Give another path.",
            f"If this is that job: {command('adopt', output, args.request_id)}" if adopts else "",
        )
    seen = output.look()
    if seen and seen.is_folder:
        raise Refused(f"{output} is a folder: give a file in it.")
    if seen and not args.overwrite:
        raise _is_taken(output)


def _is_taken(output: StoredFile) -> Refused:
    return Refused(
        f"There is a file at {output}.",
        "Nothing was fetched, and nothing changed.",
        "Give another path, or --overwrite.",
    )


def _download(
    hook: LumaRayHook, request_id: str, take: JobRecord | None, part: Path
) -> tuple[VideoFile, str, Decimal | None]:
    """Fetch the clip from the first URL that has it; return it, the URL, and what the job cost."""
    told: list[str] = []
    for url, cost in _addresses(hook, request_id, take, told):
        try:
            return hook.download_video(url, part), url, cost
        except LumaRayDeliveryFailed as error:
            told.append(error.cause)
    raise Refused(
        f"The clip of {request_id} is not available: {' '.join(dict.fromkeys(told))}",
        f"On record: {words.state(take)}." if take else "",
        "If the job is not ready, try again later; Segmind keeps a clip for seven days.",
    )


def _addresses(
    hook: LumaRayHook, request_id: str, take: JobRecord | None, told: list[str]
) -> Iterator[tuple[str, Decimal | None]]:
    """Yield URLs that may have the clip, from the result, the history and the record, each with the job's cost.

    :param told: collects the reasons why there is no URL
    """
    try:
        result = hook.get_result(request_id)
        if result.url:
            yield result.url, result.cost
        else:
            told.append(f"Its result is {result.state}.")
    except (LumaRayRateLimited, LumaRayUnavailable) as error:
        told.append(error.cause)
    try:
        row = hook.find_job(request_id)
        if row and row.output_url:
            yield row.output_url, row.cost
        else:
            told.append(
                f"The request history says {row.state}." if row else "The request history has no such job."
            )
    except (LumaRayRateLimited, LumaRayUnavailable) as error:
        told.append(error.cause)
    if take and take.output_url:
        yield take.output_url, take.cost


def _put_on_record(
    found: Found,
    take: JobRecord,
    video: VideoFile,
    hook: LumaRayHook,
    *,
    output_url: str,
    cost: Decimal | None,
) -> tuple[Found, str]:
    """Deliver the clip and record it."""
    ready = found.ledger.advance(
        take,
        leaving=found.standing.current,
        state=RecordState.COMPLETED,
        output_url=output_url,
        cost=cost if take.cost is None else take.cost,
    )
    place(found.ledger, found.output, ready, video, hook.vendor_now())
    return reread(found, {"state": RecordState.DELIVERED, "sha256": video.sha256})


def _put(video: VideoFile, output: StoredFile, args: argparse.Namespace) -> None:
    if output.put(video.path, lambda: args.overwrite or output.look() is None) is None:
        raise _is_taken(output)
