"""What can go wrong, and what each error says about money.

::

    LumaRayError(AirflowException)
    ├── LumaRayConfigurationError     before any call: nothing was bought; never retried
    ├── LumaRayRefused                the vendor said no: nothing was bought; never retried
    │   ├── LumaRayAuthenticationError    401, 403
    │   ├── LumaRayInsufficientCredits    402, 406
    │   └── LumaRayModelUnavailable       404, 410
    ├── LumaRayRateLimited            429: nothing was bought; a retry may pass
    ├── LumaRayUnavailable            no usable answer to a call that buys nothing; a retry may pass
    ├── LumaRayRecordError            the record cannot be read or written: nothing new was bought; a retry may pass
    ├── LumaRaySuperseded             replaced by a retry or a clear: this attempt stops, its successor continues
    ├── LumaRaySubmitUnknown          may be bought: a person decides; never retried
    ├── LumaRayJobFailed              the vendor's FAILED: not billed; a retry buys a new job
    ├── LumaRayTimeout                the job keeps running; a retry re-attaches
    ├── LumaRayDeliveryFailed         bought and still available: a retry fetches it at no charge
    └── LumaRayResultExpired          bought, and no longer available from the vendor; never retried

Those never retried are also ``AirflowFailException``, so Airflow spends no retries on them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from copy import copy
from datetime import UTC, datetime
from functools import wraps
from typing import ClassVar, ParamSpec, Self, TypeVar

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

__all__ = [
    "LumaRayAuthenticationError",
    "LumaRayConfigurationError",
    "LumaRayDeliveryFailed",
    "LumaRayError",
    "LumaRayInsufficientCredits",
    "LumaRayJobFailed",
    "LumaRayModelUnavailable",
    "LumaRayRateLimited",
    "LumaRayRecordError",
    "LumaRayRefused",
    "LumaRayResultExpired",
    "LumaRaySubmitUnknown",
    "LumaRaySuperseded",
    "LumaRayTimeout",
    "LumaRayUnavailable",
]

log = logging.getLogger(__name__)
_P = ParamSpec("_P")
_R = TypeVar("_R")

#: Seconds. A reset time in the past only means that clocks differ; without a floor, a loop would send a burst.
SHORTEST_RATE_LIMIT = 1.0
#: Seconds. The vendor counts requests per minute, so no limit lasts longer, whatever the clocks say.
LONGEST_RATE_LIMIT = 60.0
#: Seconds, if the vendor names no reset time: a few more seconds cost little.
_UNTOLD_RATE_LIMIT = 5.0


class LumaRayError(AirflowException):
    """Base of this provider's errors. The text has the cause, the money and the remedy on separate lines.

    :param cause: what happened, in a sentence
    :param remedy: what to do about it
    :param request_id: the vendor's job id, if known; the text then begins with it
    :param status_code: the HTTP status that caused the error, if any
    """

    #: What was bought and what a retry does, if nothing more specific is known.
    money: ClassVar[str] = ""

    def __init__(
        self, cause: str, *, remedy: str = "", request_id: str | None = None, status_code: int | None = None
    ) -> None:
        super().__init__(cause)
        self.cause = cause
        self.remedy = remedy
        self.request_id = request_id
        self.status_code = status_code  # type: ignore[assignment]  # AirflowException's is always set
        self.standing = ""

    def __str__(self) -> str:
        told = f"{self.request_id}: {self.cause}" if self.request_id else self.cause
        return "\n".join(line for line in (told, self.standing or self.money, self.remedy) if line)

    def with_context(self, request_id: str | None, standing: str, remedy: str = "") -> Self:
        """Return a copy with the job's id and what is known of its money and its record."""
        error = copy(self)
        error.request_id = self.request_id or request_id
        error.standing = standing
        error.remedy = remedy or self.remedy
        return error


