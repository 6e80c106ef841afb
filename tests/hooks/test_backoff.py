"""How often and after how long a free call is retried."""

from __future__ import annotations

import pytest

from airflow_provider_luma.hooks.backoff import backoff


@pytest.fixture
def quicker() -> None:
    """Leave the delays unchanged: they are under test."""


@pytest.fixture
def quick() -> None:
    """As above."""


@pytest.mark.parametrize(("attempt", "low"), [(1, 0.5), (2, 1.0), (3, 2.0)])
def test_each_delay_is_twice_the_last_with_jitter(attempt: int, low: float) -> None:
    delays = {backoff(attempt) for _ in range(50)}
    assert len(delays) > 25
    assert all(delay is not None and low <= delay <= low * 1.1 for delay in delays)


@pytest.mark.parametrize("attempt", [4, 5, 100])
def test_there_are_four_tries(attempt: int) -> None:
    assert backoff(attempt) is None
