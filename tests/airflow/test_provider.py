"""How Airflow sees the provider: discovery, metadata, the connection and its test."""

from __future__ import annotations

import importlib
import json
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import airflow as airflow_package
import pytest

from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.provider_info import get_provider_info
from tests.airflow.conftest import Airflow
from tests.support import API_KEY

INFO = get_provider_info()
CONNECTION: dict[str, Any] = INFO["connection-types"][0]


def test_the_entry_point_returns_the_provider_info() -> None:
    (found,) = [
        entry
        for entry in entry_points(group="apache_airflow_provider")
        if entry.dist and entry.dist.name == INFO["package-name"]
    ]
    assert found.load()() == INFO


def test_the_provider_info_fits_airflows_schema() -> None:
    jsonschema = importlib.import_module("jsonschema")
    schema = Path(airflow_package.__file__).with_name("provider_info.schema.json")
    jsonschema.validate(INFO, json.loads(schema.read_text()))


@pytest.mark.parametrize("kind", ["hooks", "operators", "sensors", "triggers"])
def test_every_listed_module_can_be_imported(kind: str) -> None:
    for entry in INFO[kind]:
        for name in entry["python-modules"]:
            importlib.import_module(name)


def test_the_listed_task_decorator_can_be_imported() -> None:
    (decorator,) = INFO["task-decorators"]
    module, _, function = decorator["class-name"].rpartition(".")
    assert decorator["name"] == "luma_ray"
    assert callable(getattr(importlib.import_module(module), function))


def test_the_hook_and_the_metadata_agree() -> None:
    assert CONNECTION["connection-type"] == LumaRayHook.conn_type
    assert CONNECTION["hook-name"] == LumaRayHook.hook_name
    assert CONNECTION["hook-class-name"] == f"{LumaRayHook.__module__}.{LumaRayHook.__name__}"
    assert LumaRayHook(**{LumaRayHook.conn_name_attr: "other"}).luma_ray_conn_id == "other"


@pytest.mark.airflow
def test_airflow_shows_the_provider_and_its_connection_type(airflow: Airflow) -> None:
    shown = airflow.cli("providers", "get", "airflow-provider-luma", "--full", "-o", "json")
    assert "Luma Ray (Segmind)" in shown.stdout, shown.stderr
    hooks = json.loads(airflow.cli("providers", "hooks", "-o", "json").stdout)
    (ours,) = [hook for hook in hooks if hook["connection_type"] == "luma_ray"]
    assert ours["hook_name"] == "Luma Ray (Segmind)"


@pytest.mark.airflow
@pytest.mark.parametrize(
    ("password", "says"),
    [(API_KEY, "the balance is 20.00 USD"), ("SG_ffffffffffffffff", "Check the API key")],
)
def test_the_connection_test_answers_with_the_balance_or_says_what_is_wrong(
    airflow: Airflow, password: str, says: str
) -> None:
    connection = json.loads(airflow.env["AIRFLOW_CONN_LUMA_RAY_DEFAULT"]) | {"password": password}
    done = airflow.cli(
        "connections",
        "test",
        "luma_ray_default",
        AIRFLOW__CORE__TEST_CONNECTION="Enabled",
        AIRFLOW_CONN_LUMA_RAY_DEFAULT=json.dumps(connection),
    )
    assert says in done.stdout + done.stderr
    assert password not in done.stdout + done.stderr
