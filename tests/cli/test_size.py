"""What a number of clips needs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cli.conftest import Done

Cli = Callable[..., Done]


def test_a_night_within_the_limit(cli: Cli) -> None:
    done = cli("size", "--clips", "2000")
    assert (done.code, done.err) == (0, "")
    rows = [line.split("  ") for line in done.out.splitlines()[1:]]
    figures = {row[1]: next(cell for cell in row[2:] if cell).strip() for row in rows}
    assert figures == {
        "requests a minute": "10.8",
        "pool slots": "9",
        "worker slots": "1",
        "triggerers": "1",
        "runs": "2",
        "cost": "3200.00 USD",
    }


def test_more_clips_than_the_rate_limit_allows(cli: Cli) -> None:
    hour = ("size", "--clips", "10000", "--hours", "1", "--upload")
    told = cli(*hour).out.splitlines()
    assert told[1].endswith("600.0  3.6 a clip; the account allows 60")
    assert told[-1] == "The rate limit is too low: it allows 1,000 clips in 1 h, and all 10,000 in 10.0 h."
    assert "too low" not in cli(*hour, "--requests-per-minute", "600").out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--clips", "0"), "--clips 0 is not more than 0."),
        (("--clips", "1", "--hours", "-1"), "--hours -1 is not more than 0."),
        (("--clips", "1", "--model", "luma-ray-9"), "--model luma-ray-9 is not one of "),
    ],
)
def test_figures_that_make_no_sense(cli: Cli, arguments: tuple[str, ...], sentence: str) -> None:
    done = cli("size", *arguments)
    assert done.code == 2
    assert done.err.startswith(sentence)
