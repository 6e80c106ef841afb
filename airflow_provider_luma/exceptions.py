"""What can go wrong, and what each error says about money.

LumaRayError(AirflowException)
├── LumaRayConfigurationError     before any call: nothing was bought; never retried
├── LumaRayRefused                the vendor said no: nothing was bought; never retried
│   ├── LumaRayAuthenticationError    401, 403
│   ├── LumaRayInsufficientCredits    402, 406
│   └── LumaRayModelUnavailable       404, 410
├── LumaRayRateLimited            429: nothing was bought; a retry may pass
├── LumaRayUnavailable            no usable answer, and the call buys nothing; a retry may pass
├── LumaRayRecordError            the job's record cannot be read or written: nothing new was bought; a retry may pass
├── LumaRaySuperseded             a retry or a clear has replaced this attempt, which stops; its successor goes on
├── LumaRaySubmitUnknown          perhaps bought: for a person; never retried
├── LumaRayJobFailed              the vendor's FAILED: unbilled; a retry buys anew
├── LumaRayTimeout                the job goes on; a retry re-attaches
├── LumaRayDeliveryFailed         bought and still to be had: a retry fetches it at no charge
└── LumaRayResultExpired          bought, and no longer to be had from the vendor; never retried

Never-retried ones are also ``AirflowFailException``, so Airflow spends no retries on them.
"""

from __future__ import annotations

from copy import copy
from datetime import UTC, datetime
from typing import ClassVar, Self

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

#: In seconds. A reset time in the past only shows that clocks differ; without a floor, a loop would send a burst.
SHORTEST_RATE_LIMIT = 1.0
#: The vendor counts requests by the minute, so no limit lasts longer, whatever the clocks say.
LONGEST_RATE_LIMIT = 60.0
#: Where the vendor does not name a reset time: a few more seconds cost little.
_UNTOLD_RATE_LIMIT = 5.0


class LumaRayError(AirflowException):
    """Base of all errors of this provider. Its text has the cause, the money and the remedy on lines of their own.

    :param cause: what happened, in a sentence
    :param remedy: what to do about it
    :param request_id: the vendor's id of the job, where there is one; the text then begins with it
    :param status_code: the HTTP status that caused the error, where there was one
    """

    #: What was bought and what a retry does, where nothing more is known than the error's class.
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
        """Return the same error, with the job's id, and how its money and its record stand."""
        error = copy(self)
        error.request_id = self.request_id or request_id
        error.standing = standing
        error.remedy = remedy or self.remedy
        return error


class LumaRayConfigurationError(LumaRayError, AirflowFailException):
    """An argument, the connection or the output path is wrong; found before any paid call."""

    money = "This attempt bought nothing."


class LumaRayRefused(LumaRayError, AirflowFailException):
    """The vendor refused the request; refusals are not billed, and the same request would be refused again."""

    money = "The call bought nothing, and Airflow will not retry it."


class LumaRayAuthenticationError(LumaRayRefused):
    """The API key is missing, wrong, expired, or not allowed to use the model (401, 403)."""


class LumaRayInsufficientCredits(LumaRayRefused):
    """The balance does not cover the job (402, 406), or would fall below ``min_remaining_credits``."""


class LumaRayModelUnavailable(LumaRayRefused):
    """The vendor does not know the model's slug (404) or has retired it (410)."""


class LumaRayRateLimited(LumaRayError):
    """Too many requests (429); nothing was bought.

    :param reset_at: when the vendor will accept requests again, where it said so
    :param now: the time of the reply by the clock that ``reset_at`` is of; None: the worker's
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
        """Return how long the limit lasts from the reply on, between a second and a minute."""
        if self.reset_at is None:
            return _UNTOLD_RATE_LIMIT
        return min(max((self.reset_at - self._now).total_seconds(), SHORTEST_RATE_LIMIT), LONGEST_RATE_LIMIT)


class LumaRayUnavailable(LumaRayError):
    """No usable answer to a call that buys nothing: no connection, 5xx, or a reply of the wrong shape."""

    money = "The call bought nothing; a retry may pass."


class LumaRayRecordError(LumaRayError):
    """The job's record or the video's path cannot be read or written, which is never taken for "nothing is there"."""

    money = "Nothing new was bought; a retry tries again."


class LumaRaySuperseded(LumaRayError):
    """Airflow has replaced this attempt, by a retry or a clear; its successor goes on with what is on record."""

    money = "Its successor goes on with what is on record."


class LumaRaySubmitUnknown(LumaRayError, AirflowFailException):
    """A paid request was sent and its outcome could not be learned, so a person decides.

    :param hint: an id that may be the job's, or a gateway's own
    """

    money = "Perhaps a job was bought. Airflow will not retry."

    def __init__(
        self,
        cause: str,
        *,
        remedy: str = "",
        request_id: str | None = None,
        status_code: int | None = None,
        hint: str | None = None,
    ) -> None:
        self.hint = None if request_id else hint
        if self.hint:
            cause = f"{cause} The reply came with the id {self.hint}, which is the job's or a gateway's."
        super().__init__(cause, remedy=remedy, request_id=request_id, status_code=status_code)


class LumaRayJobFailed(LumaRayError):
    """The vendor reported FAILED, which is not billed; a retry submits a new job."""

    money = "A FAILED job is not billed; a retry submits a new one."


class LumaRayTimeout(LumaRayError):
    """The wait ended before the job did; the job goes on, and a retry re-attaches to it."""

    money = "The job is bought and goes on; a retry re-attaches at no charge."


class LumaRayDeliveryFailed(LumaRayError):
    """The video was bought but could not be fetched or stored; a retry fetches it again at no charge."""

    money = "The job is bought; a retry fetches its video at no charge."


class LumaRayResultExpired(LumaRayError, AirflowFailException):
    """The video was bought and the vendor no longer has it."""

    money = "The job was bought, and Airflow will not retry."
