"""Lost calls, and what a person or the next attempt makes of them."""

from __future__ import annotations

import errno
import io
import threading
from contextlib import redirect_stderr, suppress
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from airflow.sdk.execution_time.context import set_current_context

from airflow_provider_luma.cli.main import main
from airflow_provider_luma.exceptions import (
    LumaRayConfigurationError,
    LumaRayError,
    LumaRayInsufficientCredits,
    LumaRayJobFailed,
    LumaRayRefused,
    LumaRaySubmitUnknown,
)
from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.jobs.job import Job
from airflow_provider_luma.jobs.submit import Submission
from airflow_provider_luma.simulator import Simulator
from airflow_provider_luma.storage import LocalFile
from tests.claims.conftest import Database
from tests.claims.test_counterexamples import advised
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
from tests.storage.conftest import bucket, fresh_stores, gate, session_gate, store  # noqa: F401
from tests.support import API_KEY, MemoryStore, make_operator, recorded, set_connection, task_context

pytestmark = pytest.mark.usefixtures("connection")


# 3. live calls


@pytest.mark.parametrize("seconds", [20, 60, 120])
def test_a_live_v2_call_beside_a_retry_whose_history_refuses_the_key_is_not_paid_twice(
    monkeypatch: pytest.MonkeyPatch, frame: Path, clip: Path, seconds: int
) -> None:
    """timeout=60 s; the history answers 401, so the retry's search lasts no time at all."""
    with Simulator(latency=0.05, clip_seconds=0.2, api_key=API_KEY) as simulator:
        set_connection(monkeypatch, simulator.url, timeout=seconds)
        told: list[str] = []

        def retry() -> None:
            simulator.fault("history", "status", status=401, times=99)
            try:
                make_operator(frame, clip, on_unknown_submit="resubmit").execute(task_context())
            except LumaRayError as error:
                told.append(str(error))

        while_the_vendor_works(monkeypatch, "submit", retry)
        with suppress(LumaRayError):
            make_operator(frame, clip, on_unknown_submit="resubmit").execute(task_context())
        assert len(simulator.jobs) == 1, told


def test_not_bought_as_advised_beside_a_live_v2_call_is_refused(
    monkeypatch: pytest.MonkeyPatch, frame: Path, clip: Path
) -> None:
    with Simulator(latency=0.05, clip_seconds=0.2, api_key=API_KEY) as simulator:
        set_connection(monkeypatch, simulator.url, timeout=60)
        codes: list[Any] = []

        def retry() -> None:
            simulator.fault("history", "status", status=401, times=99)
            with pytest.raises(LumaRayError) as caught:
                make_operator(frame, clip).execute(task_context())
            print(caught.value)
            codes.append("ended during" in str(caught.value))
            with suppress(ValueError):
                codes.append(main(advised(caught.value, "not-bought")))
            with suppress(LumaRayError):
                make_operator(frame, clip).execute(task_context(clears=1))

        while_the_vendor_works(monkeypatch, "submit", retry)
        with suppress(LumaRayError):
            make_operator(frame, clip).execute(task_context())
        assert len(simulator.jobs) == 1, codes


@pytest.mark.parametrize("unknown", ["fail", "resubmit"])
def test_a_live_v1_call_whose_clock_could_not_be_learnt_is_not_said_to_have_ended(
    monkeypatch: pytest.MonkeyPatch, frame: Path, clip: Path, unknown: str
) -> None:
    with Simulator(latency=0.05, clip_seconds=0.2, api_key=API_KEY, history_lag=99999) as simulator:
        set_connection(monkeypatch, simulator.url, timeout=20)
        url = LumaRayHook().upload_image(frame)
        told: list[str] = []

        def retry() -> None:
            simulator.clear_faults()
            with suppress(LumaRayError):
                try:
                    make_operator(url, clip, api_version="v1", on_unknown_submit=unknown).execute(
                        task_context()
                    )
                except LumaRayError as error:
                    told.append(str(error))
                    raise

        simulator.fault("credits", "reset", times=20)
        while_the_vendor_works(monkeypatch, "generate", retry)
        with pytest.MonkeyPatch.context() as patched:
            wrong_clock(patched, -30)
            with suppress(LumaRayError):
                make_operator(url, clip, api_version="v1").execute(task_context())
        assert simulator.jobs == [], "nothing is bought while the vendor does not answer"
        assert told == []


