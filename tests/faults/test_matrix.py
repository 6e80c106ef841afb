"""Every call with every fault, over real HTTP: at most one charge, and the video or an error for a person.

The first attempt has the fault for its whole duration; the second, a retry or a clear, has none.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_luma.hooks.luma_ray import LumaRayHook
from airflow_provider_luma.simulator import Simulator
from tests.faults.conftest import connect
from tests.faults.harness import Outcome, Task, follow, settle
from tests.support import API_KEY

# What has to become of it, by segmind-api.md (sections 2 to 8) and design.md, not by what the code does:
#   first   the first attempt delivers the video
#   retry   the first attempt's error may be retried by Airflow; the second attempt delivers
#   clear   the first attempt's error is for a person; cleared once the fault is gone, the task delivers
#   person  the first attempt's error is for a person and, cleared, stays one: whether money was spent cannot be known.
#           Only what its text tells the person to do buys a video
#
# A number is the status of the reply. "+" after a fault: the vendor carried the call out, only its reply went wrong;
# without it the call had no effect, as far as it ever has one. Two calls joined by "&": both go wrong, the first of
# them so that the second is made at all (LEADS says how).
TABLE = """
submit           first    reset+ timeout+ slow+ truncated+ broken_json+ html+ empty+ wrong_shape+ not_video+ redirect+
submit           first    500+ 502+ 504+ wrong_content_type+ 404 405
submit           retry    refused 429
submit           clear    400 401 402 403 406 410 422 error_object
submit           person   reset timeout broken_json html empty wrong_shape not_video redirect 500 502 504

submit_v2_only   clear    404 405

v1               first    reset+ timeout+ slow+ truncated+ broken_json+ html+ empty+ wrong_shape+ not_video+ redirect+
v1               first    500+ 502+ 504+ wrong_content_type+
v1               retry    refused 429
v1               clear    400 401 402 403 404 405 406 410 422 error_object
v1               person   reset timeout broken_json html empty wrong_shape not_video redirect 500 502 504

status           first    404 wrong_content_type+
status           retry    refused reset timeout slow+ truncated+
status           retry    broken_json html empty wrong_shape redirect error_object
status           retry    400 402 405 406 410 422 429 500 502 504 not_video
status           clear    401 403

result           first    404 wrong_content_type+
result           retry    refused reset timeout slow+ truncated+
result           retry    broken_json html empty wrong_shape redirect error_object
result           retry    400 402 405 406 410 422 429 500 502 504 not_video
result           clear    401 403

download         first    slow+ wrong_content_type+
download         retry    refused reset timeout truncated+ broken_json html empty wrong_shape redirect error_object
download         retry    400 401 402 403 404 405 406 410 422 429 500 502 504 not_video

credits          first    refused reset timeout slow+ truncated+
credits          first    broken_json html empty wrong_shape redirect error_object
credits          first    400 401 402 403 404 405 406 410 422 429 500 502 504 not_video wrong_content_type+
credits_floor    clear    401 403
credits_floor    retry    refused reset timeout truncated+ broken_json empty redirect error_object 404 429 500

upload           first    wrong_content_type+
upload           retry    refused reset+ timeout+ slow+ truncated+
upload           retry    broken_json html empty wrong_shape redirect error_object
upload           retry    429 500 502 504 not_video
upload           clear    400 401 402 403 404 405 406 410 422

history          first    wrong_content_type+
history          clear    refused reset timeout slow+ truncated+
history          clear    broken_json html empty wrong_shape redirect error_object
history          clear    400 401 402 403 404 405 406 410 422 429 500 502 504 not_video

history_one      first    wrong_content_type+
history_one      retry    refused reset timeout slow+ truncated+
history_one      retry    broken_json html empty wrong_shape redirect error_object
history_one      retry    400 402 404 405 406 410 422 429 500 502 504 not_video
history_one      clear    401 403

