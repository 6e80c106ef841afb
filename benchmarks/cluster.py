"""Many clips through a real Airflow, with a rate limit that the vendor enforces.

Runs in real time. Each task is two processes (before and after the deferral), each with a limiter that knows nothing of
the others; together with the triggerer they share the account's limit.
"""

from __future__ import annotations

import json
import tempfile
import urllib.request
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.report import Limit, Report
from benchmarks.surroundings import API_KEY, server, upload
from benchmarks.throughput import ideal
from tests.e2e.cluster import FINISHED, Cluster

CLIPS = 60
LATENCY = 125.0
PER_MINUTE = 60
SLOTS = 8
MOST_REFUSED = 5
MOST_TO_IDEAL = 1.6
_UNCOUNTED = ("download", "control")


def run(clips: int = CLIPS, latency: float = LATENCY, per_minute: int = PER_MINUTE) -> Report:
    """Map the operator over many prompts, and let Airflow run it."""
    with (
        tempfile.TemporaryDirectory() as folder,
        server(clip_seconds=0.2) as elsewhere,
        server(latency=latency, requests_per_minute=per_minute, credits="100000", clip_seconds=0.2) as url,
        Cluster(Path(folder) / "airflow", parallelism=SLOTS) as cluster,
    ):
        pids = Path(folder) / "pids"
        pids.mkdir()
        cluster.connect("bench", url, API_KEY)
        cluster.trigger(
            "mapped",
            "bench",
            count=clips,
            frame=upload(elsewhere),
            videos=f"{folder}/videos",
            connection="bench",
            pids=str(pids),
        )
        cluster.wait("the run ends", lambda: cluster.run_states("mapped")["bench"] in FINISHED, timeout=3600)
        tasks = cluster.task_instances("mapped", "bench")
        attempts = sum(task["try_number"] for task in tasks)
        with urllib.request.urlopen(f"{url}/simulator/state") as reply:
            state: dict[str, Any] = json.load(reply)
    seconds = max(_time(task["end_date"]) for task in tasks) - min(
        _time(job["created"]) for job in state["jobs"]
    )
    delivered = sum(task["state"] == "success" for task in tasks)
    requests = sum(times for call, times in state["calls"].items() if call not in _UNCOUNTED)
    refused = 100 * state["refused"] / requests
    best = ideal([latency] * clips, per_minute)
    return Report(
        f"{clips} clips of {latency:g} s through Airflow ({SLOTS} slots) under an enforced {per_minute} a minute",
        ("way", "delivered", "attempts", "requests a clip", "429s, %", "s", "ideal s", "to the ideal"),
        [
            (
                "deferrable",
                delivered,
                attempts,
                requests / clips,
                refused,
                seconds,
                best,
                seconds / best,
            )
        ],
        [
            Limit("delivered", delivered, clips, least=clips),
            Limit("attempts", attempts, clips, least=clips),
            Limit("replies that were 429", refused, MOST_REFUSED, unit=" %"),
            Limit("time compared with the ideal", seconds / best, MOST_TO_IDEAL, unit="x"),
        ],
        [
            "The time runs from the first submission to the last task's end; all processes share this machine.",
            f"Calls: {state['calls']}.",
        ],
    )


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
