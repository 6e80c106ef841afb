"""Amounts in US dollars: parsed exactly or not at all, and formatted as people write them."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_luma.segmind.money import money, usd


@pytest.mark.parametrize(
    ("value", "amount"),
    [
        (1, "1"),
        (Decimal("0.0184921035"), "0.0184921035"),
        ("1.60", "1.60"),
        (" 2 ", "2"),
        (0.5, "0.5"),
        (-3, "-3"),
        (True, None),
        (None, None),
        ("", None),
        ("1,60", None),
        ("1.6 USD", None),
        ("999999999999.99", "999999999999.99"),
        ("1000000000000", None),
        (float("nan"), None),
        (float("inf"), None),
        (Decimal("Infinity"), None),
        (b"1", None),
    ],
)
def test_money(value: object, amount: str | None) -> None:
    assert money(value) == (None if amount is None else Decimal(amount))


@settings(deadline=None)
@given(st.floats() | st.text() | st.decimals() | st.integers() | st.booleans() | st.none())
def test_any_amount_can_be_added_shown_and_sent_as_a_json_number(value: object) -> None:
    amount = money(value)
    if amount is not None:
        assert len(f"{amount + amount:.2f}") < 400
        assert abs(float(amount)) < float("inf")


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("1.6", "1.60 USD"),
        ("1.60", "1.60 USD"),
        ("20", "20.00 USD"),
        ("2E+1", "20.00 USD"),
        ("0.675", "0.675 USD"),
        ("0.0184921035", "0.0185 USD"),
        ("12.8584921035", "12.8585 USD"),
        ("0.00001", "0.00 USD"),
        ("-0.00001", "0.00 USD"),
        ("-1.25", "-1.25 USD"),
        ("0", "0.00 USD"),
        ("123456789012.5", "123456789012.50 USD"),
    ],
)
def test_an_amount_in_a_message(amount: str, text: str) -> None:
    assert usd(Decimal(amount)) == text


def test_an_unknown_amount() -> None:
    assert usd(None) == "unknown"


@settings(deadline=None)
@given(st.decimals() | st.floats() | st.integers())
def test_any_amount_can_be_written(value: object) -> None:
    amount = money(value)
    assert amount is None or abs(Decimal(usd(amount).removesuffix(" USD")) - amount) <= Decimal("0.00005")
