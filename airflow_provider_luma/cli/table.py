"""The commands: what each is called, what it takes, and where its function is. The standard library only."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Argument:
    """An argument, as argparse takes it and Airflow's ``Arg`` too.

    :param flags: the name of a positional one, or the option's spellings
    :param options: argparse's keywords
    """

    flags: tuple[str, ...]
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Command:
    """One command.

    :param name: its name on the command line
    :param help: what it does, in a line
    :param description: what there is to know before it is run
    :param function: ``module:name`` in this package; it takes the parsed arguments and gives the lines to print, or
        raises where it refuses
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
_REQUEST_ID = _argument("request_id", metavar="REQUEST_ID", help="the vendor's id of the job")
_WHERE = (
    _argument("--storage-conn-id", metavar="ID", help="the storage connection, where the URI names none"),
    _argument(
        "--dag-id",
        metavar="ID",
        help="with --run-id and --task-id: this task instance's job, instead of the one that the path belongs to; "
        "found in Airflow's task state store alone where the file is on another machine",
    ),
    _argument("--run-id", metavar="ID", help="see --dag-id"),
    _argument("--task-id", metavar="ID", help="see --dag-id"),
    _argument("--map-index", metavar="N", type=int, default=-1, help="of a mapped task instance"),
)
_CONN = _argument("--conn", metavar="ID", help="the connection to Segmind (default: the record's)")
_YES = _argument("--yes", action="store_true", help="do it although something speaks against it")

COMMANDS = (
    Command(
        name="show",
        help="tell what is on record of a clip, and what the next attempt will do",
        description="Tell what is on record of a clip, whether the video is in its place, and what the next attempt of "
        "its task will do. Changes nothing.",
        function="show:show",
        arguments=(_PATH, _argument("--json", action="store_true", help="the record itself"), *_WHERE),
    ),
    Command(
        name="adopt",
        help="the job of a lost paid call was found: put its id on record",
        description="Put the id of a job on record whose paid call lost its answer; the next attempt re-attaches to it "
        "and buys nothing. Segmind's request history is asked whether it is that call's; where it says otherwise, or "
        "nothing, --yes is needed.",
        function="settle:adopt",
        arguments=(_PATH, _REQUEST_ID, _CONN, _YES, *_WHERE),
    ),
    Command(
        name="not-bought",
        help="the job of a lost paid call does not exist: the next attempt buys",
        description="Put on record that a paid call of unknown outcome bought nothing, after a person has looked at "
        "the account's request history; the next attempt buys. Where the history shows the job after all, or an "
        "attempt runs at this moment, --yes is needed.",
        function="settle:not_bought",
        arguments=(_PATH, _CONN, _YES, *_WHERE),
    ),
    Command(
        name="give-up",
        help="leave a bought job aside: the next attempt buys anew",
        description="Leave a bought job aside; the next attempt buys anew. What was paid is not refunded, so --yes is "
        "needed while Segmind still has the clip and it is not delivered.",
        function="settle:give_up",
        arguments=(_PATH, _YES, *_WHERE),
    ),
    Command(
        name="fetch",
        help="fetch a paid clip by its job's id",
        description="Fetch the clip of a paid job to a path, at no charge; the record there is updated if it is that "
        "job's.",
        function="fetch:fetch",
        arguments=(
            _REQUEST_ID,
            _PATH,
            _CONN,
            _argument("--overwrite", action="store_true", help="replace the file that is there"),
            *_WHERE,
        ),
    ),
    Command(
        name="spent",
        help="add up what the clips below a folder cost",
        description="Add up what the clips below a folder cost, by the records beside them: jobs that Segmind has "
        "finished, by the day (UTC) on which they were submitted. Changes nothing.",
        function="spent:spent",
        arguments=(
            _argument("folder", metavar="FOLDER", help="a path, or scheme://[conn_id@]bucket/prefix/"),
            _argument("--since", metavar="DATE", help="the first day, such as 2026-11-01"),
            _argument("--until", metavar="DATE", help="the last day"),
            _argument("--by", metavar="GROUPS", default="", help="of dag, day and model, such as dag,day"),
            _argument(
                "--conn", metavar="ID", help="a connection to Segmind: its request history is put beside it"
            ),
            _argument("--json", action="store_true", help="JSON instead of a table"),
            _argument(
                "--storage-conn-id", metavar="ID", help="the storage connection, where the URI names none"
            ),
        ),
    ),
)
