"""A batch's plan: names, order, and the budget over real HTTP; runs that are cleared, shifted or repeated."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from traceback import extract_tb
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk.execution_time.context import set_current_context

from airflow_provider_luma.batch import plan_batch
from airflow_provider_luma.exceptions import (
    LumaRayConfigurationError,
    LumaRayError,
    LumaRayInsufficientCredits,
    LumaRayTimeout,
)
from airflow_provider_luma.jobs.job import Job
from airflow_provider_luma.simulator import Simulator
from airflow_provider_luma.storage import LocalFile
from airflow_provider_luma.storage.base import Version
from tests.buckets import s3_server
from tests.support import MemoryStore, make_operator, task_context

pytestmark = pytest.mark.usefixtures("connection")


@pytest.fixture
def folder(tmp_path: Path, frame: Path) -> Callable[..., Path]:
    """Write frames into the folder of frames."""

    def put(*names: str) -> Path:
        for name in names:
            path = tmp_path / "frames" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(frame, path)
            with path.open("ab") as file:
                file.write(name.encode())  # each a picture of its own
        return tmp_path / "frames"

    return put


def plan(
    frames: Path | str,
    *,
    run_id: str = "run_1",
    max_credits: Any = 100,
    due: datetime | None = None,
    **arguments: Any,
) -> Any:
    videos = arguments.pop("videos", f"{Path(frames).parent}/videos/")
    context = task_context("plan", run_id=run_id)
    context["dag_run"].run_after = due
    with set_current_context(context):
        return plan_batch(str(frames), videos, max_credits=max_credits, **arguments)


class Run:
    """A run's mapped tasks, each with the state store of its map index."""

    def __init__(self, run_id: str = "run_1") -> None:
        self.run_id = run_id
        self._clears = -1
        self._stores: dict[int, MemoryStore] = {}

    def generate(
        self, planned: list[dict[str, Any]], **arguments: Any
    ) -> list[dict[str, Any] | LumaRayError]:
        """Run the tasks in order, cleared if they ran before; an error of one does not stop the next."""
        self._clears += 1
        done: list[dict[str, Any] | LumaRayError] = []
        for index, given in enumerate(planned):
            store = self._stores.setdefault(index, MemoryStore())
            context = task_context(run_id=self.run_id, map_index=index, store=store, clears=self._clears)
            operator = make_operator(**given, **arguments)
            try:
                done.append(operator.execute(context))
            except LumaRayError as error:
                done.append(error)
        return done


def ids(done: list[dict[str, Any] | LumaRayError]) -> list[Any]:
    """Return the ids of the clips that were made; errors stay errors."""
    return [item["request_id"] if isinstance(item, dict) else item for item in done]


def test_every_frame_gets_its_own_clip_in_a_stable_order(folder: Callable[..., Path]) -> None:
    names = ["b.PNG", "a.jpg", "a.png", "sub/a.jpg", "sub/x y.jpg", "sub/x-y.jpg", "sub/x+y.jpg", "ä.webp"]
    frames = folder(*names, "notes.txt", "clip.mp4", "noextension")
    planned = plan(frames)
    assert [Path(item["start_frame"]).relative_to(frames).as_posix() for item in planned] == sorted(names)
    outputs = [Path(item["output_path"]).relative_to(frames.parent / "videos") for item in planned]
    assert len(set(outputs)) == len(names)
    assert {"a.jpg.mp4", "a.png.mp4", "sub/a.jpg.mp4"} < {path.as_posix() for path in outputs}
    assert all(part.isascii() and " " not in part for path in outputs for part in path.parts)
    assert planned == plan(frames)


def test_the_plan_fits_the_operator(folder: Callable[..., Path]) -> None:
    planned = plan(folder("a.jpg"), max_credits=8, storage_conn_id="shelf")
    assert {name: value for name, value in planned[0].items() if not name.endswith(("frame", "path"))} == {
        "model": "luma-ray-img-2-video",
        "if_exists": "keep",
        "luma_ray_conn_id": "luma_ray_default",
        "storage_conn_id": "shelf",
    }
    make_operator(**planned[0])


