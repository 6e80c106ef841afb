"""Night after night, whatever happens to frames, clips, prompt and runs: a state machine."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from airflow.sdk.execution_time.context import set_current_context
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from PIL import Image

from airflow_provider_luma.batch import plan_batch
from airflow_provider_luma.exceptions import LumaRayError
from airflow_provider_luma.simulator import Simulator
from tests.support import API_KEY, MemoryStore, make_operator, set_connection, task_context

PRICE = 1.6
NAMES = [f"{letter}.jpg" for letter in "abcdefgh"]


class Run:
    """A night's run: its plan, its mapped tasks and their state in Airflow."""

    def __init__(self, name: str, cap: int) -> None:
        self.name = name
        self.cap = cap
        self.clears = 0
        self.planned: list[dict[str, Any]] = []
        self.stores: dict[int, MemoryStore] = {}


class Nights(RuleBasedStateMachine):
    """Runs that are planned, executed task by task in any order, retried, cleared, and overlap."""

    @initialize()
    def begin(self) -> None:
        self.patch = pytest.MonkeyPatch()
        self.folder = TemporaryDirectory()
        root = Path(self.folder.name)
        self.frames, self.videos = root / "frames", root / "videos"
        self.frames.mkdir()
        self.videos.mkdir()
        self.simulator = Simulator(
            latency=0, clip_seconds=0.2, credits="1000", api_key=API_KEY, work_dir=CLIPS.name
        )
        self.simulator.__enter__()
        set_connection(self.patch, self.simulator.url, timeout=5, requests_per_minute=100_000)
        self.runs: list[Run] = []
        self.prompt = "a"
        self.versions: Counter[str] = Counter()

    def teardown(self) -> None:
        if hasattr(self, "simulator"):
            self.simulator.__exit__(None, None, None)
            self.patch.undo()
            self.folder.cleanup()

    @rule(name=st.sampled_from(NAMES))
    def add_or_replace(self, name: str) -> None:
        self.versions[name] += 1
        path = self.frames / name
        shutil.copy(FRAME, path)
        with path.open("ab") as file:
            file.write(f"{name}{self.versions[name]}".encode())

    @rule(name=st.sampled_from(NAMES))
    def remove(self, name: str) -> None:
        (self.frames / name).unlink(missing_ok=True)

    @rule(name=st.sampled_from(NAMES))
    def delete_clip(self, name: str) -> None:
        (self.videos / f"{name}.mp4").unlink(missing_ok=True)

    @rule(prompt=st.sampled_from("abc"))
    def edit_prompt(self, prompt: str) -> None:
        self.prompt = prompt

    @rule(clips=st.integers(0, 4))
    def new_night(self, clips: int) -> None:
        self.runs.append(Run(f"night{len(self.runs)}", clips))
        self.plan(self.runs[-1])

    def plan(self, run: Run) -> None:
        with set_current_context(task_context("plan", run_id=run.name)):
            run.planned = plan_batch(str(self.frames), str(self.videos), max_credits=run.cap * PRICE)
        assert len({item["output_path"] for item in run.planned}) == len(run.planned)

    def execute(self, run: Run, index: int) -> LumaRayError | None:
        store = run.stores.setdefault(index, MemoryStore())
        context = task_context(run_id=run.name, map_index=index, store=store, clears=run.clears)
        operator = make_operator(**run.planned[index], prompt=self.prompt, poll_interval=0.001)
        try:
            operator.execute(context)
        except LumaRayError as error:
            return error
        return None

    @precondition(lambda self: any(run.planned for run in self.runs))
    @rule(data=st.data(), trouble=st.sampled_from(["", "", "lost reply", "no download", "FAILED"]))
    def run_a_task(self, data: st.DataObject, trouble: str) -> None:
        run = data.draw(st.sampled_from([run for run in self.runs if run.planned]))
        index = data.draw(st.integers(0, len(run.planned) - 1))
        faults: dict[str, tuple[Any, ...]] = {
            "lost reply": ("submit", "reset"),
            "no download": ("download", 503),
            "FAILED": ("submit", "failed"),
        }
        if trouble:
            call, kind = faults[trouble]
            if isinstance(kind, int):
                self.simulator.fault(call, "status", status=kind, times=6 if call == "download" else 1)
            else:
                self.simulator.fault(call, kind)
        self.execute(run, index)
        self.simulator.clear_faults()

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def clear(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from(self.runs))
        run.clears += 1
        self.plan(run)

    @invariant()
    def no_run_spends_more_than_its_cap(self) -> None:
        if not hasattr(self, "simulator"):
            return
        for run in self.runs:
            bought = {
                take["request_id"]
                for take in self.takes()
                if take["identity"]["run_id"] == run.name
                and take.get("request_id")
                and take["state"] != "failed"
            }
            assert len(bought) <= run.cap, f"{run.name} bought {len(bought)} at a cap of {run.cap}"

    def takes(self) -> list[dict[str, Any]]:
        """Return all takes on record."""
        found = []
        for path in self.videos.rglob("*.job.json"):
            record = json.loads(path.read_text())
            found += [record, *record.get("superseded", [])]
        return found

    @invariant()
    def every_charge_is_on_record(self) -> None:
        if not hasattr(self, "simulator"):
            return
        known = {take.get("request_id") for take in self.takes()}
        open_calls = sum(take["state"] == "intent" for take in self.takes())
        sold = [job.request_id for job in self.simulator.jobs]
        assert len([request_id for request_id in sold if request_id not in known]) <= open_calls

    @rule()
    def in_the_end_every_frame_gets_its_clip(self) -> None:
        """Run nights with enough money, after each run has settled what it left open."""
        for run in self.runs:
            run.clears += 1
            self.plan(run)
            for index in range(len(run.planned)):
                assert self.execute(run, index) is None
        before = self.simulator.charges
        missing = [p.name for p in self.frames.iterdir() if not (self.videos / f"{p.name}.mp4").exists()]
        self.new_night(len(missing))
        last = self.runs[-1]
        for index in range(len(last.planned)):
            assert self.execute(last, index) is None
        assert all((self.videos / f"{path.name}.mp4").exists() for path in self.frames.iterdir())
        assert self.simulator.charges == before + len(missing), "none is bought while it lies there"


CLIPS = TemporaryDirectory()
FRAME = Path(CLIPS.name) / "frame.jpg"
Image.linear_gradient("L").convert("RGB").save(FRAME)

TestNights = Nights.TestCase
TestNights.settings = settings(
    deadline=None,
    max_examples=40,
    stateful_step_count=25,
    suppress_health_check=list(HealthCheck),
)