# 4. settling


def test_not_bought_as_advised_is_about_the_call_that_the_error_is_about(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    """Two lost calls of one task: 'one' (not accepted), then 'two' (accepted, and paid). Back to 'one'."""
    lose(simulator, make_operator(frame, clip, prompt="one"), task_context(), accepted=False)
    lose(simulator, make_operator(frame, clip, prompt="two"), task_context(clears=1))
    with pytest.raises(LumaRaySubmitUnknown) as caught:
        make_operator(frame, clip, prompt="one").execute(task_context(clears=2))
    first = next(
        t
        for t in (recorded(clip), *recorded(clip).get("superseded", []))
        if t["parameters"]["prompt"] == "one"
    )
    assert first["intent_at"] in str(caught.value)
    simulator.fault("history", "status", status=401, times=99)
    code = main(advised(caught.value, "not-bought"))
    simulator.clear_faults()
    states = {
        t["parameters"]["prompt"]: t["state"] for t in (recorded(clip), *recorded(clip).get("superseded", []))
    }
    assert states["two"] == "intent", states
    assert (code, states["one"]) == (0, "failed")


def test_not_bought_as_advised_works_while_the_later_call_is_in_the_history(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    lose(simulator, make_operator(frame, clip, prompt="one"), task_context(), accepted=False)
    lose(simulator, make_operator(frame, clip, prompt="two"), task_context(clears=1))
    with pytest.raises(LumaRaySubmitUnknown) as caught:
        make_operator(frame, clip, prompt="one").execute(task_context(clears=2))
    assert main(advised(caught.value, "not-bought")) == 0


def test_not_bought_of_the_wrong_call_pays_twice(simulator: Simulator, frame: Path, clip: Path) -> None:
    lose(simulator, make_operator(frame, clip, prompt="one"), task_context(), accepted=False)
    simulator.delay_history("next", 600)
    lose(simulator, make_operator(frame, clip, prompt="two"), task_context(clears=1))
    with pytest.raises(LumaRaySubmitUnknown) as caught:
        make_operator(frame, clip, prompt="one").execute(task_context(clears=2))
    assert main(advised(caught.value, "not-bought")) == 0
    simulator.advance(700)
    with suppress(LumaRayError):
        make_operator(frame, clip, prompt="two").execute(task_context(clears=3))
    bought = [job.request_id for job in simulator.jobs]
    assert len(bought) == 1, "two's clip is bought twice, and the first is on no record: " + str(
        set(bought) - all_ids(clip)
    )


def nameless_delivered(simulator: Simulator, operator: Any, context: Any) -> None:
    simulator.fault("v1", "slow", seconds=0.0, request_id="")
    operator.execute(context)


def test_give_up_as_advised_is_about_the_clip_that_the_error_is_about(
    simulator: Simulator, frame: Path, tmp_path: Path, database: Database
) -> None:
    """An expired clip without an id, and a lost call of the same task at another path."""
    kept = database.stores["run_1", -1] = MemoryStore()
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    nameless_delivered(
        simulator, make_operator(frame, b, prompt="one", api_version="v1"), task_context(store=kept)
    )
    simulator.fault("download", "changed")
    make_operator(frame, b, prompt="x").execute(task_context(run_id="run_2", store=MemoryStore()))
    simulator.advance(40 * 24 * 3600)
    lose(simulator, make_operator(frame, a, prompt="two"), task_context(store=kept, clears=1))
    with pytest.MonkeyPatch.context() as patched:
        # the row is older than the 31 days that the vendor shows (the simulator's clock is not this machine's)
        patched.setattr(LumaRayHook, "find_jobs", lambda self, *a, **k: self.get_credits() and [])
        with pytest.raises(LumaRayError) as caught:
            make_operator(frame, b, prompt="one", api_version="v1").execute(
                task_context(store=kept, clears=2)
            )
    assert main([*advised(caught.value, "give-up"), "--yes"]) == 0
    states = {
        t["parameters"]["prompt"]: t["state"]
        for t in [kept.get("luma_ray_job"), *kept.get("luma_ray_job").get("superseded", [])]
    }
    assert states == {"one": "given_up", "two": "intent"}


@pytest.mark.parametrize("settle", ["not-bought", "give-up"])
def test_an_earlier_path_of_a_call_that_was_settled_at_the_edited_path_gets_free_as_advised(
    simulator: Simulator, frame: Path, tmp_path: Path, database: Database, settle: str
) -> None:
    kept = database.stores["run_1", -1] = MemoryStore()
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    lose(simulator, make_operator(frame, a), task_context(store=kept), accepted=False)
    with pytest.raises(LumaRaySubmitUnknown) as caught:
        make_operator(frame, b).execute(task_context(store=kept, clears=1))
    words = advised(caught.value, "not-bought")
    words[0] = settle
    assert main([*words, "--yes"]) == 0
    make_operator(frame, b).execute(task_context(store=kept, clears=2))
    make_operator(frame, a).execute(task_context(run_id="run_2", store=MemoryStore()))


def test_an_earlier_path_whose_file_was_locked_when_it_was_left_gets_free_as_advised(
    simulator: Simulator, frame: Path, tmp_path: Path, database: Database
) -> None:
    """The freeing fails, the job FAILS at the edited path, and its advice is followed."""
    kept = database.stores["run_1", -1] = MemoryStore()
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    simulator.fault("submit", "failed", message="no")
    late(simulator, make_operator(frame, a, **LATE), task_context(store=kept))
    with pytest.MonkeyPatch.context() as patched:

        def dies(*arguments: Any) -> None:
            pass  # as with any error there, which is only logged

        patched.setattr(Job, "_free_earlier_paths", dies)
        with pytest.raises(LumaRayJobFailed):
            make_operator(frame, b).execute(task_context(store=kept))
    make_operator(frame, b).execute(task_context(store=kept))
    with pytest.raises(LumaRayError) as caught:
        make_operator(frame, a).execute(task_context(run_id="run_2", store=MemoryStore()))
    main([*advised(caught.value, "give-up"), "--yes"])
    make_operator(frame, a).execute(task_context(run_id="run_2", store=MemoryStore()))


def test_the_commands_for_an_earlier_path_do_not_give_up_the_delivered_clip(
    simulator: Simulator, frame: Path, tmp_path: Path, database: Database
) -> None:
    """As above; the refused give-up names another command, which is followed too."""
    kept = database.stores["run_1", -1] = MemoryStore()
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    simulator.fault("submit", "failed", message="no")
    late(simulator, make_operator(frame, a, **LATE), task_context(store=kept))
    with pytest.MonkeyPatch.context() as patched:

        def fails(*arguments: Any) -> None:
            pass

        patched.setattr(Job, "_free_earlier_paths", fails)
        with pytest.raises(LumaRayJobFailed):
            make_operator(frame, b).execute(task_context(store=kept))
    two = make_operator(frame, b).execute(task_context(store=kept))
    with pytest.raises(LumaRayError) as caught:
        make_operator(frame, a).execute(task_context(run_id="run_2", store=MemoryStore()))
    told = io.StringIO()
    with redirect_stderr(told):
        main(advised(caught.value, "give-up"))
    assert "give up an earlier job" not in told.getvalue()
    again = make_operator(frame, b).execute(task_context(store=kept, clears=1))
    assert again["request_id"] == two["request_id"]


def test_a_path_that_a_lost_call_has_left_is_free(
    simulator: Simulator, frame: Path, tmp_path: Path, database: Database
) -> None:
    kept = database.stores["run_1", -1] = MemoryStore()
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    lose(simulator, make_operator(frame, a), task_context(store=kept), accepted=False)
    with pytest.raises(LumaRaySubmitUnknown) as caught:
        make_operator(frame, b).execute(task_context(store=kept, clears=1))
    assert main(advised(caught.value, "not-bought")) == 0
    two = make_operator(frame, b).execute(task_context(store=kept, clears=2))
    make_operator(frame, a).execute(task_context(run_id="run_2", store=MemoryStore()))
    again = make_operator(frame, b).execute(task_context(store=kept, clears=3))
    assert (again["request_id"], simulator.charges) == (two["request_id"], 2)


# 2. ids of v1 calls


def two_ids(simulator: Simulator, operator: Any, again: Any, first: Any, second: Any) -> None:
    """The payer's answer (a gateway's id) is recorded between its retry's search and the write of what it found."""
    answered, searched = threading.Event(), threading.Event()
    pay, bought = LumaRayHook.generate, Submission._bought
    payer: list[threading.Thread] = []
    with pytest.MonkeyPatch.context() as patched:

        def pays(self: LumaRayHook, *arguments: Any) -> Any:
            patched.setattr(LumaRayHook, "generate", pay)
            answer = pay(self, *arguments)
            answered.set()
            searched.wait(20)
            return answer

        def finds(self: Submission, *arguments: Any, **more: Any) -> Any:
            searched.set()
            payer[0].join(20)
            return bought(self, *arguments, **more)

        patched.setattr(LumaRayHook, "generate", pays)
        patched.setattr(Submission, "_bought", finds)
        simulator.fault("v1", "slow", seconds=0.0, request_id="gw-0001")

        def run() -> None:
            with suppress(BaseException):
                operator.execute(first)

        payer.append(threading.Thread(target=run))
        payer[0].start()
        answered.wait(20)
        simulator.advance(1)
        with suppress(LumaRayError):
            again.execute(second)
        payer[0].join(20)


def test_the_real_id_of_a_v1_call_is_taken_even_if_a_gateways_was_recorded_first(
    simulator: Simulator, frame: Path, tmp_path: Path, capsys: Any
) -> None:
    url = LumaRayHook().upload_image(frame)
    one, two = tmp_path / "v" / "one.mp4", tmp_path / "v" / "two.mp4"
    v1 = {"api_version": "v1"}
    two_ids(
        simulator,
        make_operator(url, one, **v1),
        make_operator(url, one, **v1),
        task_context(map_index=0),
        task_context(map_index=0),
    )
    record = recorded(one)
    real = simulator.jobs[0].request_id
    assert len(simulator.jobs) == 1
    assert {record.get("request_id"), record.get("answered_id")} == {"gw-0001", real}
    # another clip of the same inputs is lost, and a person adopts the first one's job
    simulator.fault("submit", "reset", accepted=True)
    outputs = make_operator(url, two).execute(task_context(map_index=1))
    assert outputs["request_id"] == simulator.jobs[1].request_id, "the first one's real id is taken"


def test_resubmit_beside_a_clip_with_a_gateways_id_buys_nothing_while_its_job_is_in_the_history(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    url = LumaRayHook().upload_image(frame)
    one, two = tmp_path / "v" / "one.mp4", tmp_path / "v" / "two.mp4"
    v1 = {"api_version": "v1"}
    two_ids(
        simulator,
        make_operator(url, one, **v1),
        make_operator(url, one, **v1),
        task_context(map_index=0),
        task_context(map_index=0),
    )
    simulator.fault("submit", "reset", accepted=True)
    with suppress(LumaRayError):
        make_operator(url, two, on_unknown_submit="resubmit").execute(task_context(map_index=1))
    assert len(simulator.jobs) == 2


# 4. v1 given up while it is paid for


def test_a_v1_call_that_is_given_up_while_it_renders(
    simulator: Simulator, frame: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    while_the_vendor_works(monkeypatch, "generate", lambda: main(["give-up", str(clip), "--yes"]))
    with suppress(LumaRayError):
        make_operator(frame, clip, api_version="v1").execute(task_context())
    told = refused(frame, clip, api_version="v1")
    assert "clear the task" in told
    make_operator(frame, clip, api_version="v1").execute(task_context(clears=1))
    assert len(simulator.jobs) == 2


# 6. another clip


def test_a_fallback_after_a_refusal_is_not_another_clip(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    simulator.fault("submit", "status", status=422, message="moderated")
    with set_current_context(task_context(store=MemoryStore())):
        with pytest.raises(LumaRayRefused):
            call(frame, clip, prompt="one")
        call(frame, clip, prompt="a tamer one")


def test_a_fallback_of_a_custom_operator_after_a_refusal(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    simulator.fault("submit", "status", status=422, message="moderated")
    context = task_context(store=MemoryStore())
    with pytest.raises(LumaRayRefused):
        make_operator(frame, clip, prompt="one").execute(context)
    make_operator(frame, clip, prompt="a tamer one").execute(context)


def test_arguments_that_cannot_be_copied(simulator: Simulator, frame: Path, clip: Path) -> None:
    frozen = MappingProxyType({"seed": 1})
    make_operator(frame, clip, extra_parameters=frozen).execute(task_context())


# 1. paths


def test_a_double_slash_in_a_key_is_another_object(simulator: Simulator, frame: Path, bucket: Any) -> None:  # noqa: F811
    kept = MemoryStore()
    a, b = "s3://store@media/clips//a.mp4", "s3://store@media/clips/a.mp4"
    late(simulator, make_operator(frame, a, **LATE), task_context(store=kept))
    make_operator(frame, b).execute(task_context(store=kept))
    make_operator(frame, a).execute(task_context(run_id="run_2", store=MemoryStore()))


# 5. in the same run


def test_a_bought_clip_beside_a_failed_one_of_the_same_run_is_not_refused(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    """The file at the path is last night's; the other task's job FAILED."""
    kept = MemoryStore()
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    make_operator(frame, a, prompt="last night").execute(task_context(run_id="run_0"))
    late(simulator, make_operator(frame, a, **LATE), task_context(store=kept))
    late(simulator, make_operator(frame, b, **LATE), task_context(store=kept))
    simulator.fault("submit", "status", status=402)
    with pytest.raises(LumaRayInsufficientCredits):
        make_operator(frame, a, prompt="x").execute(task_context("other"))
    outputs = make_operator(frame, a).execute(task_context(store=kept))
    assert outputs["request_id"] == simulator.jobs[1].request_id


# 5. more of the same run


@pytest.mark.parametrize("mode", ["overwrite", "reuse", "fail"])
def test_the_same_run_refusals_advice_fetches_the_video_as_it_says(
    simulator: Simulator, frame: Path, tmp_path: Path, mode: Any
) -> None:
    """Mapping shifted: index 1's bought clip (B) is retried with A's path and prompt, where index 0 has delivered."""
    zero, one = MemoryStore(), MemoryStore()
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    made = {"if_exists": mode}
    make_operator(frame, a, prompt="A", **made).execute(task_context(map_index=0, store=zero))
    late(simulator, make_operator(frame, b, prompt="B", **made, **LATE), task_context(map_index=1, store=one))
    with pytest.raises(
        LumaRayConfigurationError, match="with the inputs that it was bought for: it fetches it"
    ):
        make_operator(frame, a, prompt="A", **made).execute(task_context(map_index=1, store=one))
    a.rename(tmp_path / "away.mp4")  # "To get this video, move that one away, then clear the task."
    outputs = make_operator(frame, a, prompt="B", **made).execute(
        task_context(map_index=1, store=one, clears=1)
    )
    assert (outputs["request_id"], len(simulator.jobs)) == (simulator.jobs[1].request_id, 2)


def test_two_bought_clips_whose_paths_were_swapped_are_delivered_as_the_error_says(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    stores = [MemoryStore(), MemoryStore()]
    paths = [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    for i in (0, 1):
        late(
            simulator,
            make_operator(frame, paths[i], prompt=f"{i}", **LATE),
            task_context(map_index=i, store=stores[i]),
        )
    told = []
    for _ in range(4):  # "Once that job is done, a retry delivers this one's video."
        for i in (0, 1):
            try:
                make_operator(frame, paths[1 - i], prompt=f"{1 - i}").execute(
                    task_context(map_index=i, store=stores[i])
                )
            except LumaRayError as error:
                told.append(str(error))
    assert len(told) < 8, "each waits for the other"


# 4. adopt


def test_adopt_as_advised_is_about_the_clip_that_the_error_is_about(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    """Tag 1's call was lost and bought nothing; tag 2's clip (same body, v1, no id) could not be stored."""
    url = LumaRayHook().upload_image(frame)
    lose(simulator, make_operator(url, clip, generation_tag="1"), task_context(), accepted=False)
    simulator.fault("v1", "slow", seconds=0.0, request_id="")
    two = {"generation_tag": "2", "api_version": "v1"}
    with pytest.MonkeyPatch.context() as patched:

        def full(*arguments: Any) -> None:
            raise OSError(errno.ENOSPC, "full")

        patched.setattr(LocalFile, "put", full)
        with pytest.raises(LumaRayError):
            make_operator(url, clip, **two).execute(task_context(clears=1))
    with pytest.raises(LumaRaySubmitUnknown) as caught:
        make_operator(url, clip, **two).execute(task_context(clears=1))
    assert main(adopts(caught.value, simulator.jobs[0].request_id)) == 0
    {
        t["generation_tag"]: (t["state"], t.get("request_id"))
        for t in (recorded(clip), *recorded(clip).get("superseded", []))
    }
    outputs = make_operator(url, clip, **two).execute(task_context(clears=1))
    assert (outputs["request_id"], len(simulator.jobs)) == (simulator.jobs[0].request_id, 1)


# 3. credits before a v1 call


@pytest.mark.parametrize(
    "fault",
    [
        ("status", {"status": 401}),
        ("status", {"status": 429}),
        ("status", {"status": 500}),
        ("broken_json", {}),
        ("reset", {}),
        ("slow", {"seconds": 0.5}),
    ],
    ids=str,
)
def test_trouble_with_the_credits_does_not_keep_v1_from_buying_once(
    simulator: Simulator, frame: Path, clip: Path, fault: Any
) -> None:
    url = LumaRayHook().upload_image(frame)
    simulator.fault("credits", fault[0], times=3, **fault[1])
    make_operator(url, clip, api_version="v1", timeout=timedelta(seconds=30)).execute(task_context())
    assert simulator.charges == 1


# 1. keep


def test_keep_finishes_a_bought_clip_at_an_edited_path_on_a_retry(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    kept = MemoryStore()
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    late(simulator, make_operator(frame, a, if_exists="keep", **LATE), task_context(store=kept))
    make_operator(frame, b, if_exists="keep").execute(task_context(store=kept))
    assert len(simulator.jobs) == 1


# 7. names


def test_names_of_tasks_and_keys_in_one_folder_do_not_collide(
    simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    from airflow_provider_luma.jobs.ledger import clip_name
    from airflow_provider_luma.jobs.record import Identity

    tasks = ["gen", "gen-1", "gen-1-1", "gen-01", "gen.mp4", "gen-١", "GEN"]
    seen: dict[str, Any] = {}
    for task in tasks:
        for index in (-1, 0, 1, 11):
            for key in (None, "k", "gen", "k/1", "gen-1"):
                one = Identity(dag_id="d", run_id="r", task_id=task, map_index=index, key=key)
                name = clip_name(one)
                assert name not in seen, (one, seen[name])
                seen[name] = one
