"""When to ask next, when to try again, and what ends a wait."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_luma.segmind.polling import (
    Verdict,
    judge,
    next_delay,
    real_time,
    typical_time,
)
from airflow_provider_luma.segmind.replies import VendorStatus

HOUR = 3600.0
MINUTES = 900.0
seconds = st.floats(0, 1e6)
positive = st.floats(0.01, 1e5)
doubtful = st.sampled_from(
    [state for state in VendorStatus if state not in (VendorStatus.COMPLETED, VendorStatus.FAILED)]
)


@settings(deadline=None)
@given(st.floats(-600, 1e6), st.floats(0, 1e4), seconds)
def test_the_next_look_is_never_in_the_past_nor_at_once(
    waited: float, typical: float, spacing: float
) -> None:
    assert 1 <= next_delay(waited, typical, spacing=spacing) < float("inf")


@settings(deadline=None)
@given(seconds, st.floats(0, 1e4), positive, seconds)
def test_a_fixed_interval_is_kept_exactly(
    waited: float, typical: float, fixed: float, spacing: float
) -> None:
    assert next_delay(waited, typical, fixed, spacing=spacing) == fixed


def test_the_jitter_tells_jobs_apart() -> None:
    assert len({next_delay(0, 125) for _ in range(50)}) > 25


@pytest.mark.parametrize(
    ("waited", "low", "high"),
    [
        pytest.param(0, 5, 5.2, id="an early look, for a job that fails at once"),
        pytest.param(5.2, 85.6, 88.3, id="none before a job can be done"),
        pytest.param(90, 10.2, 10.7, id="from there on more and more often"),
        pytest.param(125, 5, 5.2, id="most often about when the job is done"),
        pytest.param(250, 14, 14.5, id="less often when it is late"),
        pytest.param(600, 53.9, 55.6, id="and ever less often"),
    ],
)
def test_looks_at_a_job_of_125_seconds(waited: float, low: float, high: float) -> None:
    assert all(low <= next_delay(waited, 125) <= high for _ in range(50))


def test_once_jobs_are_known_there_is_no_early_look() -> None:
    assert 85 < next_delay(0, 125, early=False) < 95


def looks(end: float, typical: float, spacing: float = 0.0) -> list[float]:
    """Return when a job is looked at that takes so long."""
    moments = [next_delay(0, typical, spacing=spacing)]
    while moments[-1] < end:
        moments.append(moments[-1] + next_delay(moments[-1], typical, spacing=spacing))
    return moments


@settings(deadline=None, max_examples=60)
@given(st.sampled_from([52, 60, 125]), st.floats(0.3, 4))
def test_a_job_is_seen_soon_after_its_end_with_few_looks(typical: float, share: float) -> None:
    end = share * typical
    moments = looks(end, typical)
    assert len(moments) <= 45
    late = moments[-1] - end
    assert late <= (0.1 * end + 1.2 if share > 0.75 else 0.5 * typical)


def test_a_clip_of_the_typical_length_takes_eight_looks() -> None:
    assert len(looks(125, 125)) <= 9


@settings(deadline=None, max_examples=60)
@given(st.floats(20, 1000))
def test_where_the_limit_leaves_room_for_few_looks_none_is_made_before_most_jobs_are_done(
    spacing: float,
) -> None:
    moments = looks(125, 125, spacing)
    assert len(moments) <= 4
    assert any(125 <= moment <= 145 for moment in moments)
    gaps = [after - before for before, after in pairwise(looks(500, 125, spacing))]
    assert all(gap >= min(spacing, 125) / 2 for gap in gaps)


# What is learned


def test_without_experience_the_catalogue_is_right() -> None:
    assert typical_time(125, []) == 125


@pytest.mark.parametrize("outlier", [0.01, 1, 900, 1e9])
def test_an_outlier_does_nothing(outlier: float) -> None:
    assert typical_time(125, [outlier]) == 125
    assert typical_time(125, [60, 61, 62, 61, 60, outlier]) == pytest.approx(61, abs=1)


@pytest.mark.parametrize("real", [62.5, 250])
def test_three_jobs_are_believed(real: float) -> None:
    assert typical_time(125, [real] * 3) == real


@settings(deadline=None)
@given(st.floats(1, 1e4), st.lists(st.floats(0, 1e9), max_size=25))
def test_what_is_learned_stays_sane(catalogued: float, times: list[float]) -> None:
    assert 0.04 * catalogued <= typical_time(catalogued, times) <= 4 * catalogued


@pytest.mark.parametrize(
    ("told", "running", "done", "real"),
    [
        (None, None, 100, None),
        (None, 90, 100, 100),
        (95, 90, 100, 95),
        (95, None, 5000, 95),
        (95, 96, 100, 96),
        (95_000, 90, 100, 100),
        (-1, None, 100, 0),
    ],
)
def test_what_a_job_took(told: float | None, running: float | None, done: float, real: float | None) -> None:
    assert real_time(told, running, done) == real


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
    assert judge(state, waited, timeout) is verdict


@settings(deadline=None)
@given(st.sampled_from(list(VendorStatus)), st.floats(-600, 1e6), positive)
def test_only_the_vendors_word_is_final(state: VendorStatus, waited: float, timeout: float) -> None:
    verdict = judge(state, waited, timeout)
    assert (verdict is Verdict.READY) == (state is VendorStatus.COMPLETED)
    assert (verdict is Verdict.FAILED) == (state is VendorStatus.FAILED)
    assert verdict is not Verdict.GONE or (state is VendorStatus.NOT_FOUND and waited > HOUR)
    assert verdict is not Verdict.LATE or waited >= timeout


@settings(deadline=None)
@given(doubtful, st.floats(0, 1), st.floats(0.01, HOUR))
def test_doubt_never_ends_a_wait_before_its_deadline(
    state: VendorStatus, share: float, timeout: float
) -> None:
    waited = share * timeout
    assert judge(state, waited, timeout) is (Verdict.WAIT if waited < timeout else Verdict.LATE)
