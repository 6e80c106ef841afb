"""Counterexamples about edited paths, v1 calls that are alive, clips without an id, and advice that is followed."""

from __future__ import annotations

import errno
import hashlib
import json
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from airflow.sdk.execution_time.context import set_current_context

from airflow_provider_luma.cli.main import main
from airflow_provider_luma.exceptions import (
    LumaRayConfigurationError,
    LumaRayDeliveryFailed,
    LumaRayError,
    LumaRaySubmitUnknown,
)
from airflow_provider_luma.hooks import clock, transport
from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.jobs import submit as submission
from airflow_provider_luma.jobs.job import Job
from airflow_provider_luma.simulator import Simulator
from airflow_provider_luma.storage import LocalFile
from tests.claims.conftest import Database
from tests.claims.test_counterexamples import Killed, advised
from tests.claims.test_drift import LATE
from tests.claims.test_drift import bought_and_late as late
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

pytestmark = pytest.mark.usefixtures("connection")


def adopts(error: object, request_id: str) -> list[str]:
    return [w for w in advised(error, "adopt") if not w.startswith("<") and w != "id>"] + [request_id]


def all_ids(*clips: Path) -> set[str]:
    found = set()
    for clip in clips:
        record = recorded(clip)
        found |= {t.get("request_id") for t in (record, *record.get("superseded", []))}
    return found - {None}


