"""How much of a frame an aspect ratio crops."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_luma.segmind.models import ASPECT_RATIOS
from airflow_provider_luma.segmind.ratios import cut_off, nearest


@pytest.mark.parametrize(
    ("shape", "ratio", "share"),
    [
        ((1920, 1080), "16:9", 0.0),
        ((1920, 1080), "1:1", 0.4375),
        ((1080, 1920), "1:1", 0.4375),
        ((4000, 3000), "16:9", 0.25),
        ((100, 100), "wide", 0.0),
        ((100, 100), "16x9", 0.0),
        ((100, 100), "0:9", 0.0),
        ((100, 100), "\u00b2:1", 0.0),
    ],
)
def test_how_much_is_cropped(shape: tuple[int, int], ratio: str, share: float) -> None:
    assert cut_off(shape, ratio) == pytest.approx(share)


@pytest.mark.parametrize(
    ("shape", "ratio"),
    [
        ((1920, 1080), "16:9"),
        ((3000, 2000), "3:2"),
        ((640, 640), "1:1"),
        ((1080, 1920), "9:16"),
        ((4000, 1000), "21:9"),
    ],
)
def test_the_nearest_ratio(shape: tuple[int, int], ratio: str) -> None:
    assert nearest(shape, ASPECT_RATIOS) == ratio


@given(st.tuples(st.integers(1, 10**5), st.integers(1, 10**5)), st.text())
def test_any_ratio_text_is_accepted(shape: tuple[int, int], ratio: str) -> None:
    assert 0 <= cut_off(shape, ratio) < 1
