"""Explores the schedules of a few contenders: all with a bounded number of preemptions and kills.

Each schedule gets a new world, so only the current schedule is kept and, to recognize known states, a table of bounded
size. The bounds are raised one by one, so the first failure found is one with the fewest preemptions, and among those
with the fewest kills.
"""

from __future__ import annotations

import math
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace

from tests.schedules.scheduler import (
    Bounds,
    Deadlock,
    Endless,
    Factory,
    Killed,
    Misuse,
    Outcome,
    Run,
    Scenario,
    Scheduler,
)
from tests.schedules.trace import KINDS, STEP, Journal, decode, encode

__all__ = [
    "Bounds", "Broken", "Deadlock", "Endless", "Killed", "Misuse", "Outcome", "Report", "Scenario", "Scheduler",
    "Trace", "bound", "explore", "replay",
]  # fmt: skip

_ANY = sys.maxsize
_RATES = (0.02, 0.05, 0.1, 0.2, 0.5)  # how often a random schedule does not just go on


def bound(default: int = 1) -> int:
    """Return how many preemptions to explore: LUMA_SCHEDULES, if set."""
    return int(os.environ.get("LUMA_SCHEDULES") or default)


@dataclass
class Trace:
    """What happened in one schedule.

    :param schedule: as text, to replay it
    """

    schedule: str
    journal: Journal
    preemptions: int
    kills: int
    outcomes: Mapping[str, Outcome]

    def __str__(self) -> str:
        return f"{self.journal}\nreplay: {self.schedule!r}"


class Broken(AssertionError):
    """The invariant does not hold in this schedule; the cause is what the check raised."""

    def __init__(self, trace: Trace, cause: BaseException) -> None:
        self.trace = trace
        self.schedule = trace.schedule
        self.preemptions = trace.preemptions
        self.kills = trace.kills
        bounds = f"{_count(trace.preemptions, 'preemption')}, {_count(trace.kills, 'kill')}"
        super().__init__(f"{type(cause).__name__}: {cause}\n\n{bounds}:\n{trace}")


@dataclass
class Level:
    """What was explored within some bounds.

    :param schedules: how many were run to their end
    :param pruned: how many were stopped at a known state
    :param steps: in all of them
    :param states: how many are known
    :param cut: whether there are more schedules with more preemptions
    :param outcomes: how often a contender ended how, by name and :attr:`Outcome.word`
    :param ends: the worlds and outcomes at the ends, if asked for
    """

    preemptions: int
    kills: int
    schedules: int = 0
    pruned: int = 0
    steps: int = 0
    states: int = 0
    cut: bool = False
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    ends: set[Hashable] = field(default_factory=set)


@dataclass
class Report:
    """The result of an exploration.

    :param levels: one per bound, each with all the schedules of the one before
    :param sampled: the random schedules
    :param complete: whether all within the bounds was explored
    """

    levels: list[Level] = field(default_factory=list)
    sampled: Level | None = None
    complete: bool = True
    seconds: float = 0.0

    @property
    def schedules(self) -> int:
        """How many schedules were run within the bounds, without those that reached a known state."""
        return self.levels[-1].schedules

    @property
    def pruned(self) -> int:
        """How many schedules were stopped at a known state."""
        return self.levels[-1].pruned

    @property
    def ends(self) -> set[Hashable]:
        """The worlds and outcomes at the ends of the schedules, if asked for."""
        return self.levels[-1].ends

    @property
    def outcomes(self) -> Counter[tuple[str, str]]:
        """How often a contender ended how, by its name and :attr:`Outcome.word`."""
        sampled = self.sampled.outcomes if self.sampled else Counter[tuple[str, str]]()
        return self.levels[-1].outcomes + sampled

    @property
    def runs(self) -> int:
        """The total number of runs."""
        parts = [*self.levels, self.sampled] if self.sampled else self.levels
        return sum(level.schedules + level.pruned for level in parts)

    @property
    def steps(self) -> int:
        """The total number of steps."""
        parts = [*self.levels, self.sampled] if self.sampled else self.levels
        return sum(level.steps for level in parts)

    def __str__(self) -> str:
        last = self.levels[-1]
        bounds = f"{_count(last.preemptions, 'preemption')} and {_count(last.kills, 'kill')}"
        there = "at most" if last.cut else "all there are, with"
        sampled = f" and {self.sampled.schedules:,} at random" if self.sampled else ""
        return (
            f"{last.schedules:,} schedules ({there} {bounds}){sampled}, {last.pruned:,} pruned, "
            f"{last.states:,} states; {self.runs:,} runs and {self.steps:,} steps in {self.seconds:.2f} s, "
            f"{self.runs / max(self.seconds, 1e-9):,.0f} runs/s{'' if self.complete else '; not complete'}"
        )


