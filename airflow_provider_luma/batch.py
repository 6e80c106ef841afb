"""A folder of frames becomes the arguments of mapped tasks, within a budget."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from decimal import Decimal
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from airflow_provider_luma.exceptions import LumaRayConfigurationError, LumaRayInsufficientCredits
from airflow_provider_luma.segmind.models import CATALOGUE, DEFAULT_MODEL, model_info
from airflow_provider_luma.segmind.money import money

if TYPE_CHECKING:
    from airflow_provider_luma.jobs.ledger import Ledger
    from airflow_provider_luma.jobs.record import Identity, JobRecord
    from airflow_provider_luma.storage import StoredFile

_IMAGE_SUFFIXES = frozenset(".jpg .jpeg .png .webp .gif .bmp .tif .tiff .heic .avif".split())

log = logging.getLogger(__name__)


def plan_batch(
    frames: str,
    videos: str,
    *,
    max_credits: float | Decimal,
    model: str = DEFAULT_MODEL,
    luma_ray_conn_id: str = "luma_ray_default",
    storage_conn_id: str | None = None,
) -> list[dict[str, Any]]:
    """Return the arguments of one clip for each frame, once the money suffices; call it inside a ``@task``.

        @task
        def plan() -> list[dict]:
            return plan_batch("s3://photos/", "s3://clips/", max_credits=320)

        LumaRayImageToVideoOperator.partial(task_id="generate", prompt="...").expand_kwargs(plan())

    All frames are in the plan each time, in the order of their names, so that a cleared run gives each clip the index
    it had. A clip is named after its frame (``shoes/red.png`` becomes ``shoes/red.png.mp4``), and one that is there
    already is reused: a nightly run buys what is missing, and a changed frame or prompt wants a new folder or name.

    The cap counts what this run has spent on these frames before, so clearing this task does not renew it. It is held
    twice: here, before the first purchase, and as ``min_remaining_credits`` before each one, by the balance. What
    others spend from the same account meanwhile makes purchases stop early, never late.

    :param frames: the folder of the frames, with its sub-folders: a local path, or ``s3://...`` and the like
    :param videos: the folder of the clips
    :param max_credits: the most that this run may spend, in US dollars
    :param model: the model's slug; one whose price is in the catalogue
    :param luma_ray_conn_id: the connection to Segmind
    :param storage_conn_id: the connection for folders that name none themselves
    :raises LumaRayConfigurationError: an argument is wrong, or the clips to buy cost more than ``max_credits``
    :raises LumaRayInsufficientCredits: they cost more than the balance
    """
    from airflow.sdk import get_current_context

    from airflow_provider_luma.hooks.luma_ray import LumaRayHook
    from airflow_provider_luma.jobs.ledger import SUFFIX, Ledger
    from airflow_provider_luma.jobs.record import Identity, RecordState
    from airflow_provider_luma.storage import LocalFile, open_file, safe_name

    budget, price = money(max_credits), model_info(model).price
    if budget is None or budget < 0:
        raise _wrong(f"max_credits={max_credits!r}", "US dollars as a number that is not negative")
    if price is None:
        raise _wrong(f"model={model!r}", f"one whose price is known: {', '.join(CATALOGUE)}")
    source, target = open_file(frames, storage_conn_id), open_file(videos, storage_conn_id)
    if isinstance(source, LocalFile) and not source.path.is_dir():
        raise _wrong(f"frames={frames!r}", "a folder that exists")
    me = Identity.of(get_current_context())
    there = frozenset(_files(target, "videos", videos))
    plan, missing = [], 0
    charged: dict[str, Decimal] = {}
    pending: set[str] = set()
    for frame in sorted(_files(source, "frames", frames)):
        if PurePosixPath(frame).suffix.lower() not in _IMAGE_SUFFIXES:
            continue
        video = "/".join(map(safe_name, frame.split("/"))) + ".mp4"
        plan.append((frame, video))
        takes = _takes(Ledger(me, target.below(video), None), me) if video + SUFFIX in there else []
        for take in takes:
            job, paid = take.request_id or take.intent_at, take.cost
            if paid is not None or take.state is RecordState.DELIVERED:
                charged[job] = price if paid is None else paid
            else:
                pending.add(job)
        missing += video not in there and not takes

    spent = sum(charged.values(), Decimal(0))
    in_flight = len(pending - charged.keys()) * price
    cost = missing * price
    standing = (
        f"{missing} of {len(plan)} clips are to be bought at up to {price} USD each, and this run has spent "
        f"{spent + in_flight} USD on them before"
    )
    log.info("%s.", standing)
    if spent + in_flight + cost > budget:
        raise LumaRayConfigurationError(
            f"max_credits={budget} does not cover the batch: {standing}. Raise it, or take "
            f"frames out of {frames!r}."
        )
    balance = LumaRayHook(luma_ray_conn_id).get_credits().total
    if in_flight + cost > balance:
        raise LumaRayInsufficientCredits(
            f"The balance of {balance} USD does not cover the batch: {standing}. Top up the "
            "account, then clear the task."
        )
    return [
        {
            "start_frame": _join(source, frames, frame),
            "output_path": _join(target, videos, video),
            "model": model,
            "if_exists": "reuse",
            "min_remaining_credits": float(max(balance - (budget - spent), Decimal(0))),
            "luma_ray_conn_id": luma_ray_conn_id,
            "storage_conn_id": storage_conn_id,
        }
        for frame, video in plan
    ]


def _takes(ledger: Ledger, me: Identity) -> list[JobRecord]:
    """Return what the run that plans has bought before for one path."""
    return [
        take
        for take in ledger.read().takes
        if (take.identity.dag_id, take.identity.run_id) == (me.dag_id, me.run_id) and take.state != "failed"
    ]


def _files(folder: StoredFile, name: str, given: str) -> Iterable[str]:
    """Return the files in a folder and below it, by their paths from there."""
    try:
        return folder.names_below()
    except OSError as error:
        raise _wrong(f"{name}={given!r}", f"a folder that can be listed ({error})") from None


def _join(folder: StoredFile, given: str, name: str) -> str:
    return f"{given.rstrip('/')}/{name}" if "://" in given else str(folder.below(name))


def _wrong(what: str, right: str) -> LumaRayConfigurationError:
    return LumaRayConfigurationError(f"{what} is wrong: give {right}.")
