"""A process that has imported Airflow once, and forks for each DAG run: most of a short run is the import.

Reads a line of JSON for each run, ``{"arguments": [...], "env": {...}, "log": path}``, and answers when it has ended.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import traceback
from importlib import import_module

from airflow import settings
from airflow.sdk.execution_time.supervisor import in_process_api_server
from sqlalchemy.orm import configure_mappers

FOR_THE_FORKS = (
    "airflow.dag_processing.dagbag",
    "airflow.models.xcom",
    "airflow.sdk.execution_time.task_runner",
    "airflow_provider_luma.hooks.luma_ray",
    "airflow_provider_luma.jobs.order",
)


def main() -> None:
    for module in FOR_THE_FORKS:
        import_module(module)
    api = in_process_api_server().app
    api._cadwyn_initialize()  # at the first request otherwise, in each fork
    configure_mappers()
    for line in sys.stdin:
        run = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(run)
        os.waitpid(child, 0)
        print("ended", flush=True)


def _become(run: dict[str, object]) -> None:
    """Run a script in this fork, and end it."""
    arguments: list[str] = run["arguments"]  # type: ignore[assignment]
    env: dict[str, str] = run["env"]  # type: ignore[assignment]
    log = os.open(str(run["log"]), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.clear()
    os.environ.update(env)
    settings.DAGS_FOLDER = env["AIRFLOW__CORE__DAGS_FOLDER"]
    sys.argv = arguments
    try:
        runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit:
        pass
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


if __name__ == "__main__":
    main()