result&one       retry    500 reset 404
download&result  retry    500 404
"""

#: How a call of the table is brought about where it is more than the call of that name on the way of every job.
LEADS: dict[str, list[dict[str, Any]]] = {
    "history": [{"call": "submit", "kind": "reset", "accepted": True}],
    "history_one": [{"call": "status", "kind": "status", "status": 404, "times": 99}],
    # The history tells no balance.
    "credits": [
        {"call": call, "kind": "status", "status": 404, "times": 99} for call in ("status", "result")
    ],
    "result&one": [{"call": "result", "kind": "status", "status": 404, "times": 99}],
    "download&result": [{"call": "download", "kind": "status", "status": 404, "times": 99}],
}
CALLS = {
    "submit_v2_only": "submit",
    "credits_floor": "credits",
    "result&one": "history_one",
    "download&result": "result",
}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "v1": {"api_version": "v1"},
    "submit_v2_only": {"api_version": "v2"},
    "credits_floor": {"min_remaining_credits": 1},
    # The deadline ends what would be minutes of waiting for the status, or for the request limit.
    **{
        key: {"timeout": timedelta(seconds=0.2)}
        for key in (
            "status",
            "history_one",
            "submit-429",
            "v1-429",
            "result-429",
            "upload-429",
            "credits_floor-429",
        )
    },
}
VERBS = {
    "submit": "submit",
    "v1": "generate",
    "status": "get_status",
    "result": "get_result",
    "download": "download_video",
    "credits": "get_credits",
    "upload": "upload_image",
    "history": "find_jobs",
    "history_one": "find_job",
}
#: How the first and the second attempt end.
WORDS = {
    "first": ("delivered", "delivered"),
    "retry": ("retry", "delivered"),
    "clear": ("person", "delivered"),
    "person": ("person", "person"),
}
#: Seconds without a byte after which a call is given up, where the fault is told by the clock.
PATIENCE = 0.5
#: How long a slow body takes, and how long the vendor's request limit is used up.
SECONDS = {"slow": 0.8, "429": 0.1}


@dataclass(frozen=True)
class Case:
    """One cell of the table.

    :param name: the call, in the table's words
    :param fault: the fault, in the table's words
    :param expect: the expected outcome
    :param stored: whether Airflow has a task state store, as in every other cell
    """

    name: str
    fault: str
    expect: str
    stored: bool

    @property
    def call(self) -> str:
        """The simulator's name for the call."""
        return CALLS.get(self.name, self.name)

    def __str__(self) -> str:
        return f"{self.name}-{self.fault.replace('+', '_accepted')}"

    @property
    def arguments(self) -> dict[str, Any]:
        """The operator's arguments."""
        return ARGUMENTS.get(self.name, {}) | ARGUMENTS.get(str(self), {})

    def inject(self, simulator: Simulator) -> None:
        """Inject the fault for the whole attempt; a refused connection is not up to the simulator."""
        for lead in LEADS.get(self.name, ()):
            simulator.fault(**lead)
        if self.fault == "refused":
            return
        kind = self.fault.removesuffix("+")
        simulator.fault(
            self.call,
            "status" if kind.isdigit() else kind,
            accepted=self.fault.endswith("+"),
            status=int(kind) if kind.isdigit() else None,
            seconds=SECONDS.get(kind),
            times=99,
        )


def cases() -> Iterator[Case]:
    lines = (line.split() for line in TABLE.splitlines() if line)
    cells = ((name, fault, expect) for name, expect, *faults in lines for fault in faults)
    for number, (name, fault, expect) in enumerate(cells):
        yield Case(name, fault, expect, stored=number % 2 == 0)


CASES = list(cases())


