"""Waits out rate limits of a job that is bought or about to be: they pass, and waiting costs nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

from airflow_provider_luma.exceptions import LONGEST_RATE_LIMIT, LumaRayRateLimited

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Patience:
    """Waits out rate limits, so that none fails an attempt.

    :param seconds: how long, for each call
    :param pause: waits some seconds
    :param clock: a monotonic clock, in seconds
    """

    seconds: float
    pause: Callable[[float], None]
    clock: Callable[[], float]

    def past_limit(self, call: Callable[[], T]) -> T:
        """Make a call, and retry it with exponential backoff while the answer is a 429: a crowd hits a limit together.

        :raises LumaRayRateLimited: the limit outlasts ``seconds``
        """
        deadline = self.clock() + self.seconds
        for refusals in count():
            try:
                return call()
            except LumaRayRateLimited as error:
                wait = min(error.seconds_to_reset() * 2 ** min(refusals, 6), LONGEST_RATE_LIMIT)
                if self.clock() + wait > deadline:
                    raise
                log.info("%s Waiting %.0f s.", error.cause, wait)
                self.pause(wait)
        raise AssertionError("unreachable")
