"""The commands as ``airflow luma-ray COMMAND``, for versions of Airflow that load providers' commands."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import Any

from airflow_provider_luma.cli.main import run
from airflow_provider_luma.cli.table import COMMANDS, Command


def get_cli_commands() -> list[Any]:
    """Return the command group; named in the provider info's ``cli``."""
    from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand

    return [
        GroupCommand(
            name="luma-ray",
            help="Inspect Luma Ray jobs on record and settle what a task cannot",
            subcommands=[
                ActionCommand(
                    name=command.name,
                    help=command.help,
                    description=command.description,
                    func=partial(_run, command),
                    args=[
                        Arg(argument.flags, **argument.options)  # type: ignore[no-untyped-call]
                        for argument in command.arguments
                    ],
                )
                for command in COMMANDS
            ],
        )
    ]


def _run(command: Command, args: argparse.Namespace) -> None:
    sys.exit(run(command, args))
