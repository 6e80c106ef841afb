"""What was spent on the clips in a folder and below."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from airflow.sdk.exceptions import TaskDeferred

from airflow_provider_luma.exceptions import LumaRayError
from airflow_provider_luma.simulator import Simulator
from tests.cli.conftest import Done
from tests.support import make_operator, task_context

Cli = Callable[..., Done]
TODAY = datetime.now(UTC).date()


@pytest.fixture
def clips(simulator: Simulator, frame: Path, tmp_path: Path) -> Path:
    """Three delivered clips of two DAGs, one of them with an earlier take, and a job that FAILED."""
    folder = tmp_path / "spent"
    for dag_id, name in (("shoes", "a"), ("shoes", "b"), ("hats", "sub/c")):
        context = task_context(dag_id=dag_id, run_id=name)
        make_operator(frame, folder / f"{name}.mp4").execute(context)
    again = task_context(dag_id="hats", run_id="sub/c", clears=1)
    make_operator(frame, folder / "sub" / "c.mp4", prompt="another").execute(again)
    simulator.fault("submit", "failed")
    with pytest.raises(LumaRayError):
        make_operator(frame, folder / "d.mp4").execute(task_context(run_id="d"))
    return folder


def test_a_table_by_dag(clips: Path, cli: Cli) -> None:
    done = cli("spent", str(clips), "--by", "dag")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        "dag    clips     spent",
        "hats       2  3.20 USD",
        "shoes      2  3.20 USD",
        "total      4  6.40 USD",
    ]


def test_a_total_alone(clips: Path, cli: Cli) -> None:
    assert cli("spent", str(clips)).out.splitlines() == ["clips     spent", "    4  6.40 USD"]


def test_json_by_day_and_model_with_the_vendors_figure(clips: Path, simulator: Simulator, cli: Cli) -> None:
    done = cli("spent", str(clips), "--by", "day,model", "--json", "--conn", "luma_ray_default")
    told = json.loads(done.out)
    assert told["rows"] == [
        {"day": TODAY.isoformat(), "model": "luma-ray-img-2-video", "clips": 4, "usd": "6.4", "estimated": 0}
    ]
    assert told["total"]["usd"] == "6.4"
    assert told["vendor"] == {"clips": 4, "usd": "6.4", "only_there": [], "only_on_record": []}


def test_differences_are_named(clips: Path, simulator: Simulator, cli: Cli) -> None:
    (clips / "a.mp4.job.json").unlink()
    bought = next(job.request_id for job in simulator.jobs)
    done = cli("spent", str(clips), "--conn", "luma_ray_default")
    assert "Segmind's history of the same days and models: 4 clips, 6.40 USD." in done.out
    assert f"Only there: {bought}." in done.out


def test_a_job_that_was_given_up_counts_at_its_models_price(clips: Path, frame: Path, cli: Cli) -> None:
    """Nobody polls it any more, so its cost never reaches the record; the vendor bills it all the same."""
    with pytest.raises(TaskDeferred):
        make_operator(frame, clips / "e.mp4", deferrable=True).execute(task_context(run_id="e"))
    assert "4  6.40 USD" in cli("spent", str(clips)).out, "in flight: it may still fail"
    assert cli("give-up", str(clips / "e.mp4"), "--yes").code == 0
    assert cli("spent", str(clips)).out.splitlines()[1:] == [
        "    5  8.00 USD",
        "The cost of 1 is not on record, and counted as the price of the model.",
    ]


@pytest.mark.parametrize(("days", "clips_then"), [(0, 4), (1, 0)])
def test_days_are_bounds(clips: Path, cli: Cli, days: int, clips_then: int) -> None:
    since = (TODAY + timedelta(days=days)).isoformat()
    told = json.loads(cli("spent", str(clips), "--since", since, "--json").out)
    assert told["total"]["clips"] == clips_then
    until = (TODAY - timedelta(days=days)).isoformat()
    assert (
        json.loads(cli("spent", str(clips), "--until", until, "--json").out)["total"]["clips"] == clips_then
    )


def test_a_record_that_cannot_be_read_is_named(clips: Path, cli: Cli) -> None:
    (clips / "b.mp4.job.json").write_text("{")
    out = cli("spent", str(clips)).out
    assert "Left out, cannot be read: b.mp4.job.json" in out
    assert "3  4.80 USD" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--by", "week"), "week is not one of dag, day, model"),
        (("--since", "monday"), "'monday' is not a date"),
    ],
)
def test_a_wrong_argument_is_reported(
    clips: Path, cli: Cli, arguments: tuple[str, ...], sentence: str
) -> None:
    done = cli("spent", str(clips), *arguments)
    assert done.code == 2
    assert sentence in done.err
