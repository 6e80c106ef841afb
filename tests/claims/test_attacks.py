"""Ways to pay twice or to lose a paid clip, found by outsiders; each test failed before its fix."""

from __future__ import annotations

import errno
import json
import os
import shlex
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_luma.exceptions import LumaRayConfigurationError, LumaRayError, LumaRaySubmitUnknown
from airflow_provider_luma.jobs import recovery
from airflow_provider_luma.simulator import Simulator
from airflow_provider_luma.storage import LocalFile, open_file
from tests.support import API_KEY, MemoryStore, make_operator, recorded, set_connection, task_context

pytestmark = pytest.mark.usefixtures("connection")


def test_resubmit_does_not_buy_what_was_settled_while_it_looked(
    monkeypatch: pytest.MonkeyPatch, frame: Path, clip: Path
) -> None:
    """The first attempt gets its answer while its retry searches the history, which has no row yet."""
    monkeypatch.setattr(recovery, "LOOK_DELAYS", (0.0,))
    with Simulator(latency=0.05, clip_seconds=0.2, api_key=API_KEY, history_lag=99999) as simulator:
        set_connection(monkeypatch, simulator.url, timeout=10)
        simulator.fault("submit", "slow", seconds=0.6)
        simulator.fault("history", "slow", seconds=1.5)
        with ThreadPoolExecutor(1) as threads:
            first = threads.submit(make_operator(frame, clip).execute, task_context())
            while not simulator.jobs:
                time.sleep(0.005)
            again = make_operator(frame, clip, on_unknown_submit="resubmit").execute(task_context())
            assert first.result()["request_id"] == again["request_id"]
        assert simulator.charges == 1


