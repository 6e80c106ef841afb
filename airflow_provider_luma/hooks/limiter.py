"""The account's rate limit, shared by everything in a process that uses the same connection.

Other processes' requests show only as 429s, except that a triggerer counts those around the jobs that wait in it.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum, auto
from functools import cache

from airflow_provider_luma.exceptions import SHORTEST_RATE_LIMIT

#: Seconds: the vendor's minute, plus one because the network may delay one request more than the next.
_WINDOW = 61.0
#: The share of the limit that polls may use; the rest is reserved for submits, results and the like.
_POLL_SHARE = 0.8
#: A balance check passes only while less than this share of the limit is used, so that it takes no slot from the polls
#: of bought jobs, which aim for as much.
_BALANCE_SHARE = 0.5
#: A 429 shows that other processes use the account too. Each one makes polls rarer by this factor, up to the maximum,
#: which lets a hundred blocking tasks poll within the usual limit. Each minute without one halves it.
_STRAIN = 2.0
_MOST_STRAIN = 64.0
#: A 429's pause is lengthened by up to this share at first, so that processes refused together do not return together;
#: the share grows with the strain, up to the maximum.
_JITTER = 0.05
_MOST_JITTER = 1.0
#: The share of the limit that the polls of all waiting jobs aim for, which leaves room when many jobs end together.
_POLL_AIM = 0.5


class Rank(Enum):
    """A call's priority under the rate limit."""

    #: What a task cannot continue without: a submit, an upload, a result.
    URGENT = auto()
    #: A poll of a bought job; its caller polls again anyway.
    POLL = auto()
    #: A balance check; its caller checks again anyway, and no bought job waits for it.
    BALANCE = auto()


class RateLimiter:
    """At most so many requests in any minute.

    :param per_minute: the account's limit
    :param clock: a monotonic clock, in seconds
    """

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        shares = {Rank.URGENT: 1.0, Rank.POLL: _POLL_SHARE, Rank.BALANCE: _BALANCE_SHARE}
        self._places = {rank: max(int(per_minute * share), 1) for rank, share in shares.items()}
        self._turn = _WINDOW / self._places[Rank.POLL]
        self._clock = clock
        self._lock = threading.Lock()
        self._taken: deque[float] = deque()
        self._closed_until = 0.0
        self._last_turn = 0.0
        self._waiting = 0
        self._strain = 1.0
        self._strained_at = 0.0

    def take(self, rank: Rank) -> float:
        """Take a slot and return 0, or return the seconds until it is worth trying again.

        Polls that find no slot are given successive turns, so that they do not all return at once. Balance checks come
        after the last of them.
        """
        with self._lock:
            now = self._clock()
            delay = self._delay(now, self._places[rank])
            if rank is Rank.BALANCE and now < self._last_turn:
                delay = max(delay, self._last_turn + self._turn - now)
            if not delay:
                self._taken.append(now)
            elif rank is Rank.POLL:
                turn = max(now + delay, self._last_turn + self._turn)
                self._last_turn = min(turn, now + delay + _WINDOW)
                delay = self._last_turn - now
            return delay

    def note(self) -> None:
        """Count a request that another process has just made."""
        with self._lock:
            self._taken.append(self._clock())

    def _delay(self, now: float, places: int) -> float:
        while self._taken and self._taken[0] <= now - _WINDOW:
            self._taken.popleft()
        if now < self._closed_until:
            return self._closed_until - now
        excess = len(self._taken) - places
        return self._taken[excess] + _WINDOW - now if excess >= 0 else 0.0

    def close(self, seconds: float) -> bool:
        """Block all requests for some seconds after a 429: at least a second, at most a window plus jitter.

        :return: whether the limiter was open
        """
        with self._lock:
            now = self._clock()
            was_open = self._closed_until <= now
            if was_open:
                self._strain = min(self._strain_at(now) * _STRAIN, _MOST_STRAIN)
                self._strained_at = now
            jitter = random.uniform(0, min(_JITTER * self._strain, _MOST_JITTER))
            pause = min(max(seconds, SHORTEST_RATE_LIMIT), _WINDOW) * (1 + jitter)
            self._closed_until = max(self._closed_until, now + pause)
            return was_open

    def _strain_at(self, now: float) -> float:
        return max(self._strain * math.exp2((self._strained_at - now) / _WINDOW), 1.0)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count a job among those that share the polls."""
        with self._lock:
            self._waiting += 1
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1

    def spacing(self, jobs: int | None = None) -> float:
        """Return the seconds between two polls of one job at which the polls of all jobs fit the limit.

        :param jobs: how many jobs; None: all that wait
        """
        sharers = self._waiting if jobs is None else jobs
        return sharers * self._strain_at(self._clock()) * _WINDOW / (self._places[Rank.URGENT] * _POLL_AIM)


@cache
def limiter_of(luma_ray_conn_id: str, api_url: str, per_minute: float) -> RateLimiter:
    """Return the limiter that everything in this process shares for a connection."""
    return RateLimiter(per_minute)
