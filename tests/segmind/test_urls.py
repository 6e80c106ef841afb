"""URLs in replies, and how they are found."""

from __future__ import annotations

import pytest

from airflow_provider_luma.segmind.urls import parse_url, urls_in
from airflow_provider_luma.segmind.walk import walk


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("https://x.example/v.mp4", "https://x.example/v.mp4"),
        (" http://x.example\n", "http://x.example"),
        ("see https://x.example", None),
        ("https://x.example/a b", None),
        ("https://x.example/\ud800", None),
        ("https://x.example/\x00", None),
        ("https://", None),
        ("ftp://x.example", None),
        (7, None),
        (None, None),
    ],
)
def test_url(value: object, url: str | None) -> None:
    assert parse_url(value) == url


def test_urls_are_found_at_any_depth_the_shallowest_first() -> None:
    value: object = ["https://x.example/3"]
    for _ in range(5_000):
        value = {"a": [value]}
    assert list(urls_in(["https://x.example/1", value, 7, {"b": "https://x.example/2"}])) == [
        "https://x.example/1",
        "https://x.example/2",
        "https://x.example/3",
    ]


def test_the_walk_yields_everything() -> None:
    value = {"a": [1, {"b": None}], "c": {"d": []}}
    assert list(walk(value)) == [value, [1, {"b": None}], {"d": []}, 1, {"b": None}, [], None]


def test_the_walk_can_skip_lists() -> None:
    value = {"a": [1, {"b": None}], "c": {"d": []}}
    assert list(walk(value, into_lists=False)) == [value, [1, {"b": None}], {"d": []}, []]


def test_values_removed_from_an_object_are_not_walked() -> None:
    value = {"a": {"b": {"c": 1}}}
    seen = []
    for item in walk(value):
        seen.append(item)
        if isinstance(item, dict):
            item.pop("b", None)
    assert seen == [{"a": {}}, {}]
