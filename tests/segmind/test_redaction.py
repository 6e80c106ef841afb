"""What must not appear in any log, error or record."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_luma.segmind.redaction import redact
from tests.segmind.replies import ASSET_URL, KEY


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("nothing to hide", "nothing to hide"),
        (f"key {KEY}.", "key <api key>."),
        (f"{KEY}{KEY}", "<api key><api key>"),
        (f"see {ASSET_URL} and '{ASSET_URL}'", "see <asset url> and '<asset url>'"),
        (f'{{"frame":"{ASSET_URL}"}}', '{"frame":"<asset url>"}'),
        ("http://localhost:8900/assets/me@example.com/x.png?y=1#z!", "<asset url>"),
        ("no https://b.example/f.jpg?X-Amz-Signature=0a1b&x=1 there", "no https://b.example/f.jpg there"),
        ('{"u":"https://b.example/f.jpg?sig=a%3D\\u0026se=1"}', '{"u":"https://b.example/f.jpg"}'),
        ("a\r\nb\tc\x00", "a b c\x00"),
        ("half of a smile \ud83d", "half of a smile ?"),
        ("\ud83d\ude00", "??"),
        ("", ""),
    ],
)
def test_redacted(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize(
    "key", ["SG_0123456789abcdef", "SG_0123456789ABCDEF", "SG_" + "0123456789abcdef" * 2]
)
def test_no_part_of_a_key_survives_redaction(key: str) -> None:
    assert "89" not in redact(f"Invalid API key {key}").replace("<api key>", "")


@settings(deadline=None)
@given(st.text(), st.text())
def test_redaction_leaves_one_short_line_without_the_key(before: str, after: str) -> None:
    shown = redact(f"{before}{KEY} {ASSET_URL} {after}")
    assert KEY not in shown
    assert "someone@example.com" not in shown
    assert len(shown) <= 500
    assert shown.splitlines() in ([], [shown])
