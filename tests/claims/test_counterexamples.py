"""Counterexamples found by people who did not write the code: each once broke the promise."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shlex
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_luma.cli.main import main
from airflow_provider_luma.decorators.luma_ray import _LumaRayDecoratedOperator
from airflow_provider_luma.exceptions import (
    LumaRayConfigurationError,
    LumaRayError,
    LumaRayResultExpired,
    LumaRaySubmitUnknown,
    LumaRayUnavailable,
)
from airflow_provider_luma.hooks import clock
from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.jobs import submit as submission
from airflow_provider_luma.jobs.ledger import Ledger
from airflow_provider_luma.jobs.record import RecordState
from airflow_provider_luma.operators.luma_ray import LumaRayImageToVideoOperator
from airflow_provider_luma.segmind.models import CATALOGUE
from airflow_provider_luma.simulator import Simulator
from airflow_provider_luma.storage import LocalFile, local, open_file
from tests.claims.conftest import Database
from tests.claims.test_drift import LATE, ReplacedStore
from tests.claims.test_drift import bought_and_late as late
from tests.jobs.test_call import call as hook_call
from tests.storage.conftest import (
    Bucket,
    bucket,
    fresh_stores,
    gate,
    session_gate,
    store,
)
from tests.support import API_KEY, MemoryStore, make_operator, recorded, set_connection, task_context
from tests.test_batch import Run, plan

__all__ = ["bucket", "fresh_stores", "gate", "session_gate", "store"]

pytestmark = pytest.mark.usefixtures("connection")


class Killed(BaseException):
    """The process was killed."""


def killed_while_it_pays(monkeypatch: pytest.MonkeyPatch, operator: Any, **context: Any) -> None:
    """Run an attempt that dies after its paid call reached the vendor, before the answer arrives."""
    submit = LumaRayHook.submit

    def dies(self: LumaRayHook, request: Any) -> str:
        submit(self, request)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(LumaRayHook, "submit", dies)
        with pytest.raises(Killed):
            operator.execute(task_context(**context))


def advised(error: object, command: str) -> list[str]:
    """Return the arguments of the command that an error advises."""
    told = [line.partition("airflow_provider_luma ")[2] for line in str(error).splitlines()]
    (line,) = (one for one in told if one.startswith(f"{command} "))
    return shlex.split(line)


def test_keep_buys_once_though_the_storage_connection_is_spelled_otherwise(
    simulator: Simulator, frame: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bucket, the same object, the same record; only the connection's id changes between two attempts."""
    monkeypatch.setenv("AIRFLOW_CONN_STORE2", os.environ["AIRFLOW_CONN_STORE"])
    keep = {"if_exists": "keep"}
    first = late(
        simulator,
        make_operator(frame, "s3://media/clips/a.mp4", storage_conn_id="store", **keep, **LATE),
        task_context(map_index=0),
    )
    outputs = make_operator(frame, "s3://media/clips/a.mp4", storage_conn_id="store2", **keep).execute(
        task_context(map_index=0)
    )
    assert (outputs["request_id"], len(simulator.jobs)) == (first, 1)


@pytest.mark.parametrize("spelled", ["store2", "link"])
def test_a_path_that_is_spelled_otherwise_is_not_left(
    simulator: Simulator,
    frame: Path,
    tmp_path: Path,
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
    spelled: str,
) -> None:
    """The job is still there, so the path is nobody else's."""
    if spelled == "store2":
        monkeypatch.setenv("AIRFLOW_CONN_STORE2", os.environ["AIRFLOW_CONN_STORE"])
        first, second = "s3://store@media/clips/a.mp4", "s3://store2@media/clips/a.mp4"
    else:
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "real")
        first, second = f"{tmp_path}/real/a.mp4", f"{tmp_path}/link/a.mp4"
    for path in (first, second):
        late(simulator, make_operator(frame, path, **LATE), task_context())
    with pytest.raises(LumaRayConfigurationError, match="is in use"):
        make_operator(frame, first).execute(task_context(run_id="run_2"))
    assert len(simulator.jobs) == 1


