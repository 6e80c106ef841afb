"""``@task.luma_ray``: the callable's inputs, the operator's money."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred
from airflow.sdk import DAG

from airflow_provider_luma.decorators.luma_ray import luma_ray_task
from airflow_provider_luma.exceptions import LumaRayConfigurationError, LumaRayTimeout
from airflow_provider_luma.jobs.job import Job
from airflow_provider_luma.simulator import Simulator
from tests.support import task_context

pytestmark = pytest.mark.usefixtures("connection")


def make_task(function: Callable[..., Any], *args: Any, **arguments: Any) -> Any:
    """Return the operator of a decorated function; a new one per call, as per attempt of a task."""
    with DAG("clips", schedule=None):
        decorated: Any = luma_ray_task(
            function, task_id="generate", resolution="540p", poll_interval=0.05, **arguments
        )
        return decorated(*args).operator


def test_the_callable_returns_the_inputs_and_the_decorator_has_the_rest(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    def clip(product: str, ti: Any = None) -> dict[str, str]:
        return {"prompt": f"{product} for {ti.run_id}", "start_frame": str(frame), "aspect_ratio": "9:16"}

    operator = make_task(clip, "shoes", output_path=f"{tmp_path}/out/", aspect_ratio="16:9", loop=True)
    outputs = operator.execute(task_context())

    body = simulator.jobs[0].body
    assert (body["prompt"], body["aspect_ratio"], body["loop"]) == ("shoes for run_1", "9:16", True)
    assert outputs["video_path"].startswith(f"{tmp_path}/out/clips/run_1/generate")
    assert operator.multiple_outputs


def test_the_returned_inputs_are_not_rendered(simulator: Simulator, frame: Path, tmp_path: Path) -> None:
    def clip() -> dict[str, str]:
        return {"prompt": "{{ ds }} in neon", "start_frame": str(frame)}

    operator = make_task(clip, output_path=f"{tmp_path}/{{{{ run_id }}}}.mp4")
    context = task_context() | {"run_id": "monday", "ds": "2026-11-24"}
    operator.render_template_fields(context)
    operator.execute(context)
    assert simulator.jobs[0].body["prompt"] == "{{ ds }} in neon"
    assert (tmp_path / "monday.mp4").exists()


def test_a_retry_re_attaches(
    simulator: Simulator, frame: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def clip() -> dict[str, str]:
        return {"prompt": "p", "start_frame": str(frame), "output_path": f"{tmp_path}/clip.mp4"}

    def stop(*args: object) -> None:
        raise LumaRayTimeout("stopped")

    with monkeypatch.context() as patched:
        patched.setattr(Job, "wait", stop)
        with pytest.raises(LumaRayTimeout):
            make_task(clip).execute(task_context())
    make_task(clip).execute(task_context())
    assert (len(simulator.jobs), simulator.charges) == (1, 1)


def test_a_deferred_task_resumes_without_the_callable(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    calls = []

    def clip() -> dict[str, str]:
        calls.append("clip")
        return {"prompt": "p", "start_frame": str(frame), "output_path": f"{tmp_path}/clip.mp4"}

    with pytest.raises(TaskDeferred) as deferred:
        make_task(clip, deferrable=True).execute(task_context())
    event = {"request_id": simulator.jobs[0].request_id}
    simulator.advance(1)
    resumed = make_task(clip, deferrable=True)
    outputs = resumed.execute_complete(task_context(), event, **deferred.value.kwargs or {})
    assert outputs["video_path"] == f"{tmp_path}/clip.mp4"
    assert (calls, simulator.charges) == (["clip"], 1)


async def _coroutine() -> dict[str, str]:
    return {}


@pytest.mark.parametrize(
    ("returned", "sentence"),
    [
        (None, r"clip\(\) returned NoneType, but @task\.luma_ray needs a dict of inputs"),
        ("a prompt", r"clip\(\) returned str, but"),
        ([{"prompt": "p"}], r"clip\(\) returned list, but"),
        (
            {"promt": "p"},
            r"clip\(\) returned 'promt', which is not an input: a callable returns some of prompt, ",
        ),
        ({"prompt": "p", "timeout": 5}, r"returned 'timeout', which is not an input"),
        ({"luma_ray_conn_id": "other"}, r"returned 'luma_ray_conn_id', which is not an input"),
        ({"prompt": "p"}, r"start_frame, output_path came neither from clip\(\) nor from @task\.luma_ray"),
        ({}, r"prompt, start_frame, output_path came neither"),
        ({"prompt": 7, "start_frame": "f.jpg", "output_path": "/videos/o.mp4"}, r"prompt=7 is wrong"),
    ],
)
def test_a_wrong_return_value_is_reported_and_costs_nothing(
    simulator: Simulator, returned: Any, sentence: str
) -> None:
    def clip() -> Any:
        return returned

    with pytest.raises(LumaRayConfigurationError, match=sentence) as refused:
        make_task(clip).execute(task_context())
    assert "This attempt bought nothing." in str(refused.value)
    assert simulator.requests == []


def test_a_coroutine_is_a_wrong_return_value(simulator: Simulator) -> None:
    def clip() -> Any:
        coroutine = _coroutine()
        coroutine.close()
        return coroutine

    with pytest.raises(LumaRayConfigurationError, match=r"clip\(\) returned coroutine"):
        make_task(clip).execute(task_context())


def test_none_is_a_start_frame_for_a_model_that_needs_none(simulator: Simulator, tmp_path: Path) -> None:
    def clip() -> dict[str, Any]:
        return {"prompt": "p", "start_frame": None, "output_path": f"{tmp_path}/clip.mp4"}

    make_task(clip, model="luma-ray-3-2", aspect_ratio="16:9").execute(task_context())
    assert simulator.charges == 1


def test_a_deferred_mapped_task_succeeds(simulator: Simulator, frame: Path, tmp_path: Path) -> None:
    """It resumes without calling its callable, so it does not know its frame."""

    def clip() -> dict[str, str]:
        return {"prompt": "p", "start_frame": str(frame), "output_path": str(tmp_path / "clip.mp4")}

    with pytest.raises(TaskDeferred) as deferred:
        make_task(clip, deferrable=True).execute(task_context(map_index=0))
    event = {"request_id": simulator.jobs[0].request_id, "reason": "ready"}
    simulator.advance(60)
    resumed = make_task(clip, deferrable=True)
    outputs = resumed.execute_complete(task_context(map_index=0), event, **(deferred.value.kwargs or {}))
    assert outputs["request_id"] == event["request_id"]
