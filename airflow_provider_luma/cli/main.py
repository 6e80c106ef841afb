"""Runs a command: the parser, the exit code, and any error as one message on stderr."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout

from airflow_provider_luma.cli.errors import Refused
from airflow_provider_luma.cli.table import COMMANDS, Command

#: Environment variables for Airflow, unless set already: read connections from the metadata database too, which workers
#: do not, and log only errors.
_AIRFLOW = {"_AIRFLOW_PROCESS_CONTEXT": "server", "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name, and return the exit code: 0 done, 1 refused or failed, 2 usage."""
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_luma",
        description="Inspect the jobs on record and settle what a task cannot. No command buys anything, except "
        "contract --buy.",
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
    stdout = sys.stdout
    try:
        with _as_program():
            for line in command.load()(args):
                if line:
                    stdout.write(f"{line}\n")
    except Refused as refused:
        sys.stderr.write(f"{refused}\n")
        return refused.code
    except Exception as error:
        sys.stderr.write(f"{_told(error)}\n")
        return 1
    return 0


def _told(error: Exception) -> str:
    """Return an error's text, with its class if it is not one of ours."""
    is_ours = type(error).__module__.startswith("airflow_provider_luma.")
    return str(error) if is_ours else f"{type(error).__name__}: {error}"


@contextmanager
def _as_program() -> Iterator[None]:
    """Set up the process for a command, then restore it: stdout is only for the command's output, logs go to stderr."""
    added = {name: value for name, value in _AIRFLOW.items() if name not in os.environ}
    os.environ.update(added)
    handlers = [one for one in logging.getLogger().handlers if isinstance(one, logging.StreamHandler)]
    airflows = [one for one in handlers if one.stream is sys.stdout]  # Airflow logs there once imported
    own = logging.StreamHandler(sys.stderr)
    own.setLevel(logging.WARNING)
    log = logging.getLogger("airflow_provider_luma")
    propagates, log.propagate = log.propagate, False
    log.addHandler(own)
    stdout = sys.stdout
    try:
        for handler in airflows:
            handler.setStream(sys.stderr)
        with redirect_stdout(sys.stderr):
            yield
    finally:
        for handler in airflows:
            handler.setStream(stdout)
        log.removeHandler(own)
        log.propagate = propagates
        for name in added:
            del os.environ[name]
