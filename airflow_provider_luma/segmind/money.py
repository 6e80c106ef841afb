"""Amounts in US dollars: parsed exactly, and formatted for people. Pure."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation

#: An amount with more digits before the decimal point is a mistake, and may not survive as a float.
_MONEY_DIGITS = 12
#: The vendor counts to ten decimals; four are enough for the prices per clip (0.675) and still readable.
_SHOWN = Decimal("0.0001")
_CENT = Decimal("0.01")


def money(value: object) -> Decimal | None:
    """Parse an amount in US dollars; None if the value is not a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    try:
        amount = Decimal(str(value).strip())
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and amount.adjusted() < _MONEY_DIGITS else None


def usd(amount: Decimal | None) -> str:
    """Format an amount for a message: "1.60 USD", "0.675 USD", or "unknown" for None."""
    if amount is None:
        return "unknown"
    shown = amount.quantize(_SHOWN, ROUND_HALF_EVEN) + 0  # -0.0000 would show its sign
    cents = shown.quantize(_CENT, ROUND_HALF_EVEN)
    return f"{cents if cents == shown else shown.normalize():f} USD"
