"""A simulator until stdin closes: `python -m tests.benchmarks.server '{"latency": 5}'`."""

from __future__ import annotations

import json
import sys

from airflow_provider_luma.simulator import Simulator

if __name__ == "__main__":
    with Simulator(**json.loads(sys.argv[1])) as simulator:
        print(simulator.url, flush=True)
        sys.stdin.read()