@pytest.fixture
def closed_url() -> Iterator[str]:
    """A port that refuses connections, reserved so that nobody else gets it."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


def refuse(monkeypatch: pytest.MonkeyPatch, verb: str, closed_url: str) -> None:
    """Send one of the hook's calls to a closed port."""
    original = getattr(LumaRayHook, verb)

    def refused(self: LumaRayHook, *arguments: Any, **options: Any) -> Any:
        open_settings, _ = self.settings, self._transport
        if verb == "download_video":
            arguments = (f"{closed_url}/outputs/clip.mp4", *arguments[1:])
        self.__dict__["settings"] = replace(
            open_settings, api_url=closed_url, upload_url=closed_url, history_url=closed_url
        )
        try:
            return original(self, *arguments, **options)
        finally:
            self.__dict__["settings"] = open_settings

    monkeypatch.setattr(LumaRayHook, verb, refused)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_fault(
    case: Case,
    simulator: Simulator,
    closed_url: str,
    frame: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    caplog.set_level(logging.DEBUG)
    by_clock = case.fault.rstrip("+") in ("timeout", "slow")
    connect(monkeypatch, simulator, PATIENCE if by_clock else 10)
    task = Task(simulator, tmp_path / "videos", frame, stored=case.stored, **case.arguments)

    case.inject(simulator)
    with pytest.MonkeyPatch.context() as for_now:
        if case.fault == "refused":
            refuse(for_now, VERBS[case.call], closed_url)
        first = check(task, task.attempt())
    assert case.fault == "refused" or case.call in simulator.calls, "the fault was not met"
    charges_first = simulator.charges
    time.sleep(SECONDS["429"] if case.fault == "429" else 0)

    simulator.clear_faults()
    connect(monkeypatch, simulator)
    if first.word == "person":
        task.clear()
    second = check(task, task.attempt())

    assert (first.word, second.word) == WORDS[case.expect], (first, second)
    if case.expect == "person":
        assert simulator.jobs == []
        assert str(task.record_path) in str(second.error)
        follow(second.error, "not-bought")
        task.clear()
        second = check(task, task.attempt())
    if case.name == "credits_floor":
        assert charges_first == 0
    task.check_delivered(second, simulator.jobs[0])
    assert second.xcoms is not None
    assert second.xcoms["remaining_credits"] == pytest.approx(18.4)
    assert simulator.charges == 1
    assert simulator.leaks == []
    assert API_KEY not in caplog.text


def check(task: Task, outcome: Outcome) -> Outcome:
    """Check after each attempt: at most one charge, nothing left behind, and every bought job is mentioned."""
    jobs = settle(task.simulator)
    assert len(jobs) <= 1
    task.check_left_clean()
    if outcome.error:
        assert all(task.tells_of(outcome.error, job) for job in jobs), outcome.error
        assert API_KEY not in repr(outcome.error)
    else:
        task.check_delivered(outcome, jobs[0])
    return outcome


def test_the_table_is_complete() -> None:
    """Every call has every fault, each case once."""
    names = [str(case) for case in CASES]
    assert len(set(names)) == len(names) >= 120
    everything = (
        "refused reset timeout slow truncated broken_json html empty wrong_shape wrong_content_type redirect "
        "error_object not_video 400 401 402 403 404 405 406 410 422 429 500 502 504"
    )
    for call in VERBS:
        met = {case.fault.rstrip("+") for case in CASES if case.name == call}
        assert met == set(everything.split()), call


@pytest.mark.parametrize("stored", [True, False])
def test_a_person_who_finds_the_job_gets_the_video(
    simulator: Simulator, connection: None, frame: Path, tmp_path: Path, stored: bool
) -> None:
    """The other remedy of LumaRaySubmitUnknown."""
    task = Task(simulator, tmp_path / "videos", frame, stored=stored)
    simulator.fault("submit", "reset")
    simulator.fault("history", "status", status=500, times=99)
    first = check(task, task.attempt())
    assert first.word == "person"

    simulator.clear_faults()
    follow(first.error, "adopt", request_id=simulator.jobs[0].request_id)
    task.clear()
    assert check(task, task.attempt()).word == "delivered"
    assert simulator.charges == 1
