"""The plugin that shows clips in Airflow's UI. Every task process imports it: the web app is made on demand."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowPlugin

if TYPE_CHECKING:
    from fastapi import FastAPI

#: Airflow mounts the web app here.
PREFIX = "luma"
#: Where a clip's page is. No leading slash: a relative URL works below any sub-path.
CLIP_HREF = f"{PREFIX}/clip/{{DAG_ID}}/{{RUN_ID}}/{{TASK_ID}}/{{MAP_INDEX}}"

_ICONS = {"icon": f"{PREFIX}/static/icon.svg", "icon_dark_mode": f"{PREFIX}/static/icon-dark.svg"}


@cache
def _app() -> FastAPI:
    from airflow_provider_luma.plugins.app import make_app

    return make_app()


class _Apps:
    """The web app, made by whoever reads it: only the API server does, and importing fastapi takes a second."""

    def __get__(self, plugin: AirflowPlugin | None, owner: type[AirflowPlugin]) -> list[dict[str, Any]]:
        if find_spec("fastapi") is None:
            return []
        return [{"name": "Luma Ray", "url_prefix": f"/{PREFIX}", "app": _app()}]


class LumaRayPlugin(AirflowPlugin):
    """A tab "Clip" of the task instance, a tab "Clips" of the DAG run, and "Clips" in the navigation."""

    name = "luma_ray"
    fastapi_apps = _Apps()
    external_views = [  # noqa: RUF012 - as in AirflowPlugin
        {
            "name": "Clip",
            "href": CLIP_HREF,
            "destination": "task_instance",
            "url_route": "luma-clip",
            **_ICONS,
            # From 3.4 on: no tab on the tasks of other operators. Earlier versions pass it over.
            "applies_to": {"operator_name": ["LumaRayImageToVideoOperator", "@task.luma_ray"]},
        },
        {
            "name": "Clips",
            "href": f"{PREFIX}/run/{{DAG_ID}}/{{RUN_ID}}",
            "destination": "dag_run",
            "url_route": "luma-clips-of-run",
            **_ICONS,
        },
        {
            "name": "Clips",
            "href": f"{PREFIX}/gallery",
            "destination": "nav",
            "url_route": "luma-clips",
            "nav_top_level": True,
            **_ICONS,
        },
    ]
