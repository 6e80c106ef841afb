"""When a balance has reached a threshold: one rule for the sensor and the triggers. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Self

from airflow_provider_luma.exceptions import LumaRayConfigurationError
from airflow_provider_luma.segmind.money import money
from airflow_provider_luma.segmind.replies import Credits

DIRECTIONS = ("above", "below")


@dataclass(frozen=True)
class CreditThreshold:
    """A balance to wait for.

    :param amount: US dollars
    :param direction: above or below
    :param include_free_credits: whether free credits count
    """

    amount: Decimal
    direction: str
    include_free_credits: bool

    @classmethod
    def parse(cls, amount: object, direction: str, include_free_credits: bool) -> Self:
        """Check a user's arguments.

        :raises LumaRayConfigurationError: names the argument, its value and what would be right
        """
        dollars = money(amount)
        if dollars is None:
            raise LumaRayConfigurationError(
                f"threshold={amount!r} is wrong: give an amount of US dollars, such as 5 or '2.50'."
            )
        if direction not in DIRECTIONS:
            raise LumaRayConfigurationError(
                f"direction={direction!r} is wrong: give one of {', '.join(DIRECTIONS)}."
            )
        return cls(dollars, direction, include_free_credits)

    def balance(self, credits: Credits) -> Decimal:
        """Return the part of the balance that counts."""
        return credits.total if self.include_free_credits else credits.paid

    def is_reached(self, credits: Credits) -> bool:
        """Whether the balance has reached the threshold."""
        balance = self.balance(credits)
        return balance >= self.amount if self.direction == "above" else balance <= self.amount
