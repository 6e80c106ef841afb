"""Turns a folder of frames into the arguments of mapped tasks, within a budget."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from airflow_provider_luma.exceptions import (
    LumaRayConfigurationError,
    LumaRayInsufficientCredits,
    LumaRayRecordError,
    without_traceback,
)
from airflow_provider_luma.segmind.models import CATALOGUE, DEFAULT_MODEL, model_info
from airflow_provider_luma.segmind.money import money, usd

if TYPE_CHECKING:
    from airflow_provider_luma.jobs.record import Identity, JobRecord
    from airflow_provider_luma.storage import StoredFile

_IMAGE_SUFFIXES = frozenset(".jpg .jpeg .png .webp .gif .bmp .tif .tiff .heic .avif".split())

#: A frame and its clip, as paths relative to their folders.
_Clip = tuple[str, str]

log = logging.getLogger(__name__)


@without_traceback
def plan_batch(
    frames: str,
    videos: str,
    *,
    max_credits: float | Decimal,
    model: str = DEFAULT_MODEL,
    luma_ray_conn_id: str = "luma_ray_default",
    storage_conn_id: str | None = None,
    require_all: bool = False,
) -> list[dict[str, Any]]:
    """Return the arguments of the clips to make in this run, as many as the money covers. Call it inside a ``@task``.

    ::

        @task
        def plan() -> list[dict]:
            return plan_batch("s3://aws_default@photos/", "s3://aws_default@clips/", max_credits=320)

        LumaRayImageToVideoOperator.partial(task_id="generate", prompt="...").expand_kwargs(plan())

    A clip is named after its frame (``shoes/red.png`` becomes ``shoes/red.png.mp4``). The plan has the frames without a
    clip, sorted by name, and also those whose clips this run has bought itself, at the same map index as before, so
    that clearing the run returns them. An existing clip is never bought again, even if its frame or the prompt has
    changed: move it away to get another. A job that another run has in flight is left to that run and logged.

    The plan has only as many frames as the budget and the balance cover, and at most as many as Airflow maps
    (``[core] max_map_length``); the log says what is left for the next run. The cap also counts what this run bought
    before, so clearing it does not renew the budget, and each planned clip can be bought only once
    (``if_exists="keep"``), whatever is edited, cleared or retried, unless ``videos`` is edited too. A job that FAILED
    is not billed and counts as not bought; a clip that a person gave up (``give-up``) may be bought again.

    :param frames: the folder of the frames, with its subfolders: a local path, or ``s3://...`` and the like
    :param videos: the folder of the clips
    :param max_credits: the most that this run may spend, in US dollars
    :param model: the model's slug; its price must be in the catalogue
    :param luma_ray_conn_id: the connection to Segmind
    :param storage_conn_id: the connection for folders whose URI does not name one
    :param require_all: fail if the money does not cover all frames. Default False: buy what it covers
    :raises LumaRayConfigurationError: an argument is wrong, or with ``require_all`` the budget does not cover all
    :raises LumaRayInsufficientCredits: with ``require_all``, the balance does not cover all
    """
    from airflow.providers.common.compat.sdk import conf
    from airflow.sdk import get_current_context

    from airflow_provider_luma.hooks.luma_ray import LumaRayHook
    from airflow_provider_luma.jobs.advice import give_up
    from airflow_provider_luma.jobs.record import Identity
    from airflow_provider_luma.storage import LocalFile, open_file

    budget, price = money(max_credits), model_info(model).price
    if budget is None or budget < 0:
        raise _wrong(f"max_credits={max_credits!r}", "US dollars, as a number of 0 or more")
    if price is None:
        raise _wrong(f"model={model!r}", f"one whose price is known: {', '.join(CATALOGUE)}")
    source, target = open_file(frames, storage_conn_id), open_file(videos, storage_conn_id)
    if isinstance(source, LocalFile) and not source.path.is_dir():
        raise _wrong(f"frames={frames!r}", "a folder that exists")
    context = get_current_context()
    found = _survey(
        _listed(source, "frames", frames),
        _listed(target, "videos", videos),
        target,
        Identity.of(context),
        getattr(context["dag_run"], "run_after", None),
    )
    owed = sum((known or price for job, known in found.owed.items() if job not in found.spent), Decimal(0))
    spent = sum(found.spent.values(), owed)
    most = conf.getint("core", "max_map_length", fallback=1024) - len(found.own)
    affordable = _fits(budget - spent, price)
    if found.missing and affordable > 0:
        balance = LumaRayHook(luma_ray_conn_id).get_credits().total
        affordable = min(affordable, _fits(balance - owed, price))
    else:
        balance = None
    new = found.missing[: max(min(affordable, most), 0)]
    left = len(found.missing) - len(new)
    log.info(
        "%s planned: %d to buy at up to %s each, %d that this run bought before (%s spent).",
        _counted(len(new) + len(found.own), "clip"),
        len(new),
        usd(price),
        len(found.own),
        usd(spent),
    )
    if left:
        or_balance = "" if balance is None else f", or the balance of {usd(balance)},"
        shortage = (
            f"{_counted(left, 'frame')} left ({usd(left * price)}): max_credits={budget} less the {usd(spent)} that "
            f"this run has spent{or_balance} covers {_counted(max(affordable, 0), 'clip')}"
        )
        if require_all and affordable < len(found.missing):
            short_of_balance = balance is not None and _fits(budget - spent, price) >= len(found.missing)
            kind = LumaRayInsufficientCredits if short_of_balance else LumaRayConfigurationError
            raise kind(f"The money does not cover the batch: {shortage}.")
        pace = f"; at this pace {_counted(-(-left // len(new)), 'more run')}" if new else ""
        log.warning("%s%s.", shortage, pace)
    for video, job in found.elsewhere:
        log.warning(
            "%s is left to %s, which has its job in flight. Clear that run, or give up the job: %s",
            video,
            job.identity,
            give_up(target.below(video), job),
        )
    return [
        {
            "start_frame": _join(source, frames, frame),
            "output_path": _join(target, videos, video),
            "model": model,
            "if_exists": "keep",
            "luma_ray_conn_id": luma_ray_conn_id,
            "storage_conn_id": storage_conn_id,
        }
        for frame, video in _in_order(found.own, new)
    ]


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _in_order(own: list[tuple[int, _Clip]], new: list[_Clip]) -> list[_Clip]:
    """Return the clips sorted by frame, except that this run's own stay at their map indices."""
    amount = len(own) + len(new)
    places = {index: clip for index, clip in own if 0 <= index < amount}
    others = iter(sorted([clip for _, clip in own if clip not in places.values()] + new))
    return [places.get(index) or next(others) for index in range(amount)]


