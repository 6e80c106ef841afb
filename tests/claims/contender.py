"""A contending process: it receives an attempt, waits until all others are ready, and reports how it ended."""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def attempt(told: dict[str, Any], barrier: Any) -> dict[str, Any]:
    """Run one attempt of a task instance."""
    from airflow_provider_luma.exceptions import LumaRayError
    from tests.support import MemoryStore, make_operator, task_context

    store = MemoryStore() if told["stored"] else None
    operator = make_operator(told["frame"], told["output"], poll_interval=0.05, **told.get("arguments", {}))
    context = task_context(run_id=told["run_id"], map_index=told["map_index"], store=store)
    barrier.wait(60)
    try:
        return {"delivered": operator.execute(context)["request_id"]}
    except Exception as error:
        return {"error": type(error).__name__, "text": str(error), "is_told": isinstance(error, LumaRayError)}


def serve(tasks: Any, results: Any, barrier: Any, environment: dict[str, str]) -> None:
    """Run attempts from a queue until it yields None."""
    os.environ.update(environment)
    import airflow_provider_luma.jobs.job  # noqa: F401 - what the first attempt would otherwise wait for

    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    while (told := tasks.get()) is not None:
        results.put(json.dumps(attempt(told, barrier)))
