"""The command line as a program: usage, exit codes, imports, and the same commands under ``airflow``."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from airflow_provider_luma.cli.definition import get_cli_commands
from airflow_provider_luma.cli.table import COMMANDS
from tests.cli.conftest import Done

Cli = Callable[..., Done]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["no-such-command"],
        ["show"],
        ["adopt", "clip.mp4"],
        ["adopt", "clip.mp4", "an id with blanks"],
        ["show", "clip.mp4", "--dag-id", "d"],
        ["show", "clip.mp4", "--map-index", "3"],
        ["show", "clip.mp4", "--map-index", "three"],
        ["fetch", "r", "clips/"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_reported_with_exit_code_2(cli: Cli, arguments: list[str]) -> None:
    done = cli(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err


def test_every_command_has_help(cli: Cli) -> None:
    assert cli("--help").code == 0
    for command in COMMANDS:
        assert cli(command.name, "--help").code == 0
        assert callable(command.load())


def test_help_imports_neither_airflow_nor_requests() -> None:
    code = """
import sys
import airflow_provider_luma.__main__
from airflow_provider_luma.cli.main import main
try:
    main(["--help"])
except SystemExit:
    pass
print(" ".join(sorted({name.split(".")[0] for name in sys.modules} - set(sys.stdlib_module_names))))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"airflow", "requests", "pendulum", "pydantic"} & set(done.stdout.splitlines()[-1].split())


def test_airflow_gets_the_same_commands() -> None:
    (group,) = get_cli_commands()
    assert group.name == "luma-ray"
    assert [command.name for command in group.subcommands] == [command.name for command in COMMANDS]
