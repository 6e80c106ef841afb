"""When to ask next and when to stop: pure decisions, fed by the blocking wait and by the trigger alike."""

from __future__ import annotations

import random
from collections.abc import Iterable
from enum import Enum
from statistics import median

from airflow_provider_luma.segmind.replies import VendorStatus

#: How long the vendor keeps status and result, in seconds since the submission.
RECORD_LIFETIME = 3600.0

#: All shares are of the typical time. The early look is for a job that fails at once, or is far quicker than all that
#: is known; none is taken to be quicker still. It is left out where looks must be further apart than _EARLY_ROOM.
_EARLY_LOOK = 0.04
_EARLY_ROOM = 0.2
#: Looks begin no earlier than _BEGIN, get denser until the typical time, and rarer again after _LATE. One of them falls
#: on _ANCHOR, when more than half of the jobs are done, even where there is room for few.
_BEGIN = 0.66
_ANCHOR = 1.04
_LATE = 1.35
_STEP = 0.038
_RAREST = 1.0
_WIDER_BEFORE = 5.0
_WIDER_AFTER = 3.0
#: No job is taken to last longer than so many times what the catalogue says.
_LONGEST = 4.0
#: How many jobs it takes to believe them rather than the catalogue, about twice.
_CATALOGUE_WEIGHT = 2
_SHORTEST = 1.0
_JITTER = 0.03


def next_delay(
    waited: float,
    typical: float,
    fixed: float | None = None,
    *,
    spacing: float = 0.0,
    early: bool = True,
    luck: float | None = None,
) -> float:
    """Return the seconds until the next status call.

    An adapted delay is jittered by some hundredths, so that jobs submitted together do not ask together.

    :param waited: seconds since the submission
    :param typical: seconds that such a job usually takes
    :param fixed: the user's ``poll_interval`` in seconds, kept exactly; None: adaptive
    :param spacing: seconds between two looks below which the account's request limit would not do
    :param early: whether to look once right after the submission, where the limit is not short
    :param luck: between 0 and 1, decides the jitter; None: drawn
    """
    if fixed is not None:
        return fixed
    typical = max(typical, _SHORTEST)
    least = min(max(_STEP, spacing / typical), _RAREST)
    to_early_look = _EARLY_LOOK * typical - waited
    is_early = early and least <= _EARLY_ROOM and to_early_look >= _SHORTEST
    delay = to_early_look if is_early else _to_next_look(waited / typical, least) * typical
    jitter = _JITTER * (random.random() if luck is None else luck)
    return max(delay * (1 + jitter), _SHORTEST)


def _to_next_look(share: float, least: float) -> float:
    look, delay = _ANCHOR, least * (1 + _WIDER_AFTER * max(0.0, share - _LATE))
    while look >= _BEGIN and look - share > _STEP / 2:
        delay = look - share
        look -= least * (1 + _WIDER_BEFORE * max(0.0, 1 - look))
    return delay


def typical_time(catalogued: float, times: Iterable[float]) -> float:
    """Return how long a job usually takes, from what the catalogue says and what the last ones took.

    It is the median, so that an outlier does nothing, and it stays within sane bounds.

    :param catalogued: the model's typical seconds
    :param times: seconds that jobs really took
    """
    middle = median([*[catalogued] * _CATALOGUE_WEIGHT, *times])
    return min(max(middle, _EARLY_LOOK * catalogued), _LONGEST * catalogued)


def real_time(told: float | None, seen_running: float | None, seen_done: float) -> float | None:
    """Return the seconds that a job took; None where that cannot be known.

    :param told: what the vendor says
    :param seen_running: seconds after which a look still found it running; None: there was no such look
    :param seen_done: seconds after which a look found it done
    """
    if told is None and seen_running is None:
        return None
    return min(max(seen_done if told is None else told, seen_running or 0.0), seen_done)


class Verdict(Enum):
    """What a poll's answer means for the wait."""

    WAIT = "wait"
    READY = "ready"
    FAILED = "failed"
    #: The deadline has passed and the job may still be running.
    LATE = "late"
    #: Neither the status call nor the history knows the job, and it is too old for that to pass.
    GONE = "gone"


def judge(state: VendorStatus, waited: float, timeout: float) -> Verdict:
    """Return what to do after a poll; doubt never ends a wait before its deadline.

    :param waited: seconds since the submission
    :param timeout: seconds from the submission to the deadline
    """
    if state is VendorStatus.COMPLETED:
        return Verdict.READY
    if state is VendorStatus.FAILED:
        return Verdict.FAILED
    if state is VendorStatus.NOT_FOUND and waited > RECORD_LIFETIME:
        return Verdict.GONE
    return Verdict.LATE if waited >= timeout else Verdict.WAIT