def explore(
    factory: Factory,
    *,
    preemptions: int | None = None,
    kills: int = 0,
    after: bool = True,
    stalls: bool = False,
    longest_stall: float = math.inf,
    prune: bool = True,
    states: int = 500_000,
    limit: int | None = None,
    samples: int = 0,
    seed: int = 0,
    max_steps: int = 2_000,
    collect: bool = False,
) -> Report:
    """Run all schedules within the bounds, and check the invariant at each end.

    :param factory: makes a world and its contenders
    :param preemptions: see :class:`Bounds`, as for the next four; without one, :func:`bound` says it
    :param prune: whether to leave a schedule at a state that was explored before, with no less left of the
        bounds; takes a scenario with a fingerprint
    :param states: how many states are remembered
    :param limit: how many runs there may be
    :param samples: how many random schedules to add, with any number of preemptions
    :param seed: their seed
    :param max_steps: the most steps of a run; a longer one is a failure
    :param collect: whether to keep the worlds and outcomes at the ends
    :raise Broken: the invariant does not hold in some schedule
    """
    since = time.perf_counter()
    most = bound() if preemptions is None else preemptions
    bounds = Bounds(most, kills, after=after, stalls=stalls, longest_stall=longest_stall)
    search = _Search(factory, prune, states, limit, max_steps, collect)
    search.exhaust(bounds)
    search.sample(replace(bounds, preemptions=_ANY), samples, seed)
    search.report.seconds = time.perf_counter() - since
    return search.report


def replay(factory: Factory, schedule: str, *, max_steps: int = 2_000) -> Trace:
    """Run one schedule; if its text ends before the run does, continue without preemptions.

    :raise Broken: the invariant does not hold
    :raise ValueError: it is not a schedule of this scenario
    """
    bounds = Bounds(_ANY, kills=_ANY, stalls=True)
    run = Run(factory, bounds)
    try:
        decisions = decode(schedule, run.names)
    finally:
        run.close()
    trace, error = _record(factory, bounds, decisions, max_steps)
    if error is not None:
        raise Broken(trace, error) from error
    return trace


