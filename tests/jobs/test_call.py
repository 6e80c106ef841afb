"""``LumaRayHook.image_to_video``: what the operator does, for a ``@task`` and for code outside of one."""

from __future__ import annotations

import inspect
import json
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.execution_time.context import set_current_context

from airflow_provider_luma.exceptions import LumaRayConfigurationError, LumaRayInsufficientCredits
from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.jobs.call import Clip
from airflow_provider_luma.jobs.job import Job
from airflow_provider_luma.operators.luma_ray import LumaRayImageToVideoOperator
from airflow_provider_luma.simulator import Simulator
from tests.support import MemoryStore, make_operator, record_path, recorded, task_context

pytestmark = pytest.mark.usefixtures("connection")


def call(start_frame: object, output_path: object, **arguments: Any) -> dict[str, Any]:
    defaults: dict[str, Any] = {"prompt": "a slow push in", "resolution": "540p", "poll_interval": 0.05}
    given: Any = {"start_frame": start_frame, "output_path": output_path}
    return LumaRayHook().image_to_video(**defaults | given | arguments)


def attempt(*calls: Callable[[], dict[str, Any]], **context: Any) -> list[dict[str, Any]]:
    """Make the calls of one attempt of a task."""
    with set_current_context(task_context(**context)):
        return [one() for one in calls]


class Died(BaseException):
    """The worker is gone."""


@contextmanager
def dying(owner: type, name: str, *, after: bool = False) -> Iterator[None]:
    """Let the worker die as it comes to a method, or right after it."""
    method = getattr(owner, name)

    def die(*args: Any, **kwargs: Any) -> None:
        if after:
            method(*args, **kwargs)
        raise Died

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(owner, name, die)
        with pytest.raises(Died):
            yield


DEATHS = [(LumaRayHook, "submit", True), (Job, "wait", False), (Job, "deliver", False)]


def test_it_returns_what_the_operator_returns(simulator: Simulator, frame: Path, tmp_path: Path) -> None:
    by_operator = make_operator(frame, tmp_path / "a.mp4").execute(task_context())
    context = task_context("task")
    with set_current_context(context):
        by_hook = call(frame, tmp_path / "b.mp4")
    assert by_hook == by_operator | {
        "video_path": str(tmp_path / "b.mp4"),
        "request_id": simulator.jobs[1].request_id,
        "remaining_credits": 16.8,
    }
    assert json.loads(json.dumps(by_hook)) == by_hook
    assert context["ti"].pushed == {"request_id": by_hook["request_id"]}
    assert simulator.jobs[0].body.keys() == simulator.jobs[1].body.keys()


def test_its_arguments_and_their_defaults_are_the_operators() -> None:
    of_operator = inspect.signature(LumaRayImageToVideoOperator.__init__).parameters
    others = {"self", "kwargs", "deferrable", "multiple_outputs"}
    assert {one.name for one in fields(Clip)} == of_operator.keys() - others
    defaults = {one.name: one.default for one in fields(Clip)}
    for name in defaults.keys() - {"prompt", "start_frame", "output_path", "luma_ray_conn_id"}:
        assert defaults[name] == of_operator[name].default, name


def test_an_error_comes_without_the_frames_that_led_to_it(frame: Path, clip: Path) -> None:
    with pytest.raises(LumaRayConfigurationError) as caught:
        call(frame, clip.with_suffix(".mov"), key="coffee")
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert [Path(one.filename).name for one in frames if "airflow_provider_luma" in one.filename] == [
        "exceptions.py"
    ]


# In a task


@pytest.mark.parametrize("key", [None, "coffee"])
@pytest.mark.parametrize("has_store", [True, False])
@pytest.mark.parametrize("death", DEATHS, ids=lambda death: death[1])
@pytest.mark.parametrize("inputs", [{}, {"prompt": "another", "generation_tag": "b"}], ids=["same", "other"])
def test_a_retry_finishes_what_the_task_bought(
    simulator: Simulator,
    frame: Path,
    clip: Path,
    key: str | None,
    has_store: bool,
    death: tuple[type, str, bool],
    inputs: dict[str, str],
) -> None:
    store = MemoryStore() if has_store else None
    owner, name, after = death
    with dying(owner, name, after=after):
        attempt(lambda: call(frame, clip, key=key), store=store)
    (outputs,) = attempt(lambda: call(frame, clip, key=key, **inputs), store=store)
    assert outputs["request_id"] == simulator.jobs[0].request_id
    assert (clip.exists(), len(simulator.jobs), simulator.charges) == (True, 1, 1)


@pytest.mark.parametrize("key", [None, "coffee"])
def test_a_clear_buys_for_inputs_that_have_changed_and_returns_those_that_have_not(
    simulator: Simulator, frame: Path, clip: Path, key: str | None
) -> None:
    store = MemoryStore()
    (first,) = attempt(lambda: call(frame, clip, key=key), store=store)
    (same,) = attempt(lambda: call(frame, clip, key=key), store=store, clears=1)
    (other,) = attempt(lambda: call(frame, clip, key=key, prompt="another"), store=store, clears=2)
    assert (same, simulator.charges) == (first, 2)
    assert other["request_id"] == simulator.jobs[1].request_id


@pytest.mark.parametrize("key", [None, "coffee"])
@pytest.mark.parametrize(
    "change", [{"output_path": "/videos/b.mp4"}, {"prompt": "another"}, {"generation_tag": "b"}]
)
def test_a_second_clip_of_an_attempt_needs_a_key_of_its_own(
    simulator: Simulator, frame: Path, clip: Path, key: str | None, change: dict[str, Any]
) -> None:
    arguments = {"start_frame": frame, "output_path": clip, "key": key}
    with pytest.raises(LumaRayConfigurationError) as caught:
        attempt(lambda: call(**arguments), lambda: call(**arguments | change), store=MemoryStore())
    told = "without a key" if key is None else "with key='coffee'"
    assert caught.value.cause == (
        f"This attempt has already asked for another clip {told} (output_path='{clip}')."
    )
    assert caught.value.standing == "This call bought nothing.", "the task bought the first one"
    assert (len(simulator.jobs), simulator.charges) == (1, 1)


