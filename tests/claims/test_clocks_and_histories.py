"""Attack A."""

from __future__ import annotations

import contextlib
import errno
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_luma.cli.main import main
from airflow_provider_luma.exceptions import (
    LumaRayConfigurationError,
    LumaRayError,
    LumaRaySubmitUnknown,
    LumaRayTimeout,
)
from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.simulator import Simulator
from airflow_provider_luma.storage import LocalFile
from tests.claims.conftest import Database
from tests.claims.test_counterexamples import Killed, advised, killed_while_it_pays
from tests.claims.test_drift import LATE
from tests.claims.test_drift import bought_and_late as late
from tests.claims.test_followed_advice import (
    adopts,
    all_ids,
    lose,
    refused,
    while_the_vendor_works,
    wrong_clock,
)
from tests.jobs.test_call import call
from tests.support import API_KEY, MemoryStore, make_operator, recorded, set_connection, task_context
from tests.test_batch import Run, plan

pytestmark = pytest.mark.usefixtures("connection")


# 1: money


def test_resubmit_buys_nothing_while_the_history_has_jobs_of_its_inputs(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    """Two DAGs animate the same URL into two folders; the answer of one is lost. Both rows are there."""
    url = LumaRayHook().upload_image(frame)
    make_operator(url, tmp_path / "b" / "b.mp4").execute(task_context("other", dag_id="theirs"))
    simulator.fault("submit", "reset", accepted=True)
    with pytest.raises(LumaRaySubmitUnknown):
        make_operator(url, tmp_path / "a" / "a.mp4", on_unknown_submit="resubmit").execute(task_context())
    assert len(simulator.jobs) == 2


@pytest.mark.parametrize(("retrys", "payers"), [(30, 0), (0, -30)], ids=["retry ahead", "payer behind"])
@pytest.mark.parametrize("unknown", ["fail", "resubmit"])
def test_a_live_v2_call_is_not_said_to_have_ended_by_a_wrong_clock(
    monkeypatch: pytest.MonkeyPatch, frame: Path, clip: Path, unknown: str, retrys: float, payers: float
) -> None:
    with Simulator(latency=0.05, clip_seconds=0.2, api_key=API_KEY, history_lag=99999) as simulator:
        set_connection(monkeypatch, simulator.url, timeout=300)
        url = LumaRayHook().upload_image(frame)
        told: list[str] = []

        def retry() -> None:
            with pytest.MonkeyPatch.context() as patched:
                wrong_clock(patched, retrys)
                try:
                    make_operator(url, clip, on_unknown_submit=unknown).execute(task_context())
                    told.append("bought")
                except LumaRayError as error:
                    told.append(str(error))

        while_the_vendor_works(monkeypatch, "submit", retry)
        with pytest.MonkeyPatch.context() as patched:
            wrong_clock(patched, payers)
            make_operator(url, clip).execute(task_context())
        assert len(simulator.jobs) == 1, told
        assert "may still be waiting" in told[0]


def bare_rows(patched: pytest.MonkeyPatch) -> None:
    find_jobs = LumaRayHook.find_jobs

    def bare(self: LumaRayHook, *arguments: Any) -> Any:
        return [replace(row, body_sha256=None) for row in find_jobs(self, *arguments)]

    patched.setattr(LumaRayHook, "find_jobs", bare)


@pytest.mark.parametrize("minutes", [5, 30, -30])
@pytest.mark.parametrize("unknown", ["resubmit", "fail"])
def test_a_row_without_inputs_rules_out_not_bought_when_the_payers_clock_was_wrong(
    simulator: Simulator,
    frame: Path,
    clip: Path,
    monkeypatch: pytest.MonkeyPatch,
    minutes: float,
    unknown: str,
) -> None:
    """The retry comes 40 minutes later, with a right clock; the dead call was dated by its worker alone."""
    bare_rows(monkeypatch)
    url = LumaRayHook().upload_image(frame)
    with pytest.MonkeyPatch.context() as patched:
        wrong_clock(patched, minutes)
        killed_while_it_pays(monkeypatch, make_operator(url, clip))
    simulator.advance(40 * 60)
    with pytest.MonkeyPatch.context() as patched:
        wrong_clock(patched, 40)
        try:
            make_operator(url, clip, on_unknown_submit=unknown).execute(task_context())
        except LumaRaySubmitUnknown as error:
            caught = error
        assert len(simulator.jobs) == 1, "bought again"
        assert main(advised(caught, "not-bought")) == 1, str(caught)


# 3: advice


def test_two_tasks_whose_paths_are_swapped_get_their_clips_as_advised(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    stores = {"one": MemoryStore(), "two": MemoryStore()}
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    late(simulator, make_operator(frame, a, **LATE), task_context("one", store=stores["one"]))
    late(simulator, make_operator(frame, b, prompt="2", **LATE), task_context("two", store=stores["two"]))
    ended = []
    for clears in (1, 2, 3):
        for task, path, prompt in (("one", b, "a slow push in"), ("two", a, "2")):
            try:
                make_operator(frame, path, prompt=prompt).execute(
                    task_context(task, store=stores[task], clears=clears)
                )
                ended.append(task)
            except LumaRayError as error:
                print(clears, task, error)
    assert {"one", "two"} <= set(ended)


def test_after_give_up_a_clear_with_edited_retries_buys(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    """retries=2, first try fails; retries edited to 1; Airflow's clear sets max_tries = try_number + retries = 2."""

    def attempt(max_tries: int, try_number: int, clear_number: int) -> Any:
        context = task_context()
        ti = context["ti"]
        ti.max_tries, ti.try_number = max_tries, try_number
        context["dag_run"].clear_number = clear_number
        return context

    late(simulator, make_operator(frame, clip, **LATE), attempt(2, 1, 0))
    assert main(["give-up", str(clip), simulator.jobs[0].request_id, "--yes"]) == 0
    with pytest.raises(
        LumaRayConfigurationError, match="clear the task; if you have just done so, once more"
    ):
        make_operator(frame, clip).execute(attempt(2, 2, 1))
    make_operator(frame, clip).execute(attempt(3, 3, 2))
    assert len(simulator.jobs) == 2


def test_a_deferred_clip_at_a_path_that_another_has_left_is_delivered(
    monkeypatch: pytest.MonkeyPatch, frame: Path, tmp_path: Path
) -> None:
    with Simulator(latency=60, clip_seconds=0.2, api_key=API_KEY) as simulator:
        set_connection(monkeypatch, simulator.url, timeout=5)
        one, two = MemoryStore(), MemoryStore()
        a, b, c = (tmp_path / f"{n}.mp4" for n in "abc")
        with pytest.raises(LumaRayError):
            make_operator(frame, a, **LATE).execute(task_context("one", store=one))
        with pytest.raises(LumaRayError):
            make_operator(frame, b, prompt="2", **LATE).execute(task_context("two", store=two))
        # the paths are shifted: one moves to c, two to a
        with pytest.raises(LumaRayError):
            make_operator(frame, c, **LATE).execute(task_context("one", store=one))
        with pytest.raises(TaskDeferred) as deferred:
            make_operator(frame, a, prompt="2", deferrable=True).execute(task_context("two", store=two))
        simulator.advance(120)
        event = {"request_id": simulator.jobs[1].request_id, "reason": "ready"}
        make_operator(frame, a, prompt="2", deferrable=True).execute_complete(
            task_context("two", store=two), event=event, **deferred.value.kwargs or {}
        )


def test_not_bought_names_the_task_in_its_advice(
    simulator: Simulator, frame: Path, tmp_path: Path, capsys: Any, database: Database
) -> None:
    """T1's lost call went to another path by an edit; there another run's clip lies."""
    kept = database.stores["run_1", -1] = MemoryStore()
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    make_operator(frame, b, prompt="other").execute(task_context(run_id="run_0", store=MemoryStore()))
    lose(simulator, make_operator(frame, a), task_context(store=kept))
    simulator.fault("history", "status", status=401)
    with pytest.raises(LumaRaySubmitUnknown) as caught:
        make_operator(frame, b).execute(task_context(store=kept))
    print(caught.value)
    capsys.readouterr()
    assert main(advised(caught.value, "not-bought")) == 1
    said = capsys.readouterr()
    print(said)
    assert main(advised(said.out + said.err, "adopt")) == 0


@pytest.mark.parametrize("unknown", ["resubmit", "fail"])
def test_a_live_v2_call_is_not_ended_by_a_history_that_refuses_the_key(
    monkeypatch: pytest.MonkeyPatch, frame: Path, clip: Path, unknown: str
) -> None:
    """Default-like timeout; the key may not read the history, so the retry's search ends at once."""
    with Simulator(latency=0.05, clip_seconds=0.2, api_key=API_KEY) as simulator:
        set_connection(monkeypatch, simulator.url, timeout=60)
        told: list[str] = []

        def retry() -> None:
            simulator.fault("history", "status", status=401, times=99)
            try:
                make_operator(frame, clip, on_unknown_submit=unknown).execute(task_context())
                told.append("bought")
            except LumaRayError as error:
                told.append(str(error))

        while_the_vendor_works(monkeypatch, "submit", retry)
        try:
            make_operator(frame, clip).execute(task_context())
        except LumaRayError as error:
            print(error)
        assert len(simulator.jobs) == 1, told
        assert "An attempt ended" not in told[0], told[0]


def test_not_bought_needs_yes_while_the_history_has_jobs_of_the_calls_inputs(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    url = LumaRayHook().upload_image(frame)
    make_operator(url, tmp_path / "b" / "b.mp4").execute(task_context("other", dag_id="theirs"))
    simulator.fault("submit", "reset", accepted=True)
    with pytest.raises(LumaRaySubmitUnknown) as caught:
        make_operator(url, tmp_path / "a" / "a.mp4").execute(task_context())
    print(caught.value)
    assert main(advised(caught.value, "not-bought")) == 1


@pytest.mark.parametrize("settle", ["not-bought", "give-up"])
def test_a_lost_call_that_was_settled_at_the_edited_path_frees_the_earlier_one(
    simulator: Simulator, frame: Path, tmp_path: Path, database: Database, settle: str, capsys: Any
) -> None:
    kept = database.stores["run_1", -1] = MemoryStore()
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    lose(simulator, make_operator(frame, a), task_context(store=kept), accepted=False)
    with pytest.raises(LumaRaySubmitUnknown) as unknown:
        make_operator(frame, b).execute(task_context(store=kept, clears=1))
    if settle == "not-bought":
        assert main(advised(unknown.value, "not-bought")) == 0
    else:
        assert main(["give-up", str(b), "--yes"]) == 0
    make_operator(frame, a).execute(task_context(run_id="run_2", store=MemoryStore()))


@pytest.mark.parametrize("offset", [0, 7200])
def test_a_neighbours_job_is_not_adopted_though_the_vendors_clock_is_hours_ahead(
    monkeypatch: pytest.MonkeyPatch, frame: Path, tmp_path: Path, offset: float
) -> None:
    """Same folder, same URL; T1's own job is late in the history."""
    with Simulator(latency=0.05, clip_seconds=0.2, api_key=API_KEY, clock_offset=offset) as simulator:
        set_connection(monkeypatch, simulator.url, timeout=5)
        url = LumaRayHook().upload_image(frame)
        make_operator(url, tmp_path / "b.mp4").execute(task_context("other"))
        simulator.delay_history("next", 600)
        simulator.fault("submit", "reset", accepted=True)
        try:
            outputs = make_operator(url, tmp_path / "a.mp4").execute(task_context())
        except LumaRaySubmitUnknown:
            return
        ids = [job.request_id for job in simulator.jobs]
        assert outputs["request_id"] == ids[1], "it delivered the neighbour's clip"
        assert set(ids) <= all_ids(tmp_path / "a.mp4", tmp_path / "b.mp4"), "a paid job is on no record"


def test_several_jobs_of_a_unique_body_are_not_a_reason_to_buy_another(
    simulator: Simulator, frame: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway sent the POST twice: two jobs of one upload."""
    submit = LumaRayHook.submit

    def twice(self: LumaRayHook, request: Any) -> str:
        monkeypatch.setattr(LumaRayHook, "submit", submit)
        submit(self, request)
        simulator.fault("submit", "reset", accepted=True)
        return submit(self, request)

    monkeypatch.setattr(LumaRayHook, "submit", twice)
    with pytest.raises(LumaRaySubmitUnknown):
        make_operator(frame, clip, on_unknown_submit="resubmit").execute(task_context())
    assert len(simulator.jobs) == 2


def test_resubmit_does_not_buy_beside_two_lost_calls_of_one_folder(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    """Two mapped tasks, one URL, both answers lost, one row late: the row may be either's."""
    url = LumaRayHook().upload_image(frame)
    lose(simulator, make_operator(url, tmp_path / "a.mp4"), task_context(map_index=0))
    simulator.delay_history("next", 600)
    simulator.fault("submit", "reset", accepted=True)
    with pytest.raises(LumaRaySubmitUnknown):
        make_operator(url, tmp_path / "b.mp4", on_unknown_submit="resubmit").execute(
            task_context(map_index=1)
        )
    assert len(simulator.jobs) == 2


@pytest.mark.parametrize("when", ["before", "after"])
def test_give_up_of_a_moved_job_at_its_earlier_path(
    simulator: Simulator, frame: Path, tmp_path: Path, database: Database, when: str, capsys: Any
) -> None:
    """J1 moved from a to b; a person gives it up at a (the path in the first error)."""
    kept = database.stores["run_1", -1] = MemoryStore()
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    late(simulator, make_operator(frame, a, **LATE), task_context(store=kept))
    late(simulator, make_operator(frame, b, **LATE), task_context(store=kept))
    if when == "after":
        make_operator(frame, b).execute(task_context(store=kept))
    code = main(["give-up", str(a), simulator.jobs[0].request_id, "--yes"])
    assert code == (when == "after")
    if when == "before":
        with pytest.raises(LumaRayConfigurationError, match="given up"):
            make_operator(frame, b).execute(task_context(store=kept))
        make_operator(frame, b).execute(task_context(store=kept, clears=1))
        assert len(simulator.jobs) == 2
    else:
        make_operator(frame, b).execute(task_context(store=kept, clears=1))
        assert len(simulator.jobs) == 1


# second round


@pytest.mark.parametrize("minutes", [5, 30])
def test_a_dead_v2_call_dated_ahead_does_not_block_its_retries(
    simulator: Simulator, frame: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, minutes: float
) -> None:
    """The search outlasts such a call, whatever its worker's clock says: a person may settle it."""
    url = LumaRayHook().upload_image(frame)
    with pytest.MonkeyPatch.context() as patched:
        wrong_clock(patched, minutes)
        killed_while_it_pays(monkeypatch, make_operator(url, clip))
    with pytest.raises(LumaRaySubmitUnknown, match="same inputs, created too early"):
        make_operator(url, clip).execute(task_context())


def test_busy_path_of_a_lost_call_is_freed_by_the_advice_that_is_given(
    simulator: Simulator, frame: Path, tmp_path: Path, database: Database, capsys: Any
) -> None:
    """A lost call at A; path edited to B; its search at B says unknown; adopt at B as advised; retry delivers at B."""
    kept = database.stores["run_1", -1] = MemoryStore()
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    lose(simulator, make_operator(frame, a), task_context(store=kept))
    simulator.fault("history", "status", status=401)
    with pytest.raises(LumaRaySubmitUnknown) as unknown:
        make_operator(frame, b).execute(task_context(store=kept, clears=1))
    assert main(adopts(unknown.value, simulator.jobs[0].request_id)) == 0
    make_operator(frame, b).execute(task_context(store=kept, clears=2))
    make_operator(frame, a, prompt="x").execute(task_context(run_id="run_2", store=MemoryStore()))


def test_a_lost_call_at_an_edited_path_does_not_block_both_paths(
    simulator: Simulator, frame: Path, tmp_path: Path, database: Database, capsys: Any
) -> None:
    kept = database.stores["run_1", -1] = MemoryStore()
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    lose(simulator, make_operator(frame, a), task_context(store=kept), accepted=False)
    with pytest.raises(LumaRaySubmitUnknown):
        make_operator(frame, b).execute(task_context(store=kept, clears=1))
    make_operator(frame, a).execute(task_context(run_id="run_2", store=MemoryStore()))
    with pytest.raises(LumaRayConfigurationError, match="is in use") as caught:
        make_operator(frame, b).execute(task_context(run_id="run_3", store=MemoryStore()))
    code = main([*advised(caught.value, "give-up"), "--yes"])
    print(code, capsys.readouterr())
    make_operator(frame, b).execute(task_context(run_id="run_3", store=MemoryStore()))


def test_a_job_given_up_at_its_new_path_frees_a_path_that_could_not_be_told(
    simulator: Simulator,
    frame: Path,
    tmp_path: Path,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    """J1 at A in flight; killed before it told A; given up at B."""
    from airflow_provider_luma.jobs.job import Job

    kept = database.stores["run_1", -1] = MemoryStore()
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    late(simulator, make_operator(frame, a, **LATE), task_context(store=kept))
    with pytest.MonkeyPatch.context() as patched:

        def dies(*arguments: Any) -> None:
            raise Killed

        patched.setattr(Job, "_free_earlier_paths", dies)
        with pytest.raises(Killed):
            make_operator(frame, b).execute(task_context(store=kept))
    assert main(["give-up", str(b), simulator.jobs[0].request_id, "--yes"]) == 0
    make_operator(frame, a, prompt="x").execute(task_context(run_id="run_2", store=MemoryStore()))


def test_a_failed_job_at_its_new_path_frees_its_earlier_one(
    simulator: Simulator, frame: Path, tmp_path: Path, database: Database, capsys: Any
) -> None:
    """J1 at A in flight; another path B, where the vendor says FAILED; then a path C, back to A..."""
    kept = database.stores["run_1", -1] = MemoryStore()
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    simulator.fault("submit", "failed")
    late(simulator, make_operator(frame, a, **LATE), task_context(store=kept))
    with pytest.raises(LumaRayError):
        make_operator(frame, b).execute(task_context(store=kept))
    make_operator(frame, b).execute(task_context(store=kept))
    # back at A: the stale copy there is in flight with moved_to
    outputs = make_operator(frame, a).execute(task_context(store=kept, clears=1))
    print(outputs, simulator.charges)
    assert simulator.charges == 1


def test_without_a_store_a_moved_job_found_again_at_its_earlier_path_after_give_up(
    simulator: Simulator, frame: Path, tmp_path: Path, database: Database, capsys: Any
) -> None:
    """J1 at A moved to B, delivered at B; B's folder lost; back to A: still J1, no second charge."""
    kept = MemoryStore()
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    late(simulator, make_operator(frame, a, **LATE), task_context(store=kept))
    one = make_operator(frame, b).execute(task_context(store=kept))
    again = make_operator(frame, a).execute(task_context(store=kept, clears=1))
    assert (again["request_id"], simulator.charges) == (one["request_id"], 1)
    third = make_operator(frame, a, prompt="x").execute(task_context(store=kept, clears=2))
    back = make_operator(frame, b).execute(task_context(store=kept, clears=3))
    assert (back["request_id"], simulator.charges) == (one["request_id"], 2)
    assert third["request_id"] in all_ids(a, b)


def test_shifted_paths_of_delivered_clips_do_as_the_error_says(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    """Two delivered clips whose paths are swapped: 'move that one away, then clear the task'."""
    stores = {"one": MemoryStore(), "two": MemoryStore()}
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    make_operator(frame, a).execute(task_context("one", store=stores["one"]))
    make_operator(frame, b, prompt="2").execute(task_context("two", store=stores["two"]))
    for task, path, prompt in (("one", b, "a slow push in"), ("two", a, "2")):
        path.rename(path.with_suffix(".away"))
        make_operator(frame, path, prompt=prompt).execute(task_context(task, store=stores[task], clears=1))
    assert simulator.charges == 2


# third round

V1 = {"api_version": "v1"}


def nameless_and_full(simulator: Simulator, operator: Any, context: Any) -> None:
    simulator.fault("v1", "slow", seconds=0.0, request_id="")
    with pytest.MonkeyPatch.context() as patched:

        def full(*arguments: Any) -> None:
            raise OSError(errno.ENOSPC, "full")

        patched.setattr(LocalFile, "put", full)
        with pytest.raises(LumaRayError):
            operator.execute(context)


@pytest.mark.parametrize("body", ["unique", "url"])
@pytest.mark.parametrize("minutes", [0, -120, -30, 30])
def test_a_v1_clip_without_an_id_is_found_though_its_workers_clock_is_wrong(
    simulator: Simulator, frame: Path, clip: Path, minutes: float, body: str
) -> None:
    """The vendor's clock was known before the call (called_at)."""
    source = frame if body == "unique" else LumaRayHook().upload_image(frame)
    with pytest.MonkeyPatch.context() as patched:
        wrong_clock(patched, minutes)
        nameless_and_full(simulator, make_operator(source, clip, **V1), task_context())
    print(recorded(clip)["called_at"], recorded(clip)["submitted_at"])
    outputs = make_operator(source, clip, **V1).execute(task_context())
    assert (outputs["request_id"], simulator.charges) == (simulator.jobs[0].request_id, 1)


@pytest.mark.parametrize("minutes", [0, -120])
def test_a_young_v1_clip_without_an_id_is_not_said_to_be_gone(
    simulator: Simulator, frame: Path, clip: Path, minutes: float
) -> None:
    """Its row is a minute late; the payer's clock is two hours behind."""
    with pytest.MonkeyPatch.context() as patched:
        wrong_clock(patched, minutes)
        simulator.delay_history("next", 60)
        nameless_and_full(simulator, make_operator(frame, clip, **V1), task_context())
    told = refused(frame, clip, **V1)
    assert "give-up" not in told, told
    simulator.advance(61)
    make_operator(frame, clip, **V1).execute(task_context())


@pytest.mark.parametrize("minutes", [0, -30])
def test_a_neighbours_v1_clip_without_an_id_is_not_adopted_though_its_clock_was_behind(
    simulator: Simulator, frame: Path, tmp_path: Path, minutes: float
) -> None:
    url = LumaRayHook().upload_image(frame)
    with pytest.MonkeyPatch.context() as patched:
        wrong_clock(patched, minutes)
        simulator.fault("v1", "slow", seconds=0.0, request_id="")
        make_operator(url, tmp_path / "b.mp4", **V1).execute(task_context("other"))
    simulator.delay_history("next", 600)
    simulator.fault("submit", "reset", accepted=True)
    try:
        outputs = make_operator(url, tmp_path / "a.mp4").execute(task_context())
    except LumaRaySubmitUnknown:
        return
    ids = [job.request_id for job in simulator.jobs]
    assert outputs["request_id"] == ids[1], "it delivered the neighbour's clip, and its own is on no record"


def test_give_up_during_a_search_buys_nothing_without_a_clear(
    simulator: Simulator, frame: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """A lost call; the task is cleared and searches; a person gives the call up, and is told that a clear buys."""
    lose(simulator, make_operator(frame, clip), task_context(), accepted=False)
    find_jobs = LumaRayHook.find_jobs
    said: list[str] = []

    def gives_up(self: LumaRayHook, *arguments: Any) -> Any:
        if not said:
            assert main(["give-up", str(clip), "--yes"]) == 0
            said.append(capsys.readouterr().out)
        return find_jobs(self, *arguments)

    monkeypatch.setattr(LumaRayHook, "find_jobs", gives_up)
    with pytest.raises(LumaRayError):
        make_operator(frame, clip).execute(task_context(clears=1))
    assert len(simulator.jobs) == 0, said


def test_a_retry_after_give_up_buys_nothing_though_the_clear_before_was_killed(
    simulator: Simulator, frame: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Lost; cleared; that attempt's worker dies in its search; give-up; Airflow retries the attempt."""
    lose(simulator, make_operator(frame, clip), task_context())
    with pytest.MonkeyPatch.context() as patched:

        def dies(*arguments: Any, **more: Any) -> None:
            raise Killed

        patched.setattr(LumaRayHook, "find_jobs", dies)
        with pytest.raises(Killed):
            make_operator(frame, clip).execute(task_context(clears=1))
    assert main(["give-up", str(clip), "--yes"]) == 0
    said = capsys.readouterr().out
    with contextlib.suppress(LumaRayConfigurationError):
        make_operator(frame, clip).execute(task_context(clears=1))
    assert len(simulator.jobs) == 1, said


@pytest.mark.parametrize("state", ["given_up", "failed"])
def test_what_a_damaged_records_error_says_of_a_settled_job(
    simulator: Simulator, frame: Path, clip: Path, database: Database, state: str
) -> None:
    kept = database.stores["run_1", -1] = MemoryStore()
    if state == "given_up":
        late(simulator, make_operator(frame, clip, **LATE), task_context(store=kept))
        assert main(["give-up", str(clip), simulator.jobs[0].request_id, "--yes"]) == 0
    else:
        simulator.fault("submit", "failed")
        with pytest.raises(LumaRayError):
            make_operator(frame, clip).execute(task_context(store=kept))
    record = clip.with_name("clip.mp4.job.json")
    record.write_bytes(bytes(512))
    with pytest.raises(LumaRayError) as caught:
        make_operator(frame, clip).execute(task_context(store=kept, clears=1))
    print(caught.value)
    record.unlink()
    outputs = make_operator(frame, clip).execute(task_context(store=kept, clears=1))
    finished = outputs["request_id"] == simulator.jobs[0].request_id
    assert ("finishes it" in str(caught.value)) is finished, str(caught.value)


# fourth round: batches


@pytest.fixture
def folder(tmp_path: Path, frame: Path) -> Any:
    import shutil

    def put(*names: str) -> Path:
        for name in names:
            path = tmp_path / "frames" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(frame, path)
            with path.open("ab") as file:
                file.write(name.encode())
        return tmp_path / "frames"

    return put


def test_a_sibling_refusal_of_a_shrunken_batch_is_cured_as_it_says(
    simulator: Simulator, folder: Any, tmp_path: Path
) -> None:
    """a is delivered and its frame archived, as pipelines do; b timed out; plan and clips are cleared."""
    frames, run = folder("a.jpg", "b.jpg"), Run()
    planned = plan(frames)
    store = [run._stores.setdefault(i, MemoryStore()) for i in (0, 1)]
    make_operator(**planned[0]).execute(task_context(map_index=0, store=store[0]))
    late(simulator, make_operator(**planned[1], **LATE), task_context(map_index=1, store=store[1]))
    (frames / "a.jpg").unlink()
    results = []
    for _ in range(3):
        results = run.generate(plan(frames))
        print(results)
    assert not isinstance(results[0], Exception), results


def test_a_path_that_a_job_has_left_is_planned(simulator: Simulator, folder: Any, tmp_path: Path) -> None:
    """Its job has moved on with an edited output_path, and is delivered there."""
    frames, kept = folder("a.jpg"), MemoryStore()
    path = tmp_path / "videos" / "a.jpg.mp4"
    late(simulator, make_operator(frames / "a.jpg", path, **LATE), task_context(run_id="run_0", store=kept))
    make_operator(frames / "a.jpg", tmp_path / "other.mp4").execute(task_context(run_id="run_0", store=kept))
    assert recorded(path)["moved_to"]
    assert [one["output_path"] for one in plan(frames)] == [str(path)]


def test_a_refused_busy_path_after_a_move_names_no_moved_job(
    simulator: Simulator, frame: Path, tmp_path: Path, capsys: Any
) -> None:
    """fetch to a path that its job has left."""
    kept = MemoryStore()
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    late(simulator, make_operator(frame, a, **LATE), task_context(store=kept))
    make_operator(frame, b).execute(task_context(store=kept))
    make_operator(frame, tmp_path / "c.mp4", prompt="c").execute(task_context("c"))
    code = main(["fetch", simulator.jobs[1].request_id, str(a)])
    print(code, capsys.readouterr())
    assert code == 0


def test_the_payer_whose_retry_bought_too_is_told_the_truth(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    """A task cleared with another prompt while its first attempt waits: whose is the path?"""
    wait: list[Any] = []
    from airflow_provider_luma.jobs.job import Job

    original = Job.wait

    def waits(self: Job, take: Any, **more: Any) -> Any:
        if not wait:
            wait.append(1)
            make_operator(frame, clip, prompt="two").execute(task_context(clears=1))
        return original(self, take, **more)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Job, "wait", waits)
        told = refused(frame, clip)
    assert "Another task instance" not in told, told


# fifth round


@pytest.mark.parametrize("hours", [0, 2])
def test_a_v1_clip_with_a_gateways_id_beside_another_of_its_inputs_can_be_adopted(
    simulator: Simulator, frame: Path, tmp_path: Path, hours: float, capsys: Any
) -> None:
    """Disk full; the id is a gateway's; another DAG sent the same URL; two hours later the vendor has both clips."""
    url = LumaRayHook().upload_image(frame)
    make_operator(url, tmp_path / "b" / "b.mp4", **V1).execute(task_context("other", dag_id="theirs"))
    clip = tmp_path / "a" / "a.mp4"
    simulator.fault("v1", "slow", seconds=0.0, request_id="gw-0001")
    with pytest.MonkeyPatch.context() as patched:

        def full(*arguments: Any) -> None:
            raise OSError(errno.ENOSPC, "full")

        patched.setattr(LocalFile, "put", full)
        with pytest.raises(LumaRayError):
            make_operator(url, clip, **V1).execute(task_context())
    mine = simulator.jobs[1].request_id
    simulator.advance(hours * 3600)
    with pytest.raises(LumaRayError) as caught:
        make_operator(url, clip, **V1).execute(task_context())
    print(type(caught.value), caught.value)
    code = main(["adopt", str(clip), mine, "--yes"])
    print(code, capsys.readouterr())
    assert "no longer available" not in str(caught.value), "the history has it"
    assert code == 0


@pytest.mark.parametrize("unknown", ["fail", "resubmit"])
def test_a_live_v1_call_whose_clock_could_not_be_learned_is_not_said_to_have_ended(
    monkeypatch: pytest.MonkeyPatch, frame: Path, clip: Path, unknown: str
) -> None:
    """The key may not read the balance... and the payer's clock is half an hour behind."""
    with Simulator(latency=0.05, clip_seconds=0.2, api_key=API_KEY, history_lag=99999) as simulator:
        set_connection(monkeypatch, simulator.url, timeout=20)
        url = LumaRayHook().upload_image(frame)
        told: list[str] = []

        def retry() -> None:
            try:
                make_operator(url, clip, on_unknown_submit=unknown, **V1).execute(task_context())
                told.append("bought")
            except LumaRayError as error:
                told.append(str(error))

        while_the_vendor_works(monkeypatch, "generate", retry)
        with pytest.MonkeyPatch.context() as patched:
            wrong_clock(patched, -30)
            simulator.fault("credits", "reset", times=4)
            try:
                make_operator(url, clip, **V1).execute(task_context())
            except LumaRayError as error:
                print(error)
        assert (simulator.jobs, told) == ([], []), "nothing is bought while the vendor does not answer"


def test_a_keep_clip_whose_lost_call_was_given_up_is_not_bought_by_a_retry(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    keep = {"if_exists": "keep"}
    late(simulator, make_operator(frame, clip, **keep, **LATE), task_context())
    late(simulator, make_operator(frame, clip, prompt="x", **keep, **LATE), task_context(clears=1))
    assert main(["give-up", str(clip), simulator.jobs[0].request_id, "--yes"]) == 0
    with pytest.raises(LumaRayConfigurationError, match="given up"):
        make_operator(frame, clip, **keep).execute(task_context(clears=1))
    make_operator(frame, clip, **keep).execute(task_context(clears=2))
    assert len(simulator.jobs) == 2


@pytest.mark.parametrize("task", [True, False])
def test_two_hook_calls_whose_paths_are_swapped(
    simulator: Simulator, frame: Path, tmp_path: Path, task: bool
) -> None:
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    call(frame, a, key="one")
    call(frame, b, key="two", prompt="2")
    first = [j.request_id for j in simulator.jobs]
    got = []
    for key, path, prompt in (("one", b, "a slow push in"), ("two", a, "2")):
        try:
            got.append(call(frame, path, key=key, prompt=prompt)["request_id"])
        except LumaRayError as error:
            print(error)
    print(first, got, len(simulator.jobs))
    assert a.exists()
    assert b.exists()


def test_a_moved_job_that_failed_is_not_finished_at_its_earlier_path_by_a_stale_copy(
    simulator: Simulator, frame: Path, tmp_path: Path, database: Database, capsys: Any
) -> None:
    """3.2: no store. The path is edited there and back; the copy at a says submitted, moved to b."""
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    kept = MemoryStore()
    late(simulator, make_operator(frame, a, **LATE), task_context(store=kept))
    make_operator(frame, b).execute(task_context(store=kept))
    one = simulator.jobs[0].request_id
    # Another run's task buys at a, and the first is cleared with its path back at a.
    make_operator(frame, a, prompt="run 2").execute(task_context(run_id="run_2", store=MemoryStore()))
    again = make_operator(frame, a).execute(task_context(store=kept, clears=1))
    assert (again["request_id"], simulator.charges) == (one, 2)
    two = make_operator(frame, a, prompt="run 2").execute(task_context(run_id="run_2", clears=1))
    assert (two["request_id"], simulator.charges) == (simulator.jobs[1].request_id, 2)


# sixth round


def test_spent_counts_a_lost_call_that_was_found_at_an_edited_path_once(
    simulator: Simulator, frame: Path, tmp_path: Path, capsys: Any
) -> None:
    kept = MemoryStore()
    a, b = tmp_path / "v" / "a.mp4", tmp_path / "v" / "b.mp4"
    lose(simulator, make_operator(frame, a), task_context(store=kept))
    make_operator(frame, b).execute(task_context(store=kept, clears=1))
    capsys.readouterr()
    assert main(["spent", str(tmp_path / "v"), "--json"]) == 0
    out = capsys.readouterr().out
    print(out)
    assert simulator.charges == 1
    told = json.loads(out)
    assert "3.2" not in out, told


def test_spent_counts_a_moved_job_once(
    simulator: Simulator, frame: Path, tmp_path: Path, capsys: Any
) -> None:
    kept = MemoryStore()
    a, b = tmp_path / "v" / "a.mp4", tmp_path / "v" / "b.mp4"
    late(simulator, make_operator(frame, a, **LATE), task_context(store=kept))
    make_operator(frame, b).execute(task_context(store=kept, clears=1))
    capsys.readouterr()
    assert main(["spent", str(tmp_path / "v"), "--json"]) == 0
    out = capsys.readouterr().out
    print(out)
    assert "3.2" not in out, out


def test_what_show_says_of_the_next_attempt_at_a_path_that_the_job_has_left(
    simulator: Simulator, frame: Path, tmp_path: Path, capsys: Any, database: Database
) -> None:
    kept = database.stores["run_1", -1] = MemoryStore()
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    lose(simulator, make_operator(frame, a), task_context(store=kept))
    make_operator(frame, b).execute(task_context(store=kept, clears=1))
    assert main(["show", str(a)]) == 0
    out = capsys.readouterr().out
    print(out)
    assert "may be bought" not in out


def test_give_up_of_a_script_clip(simulator: Simulator, frame: Path, clip: Path, capsys: Any) -> None:
    for one in ("status", "result"):
        simulator.fault(one, "status", status=500, times=99)
    with pytest.raises(LumaRayTimeout):
        call(frame, clip, key="coffee", **LATE)
    simulator.clear_faults()
    assert main(["give-up", str(clip), simulator.jobs[0].request_id, "--yes"]) == 0
    said = capsys.readouterr().out
    print(said)
    call(frame, clip, key="coffee")
    assert len(simulator.jobs) == 2


def test_a_second_key_at_a_path_in_flight_is_refused_with_advice_that_works(
    simulator: Simulator, frame: Path, clip: Path, capsys: Any
) -> None:
    for one in ("status", "result"):
        simulator.fault(one, "status", status=500, times=99)
    with pytest.raises(LumaRayTimeout):
        call(frame, clip, key="my coffee's", **LATE)
    simulator.clear_faults()
    with pytest.raises(LumaRayConfigurationError, match="in use") as caught:
        call(frame, clip, key="tea", prompt="x")
    print(caught.value)
    assert main([*list(advised_any(caught.value, "give-up")), "--yes"]) == 0
    call(frame, clip, key="tea", prompt="x")


def advised_any(error: object, command: str) -> list[str]:
    import shlex

    text = str(error)
    part = text[text.index(f"airflow_provider_luma {command}") :].splitlines()[0]
    return shlex.split(part)[1:]


def test_a_lost_v1_call_of_a_dead_worker_is_found_within_its_quarter_of_an_hour(
    simulator: Simulator, frame: Path, tmp_path: Path, database: Database
) -> None:
    """v1 call lost at A (killed); path edited to B while it may be waiting; then both paths work."""
    kept = database.stores["run_1", -1] = MemoryStore()
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    url = LumaRayHook().upload_image(frame)
    with pytest.MonkeyPatch.context() as patched:

        def dies(*arguments: Any, **more: Any) -> None:
            raise Killed

        patched.setattr(LumaRayHook, "generate", dies)
        with pytest.raises(Killed):
            make_operator(url, a, **V1).execute(task_context(store=kept))
    with pytest.raises(LumaRayError, match="may still be waiting"):
        make_operator(url, b, **V1).execute(task_context(store=kept))
    simulator.advance(20 * 60)
    with pytest.raises(LumaRaySubmitUnknown) as caught:
        make_operator(url, b, **V1).execute(task_context(store=kept))
    assert main(advised(caught.value, "not-bought")) == 0
    make_operator(url, b, **V1).execute(task_context(store=kept, clears=1))
    assert simulator.charges == 1
    make_operator(frame, a, prompt="x").execute(task_context(run_id="run_2", store=MemoryStore()))


# seventh round


def test_spent_counts_a_v1_clip_that_moved_once(
    simulator: Simulator, frame: Path, tmp_path: Path, capsys: Any
) -> None:
    """v1 with a gateway's id; disk full at a; the path is edited to b, where the history names the job."""
    kept = MemoryStore()
    a, b = tmp_path / "v" / "a.mp4", tmp_path / "v" / "b.mp4"
    simulator.fault("v1", "slow", seconds=0.0, request_id="gw-0001")
    with pytest.MonkeyPatch.context() as patched:

        def full(*arguments: Any) -> None:
            raise OSError(errno.ENOSPC, "full")

        patched.setattr(LocalFile, "put", full)
        with pytest.raises(LumaRayError):
            make_operator(frame, a, **V1).execute(task_context(store=kept))
    make_operator(frame, b, **V1).execute(task_context(store=kept, clears=1))
    capsys.readouterr()
    assert main(["spent", str(tmp_path / "v"), "--json"]) == 0
    out = capsys.readouterr().out
    assert simulator.charges == 1
    assert "3.2" not in out, out


def test_a_gateways_id_that_was_replaced_is_still_taken(
    simulator: Simulator, frame: Path, tmp_path: Path, capsys: Any
) -> None:
    """The deferral or an XCom has the gateway's id; adopt and give-up by it find the take."""
    clip = tmp_path / "a.mp4"
    simulator.fault("v1", "slow", seconds=0.0, request_id="gw-0001")
    with pytest.MonkeyPatch.context() as patched:

        def full(*arguments: Any) -> None:
            raise OSError(errno.ENOSPC, "full")

        patched.setattr(LocalFile, "put", full)
        with pytest.raises(LumaRayError):
            make_operator(frame, clip, **V1).execute(task_context())
    make_operator(frame, clip, **V1).execute(task_context())
    ids = {recorded(clip).get("request_id"), recorded(clip).get("answered_id")}
    assert ids == {"gw-0001", simulator.jobs[0].request_id}, "no id that was ever known is lost"


def test_a_failed_neighbour_in_the_same_run_does_not_hold_a_video(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    """run_0 left a video at a; T1 (run_1) moved on from a to b; T2 took a and FAILED; T1 goes back to a."""
    kept = MemoryStore()
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    make_operator(frame, a, prompt="old").execute(task_context(run_id="run_0"))
    late(simulator, make_operator(frame, a, **LATE), task_context(store=kept))
    late(simulator, make_operator(frame, b, **LATE), task_context(store=kept))
    simulator.fault("submit", "failed")
    with pytest.raises(LumaRayError):
        make_operator(frame, a, prompt="x").execute(task_context("other"))
    outputs = make_operator(frame, a).execute(task_context(store=kept))
    assert outputs["request_id"] == simulator.jobs[1].request_id


@pytest.mark.parametrize("minutes", [5, 30])
def test_not_bought_of_a_live_undated_v2_call(
    monkeypatch: pytest.MonkeyPatch, frame: Path, clip: Path, minutes: float, capsys: Any
) -> None:
    """timeout=300; the payer's clock is behind; a person runs not-bought from a laptop, as the retry said."""
    with Simulator(latency=0.05, clip_seconds=0.2, api_key=API_KEY, history_lag=99999) as simulator:
        set_connection(monkeypatch, simulator.url, timeout=300)
        url = LumaRayHook().upload_image(frame)
        codes: list[int] = []
        while_the_vendor_works(monkeypatch, "submit", lambda: codes.append(main(["not-bought", str(clip)])))
        with pytest.MonkeyPatch.context() as patched:
            wrong_clock(patched, -minutes)
            make_operator(url, clip).execute(task_context())
        print(capsys.readouterr())
        assert codes == [1]


def test_a_deferred_clip_whose_earlier_path_moves_on(
    monkeypatch: pytest.MonkeyPatch, frame: Path, tmp_path: Path
) -> None:
    """Swap by deferral: T2 deferred at b for its own J2, given the path by T1's move; a clear while deferred."""
    with Simulator(latency=60, clip_seconds=0.2, api_key=API_KEY) as simulator:
        set_connection(monkeypatch, simulator.url, timeout=5)
        kept = MemoryStore()
        a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
        with pytest.raises(TaskDeferred) as deferred:
            make_operator(frame, a, deferrable=True).execute(task_context(store=kept))
        # cleared with another path while deferred: re-attaches at b, defers again
        with pytest.raises(TaskDeferred) as second:
            make_operator(frame, b, deferrable=True).execute(task_context(store=kept, clears=1))
        simulator.advance(120)
        event = {"request_id": simulator.jobs[0].request_id, "reason": "ready"}
        first = make_operator(frame, a, deferrable=True).execute_complete(
            task_context(store=kept), event=event, **deferred.value.kwargs or {}
        )
        then = make_operator(frame, b, deferrable=True).execute_complete(
            task_context(store=kept, clears=1), event=event, **second.value.kwargs or {}
        )
        assert first["request_id"] == then["request_id"]
        assert then["video_path"] == str(b)
        assert b.exists()
        again = make_operator(frame, b).execute(task_context(store=kept, clears=2))
        assert again["video_path"] == str(b)
        assert simulator.charges == 1


# eighth round


def test_nothing_is_bought_beside_rows_that_show_neither_inputs_nor_a_time(
    simulator: Simulator, frame: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All clocks are right; the history's rows lack inputs and a time that can be read."""
    find_jobs = LumaRayHook.find_jobs

    def bare(self: LumaRayHook, *arguments: Any) -> Any:
        return [replace(row, body_sha256=None, created=None) for row in find_jobs(self, *arguments)]

    monkeypatch.setattr(LumaRayHook, "find_jobs", bare)
    simulator.fault("submit", "reset", accepted=True)
    with pytest.raises(LumaRaySubmitUnknown) as error:
        make_operator(frame, clip, on_unknown_submit="resubmit").execute(task_context())
    assert len(simulator.jobs) == 1
    assert main(advised(error.value, "not-bought")) == 1


def test_a_moved_lost_calls_copy_does_not_free_its_job_for_a_neighbour_of_its_earlier_path(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    """T1's lost call was found at its edited path in another folder; T2 is beside the earlier one."""
    url, kept = LumaRayHook().upload_image(frame), MemoryStore()
    with pytest.MonkeyPatch.context() as patched:  # 90 s ahead: within the tolerated skew
        wrong_clock(patched, 1.5)
        lose(simulator, make_operator(url, tmp_path / "v" / "a.mp4"), task_context(map_index=0, store=kept))
    one = make_operator(url, tmp_path / "w" / "b.mp4").execute(
        task_context(map_index=0, store=kept, clears=1)
    )
    assert one["request_id"] == simulator.jobs[0].request_id
    simulator.fault("submit", "reset", accepted=True)
    try:
        two = make_operator(url, tmp_path / "v" / "m.mp4").execute(
            task_context(map_index=1, store=MemoryStore())
        )
    except LumaRaySubmitUnknown:
        return
    assert len(simulator.jobs) == 2
    assert two["request_id"] == simulator.jobs[1].request_id, "T1's job is T2's, and T2's own is nobody's"


@pytest.mark.parametrize("clear_empties_the_store", [False, True], ids=["3.3", "3.4"])
def test_its_own_path_and_a_clear_fetch_the_video_as_the_error_says(
    simulator: Simulator, frame: Path, tmp_path: Path, clear_empties_the_store: bool
) -> None:
    """a -> b -> a while another task took a; Airflow 3.4 deletes the store's copy with a clear (README)."""
    kept = MemoryStore()
    a, b = (tmp_path / f"{n}.mp4" for n in ("a", "b"))
    for path in (a, b):
        late(simulator, make_operator(frame, path, **LATE), task_context(store=kept))
    simulator.fault("download", "changed")
    make_operator(frame, a, prompt="x").execute(task_context("other"))
    with pytest.raises(LumaRayConfigurationError, match="in the same run") as caught:
        make_operator(frame, a).execute(task_context(store=kept))
    assert "move that one away, then clear the task: it fetches it" in str(caught.value)
    a.unlink()
    store = MemoryStore() if clear_empties_the_store else kept
    outputs = make_operator(frame, a).execute(task_context(store=store, clears=1))
    assert (outputs["request_id"], simulator.charges) == (simulator.jobs[0].request_id, 2)


def test_the_way_out_of_a_swap_on_3_2(simulator: Simulator, frame: Path, tmp_path: Path) -> None:
    """No store: two tasks, paths swapped while both jobs are in flight; each is refused and buys nothing."""
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    late(simulator, make_operator(frame, a, **LATE), task_context("one"))
    late(simulator, make_operator(frame, b, prompt="2", **LATE), task_context("two"))
    for task, path, prompt in (("one", b, "a slow push in"), ("two", a, "2")):
        told = ""
        try:
            make_operator(frame, path, prompt=prompt).execute(task_context(task, clears=1))
        except LumaRayError as error:
            told = str(error)
        assert "in use" in told
    assert len(simulator.jobs) == 2


def test_a_lost_call_whose_search_ends_with_the_call_is_not_bought_again(
    monkeypatch: pytest.MonkeyPatch, frame: Path, clip: Path
) -> None:
    """timeout=130: the retry's search (here instantaneous) ends as the call does; the row comes a minute later."""
    with Simulator(latency=0.05, clip_seconds=0.2, api_key=API_KEY, history_lag=60) as simulator:
        set_connection(monkeypatch, simulator.url, timeout=130)
        url = LumaRayHook().upload_image(frame)
        told: list[str] = []

        def retry() -> None:
            simulator.advance(30)
            with pytest.MonkeyPatch.context() as patched:
                wrong_clock(patched, 0.5)
                told.append(refused(url, clip, on_unknown_submit="resubmit"))

        while_the_vendor_works(monkeypatch, "submit", retry)
        make_operator(url, clip).execute(task_context())
        assert len(simulator.jobs) == 1, told


def test_the_remedies_of_a_script_do_not_speak_of_a_task(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    simulator.fault("submit", "reset", accepted=True)
    simulator.fault("history", "status", status=401)
    with pytest.raises(LumaRaySubmitUnknown, match="then call it again") as caught:
        call(frame, clip, key="coffee")
    assert main(adopts(caught.value, simulator.jobs[0].request_id)) == 0
    call(frame, clip, key="coffee")
    assert len(simulator.jobs) == 1
    assert "task" not in str(caught.value)
    assert "Airflow" not in str(caught.value)


def test_a_failed_resubmission_is_checked_before_a_third_is_bought(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    """I1 lost, resubmitted as J2; J2 is said to have FAILED, but has not."""
    resubmit = {"on_unknown_submit": "resubmit"}
    simulator.fault("submit", "reset", accepted=False)
    second = late(simulator, make_operator(frame, clip, **resubmit, **LATE), task_context())
    path = clip.with_name("clip.mp4.job.json")
    path.write_text(json.dumps({**recorded(clip), "state": "failed", "error": "a gateway"}))
    outputs = make_operator(frame, clip, **resubmit).execute(task_context())
    assert (outputs["request_id"], len(simulator.jobs)) == (second, 1)
