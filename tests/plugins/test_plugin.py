"""How Airflow finds the plugin, and what it costs processes that do not serve it."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_luma.decorators.luma_ray import _LumaRayDecoratedOperator
from airflow_provider_luma.jobs.record import JobRecord, RecordState
from airflow_provider_luma.operators.luma_ray import LumaRayImageToVideoOperator
from airflow_provider_luma.plugins import words
from airflow_provider_luma.plugins.luma_ray import LumaRayPlugin
from airflow_provider_luma.plugins.media import asked_for
from airflow_provider_luma.provider_info import get_provider_info
from tests.plugins import clips

REPO = Path(__file__).resolve().parents[2]


def test_the_metadata_and_the_entry_point_name_the_plugin() -> None:
    (named,) = get_provider_info()["plugins"]
    entries = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["entry-points"]
    module, _, name = named["plugin-class"].rpartition(".")
    assert entries["airflow.plugins"] == {named["name"]: f"{module}:{name}"}
    assert (LumaRayPlugin.name, LumaRayPlugin.__module__) == (named["name"], module)


def _last_line(code: str) -> str:
    """Run a program and return the last line that it prints; Airflow may have printed some before."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPO)
    return done.stdout.splitlines()[-1]


def test_a_process_that_only_loads_the_plugin_makes_no_web_app() -> None:
    added = _last_line("""
import sys
from airflow.providers.common.compat.sdk import AirflowPlugin
before = set(sys.modules)
from airflow_provider_luma.plugins.luma_ray import LumaRayPlugin
LumaRayPlugin().external_views
print(" ".join(set(sys.modules) - before))
""").split()
    ours = {"airflow_provider_luma.plugins", "airflow_provider_luma.plugins.luma_ray"}
    assert set(added) - {"airflow_provider_luma"} == ours


def test_without_fastapi_there_is_a_plugin_without_pages() -> None:
    told = _last_line("""
import sys
sys.modules["fastapi"] = None
from airflow_provider_luma.plugins.luma_ray import LumaRayPlugin
print(LumaRayPlugin.fastapi_apps, LumaRayPlugin().fastapi_apps)
""")
    assert told.split() == ["[]", "[]"]


def test_the_web_app_is_made_once() -> None:
    (one,), (other,) = LumaRayPlugin.fastapi_apps, LumaRayPlugin().fastapi_apps
    assert one["app"] is other["app"]
    assert one["url_prefix"] == "/luma"


def test_every_view_is_below_the_web_app_and_relative() -> None:
    views = LumaRayPlugin.external_views
    assert [view["destination"] for view in views] == ["task_instance", "dag_run", "nav"]
    assert all(view["href"].startswith("luma/") and view["icon"].startswith("luma/") for view in views)
    assert len({view["url_route"] for view in views}) == len(views)


def test_the_tab_is_for_the_operator_and_its_decorator() -> None:
    named = LumaRayPlugin.external_views[0]["applies_to"]["operator_name"]
    assert named == [LumaRayImageToVideoOperator.__name__, _LumaRayDecoratedOperator.custom_operator_name]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"state": "intent"}, "The paid call has been under way since 2026-11-25 14:02:02 UTC."),
        ({"state": "intent", "error": "no reply"}, "buys nothing until a person settles it."),
        ({"state": "submitted"}, "In flight since 2026-11-25 14:02:02 UTC, on record; a retry re-attaches"),
        ({"state": "completed"}, "A retry fetches it and pays nothing."),
        ({"state": "delivered"}, "Delivered at 2026-11-25 14:04:09 UTC."),
        ({"state": "failed"}, "a failed job is not billed"),
        ({"state": "failed", "request_id": None}, "bought nothing"),
        ({"state": "given_up"}, "given up by a person"),
    ],
)
def test_every_state_is_shown_with_what_it_means_for_the_money(changes: dict[str, Any], says: str) -> None:
    take = _take(**changes)
    assert says in words.standing(take)
    assert words.label(take.state, take.error)


def test_a_take_that_needs_a_person_comes_with_the_commands_that_settle_it() -> None:
    take = _take(state="intent", error="no reply")
    told = [command for _, command in words.commands(take.state, take.error, "/clips/a clip.mp4")]
    assert told == [
        "python -m airflow_provider_luma adopt '/clips/a clip.mp4' REQUEST_ID",
        "python -m airflow_provider_luma not-bought '/clips/a clip.mp4'",
    ]
    assert words.commands(RecordState.SUBMITTED, None, "/clips/clip.mp4") == []


def test_times_are_shown_with_the_duration_of_each_step() -> None:
    assert [(name, later) for name, _, later in words.times(_take())] == [
        ("Queued", ""),
        ("Rendered", "after 2 min 5 s"),
        ("Delivered", "after 2.0 s"),
    ]


@pytest.mark.parametrize(
    ("changes", "cost"),
    [
        ({}, "1.60 USD"),
        ({"cost": None, "state": "submitted"}, "about 1.60 USD"),
        ({"cost": None, "state": "failed"}, "nothing"),
        ({"cost": None, "model": "some-other"}, "not on record"),
    ],
)
def test_a_cost_is_shown_if_known(changes: dict[str, Any], cost: str) -> None:
    assert words.cost(_take(**changes)) == cost


@pytest.mark.parametrize("size", [1, 10])
def test_an_empty_file_has_no_ranges_and_every_other_one_has(size: int) -> None:
    assert asked_for("bytes=0-0", size) == (0, 1)
    with pytest.raises(ValueError, match="satisfiable"):
        asked_for("bytes=0-", 0)


def _take(**changes: Any) -> JobRecord:
    if "state" in changes:
        changes["state"] = RecordState(changes["state"])
    return clips.record(Path("/clips/clip.mp4"), clips.identity(), **changes)
