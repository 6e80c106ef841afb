"""Runs a command: the parser, the exit code, and whatever goes wrong as one message on stderr."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from airflow_provider_luma.cli.errors import Refused
from airflow_provider_luma.cli.table import COMMANDS, Command

#: By this Airflow's secrets backends know a process that may read connections from the metadata database.
_CONTEXT = "_AIRFLOW_PROCESS_CONTEXT"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name, and return the exit code: 0 done, 1 refused or failed, 2 usage."""
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_luma",
        description="Look at the jobs on record and settle what a task cannot. No command buys anything.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        sub = commands.add_parser(command.name, help=command.help, description=command.description)
        for argument in command.arguments:
            sub.add_argument(*argument.flags, **argument.options)
        sub.set_defaults(command=command)
    args = parser.parse_args(arguments)
    return run(args.command, args)


def run(command: Command, args: argparse.Namespace) -> int:
    """Run a command with its parsed arguments, and return the exit code."""
    try:
        with _as_program():
            command.load()(args)
    except Refused as refused:
        sys.stderr.write(f"{refused}\n")
        return refused.code
    except Exception as error:
        sys.stderr.write(f"{_told(error)}\n")
        return 1
    return 0


def _told(error: Exception) -> str:
    """Return an error's text, with its class where it is none of ours and may say little."""
    is_ours = type(error).__module__.startswith("airflow_provider_luma.")
    return str(error) if is_ours else f"{type(error).__name__}: {error}"


@contextmanager
def _as_program() -> Iterator[None]:
    """Let connections be read from the metadata database, and warnings go to stderr as plain lines."""
    before = os.environ.get(_CONTEXT)
    os.environ.setdefault(_CONTEXT, "server")
    log = logging.getLogger("airflow_provider_luma")
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(logging.WARNING)
    propagates, log.propagate = log.propagate, False
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = propagates
        if before is None:
            os.environ.pop(_CONTEXT, None)
