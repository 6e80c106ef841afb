"""Pure functions: nothing here waits, so nothing has to be made quick."""

from __future__ import annotations

import pytest


@pytest.fixture
def quick() -> None:
    """Leave the waits between tries as they are; the decisions about them are what is tested."""
