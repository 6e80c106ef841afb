"""How large a pool, how many workers and what rate limit a number of clips needs. Pure."""

from __future__ import annotations

import argparse
from math import ceil

from airflow_provider_luma.cli.errors import Refused
from airflow_provider_luma.segmind.models import CATALOGUE, model_info
from airflow_provider_luma.segmind.money import usd

#: Requests that one deferrable clip makes, as measured with 100 at a time: submit, result, and its share of the polls.
REQUESTS_A_CLIP = 2.6
#: An upload, where the store cannot sign a URL that the vendor can reach.
UPLOADS_A_CLIP = 1.0
#: Airflow's default for ``[triggerer] capacity``. One triggerer process has waited for 10,000 jobs on half a core.
TRIGGERER_CAPACITY = 1000
#: Airflow's default for ``[core] max_map_length``.
MAPPED_TASKS_A_RUN = 1024


def size(args: argparse.Namespace) -> list[str]:
    """Return what the clips need, next to what the account allows; changes nothing and asks nobody."""
    if args.model not in CATALOGUE:
        raise Refused(f"--model {args.model} is not one of {', '.join(CATALOGUE)}.", code=2)
    for name in ("clips", "hours", "requests_per_minute", "worker_seconds"):
        if getattr(args, name) <= 0:
            raise Refused(f"--{name.replace('_', '-')} {getattr(args, name):g} is not more than 0.", code=2)
    model = model_info(args.model)
    seconds = args.hours * 3600
    calls = REQUESTS_A_CLIP + (UPLOADS_A_CLIP if args.upload else 0.0)
    requests = args.clips * calls * 60 / seconds
    in_flight = ceil(args.clips * model.typical_seconds / seconds)
    slots = ceil(args.clips * args.worker_seconds / seconds)
    triggerers = ceil(in_flight / TRIGGERER_CAPACITY)
    rows = [
        (
            "requests a minute",
            f"{requests:,.1f}",
            f"{calls:g} a clip; the account allows {args.requests_per_minute:g}",
        ),
        ("pool slots", f"{in_flight:,}", "jobs in flight at a time, in a pool that includes deferred tasks"),
        ("worker slots", f"{slots:,}", f"{args.worker_seconds:g} s a clip: before the wait and after it"),
        ("triggerers", f"{triggerers}", f"of {TRIGGERER_CAPACITY} jobs each; one more, so that one may fail"),
        ("runs", f"{ceil(args.clips / MAPPED_TASKS_A_RUN)}", f"of at most {MAPPED_TASKS_A_RUN} mapped tasks"),
        ("cost", usd(None if model.price is None else model.price * args.clips), ""),
    ]
    lines = [f"{args.clips:,} clips in {args.hours:g} h, {model.typical_seconds:g} s each at Segmind:"]
    lines += [f"  {name:<17}  {figure:>9}  {note}".rstrip() for name, figure, note in rows]
    if requests > args.requests_per_minute:
        hours = args.clips * calls / args.requests_per_minute / 60
        fits = int(args.requests_per_minute * args.hours * 60 / calls)
        lines.append(
            f"The rate limit is too low: it allows {fits:,} clips in {args.hours:g} h, and all {args.clips:,} in "
            f"{hours:.1f} h."
        )
    return lines
