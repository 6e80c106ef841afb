"""An even faster vendor than in the other tests, as there are many cases."""

from __future__ import annotations

import pytest

from airflow_provider_luma.hooks import backoff, luma_ray
from airflow_provider_luma.jobs import recovery
from airflow_provider_luma.simulator import Simulator
from tests.support import set_connection


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch, simulator: Simulator) -> None:
    connect(monkeypatch, simulator)


def connect(monkeypatch: pytest.MonkeyPatch, simulator: Simulator, timeout: float = 10) -> None:
    """Define the default connection, in effect without a rate limit."""
    set_connection(monkeypatch, simulator.url, timeout=timeout, requests_per_minute=100_000)


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tries, two history searches, and the same timeout for v1 as for other calls."""
    monkeypatch.setattr(backoff, "_MAX_TRIES", 2)
    monkeypatch.setattr(recovery, "LOOK_DELAYS", (0.0, 0.02))
    monkeypatch.setattr(luma_ray, "_GENERATE_TIMEOUT", 0.5)
