"""Airflow's task state store for a process that is not a task: reads and writes the metadata database."""

from __future__ import annotations

import json
from typing import Any

from airflow_provider_luma.jobs.ledger import state_key
from airflow_provider_luma.jobs.record import Identity, JobRecord, merge

#: Marks a value that ``[workers] state_store_backend`` keeps outside the database.
_KEPT_ELSEWHERE = "__airflow_state_ref__"


class NoStore(Exception):
    """The store cannot be used from here; the text says why, as the end of a sentence."""


class DatabaseStore:
    """The task state store of one task instance, as the ledger uses it.

    :param identity: the task instance
    :raises NoStore: this Airflow has none, or its database cannot be reached or does not know the run
    """

    def __init__(self, identity: Identity) -> None:
        if not identity.is_of_task:
            raise NoStore("it was bought outside a task")
        try:
            from airflow.state import TaskScope, get_state_backend
        except ImportError:
            raise NoStore("this Airflow has no task state store") from None
        self._identity = identity
        self._scope = TaskScope(identity.dag_id, identity.run_id, identity.task_id, identity.map_index)
        self._seen: str | None = None
        try:
            self._backend = get_state_backend()
            is_known = self._knows_run()
            value = self.get(state_key(identity))
        except Exception as error:
            raise NoStore(f"Airflow's database cannot be reached from here: {type(error).__name__}") from None
        if not is_known:
            raise NoStore(
                f"Airflow's database, as configured here, has no run {identity.run_id!r} of {identity.dag_id!r}"
            )
        if isinstance(value, dict) and _KEPT_ELSEWHERE in value:
            raise NoStore("Airflow's workers keep its values elsewhere ([workers] state_store_backend)")

    def get(self, key: str) -> Any:
        """Return the value; None if there is none."""
        from airflow.utils.session import create_session

        with create_session() as session:
            self._seen = self._backend.get(self._scope, key, session=session)
        return None if self._seen is None else json.loads(self._seen)

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        """Store a value that never expires, merged with what a task has written since the last ``get``."""
        from airflow.utils.session import create_session

        with create_session() as session:
            there = self._backend.get(self._scope, key, session=session)
            if there is not None and there != self._seen:
                value = merge(JobRecord.load(there), JobRecord.load(value)).dump()
            text = json.dumps(value)
            self._backend.set(self._scope, key, text, expires_at=None, session=session)
        self._seen = text

    def task_runs(self) -> bool:
        """Whether an attempt of the task instance is running on a worker."""
        from airflow.models.taskinstance import TaskInstance
        from airflow.utils.session import create_session
        from sqlalchemy import select

        one = self._identity
        with create_session() as session:
            state = session.scalar(
                select(TaskInstance.state).where(
                    TaskInstance.dag_id == one.dag_id,
                    TaskInstance.run_id == one.run_id,
                    TaskInstance.task_id == one.task_id,
                    TaskInstance.map_index == one.map_index,
                )
            )
        return state == "running"

    def _knows_run(self) -> bool:
        from airflow.models.dagrun import DagRun
        from airflow.utils.session import create_session
        from sqlalchemy import select

        one = self._identity
        query = select(DagRun.id).where(DagRun.dag_id == one.dag_id, DagRun.run_id == one.run_id)
        with create_session() as session:
            return session.scalar(query) is not None
