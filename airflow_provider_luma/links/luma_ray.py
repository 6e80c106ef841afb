"""The operator's link to its clip's page in Airflow's UI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.providers.common.compat.sdk import BaseOperatorLink

from airflow_provider_luma.plugins.luma_ray import CLIP_HREF

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator


class LumaRayClipLink(BaseOperatorLink):
    """The task instance's button "Clip". It works for users who may not see plugins' tabs, too."""

    name = "Clip"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """Return the page's URL, relative to Airflow's own."""
        return clip_url(ti_key)


def clip_url(ti: Any) -> str:
    """Return the URL of a task instance's page, relative to Airflow's own."""
    index = -1 if ti.map_index is None else ti.map_index
    values = {"{DAG_ID}": ti.dag_id, "{RUN_ID}": ti.run_id, "{TASK_ID}": ti.task_id, "{MAP_INDEX}": index}
    url = CLIP_HREF
    for name, value in values.items():
        url = url.replace(name, quote(str(value), safe=""))
    return url
