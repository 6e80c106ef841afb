"""Answers a human-in-the-loop task like Airflow's REST API, or lets it time out like the scheduler."""

from __future__ import annotations

import argparse
import time
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from airflow.api_fastapi.core_api.datamodels.hitl import UpdateHITLDetailPayload
from airflow.api_fastapi.core_api.routes.public.hitl import update_hitl_detail
from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.taskinstance import TaskInstance
from airflow.sdk import timezone
from airflow.utils.session import create_session
from sqlalchemy import select


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dag_id")
    parser.add_argument("task_id")
    parser.add_argument("option", nargs="?", help="what the person chooses; left out, the time runs out")
    args = parser.parse_args()

    waiting = select(TaskInstance).where(
        TaskInstance.dag_id == args.dag_id,
        TaskInstance.task_id == args.task_id,
        TaskInstance.state == "awaiting_input",
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with create_session() as session:
            ti = session.scalar(waiting)
            if ti is None:
                pass
            elif args.option is None:
                ti.trigger_timeout = timezone.utcnow() - timedelta(seconds=1)
                session.commit()
                SchedulerJobRunner(job=Job()).check_awaiting_input_timeouts(session=session)
                return
            else:
                payload = UpdateHITLDetailPayload(chosen_options=[args.option], params_input={})
                user: Any = SimpleNamespace(get_id=lambda: "1", get_name=lambda: "editor")
                update_hitl_detail(ti.dag_id, ti.run_id, ti.task_id, payload, user, session)
                return
        time.sleep(0.2)
    raise SystemExit("The task never asked.")


if __name__ == "__main__":
    main()
