"""Wall time and peak memory of one generation, compared with the vendor's SDK and sample code."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.report import Limit, Report
from benchmarks.surroundings import connection, run_fresh, server, upload

LATENCY = 5
VIDEO_BYTES = 100 * 1024**2
ROUNDS = 5
LABELS = {
    "operator": "operator, poll_interval=1",
    "adaptive": "operator, poll_interval=None",
    "sdk": "segmind SDK (1 s), saved",
    "sample": "vendor's v1 sample",
}


@dataclass(frozen=True)
class Figures:
    """One generation: import, wall (imports included) and CPU seconds, and MB over idle (None: unknown)."""

    imports: float
    seconds: float
    cpu: float
    memory: float | None


def run(rounds: int = ROUNDS, latency: float = LATENCY, video_bytes: int = VIDEO_BYTES) -> Report:
    """Measure each way in a fresh process, in turn, so that noise on the machine affects all of them."""
    found: dict[str, list[Figures]] = {way: [] for way in LABELS}
    with (
        tempfile.TemporaryDirectory() as folder,
        server(latency=latency, video_size=video_bytes, credits="100000") as url,
    ):
        env = {"AIRFLOW_CONN_LUMA_RAY_DEFAULT": connection(url)}
        frame = upload(url)
        for number in range(-1, rounds):  # round -1 does not count: it renders the clip and fills caches
            for way in LABELS:
                output = Path(folder) / f"{way}-{number}.mp4"
                figures = Figures(
                    **run_fresh("-m", "benchmarks.one_generation", way, url, frame, str(output), env=env)
                )
                size = output.stat().st_size
                if size != video_bytes:
                    raise RuntimeError(f"{way} saved {size} of {video_bytes} bytes")
                output.unlink()
                if number >= 0:
                    found[way].append(figures)
    return _report(found, latency, video_bytes)


def _report(found: dict[str, list[Figures]], latency: float, video_bytes: int) -> Report:
    wall = {way: median(figures.seconds for figures in rounds) for way, rounds in found.items()}
    alone = {way: median(f.seconds - f.imports for f in rounds) for way, rounds in found.items()}
    best, best_alone = (min(times["sdk"], times["sample"]) for times in (wall, alone))
    rounds = len(found["operator"])
    report = Report(
        f"One generation: a job of {latency:g} s, a video of {video_bytes / 1024**2:.0f} MB, same server, "
        f"{rounds} rounds",
        (
            "way",
            "wall s (median)",
            "(best)",
            "to best peer",
            "CPU s",
            "imports s",
            "call alone",
            "peak memory over idle, MB (worst)",
        ),
        notes=[
            "Time and memory count from the task's start and include each way's imports, which are also shown.",
            "The adaptive wait is made for jobs of two minutes; it notices the end of this one about two seconds late.",
            "Ours also writes the record, hashes the video and flushes it to disk.",
        ],
    )
    for way, rounds_of_way in found.items():
        memory = [figures.memory for figures in rounds_of_way if figures.memory is not None]
        report.rows.append(
            (
                LABELS[way],
                wall[way],
                min(figures.seconds for figures in rounds_of_way),
                f"{wall[way] / best:.3f}x",
                median(figures.cpu for figures in rounds_of_way),
                median(figures.imports for figures in rounds_of_way),
                f"{alone[way] / best_alone:.3f}x",
                max(memory, default=None),
            )
        )
        if way == "operator":
            report.limits.append(
                Limit("wall time compared with the best peer", wall[way] / best, 1.05, unit="x")
            )
        if way in ("operator", "adaptive"):
            what = f"peak memory over idle ({LABELS[way]})"
            report.limits.append(Limit(what, max(memory, default=None), 40, unit=" MB"))
    return report
