"""The account's request limit, kept by everything in one process that uses the same connection."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from functools import cache

_WINDOW = 60.0
#: The share of the limit that polls may use up; the rest is kept for submits, results and the like.
_POLL_SHARE = 0.8


class RateLimiter:
    """At most so many requests in any minute.

    :param per_minute: the account's limit
    :param clock: seconds that only grow
    """

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._places = max(int(per_minute), 1)
        self._poll_places = max(int(per_minute * _POLL_SHARE), 1)
        self._clock = clock
        self._lock = threading.Lock()
        self._taken: deque[float] = deque()
        self._closed_until = 0.0

    def take(self, *, urgent: bool) -> float:
        """Take a place and return 0; or where none is free, return the seconds until it is worth asking again."""
        with self._lock:
            delay = self._delay(self._places if urgent else self._poll_places)
            if not delay:
                self._taken.append(self._clock())
            return delay

    def delay(self) -> float:
        """Return the seconds until an urgent request may pass, without taking its place."""
        with self._lock:
            return self._delay(self._places)

    def _delay(self, places: int) -> float:
        now = self._clock()
        while self._taken and self._taken[0] <= now - _WINDOW:
            self._taken.popleft()
        if now < self._closed_until:
            return self._closed_until - now
        excess = len(self._taken) - places
        return self._taken[excess] + _WINDOW - now if excess >= 0 else 0.0

    def close(self, seconds: float) -> None:
        """Let nobody pass for some seconds, because the vendor said 429; at most for one window."""
        with self._lock:
            self._closed_until = max(self._closed_until, self._clock() + min(max(seconds, 0.0), _WINDOW))


@cache
def limiter_of(luma_ray_conn_id: str, api_url: str, per_minute: float) -> RateLimiter:
    """Return the one limiter of a connection in this process."""
    return RateLimiter(per_minute)
