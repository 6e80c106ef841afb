"""What planning a night costs, with a bucket of frames nearly all of which have their clips."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.report import Limit, Report
from benchmarks.surroundings import connection, run_fresh, server

FRAMES = 10_000
ROUNDS = 3
#: One frame in so many is new.
_NEW = 50
_FOLDERS = ("s3://aws_default@photos/p/", "s3://aws_default@clips/c/")


def run(frames: int = FRAMES, rounds: int = ROUNDS) -> Report:
    """List both folders plainly and plan, in turn, each in a fresh process, from one S3 server."""
    from tests.buckets import s3_server

    with s3_server() as (aws, s3), server(latency=0, credits="100000") as url:
        _fill(s3, frames)
        env = {"AIRFLOW_CONN_AWS_DEFAULT": aws, "AIRFLOW_CONN_LUMA_RAY_DEFAULT": connection(url)}
        found: dict[str, list[dict[str, Any]]] = {"list": [], "plan": []}
        for _ in range(rounds):
            for what, figures in found.items():
                figures.append(run_fresh("-m", "benchmarks.one_batch", what, *_FOLDERS, env=env))
    best = {what: min(one["seconds"] for one in figures) for what, figures in found.items()}
    peak = {what: min(one["mb"] for one in figures) for what, figures in found.items()}
    plan = found["plan"][0]
    report = Report(
        f"A batch of {frames:,} frames in a bucket, {frames // _NEW} without a clip; {rounds} processes each",
        ("way", "s (best)", "peak MB", "clips", "XCom kB"),
        [
            ("a plain listing of both folders", best["list"], peak["list"], None, None),
            ("plan_batch", best["plan"], peak["plan"], plan["planned"], plan["xcom"] / 1000),
        ],
    )
    report.limits += [
        Limit("clips planned", plan["planned"], frames // _NEW, least=frames // _NEW),
        # Both wait for the same server, so a busy machine slows both.
        Limit("time compared with a plain listing", best["plan"] / best["list"], 3, unit="x"),
        Limit("memory above a plain listing", peak["plan"] - peak["list"], 60, unit=" MB"),
        Limit("the plan as an XCom", plan["xcom"] / 1000, 100, unit=" kB"),
    ]
    return report


def _fill(s3: Any, frames: int) -> None:
    for bucket in ("photos", "clips"):
        s3.create_bucket(Bucket=bucket)

    def put(number: int) -> None:
        name = f"{number:06}.jpg"
        s3.put_object(Bucket="photos", Key=f"p/{name}", Body=b"\xff\xd8\xff" + name.encode())
        if number % _NEW:
            s3.put_object(Bucket="clips", Key=f"c/{name}.mp4", Body=b"clip")
            s3.put_object(Bucket="clips", Key=f"c/{name}.mp4.job.json", Body=b"{}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(frames)))
