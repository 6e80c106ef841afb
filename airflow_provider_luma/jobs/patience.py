"""A rate limit on the way of a job that is bought or about to be: waited out, for it passes and costs nothing."""

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
    """Waits out rate limits, and so fails no attempt for one.

    :param seconds: how long, for each thing that is waited for
    :param pause: waits some seconds
    :param clock: a monotonic clock, in seconds
    """

    seconds: float
    pause: Callable[[float], None]
    clock: Callable[[], float]

    def past_limit(self, call: Callable[[], T]) -> T:
        """Make a call, again and ever more rarely while the answer is a 429: a crowd meets the limit together.

        :raises LumaRayRateLimited: the limit outlasts the patience
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
