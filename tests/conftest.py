"""What all tests share: a simulator, a connection to it, a frame, and the context of a task instance."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Before anything imports Airflow: no database, no configuration of the developer's own.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="airflow_home_")
os.environ["AIRFLOW__CORE__UNIT_TEST_MODE"] = "True"
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["NO_PROXY"] = "127.0.0.1,localhost"

import airflow.sdk
import pytest
from PIL import Image

from airflow_provider_luma import exceptions
from airflow_provider_luma.hooks import backoff, limiter
from airflow_provider_luma.hooks.limiter import limiter_of
from airflow_provider_luma.jobs import recovery
from airflow_provider_luma.simulator import Simulator
from airflow_provider_luma.triggers import luma_ray
from airflow_provider_luma.triggers.account import account_of
from tests.support import API_KEY, set_connection

if not hasattr(airflow.sdk, "NEVER_EXPIRE"):
    # Airflow 3.2 has no task state store; the tests that stand in for one use it like that of 3.3.
    airflow.sdk.NEVER_EXPIRE = None  # type: ignore[attr-defined]

atexit.register(shutil.rmtree, os.environ["AIRFLOW_HOME"], ignore_errors=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the waits between tries, but not their number."""
    monkeypatch.setattr(backoff, "_FIRST_RETRY", 0.005)
    for module in (exceptions, limiter):
        monkeypatch.setattr(module, "SHORTEST_RATE_LIMIT", 0.01)
    limiter_of.cache_clear()
    account_of.cache_clear()
    monkeypatch.setattr(luma_ray, "_QUIET_TIME", 0.0)
    monkeypatch.setattr(luma_ray, "_TROUBLE_TIME", 0.0)
    monkeypatch.setattr(recovery, "LOOK_DELAYS", (0.0, 0.05, 0.05, 0.1))


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all simulators, so that each clip is rendered once."""
    return tmp_path_factory.mktemp("simulator")


@pytest.fixture
def simulator(clips: Path) -> Iterator[Simulator]:
    """A fast simulator with short clips, for this test only."""
    with Simulator(latency=0.02, clip_seconds=0.2, credits="20", api_key=API_KEY, work_dir=clips) as running:
        yield running


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch, simulator: Simulator) -> None:
    """The default connection, to the simulator."""
    set_connection(monkeypatch, simulator.url, timeout=5)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """The path of a video, in a folder that does not exist yet."""
    return tmp_path / "out" / "clip.mp4"


@pytest.fixture
def frame(tmp_path: Path) -> Path:
    """A small JPEG."""
    path = tmp_path / "frame.jpg"
    Image.linear_gradient("L").convert("RGB").save(path)
    return path
