"""The account's rate limit, kept by everything in one process that uses the same connection.

Other processes' requests are known by the vendor's 429s; a triggerer counts those around the jobs that wait in it.
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

#: The vendor's minute, and a second because the network may delay one request more than the next.
_WINDOW = 61.0
#: The share of the limit that polls may use; the rest is reserved for submits, results and the like.
_POLL_SHARE = 0.8
#: And of that, looks at the balance may use what the polls of bought jobs aim to leave.
_BALANCE_SHARE = 0.5
#: A 429 shows that other processes use the account too. Polls then get rarer by this factor, each time, up to the most,
#: which lets a hundred blocking tasks poll within the usual limit. With every minute without one it is halved.
_STRAIN = 2.0
_MOST_STRAIN = 64.0
#: The largest share by which a 429's pause is lengthened at first, so that processes refused together come back apart;
#: it grows with the strain, up to the most.
_JITTER = 0.05
_MOST_JITTER = 1.0
#: The share at which the polls of all waiting jobs aim, so that there is room when many of them end together.
_POLL_AIM = 0.5


class Rank(Enum):
    """Who goes first where the limit is short."""

    #: What a task cannot go on without: a submit, an upload, a result.
    URGENT = auto()
    #: A look at a job that is bought; its caller looks again anyway.
    POLL = auto()
    #: A look at the balance; its caller looks again anyway, and nothing is bought that waits for it.
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
        """Take a place and return 0; where none is free, return the seconds until it is worth asking again.

        Polls that find no room are given successive turns, so that they do not all come back at once. The balance comes
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
        """Let no request pass for some seconds after a 429: for a moment at least, for a window and its jitter at most.

        :return: whether it was open
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
        """Count a job as one of those that share the polls."""
        with self._lock:
            self._waiting += 1
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1

    def spacing(self, jobs: int | None = None) -> float:
        """Return the seconds between two polls of one job at which the polls of all jobs fit into the limit.

        :param jobs: how many those are; None: all that wait
        """
        sharers = self._waiting if jobs is None else jobs
        return sharers * self._strain_at(self._clock()) * _WINDOW / (self._places[Rank.URGENT] * _POLL_AIM)


@cache
def limiter_of(luma_ray_conn_id: str, api_url: str, per_minute: float) -> RateLimiter:
    """Return the one limiter of a connection in this process."""
    return RateLimiter(per_minute)
