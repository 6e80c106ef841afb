"""Lists two folders in a bucket, or plans a batch: `python -m benchmarks.one_batch plan|list FRAMES CLIPS`."""

from __future__ import annotations

import json
import resource
import sys
import time
from datetime import UTC, datetime, timedelta

from airflow.sdk import ObjectStoragePath
from airflow.sdk.execution_time.context import set_current_context

from airflow_provider_luma.batch import plan_batch
from airflow_provider_luma.storage import open_file
from benchmarks.surroundings import task_context


def main(what: str, frames: str, clips: str) -> dict[str, float]:
    """Return the seconds, the peak in MB, how many clips are planned, and the bytes of the plan as an XCom."""
    open_file(f"{frames}none").look()  # connects
    context = task_context()
    context["dag_run"].run_after = datetime.now(UTC) + timedelta(hours=1)
    planned = []
    begun = time.perf_counter()
    if what == "plan":
        with set_current_context(context):
            planned = plan_batch(frames, clips, max_credits=1000)
    else:
        for folder in (frames, clips):
            path = ObjectStoragePath(folder)
            path.fs.find(path.path)
    return {
        "seconds": time.perf_counter() - begun,
        "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "planned": len(planned),
        "xcom": len(json.dumps(planned)),
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