def wrong_clock(patched: pytest.MonkeyPatch, minutes: float) -> None:
    """Let a worker's clock be ahead."""

    class Shifted(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + timedelta(minutes=minutes)

    for module in (clock, submission, transport):
        patched.setattr(module, "datetime", Shifted)


def while_the_vendor_works(
    patched: pytest.MonkeyPatch, paid: Literal["submit", "generate"], act: Callable[[], object]
) -> None:
    """Do something after the vendor has done the next paid call's work, and before the caller has the answer."""
    pay = getattr(LumaRayHook, paid)

    def pays(self: LumaRayHook, *arguments: Any) -> Any:
        patched.setattr(LumaRayHook, paid, pay)
        answer = pay(self, *arguments)
        act()
        return answer

    patched.setattr(LumaRayHook, paid, pays)


def refused(start_frame: object, clip: Path, **arguments: Any) -> str:
    """Run an attempt that fails, and return its error's text."""
    with pytest.raises(LumaRayError) as error:
        make_operator(start_frame, clip, **arguments).execute(task_context())
    return str(error.value)


def lose(simulator: Simulator, operator: Any, context: Any, *, accepted: bool = True) -> None:
    """Let an attempt lose the answer of its paid call, and the history too."""
    simulator.fault("submit", "reset", accepted=accepted)
    simulator.fault("history", "status", status=401)
    with pytest.raises(LumaRaySubmitUnknown):
        operator.execute(context)


def test_give_up_of_a_lost_call_at_an_earlier_path_does_not_give_up_the_delivered_clip(
    simulator: Simulator, frame: Path, tmp_path: Path, database: Database
) -> None:
    kept = database.stores["run_1", -1] = MemoryStore()
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    lose(simulator, make_operator(frame, a), task_context(store=kept), accepted=False)
    two = make_operator(frame, b, prompt="two").execute(task_context(store=kept, clears=1))
    with pytest.raises(LumaRayConfigurationError, match="is in use") as caught:
        make_operator(frame, a).execute(task_context(run_id="run_2", store=MemoryStore()))
    assert main([*advised(caught.value, "give-up"), "--yes"]) == 0
    again = make_operator(frame, b, prompt="two").execute(task_context(store=kept, clears=2))
    assert (again["request_id"], simulator.charges) == (two["request_id"], 1)


def test_give_up_of_a_lost_call_at_an_earlier_path_frees_that_path(
    simulator: Simulator, frame: Path, tmp_path: Path, database: Database
) -> None:
    kept = database.stores["run_1", -1] = MemoryStore()
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    lose(simulator, make_operator(frame, a), task_context(store=kept), accepted=False)
    make_operator(frame, b, prompt="two").execute(task_context(store=kept, clears=1))
    with pytest.raises(LumaRayConfigurationError, match="is in use") as caught:
        make_operator(frame, a).execute(task_context(run_id="run_2", store=MemoryStore()))
    assert main([*advised(caught.value, "give-up"), "--yes"]) == 0
    make_operator(frame, a).execute(task_context(run_id="run_2", store=MemoryStore()))


@pytest.mark.parametrize("unknown", ["fail", "resubmit"])
@pytest.mark.parametrize(
    ("payers", "retrys", "vendors"),
    [(0, 30, 0), (-30, 0, 0), (0, 0, -30)],
    ids=["retry ahead", "payer behind", "vendor behind"],
)
def test_a_live_v1_call_is_not_said_to_have_ended_by_a_wrong_clock(
    monkeypatch: pytest.MonkeyPatch,
    frame: Path,
    clip: Path,
    unknown: str,
    payers: float,
    retrys: float,
    vendors: float,
) -> None:
    with Simulator(
        latency=0.05, clip_seconds=0.2, api_key=API_KEY, history_lag=99999, clock_offset=vendors * 60
    ) as simulator:
        set_connection(monkeypatch, simulator.url, timeout=20)
        url = LumaRayHook().upload_image(frame)
        told: list[str] = []

        def retry() -> None:
            with pytest.MonkeyPatch.context() as patched:
                wrong_clock(patched, retrys)
                told.append(refused(url, clip, api_version="v1", on_unknown_submit=unknown))

        while_the_vendor_works(monkeypatch, "generate", retry)
        with pytest.MonkeyPatch.context() as patched:
            wrong_clock(patched, payers)
            make_operator(url, clip, api_version="v1").execute(task_context())
        assert "may still be waiting" in told[0]
        assert len(simulator.jobs) == 1


@pytest.mark.parametrize("unknown", ["fail", "resubmit"])
def test_a_live_v2_call_whose_answer_takes_longer_than_a_search_is_not_said_to_have_ended(
    monkeypatch: pytest.MonkeyPatch, frame: Path, clip: Path, unknown: str
) -> None:
    with Simulator(latency=0.05, clip_seconds=0.2, api_key=API_KEY, history_lag=99999) as simulator:
        set_connection(monkeypatch, simulator.url, timeout=300)
        told: list[str] = []
        while_the_vendor_works(
            monkeypatch, "submit", lambda: told.append(refused(frame, clip, on_unknown_submit=unknown))
        )
        make_operator(frame, clip).execute(task_context())
        assert "may still be waiting" in told[0]
        assert len(simulator.jobs) == 1


def test_a_job_that_is_given_up_while_it_is_paid_for_is_not_bought_again_by_a_retry(
    monkeypatch: pytest.MonkeyPatch, frame: Path, clip: Path
) -> None:
    with Simulator(latency=60.0, clip_seconds=0.2, api_key=API_KEY) as simulator:
        set_connection(monkeypatch, simulator.url, timeout=5)
        while_the_vendor_works(monkeypatch, "submit", lambda: main(["give-up", str(clip), "--yes"]))
        refused(frame, clip, **LATE)
        assert "clear the task" in refused(frame, clip, **LATE)
        assert len(simulator.jobs) == 1
        with pytest.raises(LumaRayError, match="timeout"):
            make_operator(frame, clip, **LATE).execute(task_context(clears=1))
        assert len(simulator.jobs) == 2, "a clear buys"


def test_nothing_is_bought_or_settled_beside_a_row_that_does_not_show_its_inputs(
    simulator: Simulator, frame: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_jobs = LumaRayHook.find_jobs

    def bare(self: LumaRayHook, *arguments: Any) -> Any:
        return [replace(row, body_sha256=None) for row in find_jobs(self, *arguments)]

    monkeypatch.setattr(LumaRayHook, "find_jobs", bare)
    simulator.fault("submit", "reset", accepted=True)
    with pytest.raises(LumaRaySubmitUnknown) as error:
        make_operator(frame, clip, on_unknown_submit="resubmit").execute(task_context())
    assert len(simulator.jobs) == 1
    assert main(advised(error.value, "not-bought")) == 1


def test_a_path_that_is_busy_with_a_dead_call_says_what_is_bought_and_how_it_gets_free(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    make_operator(frame, clip, prompt="sunday").execute(task_context(run_id="sunday"))
    lose(simulator, make_operator(frame, clip), task_context(run_id="monday"), accepted=False)
    clip.unlink()
    with pytest.raises(LumaRayDeliveryFailed) as error:
        make_operator(frame, clip, prompt="sunday").execute(task_context(run_id="sunday", clears=1))
    assert "The job is bought, and stays on record" in str(error.value)
    assert main([*advised(error.value, "give-up"), "--yes"]) == 0
    make_operator(frame, clip, prompt="sunday").execute(task_context(run_id="sunday", clears=1))


def test_a_busy_path_does_not_say_that_a_lost_call_is_bought(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    kept = MemoryStore()
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    lose(simulator, make_operator(frame, a), task_context(store=kept), accepted=False)
    late(simulator, make_operator(frame, b, prompt="x", **LATE), task_context(run_id="run_2"))
    with pytest.raises(LumaRayDeliveryFailed, match="may be bought"):
        make_operator(frame, b).execute(task_context(store=kept, clears=1))


def test_keep_outside_a_task_refuses_other_inputs_too(simulator: Simulator, frame: Path, clip: Path) -> None:
    call(frame, clip, key="coffee", if_exists="keep")
    with pytest.raises(LumaRayConfigurationError, match="other inputs"):
        call(frame, clip, key="coffee", if_exists="keep", prompt="another")


def test_a_path_that_is_edited_there_and_back_does_not_overwrite_the_same_runs_clip(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    """Within a run a path is one task instance's: others read the file at it."""
    kept = MemoryStore()
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    for path in (a, b):
        late(simulator, make_operator(frame, path, **LATE), task_context(store=kept))
    simulator.fault("download", "changed")  # else the simulator's clips are equal
    make_operator(frame, a, prompt="x").execute(task_context("other"))
    theirs = a.read_bytes()
    with pytest.raises(LumaRayConfigurationError, match="in the same run"):
        make_operator(frame, a).execute(task_context(store=kept))
    assert a.read_bytes() == theirs
    outputs = make_operator(frame, tmp_path / "own.mp4").execute(task_context(store=kept, clears=1))
    assert (outputs["request_id"], simulator.charges) == (simulator.jobs[0].request_id, 2)


@pytest.mark.parametrize("names", [("a.mp4", "z.mp4"), ("z.mp4", "a.mp4")], ids="-".join)
def test_an_earlier_paths_copy_of_a_take_does_not_free_its_job(
    simulator: Simulator, frame: Path, tmp_path: Path, names: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """T1's lost call was found at its edited path; its record at the earlier path still has no id."""
    url, folder, kept = LumaRayHook().upload_image(frame), tmp_path / "v", MemoryStore()
    with pytest.MonkeyPatch.context() as patched:  # 90 s ahead: within the tolerated skew
        wrong_clock(patched, 1.5)
        lose(simulator, make_operator(url, folder / names[0]), task_context(map_index=0, store=kept))
    one = make_operator(url, folder / names[1]).execute(task_context(map_index=0, store=kept, clears=1))
    assert one["request_id"] == simulator.jobs[0].request_id
    simulator.fault("submit", "reset", accepted=True)
    try:
        two = make_operator(url, folder / "m.mp4").execute(task_context(map_index=1, store=MemoryStore()))
    except LumaRaySubmitUnknown:
        return
    assert len(simulator.jobs) == 2
    assert two["request_id"] == simulator.jobs[1].request_id, "T1's job is T2's, and T2's own is nobody's"


@pytest.mark.parametrize("stored", [True, False])
def test_a_search_reads_the_record_of_its_own_earlier_path(
    simulator: Simulator, frame: Path, tmp_path: Path, stored: bool
) -> None:
    """The record at the earlier path is current for the same task instance, and has other runs' takes."""
    url, kept = LumaRayHook().upload_image(frame), MemoryStore() if stored else None
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    if stored:
        make_operator(url, a).execute(task_context(run_id="run_1", store=MemoryStore()))
    make_operator(url, a).execute(task_context(run_id="run_2", store=kept))
    simulator.delay_history("next", 600)
    simulator.fault("submit", "reset", accepted=True)
    try:
        outputs = make_operator(url, b, generation_tag="2").execute(
            task_context(run_id="run_2", store=kept, clears=1)
        )
    except LumaRaySubmitUnknown:
        return
    assert outputs["request_id"] == simulator.jobs[-1].request_id, (
        [one.request_id for one in simulator.jobs],
        all_ids(a, b),
        outputs["request_id"],
    )


def test_the_advice_to_give_another_key_loses_no_clip(simulator: Simulator, frame: Path, clip: Path) -> None:
    first = call(frame, clip, key="coffee")
    with pytest.raises(LumaRayConfigurationError, match="another key and another output_path"):
        call(frame, clip, key="coffee", prompt="another")
    simulator.fault("download", "changed")  # the simulator's clips are equal byte for byte; real ones are not
    with suppress(LumaRayConfigurationError):
        call(frame, clip.with_name("tea.mp4"), key="tea", prompt="another")  # exactly what the text says
    simulator.advance(8 * 24 * 3600)
    assert call(frame, clip, key="coffee")["request_id"] == first["request_id"]


def nameless(simulator: Simulator, operator: Any, context: Any, *, stored: bool) -> None:
    simulator.fault("v1", "slow", seconds=0.0, request_id="")
    if stored:
        operator.execute(context)
        return
    with pytest.MonkeyPatch.context() as patched:

        def full(*arguments: Any) -> None:
            raise OSError(errno.ENOSPC, "full")

        patched.setattr(LocalFile, "put", full)
        with pytest.raises(LumaRayError):
            operator.execute(context)


def test_a_nameless_clip_under_another_runs_clip_can_be_adopted_as_advised(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    url, v1 = LumaRayHook().upload_image(frame), {"api_version": "v1"}
    for run in ("run_1", "run_2"):
        nameless(simulator, make_operator(url, clip, **v1), task_context(run_id=run), stored=True)
    other = bytearray(clip.read_bytes())
    other[-1] ^= 1
    clip.write_bytes(other)  # the two clips differ in reality; the simulator's are equal
    with pytest.raises(LumaRaySubmitUnknown) as caught:
        make_operator(url, clip, **v1).execute(task_context(run_id="run_1", clears=1))
    assert main(adopts(caught.value, simulator.jobs[0].request_id)) == 0
    outputs = make_operator(url, clip, **v1).execute(task_context(run_id="run_1", clears=2))
    assert (outputs["request_id"], simulator.charges) == (simulator.jobs[0].request_id, 2)


def test_a_nameless_clip_beside_an_older_lost_call_can_be_adopted_as_advised(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    clip, v1 = tmp_path / "a" / "clip.mp4", {"api_version": "v1"}
    url = LumaRayHook().upload_image(frame)
    lose(simulator, make_operator(url, clip, prompt="one"), task_context())
    make_operator(url, tmp_path / "b" / "c.mp4", prompt="two").execute(task_context("stranger"))
    nameless(simulator, make_operator(url, clip, prompt="two", **v1), task_context(clears=1), stored=False)
    with pytest.raises(LumaRaySubmitUnknown) as caught:
        make_operator(url, clip, prompt="two", **v1).execute(task_context(clears=1))
    mine = simulator.jobs[-1].request_id
    assert main(adopts(caught.value, mine)) == 0
    outputs = make_operator(url, clip, prompt="two", **v1).execute(task_context(clears=2))
    assert outputs["request_id"] == mine


def test_a_task_named_like_anothers_map_index_gets_its_clip_in_the_folder(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    make_operator(frame, f"{tmp_path}/v/", task_id="shot").execute(task_context("shot", map_index=1))
    make_operator(frame, f"{tmp_path}/v/", task_id="shot-1").execute(task_context("shot-1"))
    assert simulator.charges == 2


def test_a_second_call_with_a_mutated_argument_is_another_clip(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    extra: dict[str, Any] = {}
    got, refused = [], 0
    with set_current_context(task_context(store=MemoryStore())):
        for seed in (1, 2):
            extra["seed"] = seed
            try:
                got.append(call(frame, clip, extra_parameters=extra)["request_id"])
            except LumaRayConfigurationError:
                refused += 1
    assert (len(set(got)), refused) in ((2, 0), (1, 1)), "the second call silently got the first one's clip"


def test_an_argument_that_cannot_be_copied_gets_its_sentence(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    context = task_context(store=MemoryStore())
    with set_current_context(context), pytest.raises(LumaRayConfigurationError, match="extra_parameters"):
        call(frame, clip, extra_parameters={"seed": threading.Lock()})
    assert simulator.charges == 0


def test_a_hook_call_before_the_operators_own_is_another_clip(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    """A custom operator that makes a preview with the hook in pre_execute."""
    context = task_context(store=MemoryStore())
    with set_current_context(context):
        preview = call(frame, tmp_path / "preview.mp4", prompt="a preview")
        try:
            real = make_operator(frame, tmp_path / "real.mp4", prompt="the real one").execute(context)
        except LumaRayConfigurationError:
            return
    assert real["request_id"] != preview["request_id"], "the operator delivered the preview as its own clip"


def test_a_call_that_was_refused_before_buying_does_not_use_up_its_attempt(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    with set_current_context(task_context(store=MemoryStore())):
        with pytest.raises(LumaRayConfigurationError):
            call(frame, "clips/a.mp4")  # a relative path: nothing bought
        call(frame, tmp_path / "a.mp4")
    assert simulator.charges == 1


@pytest.mark.parametrize("first", ["lost", "full"])
def test_the_middle_one_of_three_paths_is_free(
    simulator: Simulator, frame: Path, tmp_path: Path, first: str
) -> None:
    kept = MemoryStore()
    a, b, c = (tmp_path / f"{n}.mp4" for n in "abc")
    if first == "lost":
        lose(simulator, make_operator(frame, a), task_context(store=kept))
        for one in ("status", "result"):
            simulator.fault(one, "status", status=500, times=99)
        with pytest.raises(LumaRayError):
            make_operator(frame, b, **LATE).execute(task_context(store=kept, clears=1))
    else:
        with pytest.MonkeyPatch.context() as patched:

            def full(*arguments: Any) -> None:
                raise OSError(errno.ENOSPC, "full")

            patched.setattr(LocalFile, "put", full)
            with pytest.raises(LumaRayError):
                make_operator(frame, a).execute(task_context(store=kept))
        simulator.fault("download", "status", status=503, times=99)
        with pytest.raises(LumaRayDeliveryFailed):
            make_operator(frame, b).execute(task_context(store=kept))
    simulator.clear_faults()
    outputs = make_operator(frame, c).execute(task_context(store=kept, clears=1))
    assert outputs["request_id"] == simulator.jobs[0].request_id
    for name in "ab":
        make_operator(frame, tmp_path / f"{name}.mp4", prompt="x").execute(task_context("other_" + name))


def test_an_attempt_that_dies_before_it_frees_its_earlier_path(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    kept = MemoryStore()
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    late(simulator, make_operator(frame, a, **LATE), task_context(store=kept))
    with pytest.MonkeyPatch.context() as patched:

        def dies(*arguments: Any) -> None:
            raise Killed

        patched.setattr(Job, "_free_earlier_paths", dies)
        with pytest.raises(Killed):
            make_operator(frame, b).execute(task_context(store=kept))
    make_operator(frame, b).execute(task_context(store=kept))
    make_operator(frame, a, prompt="x").execute(task_context("other"))


def test_a_clear_that_buys_at_another_path_frees_nothing_but_its_advice_does(
    simulator: Simulator, frame: Path, tmp_path: Path, database: Database
) -> None:
    """J1 in flight at a; cleared for another prompt and path b; a person gives J1 up as advised."""
    kept = database.stores["run_1", -1] = MemoryStore()
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    late(simulator, make_operator(frame, a, **LATE), task_context(store=kept))
    two = make_operator(frame, b, prompt="two").execute(task_context(store=kept, clears=1))
    with pytest.raises(LumaRayConfigurationError, match="is in use") as caught:
        make_operator(frame, a).execute(task_context(run_id="run_2", store=MemoryStore()))
    assert main([*advised(caught.value, "give-up"), "--yes"]) == 0
    make_operator(frame, a).execute(task_context(run_id="run_2", store=MemoryStore()))
    again = make_operator(frame, b, prompt="two").execute(task_context(store=kept, clears=2))
    assert again["request_id"] == two["request_id"]


def test_give_up_of_a_claim_that_never_reached_the_store_does_not_give_up_the_delivered_clip(
    simulator: Simulator, frame: Path, tmp_path: Path, database: Database
) -> None:
    """Killed between the two writes of a claim; the path is edited; another run is told to give the claim up."""
    kept = database.stores["run_1", -1] = MemoryStore()
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    with pytest.MonkeyPatch.context() as patched:

        def dies(*arguments: Any, **more: Any) -> None:
            raise Killed

        patched.setattr(MemoryStore, "set", dies)
        with pytest.raises(Killed):
            make_operator(frame, a).execute(task_context(store=kept))
    assert simulator.jobs == []
    one = make_operator(frame, b).execute(task_context(store=kept))
    with pytest.raises(LumaRayConfigurationError, match="is in use") as caught:
        make_operator(frame, a).execute(task_context(run_id="run_2", store=MemoryStore()))
    assert main([*advised(caught.value, "give-up"), "--yes"]) == 0
    states = {
        t.get("request_id"): t["state"]
        for t in [kept.get("luma_ray_job"), *kept.get("luma_ray_job").get("superseded", [])]
    }
    assert states[one["request_id"]] == "delivered", states
    again = make_operator(frame, b).execute(task_context(store=kept, clears=1))
    assert (again["request_id"], simulator.charges) == (one["request_id"], 1)


def test_a_dead_v1_call_at_an_earlier_path_is_settled_as_advised_without_a_database(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    """The retry begins its search just before the quarter of an hour is over (here: its clock is behind)."""
    kept = MemoryStore()
    with pytest.MonkeyPatch.context() as patched:

        def dies(*arguments: Any, **more: Any) -> None:
            raise Killed

        patched.setattr(LumaRayHook, "generate", dies)
        with pytest.raises(Killed):
            make_operator(frame, tmp_path / "a.mp4", api_version="v1").execute(task_context(store=kept))
    simulator.advance(16 * 60)
    with pytest.raises(LumaRaySubmitUnknown) as caught:
        make_operator(frame, tmp_path / "b.mp4", api_version="v1").execute(task_context(store=kept))
    assert main(advised(caught.value, "not-bought")) == 0


def test_what_a_damaged_records_error_says_of_the_next_attempt(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    """The store has the lost call, so the next attempt does not buy, whatever the text says."""
    kept = MemoryStore()
    lose(simulator, make_operator(frame, clip), task_context(store=kept))
    record = clip.with_name("clip.mp4.job.json")
    record.write_bytes(bytes(512))
    with pytest.raises(LumaRayError) as caught:
        make_operator(frame, clip).execute(task_context(store=kept, clears=1))
    record.unlink()
    outputs = make_operator(frame, clip).execute(task_context(store=kept, clears=1))
    bought = outputs["request_id"] != simulator.jobs[0].request_id
    assert ("the next attempt buys another clip" in str(caught.value)) is bought


def test_not_bought_counts_as_the_newer_copy_as_it_says(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    """The disk was full while the call was lost, so the store is ahead; the command cannot reach the store."""
    kept = MemoryStore()
    submit = LumaRayHook.submit
    with pytest.MonkeyPatch.context() as patched:

        def fills(self: LumaRayHook, request: Any) -> str:
            def full(*arguments: Any) -> None:
                raise OSError(errno.ENOSPC, "full")

            patched.setattr(LocalFile, "replace", full)
            return submit(self, request)

        patched.setattr(LumaRayHook, "submit", fills)
        simulator.fault("submit", "reset", accepted=False)
        with pytest.raises(LumaRaySubmitUnknown):
            make_operator(LumaRayHook().upload_image(frame), clip).execute(task_context(store=kept))
    assert (
        main(["not-bought", str(clip), "--yes"]) == 0
    )  # "Only the file was changed ...; it counts as the newer copy."
    make_operator(LumaRayHook().upload_image(frame), clip).execute(task_context(store=kept, clears=1))
    assert simulator.charges == 1


def test_a_gateways_id_after_an_adoption_is_no_second_job(
    simulator: Simulator, frame: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator.fault("v1", "slow", seconds=0.0, request_id="gw-0001")
    while_the_vendor_works(
        monkeypatch, "generate", lambda: main(["adopt", str(clip), simulator.jobs[0].request_id, "--yes"])
    )
    make_operator(frame, clip, api_version="v1").execute(task_context())
    assert all_ids(clip) == {simulator.jobs[0].request_id}
    assert recorded(clip)["answered_id"] == "gw-0001"


def test_a_gateways_id_of_a_call_that_its_retry_has_found_is_no_second_job(
    simulator: Simulator, frame: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    simulator.fault("v1", "slow", seconds=0.0, request_id="gw-0001")
    found = []

    def retry() -> None:
        simulator.advance(1)
        found.append(make_operator(frame, clip, api_version="v1").execute(task_context())["request_id"])

    with pytest.MonkeyPatch.context() as patched:
        while_the_vendor_works(patched, "generate", retry)
        make_operator(frame, clip, api_version="v1").execute(task_context())
    assert main(["spent", str(clip.parent), "--json"]) == 0
    assert "3.2" not in capsys.readouterr().out, "one charge, told as two"
    make_operator(frame, clip, prompt="two", api_version="v1").execute(task_context(clears=1))
    simulator.advance(2 * 3600)
    back = make_operator(frame, clip, api_version="v1").execute(task_context(clears=2))
    assert ([back["request_id"]], simulator.charges) == (found, 2)


def test_a_lost_clip_without_an_id_is_adopted_beside_the_task_instances_clip_at_the_path(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    """Both came from v1 without an id, and a third one makes the history ambiguous; only one is at the path."""
    url, v1 = LumaRayHook().upload_image(frame), {"api_version": "v1"}
    for clears, prompt in enumerate(("one", "two")):
        simulator.fault("v1", "slow", seconds=0.0, request_id="")
        make_operator(url, clip, prompt=prompt, **v1).execute(task_context(clears=clears))
    first = simulator.jobs[0].request_id
    flip(clip)
    record = json.loads(record_path(clip).read_text())
    record["sha256"] = hashlib.sha256(clip.read_bytes()).hexdigest()  # the simulator's clips are equal
    record_path(clip).write_text(json.dumps(record))
    assert main(["adopt", str(clip), first]) == 0
    outputs = make_operator(url, clip, prompt="one", **v1).execute(task_context(clears=2))
    assert (outputs["request_id"], simulator.charges) == (first, 2)


def flip(clip: Path) -> None:
    """Change a clip's last byte."""
    content = bytearray(clip.read_bytes())
    content[-1] ^= 1
    clip.write_bytes(content)