@dataclass
class _Survey:
    """The state of a folder of frames.

    :param own: map indices, and frames with clips, for which this run has bought a job
    :param missing: frames with neither clip nor job
    :param elsewhere: clips whose jobs other runs have in flight, with those jobs
    :param spent: what this run's jobs cost, by job id
    :param owed: what others of them will cost, by their models; None: nobody knows
    """

    own: list[tuple[int, _Clip]] = field(default_factory=list)
    missing: list[_Clip] = field(default_factory=list)
    elsewhere: list[tuple[str, JobRecord]] = field(default_factory=list)
    spent: dict[str, Decimal] = field(default_factory=dict)
    owed: dict[str, Decimal | None] = field(default_factory=dict)


def _survey(
    frames: Mapping[str, datetime | None],
    videos: Mapping[str, datetime | None],
    target: StoredFile,
    me: Identity,
    since: datetime | None,
) -> _Survey:
    """Sort the frames by what is to be done about them.

    It reads only the records that can matter: those of missing clips, and those written since this run began, which may
    be its own.

    :param frames: the files in the folder of the frames, with their modification times
    :param videos: the same for the folder of the clips
    :param since: when the run was due; None: not known
    """
    from airflow_provider_luma.jobs.ledger import SUFFIX, Ledger
    from airflow_provider_luma.jobs.record import RecordState
    from airflow_provider_luma.storage import CLOCKS_APART, safe_name

    found = _Survey()
    oldest = None if since is None else since - CLOCKS_APART
    named = {
        "/".join(map(safe_name, frame.split("/"))) + ".mp4": frame
        for frame in sorted(frames)
        if PurePosixPath(frame).suffix.lower() in _IMAGE_SUFFIXES
    }
    recent = {
        name.removesuffix(SUFFIX)
        for name, written in videos.items()
        if name.endswith(SUFFIX) and (oldest is None or written is None or written >= oldest)
    }
    for video in sorted(named.keys() | recent, key=lambda video: named.get(video, "")):
        has_clip, has_record = video in videos, video + SUFFIX in videos
        if has_clip and video not in recent:
            continue
        try:
            takes = Ledger(me, target.below(video), None).read().takes if has_record else ()
        except LumaRayRecordError as error:
            log.error("%s is left out: %s", video, error.cause)
            found.owed[video] = None  # it may be this run's
            continue
        bought = [take for take in takes if take.state is not RecordState.FAILED]
        mine = [
            take for take in bought if (take.identity.dag_id, take.identity.run_id) == (me.dag_id, me.run_id)
        ]
        for take in mine:
            job = take.request_id or take.key
            if take.cost is None:
                found.owed[job] = model_info(take.model).price
            else:
                found.spent[job] = take.cost
        if video not in named:
            continue  # its frame was removed
        clip = (named[video], video)
        if wanted := [take for take in mine if take.state is not RecordState.GIVEN_UP]:
            found.own.append((wanted[-1].identity.map_index, clip))
        elif has_clip:
            continue
        elif others := [take for take in bought if take.is_in_flight and take.moved_to is None]:
            found.elsewhere.append((video, others[-1]))
        else:
            found.missing.append(clip)
    return found


def _fits(amount: Decimal, price: Decimal) -> int:
    """Return how many clips an amount covers."""
    return int(amount // price) if amount > 0 else 0


def _listed(folder: StoredFile, name: str, given: str) -> Mapping[str, datetime | None]:
    """Return the files in a folder and below, by relative path, with their modification times."""
    try:
        return folder.listed_below()
    except OSError as error:
        raise _wrong(f"{name}={given!r}", f"a folder that can be listed ({error})") from None


def _join(folder: StoredFile, given: str, name: str) -> str:
    return f"{given.rstrip('/')}/{name}" if "://" in given else str(folder.below(name))


def _wrong(what: str, right: str) -> LumaRayConfigurationError:
    return LumaRayConfigurationError(f"{what} is wrong: give {right}.")
