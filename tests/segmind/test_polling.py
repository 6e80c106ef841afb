"""When to ask next, when to try again, and what ends a wait."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_luma.segmind.messages import JobState
from airflow_provider_luma.segmind.polling import Verdict, judge, next_delay, retry_delay

HOUR = 3600.0
MINUTES = 900.0
seconds = st.floats(0, 1e6)
positive = st.floats(0.01, 1e5)
doubtful = st.sampled_from(
    [state for state in JobState if state not in (JobState.COMPLETED, JobState.FAILED)]
)


@settings(deadline=None)
@given(st.floats(-600, 1e6), st.floats(0, 1e4))
def test_the_next_look_is_never_in_the_past_nor_at_once(waited: float, typical: float) -> None:
    assert 1 <= next_delay(waited, typical) < float("inf")


@settings(deadline=None)
@given(seconds, st.floats(0, 1e4), positive)
def test_a_fixed_interval_is_kept_exactly(waited: float, typical: float, fixed: float) -> None:
    assert next_delay(waited, typical, fixed) == fixed


def test_the_jitter_tells_jobs_apart() -> None:
    assert len({next_delay(0, 125) for _ in range(50)}) > 25
    assert len({retry_delay(1) for _ in range(50)}) > 25


@pytest.mark.parametrize(
    ("waited", "low", "high"),
    [
        pytest.param(0, 5, 5.5, id="an early look, for a job that fails at once"),
        pytest.param(5.2, 19.8, 21.8, id="at a fifth of the typical time"),
        pytest.param(25.5, 37, 40.8, id="at half of it"),
        pytest.param(63, 30.7, 33.9, id="at three quarters"),
        pytest.param(94, 4.7, 5.2, id="from there on often"),
        pytest.param(125, 6.2, 6.9, id="most often about when the job is done"),
        pytest.param(600, 30, 33, id="ever less often for a late one"),
    ],
)
def test_looks_at_a_job_of_125_seconds(waited: float, low: float, high: float) -> None:
    assert all(low <= next_delay(waited, 125) <= high for _ in range(50))


@settings(deadline=None, max_examples=60)
@given(st.sampled_from([52, 60, 125]), st.floats(0.3, 4))
def test_a_job_is_seen_soon_after_its_end_with_few_looks(typical: float, share: float) -> None:
    end = share * typical
    waited, looks = 0.0, 0
    while waited < end:
        waited += next_delay(waited, typical)
        looks += 1
    assert looks <= 40
    late = waited - end
    assert late <= (0.06 * end + 1.2 if share > 0.75 else 0.4 * typical)


def test_a_clip_of_the_typical_length_takes_about_ten_looks() -> None:
    waited, looks = 0.0, 0
    while waited < 125:
        waited += next_delay(waited, 125)
        looks += 1
    assert looks <= 11


@pytest.mark.parametrize(("attempt", "low"), [(1, 0.5), (2, 1.0), (3, 2.0)])
def test_a_free_call_is_made_again_after_longer_and_longer(attempt: int, low: float) -> None:
    for _ in range(50):
        delay = retry_delay(attempt)
        assert delay is not None
        assert low <= delay <= low * 1.1


@pytest.mark.parametrize("attempt", [4, 5, 100])
def test_four_tries_are_enough(attempt: int) -> None:
    assert retry_delay(attempt) is None


@pytest.mark.parametrize(
    ("state", "waited", "timeout", "verdict"),
    [
        (JobState.COMPLETED, 10, MINUTES, Verdict.READY),
        (JobState.COMPLETED, MINUTES + 1, MINUTES, Verdict.READY),
        (JobState.COMPLETED, HOUR + 1, MINUTES, Verdict.READY),
        (JobState.FAILED, 10, MINUTES, Verdict.FAILED),
        (JobState.FAILED, MINUTES + 1, MINUTES, Verdict.FAILED),
        (JobState.QUEUED, 10, MINUTES, Verdict.WAIT),
        (JobState.PROCESSING, MINUTES - 0.1, MINUTES, Verdict.WAIT),
        (JobState.PROCESSING, MINUTES, MINUTES, Verdict.LATE),
        (JobState.UNKNOWN, 10, MINUTES, Verdict.WAIT),
        (JobState.UNKNOWN, MINUTES, MINUTES, Verdict.LATE),
        (JobState.UNKNOWN, HOUR + 1, 2 * HOUR, Verdict.WAIT),
        (JobState.NOT_FOUND, 10, MINUTES, Verdict.WAIT),
        (JobState.NOT_FOUND, MINUTES, MINUTES, Verdict.LATE),
        (JobState.NOT_FOUND, HOUR, MINUTES, Verdict.LATE),
        (JobState.NOT_FOUND, HOUR, 2 * HOUR, Verdict.WAIT),
        (JobState.NOT_FOUND, HOUR + 1, MINUTES, Verdict.GONE),
        (JobState.NOT_FOUND, HOUR + 1, 2 * HOUR, Verdict.GONE),
    ],
)
def test_verdict(state: JobState, waited: float, timeout: float, verdict: Verdict) -> None:
    assert judge(state, waited, timeout) is verdict


@settings(deadline=None)
@given(st.sampled_from(list(JobState)), st.floats(-600, 1e6), positive)
def test_only_the_vendors_word_is_final(state: JobState, waited: float, timeout: float) -> None:
    verdict = judge(state, waited, timeout)
    assert (verdict is Verdict.READY) == (state is JobState.COMPLETED)
    assert (verdict is Verdict.FAILED) == (state is JobState.FAILED)
    assert verdict is not Verdict.GONE or (state is JobState.NOT_FOUND and waited > HOUR)
    assert verdict is not Verdict.LATE or waited >= timeout


@settings(deadline=None)
@given(doubtful, st.floats(0, 1), st.floats(0.01, HOUR))
def test_doubt_never_ends_a_wait_before_its_deadline(state: JobState, share: float, timeout: float) -> None:
    waited = share * timeout
    assert judge(state, waited, timeout) is (Verdict.WAIT if waited < timeout else Verdict.LATE)
