"""`python -m benchmarks [NAME ...] [--json PATH]`: runs the named benchmarks and fails if a limit is missed."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from importlib import import_module
from pathlib import Path

from benchmarks.report import Report
from benchmarks.surroundings import isolated

NAMES = (
    "imports",
    "polling",
    "paid",
    "generation",
    "slots",
    "throughput",
    "cluster",
    "triggerer",
    "transfer",
    "batch",
)


def main() -> int:
    """Run the named benchmarks, by default all; return 1 if one of our numbers misses its limit."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)}; default: all")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write the results to this file")
    options = parser.parse_args()
    unknown = set(options.names) - set(NAMES)
    if unknown:
        parser.error(f"unknown benchmark: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    reports: list[Report] = []
    with isolated():
        for name in options.names or NAMES:
            found = import_module(f"benchmarks.{name}").run()
            for report in found if isinstance(found, list) else [found]:
                print(f"{report}\n", flush=True)
                reports.append(report)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        content = {"python": platform.python_version(), "reports": [report.to_json() for report in reports]}
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    missed = [limit for report in reports for limit in report.limits if limit.missed]
    for limit in missed:
        print(limit, file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
