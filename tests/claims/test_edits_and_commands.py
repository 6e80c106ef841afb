"""Edited paths, clears and commands: what happens is what the texts say, and nothing is paid twice."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred
from airflow.sdk.execution_time.context import set_current_context

from airflow_provider_luma.cli.main import main
from airflow_provider_luma.exceptions import (
    LumaRayConfigurationError,
    LumaRayDeliveryFailed,
    LumaRayError,
    LumaRayInsufficientCredits,
    LumaRayJobFailed,
    LumaRayResultExpired,
    LumaRaySubmitUnknown,
    LumaRayTimeout,
    LumaRayUnavailable,
)
from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.simulator import Simulator
from tests.claims.conftest import Database
from tests.claims.test_counterexamples import Killed, advised
from tests.claims.test_drift import LATE
from tests.claims.test_drift import bought_and_late as late
from tests.claims.test_followed_advice import adopts, flip, lose, while_the_vendor_works
from tests.jobs.test_call import call
from tests.support import (
    API_KEY,
    MemoryStore,
    make_operator,
    record_path,
    recorded,
    set_connection,
    task_context,
)
from tests.test_batch import Run, plan

pytestmark = pytest.mark.usefixtures("connection")
NAMED = ["--dag-id", "clips", "--run-id", "run_1", "--task-id", "generate"]


def put(folder: Path, frame: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        shutil.copy(frame, folder / name)
        with (folder / name).open("ab") as file:
            file.write(name.encode())
    return folder


@pytest.fixture
def other_account(monkeypatch: pytest.MonkeyPatch, clips: Path) -> Any:
    with Simulator(latency=0.02, clip_seconds=0.2, credits="20", api_key=API_KEY, work_dir=clips) as other:
        connection = {
            "conn_type": "luma_ray",
            "password": API_KEY,
            "host": other.url,
            "extra": {"requests_per_minute": 100_000, "timeout": 5},
        }
        monkeypatch.setenv("AIRFLOW_CONN_LUMA_B", json.dumps(connection))
        yield other


# A. keep + FAILED + another account


def test_a_batch_that_moves_to_another_account_after_a_failed_job_waits_with_that_account(
    simulator: Simulator, other_account: Simulator, frame: Path, clip: Path
) -> None:
    """The clip FAILED on account A; the DAG now has account B; the retry buys on B, but asks A about B's job."""
    keep: dict[str, Any] = {"if_exists": "keep"}
    simulator.fault("submit", "failed")
    with pytest.raises(LumaRayJobFailed):
        make_operator(frame, clip, **keep).execute(task_context(map_index=0))
    try:
        make_operator(frame, clip, luma_ray_conn_id="luma_b", timeout=3, **keep).execute(
            task_context(map_index=0)
        )
    except LumaRayError as error:
        raise AssertionError(f"charges on B: {other_account.charges}; {error}") from None


def test_and_following_the_advice_does_not_pay_twice(
    simulator: Simulator, other_account: Simulator, frame: Path, clip: Path
) -> None:
    keep: dict[str, Any] = {"if_exists": "keep", "luma_ray_conn_id": "luma_b", "timeout": 7200}
    simulator.fault("submit", "failed")
    with pytest.raises(LumaRayJobFailed):
        make_operator(frame, clip, if_exists="keep").execute(task_context(map_index=0))
    polled = []
    status = LumaRayHook.get_status

    def later(self: LumaRayHook, *arguments: Any) -> Any:
        polled.append(1)
        if len(polled) == 3:
            simulator.advance(3700)
            other_account.advance(3700)
        return status(self, *arguments)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(LumaRayHook, "get_status", later)
        try:
            make_operator(frame, clip, **keep).execute(task_context(map_index=0))
        except LumaRayResultExpired as error:
            told = error
        else:
            return
    main([*advised(told, "give-up"), "--yes"])
    make_operator(frame, clip, **keep).execute(task_context(map_index=0, clears=1))
    assert other_account.charges == 1, str(told)


