"""An auth manager with permissions per DAG: user ``of_<dag_id>`` may read that DAG only.

And ``nobody`` may read none.
"""

from __future__ import annotations

from typing import Any

from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager


class ByName(SimpleAuthManager):
    """Airflow's simple auth manager, restricted."""

    def is_authorized_dag(
        self, *, method: Any, user: Any, access_entity: Any = None, details: Any = None
    ) -> bool:
        only = user.username.removeprefix("of_")
        if user.username.startswith("of_") and (details is None or details.id != only):
            return False
        if user.username == "nobody":
            return False
        return super().is_authorized_dag(
            method=method, user=user, access_entity=access_entity, details=details
        )
