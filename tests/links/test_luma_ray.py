"""The operator's link to its clip's page."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from airflow_provider_luma.exceptions import LumaRayTimeout
from airflow_provider_luma.links.luma_ray import LumaRayClipLink
from airflow_provider_luma.operators.luma_ray import LumaRayImageToVideoOperator
from airflow_provider_luma.simulator import Simulator
from tests.support import API_KEY, make_operator, set_connection, task_context

RUN_ID = "scheduled__2026-11-28T02:00:00+00:00"


@pytest.mark.parametrize(("map_index", "index"), [(None, "-1"), (-1, "-1"), (7, "7")])
def test_the_link_is_relative_and_its_parts_are_encoded(map_index: int | None, index: str) -> None:
    ti = SimpleNamespace(dag_id="clips", run_id=RUN_ID, task_id="group.generate", map_index=map_index)
    (link,) = LumaRayImageToVideoOperator.operator_extra_links
    assert isinstance(link, LumaRayClipLink)
    url = link.get_link(make_operator(None, "/clips/"), ti_key=ti)
    assert url == f"luma/clip/clips/scheduled__2026-11-28T02%3A00%3A00%2B00%3A00/group.generate/{index}"


def test_the_link_is_there_as_soon_as_the_job_is_bought(
    monkeypatch: pytest.MonkeyPatch, clips: Path, frame: Path, clip: Path
) -> None:
    context = task_context()
    with Simulator(latency=60, api_key=API_KEY, work_dir=clips) as vendor:
        set_connection(monkeypatch, vendor.url)
        with pytest.raises(LumaRayTimeout):
            make_operator(frame, clip, timeout=0.2).execute(context)
    assert context["ti"].pushed["_link_LumaRayClipLink"] == "luma/clip/clips/run_1/generate/-1"
