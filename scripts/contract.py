"""``make contract``: runs the contract check with a purchase against the built-in simulator, which ends with it."""

from __future__ import annotations

import json
import os
import sys
import tempfile

import requests

from airflow_provider_luma.cli.main import main
from airflow_provider_luma.segmind.models import DEFAULT_MODEL
from airflow_provider_luma.simulator import Simulator

#: Jobs that the account had before, so that the history has an order and a second page.
_EARLIER = 3


def check(arguments: list[str]) -> int:
    """Run the check with further arguments, and return its exit code."""
    with (
        tempfile.TemporaryDirectory(prefix="luma_ray_contract_") as folder,
        Simulator(latency=1, clip_seconds=1) as simulator,
    ):
        os.environ.setdefault("AIRFLOW_HOME", folder)
        connection = {"conn_type": "luma_ray", "password": simulator.api_key, "host": simulator.url}
        os.environ["AIRFLOW_CONN_LUMA_RAY_DEFAULT"] = json.dumps(connection)
        for number in range(_EARLIER):
            body = {"prompt": f"take {number}", "resolution": "540p"}
            headers = {"x-api-key": simulator.api_key}
            requests.post(
                f"{simulator.url}/v2/{DEFAULT_MODEL}", json=body, headers=headers, timeout=10
            ).raise_for_status()
        return main(["contract", "--buy", "--yes", "--folder", f"{folder}/contract", *arguments])


if __name__ == "__main__":
    sys.exit(check(sys.argv[1:]))
