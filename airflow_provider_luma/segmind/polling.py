"""When to poll next and when to stop: pure decisions, for the blocking wait and the trigger alike."""

from __future__ import annotations

from enum import Enum

from airflow_provider_luma.segmind.replies import VendorStatus

#: Seconds from the submission for which the vendor keeps status and result, by its documentation.
RECORD_LIFETIME = 3600.0

#: The pause between polls as a share of the time waited. On average a job's end is seen half a pause late: under 8 % of
#: its duration, at a cost of 41 polls in 15 minutes.
_PAUSE = 0.155
#: The same around the typical duration, when most jobs end: 3 % late. The range begins before the last third, since a
#: pause of 15 % that began at 0.6 would reach far into it.
_PAUSE_ABOUT_TYPICAL = 0.058
_ABOUT_TYPICAL = (0.6, 4 / 3)
#: Seconds. The first poll catches a job that fails at once; later pauses are at least ``_SHORTEST_PAUSE``, as two
#: seconds late is soon enough.
_FIRST_PAUSE = 2.5
_SHORTEST_PAUSE = 3.8
#: When polls are few, one falls here or soon after, in typical durations: more than half of the jobs are done by then.
_LIKELY_DONE = 1.04
#: A pause is lengthened or shortened by up to this share, so that jobs submitted together soon poll apart.
_JITTER = 0.2


def next_poll(waited: float, typical: float, *, spacing: float = 0.0, jitter: float = 0.5) -> float:
    """Return when to poll next, in seconds since the submission.

    The pause is a share of the time waited, a smaller one around the typical duration. If the rate limit is short, the
    pause is at least ``spacing``, except for one that would skip the time when a job is likely done.

    :param waited: seconds since the submission
    :param typical: seconds that such a job usually takes
    :param spacing: seconds between polls that the rate limit requires
    :param jitter: from 0 for the shortest pause to 1 for the longest
    """
    begin, end = (share * typical for share in _ABOUT_TYPICAL)
    share = _PAUSE_ABOUT_TYPICAL if begin <= waited <= end else _PAUSE
    pause = max(share * waited, min(_FIRST_PAUSE + waited, _SHORTEST_PAUSE))
    to_likely_done = _LIKELY_DONE * typical - waited
    if waited < typical and to_likely_done < spacing:
        return waited + max(pause, to_likely_done) * (1 + _JITTER * jitter)
    return waited + max(pause, spacing) * (1 + _JITTER * (2 * jitter - 1))


class Verdict(Enum):
    """What a poll's answer means for the wait."""

    WAIT = "wait"
    READY = "ready"
    FAILED = "failed"
    #: The deadline has passed and the job may still be running.
    LATE = "late"
    #: Neither the status call nor the history knows the job, and it is too old to appear yet.
    GONE = "gone"


def verdict_on(state: VendorStatus, waited: float, timeout: float) -> Verdict:
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
