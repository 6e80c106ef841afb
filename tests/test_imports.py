"""What parsing a DAG costs: the modules for DAG files import next to nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("requests", "urllib3", "airflow_provider_luma.hooks.luma_ray", "airflow_provider_luma.simulator")
STORES = ("s3fs", "boto3", "gcsfs", "adlfs", "botocore", "av", "PIL", "aiohttp")


@pytest.mark.parametrize("module", ["operators.luma_ray", "sensors.luma_ray", "decorators.luma_ray", "batch"])
def test_parsing_imports_no_http_no_store_and_no_simulator(module: str) -> None:
    code = f"""
import sys
import airflow.sdk
from airflow.providers.common.compat.sdk import BaseOperator, BaseSensorOperator, DecoratedOperator, conf
before = set(sys.modules)
import airflow_provider_luma.{module}
print(" ".join(sorted(set(sys.modules) - before)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    added = done.stdout.split()
    assert f"airflow_provider_luma.{module}" in added
    assert not {name for name in added if name.split(".")[0] in STORES or name.startswith(HEAVY)}
    assert len([name for name in added if not name.startswith("airflow_provider_luma")]) < 20


def test_discovery_imports_the_standard_library_only() -> None:
    code = """
import sys
from airflow_provider_luma.provider_info import get_provider_info
get_provider_info()
print(" ".join(sorted({name.split(".")[0] for name in sys.modules} - set(sys.stdlib_module_names))))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"airflow", "requests", "pendulum"} & set(done.stdout.split())
