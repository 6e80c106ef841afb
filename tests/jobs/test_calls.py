"""How many calls an attempt makes over real HTTP; none is made twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from airflow_provider_luma.exceptions import LumaRayInsufficientCredits, LumaRayJobFailed, LumaRayTimeout
from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.simulator import Simulator
from tests.support import API_KEY, make_operator, set_connection, task_context


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    """A vendor with jobs so long that the test must advance its clock."""
    with Simulator(latency=60, clip_seconds=0.2, credits="20", api_key=API_KEY) as running:
        set_connection(monkeypatch, running.url)
        yield running


@pytest.fixture
def picture(slow: Simulator, frame: Path) -> str:
    """The frame as a URL, so that an attempt uploads nothing."""
    return LumaRayHook().upload_image(frame)


def given_up(simulator: Simulator, picture: str, clip: Path) -> None:
    """Buy a job whose first attempt times out before it ends."""
    with pytest.raises(LumaRayTimeout):
        make_operator(picture, clip, timeout=timedelta(seconds=0.2)).execute(task_context())


def made_since(simulator: Simulator, before: int) -> list[str]:
    return [request.call for request in simulator.requests[before:]]


def test_a_purchase_makes_only_the_indispensable_calls(
    simulator: Simulator, connection: None, frame: Path, tmp_path: Path
) -> None:
    picture = LumaRayHook().upload_image(frame)
    before = len(simulator.requests)
    make_operator(picture, tmp_path / "clip.mp4").execute(task_context())
    calls = made_since(simulator, before)
    assert [call for call in calls if call != "status"] == ["submit", "result", "download"]


def test_the_balance_is_fetched_once_if_needed(
    simulator: Simulator, connection: None, frame: Path, tmp_path: Path
) -> None:
    with pytest.raises(LumaRayInsufficientCredits):
        make_operator(frame, tmp_path / "clip.mp4", min_remaining_credits=19).execute(task_context())
    assert simulator.calls == {"credits": 1, "history": 1}


def test_an_attempt_that_resumes_a_finished_job_fetches_only_its_result(
    slow: Simulator, picture: str, tmp_path: Path
) -> None:
    given_up(slow, picture, tmp_path / "clip.mp4")
    slow.advance(60)
    before = len(slow.requests)
    make_operator(picture, tmp_path / "clip.mp4").execute(task_context())
    assert made_since(slow, before) == ["result", "download", "credits"], "the balance is that of now"


def test_a_job_that_failed_meanwhile_is_polled_once(slow: Simulator, picture: str, tmp_path: Path) -> None:
    slow.fail_next(error="the prompt was moderated")
    given_up(slow, picture, tmp_path / "clip.mp4")
    slow.advance(60)
    before = len(slow.requests)
    with pytest.raises(LumaRayJobFailed, match="the prompt was moderated"):
        make_operator(picture, tmp_path / "clip.mp4").execute(task_context())
    assert made_since(slow, before) == ["result"]


def test_a_video_url_from_the_history_needs_no_result_call(
    slow: Simulator, picture: str, tmp_path: Path
) -> None:
    given_up(slow, picture, tmp_path / "clip.mp4")
    slow.advance(2 * 3600)  # status and result have expired; the file has not
    before = len(slow.requests)
    make_operator(picture, tmp_path / "clip.mp4").execute(task_context())
    assert made_since(slow, before) == ["result", "history_one", "download", "credits"]


def test_a_result_without_a_video_is_not_fetched_again_at_once(
    slow: Simulator, picture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get_result = LumaRayHook.get_result
    given_up(slow, picture, tmp_path / "clip.mp4")
    slow.advance(60)
    before = len(slow.requests)
    monkeypatch.setattr(LumaRayHook, "get_result", lambda *call: replace(get_result(*call), url=None))
    make_operator(picture, tmp_path / "clip.mp4").execute(task_context())
    assert made_since(slow, before) == ["result", "history_one", "download", "credits"]


def test_a_running_job_is_not_polled_twice_at_once(slow: Simulator, picture: str, tmp_path: Path) -> None:
    given_up(slow, picture, tmp_path / "clip.mp4")
    slow.advance(30)  # which is past the second attempt's deadline
    before = len(slow.requests)
    with pytest.raises(LumaRayTimeout):
        make_operator(picture, tmp_path / "clip.mp4", timeout=timedelta(seconds=1), poll_interval=60).execute(
            task_context()
        )
    assert made_since(slow, before) == ["result"]


def test_a_rate_limit_of_many_processes_fails_nothing(
    simulator: Simulator, connection: None, frame: Path, tmp_path: Path
) -> None:
    simulator.fault("submit", "status", status=429, seconds=0, times=3)
    simulator.fault("status", "status", status=429, seconds=0, times=6)
    simulator.fault("result", "status", status=429, seconds=0, times=9)
    make_operator(frame, tmp_path / "clip.mp4").execute(task_context())
    assert (simulator.calls["submit"], simulator.calls["result"], simulator.charges) == (4, 10, 1)
