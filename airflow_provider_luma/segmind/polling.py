"""When to ask next and when to stop: pure decisions, fed by the blocking wait and by the trigger alike."""

from __future__ import annotations

import random
from enum import Enum

from airflow_provider_luma.segmind.messages import JobState

#: How long the vendor keeps status and result, in seconds since the submission.
RECORD_LIFETIME = 3600.0

#: Before most jobs can be done there are few looks, as fractions of the typical time; later ones come by GROWTH.
_EARLY_LOOKS = (0.04, 0.2, 0.5, 0.75)
#: The share of the time already waited after which it is worth looking again.
_GROWTH = 0.05
_SHORTEST = 1.0
_JITTER = 0.1
#: Seconds before a free call is made for the second time; doubled for each further one.
_FIRST_RETRY = 0.5
_MAX_TRIES = 4


def next_delay(waited: float, typical: float, fixed: float | None = None) -> float:
    """Return the seconds until the next status call.

    An adapted delay is jittered by a tenth, so that jobs submitted together do not ask together.

    :param waited: seconds since the submission
    :param typical: seconds that such a job usually takes
    :param fixed: the user's ``poll_interval`` in seconds, kept exactly; None: adaptive
    """
    if fixed is not None:
        return fixed
    jitter = 1 + random.uniform(0, _JITTER)
    looks = (share * typical - waited for share in _EARLY_LOOKS)
    upcoming = (delay for delay in looks if delay >= _SHORTEST)
    return max(next(upcoming, _GROWTH * waited) * jitter, _SHORTEST)


def retry_delay(attempt: int) -> float | None:
    """Return the seconds before a free call is made again; None when it should be given up.

    :param attempt: how many times the call was made
    """
    if attempt >= _MAX_TRIES:
        return None
    return float(_FIRST_RETRY * 2 ** (attempt - 1) * (1 + random.uniform(0, _JITTER)))


class Verdict(Enum):
    """What a poll's answer means for the wait."""

    WAIT = "wait"
    READY = "ready"
    FAILED = "failed"
    #: The deadline has passed and the job may still be running.
    LATE = "late"
    #: Neither the status call nor the history knows the job, and it is too old for that to pass.
    GONE = "gone"


def judge(state: JobState, waited: float, timeout: float) -> Verdict:
    """Return what to do after a poll; doubt never ends a wait before its deadline.

    :param waited: seconds since the submission
    :param timeout: seconds from the submission to the deadline
    """
    if state is JobState.COMPLETED:
        return Verdict.READY
    if state is JobState.FAILED:
        return Verdict.FAILED
    if state is JobState.NOT_FOUND and waited > RECORD_LIFETIME:
        return Verdict.GONE
    return Verdict.LATE if waited >= timeout else Verdict.WAIT