def test_keep_buys_once_though_the_local_path_is_spelled_otherwise(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    keep = {"if_exists": "keep"}
    first = late(simulator, make_operator(frame, clip, **keep, **LATE), task_context())
    spelled = f"{clip.parent}/../{clip.parent.name}/{clip.name}"
    outputs = make_operator(frame, spelled, **keep).execute(task_context())
    assert (outputs["request_id"], len(simulator.jobs)) == (first, 1)


def test_the_advice_after_an_expiry_gives_up_the_job_that_it_speaks_of(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    monday = make_operator(frame, clip, prompt="monday").execute(task_context(run_id="monday"))
    tuesday = make_operator(frame, clip, prompt="tuesday").execute(task_context(run_id="tuesday"))
    other = bytearray(clip.read_bytes())
    other[-1] ^= 1
    clip.write_bytes(other)  # monday's clip is not to be had any more
    simulator.advance(8 * 24 * 3600)
    with pytest.raises(LumaRayResultExpired) as caught:
        make_operator(frame, clip, prompt="monday").execute(task_context(run_id="monday", clears=1))
    assert caught.value.request_id == monday["request_id"]
    assert main(advised(caught.value, "give-up")) == 0
    record = recorded(clip)
    states = {take["request_id"]: take["state"] for take in (record, *record["superseded"])}
    assert states[tuesday["request_id"]] == "delivered", "another run's job was given up, without a question"
    assert states[monday["request_id"]] == "given_up"


@pytest.mark.parametrize("bought", [True, False], ids=["bought, its row late", "not bought"])
def test_a_lost_call_of_a_batch_does_not_adopt_its_siblings_job(
    simulator: Simulator, frame: Path, tmp_path: Path, bought: bool
) -> None:
    """Two identical pictures in a batch, sent as base64: the bodies are identical."""
    keep = {"if_exists": "keep", "frame_transfer": "base64"}
    theirs = make_operator(frame, tmp_path / "v" / "b.mp4", **keep).execute(task_context(map_index=1))
    if bought:
        simulator.delay_history("next", 600)
    simulator.fault("submit", "reset", accepted=bought)
    with pytest.raises(LumaRaySubmitUnknown):
        make_operator(frame, tmp_path / "v" / "a.mp4", **keep).execute(task_context(map_index=0))
    assert recorded(tmp_path / "v" / "a.mp4").get("request_id") != theirs["request_id"]


@pytest.mark.parametrize("named", ["", "gw-0001"], ids=["no id", "a gateway's id"])
def test_a_v1_clip_of_a_plain_url_that_could_not_be_stored_is_not_bought_again(
    simulator: Simulator, frame: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    def full(self: LocalFile, *arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    url = LumaRayHook().upload_image(frame)
    simulator.fault("v1", "slow", seconds=0.0, request_id=named)
    with monkeypatch.context() as patched:
        patched.setattr(LocalFile, "put", full)
        with pytest.raises(LumaRayError):
            make_operator(url, clip, api_version="v1").execute(task_context())
    simulator.advance(2 * 3600)  # the person frees the disk; the clip lies at the vendor for a week
    make_operator(url, clip, api_version="v1").execute(task_context())
    assert simulator.charges == 1


@pytest.mark.parametrize("offset", [-600, 1800], ids=["worker ahead", "worker behind"])
def test_a_wrong_clock_does_not_hide_the_job_of_a_lost_call(
    monkeypatch: pytest.MonkeyPatch, frame: Path, clip: Path, offset: float
) -> None:
    """The frame is a URL, so no reply has shown the vendor's time before the intent is written."""
    with Simulator(latency=0.02, clip_seconds=0.2, api_key=API_KEY, clock_offset=offset) as simulator:
        set_connection(monkeypatch, simulator.url, timeout=5)
        url = LumaRayHook().upload_image(frame)
        simulator.fault("submit", "reset", accepted=True)
        make_operator(url, clip, on_unknown_submit="resubmit").execute(task_context())
        assert len(simulator.jobs) == 1


def test_a_job_that_was_given_up_for_a_newer_run_does_not_overwrite_its_clip(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    monday = task_context(run_id="monday")
    with pytest.raises(TaskDeferred) as deferred:
        make_operator(frame, clip, prompt="monday", deferrable=True).execute(monday)
    with pytest.raises(LumaRayConfigurationError, match="give-up") as refused:
        make_operator(frame, clip, prompt="tuesday").execute(task_context(run_id="tuesday"))
    command = str(refused.value).partition("airflow_provider_luma ")[2].split("\n")[0]
    assert main([*shlex.split(command), "--yes"]) == 0
    tuesday = make_operator(frame, clip, prompt="tuesday").execute(task_context(run_id="tuesday", clears=1))
    event = {"request_id": simulator.jobs[0].request_id, "reason": "ready"}
    with pytest.raises(LumaRayError):
        make_operator(frame, clip, prompt="monday", deferrable=True).execute_complete(
            monday, event=event, **deferred.value.kwargs or {}
        )
    assert recorded(clip)["request_id"] == tuesday["request_id"]


def test_give_up_twice_gives_up_one_job(simulator: Simulator, frame: Path, clip: Path) -> None:
    first = make_operator(frame, clip, prompt="one").execute(task_context())
    make_operator(frame, clip, prompt="two").execute(task_context(clears=1))
    assert main(["give-up", str(clip)]) == 0
    assert main(["give-up", str(clip)]) == 0  # "is left aside already; nothing was changed"
    states = {take["request_id"]: take["state"] for take in recorded(clip)["superseded"]}
    assert states[first["request_id"]] == "delivered"


@pytest.mark.parametrize("stored", [True, False])
def test_a_retry_whose_if_exists_became_keep_finishes_its_job(
    simulator: Simulator, frame: Path, clip: Path, stored: bool
) -> None:
    kept = MemoryStore() if stored else None
    first = late(simulator, make_operator(frame, clip, **LATE), task_context(map_index=3, store=kept))
    outputs = make_operator(frame, clip, if_exists="keep").execute(task_context(map_index=3, store=kept))
    assert (outputs["request_id"], simulator.charges) == (first, 1)


def test_an_upload_whose_answer_was_lost_leaves_the_record_delivered(
    simulator: Simulator, frame: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store has the video; the client retries the write and is told that it exists."""
    file: Any = type(open_file("s3://store@media/clips/v.mp4"))
    upload = file._upload

    def twice(self: Any, content: Any, condition: dict[str, str]) -> str:
        answer = upload(self, content, condition)
        return upload(self, content, condition) if isinstance(content, Path) else answer

    with monkeypatch.context() as patched:
        patched.setattr(file, "_upload", twice)
        make_operator(frame, "s3://store@media/clips/v.mp4").execute(task_context())
    assert bucket.record("clips/v.mp4")["state"] == "delivered"
    make_operator(frame, "s3://store@media/clips/v.mp4", prompt="next").execute(task_context(run_id="run_2"))


def test_the_advice_after_an_edited_path_settles_the_call_without_a_database(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    kept = MemoryStore()
    simulator.fault("submit", "reset", accepted=False)
    with pytest.raises(LumaRaySubmitUnknown):
        make_operator(frame, clip).execute(task_context(store=kept))
    moved = clip.with_name("moved.mp4")
    with pytest.raises(LumaRaySubmitUnknown) as caught:
        make_operator(frame, moved).execute(task_context(store=kept, clears=1))
    assert main(advised(caught.value, "not-bought")) == 0
    make_operator(frame, moved).execute(task_context(store=kept, clears=2))
    assert simulator.charges == 1


def test_a_path_that_a_job_was_moved_away_from_is_free(
    simulator: Simulator, frame: Path, clip: Path, database: Database
) -> None:
    kept = MemoryStore()
    database.stores["run_1", -1] = kept
    first = late(simulator, make_operator(frame, clip, **LATE), task_context(store=kept))
    moved = clip.with_name("moved.mp4")
    assert make_operator(frame, moved).execute(task_context(store=kept))["request_id"] == first
    try:
        make_operator(frame, clip).execute(task_context(run_id="run_2", store=MemoryStore()))
    except LumaRayConfigurationError as error:
        command = shlex.split(str(error).partition("airflow_provider_luma ")[2].split("\n")[0])
        assert main([*command, "--yes"]) == 0
        again = make_operator(frame, moved).execute(task_context(store=kept, clears=1))
        assert again["request_id"] == first, "what was delivered is bought again"
        raise AssertionError(str(error)) from None


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_prompt_with_a_lone_surrogate(
    simulator: Simulator, frame: Path, clip: Path, deferrable: bool
) -> None:
    make_operator(frame, clip, prompt="a cat \ud83d walks").execute(task_context())
    assert simulator.charges == 1


def test_a_batch_whose_own_in_flight_job_is_another_path_says_what_is_wrong(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    kept = MemoryStore()
    keep = {"if_exists": "keep"}
    late(
        simulator,
        make_operator(frame, tmp_path / "x.mp4", **keep, **LATE),
        task_context(map_index=0, store=kept),
    )
    with pytest.raises(LumaRayConfigurationError):
        make_operator(tmp_path / "gone.jpg", tmp_path / "y.mp4", **keep).execute(
            task_context(map_index=0, store=kept)
        )


def test_a_batchs_job_is_found_in_the_store_by_its_map_index(
    simulator: Simulator, frame: Path, clip: Path, database: Database
) -> None:
    """The file is on another machine, so the command must name the task instance, including its map index."""
    kept = database.stores["run_1", 2] = MemoryStore()
    simulator.fault("submit", "reset", accepted=False)
    with pytest.raises(LumaRaySubmitUnknown):
        make_operator(frame, clip, if_exists="keep").execute(task_context(map_index=2, store=kept))
    clip.with_name("clip.mp4.job.json").unlink()
    named = ["--dag-id", "clips", "--run-id", "run_1", "--task-id", "generate", "--map-index", "2"]
    assert main(["not-bought", str(clip), *named]) == 0


def test_not_bought_notices_a_batchs_attempt_that_runs(
    simulator: Simulator, frame: Path, clip: Path, database: Database
) -> None:
    kept = database.stores["run_1", 2] = MemoryStore()
    simulator.fault("submit", "reset", accepted=False)
    with pytest.raises(LumaRaySubmitUnknown):
        make_operator(frame, clip, if_exists="keep").execute(task_context(map_index=2, store=kept))
    database.running.add(2)
    assert main(["not-bought", str(clip)]) == 1


def test_signed_urls_of_one_frame_are_all_different(bucket: Bucket) -> None:
    file = open_file("s3://store@media/frames/f.jpg")
    signed = [file.sign() for _ in range(400)]
    assert len(set(signed)) == len(signed)


def test_a_cleared_batch_returns_what_was_bought_a_second_time(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    """A lost call was resubmitted and delivered; each clear of the run bought again."""
    keep = {"if_exists": "keep", "on_unknown_submit": "resubmit"}
    simulator.fault("submit", "reset", accepted=False)
    first = make_operator(frame, clip, **keep).execute(task_context(map_index=0))
    assert simulator.charges == 1
    again = make_operator(frame, clip, **keep).execute(task_context(map_index=0, clears=1))
    assert (again["request_id"], simulator.charges) == (first["request_id"], 1)


def test_a_cleared_batch_whose_lost_call_was_resubmitted_needs_nobody(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    keep = {"if_exists": "keep"}
    simulator.fault("submit", "reset", accepted=False)
    first = make_operator(frame, clip, on_unknown_submit="resubmit", **keep).execute(
        task_context(map_index=0)
    )
    again = make_operator(frame, clip, **keep).execute(task_context(map_index=0, clears=1))
    assert again["request_id"] == first["request_id"]


def test_the_cap_of_a_batch_holds_though_its_mapping_shifts(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()

    def put(name: str) -> None:
        shutil.copy(frame, frames / name)
        with (frames / name).open("ab") as file:
            file.write(name.encode())

    run = Run()
    put("x.jpg")
    run.generate(plan(frames, max_credits=3.2))
    put("a.jpg")  # index 0 from now on
    simulator.fail_next()
    run.generate(plan(frames, max_credits=3.2))  # a FAILED, x returned
    put("b.jpg")
    run.generate(plan(frames, max_credits=3.2))
    assert simulator.spent <= 3.2


@pytest.mark.parametrize("kind", ["a path object", "an XCom that went wrong"])
def test_a_mapped_task_is_labelled_whatever_its_frame_is(
    simulator: Simulator, frame: Path, clip: Path, kind: str
) -> None:
    def operator(start_frame: Any) -> Any:
        return LumaRayImageToVideoOperator(
            task_id="generate",
            prompt="p",
            start_frame=start_frame,
            output_path=str(clip),
            poll_interval=0.05,
            resolution="540p",
            deferrable=kind == "a path object",
            timeout=5 if kind == "a path object" else 0.1,
        )

    context = task_context(map_index=0)
    if kind == "a path object":
        with pytest.raises(TaskDeferred) as deferred:
            operator(frame).execute(context)
        event = {"request_id": simulator.jobs[0].request_id, "reason": "ready"}
        simulator.advance(1)
        outputs = operator(frame).execute_complete(context, event=event, **deferred.value.kwargs or {})
    else:
        late(simulator, operator(str(frame)), context)
        outputs = operator(["one", "two"]).execute(task_context(map_index=0))
    assert outputs["request_id"] == simulator.jobs[0].request_id


def test_a_mapped_deferred_decorated_task_is_labelled(simulator: Simulator, frame: Path, clip: Path) -> None:
    def inputs() -> dict[str, Any]:
        return {"prompt": "p", "start_frame": str(frame), "output_path": str(clip)}

    def operator() -> Any:
        return _LumaRayDecoratedOperator(
            task_id="generate",
            python_callable=inputs,
            op_args=[],
            op_kwargs={},
            deferrable=True,
            resolution="540p",
            poll_interval=0.05,
        )

    context = task_context(map_index=0)
    with pytest.raises(TaskDeferred) as deferred:
        operator().execute(context)
    event = {"request_id": simulator.jobs[0].request_id, "reason": "ready"}
    simulator.advance(1)
    operator().execute_complete(context, event=event, **deferred.value.kwargs or {})


def test_a_sibling_on_a_worker_with_a_wrong_clock_keeps_its_lost_job(
    simulator: Simulator, frame: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain URLs, one folder: the sibling's lost call is on record half an hour before it was made."""
    url = LumaRayHook().upload_image(frame)

    class Behind(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) - timedelta(minutes=30)

    with monkeypatch.context() as patched:
        patched.setattr(clock, "datetime", Behind)
        patched.setattr(submission, "datetime", Behind)
        killed_while_it_pays(monkeypatch, make_operator(url, f"{tmp_path}/v/"), map_index=0)
    theirs = simulator.jobs[0].request_id
    simulator.delay_history("next", 600)
    simulator.fault("submit", "reset", accepted=True)
    try:
        outputs = make_operator(url, f"{tmp_path}/v/").execute(task_context(map_index=1))
    except LumaRaySubmitUnknown:
        return
    assert outputs["request_id"] != theirs, "index 0's job is index 1's, and index 1's own is nobody's"


def test_a_gateways_404_in_place_of_the_history_does_not_expire_a_clip(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    first = late(simulator, make_operator(frame, clip, **LATE), task_context())
    simulator.advance(2 * 3600)
    gateway: dict[str, Any] = {"status": 404, "message": "no Route matched with those values", "times": 99}
    simulator.fault("history_one", "gateway", **gateway)
    simulator.fault("history", "gateway", **gateway)
    with pytest.raises(LumaRayUnavailable):
        make_operator(frame, clip).execute(task_context())
    simulator.clear_faults()
    simulator.fault("history_one", "gateway", **gateway)
    assert make_operator(frame, clip).execute(task_context())["request_id"] == first, (
        "by the list of requests"
    )


def test_a_path_that_is_no_unicode_is_refused_in_words(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    with pytest.raises(LumaRayError):
        make_operator(frame, f"{tmp_path}/caf\udce9.mp4").execute(task_context())
    assert simulator.jobs == []


@pytest.mark.parametrize("offset", [-600, 1800], ids=["worker ahead", "worker behind"])
def test_not_bought_asks_where_the_history_shows_the_same_inputs(
    monkeypatch: pytest.MonkeyPatch, frame: Path, clip: Path, offset: float
) -> None:
    with Simulator(latency=0.02, clip_seconds=0.2, api_key=API_KEY, clock_offset=offset) as simulator:
        set_connection(monkeypatch, simulator.url, timeout=5)
        url = LumaRayHook().upload_image(frame)
        killed_while_it_pays(monkeypatch, make_operator(url, clip))
        with pytest.raises(LumaRaySubmitUnknown) as caught:
            make_operator(url, clip, on_unknown_submit="resubmit").execute(task_context())
        assert simulator.jobs[0].request_id in str(caught.value)
        assert main(advised(caught.value, "not-bought")) == 1, (
            "the only such job is named, and taken to be none"
        )
        assert main([*advised(caught.value, "not-bought"), "--yes"]) == 0
        assert len(simulator.jobs) == 1


def test_a_stopped_process_does_not_hold_up_its_retry_for_ever(
    simulator: Simulator, frame: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was stopped (SIGSTOP, a suspended machine's NFS lock) while it wrote a record in the folder."""
    monkeypatch.setattr(local, "LOCK_SECONDS", 0.2)
    clip.parent.mkdir(parents=True)
    held = os.open(clip.parent / local.LOCK_NAME, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(LumaRayError, match="another process has held the lock"):
            make_operator(frame, clip).execute(task_context())
    finally:
        os.close(held)
    make_operator(frame, clip).execute(task_context())
    assert simulator.charges == 1


def test_a_gateways_id_on_v1_does_not_free_a_siblings_job(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    """The sibling's id on record is a gateway's, so its real row seems to belong to nobody."""
    url = LumaRayHook().upload_image(frame)
    v1 = {"api_version": "v1"}
    simulator.fault("v1", "slow", seconds=0.0, request_id="gw-0001")
    make_operator(url, tmp_path / "v" / "b.mp4", **v1).execute(task_context(map_index=1))
    theirs = simulator.jobs[0].request_id
    simulator.delay_history("next", 600)
    simulator.fault("v1", "reset", accepted=True, request_id="")
    try:
        outputs = make_operator(url, tmp_path / "v" / "a.mp4", **v1).execute(task_context(map_index=0))
    except LumaRaySubmitUnknown:
        return
    assert outputs["request_id"] != theirs


def test_a_store_of_s3s_kind_that_ignores_conditions_lets_one_contender_pay(
    simulator: Simulator, frame: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some stores ignore If-None-Match and answer 200 to the PUT, without any error."""
    file: Any = type(open_file("s3://store@media/clips/v.mp4"))
    upload, together = file._upload, threading.Barrier(2, timeout=10)
    seen: list[int] = []

    def ignores(self: Any, content: Any, condition: dict[str, str]) -> str:
        if "IfNoneMatch" in condition and isinstance(content, bytes) and len(seen) < 2:
            seen.append(1)
            together.wait()
        return upload(self, content, {})

    monkeypatch.setattr(file, "_upload", ignores)

    def run(index: int) -> Any:
        try:
            return make_operator(frame, "s3://store@media/clips/v.mp4").execute(task_context(map_index=index))
        except LumaRayError as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, (0, 1)))
    assert len(simulator.jobs) == 1


def test_what_was_said_to_be_not_bought_by_mistake_is_adopted(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    """As give-up can be taken back."""
    simulator.fault("submit", "reset", accepted=True)
    simulator.fault("history", "status", status=401)
    with pytest.raises(LumaRaySubmitUnknown):
        make_operator(frame, clip).execute(task_context())
    simulator.fault(
        "history", "status", status=401
    )  # as it was for the task: the command does not ask either
    assert main(["not-bought", str(clip)]) == 0
    assert main(["adopt", str(clip), simulator.jobs[0].request_id]) == 0
    make_operator(frame, clip).execute(task_context(clears=1))
    assert len(simulator.jobs) == 1


def test_advice_for_a_bucket_whose_connection_is_an_argument(
    simulator: Simulator, frame: Path, bucket: Bucket
) -> None:
    where = {"storage_conn_id": "store"}
    simulator.fault("submit", "reset", accepted=False)
    with pytest.raises(LumaRaySubmitUnknown) as caught:
        make_operator(frame, "s3://media/clips/v.mp4", **where).execute(task_context())
    assert main(advised(caught.value, "not-bought")) == 0
    make_operator(frame, "s3://media/clips/v.mp4", **where).execute(task_context(clears=1))
    assert simulator.charges == 1


def test_adopt_knows_the_jobs_of_the_tasks_other_runs(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    """output_path is a folder, and each run's records are in their own subfolder."""
    url = LumaRayHook().upload_image(frame)
    first = make_operator(url, f"{tmp_path}/v/").execute(task_context(run_id="run_1"))
    simulator.delay_history("next", 600)
    simulator.fault("submit", "reset", accepted=True)
    with pytest.raises(LumaRaySubmitUnknown) as caught:
        make_operator(url, f"{tmp_path}/v/").execute(task_context(run_id="run_2"))
    command = [first["request_id"] if word == "<request" else word for word in advised(caught.value, "adopt")]
    assert main([word for word in command if word != "id>"]) == 1, "it is on record as run_1's"


def test_give_up_of_a_job_whose_successor_was_refused_is_about_the_current_one(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    """The last call bought nothing; the existing clip is the previous take, which nobody asked to give up."""
    first = make_operator(frame, clip, prompt="one").execute(task_context())
    simulator.set_credits("0")
    with pytest.raises(LumaRayError, match="402"):
        make_operator(frame, clip, prompt="two").execute(task_context(clears=1))
    main(["give-up", str(clip)])
    record = recorded(clip)
    states = {take.get("request_id"): take["state"] for take in (record, *record["superseded"])}
    assert states[first["request_id"]] == "delivered"


def test_a_moved_folder_keeps_its_clips_under_keep(simulator: Simulator, frame: Path, tmp_path: Path) -> None:
    """Between two attempts the disk was mounted at another path, with all its files."""
    keep = {"if_exists": "keep"}
    old, new = tmp_path / "old", tmp_path / "new"
    first = late(simulator, make_operator(frame, old / "a.mp4", **keep, **LATE), task_context(map_index=0))
    old.rename(new)
    outputs = make_operator(frame, new / "a.mp4", **keep).execute(task_context(map_index=0))
    assert (outputs["request_id"], len(simulator.jobs)) == (first, 1)


def test_an_id_that_could_not_be_put_beside_the_video_is_not_said_to_be_there(
    simulator: Simulator, frame: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full and a retry has replaced the attempt, both while it pays."""
    kept = ReplacedStore()
    submit = LumaRayHook.submit

    def submitted(self: LumaRayHook, request: Any) -> str:
        request_id = submit(self, request)
        kept.is_replaced = True

        def full(self: LocalFile, *arguments: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(LocalFile, "replace", full)
        return request_id

    monkeypatch.setattr(LumaRayHook, "submit", submitted)
    with pytest.raises(LumaRayError) as caught:
        make_operator(frame, clip).execute(task_context(store=kept))
    assert f"The job is on record at {clip}" not in str(caught.value)


def test_a_clear_that_leaves_the_run_alone_is_a_clear(simulator: Simulator, frame: Path, clip: Path) -> None:
    """Airflow's API: clearTaskInstances with reset_dag_runs=false changes max_tries, and not clear_number."""
    first = make_operator(frame, clip).execute(task_context())
    cleared = task_context()
    cleared["ti"].max_tries = 1
    outputs = make_operator(frame, clip, generation_tag="2").execute(cleared)
    assert outputs["request_id"] != first["request_id"]


@pytest.mark.parametrize(
    "name", ["a#1.mp4", "a?1.mp4", "a%201.mp4", "a 1.mp4", "a;1.mp4", "ä.mp4", "a*.mp4", "[a].mp4"]
)
def test_odd_keys_in_a_bucket(simulator: Simulator, frame: Path, bucket: Bucket, name: str) -> None:
    uri = f"s3://store@media/clips/{name}"
    simulator.fault("submit", "reset", accepted=False)
    with pytest.raises(LumaRaySubmitUnknown) as caught:
        make_operator(frame, uri).execute(task_context())
    assert main(advised(caught.value, "not-bought")) == 0
    make_operator(frame, uri).execute(task_context(clears=1))
    assert {f"clips/{name}", f"clips/{name}.job.json"} <= bucket.names()


@pytest.mark.parametrize("name", ["a#1.jpg", "a?1.jpg", "a%201.jpg", "a 1.jpg"])
def test_odd_frames_in_a_bucket(
    simulator: Simulator, frame: Path, clip: Path, bucket: Bucket, name: str
) -> None:
    bucket.put(f"frames/{name}", frame.read_bytes())
    make_operator(f"s3://store@media/frames/{name}", clip).execute(task_context())


def test_a_retry_on_a_worker_that_has_not_the_file_goes_on_with_the_store(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    """Each worker has its own disk: two takes on two machines, then back on the first."""
    kept = MemoryStore()
    first = late(simulator, make_operator(frame, clip, **LATE), task_context(store=kept))
    here = clip.with_name("clip.mp4.job.json")
    old = here.read_bytes()
    here.unlink()
    outputs = make_operator(frame, clip).execute(task_context(store=kept))
    assert outputs["request_id"] == first
    here.write_bytes(old)
    clip.unlink()
    outputs = make_operator(frame, clip).execute(task_context(store=kept, clears=1))
    assert (outputs["request_id"], simulator.charges) == (first, 1)


def test_a_second_run_of_a_worker_whose_disk_has_an_old_record(
    simulator: Simulator, frame: Path, clip: Path, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    """run_1 was bought on machine A and delivered on B by the store's copy; run_2 starts on A, on the same path."""
    kept = database.stores["run_1", -1] = MemoryStore()
    first = late(simulator, make_operator(frame, clip, **LATE), task_context(store=kept))
    here = clip.with_name("clip.mp4.job.json")
    old = here.read_bytes()
    here.unlink()
    make_operator(frame, clip).execute(task_context(store=kept))
    clip.unlink()
    here.write_bytes(old)
    with pytest.raises(LumaRayConfigurationError, match="is in use") as caught:
        make_operator(frame, clip).execute(task_context(run_id="run_2", store=MemoryStore()))
    command = shlex.split(str(caught.value).partition("airflow_provider_luma ")[2])
    assert main(command) == 0
    assert "nothing was given up" in capsys.readouterr().out
    make_operator(frame, clip).execute(task_context(run_id="run_2", store=MemoryStore()))
    again = make_operator(frame, clip.with_name("elsewhere.mp4")).execute(task_context(store=kept, clears=1))
    assert (again["request_id"], simulator.charges) == (first, 2)


def test_a_clip_that_a_command_fetched_while_its_task_waits_is_the_tasks(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    context = task_context()
    with pytest.raises(TaskDeferred) as deferred:
        make_operator(frame, clip, deferrable=True).execute(context)
    simulator.advance(1)
    job = simulator.jobs[0].request_id
    assert main(["fetch", job, str(clip)]) == 0
    event = {"request_id": job, "reason": "ready"}
    outputs = make_operator(frame, clip, deferrable=True).execute_complete(
        context, event=event, **deferred.value.kwargs or {}
    )
    assert (outputs["request_id"], simulator.charges) == (job, 1)


def test_a_job_that_was_given_up_while_deferred_and_its_task_cleared(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    """The event of the first wait comes after the second take was delivered."""
    with pytest.raises(TaskDeferred) as deferred:
        make_operator(frame, clip, deferrable=True).execute(task_context())
    assert main(["give-up", str(clip), "--yes"]) == 0
    second = make_operator(frame, clip).execute(task_context(clears=1))
    event = {"request_id": simulator.jobs[0].request_id, "reason": "ready"}
    with contextlib.suppress(LumaRayError):
        make_operator(frame, clip, deferrable=True).execute_complete(
            task_context(), event=event, **deferred.value.kwargs or {}
        )
    assert recorded(clip)["request_id"] == second["request_id"]


def test_an_old_wait_that_ends_after_a_clear_with_other_inputs_delivers_over_nothing(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    with pytest.raises(TaskDeferred) as deferred:
        make_operator(frame, clip, prompt="one", deferrable=True).execute(task_context())
    second = make_operator(frame, clip, prompt="two").execute(task_context(clears=1))
    event = {"request_id": simulator.jobs[0].request_id, "reason": "ready"}
    with contextlib.suppress(LumaRayError):
        make_operator(frame, clip, prompt="one", deferrable=True).execute_complete(
            task_context(), event=event, **deferred.value.kwargs or {}
        )
    assert recorded(clip)["request_id"] == second["request_id"]
    again = make_operator(frame, clip, prompt="two").execute(task_context(clears=1))
    assert (again["request_id"], simulator.charges) == (second["request_id"], 2)


@pytest.mark.parametrize(
    "later", [{}, {"prompt": "p", "start_frame": "f", "propmt": 1}, None], ids=["empty", "typo", "none"]
)
def test_a_retry_whose_callable_went_wrong_finishes_its_job(
    simulator: Simulator, frame: Path, clip: Path, later: Any
) -> None:
    """@task.luma_ray(output_path=...): the record stays where it was; the operator ignores such inputs."""

    def operator(returned: Any, **more: Any) -> Any:
        def inputs() -> Any:
            return returned

        return _LumaRayDecoratedOperator(
            task_id="generate",
            python_callable=inputs,
            op_args=[],
            op_kwargs={},
            output_path=str(clip),
            resolution="540p",
            poll_interval=0.05,
            **more,
        )

    first = late(simulator, operator({"prompt": "p", "start_frame": str(frame)}, **LATE), task_context())
    outputs = operator(later).execute(task_context())
    assert outputs["request_id"] == first


@pytest.mark.parametrize("path", ["", "None", "clips/clip.mp4", "/clips/clip"])
def test_a_retry_whose_path_renders_wrong_names_the_job_that_is_in_flight(
    simulator: Simulator, frame: Path, clip: Path, path: str
) -> None:
    kept = MemoryStore()
    first = late(simulator, make_operator(frame, clip, **LATE), task_context(store=kept))
    with pytest.raises(LumaRayConfigurationError) as caught:
        make_operator(frame, path).execute(task_context(store=kept))
    assert first in str(caught.value)


def test_what_was_spent_is_told_once(
    simulator: Simulator, frame: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The store's copy carries the take of an earlier path into the record of the new one."""
    kept = MemoryStore()
    make_operator(frame, clip).execute(task_context(store=kept))
    make_operator(frame, clip.with_name("b.mp4"), prompt="two").execute(task_context(store=kept, clears=1))
    capsys.readouterr()
    assert main(["spent", str(clip.parent), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "3.2" in json.dumps(told)
    assert "4.8" not in json.dumps(told)


def test_adopt_knows_the_jobs_of_a_batchs_siblings(simulator: Simulator, frame: Path, tmp_path: Path) -> None:
    keep = {"if_exists": "keep", "frame_transfer": "base64"}
    theirs = make_operator(frame, tmp_path / "v" / "b.mp4", **keep).execute(task_context(map_index=1))
    simulator.fault("submit", "reset", accepted=True)
    simulator.fault("history", "status", status=401)
    with pytest.raises(LumaRaySubmitUnknown) as caught:
        make_operator(frame, tmp_path / "v" / "a.mp4", **keep).execute(task_context(map_index=0))
    command = [word for word in advised(caught.value, "adopt") if not word.startswith("<") and word != "id>"]
    assert main([*command, theirs["request_id"]]) == 1, "it is on record as a sibling's"


def test_a_batch_that_lost_a_call_and_gave_it_up_buys_no_more_than_its_cap(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    """A clip in flight, whether or not the storage connection moves: the run's own clip is bought once."""
    frames = tmp_path / "frames"
    frames.mkdir()
    shutil.copy(frame, frames / "x.jpg")
    run = Run()
    simulator.fault("submit", "reset", accepted=True)
    simulator.fault("history", "status", status=401)
    run.generate(plan(frames, max_credits=1.6), on_unknown_submit="resubmit")
    run.generate(plan(frames, max_credits=1.6), on_unknown_submit="resubmit")
    assert simulator.spent <= 3.2, simulator.spent


def test_two_lives_of_one_frame_in_one_batch_share_nothing(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    """keep, two tasks of one DAG, one folder."""
    keep = {"if_exists": "keep", "frame_transfer": "base64"}
    theirs = make_operator(frame, tmp_path / "v" / "b.mp4", **keep).execute(task_context("other"))
    simulator.fault("submit", "reset", accepted=False)
    with pytest.raises(LumaRaySubmitUnknown):
        make_operator(frame, tmp_path / "v" / "a.mp4", **keep).execute(task_context(map_index=0))
    assert theirs


def test_a_stopped_writer_of_a_bucket_that_wakes_late_writes_nothing_over(
    simulator: Simulator, frame: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempt hangs in the upload of the video; its retry delivers, the next run too; then it wakes."""
    uri = "s3://store@media/clips/v.mp4"
    file: Any = type(open_file(uri))
    upload, go, hung = file._upload, threading.Event(), threading.Event()
    count: list[int] = []

    def hangs(self: Any, content: Any, condition: dict[str, str]) -> str:
        if isinstance(content, Path) and not count:
            count.append(1)
            hung.set()
            go.wait(20)
        return upload(self, content, condition)

    monkeypatch.setattr(file, "_upload", hangs)
    with ThreadPoolExecutor(1) as pool:
        one = pool.submit(make_operator(frame, uri, prompt="monday").execute, task_context(run_id="monday"))
        assert hung.wait(10)
        make_operator(frame, uri, prompt="monday").execute(task_context(run_id="monday"))
        tuesday = make_operator(frame, uri, prompt="tuesday").execute(task_context(run_id="tuesday"))
        go.set()
        with contextlib.suppress(LumaRayError):
            one.result()
    record = bucket.record("clips/v.mp4")
    assert (record["request_id"], record["state"]) == (tuesday["request_id"], "delivered")
    assert hashlib.sha256(bucket.get("clips/v.mp4")).hexdigest() == record["sha256"]
    assert simulator.charges == 2


@pytest.mark.parametrize("status", [400, 500])
def test_a_gateways_id_that_the_history_will_not_hear_of_keeps_nobody_from_the_job(
    simulator: Simulator, frame: Path, clip: Path, status: int
) -> None:
    """Each search also asks about the hint, and its refusal hid the rows."""
    simulator.fault("submit", "gateway", status=502, request_id="gw:0001", accepted=True)
    simulator.fault("history_one", "status", status=status, times=999)
    outputs = make_operator(frame, clip, on_unknown_submit="resubmit").execute(task_context())
    assert (outputs["request_id"], len(simulator.jobs)) == (simulator.jobs[0].request_id, 1)


def test_a_frame_that_the_upload_host_dates_otherwise_is_found(
    simulator: Simulator, frame: Path, clip: Path, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """upload_url is another machine, ten minutes ahead; the last Date before the intent is that machine's."""
    with Simulator(latency=0.02, clip_seconds=0.2, api_key=API_KEY, clock_offset=600) as uploads:
        set_connection(monkeypatch, simulator.url, timeout=5, upload_url=uploads.url)
        simulator.fault("submit", "reset", accepted=True)
        make_operator(frame, clip, on_unknown_submit="resubmit").execute(task_context())
        assert len(simulator.jobs) == 1


def test_an_attempt_that_waits_keeps_its_path_from_an_old_wait(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    """Cleared with other inputs while the first wait's worker is about to deliver."""
    with pytest.raises(TaskDeferred) as one:
        make_operator(frame, clip, prompt="one", deferrable=True).execute(task_context())
    with pytest.raises(TaskDeferred) as two:
        make_operator(frame, clip, prompt="two", deferrable=True).execute(task_context(clears=1))
    jobs = [job.request_id for job in simulator.jobs]
    simulator.advance(1)
    with contextlib.suppress(LumaRayError):
        make_operator(frame, clip, prompt="one", deferrable=True).execute_complete(
            task_context(), event={"request_id": jobs[0]}, **one.value.kwargs or {}
        )
    outputs = make_operator(frame, clip, prompt="two", deferrable=True).execute_complete(
        task_context(clears=1), event={"request_id": jobs[1]}, **two.value.kwargs or {}
    )
    record = recorded(clip)
    assert (outputs["request_id"], record["request_id"], record["state"]) == (jobs[1], jobs[1], "delivered")
    assert hashlib.sha256(clip.read_bytes()).hexdigest() == record["sha256"]


def test_a_delivered_clip_whose_last_write_failed_does_not_hold_its_path(
    simulator: Simulator, frame: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store's copy alone says "delivered": the task is green, and the next night's is refused."""
    kept = MemoryStore()
    replace = LocalFile.replace

    def fails(self: LocalFile, content: bytes, token: str) -> str | None:
        if b'"state": "delivered"' in content:
            raise OSError(errno.EIO, "Input/output error")
        return replace(self, content, token)

    with monkeypatch.context() as patched:
        patched.setattr(LocalFile, "replace", fails)
        make_operator(frame, clip).execute(task_context(store=kept))
    make_operator(frame, clip).execute(task_context(run_id="run_2", store=MemoryStore()))


def test_a_damaged_copy_beside_a_good_one_leads_somewhere(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    """A power cut left zeros in the file; the store's copy has the id. What is a person to do?"""
    kept = MemoryStore()
    late(simulator, make_operator(frame, clip, **LATE), task_context(store=kept))
    clip.with_name("clip.mp4.job.json").write_bytes(bytes(512))
    with pytest.raises(LumaRayError) as caught:
        make_operator(frame, clip).execute(task_context(store=kept))
    assert len(str(caught.value).splitlines()) > 2 or "Move" in str(caught.value), str(caught.value)


@pytest.mark.parametrize("unknown", ["fail", "resubmit"])
def test_a_call_that_still_waits_is_not_said_to_have_ended(
    monkeypatch: pytest.MonkeyPatch, frame: Path, clip: Path, unknown: str
) -> None:
    """v1 blocks for up to ten minutes, a history search for two: the heartbeat is lost and a retry searches."""
    with Simulator(latency=0.05, clip_seconds=0.2, api_key=API_KEY, history_lag=99999) as simulator:
        set_connection(monkeypatch, simulator.url, timeout=20)
        simulator.fault("v1", "slow", seconds=4.0)
        v1 = {"api_version": "v1"}
        paying, generate = threading.Event(), LumaRayHook.generate

        def generated(self: LumaRayHook, *arguments: Any) -> Any:
            paying.set()
            return generate(self, *arguments)

        monkeypatch.setattr(LumaRayHook, "generate", generated)
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(make_operator(frame, clip, **v1).execute, task_context())
            assert paying.wait(10)
            error = ""
            try:
                make_operator(frame, clip, on_unknown_submit=unknown, **v1).execute(task_context())
            except LumaRayError as caught:
                error = str(caught)
            if "not-bought" in error and main(advised(error, "not-bought")) == 0:
                with contextlib.suppress(LumaRayError):
                    make_operator(frame, clip, **v1).execute(task_context(clears=1))
            with contextlib.suppress(LumaRayError):
                first.result()
        assert len(simulator.jobs) == 1, error


def test_a_clear_in_a_run_that_still_runs_is_a_clear(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    """Airflow may leave clear_number as it is: siblings still run, and one index is cleared."""
    first = make_operator(frame, f"{tmp_path}/").execute(task_context(map_index=0))
    cleared = task_context(map_index=0)
    cleared["ti"].max_tries = 3
    outputs = make_operator(frame, f"{tmp_path}/", prompt="another").execute(cleared)
    assert outputs["request_id"] != first["request_id"]


def test_a_lost_call_of_an_earlier_path_is_settled_at_the_path_that_the_text_names(
    simulator: Simulator, frame: Path, bucket: Bucket
) -> None:
    """The same as 10, in a bucket."""
    kept = MemoryStore()
    simulator.fault("submit", "reset", accepted=True)
    simulator.fault("history", "status", status=401)
    with pytest.raises(LumaRaySubmitUnknown):
        make_operator(frame, "s3://store@media/clips/v.mp4").execute(task_context(store=kept))
    simulator.fault("history", "status", status=401)
    moved = "s3://store@media/clips/moved.mp4"
    with pytest.raises(LumaRaySubmitUnknown) as caught:
        make_operator(frame, moved).execute(task_context(store=kept, clears=1))
    command = [word for word in advised(caught.value, "adopt") if not word.startswith("<") and word != "id>"]
    assert main([*command, simulator.jobs[0].request_id]) == 0
    simulator.fault("history", "status", status=401)
    outputs = make_operator(frame, moved).execute(task_context(store=kept, clears=2))
    assert (outputs["request_id"], simulator.charges) == (simulator.jobs[0].request_id, 1)


def test_a_give_up_that_its_own_waiting_task_does_not_heed_is_told(
    simulator: Simulator, frame: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocking: the person gives up what an attempt waits for, and the next run buys; then the first one delivers."""
    go, polling = threading.Event(), threading.Event()
    status = LumaRayHook.get_status

    def held(self: LumaRayHook, request_id: str, *rest: Any) -> Any:
        if request_id == simulator.jobs[0].request_id:
            polling.set()
            go.wait(20)
        return status(self, request_id, *rest)

    monkeypatch.setattr(LumaRayHook, "get_status", held)
    with ThreadPoolExecutor(1) as pool:
        monday = pool.submit(make_operator(frame, clip, prompt="m").execute, task_context(run_id="monday"))
        assert polling.wait(10)
        assert main(["give-up", str(clip), "--yes"]) == 0
        tuesday = make_operator(frame, clip, prompt="t").execute(task_context(run_id="tuesday"))
        go.set()
        with contextlib.suppress(LumaRayError):
            monday.result()
    record = recorded(clip)
    assert (record["request_id"], record["state"]) == (tuesday["request_id"], "delivered")
    assert hashlib.sha256(clip.read_bytes()).hexdigest() == record["sha256"]


@pytest.mark.parametrize(("hours", "uploaded"), [(-1, True), (-1, False), (1, False)])
def test_resubmit_buys_nothing_beside_a_job_of_its_inputs_though_date_is_a_gateways(
    simulator: Simulator, frame: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, hours: int, uploaded: bool
) -> None:
    """The Date of the replies is an hour off the times in the history."""

    def learn(self: Any, headers: Any, sent_at: datetime) -> None:
        self._offset = timedelta(hours=hours)

    monkeypatch.setattr(clock.VendorClock, "learn", learn)
    transfer: dict[str, Any] = {} if uploaded else {"frame_transfer": "base64", "min_remaining_credits": 1}
    simulator.fault("submit", "reset", accepted=True)
    with suppress(LumaRaySubmitUnknown):
        make_operator(frame, clip, on_unknown_submit="resubmit", **transfer).execute(task_context())
    assert len(simulator.jobs) == 1


def test_a_retry_after_a_clear_with_fewer_retries_finishes_its_job(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    """retries=3 became 1, so the clear (reset_dag_runs=false) lowered max_tries from 3 to 2; prompts vary."""

    def context(max_tries: int, tries: int) -> Any:
        made = task_context()
        made["ti"].max_tries, made["ti"].try_number = max_tries, tries
        return made

    make_operator(frame, clip, prompt="one").execute(context(3, 1))
    assert main(["give-up", str(clip), "--yes"]) == 0
    clip.unlink()
    second = late(simulator, make_operator(frame, clip, prompt="two", **LATE), context(2, 2))
    outputs = make_operator(frame, clip, prompt="three").execute(context(2, 3))
    assert (outputs["request_id"], len(simulator.jobs)) == (second, 2)


def test_a_clear_with_fewer_retries_is_a_clear(simulator: Simulator, frame: Path, clip: Path) -> None:
    """The same clear of a delivered clip, for other inputs: the new clip is not made, nor is that said."""
    one, two = task_context(), task_context()
    one["ti"].max_tries, two["ti"].max_tries, two["ti"].try_number = 3, 2, 2
    first = make_operator(frame, clip, prompt="one").execute(one)
    outputs = make_operator(frame, clip, prompt="two").execute(two)
    assert outputs["request_id"] != first["request_id"]


def test_the_advice_for_an_ambiguous_v1_clip_can_be_followed(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    """v1 named no id, and the clip could not be stored; a stranger's job has the same inputs."""
    clip = tmp_path / "a" / "clip.mp4"
    url = LumaRayHook().upload_image(frame)
    make_operator(url, tmp_path / "b" / "clip.mp4", api_version="v2").execute(task_context("other"))
    simulator.fault("v1", "slow", seconds=0.0, request_id="")
    v1: dict[str, Any] = {"api_version": "v1"}
    with pytest.MonkeyPatch.context() as patched:

        def full(*arguments: Any) -> None:
            raise OSError(28, "No space left on device")

        patched.setattr(LocalFile, "put", full)
        with pytest.raises(LumaRayError):
            make_operator(url, clip, **v1).execute(task_context())
    simulator.advance(2 * 3600)
    with pytest.raises(LumaRaySubmitUnknown) as caught:
        make_operator(url, clip, **v1).execute(task_context())
    command = [word for word in advised(caught.value, "adopt") if not word.startswith("<") and word != "id>"]
    assert main([*command, simulator.jobs[-1].request_id]) == 0
    outputs = make_operator(url, clip, **v1).execute(task_context(clears=1))
    assert (outputs["request_id"], simulator.charges) == (simulator.jobs[-1].request_id, 2)


def test_the_cap_counts_a_job_in_flight_at_its_own_models_price(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    """The model is edited to a cheaper one while the first job, at 1.60, is in flight; then the run is cleared."""
    frames = tmp_path / "frames"
    frames.mkdir()
    for name in "abc":
        shutil.copy(frame, frames / f"{name}.jpg")
    run = Run()
    for one in ("status", "result"):
        simulator.fault(one, "status", status=500, times=999)
    (dear,) = plan(frames, max_credits=1.6)
    run.generate([dear], **LATE)
    simulator.clear_faults()
    cheap = min(CATALOGUE, key=lambda slug: CATALOGUE[slug].price or 99)
    planned = plan(frames, max_credits=2.0, model=cheap)
    price = CATALOGUE[cheap].price
    assert price is not None
    assert float(price) * (len(planned) - 1) + 1.6 <= 2.0, (cheap, len(planned))


def test_a_key_with_a_mistyped_frame_does_not_return_another_clip(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    """Outside a task: other inputs are refused, but wrong ones get the earlier clip."""
    hook_call(frame, clip, key="coffee")
    with pytest.raises(LumaRayConfigurationError):
        hook_call(frame.with_name("tea.jpg"), clip, key="coffee")


def test_a_wrong_prompt_does_not_return_another_clip(simulator: Simulator, frame: Path, clip: Path) -> None:
    """Outside a task: an empty prompt is wrong."""
    hook_call(frame, clip, key="coffee")
    with pytest.raises(LumaRayConfigurationError):
        hook_call(frame, clip, key="coffee", prompt=" ")


def test_every_earlier_path_is_free(simulator: Simulator, frame: Path, tmp_path: Path) -> None:
    """output_path goes from a to b to c; another task uses b."""
    store = MemoryStore()
    for call_ in ("status", "result"):
        simulator.fault(call_, "status", status=500, times=999)
    for name in "abc":
        with pytest.raises(LumaRayError):
            make_operator(frame, tmp_path / f"{name}.mp4", **LATE).execute(task_context(store=store))
    simulator.clear_faults()
    for name in "ab":
        make_operator(frame, tmp_path / f"{name}.mp4", prompt="x").execute(task_context("other_" + name))


def test_a_clip_at_an_earlier_path_is_copied_though_its_last_write_was_lost(
    simulator: Simulator, frame: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both copies say "completed"; by the time the path is edited the vendor has nothing any more."""
    kept = MemoryStore()
    advance = Ledger.advance

    def dies(self: Ledger, take: Any, **changes: Any) -> Any:
        if changes.get("state") is RecordState.DELIVERED:
            raise Killed
        return advance(self, take, **changes)

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "advance", dies)
        with pytest.raises(Killed):
            make_operator(frame, clip).execute(task_context(store=kept))
    assert recorded(clip)["state"] == "completed"
    simulator.advance(8 * 24 * 3600)
    moved = clip.with_name("moved.mp4")
    outputs = make_operator(frame, moved).execute(task_context(store=kept, clears=1))
    assert (outputs["request_id"], simulator.charges) == (simulator.jobs[0].request_id, 1)
    assert moved.read_bytes() == clip.read_bytes()


def test_a_lost_call_that_is_found_at_another_path_frees_its_earlier_one(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    kept = MemoryStore()
    simulator.fault("submit", "reset", accepted=True)
    simulator.fault("history", "status", status=401)
    with pytest.raises(LumaRaySubmitUnknown):
        make_operator(frame, clip).execute(task_context(store=kept))
    moved = make_operator(frame, clip.with_name("moved.mp4")).execute(task_context(store=kept, clears=1))
    assert moved["request_id"] == simulator.jobs[0].request_id
    make_operator(frame, clip).execute(task_context(run_id="run_2", store=MemoryStore()))
    assert simulator.charges == 2


@pytest.mark.parametrize("stored", [True, False])
def test_a_damaged_record_is_settled_as_its_error_says(
    simulator: Simulator, frame: Path, clip: Path, stored: bool
) -> None:
    kept = MemoryStore() if stored else None
    first = late(simulator, make_operator(frame, clip, **LATE), task_context(store=kept))
    record = clip.with_name("clip.mp4.job.json")
    record.write_bytes(bytes(512))
    with pytest.raises(LumaRayError) as caught:
        make_operator(frame, clip).execute(task_context(store=kept))
    told = f"the task state store has job {first}" if stored else "the next attempt buys another clip"
    assert told in caught.value.remedy
    record.rename(clip.with_name("damaged.json"))
    outputs = make_operator(frame, clip).execute(task_context(store=kept, clears=1))
    assert (outputs["request_id"] == first, simulator.charges) == (stored, 1 if stored else 2)
