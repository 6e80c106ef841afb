"""The sensor: hold off until the credit balance crosses a threshold."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSkipException, BaseSensorOperator, PokeReturnValue

from airflow_provider_luma.exceptions import (
    LumaRayAuthenticationError,
    LumaRayConfigurationError,
    LumaRayRateLimited,
    LumaRayUnavailable,
)
from airflow_provider_luma.segmind.messages import Credits, money

if TYPE_CHECKING:
    from airflow.sdk import Context

DIRECTIONS = ("above", "below")


def has_crossed(balance: Decimal, threshold: Decimal, direction: str) -> bool:
    """Tell whether a balance is at the threshold or beyond it."""
    return balance >= threshold if direction == "above" else balance <= threshold


class LumaRayCreditSensor(BaseSensorOperator):
    """Wait until the account's balance is at a threshold or beyond it; the credits call is free.

    XCom: the balance in US dollars (float).

    A passing failure of the vendor's is a "not yet" and ends with the sensor's own timeout; a key that does not work
    fails the task at once and without retries, whatever ``soft_fail`` says.

    :param threshold: US dollars (templated)
    :param direction: ``above`` (the default) waits for a top-up, ``below`` for the money to run low
    :param include_free_credits: whether given credits count as well. Default True, as both can presumably be spent
    :param luma_ray_conn_id: the connection to Segmind (templated)
    :param mode: Airflow's; default ``reschedule``, for a top-up takes longer than a worker slot should be held
    :param kwargs: Airflow's sensor arguments, such as ``poke_interval``, ``timeout`` and ``soft_fail``
    :raises LumaRayConfigurationError: the threshold is not a number, or the connection cannot be used
    :raises LumaRayAuthenticationError: the key does not work
    """

    template_fields: Sequence[str] = ("threshold", "luma_ray_conn_id")
    ui_color = "#e8e0f7"

    def __init__(
        self,
        *,
        threshold: float | Decimal | str,
        direction: str = "above",
        include_free_credits: bool = True,
        luma_ray_conn_id: str = "luma_ray_default",
        mode: str = "reschedule",
        **kwargs: Any,
    ) -> None:
        super().__init__(mode=mode, **kwargs)
        self.threshold = threshold
        self.direction = direction
        self.include_free_credits = include_free_credits
        self.luma_ray_conn_id = luma_ray_conn_id
        if direction not in DIRECTIONS:
            raise LumaRayConfigurationError(
                f"direction={direction!r} is wrong: give one of {', '.join(DIRECTIONS)}."
            )

    def execute(self, context: Context) -> Any:
        """Poke until the balance has crossed, and return it."""
        try:
            return super().execute(context)
        except AirflowSkipException as skip:
            if isinstance(skip.__cause__, LumaRayAuthenticationError | LumaRayConfigurationError):
                raise skip.__cause__ from None
            raise

    def poke(self, context: Context) -> PokeReturnValue:
        """Ask for the balance once."""
        from airflow_provider_luma.hooks.luma_ray import LumaRayHook

        threshold = self._threshold()
        try:
            balance = self._spendable(LumaRayHook(self.luma_ray_conn_id).get_credits())
        except (LumaRayUnavailable, LumaRayRateLimited) as error:
            self.log.warning("The balance cannot be read this time: %s", error)
            return PokeReturnValue(is_done=False)
        self.log.info("The balance is %s USD, waiting for it %s %s USD.", balance, self.direction, threshold)
        return PokeReturnValue(has_crossed(balance, threshold, self.direction), float(balance))

    def _threshold(self) -> Decimal:
        threshold = money(self.threshold)
        if threshold is None:
            raise LumaRayConfigurationError(
                f"threshold={self.threshold!r} is wrong: give an amount of US dollars, such as 5 or '2.50'."
            )
        return threshold

    def _spendable(self, credits: Credits) -> Decimal:
        return credits.total if self.include_free_credits else credits.paid