def test_a_failed_job_of_an_account_that_is_no_more_does_not_hold_up_a_batch(
    simulator: Simulator, other_account: Simulator, frame: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator.fault("submit", "failed")
    with pytest.raises(LumaRayJobFailed):
        make_operator(frame, clip, if_exists="keep").execute(task_context(map_index=0))
    set_connection(monkeypatch, simulator.url, password="SG_revoked", timeout=5)
    make_operator(frame, clip, if_exists="keep", luma_ray_conn_id="luma_b").execute(
        task_context(map_index=0, clears=1)
    )


# B. a batch whose frames were removed


@pytest.mark.parametrize("how", ["in flight", "deleted clip"])
def test_a_batchs_clip_beyond_a_shrunken_mapping_is_had_as_its_error_says(
    simulator: Simulator, frame: Path, tmp_path: Path, how: str
) -> None:
    """A bad picture is removed from the folder, and the run is cleared to fetch the clip that timed out."""
    run, frames = Run(), put(tmp_path / "frames", frame, "a.jpg", "b.jpg", "c.jpg")
    if how == "in flight":
        planned = plan(frames)
        run.generate(planned[:2])
        run._clears -= 1
        for one in ("status", "result"):
            simulator.fault(one, "status", status=500, times=99)
        with pytest.raises(LumaRayTimeout):
            make_operator(**planned[2], **LATE).execute(
                task_context(map_index=2, store=run._stores.setdefault(2, MemoryStore()))
            )
        simulator.clear_faults()
        run._clears += 1
    else:
        run.generate(plan(frames))
        (tmp_path / "videos" / "c.jpg.mp4").unlink()
    (frames / "a.jpg").unlink()
    run.generate(plan(frames))
    again = run.generate(plan(frames))  # "Clear the plan and its clips: each clip then gets its index back."
    told = [str(one) for one in again if isinstance(one, LumaRayError)]
    assert not told, told
    assert (tmp_path / "videos" / "c.jpg.mp4").exists()
    assert simulator.charges == 3


# C. keep with an edited path


@pytest.mark.parametrize("clears", [0, 1])
def test_keep_buys_once_though_its_path_was_edited(
    simulator: Simulator, frame: Path, tmp_path: Path, clears: int
) -> None:
    """Nothing that is billed has changed."""
    kept, keep = MemoryStore(), {"if_exists": "keep"}
    late(
        simulator,
        make_operator(frame, tmp_path / "a.mp4", **keep, **LATE),
        task_context(store=kept),
    )
    make_operator(frame, tmp_path / "b.mp4", **keep).execute(task_context(store=kept, clears=clears))
    assert simulator.charges == 1


def test_a_cleared_run_whose_folder_of_clips_was_edited_spends_no_more_than_its_cap(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    run, frames = Run(), put(tmp_path / "frames", frame, "a.jpg", "b.jpg")
    run.generate(plan(frames, max_credits=3.2, videos=f"{tmp_path}/v1/"))
    run.generate(plan(frames, max_credits=3.2, videos=f"{tmp_path}/v2/"))
    assert simulator.spent <= 3.2, f"{simulator.spent} at a cap of 3.20"


# D. busy path in the same run


def test_a_path_that_is_busy_with_the_same_runs_job_is_said_to_be_had_later(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    """'Once that job is done, a retry delivers this one's video.'"""
    kept = MemoryStore()
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    for path in (a, b):
        late(simulator, make_operator(frame, path, **LATE), task_context(store=kept))
    theirs = MemoryStore()
    late(simulator, make_operator(frame, a, prompt="x", **LATE), task_context("other", store=theirs))
    with pytest.raises(LumaRayDeliveryFailed, match="move its video away; a retry then delivers this one's"):
        make_operator(frame, a).execute(task_context(store=kept))
    make_operator(frame, a, prompt="x").execute(task_context("other", store=theirs))
    a.unlink()
    make_operator(frame, a).execute(task_context(store=kept))  # the retry


def test_a_path_that_is_busy_under_fail_is_said_to_be_had_later(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    fail: dict[str, Any] = {"if_exists": "fail"}
    make_operator(frame, clip, prompt="monday", **fail).execute(task_context(run_id="monday"))
    clip.rename(clip.with_name("monday.mp4"))
    late(simulator, make_operator(frame, clip, prompt="t", **fail, **LATE), task_context(run_id="tuesday"))
    with pytest.raises(LumaRayDeliveryFailed, match="move its video away; a retry then delivers this one's"):
        make_operator(frame, clip, prompt="monday", **fail).execute(task_context(run_id="monday", clears=1))
    make_operator(frame, clip, prompt="t", **fail).execute(task_context(run_id="tuesday"))
    clip.unlink()
    make_operator(frame, clip, prompt="monday", **fail).execute(task_context(run_id="monday", clears=1))


# E. the command's own advice names the task instance


def test_not_boughts_advice_to_adopt_names_the_task_instance_whose_file_is_elsewhere(
    simulator: Simulator, frame: Path, clip: Path, database: Database, capsys: Any
) -> None:
    kept = database.stores["run_1", -1] = MemoryStore()
    lose(simulator, make_operator(frame, clip), task_context(store=kept))
    record_path(clip).unlink()  # it is on the worker's machine
    assert main(["not-bought", str(clip), *NAMED]) == 1
    told = capsys.readouterr().err
    assert "To get its video" in told
    done = main(advised(told.replace("To get its video: python", "python"), "adopt"))
    assert done == 0, capsys.readouterr().err


def test_not_boughts_advice_to_adopt_names_the_task_instance_under_another_runs_clip(
    simulator: Simulator, frame: Path, tmp_path: Path, database: Database, capsys: Any
) -> None:
    kept = database.stores["run_1", -1] = MemoryStore()
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    make_operator(frame, b, prompt="x").execute(task_context(run_id="run_0"))
    lose(simulator, make_operator(frame, a), task_context(store=kept))
    simulator.fault("history", "status", status=401)
    with pytest.raises(LumaRaySubmitUnknown) as caught:
        make_operator(frame, b).execute(task_context(store=kept, clears=1))
    capsys.readouterr()
    assert main(advised(caught.value, "not-bought")) == 1
    told = capsys.readouterr().err
    done = main(advised(told, "adopt"))
    assert done == 0, capsys.readouterr().err


def test_not_bought_of_a_bought_job_advises_to_give_up_that_job(
    simulator: Simulator, frame: Path, clip: Path, database: Database, capsys: Any
) -> None:
    kept = database.stores["run_1", -1] = MemoryStore()
    late(simulator, make_operator(frame, clip, **LATE), task_context(store=kept))
    record_path(clip).unlink()
    assert main(["not-bought", str(clip), *NAMED]) == 1
    told = capsys.readouterr().err
    assert main([*advised(told, "give-up"), "--yes"]) == 0, capsys.readouterr().err


# F. v1 and a file that appeared


@pytest.mark.parametrize("if_exists", ["fail", "keep"])
def test_a_file_that_appears_during_a_v1_call_is_left_alone(
    simulator: Simulator, frame: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, if_exists: str
) -> None:
    while_the_vendor_works(monkeypatch, "generate", lambda: clip.write_bytes(b"somebody's"))
    with contextlib.suppress(LumaRayError):
        make_operator(frame, clip, api_version="v1", if_exists=if_exists).execute(task_context())
    assert clip.read_bytes() == b"somebody's"


# G. spent


def test_spent_counts_a_clip_whose_path_was_edited(
    simulator: Simulator, frame: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vendor did not say what it cost."""
    kept = MemoryStore()
    a, b = tmp_path / "v" / "a.mp4", tmp_path / "v" / "b.mp4"
    late(simulator, make_operator(frame, a, **LATE), task_context(store=kept))
    make_operator(frame, b).execute(task_context(store=kept))
    record = recorded(b)
    record.pop("cost", None)
    record_path(b).write_text(json.dumps(record))
    capsys.readouterr()
    assert main(["spent", str(tmp_path / "v"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["total"]["usd"] in ("1.60", "1.6")


def test_spent_counts_a_clip_that_was_given_up(
    simulator: Simulator, frame: Path, clip: Path, capsys: Any
) -> None:
    make_operator(frame, clip).execute(task_context())
    record = recorded(clip)
    record.pop("cost", None)
    record_path(clip).write_text(json.dumps(record))
    assert main(["give-up", str(clip)]) == 0
    capsys.readouterr()
    assert main(["spent", str(clip.parent), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["total"]["usd"] in ("1.60", "1.6")


def test_show_says_that_an_earlier_failed_job_cost_nothing(
    simulator: Simulator, frame: Path, clip: Path, capsys: Any
) -> None:
    simulator.fault("submit", "failed")
    with pytest.raises(LumaRayJobFailed):
        make_operator(frame, clip).execute(task_context())
    make_operator(frame, clip).execute(task_context())
    capsys.readouterr()
    assert main(["show", str(clip)]) == 0
    told = capsys.readouterr().out
    (line,) = [one for one in told.splitlines() if "failed" in one]
    assert "1.60" not in line, line


# H. output_path that names no file


def test_a_path_that_renders_wrong_names_the_job_that_a_clear_fetches(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    kept = MemoryStore()
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    first = late(simulator, make_operator(frame, a, **LATE), task_context(store=kept))
    make_operator(frame, b, prompt="two").execute(task_context(store=kept, clears=1))
    operator = make_operator(frame, b, prompt="two")
    operator.output_path = "relative.mp4"
    with pytest.raises(LumaRayConfigurationError) as caught:
        operator.execute(task_context(store=kept, clears=1))
    if "fetches that job's video" not in str(caught.value):
        return
    outputs = make_operator(frame, a, prompt="two").execute(task_context(store=kept, clears=2))
    assert (outputs["request_id"], simulator.charges) == (first, 2), str(caught.value)


# I. give-up while an attempt waits / between attempts of one clear


def test_what_a_blocking_attempt_says_of_a_job_that_was_given_up_is_true(
    simulator: Simulator, frame: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    status = LumaRayHook.get_status

    def held(self: LumaRayHook, *arguments: Any) -> Any:
        monkeypatch.setattr(LumaRayHook, "get_status", status)
        assert main(["give-up", str(clip), "--yes"]) == 0
        return status(self, *arguments)

    monkeypatch.setattr(LumaRayHook, "get_status", held)
    try:
        make_operator(frame, clip).execute(task_context())
    except LumaRayError as error:
        print(error)
    assert recorded(clip)["state"] == "given_up", capsys.readouterr().out


def test_after_give_up_only_a_clear_buys(simulator: Simulator, frame: Path, clip: Path, capsys: Any) -> None:
    """The clear came before: its first attempt searches for a v1 call that may still wait, and is to be retried."""
    v1: dict[str, Any] = {"api_version": "v1"}
    with pytest.MonkeyPatch.context() as patched:

        def dies(self: LumaRayHook, *arguments: Any) -> None:
            raise Killed

        patched.setattr(LumaRayHook, "generate", dies)
        with pytest.raises(Killed):
            make_operator(frame, clip, **v1).execute(task_context())
    with pytest.raises(LumaRayUnavailable):
        make_operator(frame, clip, **v1).execute(task_context(clears=1))
    assert main(["give-up", str(clip), "--yes"]) == 0
    assert "Once clips.generate in run run_1 is cleared" in capsys.readouterr().out
    with pytest.raises(LumaRayConfigurationError, match="a retry buys no other clip"):
        make_operator(frame, clip, **v1).execute(task_context(clears=1))
    assert simulator.charges == 0


def test_a_batchs_clip_is_had_though_the_balance_is_used_up(
    monkeypatch: pytest.MonkeyPatch, frame: Path, tmp_path: Path, clips: Path
) -> None:
    """a FAILED (not billed), b is there, c timed out; the balance is used up. The run is cleared for c."""
    with Simulator(
        latency=0.02, clip_seconds=0.2, credits="4.8", api_key=API_KEY, work_dir=clips
    ) as simulator:
        set_connection(monkeypatch, simulator.url, timeout=5)
        run, frames = Run(), put(tmp_path / "frames", frame, "a.jpg", "b.jpg", "c.jpg")
        planned = plan(frames)
        assert len(planned) == 3
        simulator.fault("submit", "failed")
        for one in planned[:2]:
            index = planned.index(one)
            with contextlib.suppress(LumaRayJobFailed):
                make_operator(**one).execute(
                    task_context(map_index=index, store=run._stores.setdefault(index, MemoryStore()))
                )
        late(
            simulator,
            make_operator(**planned[2], **LATE),
            task_context(map_index=2, store=run._stores.setdefault(2, MemoryStore())),
        )
        put(tmp_path / "elsewhere", frame, "x.jpg")
        make_operator(tmp_path / "elsewhere" / "x.jpg", tmp_path / "x.mp4").execute(task_context("somebody"))
        run._clears = 0
        told: list[str] = []
        for _ in range(2):
            told = [str(one) for one in run.generate(plan(frames)) if isinstance(one, LumaRayError)]
        assert (tmp_path / "videos" / "c.jpg.mp4").exists(), told


def test_and_the_next_run_does_not_get_it_either(
    simulator: Simulator, frame: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """'is left to ... run run_1, which has its job in flight: clear that run, or give up the job.'"""
    run, frames = Run(), put(tmp_path / "frames", frame, "a.jpg", "b.jpg")
    planned = plan(frames)
    make_operator(**planned[0]).execute(
        task_context(map_index=0, store=run._stores.setdefault(0, MemoryStore()))
    )
    late(
        simulator,
        make_operator(**planned[1], **LATE),
        task_context(map_index=1, store=run._stores.setdefault(1, MemoryStore())),
    )
    (frames / "a.jpg").unlink()
    assert plan(frames, run_id="run_2") == []
    assert "Clear that run" in caplog.text
    run._clears = 0
    run.generate(plan(frames))
    assert (tmp_path / "videos" / "b.jpg.mp4").exists()


def test_a_clip_whose_job_has_moved_on_is_not_left_to_another_run(
    simulator: Simulator, frame: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A single task's output_path led into the batch's folder, and was corrected by a retry."""
    frames, kept = put(tmp_path / "frames", frame, "a.jpg"), MemoryStore()
    wrong, right = tmp_path / "videos" / "a.jpg.mp4", tmp_path / "right.mp4"
    late(simulator, make_operator(frame, wrong, **LATE), task_context("single", run_id="run_0", store=kept))
    make_operator(frame, right).execute(task_context("single", run_id="run_0", store=kept))
    assert len(plan(frames)) == 1, caplog.text


# J. swapped paths


def test_two_tasks_whose_paths_were_swapped_get_their_clips_as_their_errors_say(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    """'To get this video, move that one away, then clear the task: it fetches it.'"""
    stores = {"one": MemoryStore(), "two": MemoryStore()}
    paths = {"one": tmp_path / "a.mp4", "two": tmp_path / "b.mp4"}
    first = {
        name: make_operator(frame, paths[name], prompt=name).execute(task_context(name, store=stores[name]))
        for name in stores
    }
    with pytest.raises(LumaRayConfigurationError, match="move that one away, then clear the task"):
        make_operator(frame, paths["two"], prompt="one").execute(
            task_context("one", store=stores["one"], clears=1)
        )
    paths["two"].unlink()
    for name, path in (("one", paths["two"]), ("two", paths["one"])):
        outputs = make_operator(frame, path, prompt=name).execute(
            task_context(name, store=stores[name], clears=2)
        )
        assert outputs["request_id"] == first[name]["request_id"]
    assert simulator.charges == 2


def test_a_path_that_a_delivered_clip_was_moved_from_is_had_once_the_file_is_gone(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    kept = MemoryStore()
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    make_operator(frame, a).execute(task_context(store=kept))
    make_operator(frame, b).execute(task_context(store=kept, clears=1))
    a.unlink()
    make_operator(frame, a, prompt="x").execute(task_context("other", store=MemoryStore()))


# K. the hook


def test_a_call_that_bought_nothing_does_not_use_up_its_attempt(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    """A task falls back to another frame, or a cheaper model."""
    with set_current_context(task_context(store=MemoryStore())):
        with pytest.raises(LumaRayInsufficientCredits):
            call(frame, tmp_path / "a.mp4", min_remaining_credits=19)
        call(frame, tmp_path / "a.mp4", prompt="a tamer one")


def test_outside_a_task_the_advice_after_an_expiry_can_be_followed(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    call(frame, clip, key="coffee")
    call(frame, clip, key="tea", prompt="tea")
    clip.unlink()
    simulator.advance(8 * 24 * 3600)
    with pytest.raises(LumaRayResultExpired) as caught:
        call(frame, clip, key="coffee")
    assert main(advised(caught.value, "give-up")) == 0
    call(frame, clip, key="coffee")


def test_what_an_earlier_key_of_the_same_attempt_bought_is_found_by_a_retry_in_another_order(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    kept = MemoryStore()
    with set_current_context(task_context(store=kept)):
        one = call(frame, f"{tmp_path}/v/", key="a/b", prompt="1")
        two = call(frame, f"{tmp_path}/v/", key="a-b", prompt="2")
        three = call(frame, f"{tmp_path}/v/", key="A-B", prompt="3")
        four = call(frame, f"{tmp_path}/v/", prompt="4")
    assert len({one["video_path"], two["video_path"], three["video_path"], four["video_path"]}) == 4
    with set_current_context(task_context(store=kept)):
        assert call(frame, f"{tmp_path}/v/", prompt="4")["request_id"] == four["request_id"]
        assert call(frame, f"{tmp_path}/v/", key="A-B", prompt="3")["request_id"] == three["request_id"]
    assert simulator.charges == 4


def test_a_hook_call_after_a_deferred_operator_is_another_clip(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    """A custom operator makes a teaser with the hook in post_execute."""
    kept = MemoryStore()
    with pytest.raises(TaskDeferred) as deferred:
        make_operator(frame, tmp_path / "a.mp4", deferrable=True).execute(task_context(store=kept))
    simulator.advance(1)
    context = task_context(store=kept)
    with set_current_context(context):
        event = {"request_id": simulator.jobs[0].request_id, "reason": "ready"}
        mine = make_operator(frame, tmp_path / "a.mp4", deferrable=True).execute_complete(
            context, event=event, **deferred.value.kwargs or {}
        )
        try:
            teaser = call(frame, tmp_path / "teaser.mp4", prompt="a teaser")
        except LumaRayConfigurationError:
            return
    assert teaser["request_id"] != mine["request_id"], "the operator's clip was returned as the teaser"


# L. clears


def test_a_clear_with_one_retry_less_is_a_clear(simulator: Simulator, frame: Path, clip: Path) -> None:
    """retries=2, done at the first try; retries=1 now, and cleared: Airflow's max_tries is 1 + 1, as before."""
    one, two = task_context(), task_context(clears=1)
    one["ti"].max_tries = two["ti"].max_tries = 2
    two["ti"].try_number = 2
    make_operator(frame, clip).execute(one)
    assert main(["give-up", str(clip)]) == 0
    clip.unlink()
    with pytest.raises(
        LumaRayConfigurationError, match="clear the task; if you have just done so, once more"
    ):
        make_operator(frame, clip).execute(two)
    make_operator(frame, clip).execute(task_context(clears=3))


# M. the same v1/lost advice at an earlier path


def test_not_bought_at_an_earlier_path_counts_as_it_says(
    simulator: Simulator, frame: Path, tmp_path: Path, capsys: Any
) -> None:
    """Two errors lie before a person, of path a and of path b; the command of the first is run, without a database."""
    kept = MemoryStore()
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    simulator.fault("submit", "reset", accepted=False)
    with pytest.raises(LumaRaySubmitUnknown) as first:
        make_operator(frame, a).execute(task_context(store=kept))
    for clears in (1, 2):
        with pytest.raises(LumaRaySubmitUnknown):
            make_operator(frame, b).execute(task_context(store=kept, clears=clears))
    capsys.readouterr()
    assert main(advised(first.value, "not-bought")) == 0
    told = capsys.readouterr().out
    if "it counts as the newer copy" not in told:
        return
    make_operator(frame, b).execute(task_context(store=kept, clears=3))
    assert simulator.charges == 1


def test_a_damaged_records_command_knows_the_stores_copy(
    simulator: Simulator, frame: Path, clip: Path, database: Database, capsys: Any
) -> None:
    kept = database.stores["run_1", -1] = MemoryStore()
    first = late(simulator, make_operator(frame, clip, **LATE), task_context(store=kept))
    record_path(clip).write_bytes(bytes(512))
    assert main(["show", str(clip), *NAMED]) == 1
    told = capsys.readouterr().err
    record_path(clip).unlink()
    outputs = make_operator(frame, clip).execute(task_context(store=kept))
    assert ("the next attempt buys another clip" in told) is (outputs["request_id"] != first), told


def test_what_an_operator_says_of_its_attempt_is_true(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    """A preview by the hook in pre_execute is bought; then the operator is refused: 'This attempt bought nothing.'"""
    context = task_context(store=MemoryStore())
    with set_current_context(context):
        call(frame, tmp_path / "preview.mp4", prompt="a preview")
        with pytest.raises(LumaRayConfigurationError) as caught:
            make_operator(frame, tmp_path / "real.mp4").execute(context)
    assert ("This attempt bought nothing" in str(caught.value)) is (simulator.charges == 0), str(caught.value)


@pytest.mark.parametrize("how", ["deleted clip", "in flight"])
def test_a_batch_whose_task_was_moved_into_a_group_keeps_its_cap(
    simulator: Simulator, frame: Path, tmp_path: Path, how: str
) -> None:
    """The mapped task is 'generate', then 'group.generate'; the run is cleared."""
    frames = put(tmp_path / "frames", frame, "a.jpg")
    (planned,) = plan(frames, max_credits=1.6)
    if how == "in flight":
        late(simulator, make_operator(**planned, **LATE), task_context(map_index=0, store=MemoryStore()))
    else:
        make_operator(**planned).execute(task_context(map_index=0, store=MemoryStore()))
        Path(planned["output_path"]).unlink()
    (planned,) = plan(frames, max_credits=1.6)
    make_operator(**planned).execute(
        task_context("group.generate", map_index=0, store=MemoryStore(), clears=1)
    )
    assert simulator.spent <= 1.6, f"{simulator.spent} at a cap of 1.60"


def test_reuse_leaves_a_file_at_an_edited_path_alone(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    """The file has no record: it was made elsewhere. Under 'fail' it is protected."""
    kept, reuse = MemoryStore(), {"if_exists": "reuse"}
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    make_operator(frame, a, **reuse).execute(task_context(store=kept))
    foreign = a.read_bytes() + b"\0\0\0\x08free"
    b.write_bytes(foreign)
    with pytest.raises(LumaRayDeliveryFailed, match="Move that file away"):
        make_operator(frame, b, **reuse).execute(task_context(store=kept, clears=1))
    assert b.read_bytes() == foreign


def test_spent_counts_a_nameless_clip_once_though_its_path_was_edited(
    simulator: Simulator, frame: Path, tmp_path: Path, capsys: Any
) -> None:
    from airflow_provider_luma.storage import LocalFile

    kept, v1 = MemoryStore(), {"api_version": "v1"}
    a, b = tmp_path / "v" / "a.mp4", tmp_path / "v" / "b.mp4"
    simulator.fault("v1", "slow", seconds=0.0, request_id="")
    with pytest.MonkeyPatch.context() as patched:

        def full(*arguments: Any) -> None:
            raise OSError(28, "No space left on device")

        patched.setattr(LocalFile, "put", full)
        with pytest.raises(LumaRayError):
            make_operator(frame, a, **v1).execute(task_context(store=kept))
    make_operator(frame, b, **v1).execute(task_context(store=kept))
    assert simulator.charges == 1
    capsys.readouterr()
    assert main(["spent", str(tmp_path / "v"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["total"]["clips"] == 1


def test_a_v1_clip_whose_last_write_fails_is_not_said_to_be_unbought(
    simulator: Simulator, frame: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_luma.storage import LocalFile

    replace = LocalFile.replace

    def fails(self: LocalFile, content: bytes, token: str) -> str | None:
        if b'"state": "delivered"' in content:
            raise OSError(5, "Input/output error")
        return replace(self, content, token)

    monkeypatch.setattr(LocalFile, "replace", fails)
    with pytest.raises(LumaRayError) as caught:
        make_operator(frame, clip, api_version="v1").execute(task_context())
    assert "Nothing new was bought" not in str(caught.value), f"{simulator.charges} charge: {caught.value}"


def test_a_lost_call_is_not_forgotten_by_the_error_of_its_resubmission(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    """The first call did buy, its row is late; the frame is gone by the time of the second one."""
    simulator.delay_history("next", 600)
    simulator.fault("submit", "reset", accepted=True)
    find_jobs = LumaRayHook.find_jobs
    with pytest.MonkeyPatch.context() as patched:

        def gone(self: LumaRayHook, *arguments: Any) -> Any:
            frame.unlink(missing_ok=True)
            return find_jobs(self, *arguments)

        patched.setattr(LumaRayHook, "find_jobs", gone)
        with pytest.raises(LumaRayError, match="may have bought one"):
            make_operator(frame, clip, on_unknown_submit="resubmit").execute(task_context())


def test_the_same_of_a_balance_that_is_too_low(simulator: Simulator, frame: Path, clip: Path) -> None:
    simulator.delay_history("next", 600)
    simulator.fault("submit", "reset", accepted=True)
    with pytest.raises(LumaRayError, match="may have bought one"):
        make_operator(frame, clip, on_unknown_submit="resubmit", min_remaining_credits=18).execute(
            task_context()
        )


def test_what_is_on_record_after_give_up_of_a_resubmitted_call(
    simulator: Simulator, frame: Path, clip: Path, capsys: Any
) -> None:
    simulator.fault("submit", "reset", accepted=False)
    first = late(simulator, make_operator(frame, clip, on_unknown_submit="resubmit", **LATE), task_context())
    capsys.readouterr()
    assert main(["give-up", str(clip), "--yes"]) == 0
    told = capsys.readouterr().out
    record = recorded(clip)
    states = [(t.get("request_id"), t["state"]) for t in (record, *record["superseded"])]
    assert (first, "given_up") in states, (told, states)


def test_a_task_state_and_path_of_the_same_run_deferred_twice(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    """Two mapped tasks with one path, both deferrable, the second cleared after the first was delivered."""
    contexts = [task_context(map_index=index, store=MemoryStore()) for index in (0, 1)]
    with pytest.raises(TaskDeferred) as deferred:
        make_operator(frame, clip, deferrable=True).execute(contexts[0])
    with pytest.raises(LumaRayConfigurationError):
        make_operator(frame, clip, prompt="two", deferrable=True).execute(contexts[1])
    simulator.advance(1)
    make_operator(frame, clip, deferrable=True).execute_complete(
        contexts[0],
        event={"request_id": simulator.jobs[0].request_id, "reason": "ready"},
        **deferred.value.kwargs or {},
    )
    clip.unlink()
    with pytest.raises(LumaRayConfigurationError) as caught:
        make_operator(frame, clip, prompt="two").execute(
            task_context(map_index=1, store=MemoryStore(), clears=1)
        )
    assert "holds the video" not in str(caught.value), str(caught.value)


def test_a_busy_path_of_a_job_that_was_given_up_in_its_file_only(
    simulator: Simulator, frame: Path, tmp_path: Path, database: Database, capsys: Any
) -> None:
    """give-up by hand at the path in use, for a task whose file is here and whose store is out of reach later."""
    kept = MemoryStore()
    a = tmp_path / "a.mp4"
    first = late(simulator, make_operator(frame, a, **LATE), task_context(store=kept))
    # three retries time out: the store and the file advance together
    with pytest.raises(LumaRayConfigurationError, match="is in use") as caught:
        make_operator(frame, a).execute(task_context(run_id="run_2", store=MemoryStore()))
    with pytest.MonkeyPatch.context() as patched:
        from airflow_provider_luma.cli import found as found_module
        from airflow_provider_luma.cli.store import NoStore

        def none(identity: Any) -> Any:
            raise NoStore("it cannot be reached")

        patched.setattr(found_module, "DatabaseStore", none)
        assert main([*advised(caught.value, "give-up"), "--yes"]) == 0
    two = make_operator(frame, a, prompt="two").execute(task_context(run_id="run_2", store=MemoryStore()))
    with pytest.raises(LumaRayConfigurationError, match="given up"):
        make_operator(frame, a).execute(task_context(store=kept))
    assert (recorded(a)["request_id"], simulator.charges, first) == (two["request_id"], 2, first)


def test_what_is_bought_after_a_lost_call_of_another_account_was_settled_is_waited_for(
    simulator: Simulator, other_account: Simulator, frame: Path, clip: Path
) -> None:
    """Not keep. The retry searches account A, a person says not-bought, and the retry buys on B and asks A."""
    simulator.fault("submit", "reset", accepted=False)
    with pytest.raises(LumaRaySubmitUnknown):
        make_operator(frame, clip).execute(task_context())
    find_jobs = LumaRayHook.find_jobs
    with pytest.MonkeyPatch.context() as patched:

        def settled(self: LumaRayHook, *arguments: Any) -> Any:
            patched.setattr(LumaRayHook, "find_jobs", find_jobs)
            found = find_jobs(self, *arguments)
            assert main(["not-bought", str(clip)]) == 0
            return found

        patched.setattr(LumaRayHook, "find_jobs", settled)
        try:
            make_operator(frame, clip, luma_ray_conn_id="luma_b", timeout=3).execute(task_context(clears=1))
        except LumaRayTimeout as error:
            raise AssertionError(f"charges on B: {other_account.charges}; {error}") from None


def test_after_give_up_only_a_clear_buys_in_a_batch(simulator: Simulator, frame: Path, clip: Path) -> None:
    """Lost, resubmitted in vain (503 before a byte... here: no balance), given up; then Airflow's retry."""
    keep: dict[str, Any] = {"if_exists": "keep"}
    simulator.fault("submit", "reset", accepted=False)
    simulator.fault("submit", "status", status=429, seconds=0.01, times=99)
    with pytest.raises(LumaRayError) as caught:
        make_operator(frame, clip, on_unknown_submit="resubmit", timeout=1, **keep).execute(
            task_context(map_index=0)
        )
    print(repr(caught.value))
    simulator.clear_faults()
    assert main(["give-up", str(clip), "--yes"]) == 0
    with contextlib.suppress(LumaRayConfigurationError):
        make_operator(frame, clip, **keep).execute(task_context(map_index=0))
    assert simulator.charges == 0, str(caught.value)


@pytest.mark.parametrize("state", ["failed", "given up", "other inputs, cleared"])
def test_what_a_damaged_records_error_says_of_the_stores_job_is_true(
    simulator: Simulator, frame: Path, clip: Path, state: str, database: Database
) -> None:
    kept = database.stores["run_1", -1] = MemoryStore()
    if state == "failed":
        simulator.fault("submit", "failed")
        with pytest.raises(LumaRayJobFailed):
            make_operator(frame, clip).execute(task_context(store=kept))
    else:
        late(simulator, make_operator(frame, clip, **LATE), task_context(store=kept))
    first = simulator.jobs[0].request_id
    if state == "given up":
        assert main(["give-up", str(clip), "--yes"]) == 0
    again: dict[str, Any] = {"prompt": "two"} if state.startswith("other") else {}
    clears = 1 if again else 0
    record_path(clip).write_bytes(bytes(512))
    with pytest.raises(LumaRayError) as caught:
        make_operator(frame, clip, **again).execute(task_context(store=kept, clears=clears))
    record_path(clip).rename(clip.with_name("damaged"))
    got = None
    try:
        got = make_operator(frame, clip, **again).execute(task_context(store=kept, clears=clears))[
            "request_id"
        ]
    except LumaRayError as error:
        got = str(error)
    assert ("the next attempt finishes it" in str(caught.value)) is (got == first), (str(caught.value), got)


def test_a_lost_call_that_is_adopted_and_cleared_as_advised_is_had(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    """The prompt was edited before Airflow's retry, which 'finishes what was bought'."""
    with pytest.MonkeyPatch.context() as patched:
        submit = LumaRayHook.submit

        def dies(self: LumaRayHook, *arguments: Any) -> None:
            submit(self, *arguments)
            raise Killed

        patched.setattr(LumaRayHook, "submit", dies)
        with pytest.raises(Killed):
            make_operator(frame, clip).execute(task_context())
    # By the time of the retry the call can no longer be waiting for its answer.
    record_path(clip).write_text(json.dumps(recorded(clip) | {"error": "The worker was killed."}))
    simulator.fault("history", "status", status=401)
    with pytest.raises(LumaRaySubmitUnknown) as caught:
        make_operator(frame, clip, prompt="edited").execute(task_context())
    first = simulator.jobs[0].request_id
    assert main(adopts(caught.value, first)) == 0
    outputs = make_operator(frame, clip, prompt="edited").execute(task_context(clears=1))
    assert (outputs["request_id"], simulator.charges) == (first, 1), str(caught.value)


def test_a_clip_that_was_not_put_over_the_same_runs_is_had_as_advised(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    """The same with an edited path."""
    kept = MemoryStore()
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    first = late(simulator, make_operator(frame, a, **LATE), task_context(store=kept))
    make_operator(frame, b, prompt="other").execute(task_context("other", store=MemoryStore()))
    with pytest.raises(LumaRayConfigurationError, match="with the inputs that it was bought for") as caught:
        make_operator(frame, b, prompt="edited").execute(task_context(store=kept))
    b.unlink()
    outputs = make_operator(frame, b).execute(task_context(store=kept, clears=1))
    assert (outputs["request_id"], simulator.charges) == (first, 2), str(caught.value)


def test_a_clip_that_was_given_up_is_bought_again_as_its_error_says(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    reuse: dict[str, Any] = {"if_exists": "reuse"}
    make_operator(frame, clip, **reuse).execute(task_context())
    assert main(["give-up", str(clip)]) == 0
    with pytest.raises(LumaRayConfigurationError, match="move its file away and clear the task"):
        make_operator(frame, clip, **reuse).execute(task_context())
    clip.unlink()
    make_operator(frame, clip, **reuse).execute(task_context(clears=1))
    assert simulator.charges == 2


def test_the_same_by_a_retry(simulator: Simulator, other_account: Simulator, frame: Path, clip: Path) -> None:
    """Not keep. Killed in the call; the retry (with B) searches A; a person says not-bought meanwhile."""
    with pytest.MonkeyPatch.context() as patched:

        def dies(self: LumaRayHook, *arguments: Any) -> None:
            raise Killed

        patched.setattr(LumaRayHook, "submit", dies)
        with pytest.raises(Killed):
            make_operator(frame, clip).execute(task_context())
    find_jobs, asked = LumaRayHook.find_jobs, []
    with pytest.MonkeyPatch.context() as patched:

        def settled(self: LumaRayHook, *arguments: Any) -> Any:
            patched.setattr(LumaRayHook, "find_jobs", find_jobs)
            found = find_jobs(self, *arguments)
            asked.append(main(["not-bought", str(clip), "--yes"]))
            return found

        patched.setattr(LumaRayHook, "find_jobs", settled)
        try:
            make_operator(frame, clip, luma_ray_conn_id="luma_b", timeout=3).execute(task_context())
        except LumaRayTimeout as error:
            raise AssertionError(f"charges on B: {other_account.charges}; {error}") from None
    assert asked == [0]


def test_a_clear_of_a_running_task_after_a_give_up_is_a_clear(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    """Airflow leaves max_tries as it is for a running task, so that clear cannot be told from a retry."""
    late(
        simulator, make_operator(frame, clip, **LATE), task_context()
    )  # stands for the killed, running attempt
    assert main(["give-up", str(clip), "--yes"]) == 0
    context = task_context()
    context["dag_run"].clear_number, context["ti"].try_number = 1, 2
    with pytest.raises(
        LumaRayConfigurationError, match="clear the task; if you have just done so, once more"
    ):
        make_operator(frame, clip).execute(context)
    make_operator(frame, clip).execute(task_context(clears=2))
    assert simulator.charges == 2


def test_show_of_a_batchs_clip_whose_file_is_another_is_true(
    simulator: Simulator, frame: Path, clip: Path, capsys: Any
) -> None:
    keep: dict[str, Any] = {"if_exists": "keep"}
    make_operator(frame, clip, **keep).execute(task_context(map_index=0))
    foreign = clip.read_bytes() + b"\0\0\0\x08free"
    clip.write_bytes(foreign)
    capsys.readouterr()
    assert main(["show", str(clip)]) == 0
    told = capsys.readouterr().out
    make_operator(frame, clip, **keep).execute(task_context(map_index=0, clears=1))
    assert ("re-attaches" in told and "keep" not in told) is (clip.read_bytes() != foreign), told


def test_an_earlier_paths_copy_does_not_count_as_newer_than_the_stores(
    simulator: Simulator, frame: Path, tmp_path: Path, capsys: Any
) -> None:
    """a, b, c, and back to a, which other runs have used meanwhile; by then the vendor has nothing any more."""
    kept = MemoryStore()
    a, b, c = (tmp_path / f"{name}.mp4" for name in "abc")
    first = late(simulator, make_operator(frame, a, **LATE), task_context(store=kept))
    for one in ("status", "result"):
        simulator.fault(one, "status", status=500, times=99)
    with pytest.raises(LumaRayTimeout):
        make_operator(frame, b, **LATE).execute(task_context(store=kept))
    simulator.clear_faults()
    for night in range(2, 6):
        make_operator(frame, a, prompt=f"{night}").execute(
            task_context(run_id=f"run_{night}", store=MemoryStore())
        )
    outputs = make_operator(frame, c).execute(task_context(store=kept))
    assert outputs["request_id"] == first
    stored = kept.get("luma_ray_job")
    print(stored["state"], stored["revision"])
    record = recorded(a)
    print(
        [(t.get("request_id") == first, t["state"], t["revision"]) for t in (record, *record["superseded"])]
    )
    simulator.advance(8 * 24 * 3600)
    back = make_operator(frame, a).execute(task_context(store=kept, clears=1))
    assert back["request_id"] == first
    assert kept.get("luma_ray_job")["cost"] in ("1.60", "1.6")


MONDAY = ["--dag-id", "clips", "--run-id", "monday", "--task-id", "generate"]


def test_a_lost_call_that_was_given_up_for_the_next_run_is_adopted_once_it_is_found(
    simulator: Simulator, frame: Path, clip: Path, capsys: Any
) -> None:
    """Monday's lost call was given up as tuesday's error advises; then the history shows its job."""
    lose(simulator, make_operator(frame, clip, prompt="m"), task_context(run_id="monday"))
    with pytest.raises(LumaRayConfigurationError, match="is in use") as caught:
        make_operator(frame, clip, prompt="t").execute(task_context(run_id="tuesday"))
    assert main([*advised(caught.value, "give-up"), "--yes"]) == 0
    make_operator(frame, clip, prompt="t").execute(task_context(run_id="tuesday", clears=1))
    first = simulator.jobs[0].request_id
    capsys.readouterr()
    done = main(["adopt", str(clip), first, *MONDAY])
    told = capsys.readouterr()
    outputs = make_operator(frame, clip, prompt="m").execute(task_context(run_id="monday", clears=1))
    assert (done, outputs["request_id"], simulator.charges) == (0, first, 2), told.err


def test_a_job_that_was_given_up_for_the_next_run_is_adopted_again(
    simulator: Simulator, frame: Path, clip: Path, capsys: Any
) -> None:
    first = late(simulator, make_operator(frame, clip, prompt="m", **LATE), task_context(run_id="monday"))
    assert main(["give-up", str(clip), "--yes"]) == 0
    make_operator(frame, clip, prompt="t").execute(task_context(run_id="tuesday"))
    capsys.readouterr()
    done = main(["adopt", str(clip), first, *MONDAY])
    assert done == 0, capsys.readouterr().err


def test_the_same_under_the_tasks_own_next_clip(
    simulator: Simulator, frame: Path, clip: Path, capsys: Any
) -> None:
    first = late(simulator, make_operator(frame, clip, prompt="m", **LATE), task_context())
    assert main(["give-up", str(clip), "--yes"]) == 0
    make_operator(frame, clip, prompt="t").execute(task_context(clears=1))
    capsys.readouterr()
    done = main(["adopt", str(clip), first])
    assert done == 0, capsys.readouterr().err


def test_a_lost_call_without_id_under_the_tasks_own_next_clip(
    simulator: Simulator, frame: Path, clip: Path, capsys: Any
) -> None:
    lose(simulator, make_operator(frame, clip, prompt="m"), task_context())
    assert main(["give-up", str(clip), "--yes"]) == 0
    make_operator(frame, clip, prompt="t").execute(task_context(clears=1))
    capsys.readouterr()
    done = main(["adopt", str(clip), simulator.jobs[0].request_id])
    assert done == 0, capsys.readouterr().err


def test_after_give_up_only_a_clear_buys_below_another_runs_clip(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    """Monday, cleared, waits for its clip below tuesday's, times out and is given up; then Airflow's retry."""
    make_operator(frame, clip, prompt="m").execute(task_context(run_id="monday"))
    make_operator(frame, clip, prompt="t").execute(task_context(run_id="tuesday"))
    simulator.fault("download", "status", status=503, times=99)
    clip.write_bytes(clip.read_bytes() + b"\0\0\0\x08free")
    with pytest.raises(LumaRayDeliveryFailed):
        make_operator(frame, clip, prompt="m").execute(task_context(run_id="monday", clears=1))
    simulator.clear_faults()
    assert main(["give-up", str(clip), simulator.jobs[0].request_id, "--yes"]) == 0
    with contextlib.suppress(LumaRayConfigurationError):
        make_operator(frame, clip, prompt="m").execute(task_context(run_id="monday", clears=1))
    assert simulator.charges == 2


@pytest.mark.parametrize("stored", [True, False])
def test_a_retry_below_another_runs_clip_finishes_what_was_bought(
    simulator: Simulator, frame: Path, clip: Path, stored: bool
) -> None:
    """Monday is cleared to get its clip back; the download fails; the prompt is edited; Airflow retries."""
    kept = MemoryStore() if stored else None
    first = make_operator(frame, clip, prompt="m").execute(task_context(run_id="monday", store=kept))
    simulator.fault("download", "changed")  # else the simulator's clips are equal
    make_operator(frame, clip, prompt="t").execute(task_context(run_id="tuesday"))
    simulator.fault("download", "status", status=503, times=99)
    with pytest.raises(LumaRayDeliveryFailed):
        make_operator(frame, clip, prompt="m").execute(task_context(run_id="monday", store=kept, clears=1))
    simulator.clear_faults()
    again = make_operator(frame, clip, prompt="edited").execute(
        task_context(run_id="monday", store=kept, clears=1)
    )
    assert (again["request_id"], simulator.charges) == (first["request_id"], 2)


@pytest.mark.parametrize("stored", [True, False])
def test_after_give_up_only_a_clear_buys_where_the_store_knows_it(
    simulator: Simulator, frame: Path, clip: Path, database: Database, stored: bool
) -> None:
    kept = MemoryStore() if stored else None
    if kept:
        database.stores["monday", -1] = kept
    first = make_operator(frame, clip, prompt="m").execute(task_context(run_id="monday", store=kept))
    simulator.fault("download", "changed")
    make_operator(frame, clip, prompt="t").execute(task_context(run_id="tuesday"))
    simulator.fault("download", "status", status=503, times=99)
    with pytest.raises(LumaRayDeliveryFailed):
        make_operator(frame, clip, prompt="m").execute(task_context(run_id="monday", store=kept, clears=1))
    simulator.clear_faults()
    assert main(["give-up", str(clip), first["request_id"], "--yes"]) == 0
    with contextlib.suppress(LumaRayConfigurationError):
        make_operator(frame, clip, prompt="m").execute(task_context(run_id="monday", store=kept, clears=1))
    assert simulator.charges == 2


def test_a_nameless_clip_that_was_left_is_adopted(
    simulator: Simulator, frame: Path, clip: Path, capsys: Any
) -> None:
    """v1 named no id and the disk was full; the prompt was edited and the task cleared."""
    from airflow_provider_luma.storage import LocalFile

    v1 = {"api_version": "v1"}
    simulator.fault("v1", "slow", seconds=0.0, request_id="")
    with pytest.MonkeyPatch.context() as patched:

        def full(*arguments: Any) -> None:
            raise OSError(28, "No space left on device")

        patched.setattr(LocalFile, "put", full)
        with pytest.raises(LumaRayError):
            make_operator(frame, clip, **v1).execute(task_context())
    make_operator(frame, clip, prompt="two", **v1).execute(task_context(clears=1))
    flip(clip)
    record = recorded(clip)
    record["sha256"] = hashlib.sha256(clip.read_bytes()).hexdigest()  # the simulator's clips are equal
    record_path(clip).write_text(json.dumps(record))
    capsys.readouterr()
    done = main(["adopt", str(clip), simulator.jobs[0].request_id])
    assert done == 0, capsys.readouterr().err


def test_a_job_that_was_given_up_is_fetched_to_its_path_below_nothing(
    simulator: Simulator, frame: Path, clip: Path, capsys: Any
) -> None:
    """give-up says 'To get its video: fetch ID PATH'; the next run has since bought and been given up, too."""
    first = late(simulator, make_operator(frame, clip, prompt="m", **LATE), task_context(run_id="monday"))
    assert main(["give-up", str(clip), "--yes"]) == 0
    second = late(simulator, make_operator(frame, clip, prompt="t", **LATE), task_context(run_id="tuesday"))
    assert main(["give-up", str(clip), "--yes"]) == 0
    capsys.readouterr()
    assert main(["fetch", first, str(clip)]) == 0, capsys.readouterr().err
    outputs = make_operator(frame, clip, prompt="m").execute(task_context(run_id="monday", clears=1))
    assert (outputs["request_id"], simulator.charges) == (first, 2), second


def test_a_given_up_job_is_fetched_while_its_task_has_another_in_flight(
    simulator: Simulator, frame: Path, clip: Path, capsys: Any
) -> None:
    first = late(simulator, make_operator(frame, clip, prompt="m", **LATE), task_context())
    assert main(["give-up", str(clip), "--yes"]) == 0
    make_operator(frame, clip, prompt="t").execute(task_context(clears=1))
    other = clip.with_name("other.mp4")
    capsys.readouterr()
    assert main(["fetch", first, str(other)]) == 0, capsys.readouterr().err
    told = capsys.readouterr().out
    assert main(["spent", str(clip.parent), "--json"]) == 0
    total = json.loads(capsys.readouterr().out)["total"]
    assert total["clips"] == 2, (told, total, simulator.charges)


def test_the_balance_is_that_of_the_account_that_paid(
    simulator: Simulator, other_account: Simulator, frame: Path, clip: Path
) -> None:
    make_operator(frame, tmp := clip.with_name("x.mp4")).execute(task_context("x"))
    late(simulator, make_operator(frame, clip, **LATE), task_context())
    outputs = make_operator(frame, clip, luma_ray_conn_id="luma_b").execute(task_context())
    assert outputs["remaining_credits"] == float(20 - simulator.spent), (outputs, tmp)


def test_a_damaged_batchs_record_counts_but_its_clip_is_had(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    """What a plan does with FAILED, whose retry is cleared with the plan after the budget was lowered."""
    run, frames = Run(), put(tmp_path / "frames", frame, "a.jpg", "b.jpg")
    simulator.fault("submit", "failed")
    run.generate(plan(frames, max_credits=3.2))
    planned = plan(frames, max_credits=1.6)
    run.generate(planned)
    assert simulator.spent <= Decimal("1.6"), (simulator.spent, len(planned))


def test_a_clip_that_was_given_up_and_bought_by_a_sibling_is_returned_to_a_cleared_run(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    run, frames = Run(), put(tmp_path / "frames", frame, "a.jpg", "b.jpg")
    run.generate(plan(frames))
    video = tmp_path / "videos" / "b.jpg.mp4"
    assert main(["give-up", str(video)]) == 0
    video.unlink()
    put(frames, frame, "0.jpg")
    done = run.generate(plan(frames))
    assert all(isinstance(one, dict) for one in done), done
    done = run.generate(plan(frames))
    assert all(isinstance(one, dict) for one in done), done
    assert simulator.charges == 4


def test_an_elsewhere_job_that_is_given_up_as_the_plan_says_is_bought(
    simulator: Simulator, frame: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frames = put(tmp_path / "frames", frame, "a.jpg")
    (planned,) = plan(frames, run_id="run_0")
    simulator.fault("submit", "reset", accepted=False)
    late(
        simulator,
        make_operator(**planned, on_unknown_submit="resubmit", **LATE),
        task_context(run_id="run_0", map_index=0, store=MemoryStore()),
    )
    assert plan(frames) == []
    for _ in range(2):  # the resubmitted job, then the lost call
        caplog.clear()
        assert plan(frames) == []
        assert main([*advised(caplog.text, "give-up"), "--yes"]) == 0
    (planned,) = plan(frames)
    make_operator(**planned).execute(task_context(map_index=0, store=MemoryStore()))


def test_a_clear_after_a_clear_that_bought_nothing_returns_the_clip(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    """Several clears and paths: J1 at a; cleared for b and a wrong model (404); cleared back."""
    kept = MemoryStore()
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    first = late(simulator, make_operator(frame, a, **LATE), task_context(store=kept))
    simulator.fault("submit", "status", status=404)
    with pytest.raises(LumaRayError):
        make_operator(frame, b, model="luma-ray-nine", api_version="v2").execute(
            task_context(store=kept, clears=1)
        )
    outputs = make_operator(frame, b).execute(task_context(store=kept, clears=2))
    assert (outputs["request_id"], simulator.charges) == (first, 1)
    outputs = make_operator(frame, a).execute(task_context(store=kept, clears=3))
    assert (outputs["request_id"], simulator.charges) == (first, 1)
    make_operator(frame, b, prompt="x").execute(task_context(run_id="run_2", store=MemoryStore()))


def test_a_retry_after_a_clear_that_bought_nothing_for_a_wrong_model(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    """A wrong model is refused after the clear; it is corrected to the first one, and the task is cleared."""
    first = late(simulator, make_operator(frame, clip, **LATE), task_context())
    simulator.fault("submit", "status", status=503, accepted=False)
    with pytest.raises(LumaRayError):
        make_operator(frame, clip, prompt="two", on_unknown_submit="fail").execute(task_context(clears=1))
    assert main(["not-bought", str(clip)]) in (0, 1)
    outputs = make_operator(frame, clip).execute(task_context(clears=1))
    assert outputs["request_id"] == first


def test_a_deferred_job_of_which_a_failed_retry_and_an_edited_path_know_is_had(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    kept = MemoryStore()
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    with pytest.raises(TaskDeferred) as deferred:
        make_operator(frame, a, deferrable=True).execute(task_context(store=kept))
    simulator.advance(1)
    simulator.fault("download", "status", status=503, times=99)
    event = {"request_id": simulator.jobs[0].request_id, "reason": "ready"}
    with pytest.raises(LumaRayDeliveryFailed):
        make_operator(frame, a, deferrable=True).execute_complete(
            task_context(store=kept), event=event, **deferred.value.kwargs or {}
        )
    simulator.clear_faults()
    outputs = make_operator(frame, b, deferrable=True, prompt="x").execute(task_context(store=kept))
    assert (outputs["request_id"], simulator.charges) == (event["request_id"], 1)
    make_operator(frame, a, prompt="y").execute(task_context("other", store=MemoryStore()))


@pytest.mark.parametrize("limited", [0, 14])
def test_what_was_said_to_be_not_bought_by_mistake_is_adopted_after_rate_limits(
    simulator: Simulator, frame: Path, clip: Path, capsys: Any, limited: int
) -> None:
    simulator.delay_history("next", 600)
    lose(simulator, make_operator(frame, clip), task_context())
    assert main(["not-bought", str(clip)]) == 0
    if limited:
        simulator.fault("submit", "status", status=429, seconds=0.01, times=limited)
    make_operator(frame, clip, prompt="two").execute(task_context(clears=1))
    simulator.advance(700)
    capsys.readouterr()
    first = simulator.jobs[0].request_id
    done = main(["adopt", str(clip), first])
    assert done == 0, capsys.readouterr().err
    outputs = make_operator(frame, clip).execute(task_context(clears=2))
    assert (outputs["request_id"], simulator.charges) == (first, 2)


def test_a_failed_job_is_not_said_to_have_a_video(
    simulator: Simulator, frame: Path, clip: Path, capsys: Any
) -> None:
    simulator.fault("submit", "failed")
    with pytest.MonkeyPatch.context() as patched:
        submit = LumaRayHook.submit

        def dies(self: LumaRayHook, *arguments: Any) -> None:
            submit(self, *arguments)
            raise Killed

        patched.setattr(LumaRayHook, "submit", dies)
        with pytest.raises(Killed):
            make_operator(frame, clip).execute(task_context())
    simulator.advance(5)
    main(["not-bought", str(clip)])
    assert "To get its video" not in capsys.readouterr().err


def test_adopt_of_a_job_that_failed_by_mistake_below_a_later_clip(
    simulator: Simulator, frame: Path, clip: Path, capsys: Any
) -> None:
    """The vendor said FAILED, the retry bought another, and the vendor's history says COMPLETED and billed."""
    simulator.fault("status", "status", status=422, message="x", times=1)
    simulator.fault("submit", "failed")
    with pytest.raises(LumaRayJobFailed):
        make_operator(frame, clip).execute(task_context())
    make_operator(frame, clip).execute(task_context())
    capsys.readouterr()
    done = main(["adopt", str(clip), simulator.jobs[0].request_id, "--yes"])
    told = capsys.readouterr().err
    assert "at the same time" not in told, (done, told)


def test_a_retry_of_a_resubmitted_call_that_was_adopted_finishes_both(
    simulator: Simulator, frame: Path, clip: Path, capsys: Any
) -> None:
    """The lost call did buy; the resubmitted job was delivered; the first one is adopted as found."""
    simulator.delay_history("next", 600)
    simulator.fault("submit", "reset", accepted=True)
    second = make_operator(frame, clip, on_unknown_submit="resubmit").execute(task_context())
    simulator.advance(700)
    first = simulator.jobs[0].request_id
    done = main(["adopt", str(clip), first])
    told = capsys.readouterr()
    outputs = make_operator(frame, clip).execute(task_context(clears=1))
    assert done == 0, told.err
    assert simulator.charges == 2
    assert outputs["request_id"] in (first, second["request_id"])
    expects = f"re-attaches to job {first}" in told.out
    assert expects is (outputs["request_id"] == first), (told.out, outputs["request_id"] == first)


def test_show_after_a_command_at_an_earlier_path_is_true(
    simulator: Simulator, frame: Path, tmp_path: Path, database: Database, capsys: Any
) -> None:
    """J1 in flight at a, then delivered at b; show at a."""
    kept = database.stores["run_1", -1] = MemoryStore()
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    late(simulator, make_operator(frame, a, **LATE), task_context(store=kept))
    make_operator(frame, b).execute(task_context(store=kept))
    capsys.readouterr()
    assert main(["show", str(a)]) == 0
    told = capsys.readouterr().out
    assert "missing" not in told or "goes to" in told, told


@pytest.mark.parametrize("if_exists", ["reuse"])
def test_a_mapping_that_shifts_with_a_job_in_flight_gets_its_clip_as_its_errors_say(
    simulator: Simulator, frame: Path, tmp_path: Path, if_exists: str, capsys: Any
) -> None:
    """Each index has its own path, named after its frame; a frame comes first; the run is cleared."""

    def operator(name: str, **more: Any) -> Any:
        return make_operator(frame, tmp_path / f"{name}.mp4", prompt=name, if_exists=if_exists, **more)

    stores = [MemoryStore(), MemoryStore()]
    first = late(simulator, operator("b", **LATE), task_context(map_index=0, store=stores[0]))
    operator("a").execute(task_context(map_index=0, store=stores[0], clears=1))
    with pytest.raises(LumaRayConfigurationError, match="is in use") as caught:
        operator("b").execute(task_context(map_index=1, store=stores[1], clears=1))
    capsys.readouterr()
    assert main(advised(caught.value, "give-up")) == 1
    line = next(one for one in capsys.readouterr().err.splitlines() if "To get its video" in one)
    assert f"fetch {first} PATH" in line
    assert main(["fetch", first, str(tmp_path / "b.mp4")]) == 0
    outputs = operator("b").execute(task_context(map_index=1, store=stores[1], clears=2))
    assert (outputs["request_id"], simulator.charges) == (first, 2)


def test_spent_does_not_say_that_a_given_up_job_is_only_at_the_vendor(
    simulator: Simulator, frame: Path, clip: Path, capsys: Any
) -> None:
    late(simulator, make_operator(frame, clip, **LATE), task_context())
    assert main(["give-up", str(clip), "--yes"]) == 0
    make_operator(frame, clip, prompt="t").execute(task_context(clears=1))
    simulator.advance(5)
    capsys.readouterr()
    assert main(["spent", str(clip.parent), "--conn", "luma_ray_default"]) == 0
    told = capsys.readouterr().out
    assert "Only there" not in told, told


def test_the_advice_of_a_shared_path_after_a_lost_call_leads_to_one_clip_each(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    """Two mapped tasks, one path; the first one's call is lost (bought). The second follows its error."""
    clip = tmp_path / "v.mp4"
    zero, one = (task_context(map_index=index, store=MemoryStore()) for index in (0, 1))
    lose(simulator, make_operator(frame, clip, prompt="0"), zero)
    with pytest.raises(LumaRayConfigurationError, match="ending in '/'"):
        make_operator(frame, clip, prompt="1").execute(one)
    for index, context in enumerate((zero, one)):
        again = task_context(map_index=index, store=context["task_state_store"], clears=1)
        make_operator(frame, f"{tmp_path}/v/", prompt=str(index)).execute(again)
    assert simulator.charges == 2


def test_keep_with_a_removed_plan_is_told_what_to_do(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    """A mapping by hand with keep; the job is in flight; a frame comes first. 'Clear the plan and its clips.'"""
    keep: dict[str, Any] = {"if_exists": "keep"}
    stores = [MemoryStore(), MemoryStore()]
    first = late(
        simulator,
        make_operator(frame, tmp_path / "b.mp4", **keep, **LATE),
        task_context(map_index=0, store=stores[0]),
    )
    told = ""
    for clears in (1, 2):
        for index, name in enumerate("ab"):
            try:
                outputs = make_operator(frame, tmp_path / f"{name}.mp4", prompt=name, **keep).execute(
                    task_context(map_index=index, store=stores[index], clears=clears)
                )
            except LumaRayError as error:
                told = str(error)
    assert outputs["request_id"] == first, told


@pytest.mark.parametrize("if_exists", ["fail", "keep", "reuse"])
def test_v1_replaces_its_own_clip_if_the_inputs_have_changed(
    simulator: Simulator, frame: Path, clip: Path, if_exists: Any
) -> None:
    v1: dict[str, Any] = {"api_version": "v1", "if_exists": if_exists}
    make_operator(frame, clip, prompt="one", **v1).execute(task_context())
    outputs = make_operator(frame, clip, prompt="two", **v1).execute(task_context(clears=1))
    assert outputs["video_path"] == str(clip)
    assert simulator.charges == (1 if if_exists == "keep" else 2)
