"""Paid jobs per delivered video when something goes wrong, with Airflow's retries around each client.

The same seeded faults hit the operator, the vendor's SDK and its sample code, each in a task with three retries.
"""

# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.report import Limit, Report
from benchmarks.surroundings import API_KEY, MODEL, connection, task_context, upload

FAULTS = 200
SEED = 3
ATTEMPTS = 4
LATENCY = 0.05
#: Seconds until a client gives up on a silent server; the server hangs up after twice as long.
TIMEOUT = 0.4
HISTORY_LAG = 0.1
LOOK_DELAYS = (0.0, 0.05, 0.1, 0.2, 0.4)
#: Seconds after which a 429 says that the limit is lifted.
RESET = 0.2

#: What can go wrong with each call, in the simulator's words; a number is an HTTP status.
_REPLIES = ("reset", "timeout", "truncated", "broken_json", "empty", "html", "500", "504")
KINDS = {
    "submit": (*_REPLIES, "502 not accepted"),
    "status": (*_REPLIES, "404", "429", "502"),
    "result": (*_REPLIES, "404", "429", "502"),
    "download": ("reset", "timeout", "truncated", "not_video", "500", "503", "404"),
    "worker": ("dies while waiting",),
}
_SHARES = {"submit": 90, "status": 30, "result": 25, "download": 30, "worker": 25}


@dataclass(frozen=True)
class Trouble:
    """One fault, in one of a task's calls."""

    call: str
    kind: str

    def strike(self, simulator: Any, call: str) -> None:
        """Inject it into this call of the simulator."""
        accepted = True if self.call == "submit" or call == "v1" else None
        if self.kind == "502 not accepted":
            simulator.fault(call, "status", status=502, accepted=False)
        elif self.kind.isdigit():
            simulator.fault(call, "status", status=int(self.kind), accepted=accepted, seconds=RESET)
        else:
            seconds = 2 * TIMEOUT if self.kind == "timeout" else None
            simulator.fault(call, self.kind, accepted=accepted, seconds=seconds)


class ProcessDied(BaseException):
    """Stands for the worker's SIGKILL: nothing in the task may catch it."""


def troubles(count: int) -> list[Trouble]:
    """Draw the faults, always the same ones."""
    source = random.Random(SEED)
    calls = source.choices(list(_SHARES), weights=list(_SHARES.values()), k=count)
    return [Trouble(call, source.choice(KINDS[call])) for call in calls]


@dataclass
class Tally:
    """The outcome of all tasks of one client."""

    charges: int = 0
    delivered: int = 0
    twice: int = 0
    unpaid_stops: int = 0
    lost: int = 0

    def count(self, charges: int, delivered: bool) -> None:
        """Add one task."""
        self.charges += charges
        self.delivered += delivered
        self.twice += charges > 1
        self.unpaid_stops += not delivered and not charges
        self.lost += not delivered and charges > 0

    @property
    def ratio(self) -> float:
        """Paid jobs per delivered video."""
        return self.charges / self.delivered if self.delivered else float("inf")


def run(struck: list[Trouble] | None = None) -> Report:
    """Run every client with the same faults, by default the seeded ones."""
    struck = troubles(FAULTS) if struck is None else struck
    report = Report(
        f"Money under {len(struck)} faults (seed {SEED}), one to a task, {ATTEMPTS - 1} retries: "
        + ", ".join(
            f"{number} to the {call}" for call, number in Counter(t.call for t in struck).most_common()
        ),
        ("task", "paid jobs", "videos", "paid per video", "paid > once", "paid, no video", "unpaid, stopped"),
        notes=[
            "v1 is a single call, so only faults in the submit and the download's body affect it.",
            "Unpaid, stopped: the operator cannot tell an unaccepted 502 from an accepted one, so a person decides.",
        ],
    )
    for label, client in (
        ("operator", Ours),
        ("segmind SDK in a task", Sdk),
        ("v1 sample in a task", Sample),
    ):
        tally, seconds = _tally(client, struck)
        report.rows.append(
            (label, tally.charges, tally.delivered, tally.ratio, tally.twice, tally.lost, tally.unpaid_stops)
        )
        report.notes.append(f"{label}: {seconds:.0f} s for all.")
        if client is Ours:
            unaccepted = sum(trouble.kind == "502 not accepted" for trouble in struck)
            report.limits = [
                Limit("operator: paid jobs per delivered video", tally.ratio, 1, least=1),
                Limit("operator: tasks that paid more than once", tally.twice, 0),
                Limit("operator: tasks that paid and have no video", tally.lost, 0),
                Limit(
                    "operator: tasks stopped unpaid, beyond the unaccepted 502s",
                    tally.unpaid_stops - unaccepted,
                    0,
                ),
            ]
    return report


class Client:
    """One way to make a video in a task: an attempt, and its process's death while it waits."""

    def __init__(self, url: str, frame: str, output: Path, session: Any) -> None:
        self.url = url
        self.frame = frame
        self.output = output
        self.session = session
        # The history cannot distinguish jobs with the same body, so each task has its own prompt, as users' do.
        self.prompt = f"a slow push in, scene {output.parent.name}"

    @classmethod
    @contextmanager
    def open(cls, url: str) -> Iterator[Any]:
        """Set up what all tasks share, to save time."""
        yield None

    def struck(self, trouble: Trouble) -> str | None:
        """Return the simulator's name for the call that a fault hits; None if this client makes no such call."""
        return trouble.call if trouble.call != "worker" else None

    def attempt(self) -> None:
        """Make the video as one attempt of a task does."""
        raise NotImplementedError

    def dying(self) -> Any:
        """Return a context in which the process dies at its first wait."""
        raise NotImplementedError


