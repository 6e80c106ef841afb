"""The explorer on random programs: what it leaves out would have shown nothing else."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import partial
from typing import Any

import pytest

from tests.schedules import explorer
from tests.schedules.explorer import Broken, Deadlock, Outcome, Scenario, Scheduler, explore, replay
from tests.schedules.scheduler import Run
from tests.schedules.trace import KILL, KINDS, TICK

Factory = Callable[[Scheduler], Scenario]
PROGRAMS = 200

# What the steps of a random program do; the last number in each line weighs them.
_KINDS = {
    "read": 4,
    "write": 3,
    "mix": 1,
    "add": 2,
    "swap": 2,
    "skip": 2,
    "fail": 1,
    "sleep": 2,
    "wait": 1,
    "now": 1,
    "stamp": 1,
    "late": 1,
}


def program_of(dice: random.Random, cells: int) -> Callable[[Scheduler, list[int]], object]:
    """Return a small random program: what it does depends on what it has read, and on the time."""
    kinds = dice.choices(list(_KINDS), weights=list(_KINDS.values()), k=dice.randint(3, 7))
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
    """Return a factory of a random scenario, of which one end may be forbidden."""
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
    """Return bounds to explore a random scenario within."""
    dice = random.Random(seed)
    kills = dice.choice([0, 0, 0, 1, 1, 2])
    return {
        "preemptions": dice.randint(1, (3, 2, 1)[kills]),
        "kills": kills,
        "after": dice.random() < 0.5,
        "stalls": dice.random() < 0.5,
        "longest_stall": dice.choice([1, 2, math.inf]),
    }


def test_pruning_is_sound():
    """The same ends are found as without, level by level; and what is wrong, as soon."""
    whole_runs = pruned_runs = 0
    for seed in range(PROGRAMS):
        bounds = bounds_of(seed)
        whole = explore(toy_of(seed), prune=False, collect=True, limit=3_000, **bounds)
        if not whole.complete:
            continue
        pruned = explore(toy_of(seed), prune=True, collect=True, **bounds)
        whole_runs += whole.runs
        pruned_runs += pruned.runs
        assert pruned.ends == whole.ends, f"{seed}: {bounds}"
    print(f"{whole_runs:,} runs without pruning, {pruned_runs:,} with")
