"""Kills tasks at seeded moments, relative to what the task is seen to do."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import cycle

from tests.e2e import processes
from tests.e2e.cluster import FINISHED
from tests.e2e.runs import Run, Runs

#: What can be seen of a task: its process, its calls at the vendor, the states of its record. A short run takes the
#: first few. Last are the uploads: soon after comes the intent, and a kill between that and the submit ends in a
#: question to a person, after two minutes.
EVENTS = "submit download status delivered submitted result completed started upload".split()
#: Those that can be seen of a deferred task while it has a process: its trigger makes the status calls.
EVENTS_WITHOUT_WAIT = [event for event in EVENTS if event != "status"]
_RECORD_STATES = ("submitted", "completed", "delivered")
#: Seconds within which the blow falls after the event.
_SPREAD = {"started": 2.0, "status": 1.0, "submit": 0.2}
_USUAL_SPREAD = 0.05


@dataclass
class Strike:
    """One kill, as planned and as carried out.

    :param attempt: the attempt whose process is killed
    :param event: what to wait for
    :param delay: seconds from there to the kill
    :param landed: whether there was a process to kill; None: not tried yet
    :param found: the record's state at the kill
    """

    run: Run
    attempt: int
    event: str
    delay: float
    due: float | None = None
    landed: bool | None = None
    found: str = ""

    def __str__(self) -> str:
        fell = "not yet" if self.landed is None else f"on {self.found}" if self.landed else "on nobody"
        return f"{self.run} attempt {self.attempt}: {self.delay:.3f} s after {self.event}, {fell}"


class Killer:
    """Plans kills with a seed, and carries them out."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._planned = 0
        self._turns = {"blocking": cycle(EVENTS), "deferred": cycle(EVENTS_WITHOUT_WAIT)}

    def plan(self, runs: Iterable[Run]) -> list[Strike]:
        """Plan a kill for each run, with all events in turn, and for every fourth another in its next attempt."""
        strikes = []
        for run in runs:
            self._planned += 1
            strikes.append(self._strike(run, 1, next(self._turns[run.dag_id])))
            if self._planned % 4 == 0:
                strikes.append(self._strike(run, 2, "started"))
        return strikes

    def _strike(self, run: Run, attempt: int, event: str) -> Strike:
        spread = _SPREAD.get(event, _USUAL_SPREAD)
        return Strike(run, attempt, event, self._random.uniform(0, spread))

    def deal(self, strikes: list[Strike], runs: Runs, *, timeout: float = 600) -> None:
        """Carry out the kills when they are due; drop those of runs that have ended."""
        deadline = time.monotonic() + timeout
        looked = time.monotonic()
        calls: Counter[tuple[str, str]] = Counter()
        total = -1
        while pending := [strike for strike in strikes if strike.landed is None]:
            assert time.monotonic() < deadline, "\n".join(map(str, strikes))
            seen = runs.simulator.calls
            if sum(seen.values()) != total:
                total, calls = sum(seen.values()), Counter(runs.calls())
            for strike in pending:
                _advance(strike, calls, runs)
            if time.monotonic() > looked + 3:
                looked = time.monotonic()
                _let_go(pending, runs)
            time.sleep(0.002)


def _advance(strike: Strike, calls: Counter[tuple[str, str]], runs: Runs) -> None:
    if strike.due is None:
        if not _happened(strike, calls):
            return
        strike.due = time.monotonic() + strike.delay
    if time.monotonic() >= strike.due:
        pid = strike.run.live_pid(strike.attempt)
        strike.landed = pid is not None and runs.cluster.owns(pid) and processes.kill(pid)
        strike.found = strike.run.record().get("state", "no record")


def _happened(strike: Strike, calls: Counter[tuple[str, str]]) -> bool:
    if strike.event == "started":
        return bool(strike.run.task_pids(strike.attempt))
    if strike.event in _RECORD_STATES:
        reached = strike.run.record().get("state")
        return reached in _RECORD_STATES[_RECORD_STATES.index(strike.event) :]
    return (strike.run.host, strike.event) in calls


def _let_go(strikes: list[Strike], runs: Runs) -> None:
    states = {dag_id: runs.cluster.run_states(dag_id) for dag_id in {strike.run.dag_id for strike in strikes}}
    for strike in strikes:
        if strike.landed is None and states[strike.run.dag_id][strike.run.run_id] in FINISHED:
            strike.landed = False
