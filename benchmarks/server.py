"""Runs a simulator until stdin closes: `python -m benchmarks.server '{"latency": 5}'`.

With `spread`, each job's duration is drawn around the latency, with this relative standard deviation.
"""

from __future__ import annotations

import json
import math
import random
import sys
from typing import Any
from unittest import mock

from airflow_provider_luma.simulator import Simulator
from airflow_provider_luma.simulator.account import Account, Job

SEED = 4


def durations(count: int, centre: float, spread: float, kind: str = "lognormal") -> list[float]:
    """Draw job durations with this mean and relative standard deviation; always the same ones."""
    source = random.Random(SEED)
    if kind == "normal":
        return [max(source.gauss(centre, spread * centre), 0.1 * centre) for _ in range(count)]
    sigma = math.sqrt(math.log(1 + spread**2))
    return [source.lognormvariate(math.log(centre) - sigma**2 / 2, sigma) for _ in range(count)]


def main(*, spread: float = 0.0, **options: Any) -> None:
    """Serve until stdin closes."""
    open_job = Account.open_job
    times = iter(durations(100_000, options["latency"], spread) if spread else ())

    def open_drawn_job(account: Account, *arguments: Any) -> Job:
        account.latency = next(times, account.latency)
        return open_job(account, *arguments)

    with mock.patch.object(Account, "open_job", open_drawn_job), Simulator(**options) as simulator:
        print(simulator.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