def without_traceback(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Strip this provider's frames from its errors: Airflow's log would show them above the text that says it all.

    At DEBUG they are logged here.
    """

    @wraps(function)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return function(*args, **kwargs)
        except LumaRayError as error:
            log.debug("Raised here:", exc_info=error)
            raise error.with_traceback(None) from None

    return run


class LumaRayConfigurationError(LumaRayError, AirflowFailException):
    """An argument, the connection or the output path is wrong; raised before any paid call."""

    money = "This attempt bought nothing."


class LumaRayRefused(LumaRayError, AirflowFailException):
    """The vendor refused the request. Refusals are not billed, and the same request would be refused again."""

    money = "The call bought nothing, and Airflow will not retry it."


class LumaRayAuthenticationError(LumaRayRefused):
    """The API key is missing, wrong, expired, or not allowed to use the model (401, 403)."""


class LumaRayInsufficientCredits(LumaRayRefused):
    """The balance does not cover the job (402, 406), or would fall below ``min_remaining_credits``."""


class LumaRayModelUnavailable(LumaRayRefused):
    """The vendor does not know the model's slug (404) or has retired it (410)."""


class LumaRayRateLimited(LumaRayError):
    """Too many requests (429); nothing was bought.

    :param reset_at: when the vendor will accept requests again, if it said so
    :param now: the time of the reply, by the same clock as ``reset_at``; None: now, by the worker's clock
    """

    money = "The call bought nothing; a retry may pass."

    def __init__(
        self,
        message: str,
        *,
        reset_at: datetime | None = None,
        now: datetime | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message, request_id=request_id, status_code=429)
        self.reset_at = reset_at
        self._now = now or datetime.now(UTC)

    def seconds_to_reset(self) -> float:
        """Return how long the limit lasts, counted from the reply, between a second and a minute."""
        if self.reset_at is None:
            return _UNTOLD_RATE_LIMIT
        return min(max((self.reset_at - self._now).total_seconds(), SHORTEST_RATE_LIMIT), LONGEST_RATE_LIMIT)


class LumaRayUnavailable(LumaRayError):
    """No usable answer, and nothing was bought: no connection, 5xx, or a reply of the wrong shape."""

    money = "The call bought nothing; a retry may pass."


class LumaRayRecordError(LumaRayError):
    """The job's record or the video's path cannot be read or written; unreadable never counts as absent."""

    money = "Nothing new was bought; a retry tries again."


class LumaRaySuperseded(LumaRayError):
    """A retry or a clear has replaced this attempt; its successor continues from the record."""

    money = "Its successor continues from the record."


class LumaRaySubmitUnknown(LumaRayError, AirflowFailException):
    """A paid request was sent and its outcome could not be determined, so a person decides.

    :param hint: an id that may be the job's, or a gateway's own
    :param candidates: jobs of the same inputs in the history, which may be it or not: "resubmit" buys nothing then
    """

    money = "A job may have been bought. Airflow will not retry."

    def __init__(
        self,
        cause: str,
        *,
        remedy: str = "",
        request_id: str | None = None,
        status_code: int | None = None,
        hint: str | None = None,
        candidates: Sequence[str] = (),
    ) -> None:
        self.candidates = candidates
        self.hint = None if request_id else hint
        if self.hint:
            cause = f"{cause} The reply carried the id {self.hint}, which is the job's or a gateway's."
        super().__init__(cause, remedy=remedy, request_id=request_id, status_code=status_code)


class LumaRayJobFailed(LumaRayError):
    """The vendor reported FAILED. That is not billed; a retry submits a new job."""

    money = "A FAILED job is not billed; a retry submits a new one."


class LumaRayTimeout(LumaRayError):
    """The wait ended before the job did. The job keeps running, and a retry re-attaches to it."""

    money = "The job is bought and keeps running; a retry re-attaches at no charge."


class LumaRayDeliveryFailed(LumaRayError):
    """The video was bought but could not be fetched or stored; a retry fetches it again at no charge."""

    money = "The job is bought; a retry fetches its video at no charge."


class LumaRayResultExpired(LumaRayError, AirflowFailException):
    """The video was bought, and the vendor no longer has it."""

    money = "The job was bought, and Airflow will not retry."
