"""Who may see what: whoever is signed in, and of each DAG no more than Airflow itself shows them of its task instances.

This is settled before anybody looks for a clip, so a refusal never gives away whether there is one.
"""

from __future__ import annotations

from typing import Annotated

from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import get_user, requires_access_dag
from fastapi import Depends, HTTPException, Request

#: "~" is Airflow's word for all DAGs; "" stands in the record of a clip that no task bought. Asked about either, an
#: auth manager may answer for DAGs in general: FAB says yes to anybody who may list a single one.
_NO_DAG = ("~", "")
User = Annotated[BaseUser, Depends(get_user)]


def check_access(request: Request, user: User) -> None:
    """Refuse anybody who is not signed in, and who may not read the DAG that the path names, if it names one.

    :raises HTTPException: 401; 403, whether or not the DAG exists
    """
    dag_id = request.path_params.get("dag_id")
    if dag_id is not None:
        check_dag(request, user, dag_id)


def check_dag(request: Request, user: BaseUser, dag_id: str) -> None:
    """Refuse a user who may not read a DAG's task instances.

    :raises HTTPException: 403
    """
    # No DAG has such an id, and PostgreSQL, which Airflow would ask about it, takes no NUL.
    if dag_id in _NO_DAG or not dag_id.isprintable():
        raise HTTPException(403, "Forbidden")
    requires_access_dag("GET", DagAccessEntity.TASK_INSTANCE, dag_id)(request, user)


class Readable:
    """Tells which DAGs a user may read; asks about each once."""

    def __init__(self, request: Request, user: User) -> None:
        self._request = request
        self._user = user
        self._known: dict[str, bool] = {}

    def __call__(self, dag_id: str) -> bool:
        """Tell whether the user may read a DAG."""
        if dag_id not in self._known:
            try:
                check_dag(self._request, self._user, dag_id)
            except HTTPException:
                self._known[dag_id] = False
            else:
                self._known[dag_id] = True
        return self._known[dag_id]
