"""When to poll next, and what ends a wait."""

from __future__ import annotations

import random
from itertools import pairwise
from statistics import fmean

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_provider_luma.segmind.polling import Verdict, next_poll, verdict_on
from airflow_provider_luma.segmind.replies import VendorStatus

HOUR = 3600.0
MINUTES = 900.0
TYPICAL = 125.0
DRAWS = 400
seconds = st.floats(0, 1e6)
positive = st.floats(0.01, 1e5)
shares = st.floats(0, 1)
doubtful = st.sampled_from(
    [state for state in VendorStatus if state not in (VendorStatus.COMPLETED, VendorStatus.FAILED)]
)


def polls(end: float, source: random.Random, typical: float = TYPICAL, spacing: float = 0.0) -> list[float]:
    """Return when a job of this duration is polled."""
    moments = [0.0]
    while moments[-1] < end:
        moments.append(next_poll(moments[-1], typical, spacing=spacing, jitter=source.random()))
    return moments[1:]


@pytest.mark.parametrize("duration", [2, 5, 10, 20, 40, 60, 80, 100, 125, 160, 250, 400, 900])
def test_the_end_of_a_job_of_any_duration_is_noticed_soon(duration: float) -> None:
    source = random.Random(duration)
    lag = fmean(polls(duration, source)[-1] - duration for _ in range(DRAWS))
    is_about_typical = 2 / 3 <= duration / TYPICAL <= 4 / 3
    assert lag <= (0.03 * duration if is_about_typical else max(0.08 * duration, 2))


@pytest.mark.parametrize(("duration", "most"), [(125, 25), (900, 45)])
def test_it_takes_few_polls(duration: float, most: int) -> None:
    source = random.Random(duration)
    assert max(len(polls(duration, source)) for _ in range(DRAWS)) <= most


@settings(deadline=None)
@given(seconds, st.floats(0, 1e4), seconds, shares)
def test_the_next_poll_is_neither_at_once_nor_later_than_allowed(
    waited: float, typical: float, spacing: float, jitter: float
) -> None:
    pause = next_poll(waited, typical, spacing=spacing, jitter=jitter) - waited
    assert 2 - 1e-6 <= pause <= 1.2 * max(0.155 * waited, 3.8, spacing) + 1e-6


def test_a_crowd_that_submits_together_polls_apart() -> None:
    source = random.Random(0)
    seventh = [polls(60, source)[6] for _ in range(50)]
    assert max(seventh) - min(seventh) > 3.8


@settings(deadline=None)
@example(spacing=61.0, source=random.Random(34))  # a poll just before the typical time
@given(st.floats(10, 1000), st.randoms(use_true_random=False))
def test_under_a_short_rate_limit_polls_are_rare_and_none_skips_the_time_when_a_job_is_likely_done(
    spacing: float, source: random.Random
) -> None:
    moments = [0.0, *polls(4 * TYPICAL, source, spacing=spacing)]
    assert any(TYPICAL <= moment < 1.3 * TYPICAL for moment in moments)
    gaps = sorted(after - before for before, after in pairwise(moments))
    assert all(gap >= 0.79 * spacing for gap in gaps[1:])


@pytest.mark.parametrize(
    ("state", "waited", "timeout", "verdict"),
    [
        (VendorStatus.COMPLETED, 10, MINUTES, Verdict.READY),
        (VendorStatus.COMPLETED, MINUTES + 1, MINUTES, Verdict.READY),
        (VendorStatus.COMPLETED, HOUR + 1, MINUTES, Verdict.READY),
        (VendorStatus.FAILED, 10, MINUTES, Verdict.FAILED),
        (VendorStatus.FAILED, MINUTES + 1, MINUTES, Verdict.FAILED),
        (VendorStatus.QUEUED, 10, MINUTES, Verdict.WAIT),
        (VendorStatus.PROCESSING, MINUTES - 0.1, MINUTES, Verdict.WAIT),
        (VendorStatus.PROCESSING, MINUTES, MINUTES, Verdict.LATE),
        (VendorStatus.UNKNOWN, 10, MINUTES, Verdict.WAIT),
        (VendorStatus.UNKNOWN, MINUTES, MINUTES, Verdict.LATE),
        (VendorStatus.UNKNOWN, HOUR + 1, 2 * HOUR, Verdict.WAIT),
        (VendorStatus.NOT_FOUND, 10, MINUTES, Verdict.WAIT),
        (VendorStatus.NOT_FOUND, MINUTES, MINUTES, Verdict.LATE),
        (VendorStatus.NOT_FOUND, HOUR, MINUTES, Verdict.LATE),
        (VendorStatus.NOT_FOUND, HOUR, 2 * HOUR, Verdict.WAIT),
        (VendorStatus.NOT_FOUND, HOUR + 1, MINUTES, Verdict.GONE),
        (VendorStatus.NOT_FOUND, HOUR + 1, 2 * HOUR, Verdict.GONE),
    ],
)
def test_verdict(state: VendorStatus, waited: float, timeout: float, verdict: Verdict) -> None:
    assert verdict_on(state, waited, timeout) is verdict


@settings(deadline=None)
@given(st.sampled_from(list(VendorStatus)), st.floats(-600, 1e6), positive)
def test_only_the_vendors_word_is_final(state: VendorStatus, waited: float, timeout: float) -> None:
    verdict = verdict_on(state, waited, timeout)
    assert (verdict is Verdict.READY) == (state is VendorStatus.COMPLETED)
    assert (verdict is Verdict.FAILED) == (state is VendorStatus.FAILED)
    assert verdict is not Verdict.GONE or (state is VendorStatus.NOT_FOUND and waited > HOUR)
    assert verdict is not Verdict.LATE or waited >= timeout


@settings(deadline=None)
@given(doubtful, st.floats(0, 1), st.floats(0.01, HOUR))
def test_uncertainty_never_ends_a_wait_before_its_deadline(
    state: VendorStatus, share: float, timeout: float
) -> None:
    waited = share * timeout
    assert verdict_on(state, waited, timeout) is (Verdict.WAIT if waited < timeout else Verdict.LATE)
