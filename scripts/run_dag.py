"""Run one DAG with ``dag.test()`` and write its result as JSON.

Like ``airflow dags test``, but that reports neither XComs nor the reason for a failure.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from airflow.dag_processing.dagbag import DagBag
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("file", type=Path, help="the DAG file, inside AIRFLOW__CORE__DAGS_FOLDER")
    parser.add_argument("dag_id")
    parser.add_argument("--conf", type=json.loads, default={}, help="the run's parameters, as JSON")
    parser.add_argument(
        "--at", type=datetime.fromisoformat, required=True, help="the run's date, and thus its id"
    )
    parser.add_argument("--done", metavar="TASK_ID", help="a task to mark as success without running it")
    parser.add_argument("--xcoms-of", required=True, metavar="TASK_ID")
    parser.add_argument("--result", type=Path, required=True, help="where to write the JSON")
    args = parser.parse_args()

    bag = DagBag(args.file)
    dag = bag.dags.get(args.dag_id)
    if dag is None:
        errors = [text.strip().splitlines()[-1] for text in bag.import_errors.values()]
        outcome: dict[str, Any] = {"state": "failed", "errors": errors or [f"there is no DAG {args.dag_id}"]}
    else:
        errors = []

        def remember(context: Any) -> None:
            errors.append(f"the task '{context['task'].task_id}' failed: {context.get('exception')}")

        for task in dag.task_dict.values():
            task.on_failure_callback = [remember]

        run = dag.test(
            logical_date=args.at, run_after=args.at, run_conf=args.conf, mark_success_pattern=args.done
        )

        with create_session() as session:
            query = XComModel.get_many(run_id=run.run_id, dag_ids=args.dag_id, task_ids=args.xcoms_of)
            rows: Iterable[Any] = session.scalars(query)
            xcoms = {row.key: XComModel.deserialize_value(row) for row in rows}
        outcome = {"state": str(run.state), "errors": errors, "xcoms": xcoms}

    args.result.write_text(json.dumps(outcome, default=str))
    return 0 if outcome["state"] == "success" else 1


if __name__ == "__main__":
    sys.exit(main())