def test_the_second_clip_of_an_attempt_is_had_as_its_error_says(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    store, first = MemoryStore(), lambda: call(frame, tmp_path / "a.mp4")
    with pytest.raises(
        LumaRayConfigurationError, match=r"its own key, such as key='tea', and its own output_path"
    ):
        attempt(first, lambda: call(frame, tmp_path / "b.mp4"), store=store)
    attempt(first, lambda: call(frame, tmp_path / "b.mp4", key="tea"), store=store)
    assert simulator.charges == 2


def test_the_same_call_twice_returns_the_same_clip(simulator: Simulator, frame: Path, clip: Path) -> None:
    first, second = attempt(lambda: call(frame, clip), lambda: call(str(frame), str(clip), timeout=60))
    assert (first, simulator.charges) == (second, 1)


@pytest.mark.parametrize("lost", ["nothing", "files", "store"])
def test_each_key_is_a_clip_of_its_own_and_a_retry_finds_all_of_them(
    simulator: Simulator, frame: Path, tmp_path: Path, lost: str
) -> None:
    store, keys = MemoryStore(), ["coffee", "tea/green & more", "3"]
    calls = [lambda key=key: call(frame, f"{tmp_path}/out/", key=key) for key in keys]
    first = attempt(*calls, store=store)
    paths = [Path(outputs["video_path"]) for outputs in first]
    assert len(set(paths)) == len(store.values) == simulator.charges == 3
    assert paths[0] == tmp_path / "out/clips/run_1/generate/coffee.mp4"
    if lost == "files":
        for path in paths:
            record_path(path).unlink()
    if lost == "store":
        store.values.clear()
    simulator.set_credits(first[-1]["remaining_credits"])
    again = attempt(*reversed(calls), store=store)
    assert [one["request_id"] for one in reversed(again)] == [one["request_id"] for one in first]
    assert simulator.charges == 3


def test_a_clip_with_a_key_is_not_the_one_without(simulator: Simulator, frame: Path, tmp_path: Path) -> None:
    store = MemoryStore()
    paths = [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    attempt(lambda: call(frame, paths[0]), lambda: call(frame, paths[1], key="b"), store=store)
    assert simulator.charges == 2
    assert [recorded(path)["identity"].get("key") for path in paths] == [None, "b"]
    with pytest.raises(LumaRayConfigurationError, match=r"holds the video of clips.generate in run run_1"):
        attempt(lambda: call(frame, paths[0], key="c"), store=store)
    assert simulator.charges == 2


# Outside a task


def test_outside_a_task_a_key_is_required(simulator: Simulator, frame: Path, clip: Path) -> None:
    with pytest.raises(LumaRayConfigurationError, match="Outside a task, image_to_video needs a key such as"):
        call(frame, clip)
    for wrong in ("", " ", 7):
        with pytest.raises(LumaRayConfigurationError, match="key="):
            call(frame, clip, key=wrong)
    assert not simulator.requests


@pytest.mark.parametrize("death", DEATHS, ids=lambda death: death[1])
def test_outside_a_task_the_key_finds_what_was_bought(
    simulator: Simulator, frame: Path, clip: Path, death: tuple[type, str, bool]
) -> None:
    owner, name, after = death
    with dying(owner, name, after=after):
        call(frame, clip, key="coffee")
    outputs = call(frame, clip, key="coffee")
    assert call(frame, clip, key="coffee") == outputs
    assert (outputs["request_id"], simulator.charges) == (simulator.jobs[0].request_id, 1)


@pytest.mark.parametrize("death", [None, *DEATHS], ids=lambda death: death and death[1])
def test_outside_a_task_a_key_is_refused_for_other_inputs(
    simulator: Simulator, frame: Path, clip: Path, death: tuple[type, str, bool] | None
) -> None:
    if death is None:
        call(frame, clip, key="coffee")
    else:
        owner, name, after = death
        with dying(owner, name, after=after):
            call(frame, clip, key="coffee")
    with pytest.raises(LumaRayConfigurationError) as caught:
        call(frame, clip, key="coffee", prompt="another")
    assert "key 'coffee' has" in caught.value.cause
    assert caught.value.remedy.startswith("Give these another key")
    assert len(simulator.jobs) == 1

    call(frame, clip, key="coffee")  # as the remedy says
    other = call(frame, clip, key="another", prompt="another")
    assert (other["request_id"], simulator.charges) == (simulator.jobs[1].request_id, 2)


def test_outside_a_task_a_folders_clip_is_named_by_its_key(frame: Path, tmp_path: Path) -> None:
    assert call(frame, f"{tmp_path}/out/", key="coffee")["video_path"] == f"{tmp_path}/out/coffee.mp4"


def test_arguments_it_does_not_take_are_named(simulator: Simulator, frame: Path, clip: Path) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'deferrable'"):
        call(frame, clip, key="coffee", deferrable=True)
    with pytest.raises(LumaRayConfigurationError, match="if_exists='never' is wrong: give one of"):
        call(frame, clip, key="coffee", if_exists="never")
    with pytest.raises(LumaRayInsufficientCredits, match="min_remaining_credits=100"):
        call(frame, clip, key="coffee", min_remaining_credits=100)
    assert not simulator.jobs