def test_an_empty_folder_is_an_empty_plan(folder: Callable[..., Path]) -> None:
    assert plan(folder("notes.txt")) == []


@pytest.mark.parametrize(
    ("balance", "max_credits", "kind", "sentence"),
    [
        ("20", 3.19, LumaRayConfigurationError, r"not cover the batch: 1 frame left \(1\.60 USD\)"),
        ("3.1", 8, LumaRayInsufficientCredits, r"not cover .* the balance of 3\.10 USD, covers 1 clip"),
        ("20", "much", LumaRayConfigurationError, r"max_credits='much' is wrong: give US dollars"),
        ("20", -1, LumaRayConfigurationError, r"max_credits=-1 is wrong"),
    ],
)  # fmt: skip
def test_require_all_reports_too_little_money_before_the_first_purchase(
    simulator: Simulator,
    folder: Callable[..., Path],
    balance: str,
    max_credits: Any,
    kind: type,
    sentence: str,
) -> None:
    simulator.set_credits(balance)
    with pytest.raises(kind, match=sentence) as refused:
        plan(folder("a.jpg", "b.jpg"), max_credits=max_credits, require_all=True)
    assert isinstance(refused.value, AirflowFailException)
    assert simulator.jobs == []


def test_bad_folders_and_models_are_reported_in_one_sentence(
    folder: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(
        LumaRayConfigurationError, match="frames='/nowhere' is wrong: give a folder that exists"
    ) as refused:
        plan("/nowhere", videos=str(tmp_path))
    frames = [one.name for one in extract_tb(refused.value.__traceback__)]
    assert "plan_batch" not in frames, "the log would show ours above the sentence"
    with pytest.raises(LumaRayConfigurationError, match="model='luma-ray-9' is wrong: give one whose price"):
        plan(folder("a.jpg"), model="luma-ray-9")


def test_frames_of_a_bucket(
    monkeypatch: pytest.MonkeyPatch, simulator: Simulator, frame: Path, tmp_path: Path
) -> None:
    with s3_server() as (connection, s3):
        monkeypatch.setenv("AIRFLOW_CONN_SHELF", connection)
        for bucket in ("photos", "clips"):
            s3.create_bucket(Bucket=bucket)
        for name in ("new/b.jpg", "new/sub/a b.jpg", "new/notes.txt", "newer/c.jpg", "new/"):
            s3.put_object(Bucket="photos", Key=name, Body=frame.read_bytes())
        s3.put_object(Bucket="clips", Key="2026/b.jpg.mp4", Body=b"there")
        folders: dict[str, Any] = {"videos": "s3://clips/2026/", "storage_conn_id": "shelf"}
        planned = plan("s3://photos/new", max_credits=1.6, **folders)
        assert [(item["start_frame"], item["output_path"]) for item in planned] == [
            ("s3://photos/new/sub/a b.jpg", "s3://clips/2026/sub/a-b.jpg-1f97f74b.mp4"),
        ]
        assert plan("s3://shelf@photos/new/", videos="s3://shelf@clips/2026", max_credits=1.6) == [
            item
            | {"storage_conn_id": None}
            | {name: item[name].replace("s3://", "s3://shelf@") for name in ("start_frame", "output_path")}
            for item in planned
        ]
        # What others change meanwhile is seen, whatever this process has listed before.
        s3.put_object(Bucket="photos", Key="new/c.jpg", Body=frame.read_bytes())
        s3.delete_object(Bucket="clips", Key="2026/b.jpg.mp4")
        names = [Path(item["start_frame"]).name for item in plan("s3://photos/new", max_credits=8, **folders)]
        assert names == ["b.jpg", "c.jpg", "a b.jpg"]
        with pytest.raises(
            LumaRayConfigurationError, match=r"frames='s3://nowhere/new' is wrong: give a folder"
        ):
            plan("s3://nowhere/new", **folders)
        with pytest.raises(
            LumaRayConfigurationError, match=r"videos='s3://nowhere/' is wrong: give a folder"
        ):
            plan("s3://photos/new", **folders | {"videos": "s3://nowhere/"})


def test_what_fits_is_bought_and_the_rest_is_for_the_next_run(
    simulator: Simulator, folder: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    frames = folder(*(f"{number}.jpg" for number in range(5)))
    names = []
    with caplog.at_level("INFO"):
        for night in ("monday", "tuesday", "wednesday", "thursday"):
            planned = plan(frames, run_id=night, max_credits=3.2)
            Run(night).generate(planned)
            names.append([Path(item["start_frame"]).name for item in planned])
    assert names == [["0.jpg", "1.jpg"], ["2.jpg", "3.jpg"], ["4.jpg"], []]
    assert simulator.charges == 5
    assert "3 frames left (4.80 USD)" in caplog.text
    assert "at this pace 2 more runs" in caplog.text


@pytest.mark.parametrize(("balance", "fits"), [("3.3", 2), ("0.1", 0)])
def test_no_more_is_planned_than_the_balance_covers(
    simulator: Simulator, folder: Callable[..., Path], balance: str, fits: int
) -> None:
    simulator.set_credits(balance)
    assert len(plan(folder("a.jpg", "b.jpg", "c.jpg"))) == fits


def test_a_plan_without_purchases_needs_no_balance(simulator: Simulator, folder: Callable[..., Path]) -> None:
    run = Run()
    first = run.generate(plan(folder("a.jpg")))
    simulator.set_credits("0")
    asked = simulator.calls["credits"]
    assert plan(folder(), run_id="tuesday", max_credits=0) == []
    assert simulator.calls["credits"] == asked
    assert ids(run.generate(plan(folder(), max_credits=0))) == ids(first)


def test_no_more_is_planned_than_airflow_maps(
    monkeypatch: pytest.MonkeyPatch, simulator: Simulator, folder: Callable[..., Path]
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "2")
    frames = folder("a.jpg", "b.jpg", "c.jpg")
    assert [Path(item["start_frame"]).name for item in plan(frames)] == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize("change", ["the prompt", "the frame", "the tag", "the order"])
def test_a_cleared_run_spends_no_more_than_its_cap_whatever_was_edited(
    simulator: Simulator, folder: Callable[..., Path], change: str
) -> None:
    """A regression: 32 USD were spent at a cap of 20."""
    run, frames = Run(), folder("b.jpg", "c.jpg")
    first = run.generate(plan(frames, max_credits=3.2))
    arguments: dict[str, Any] = {"the prompt": {"prompt": "x"}, "the tag": {"generation_tag": "2"}}.get(
        change, {}
    )
    if change == "the frame":
        (frames / "b.jpg").write_bytes((frames / "c.jpg").read_bytes())
    if change == "the order":
        folder("a.jpg")
    assert ids(run.generate(plan(frames, max_credits=3.2), **arguments)) == ids(first)
    assert simulator.charges == 2


def test_a_deleted_clip_of_this_run_is_fetched_again_and_an_older_one_is_bought(
    simulator: Simulator, folder: Callable[..., Path]
) -> None:
    run, frames = Run("monday"), folder("a.jpg")
    first = run.generate(plan(frames, run_id="monday", max_credits=1.6))
    clip = frames.parent / "videos" / "a.jpg.mp4"
    clip.unlink()
    assert ids(run.generate(plan(frames, run_id="monday", max_credits=1.6))) == ids(first)
    assert simulator.charges == 1
    clip.unlink()
    Run("tuesday").generate(plan(frames, run_id="tuesday", max_credits=1.6))
    assert simulator.charges == 2


def test_what_another_run_has_in_flight_is_left_to_it(
    simulator: Simulator,
    folder: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    frames, monday = folder("a.jpg", "b.jpg"), Run("monday")
    with monkeypatch.context() as patched:
        patched.setattr(Job, "wait", stop)
        monday.generate(plan(frames, run_id="monday", max_credits=1.6))
    planned = plan(frames, run_id="tuesday")
    assert [Path(item["start_frame"]).name for item in planned] == ["b.jpg"]
    assert "a.jpg.mp4 is left to clips.generate[0] in run monday" in caplog.text
    Run("tuesday").generate(planned)
    monday.generate(plan(frames, run_id="monday", max_credits=1.6))
    assert simulator.charges == 2
    assert plan(frames, run_id="wednesday") == []


def test_a_record_that_cannot_be_read_leaves_its_clip_out_and_counts_as_spent(
    simulator: Simulator, folder: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    frames = folder("a.jpg", "b.jpg", "c.jpg")
    videos = frames.parent / "videos"
    videos.mkdir()
    (videos / "a.jpg.mp4.job.json").write_text("{")
    assert [Path(item["start_frame"]).name for item in plan(frames, max_credits=3.2)] == ["b.jpg"]
    assert "a.jpg.mp4 is left out" in caplog.text


def test_only_records_that_may_matter_are_read(
    simulator: Simulator, folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = folder("a.jpg", "b.jpg")
    Run("monday").generate(plan(frames, run_id="monday"))
    videos = frames.parent / "videos"
    for path in videos.iterdir():
        os.utime(path, (0, 0))
    read: list[str] = []

    def note(self: LocalFile) -> Version | None:
        read.append(self.name)
        return before(self)

    before = LocalFile.read_version
    monkeypatch.setattr(LocalFile, "read_version", note)
    assert plan(folder("c.jpg"), run_id="tuesday", due=datetime.now(UTC)) != []
    assert read == []


def test_twenty_tasks_at_once_under_a_cap_of_ten(simulator: Simulator, folder: Callable[..., Path]) -> None:
    simulator.set_credits("100")
    frames = folder(*(f"{number:02}.jpg" for number in range(20)))
    planned = plan(frames, max_credits=16)
    with ThreadPoolExecutor(20) as threads:
        for index, given in enumerate(planned):
            threads.submit(make_operator(**given).execute, task_context(map_index=index))
    assert (len(planned), simulator.charges) == (10, 10)


def test_one_failure_does_not_stop_the_rest(simulator: Simulator, folder: Callable[..., Path]) -> None:
    frames = folder("a.jpg", "b.jpg", "c.jpg")
    (frames / "b.jpg").write_text("no image")
    planned = plan(frames)
    (frames / "c.jpg").unlink()  # vanishes between listing and reading
    done = Run().generate(planned)
    assert [isinstance(item, LumaRayConfigurationError) for item in done] == [False, True, True]
    assert simulator.charges == 1


def test_another_night_buys_what_is_missing(simulator: Simulator, folder: Callable[..., Path]) -> None:
    Run("monday").generate(plan(folder("a.jpg", "b.jpg"), run_id="monday"))
    planned = plan(folder("c.jpg"), run_id="tuesday", max_credits=1.6)
    done = Run("tuesday").generate(planned)
    assert [item["credits_used"] for item in done if isinstance(item, dict)] == [1.6]
    assert simulator.charges == 3


def test_a_frame_that_comes_first_is_all_that_a_cleared_run_buys(
    simulator: Simulator, folder: Callable[..., Path]
) -> None:
    run = Run()
    first = run.generate(plan(folder("b.jpg", "c.jpg")))
    done = run.generate(plan(folder("a.jpg")))
    bought = [item for item in done if isinstance(item, dict)]
    assert [item["credits_used"] for item in bought] == [1.6, 1.6, 1.6], "what each of this run's clips cost"
    assert ids(done)[:2] == ids(first), "each at the index that it had"
    assert simulator.charges == 3
    assert [item["video_path"] for item in bought] == [
        item["video_path"] for item in run.generate(plan(folder())) if isinstance(item, dict)
    ]
    assert simulator.charges == 3


def test_clearing_the_plan_does_not_renew_the_cap(simulator: Simulator, folder: Callable[..., Path]) -> None:
    run = Run()
    run.generate(plan(folder("a.jpg", "b.jpg"), max_credits=3.2))
    assert len(plan(folder("c.jpg"), max_credits=3.2)) == 2
    assert len(plan(folder(), max_credits=4.8)) == 3
    assert len(plan(folder(), max_credits=1.6, run_id="run_2")) == 1


def test_a_plan_counts_a_shifted_clip_once(simulator: Simulator, folder: Callable[..., Path]) -> None:
    run = Run()
    run.generate(plan(folder("b.jpg"), max_credits=3.2))
    run.generate(plan(folder("a.jpg"), max_credits=3.2))
    assert simulator.charges == 2
    assert len(plan(folder(), max_credits=3.2)) == 2


def stop(*args: object, **options: object) -> None:
    raise LumaRayTimeout("stopped")


def test_what_is_in_flight_is_neither_bought_again_nor_forgotten(
    simulator: Simulator, folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run()
    frames = folder("a.jpg", "b.jpg")
    with monkeypatch.context() as patched:
        patched.setattr(Job, "wait", stop)
        run.generate(plan(frames, max_credits=3.2)[:1])
    assert len(plan(frames, max_credits=3.1)) == 1, "the one in flight counts"
    folder("0.jpg")  # and is found again at another index
    assert [isinstance(item, dict) for item in run.generate(plan(frames, max_credits=4.8))] == [True] * 3
    assert simulator.charges == 3


def test_the_cap_holds_though_a_job_failed_and_the_mapping_grew(
    simulator: Simulator, folder: Callable[..., Path]
) -> None:
    run, frames = Run(), folder("x.jpg")
    run.generate(plan(frames, max_credits=3.2))
    simulator.fault("submit", "failed")
    run.generate(plan(folder("a.jpg"), max_credits=3.2))
    run.generate(plan(folder("b.jpg"), max_credits=3.2))
    assert (simulator.charges, float(simulator.spent)) == (2, 3.2)


def test_a_clip_is_identified_by_its_file_however_its_path_is_spelled(
    simulator: Simulator, frame: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Job, "wait", stop)
        with pytest.raises(LumaRayTimeout):
            make_operator(frame, clip, if_exists="keep").execute(task_context())
    spelled = f"{clip.parent}/../{clip.parent.name}/{clip.name}"
    make_operator(frame, spelled, if_exists="keep").execute(task_context(clears=1))
    assert simulator.charges == 1


def test_a_resubmitted_lost_call_is_not_bought_again_with_each_clear(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    keep: dict[str, Any] = {"if_exists": "keep", "on_unknown_submit": "resubmit"}
    simulator.fault("submit", "reset", accepted=False)
    first = make_operator(frame, clip, **keep).execute(task_context())
    again = make_operator(frame, clip, **keep).execute(task_context(clears=1))
    assert (again["request_id"], simulator.charges) == (first["request_id"], 1)


def test_a_clip_that_a_sibling_has_bought_is_fetched_at_another_index(
    simulator: Simulator, frame: Path, clip: Path
) -> None:
    first = make_operator(frame, clip, if_exists="keep").execute(task_context(map_index=0))
    clip.unlink()
    again = make_operator(frame, clip, if_exists="keep").execute(task_context(map_index=1))
    assert again["request_id"] == first["request_id"]
    assert (clip.exists(), simulator.charges) == (True, 1)


def test_wrong_inputs_of_a_batch_are_reported_in_one_sentence(
    simulator: Simulator, frame: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = MemoryStore()
    with monkeypatch.context() as patched:
        patched.setattr(Job, "wait", stop)
        with pytest.raises(LumaRayTimeout):
            make_operator(frame, tmp_path / "x.mp4", if_exists="keep").execute(task_context(store=kept))
    with pytest.raises(LumaRayConfigurationError, match=r"gone\.jpg' does not exist"):
        make_operator(tmp_path / "gone.jpg", tmp_path / "y.mp4", if_exists="keep").execute(
            task_context(store=kept)
        )
