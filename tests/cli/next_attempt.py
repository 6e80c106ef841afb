"""Clears a run's failed tasks, as a person does in Airflow's UI, and runs their next attempts."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from airflow.dag_processing.dagbag import DagBag
from airflow.models.taskinstance import TaskInstance, clear_task_instances
from airflow.sdk.definitions.dag import _run_task
from airflow.utils.session import create_session
from sqlalchemy import select


def main() -> None:
    """Write the states of the task instances as JSON, by map index."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("dag_id")
    parser.add_argument("task_id")
    parser.add_argument("--result", type=Path, required=True)
    args = parser.parse_args()
    os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "server"
    dag = DagBag(args.file).dags[args.dag_id]
    query = select(TaskInstance).where(
        TaskInstance.dag_id == args.dag_id, TaskInstance.task_id == args.task_id
    )
    with create_session() as session:
        clear_task_instances(list(session.scalars(query)), session)
    states = {}
    with create_session() as session:
        instances = list(session.scalars(query))
        for instance in instances:
            instance.try_number += 1
        session.commit()
        for instance in instances:
            _run_task(ti=instance, task=dag.task_dict[args.task_id])
            states[instance.map_index] = str(getattr(instance.state, "value", instance.state))
    args.result.write_text(json.dumps(states))


if __name__ == "__main__":
    main()