class _Search:
    """The search through the schedules of one scenario."""

    def __init__(
        self, factory: Factory, prune: bool, states: int, limit: int | None, max_steps: int, collect: bool
    ) -> None:
        self.report = Report()
        self._factory = factory
        self._prune = prune
        self._states = states
        self._left = limit
        self._max_steps = max_steps
        self._collect = collect

    def exhaust(self, most: Bounds) -> None:
        """Run all schedules, raising the bounds on preemptions and kills."""
        for preemptions in range(most.preemptions + 1):
            for kills in range(most.kills + 1):
                level = Level(preemptions, kills)
                self.report.levels.append(level)
                self._exhaust(replace(most, preemptions=preemptions, kills=kills), level)
                if not self.report.complete:
                    return
            if not level.cut:
                return

    def sample(self, bounds: Bounds, samples: int, seed: int) -> None:
        """Run random schedules."""
        for number in range(samples):
            if self._spent():
                return
            if self.report.sampled is None:
                self.report.sampled = Level(bounds.preemptions, bounds.kills)
            dice = random.Random(f"{seed}/{number}")
            rate = dice.choice(_RATES)
            path: list[int] = []
            run = Run(self._factory, bounds)
            try:
                while options := run.options():
                    self._check_length(run, path)
                    free = [option for option in options if option % KINDS == STEP]
                    usual = options[0] if run.goes_on else dice.choice(free)
                    path.append(usual if dice.random() > rate else dice.choice(options))
                    run.perform(path[-1])
                self._finish(run, path, self.report.sampled)
            finally:
                run.close()

    def _exhaust(self, bounds: Bounds, level: Level) -> None:
        path: list[int] = []
        labels: list[str] = []
        untried: list[list[int]] = []
        table = _Table(self._states)
        while not self._spent():
            run = Run(self._factory, bounds, remember=self._prune)
            try:
                self._follow(run, path, labels)
                chosen = True  # a state is looked up where there is a choice, and once after one
                while options := run.options():
                    self._check_length(run, path)
                    left = bounds.preemptions - run.preemptions
                    is_turn, chosen = chosen or len(options) > 1, len(options) > 1
                    if is_turn and run.remembers and table.covers(run.state(), left):
                        level.pruned += 1
                        level.steps += run.steps
                        break
                    path.append(options[0])
                    untried.append(options[:0:-1])
                    labels.append(run.perform(options[0]))
                else:
                    self._finish(run, path, level)
                level.cut = level.cut or run.cut
            finally:
                run.close()
            while untried and not untried[-1]:
                untried.pop()
            if not untried:
                break
            del path[len(untried) - 1 :], labels[len(untried) - 1 :]
            path.append(untried[-1].pop())
        level.states = len(table)

    def _follow(self, run: Run, path: list[int], labels: list[str]) -> None:
        """Repeat the last run up to the point where another contender takes over."""
        for depth, decision in enumerate(path):
            label = run.perform(decision)
            if depth == len(labels):
                labels.append(label)
            elif label != labels[depth]:
                raise Misuse(
                    f"not reproducible: after {encode(path[:depth], run.names)!r} came {labels[depth]!r} once "
                    f"and {label!r} now"
                )

    def _finish(self, run: Run, path: list[int], level: Level) -> None:
        level.schedules += 1
        level.steps += run.steps
        for name, outcome in run.outcomes.items():
            level.outcomes[name, outcome.word] += 1
        if self._collect:
            level.ends.add(run.end())
        try:
            run.finish()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._blame(run, path, error)

    def _check_length(self, run: Run, path: list[int]) -> None:
        if len(path) >= self._max_steps:
            self._blame(run, path, Endless())

    def _blame(self, run: Run, path: list[int], error: BaseException) -> None:
        """Repeat a failing schedule, to report it."""
        run.close()
        trace, again = _record(self._factory, Bounds(_ANY, kills=_ANY, stalls=True), path, self._max_steps)
        if type(again) is not type(error):
            raise Misuse(f"not reproducible: {trace.schedule!r} does not fail again as it did") from error
        raise Broken(trace, again) from again

    def _spent(self) -> bool:
        """Count a run, unless the limit is reached."""
        if self._left is not None:
            self._left -= 1
            self.report.complete = self.report.complete and self._left >= 0
        return not self.report.complete


class _Table:
    """The explored states, each with the preemptions that were left; a state itself has its kills."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._known)

    def covers(self, state: bytes, left: int) -> bool:
        """Whether a state was explored with at least as many preemptions left; from now on it is."""
        known = self._known.get(state)
        if known is not None and known >= left:
            return True
        if known is not None or len(self._known) < self._most:
            self._known[state] = left
        return False


def _record(
    factory: Factory, bounds: Bounds, decisions: list[int], max_steps: int
) -> tuple[Trace, BaseException | None]:
    """Run one schedule, and record what happens."""
    journal = Journal()
    run = Run(factory, bounds, journal=journal)
    path: list[int] = []
    error: BaseException | None = None
    try:
        while options := run.options():
            if len(path) >= max_steps:
                break
            decision = decisions[len(path)] if len(path) < len(decisions) else options[0]
            if decision not in options:
                raise ValueError(
                    f"after {encode(path, run.names)!r} there is no {encode([decision], run.names)!r}"
                )
            path.append(decision)
            run.perform(decision)
        if len(path) < len(decisions):
            raise ValueError(f"it ends after {encode(path, run.names)!r}")
        try:
            if options:
                raise Endless(f"no end after {max_steps:,} steps: {encode(path[-8:], run.names)} ...")
            run.finish()
        except KeyboardInterrupt:
            raise
        except BaseException as failure:
            error = failure
        trace = Trace(encode(path, run.names), journal, run.preemptions, run.kills, run.outcomes)
    finally:
        run.close()
    return trace, error


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
