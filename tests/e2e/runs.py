"""DAG runs that buy videos, distinguished by their loopback addresses, and what must be true at their end."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import av

from airflow_provider_luma.simulator import Simulator
from airflow_provider_luma.simulator.simulator import JobSnapshot
from airflow_provider_luma.storage.local import LOCK_NAME
from tests.e2e import processes
from tests.e2e.cluster import FINISHED, Cluster

PRICE = 1.6
#: A latency longer than any test: such jobs end when the test advances the clock.
HELD = 1800.0
_STANDING = ("state", "request_id", "fingerprint", "bytes", "sha256", "superseded")
_NUMBERS = count()


@dataclass(frozen=True)
class Run:
    """One DAG run.

    :param host: its own loopback address, which identifies its requests in the simulator's log
    """

    dag_id: str
    run_id: str
    host: str
    folder: Path
    pids: Path

    def __str__(self) -> str:
        return f"{self.dag_id} {self.run_id}"

    def video(self, map_index: int = -1) -> Path:
        """Return the path of the video."""
        return self.folder / (f"generate-{map_index}.mp4" if map_index >= 0 else "generate.mp4")

    def record(self, map_index: int = -1) -> dict[str, Any]:
        """Return the sidecar record; empty if there is none yet."""
        try:
            record: dict[str, Any] = json.loads(Path(f"{self.video(map_index)}.job.json").read_text())
        except FileNotFoundError:
            return {}
        return record

    def task_pids(self, attempt: int) -> list[int]:
        """Return the processes that ran an attempt; one that defers has two."""
        names = [path.name.split("_") for path in self.pids.iterdir()]
        return [int(pid) for try_number, _, pid in names if int(try_number) == attempt]

    def live_pid(self, attempt: int) -> int | None:
        """Return the process that is running an attempt."""
        return next(filter(processes.read, self.task_pids(attempt)), None)


class Runs:
    """Starts DAG runs against one simulator, and checks how they ended.

    :param folder: where frames, videos and process ids go
    """

    def __init__(self, cluster: Cluster, simulator: Simulator, frame: Path, folder: Path) -> None:
        self.cluster = cluster
        self.simulator = simulator
        self._frame = frame
        self._folder = folder
        self._port = urlsplit(simulator.url).port

    def start(self, dag_id: str, *, key: str | None = None, **conf: Any) -> Run:
        """Start a DAG run with its own connection; all connections have the same account.

        :param key: the API key; None: the account's
        """
        number = next(_NUMBERS)
        run_id, host = f"run_{number}", f"127.1.{number // 250}.{number % 250 + 1}"
        run = Run(
            dag_id=dag_id,
            run_id=run_id,
            host=host,
            folder=self._folder / "videos" / dag_id / run_id,
            pids=self._folder / "pids" / run_id,
        )
        run.pids.mkdir(parents=True)
        self.cluster.connect(run_id, f"http://{host}:{self._port}", key or self.simulator.api_key)
        self.cluster.trigger(
            dag_id,
            run_id,
            frame=str(self._frame),
            videos=str(self._folder / "videos"),
            connection=run_id,
            pids=str(run.pids),
            **conf,
        )
        return run

    def calls(self) -> Iterator[tuple[str, str]]:
        """Yield host and call of all requests so far."""
        for request in self.simulator.requests:
            yield request.headers["Host"].partition(":")[0], request.call

    def jobs(self, run: Run) -> list[JobSnapshot]:
        """Return the jobs that a run bought, identified by the URL of its uploaded frame."""
        return [job for job in self.simulator.jobs if urlsplit(job.body["start_frame"]).hostname == run.host]

    def wait(self, runs: list[Run], *, timeout: float = 900) -> dict[Run, str]:
        """Wait until Airflow has ended the runs; return their states."""

        def ended() -> dict[Run, str]:
            states = {dag_id: self.cluster.run_states(dag_id) for dag_id in {run.dag_id for run in runs}}
            found = {run: states[run.dag_id][run.run_id] for run in runs}
            return found if all(state in FINISHED for state in found.values()) else {}

        return self.cluster.wait(f"{len(runs)} runs end", ended, timeout=timeout, every=1)

    def wait_deferred(self, run: Run, amount: int) -> None:
        """Wait until that many tasks of a run have bought their jobs and are deferred."""

        def deferred() -> bool:
            found = self.cluster.task_instances(run.dag_id, run.run_id)
            return sum(ti["state"] == "deferred" for ti in found) == amount

        self.cluster.wait(f"{amount} tasks are deferred", deferred, timeout=900, every=2)

    def wait_call(self, run: Run, call: str) -> int:
        """Wait until a run's first attempt has made a call; return its process."""
        seen = (run.host, call)
        self.cluster.wait(f"{run} calls {call}", lambda: seen in set(self.calls()), every=0.01)
        pid = run.live_pid(1)
        assert pid is not None, f"{run} has no process"
        return pid

    def kill_supervisor(self, pid: int) -> None:
        """Kill the supervisor of a task's process."""
        task = processes.read(pid)
        assert task is not None, "the task has ended"
        assert self.cluster.owns(task.parent)
        processes.kill(task.parent)

    def check_delivered(self, run: Run, *, by_two: bool = False) -> None:
        """Check that a run of one video bought one, that it plays, and that records and XComs are right.

        :param by_two: two attempts overlapped, so the copies of the record may have different times
        """
        jobs = self.jobs(run)
        assert [job.charged for job in jobs] == [True], self._story(run, f"it bought {jobs}")
        ended = [ti["state"] for ti in self.cluster.task_instances(run.dag_id, run.run_id)]
        assert ended == ["success"], self._story(run, f"its task is {ended}")
        stored = self.cluster.stored_record(run.dag_id, run.run_id)
        told = [
            {name: copy.get(name) for name in (_STANDING if by_two else copy)}
            for copy in (run.record(), stored)
        ]
        assert told[0] == told[1], self._story(run, f"the copy in the task state store differs: {stored}")
        self._check_video(run, jobs[0].request_id)

    def check_mapped(self, run: Run, amount: int) -> None:
        """Check the same for a run that mapped its task over several prompts."""
        jobs = {job.request_id: job for job in self.jobs(run)}
        assert len(jobs) == amount, self._story(run, f"it bought {len(jobs)} jobs")
        assert all(job.charged for job in jobs.values())
        for map_index in range(amount):
            job = jobs.pop(run.record(map_index)["request_id"])
            assert job.body["prompt"] == f"take {map_index}"
            self._check_video(run, job.request_id, map_index)

    def check_told(self, run: Run) -> None:
        """Check the other acceptable end: a kill around the submit, when nobody can know whether it was sent.

        Nothing reached the vendor, and a person is asked.
        """
        assert self.jobs(run) == [], self._story(run, "it failed, although its job is in the history")
        log = self.cluster.log_of(run.dag_id, run.run_id)
        assert "LumaRaySubmitUnknown" in log, self._story(run, "it failed for another reason")
        assert "This attempt bought nothing" not in log, self._story(run, "an attempt knew better")
        assert run.record()["state"] == "intent"

    def _check_video(self, run: Run, request_id: str, map_index: int = -1) -> None:
        video, record = run.video(map_index), run.record(map_index)
        content = video.read_bytes()
        assert (record["state"], record["request_id"]) == ("delivered", request_id)
        assert (record["bytes"], record["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
        with av.open(str(video)) as container:
            assert sum(1 for _ in container.decode(video=0)) > 1
        hidden = {path.name for path in run.folder.glob(".*")} - {LOCK_NAME}
        assert hidden == set(), "something was left half-done"
        xcoms = self.cluster.xcoms(run.dag_id, run.run_id, map_index)
        returned = xcoms.pop("return_value")
        xcoms.pop("_link_LumaRayClipLink")  # Airflow's own, of the button that leads to the clip's page
        assert returned == xcoms, self._story(run, f"its XComs are {xcoms}, the value returned {returned}")
        # After the job, or for one that was taken up again, by now: nobody tops the account up.
        assert 0 <= xcoms.pop("remaining_credits") <= float(record["remaining_credits"])
        assert xcoms == {
            "video_path": str(video),
            "credits_used": PRICE,
            "request_id": request_id,
            "model": "luma-ray-img-2-video",
        }

    def _story(self, run: Run, problem: str) -> str:
        calls = [call for host, call in self.calls() if host == run.host]
        log = [
            line
            for line in self.cluster.log_of(run.dag_id, run.run_id).splitlines()
            if '"level":"debug"' not in line
        ]
        return f"{run}: {problem}\ncalls: {calls}\nrecord: {run.record()}\n" + "\n".join(log)