@pytest.mark.parametrize("named", ["", "gw-0001"], ids=["no id", "a gateway's id"])
def test_a_v1_clip_that_could_not_be_stored_is_found_by_its_body(
    simulator: Simulator, frame: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    def full(self: LocalFile, *arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    simulator.fault("v1", "slow", seconds=0.0, request_id=named)
    with monkeypatch.context() as patched:
        patched.setattr(LocalFile, "put", full)
        with pytest.raises(LumaRayError):
            make_operator(frame, clip, api_version="v1").execute(task_context())
    outputs = make_operator(frame, clip, api_version="v1").execute(task_context())
    assert (outputs["request_id"], simulator.charges) == (simulator.jobs[0].request_id, 1)


def test_a_video_that_was_moved_back_is_recognized_by_its_digest(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    first = make_operator(frame, clip).execute(task_context())
    away = clip.with_name("archive.mp4")
    clip.rename(away)
    simulator.advance(8 * 24 * 3600)
    with pytest.raises(LumaRayError):
        make_operator(frame, clip).execute(task_context(clears=1))
    away.rename(clip)
    assert make_operator(frame, clip).execute(task_context(clears=2))["request_id"] == first["request_id"]
    assert (simulator.charges, recorded(clip)["state"]) == (1, "delivered")


def test_a_deferred_job_whose_record_and_frame_are_gone_is_delivered(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    with pytest.raises(TaskDeferred) as deferred:
        make_operator(frame, clip, deferrable=True).execute(task_context())
    clip.with_name("clip.mp4.job.json").unlink()
    frame.unlink()
    simulator.advance(1)
    event = {"request_id": simulator.jobs[0].request_id}
    outputs = make_operator(frame, clip, deferrable=True).execute_complete(
        task_context(), event=event, **deferred.value.kwargs or {}
    )
    assert (outputs["request_id"], clip.exists(), simulator.charges) == (event["request_id"], True, 1)


def test_a_retry_does_not_leave_its_own_clip_for_anothers(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    """The path was changed to one with another run's clip."""
    store, other = MemoryStore(), tmp_path / "b.mp4"
    make_operator(frame, other, prompt="other").execute(task_context(run_id="other"))
    simulator.fault("download", "status", status=500, times=99)
    with pytest.raises(LumaRayError):
        make_operator(frame, tmp_path / "a.mp4", if_exists="reuse").execute(task_context(store=store))
    simulator.clear_faults()
    outputs = make_operator(frame, other, if_exists="reuse").execute(task_context(store=store))
    assert outputs["request_id"] == simulator.jobs[1].request_id
    assert simulator.charges == 2


def test_a_job_is_polled_with_the_connection_that_bought_it(
    simulator: Simulator, frame: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection was changed before the retry."""
    simulator.fault("status", "status", status=500, times=99)
    with pytest.raises(LumaRayError):
        make_operator(frame, clip, timeout=timedelta(seconds=0.1)).execute(task_context())
    simulator.clear_faults()
    with Simulator(api_key=API_KEY) as elsewhere:
        connection = {"conn_type": "luma_ray", "password": API_KEY, "host": elsewhere.url}
        monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps(connection))
        outputs = make_operator(frame, clip, luma_ray_conn_id="other").execute(task_context())
        assert outputs["request_id"] == simulator.jobs[0].request_id
        assert elsewhere.jobs == []


@pytest.mark.skipif(os.geteuid() != 0, reason="takes another user")
def test_a_folder_that_another_user_has_locked_before_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    for parent in list(folder.parents)[:4]:
        parent.chmod(parent.stat().st_mode | 0o011)
    token = LocalFile(folder / "one.json").create(b"one")
    assert token
    child = os.fork()
    if child == 0:
        os.setuid(65534)
        file = LocalFile(folder / "two.json")
        made = file.create(b"two")
        os._exit(0 if made and file.replace(b"three", made) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_relative_output_path_is_refused(simulator: Simulator, frame: Path) -> None:
    with pytest.raises(LumaRayConfigurationError, match="absolute"):
        make_operator(frame, "clip.mp4").execute(task_context())
    assert simulator.jobs == []


def test_a_file_uri_keeps_what_a_web_address_would_not() -> None:
    assert str(open_file("file:///x/shot#1.mp4")) == "/x/shot#1.mp4"
    assert str(open_file("file:///x/what?.mp4")) == "/x/what?.mp4"


@pytest.mark.parametrize("name", ["it's $HOME.mp4", "x`id`'.mp4", "back\\slash.mp4", "a b.mp4"])
def test_advice_is_quoted_for_a_shell(simulator: Simulator, frame: Path, tmp_path: Path, name: str) -> None:
    simulator.fault("submit", "reset", accepted=False)
    with pytest.raises(LumaRaySubmitUnknown) as caught:
        make_operator(frame, tmp_path / name).execute(task_context())
    lines = [line for line in str(caught.value).splitlines() if "not-bought" in line]
    assert shlex.split(lines[0].partition("not-bought")[2])[:1] == [str(tmp_path / name)]


def test_a_cleared_old_run_that_cannot_be_restored_leaves_the_path(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    make_operator(frame, clip, prompt="monday").execute(task_context(run_id="monday"))
    tuesday = make_operator(frame, clip, prompt="tuesday").execute(task_context(run_id="tuesday"))
    clip.write_bytes(clip.read_bytes()[:-1] + b"\1")
    record = recorded(clip)
    simulator.advance(8 * 24 * 3600)
    with pytest.raises(LumaRayError):
        make_operator(frame, clip, prompt="monday").execute(task_context(run_id="monday", clears=1))
    assert recorded(clip)["request_id"] == record["request_id"] == tuesday["request_id"]
    make_operator(frame, clip, prompt="wednesday").execute(task_context(run_id="wednesday"))
    assert simulator.charges == 3


def test_a_404_page_is_not_the_vendors_reply(simulator: Simulator, frame: Path, clip: Path) -> None:
    first = make_operator(frame, clip).execute(task_context())
    clip.unlink()
    simulator.advance(2 * 3600)
    for call in ("status", "result", "history_one"):
        simulator.fault(call, "html", status=404, times=99)
    simulator.fault("download", "status", status=404)
    with pytest.raises(LumaRayError) as caught:
        make_operator(frame, clip).execute(task_context(clears=1))
    assert "give-up" not in str(caught.value)
    simulator.clear_faults()
    assert make_operator(frame, clip).execute(task_context(clears=1)) == first
    assert simulator.charges == 1


def test_if_exists_fail_leaves_a_file_alone_that_appeared_after_the_purchase(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    context = task_context()
    with pytest.raises(TaskDeferred) as deferred:
        make_operator(frame, clip, if_exists="fail", deferrable=True).execute(context)
    event = {"request_id": deferred.value.trigger.serialize()[1]["request_id"], "reason": "ready"}
    clip.write_bytes(b"somebody else's")
    for attempt in (lambda op: op.execute_complete(context, event), lambda op: op.execute(context)):
        with pytest.raises(LumaRayError, match="by now") as told:
            attempt(make_operator(frame, clip, if_exists="fail"))
        assert "a retry" in str(told.value) or "re-attaches" in str(told.value)
    assert clip.read_bytes() == b"somebody else's"
    clip.unlink()
    outputs = make_operator(frame, clip, if_exists="fail").execute(context)
    assert (outputs["request_id"], simulator.charges) == (event["request_id"], 1)


def test_an_unreadable_neighbour_does_not_matter_for_a_unique_body(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    clip.parent.mkdir()
    (clip.parent / "other.mp4.job.json").write_text("{")
    simulator.fault("submit", "reset", accepted=True)
    outputs = make_operator(frame, clip, frame_transfer="upload").execute(task_context())
    assert (outputs["request_id"], simulator.charges) == (simulator.jobs[0].request_id, 1)