class Ours(Client):
    """The operator: a new object per attempt, always the same task instance."""

    def attempt(self) -> None:
        from airflow_provider_luma.operators.luma_ray import LumaRayImageToVideoOperator

        task = LumaRayImageToVideoOperator(
            task_id="generate",
            prompt=self.prompt,
            start_frame=self.frame,
            output_path=str(self.output),
            resolution="540p",
            poll_interval=LATENCY,
        )
        task.execute(task_context(run_id=self.output.parent.name))

    def dying(self) -> Any:
        from airflow_provider_luma.hooks.luma_ray import LumaRayHook

        return mock.patch.object(LumaRayHook, "get_status", side_effect=ProcessDied)


class Sdk(Client):
    """The vendor's SDK, plus a download of the URL that it returns."""

    @classmethod
    @contextmanager
    def open(cls, url: str) -> Iterator[Any]:
        import httpx
        from segmind import SegmindClient

        client = SegmindClient(api_key=API_KEY, base_url=f"{url}/v1", timeout=TIMEOUT)
        with client._client, httpx.Client(timeout=TIMEOUT) as files:
            yield client, files

    def attempt(self) -> None:
        client, files = self.session
        job = client.submit_async(
            MODEL, prompt=self.prompt, start_frame=self.frame, loop=False, resolution="540p"
        )
        address = job.wait(interval=LATENCY)["output"]
        self.output.write_bytes(files.get(address).raise_for_status().content)

    def dying(self) -> Any:
        from segmind.v2 import AsyncJob

        return mock.patch.object(AsyncJob, "status", side_effect=ProcessDied)


class Sample(Client):
    """The vendor's sample code for v1, which sets no timeout; an error status fails its task."""

    def struck(self, trouble: Trouble) -> str | None:
        cut_short = trouble.call == "download" and not trouble.kind.isdigit()
        return "v1" if trouble.call == "submit" or cut_short else None

    def attempt(self) -> None:
        import requests

        data = {"prompt": self.prompt, "start_frame": self.frame, "loop": False, "resolution": "540p"}
        response = requests.post(f"{self.url}/v1/{MODEL}", json=data, headers={"x-api-key": API_KEY})
        response.raise_for_status()
        self.output.write_bytes(response.content)

    def dying(self) -> Any:
        return mock.patch.object(HTTPConnection, "getresponse", side_effect=ProcessDied)


def _tally(client: type[Client], struck: list[Trouble]) -> tuple[Tally, float]:
    from airflow_provider_luma.simulator import Simulator

    started = time.perf_counter()
    tally = Tally()
    with (
        tempfile.TemporaryDirectory() as folder,
        Simulator(latency=LATENCY, clip_seconds=0.2, credits="100000", history_lag=HISTORY_LAG) as simulator,
        _quick(simulator.url),
        client.open(simulator.url) as session,
    ):
        frame = upload(simulator.url)
        for number, trouble in enumerate(struck):
            output = Path(folder) / f"{number}" / "clip.mp4"
            output.parent.mkdir()
            before = len(simulator.jobs)
            _run_task(client(simulator.url, frame, output, session), trouble, simulator)
            bought = _settled(simulator, before)
            tally.count(sum(job.charged for job in bought), _is_whole(output))
    return tally, time.perf_counter() - started


def _run_task(client: Client, trouble: Trouble, simulator: Any) -> None:
    """Run attempts as Airflow would: up to three retries after errors, none after AirflowFailException."""
    from airflow.providers.common.compat.sdk import AirflowFailException

    call = client.struck(trouble)
    if call is not None:
        trouble.strike(simulator, call)
    for attempt in range(ATTEMPTS):
        with ExitStack() as stack:
            if trouble.call == "worker" and attempt == 0:
                stack.enter_context(client.dying())
            try:
                client.attempt()
            except AirflowFailException:
                break
            except (Exception, ProcessDied):
                continue
            break
    simulator.clear_faults()


def _settled(simulator: Any, before: int) -> list[Any]:
    """Wait until the jobs that this task bought have ended, and return them."""
    while True:
        bought: list[Any] = simulator.jobs[before:]
        if all(job.state in ("COMPLETED", "FAILED") for job in bought):
            return bought
        time.sleep(0.01)


def _is_whole(output: Path) -> bool:
    """Whether a file is a complete MP4, from its first box to the end of its last."""
    if not output.exists():
        return False
    content, at = output.read_bytes(), 0
    while 0 <= at < len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        at = at + length if length >= 8 else -1
    return content[4:8] == b"ftyp" and at == len(content)


@contextmanager
def _quick(url: str) -> Iterator[None]:
    """Connect the operator, and shorten its waits between tries, but not their number."""
    from airflow_provider_luma.hooks import backoff
    from airflow_provider_luma.jobs import recovery

    variables = {
        "AIRFLOW_CONN_LUMA_RAY_DEFAULT": connection(url, timeout=TIMEOUT, requests_per_minute=100_000)
    }
    with (
        mock.patch.dict(os.environ, variables),
        mock.patch.object(recovery, "LOOK_DELAYS", LOOK_DELAYS),
        mock.patch.object(backoff, "_FIRST_RETRY", 0.005),
    ):
        yield
