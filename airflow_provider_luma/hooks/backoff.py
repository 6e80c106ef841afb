"""Exponential backoff for HTTP calls that are safe to repeat. Pure."""

from __future__ import annotations

import random

#: Seconds before the second try, doubled for each further one. A gateway that restarts or drops a connection is back
#: within a few seconds: four tries cover 3.5 s. Longer outages are left to the next poll or to Airflow's retry.
_FIRST_RETRY = 0.5
_MAX_TRIES = 4
#: A delay is lengthened by up to this share, so that tasks that failed together do not retry together.
_JITTER = 0.1


def backoff(attempt: int) -> float | None:
    """Return the seconds to wait before the next try; None: give up.

    :param attempt: how many times the call was made
    """
    if attempt >= _MAX_TRIES:
        return None
    return float(_FIRST_RETRY * 2 ** (attempt - 1) * (1 + random.uniform(0, _JITTER)))
