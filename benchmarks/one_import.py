"""Measures one import in a fresh process: `python -m benchmarks.one_import MODULE` prints its time and its modules."""

from __future__ import annotations

import importlib
import json
import sys
import time

HEAVY = (
    "aiohttp anthropic asgiref av boto3 fsspec httpx httpx2 numpy openai pandas PIL pydantic requests segmind "
    "sqlalchemy tenacity upath urllib3"
).split()
OURS = (
    "airflow.sdk.io",
    "airflow_provider_luma.hooks",
    "airflow_provider_luma.simulator",
    "airflow_provider_luma.storage",
)


def main(module: str) -> None:
    """Import what every DAG file imports, then the module."""
    from airflow.sdk import DAG  # noqa: F401

    before = set(sys.modules)
    started = time.perf_counter()
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        print(json.dumps({"missing": error.name}))
        return
    seconds = time.perf_counter() - started
    new = set(sys.modules) - before
    heavy = [name for name in (*HEAVY, *OURS) if name in new]
    print(json.dumps({"seconds": seconds, "modules": len(new), "heavy": heavy}))


if __name__ == "__main__":
    main(sys.argv[1])
