"""The commands: their names, arguments and functions. Imports only the standard library and the catalogue of models."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from airflow_provider_luma.segmind.models import DEFAULT_MODEL


@dataclass(frozen=True)
class Argument:
    """An argument, for argparse and for Airflow's ``Arg``.

    :param flags: the name of a positional argument, or the flags of an option
    :param options: argparse's keyword arguments
    """

    flags: tuple[str, ...]
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Command:
    """One command.

    :param name: its name on the command line
    :param help: what it does, in a line
    :param description: what to know before running it
    :param function: ``module:name`` in this package; it takes the parsed arguments and returns the lines to print, or
        raises ``Refused``
    """

    name: str
    help: str
    description: str
    function: str
    arguments: tuple[Argument, ...]

    def load(self) -> Callable[[argparse.Namespace], Iterable[str]]:
        """Import the function."""
        module, _, name = self.function.partition(":")
        function: Callable[[argparse.Namespace], Iterable[str]] = getattr(
            import_module(f"{__package__}.{module}"), name
        )
        return function


def _argument(*flags: str, **options: Any) -> Argument:
    return Argument(flags, options)


_PATH = _argument(
    "path",
    metavar="PATH",
    help="the clip (clip.mp4) or its record (clip.mp4.job.json): a path, or scheme://[conn_id@]bucket/key",
)
_CALL = _argument(
    "--call",
    metavar="TIME",
    help="the job of the paid call of that time, if it is not the last one and has no id (see show)",
)
_REQUEST_ID = _argument("request_id", metavar="REQUEST_ID", help="the vendor's id of the job")
_WHERE = (
    _argument("--storage-conn-id", metavar="ID", help="the storage connection, if the URI does not name one"),
    _argument(
        "--dag-id",
        metavar="ID",
        help="with --run-id and --task-id: this task instance's job, instead of the one that the path belongs to; "
        "found in Airflow's task state store alone if the file is on another machine",
    ),
    _argument("--run-id", metavar="ID", help="see --dag-id"),
    _argument("--task-id", metavar="ID", help="see --dag-id"),
    _argument("--map-index", metavar="N", type=int, default=-1, help="of a mapped task instance"),
    _argument("--key", metavar="KEY", help="of a clip that the task bought by the hook, with a key"),
)
_CONN = _argument("--conn", metavar="ID", help="the connection to Segmind (default: the record's)")
_YES = _argument("--yes", action="store_true", help="do it anyway, despite a warning")

COMMANDS = (
    Command(
        name="show",
        help="show what is on record of a clip, and what the next attempt will do",
        description="Show what is on record of a clip, whether the video is there, and what the next attempt of its "
        "task will do. Changes nothing.",
        function="show:show",
        arguments=(_PATH, _argument("--json", action="store_true", help="the record itself"), *_WHERE),
    ),
    Command(
        name="adopt",
        help="the job of a lost paid call was found: record its id",
        description="Record the id of a job whose paid call lost its answer; the next attempt re-attaches to it and "
        "buys nothing. Segmind's request history is checked; if it contradicts the match or cannot confirm it, --yes "
        "is needed.",
        function="settle:adopt",
        arguments=(_PATH, _REQUEST_ID, _CALL, _CONN, _YES, *_WHERE),
    ),
    Command(
        name="not-bought",
        help="the job of a lost paid call does not exist: the next attempt buys",
        description="Record that a paid call of unknown outcome bought nothing, after checking the account's request "
        "history; the next attempt buys. If the history does show the job, or an attempt is running, --yes is needed.",
        function="settle:not_bought",
        arguments=(_PATH, _CALL, _CONN, _YES, *_WHERE),
    ),
    Command(
        name="give-up",
        help="give up a bought job: the next attempt buys again",
        description="Give up a bought job; the next attempt buys again. What was paid is not refunded, so --yes is "
        "needed while Segmind still has the clip and it is not delivered.",
        function="settle:give_up",
        arguments=(
            _PATH,
            _argument(
                "request_id", metavar="REQUEST_ID", nargs="?", help="the job, if not the task's last one"
            ),
            _CALL,
            _YES,
            *_WHERE,
        ),
    ),
    Command(
        name="fetch",
        help="fetch a paid clip by its job's id",
        description="Fetch a paid job's clip to a path, at no charge; the record there is updated if it is that job's.",
        function="fetch:fetch",
        arguments=(
            _REQUEST_ID,
            _PATH,
            _CONN,
            _argument("--overwrite", action="store_true", help="replace an existing file"),
            *_WHERE,
        ),
    ),
    Command(
        name="spent",
        help="add up what the clips in a folder cost",
        description="Add up what the clips in a folder and below cost, according to their records: jobs that Segmind "
        "has finished, by the day (UTC) on which they were submitted. Changes nothing.",
        function="spent:spent",
        arguments=(
            _argument("folder", metavar="FOLDER", help="a path, or scheme://[conn_id@]bucket/prefix/"),
            _argument("--since", metavar="DATE", help="the first day, such as 2026-11-01"),
            _argument("--until", metavar="DATE", help="the last day"),
            _argument(
                "--by", metavar="GROUPS", default="", help="any of dag, day and model, such as dag,day"
            ),
            _argument(
                "--conn", metavar="ID", help="a connection to Segmind, to compare with its request history"
            ),
            _argument("--json", action="store_true", help="JSON instead of a table"),
            _argument(
                "--storage-conn-id", metavar="ID", help="the storage connection, if the URI does not name one"
            ),
        ),
    ),
    Command(
        name="size",
        help="how large a pool, how many workers and what rate limit a number of clips needs",
        description="Calculate how large a pool, how many workers and what rate limit a number of clips needs, if they "
        "are to be ready in time. The clips are deferrable; a blocking one holds a worker slot while Segmind renders, "
        "too. Asks nobody.",
        function="size:size",
        arguments=(
            _argument("--clips", metavar="N", type=int, required=True, help="how many, such as a night's"),
            _argument("--hours", metavar="H", type=float, default=8.0, help="by when (%(default)g)"),
            _argument(
                "--requests-per-minute",
                metavar="N",
                type=float,
                default=60.0,
                help="the account's limit (%(default)g)",
            ),
            _argument(
                "--upload", action="store_true", help="Segmind cannot reach the frames by a signed URL"
            ),
            _argument(
                "--worker-seconds",
                metavar="S",
                type=float,
                default=12.0,
                help="how long a clip's two phases hold a slot on your workers, together (%(default)g)",
            ),
            _argument("--model", metavar="SLUG", default=DEFAULT_MODEL, help="the model (%(default)s)"),
        ),
    ),
    Command(
        name="contract",
        help="ask Segmind everything that this provider relies on; costs nothing without --buy",
        description="Ask Segmind everything that this provider relies on and that costs nothing, and show which "
        "assumptions hold. Exits with 1 if one does not. Uploads a small picture twice. Writes a transcript without "
        "the key, e-mail addresses, prompts and the paths of URLs, which can be attached to a report; it has the "
        "balance and request ids.",
        function="contract:contract",
        arguments=(
            _argument(
                "--conn", metavar="ID", default="luma_ray_default", help="the connection (%(default)s)"
            ),
            _argument(
                "--buy",
                action="store_true",
                help="then buy one clip, after a yes is typed; it is on record in the folder, and the same command "
                "finishes it instead of buying another",
            ),
            _argument(
                "--model", metavar="SLUG", default=DEFAULT_MODEL, help="the clip's model (%(default)s)"
            ),
            _argument(
                "--yes",
                action="store_true",
                help="buy without asking, if nothing free is broken",
            ),
            _argument(
                "--folder",
                metavar="PATH",
                default="~/luma-ray-contract",
                help="for transcripts, and for the clip and its record (%(default)s)",
            ),
            _argument("--replay", metavar="FILE", help="judge a transcript again; asks nobody"),
        ),
    ),
)
