"""The sensor: waits for the credit balance to cross a threshold."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

from airflow_provider_luma.exceptions import (
    LumaRayAuthenticationError,
    LumaRayConfigurationError,
    LumaRayRateLimited,
    LumaRayUnavailable,
    without_traceback,
)
from airflow_provider_luma.segmind.credits import CreditThreshold
from airflow_provider_luma.segmind.money import usd

if TYPE_CHECKING:
    from airflow.sdk import Context


class LumaRayCreditSensor(BaseSensorOperator):
    """Wait until the account's balance reaches a threshold; the credits call is free.

    XCom: the balance in US dollars (float).

    A temporary failure of the vendor's counts as "not yet", until the sensor's own timeout; a key that does not work
    fails the task at once and without retries, even with ``soft_fail``, ``silent_fail`` or ``never_fail``.

    :param threshold: US dollars (templated)
    :param direction: ``above`` (the default) waits for a top-up, ``below`` for the balance to run low
    :param include_free_credits: whether free credits count. Default True, since presumably they can be spent too
    :param luma_ray_conn_id: the connection to Segmind (templated)
    :param deferrable: wait in the triggerer. Default: Airflow's ``operators.default_deferrable``
    :param mode: Airflow's; default ``reschedule``, since a top-up takes longer than a worker slot should be held
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
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        mode: str = "reschedule",
        **kwargs: Any,
    ) -> None:
        super().__init__(mode=mode, **kwargs)
        self.threshold = threshold
        self.direction = direction
        self.include_free_credits = include_free_credits
        self.luma_ray_conn_id = luma_ray_conn_id
        self.deferrable = deferrable
        CreditThreshold.parse(0, direction, include_free_credits)

    def execute(self, context: Context) -> Any:
        """Wait until the balance reaches the threshold, and return it."""
        if self.deferrable:
            return self._poke_or_defer(context, datetime.now(UTC).isoformat())
        try:
            return super().execute(context)
        except AirflowSkipException as skip:
            raise _never_skipped(skip) from None

    def execute_complete(self, context: Context, event: Any, started_at: str | None = None) -> Any:
        """Poke again after the trigger has fired; its event is not trusted.

        :param started_at: when the sensor started (ISO 8601, UTC); None (``dag.test()`` drops it): now
        """
        return self._poke_or_defer(context, started_at or datetime.now(UTC).isoformat())

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume as every sensor does, but never skip over a wrong key or argument."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except AirflowSkipException as skip:
            raise _never_skipped(skip) from None

    @without_traceback
    def poke(self, context: Context) -> PokeReturnValue:
        """Ask for the balance once."""
        from airflow_provider_luma.hooks.limiter import Rank
        from airflow_provider_luma.hooks.luma_ray import LumaRayHook

        threshold = self._threshold()
        try:
            credits = LumaRayHook(self.luma_ray_conn_id).get_credits(Rank.BALANCE)
        except (LumaRayUnavailable, LumaRayRateLimited) as error:
            self.log.warning("The balance cannot be read right now: %s", error)
            return PokeReturnValue(is_done=False)
        balance = threshold.balance(credits)
        self.log.info(
            "The balance is %s; waiting for it to be %s %s.",
            usd(balance),
            self.direction,
            usd(threshold.amount),
        )
        return PokeReturnValue(threshold.is_reached(credits), float(balance))

    def _threshold(self) -> CreditThreshold:
        return CreditThreshold.parse(self.threshold, self.direction, self.include_free_credits)

    def _poke_or_defer(self, context: Context, started_at: str) -> Any:
        from airflow_provider_luma.triggers.luma_ray import LumaRayCreditSensorTrigger

        answer = self.poke(context)
        if answer.is_done:
            return answer.xcom_value
        waited = (datetime.now(UTC) - datetime.fromisoformat(started_at)).total_seconds()
        if waited > self.timeout:
            message = f"The balance has not crossed {self.threshold} within {self.timeout:.0f} s."
            raise AirflowSkipException(message) if self.soft_fail else AirflowSensorTimeout(message)
        self.defer(
            trigger=LumaRayCreditSensorTrigger(
                luma_ray_conn_id=self.luma_ray_conn_id,
                threshold=str(self._threshold().amount),
                direction=self.direction,
                include_free_credits=self.include_free_credits,
                poke_interval=self.poke_interval,
            ),
            method_name="execute_complete",
            kwargs={"started_at": started_at},
            timeout=timedelta(seconds=self.timeout - waited),
        )


def _never_skipped(skip: AirflowSkipException) -> BaseException:
    """Return the wrong key or argument behind a skip, if that is its cause, else the skip."""
    cause = skip.__cause__
    return cause if isinstance(cause, LumaRayAuthenticationError | LumaRayConfigurationError) else skip
