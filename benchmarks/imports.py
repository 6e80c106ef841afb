"""What importing the operator costs a DAG file, compared with operators of the http and openai providers."""

from __future__ import annotations

from typing import Any

from benchmarks.report import Limit, Report
from benchmarks.surroundings import run_fresh

ROUNDS = 7
OURS = "airflow_provider_luma.operators.luma_ray"
MODULES = (
    OURS,
    "airflow.providers.http.operators.http",
    "airflow.providers.openai.operators.openai",
)


def run(rounds: int = ROUNDS) -> Report:
    """Import each module in fresh processes, in turn, after ``from airflow.sdk import DAG``."""
    found: dict[str, list[dict[str, Any]]] = {module: [] for module in MODULES}
    for number in range(-1, rounds):  # round -1 does not count: it fills the caches
        for module in MODULES:
            figures = run_fresh("-m", "benchmarks.one_import", module)
            if number >= 0:
                found[module].append(figures)
    report = Report(
        f"Import in a DAG file, after `from airflow.sdk import DAG`, {rounds} fresh processes each",
        ("module", "ms (best)", "to ours", "new modules", "heavy ones among them"),
        notes=[
            "The peers are measured if they are installed: pip install apache-airflow-providers-http "
            "apache-airflow-providers-openai."
        ],
    )
    best = {
        module: min(figures["seconds"] for figures in rounds_of_module)
        for module, rounds_of_module in found.items()
        if "seconds" in rounds_of_module[0]
    }
    for module, (first, *_) in found.items():
        if module in best:
            heavy = ", ".join(first["heavy"]) or "none"
            report.rows.append(
                (module, best[module] * 1000, f"{best[module] / best[OURS]:.2f}x", first["modules"], heavy)
            )
        else:
            report.rows.append((module, None, None, None, f"not installed ({first['missing']})"))
    peers = [seconds for module, seconds in best.items() if module != OURS]
    report.limits += [
        Limit("heavy modules that ours imports", len(found[OURS][0]["heavy"]), 0),
        Limit(
            "our time compared with the fastest peer", best[OURS] / min(peers) if peers else None, 1, unit="x"
        ),
    ]
    return report
