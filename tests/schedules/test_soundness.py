"""The explorer on random programs: what it prunes would not have shown anything else."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any

import pytest

from tests.schedules import explorer
from tests.schedules.explorer import Broken, Deadlock, Outcome, Report, Scenario, Scheduler, explore, replay
from tests.schedules.scheduler import Run
from tests.schedules.trace import KILL, KINDS, TICK

Factory = Callable[[Scheduler], Scenario]
PROGRAMS = 200

_KINDS = "read write mix add swap skip fail sleep wait now stamp late"

# How much of each kind is in a program: of all something, or mostly what has to do with time.
_MIXED = (4, 3, 1, 2, 2, 2, 1, 2, 1, 1, 1, 1)
_TIMED = (2, 2, 0, 1, 0, 1, 0, 6, 1, 2, 4, 2)


def program_of(dice: random.Random, cells: int) -> Callable[[Scheduler, list[int]], object]:
    """Return a small random program; its steps depend on what it has read, and on the time."""
    weights = dice.choice([_MIXED, _TIMED])
    kinds = dice.choices(_KINDS.split(), weights, k=dice.randint(3, 7))
    code = [(kind, dice.randrange(cells), dice.randrange(4)) for kind in kinds]

    def program(scheduler: Scheduler, world: list[int]) -> object:
        def write(cell: int, value: int) -> None:
            world[cell] = value % 5

        def add(cell: int) -> None:
            write(cell, world[cell] + 1)

        def mix(cell: int, value: int) -> None:
            write(cell, world[cell] * 2 + value)

        def stamp(cell: int) -> None:
            write(cell, int(scheduler.now()))

        def swap(cell: int, value: int) -> bool:
            if world[cell] != held:
                return False
            write(cell, value)
            return True

        def reached(cell: int, value: int) -> bool:
            return world[cell] >= value

        held: int = 0
        skip = False
        for kind, cell, value in code:
            if skip:
                skip = False
            elif kind == "read":
                held = scheduler.step(f"read {cell}", partial(world.__getitem__, cell))
            elif kind == "write":
                scheduler.step(f"write {cell}", partial(write, cell, held + value))
            elif kind == "mix":
                scheduler.step(f"mix {cell}", partial(mix, cell, value))
            elif kind == "add":
                scheduler.step(f"add {cell}", partial(add, cell))
            elif kind == "swap":
                skip = scheduler.step(f"swap {cell}", partial(swap, cell, value))
            elif kind == "skip":
                skip = held == value
            elif kind == "fail" and held == value:
                raise ValueError(held)
            elif kind == "sleep":
                scheduler.sleep(value)
            elif kind == "wait":
                scheduler.step(f"wait {cell}", lambda: None, when=partial(reached, cell, value // 2))
            elif kind == "now":
                held = int(scheduler.now())
            elif kind == "stamp":
                scheduler.step(f"stamp {cell}", partial(stamp, cell))
            elif kind == "late":
                skip = scheduler.now() > value
        return held

    return program


def toy_of(seed: int, forbidden: Hashable = None) -> Factory:
    """Return a factory of a random scenario, with one end that may be forbidden."""
    dice = random.Random(seed)
    cells = dice.randint(1, 2)
    programs = [program_of(dice, cells) for _ in range(dice.choice([2, 2, 3]))]

    def factory(scheduler: Scheduler) -> Scenario:
        world: list[int] = [0] * cells

        def check(outcomes: Mapping[str, Outcome]) -> None:
            ends = tuple(
                (outcome.kind, f"raises ValueError: {outcome.value!r}")
                if outcome.kind == "raised"
                else (outcome.kind, repr(outcome.value))
                for outcome in outcomes.values()
            )
            assert (tuple(world), ends) != forbidden, "forbidden"

        contenders = {
            name: partial(program, scheduler, world) for name, program in zip("abc", programs, strict=False)
        }
        return Scenario(contenders, check, fingerprint=lambda: tuple(world), expected=(ValueError, Deadlock))

    return factory


def bounds_of(seed: int) -> dict[str, Any]:
    """Return bounds for exploring a random scenario."""
    dice = random.Random(seed)
    kills = dice.choice([0, 0, 0, 1, 1, 2])
    return {
        "preemptions": dice.randint(1, (3, 2, 1)[kills]),
        "kills": kills,
        "after": dice.random() < 0.5,
        "stalls": dice.random() < 0.5,
        "longest_stall": dice.choice([1, 2, math.inf]),
    }


def explored(seed: int, **more: Any) -> Report | None:
    """Explore a random scenario; None if it takes too long without pruning."""
    report = explore(toy_of(seed), collect=True, limit=300, **bounds_of(seed), **more)
    return report if report.complete else None


def test_pruning_is_sound():
    """It finds the same ends as without pruning, level by level, and errors as early."""
    runs = [0, 0]
    seeds = count()
    for _ in range(PROGRAMS):
        seed, whole = next((seed, whole) for seed in seeds if (whole := explored(seed, prune=False)))
        bounds = bounds_of(seed)
        pruned = explore(toy_of(seed), collect=True, **bounds)
        few = explore(toy_of(seed), collect=True, states=5, **bounds)
        runs[0] += whole.runs
        runs[1] += pruned.runs
        # Pruned, it may see earlier that more preemptions lead to nothing new.
        assert few.ends == pruned.ends == whole.ends, f"{seed}: {bounds}"
        assert whole.levels[-1].cut or not pruned.levels[-1].cut
        for one, other in zip(whole.levels, pruned.levels, strict=False):
            assert other.ends == one.ends, f"{seed}: {bounds}"
            assert other.schedules <= one.schedules

        forbidden = random.Random(seed).choice(sorted(whole.ends, key=repr))
        found = []
        for prune in (False, True):
            with pytest.raises(Broken, match="forbidden") as broken:
                explore(toy_of(seed, forbidden), prune=prune, **bounds)
            found.append((broken.value.preemptions, broken.value.kills))
            with pytest.raises(Broken) as again:
                replay(toy_of(seed, forbidden), broken.value.schedule)
            assert str(again.value) == str(broken.value)
        assert found[0] == found[1]
    assert runs[1] < runs[0]
    print(f"{runs[0]:,} runs without pruning, {runs[1]:,} with")


class Careful(Run):
    """Asks for the options at each step, even when repeating a schedule."""

    def perform(self, decision: int) -> str:
        assert decision in self.options()
        return super().perform(decision)


def test_repetition_is_exact(monkeypatch: pytest.MonkeyPatch):
    """Repeating a schedule's beginning without asking for options gives the same result."""
    for seed in range(PROGRAMS // 2):
        quick = explored(seed)
        with monkeypatch.context() as patch:
            patch.setattr(explorer, "Run", Careful)
            careful = explored(seed)
        if quick is None or careful is None:
            assert quick is careful
            continue
        assert replace(quick, seconds=0) == replace(careful, seconds=0)


class Ruthless(Run):
    """Kills any contender at any time, even one that waits or whose turn it is not."""

    def options(self) -> list[int]:
        options = super().options()
        if options and self.kills < self._bounds.kills:
            alive = [one.index * KINDS + KILL for one in self._contenders if one.outcome is None]
            options += [kill for kill in alive if kill not in options]
        return options

    def perform(self, decision: int) -> str:
        if decision == TICK or decision % KINDS != KILL:
            return super().perform(decision)
        killed = self._contenders[decision // KINDS]
        killed.outcome = Outcome("killed")
        self.kills += 1
        if killed is self._current:
            self._current = None
        return killed.label


def test_kills_at_other_times_find_nothing_new(monkeypatch: pytest.MonkeyPatch):
    for seed in range(PROGRAMS // 2):
        bounds = bounds_of(seed) | {"kills": 1}
        with monkeypatch.context() as patch:
            patch.setattr(explorer, "Run", Ruthless)
            ruthless = explore(toy_of(seed), collect=True, prune=False, limit=300, **bounds)
        if ruthless.complete:
            usual = explore(toy_of(seed), collect=True, **bounds)
            assert alike(usual.ends) == alike(ruthless.ends), f"{seed}: {bounds}"


def alike(ends: Iterable[Any]) -> set[Hashable]:
    """Treat one killed while waiting for ever like one that waits for ever."""
    return {
        (world, tuple("gone" if kind in ("stuck", "killed") else (kind, value) for kind, value in outcomes))
        for world, outcomes in ends
    }
