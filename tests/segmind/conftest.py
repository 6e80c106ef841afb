"""Tests of pure functions: nothing waits, so nothing needs to be shortened."""

from __future__ import annotations

import pytest


@pytest.fixture
def quick() -> None:
    """Leave the waits between tries unchanged: the decisions about them are under test."""
