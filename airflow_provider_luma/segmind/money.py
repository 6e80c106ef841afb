"""Amounts of US dollars: read exactly, and written out for people. Pure."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation

#: An amount with more digits before the point is a mistake, and could not be written as a float everywhere.
_MONEY_DIGITS = 12
#: The vendor counts to ten decimals; four tell the prices per clip apart (0.675) without drowning the reader.
_SHOWN = Decimal("0.0001")
_CENT = Decimal("0.01")


def money(value: object) -> Decimal | None:
    """Return an amount of US dollars; None where the value is not a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    try:
        amount = Decimal(str(value).strip())
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and amount.adjusted() < _MONEY_DIGITS else None


def usd(amount: Decimal | None) -> str:
    """Write an amount for a message: "1.60 USD", "0.675 USD"; "unknown" where there is none."""
    if amount is None:
        return "unknown"
    shown = amount.quantize(_SHOWN, ROUND_HALF_EVEN) + 0  # -0.0000 would show its sign
    cents = shown.quantize(_CENT, ROUND_HALF_EVEN)
    return f"{cents if cents == shown else shown.normalize():f} USD"
