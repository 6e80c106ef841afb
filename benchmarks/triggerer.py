"""A thousand jobs from submission to end in one triggerer process, and ten thousand for some minutes.

Runs in real time: the jobs take about 125 s and are submitted within seconds, so all are in flight together. The
triggers run in the event loop of one process, the simulator in another; the rate limit is that of a large account. The
ten thousand stand for a restarted triggerer with a usual limit; none of them ends while they are watched.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from benchmarks.report import Limit, Report
from benchmarks.surroundings import API_KEY, MODEL, ROOT, connection, server, upload

JOBS = 1000
LATENCY = 125.0
SPREAD = 0.2
PER_MINUTE = 100_000
WAITING = 10_000
WAITING_PER_MINUTE = 600
WATCHED_SECONDS = 420.0
MOST_CORES = 0.5
MOST_MEMORY = 150
MOST_LAG = 100


def run() -> list[Report]:
    """Run the thousand, then the ten thousand."""
    return [to_their_end(), waiting()]


def to_their_end(
    jobs: int = JOBS, latency: float = LATENCY, spread: float = SPREAD, poll_interval: float | None = None
) -> Report:
    """Submit the jobs from here, and let the triggerer wait for them."""
    with server(latency=latency, spread=spread, credits="1000000", clip_seconds=0.2) as url:
        found = _wait(url, jobs, PER_MINUTE, poll_interval)
        with urllib.request.urlopen(f"{url}/simulator/state") as reply:
            calls: dict[str, int] = json.load(reply)["calls"]
    report = Report(
        f"{jobs} jobs of about {latency:g} s (sd {spread:.0%}) in flight in one triggerer",
        (
            "triggerer",
            "fired ready",
            "requests a job",
            "s",
            "CPU, cores (mean)",
            "memory over empty, MB (peak)",
            "event loop late, ms (p99)",
            "(most)",
            "threads",
        ),
        [
            (
                "LumaRayJobTrigger",
                found["ready"],
                (calls.get("status", 0) + calls.get("history", 0)) / jobs,
                found["seconds"],
                found["cores"],
                found["memory"],
                found["lag_p99"],
                found["lag_most"],
                found["threads"],
            )
        ],
        [
            Limit("jobs that fired ready", found["ready"], jobs, least=jobs),
            Limit("CPU of polling", found["cores"], MOST_CORES, unit=" cores"),
            Limit("memory over an empty triggerer", found["memory"], MOST_MEMORY, unit=" MB"),
            Limit("the event loop is late (p99)", found["lag_p99"], MOST_LAG, unit=" ms"),
        ],
        ["CPU is that of the whole process from the last submission to the last event, measuring included."],
    )
    if set(calls) - {"status", "history", "submit", "upload", "control"}:
        report.notes.append(f"Other calls were made too: {calls}.")
    return report


def waiting(
    jobs: int = WAITING, per_minute: int = WAITING_PER_MINUTE, seconds: float = WATCHED_SECONDS
) -> Report:
    """Let the triggerer wait for jobs that do not end while it is watched."""
    with server(latency=6 * 3600, credits="1000000", clip_seconds=0.2) as url:
        found = _wait(url, jobs, per_minute, None, seconds)
        with urllib.request.urlopen(f"{url}/simulator/state") as reply:
            calls: dict[str, int] = json.load(reply)["calls"]
    rate = 60 * (calls.get("status", 0) + calls.get("history", 0)) / found["seconds"]
    return Report(
        f"{jobs} jobs waiting in one triggerer for {seconds:g} s at a limit of {per_minute} requests a minute",
        (
            "triggerer",
            "requests a minute",
            "longest without an answer about a job, s",
            "CPU, cores (mean)",
            "memory over empty, MB (peak)",
            "event loop late, ms (p99)",
            "(most)",
            "threads",
        ),
        [
            (
                "LumaRayJobTrigger",
                rate,
                found["longest"],
                found["cores"],
                found["memory"],
                found["lag_p99"],
                found["lag_most"],
                found["threads"],
            )
        ],
        [
            Limit("requests a minute", rate, per_minute),
            Limit("longest without an answer about a job", found["longest"], seconds - 1, unit=" s"),
            Limit("CPU of polling", found["cores"], MOST_CORES, unit=" cores"),
            Limit("memory over an empty triggerer", found["memory"], MOST_MEMORY, unit=" MB"),
            Limit("the event loop is late (p99)", found["lag_p99"], MOST_LAG, unit=" ms"),
        ],
        [f"Calls: {calls}."],
    )


def _wait(
    url: str, jobs: int, per_minute: int, poll_interval: float | None, seconds: float | None = None
) -> dict[str, Any]:
    variables = {"AIRFLOW_CONN_LUMA_RAY_DEFAULT": connection(url, requests_per_minute=per_minute)}
    frame = upload(url)
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "benchmarks.one_triggerer",
            str(jobs),
            json.dumps(poll_interval),
            json.dumps(seconds),
        ],
        cwd=ROOT,
        env=os.environ | variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process, ThreadPoolExecutor(4) as threads:
        assert process.stdin is not None
        assert process.stdout is not None
        while (line := process.stdout.readline()) != "ready\n":
            if not line:
                raise RuntimeError("the triggerer did not start")
        for request_id in threads.map(lambda number: _submit(url, frame, number), range(jobs)):
            process.stdin.write(f"{request_id} {datetime.now(UTC).isoformat()}\n")
            process.stdin.flush()
        found: dict[str, Any] = json.loads(process.stdout.readline())
    return found


def _submit(url: str, frame: str, number: int) -> str:
    request = urllib.request.Request(
        f"{url}/v2/{MODEL}",
        json.dumps({"prompt": f"number {number}", "start_frame": frame, "loop": False}).encode(),
        {"Content-Type": "application/json", "x-api-key": API_KEY},
    )
    with urllib.request.urlopen(request) as reply:
        request_id: str = json.load(reply)["request_id"]
    return request_id
