"""The explorer on toy programs: it finds all errors, and its counts are right."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import comb
from typing import Any

import pytest

from tests.schedules.explorer import (
    Bounds,
    Broken,
    Deadlock,
    Endless,
    Killed,
    Misuse,
    Outcome,
    Scenario,
    Scheduler,
    _Table,
    bound,
    explore,
    replay,
)
from tests.schedules.scheduler import Run
from tests.schedules.trace import decode

Program = Callable[[Scheduler, list[Any]], object]


@pytest.fixture(autouse=True)
def default_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ignore the bound that the developer has set for other tests."""
    monkeypatch.delenv("LUMA_SCHEDULES", raising=False)


def fine(outcomes: Mapping[str, Outcome]) -> None:
    """An invariant that always holds."""


def toy(
    *programs: Program,
    world: Sequence[Any] = (0,),
    check: Callable[[list[Any]], None] = lambda world: None,
    **more: Any,
) -> Callable[[Scheduler], Scenario]:
    """Return a factory: the programs, called a, b and c, contend in a world that is a list."""

    def factory(scheduler: Scheduler) -> Scenario:
        cells = list(world)
        contenders = {
            name: partial(program, scheduler, cells) for name, program in zip("abc", programs, strict=False)
        }
        return Scenario(contenders, lambda _: check(cells), fingerprint=lambda: tuple(cells), **more)

    return factory


def straight(length: int) -> Program:
    """Return a program of this many steps, all distinguishable."""

    def program(scheduler: Scheduler, world: list[Any]) -> None:
        for number in range(length):
            scheduler.step(f"step {number}", lambda: world.append(scheduler.current))

    return program


def buy(scheduler: Scheduler, world: list[Any]) -> None:
    """Check, then act."""
    if scheduler.step("is it bought?", lambda: world[0]) == 0:
        scheduler.step("buy", partial(add, world))


def add(world: list[Any], number: int = 1) -> None:
    world[0] += number


def put(world: list[Any], value: Any) -> None:
    world[0] = value


def bought_once(world: list[Any]) -> None:
    assert world[0] <= 1, f"bought {world[0]} times"


def count_up(scheduler: Scheduler, world: list[Any]) -> None:
    """Add one, not atomically."""
    value = scheduler.step("read", lambda: world[0])
    scheduler.step("write", lambda: put(world, value + 1))


# What is found


def test_check_then_act_buys_twice_with_one_preemption_and_not_without():
    scenario = toy(buy, buy, check=bought_once)
    print(explore(scenario, preemptions=0))
    with pytest.raises(Broken, match="bought 2 times") as found:
        explore(scenario, preemptions=3)
    assert (found.value.preemptions, found.value.kills) == (1, 0)
    assert found.value.schedule == "a:1 b:2 a:1"


@pytest.mark.parametrize("prune", [False, True])
def test_lost_update(prune):
    def both_count(world):
        assert world[0] == 2

    scenario = toy(count_up, count_up, check=both_count)
    explore(scenario, preemptions=0, prune=prune)
    with pytest.raises(Broken) as found:
        explore(scenario, preemptions=1, prune=prune)
    assert found.value.preemptions == 1


def double_check(scheduler: Scheduler, world: list[Any]) -> None:
    """Act on the first of two reads, by compare-and-set, unless the second is equal."""

    def swap() -> None:
        if world[0] == first:
            put(world, "mine")

    first = scheduler.step("look", lambda: world[0])
    if scheduler.step("look again", lambda: world[0]) != first:
        scheduler.step("swap", swap)


def change_and_back(scheduler: Scheduler, world: list[Any]) -> None:
    scheduler.step("take", lambda: put(world, "theirs"))
    scheduler.step("put back", lambda: put(world, "free"))


@pytest.mark.parametrize("prune", [False, True])
def test_aba_needs_three_preemptions(prune):
    def never_swapped(world):
        assert world[0] != "mine"

    scenario = toy(double_check, change_and_back, world=["free"], check=never_swapped)
    print(explore(scenario, preemptions=2, prune=prune))
    with pytest.raises(Broken) as found:
        explore(scenario, preemptions=3, prune=prune)
    assert found.value.preemptions == 3
    assert found.value.schedule == "a:1 b:1 a:1 b:1 a:1"


def test_an_error_that_needs_a_kill_is_not_found_without_one():
    def pay(scheduler, world):
        scheduler.step("note", lambda: put(world, "paying"))
        scheduler.step("pay", lambda: world.append("paid"))
        scheduler.step("note", lambda: put(world, "done"))

    def noted(world):
        assert world[0] == "done" or "paid" not in world

    explore(toy(pay, check=noted), kills=0)
    with pytest.raises(Broken) as found:
        explore(toy(pay, check=noted), kills=1)
    assert found.value.schedule == "a:2 a:kill"
    assert (found.value.preemptions, found.value.kills) == (0, 1)


# What is counted


def interleavings(first: int, second: int, preemptions: int) -> int:
    """Count the interleavings: words with this many blocks, whose last change is not a preemption."""
    total = 0
    for blocks in range(2, preemptions + 3):
        one, other = (blocks + 1) // 2, blocks // 2
        total += comb(first - 1, one - 1) * comb(second - 1, other - 1)
        total += comb(first - 1, other - 1) * comb(second - 1, one - 1)
    return total


@pytest.mark.parametrize("prune", [False, True])
@pytest.mark.parametrize(("first", "second"), [(1, 1), (1, 4), (3, 3), (5, 2), (4, 5)])
def test_counts_of_two(first, second, prune):
    """Each schedule leaves its own trace in the world, so none is pruned."""
    report = explore(toy(straight(first), straight(second)), preemptions=99, prune=prune)
    for level in report.levels:
        assert level.schedules == interleavings(first, second, level.preemptions)
        assert level.pruned == 0
    assert report.schedules == comb(first + second, first)
    assert [level.cut for level in report.levels] == [True] * (len(report.levels) - 1) + [False]
    print(report)


@pytest.mark.parametrize("lengths", [(1, 1, 1), (2, 3, 1), (2, 2, 2), (3, 2, 2)])
def test_counts_of_three(lengths):
    """The same, counted by enumeration."""
    word = "".join(name * length for name, length in zip("abc", lengths, strict=True))
    costs = [cost_of(order) for order in set(itertools.permutations(word))]
    report = explore(toy(*map(straight, lengths)), preemptions=99)
    for level in report.levels:
        assert level.schedules == sum(cost <= level.preemptions for cost in costs)
    assert report.schedules == len(costs)


def cost_of(order: Sequence[str]) -> int:
    """Count the preemptions: changes away from one that continues later."""
    return sum(
        one != other and one in order[at:] for at, (one, other) in enumerate(itertools.pairwise(order), 1)
    )


@pytest.mark.parametrize(("after", "count"), [(False, 5), (True, 9)])
def test_counts_of_kills(after, count):
    assert explore(toy(straight(4)), kills=1, after=after, prune=False).schedules == count


def test_kills_have_their_own_bound():
    report = explore(toy(straight(1), straight(1)), kills=2, after=False, prune=False)
    # Both live, in two orders; one is killed, before or after the other's step; both are killed, in two orders.
    assert report.schedules == 2 + 4 + 2
    assert report.outcomes["a", "killed"] == 4


def test_pruning_skips_equal_states():
    def look(scheduler, world):
        for _ in range(5):
            scheduler.step("look", lambda: world[0])

    report = explore(toy(look, look), preemptions=99)
    assert report.schedules + report.pruned < comb(10, 5) / 4
    assert report.pruned
    assert explore(toy(look, look), preemptions=99, prune=False).schedules == comb(10, 5)


def test_states_have_a_bound():
    def look(scheduler, world):
        for _ in range(4):
            scheduler.step("look", lambda: world[0])

    few = explore(toy(look, look), preemptions=99, states=10)
    many = explore(toy(look, look), preemptions=99)
    assert few.levels[-1].states == 10 < many.levels[-1].states
    assert many.schedules < few.schedules < comb(8, 4)


def test_limit():
    report = explore(toy(straight(5), straight(5)), preemptions=4, limit=20)
    assert report.runs == 20
    assert not report.complete
    assert explore(toy(straight(1), straight(1)), preemptions=0, limit=2).complete


def test_bound_of_the_environment(monkeypatch):
    assert bound(3) == 3
    scenario = toy(straight(4), straight(4))
    assert explore(scenario).levels[-1].preemptions == bound()
    monkeypatch.setenv("LUMA_SCHEDULES", "2")
    assert bound(3) == 2
    assert explore(scenario).levels[-1].preemptions == 2
    assert explore(scenario, preemptions=3).levels[-1].preemptions == 3


# Kills


@pytest.mark.parametrize("after", [False, True])
def test_finally_blocks_of_the_killed_have_no_effects(after):
    seen: list[tuple[str, type[BaseException]]] = []

    def work(scheduler, world):
        try:
            scheduler.step("work", lambda: world.append("work"))
            scheduler.step("more", lambda: world.append("more"))
        finally:
            try:
                scheduler.step("clean", lambda: world.append("clean"))
            except BaseException as error:
                seen.append(("step", type(error)))
            try:
                scheduler.sleep(1)
            except BaseException as error:
                seen.append(("sleep", type(error)))
            world.append("left")  # no step, yet the world is done with by then

    ends = set()

    def factory(scheduler):
        world: list[str] = []

        def check(outcomes):
            ends.add((outcomes["a"].kind, *world))

        return Scenario({"a": partial(work, scheduler, world)}, check)

    explore(factory, kills=1, after=after)
    killed = {end[1:] for end in ends if end[0] == "killed"}
    assert killed == {(), ("work",), ("work", "more"), ("work", "more", "clean")}
    assert {end for end in ends if end[0] == "returned"} == {("returned", "work", "more", "clean", "left")}
    assert set(seen) == {("step", Killed), ("sleep", Killed)}


def test_killed_after_an_effect_is_killed_before_its_result():
    told = []

    def work(scheduler, world):
        told.append(scheduler.step("work", lambda: world.append("work")))

    trace = replay(toy(work), "a:kill-after")
    assert told == []
    assert trace.outcomes["a"].kind == "killed"
    assert "a is killed before it has the result of 'work'" in str(trace)


def test_killed_after_an_effect_that_fails():
    told = []

    def work(scheduler, world):
        try:
            scheduler.step("work", lambda: world.clear() or world[0])
        except IndexError:
            told.append("failed")

    replay(toy(work), "a:kill-after")
    assert told == []


def test_a_contender_that_swallows_its_kill_does_not_hang_the_run():
    def stubborn(scheduler, world):
        while True:
            try:
                scheduler.step("try", lambda: None)
            except BaseException:
                continue

    with pytest.raises(Misuse, match="swallows its end"):
        explore(toy(stubborn), kills=1, preemptions=0, max_steps=5)


# Outcomes


def test_exceptions_are_outcomes():
    def fail(scheduler, world):
        scheduler.step("fail", partial({}.pop, "key"))

    seen: list[Outcome] = []

    def factory(scheduler):
        contenders: dict[str, Callable[[], object]] = {"a": partial(fail, scheduler, []), "b": lambda: 7}
        return Scenario(contenders, lambda outcomes: seen.extend(outcomes.values()), expected=(KeyError,))

    report = explore(factory)
    assert seen[0].kind == "raised"
    assert isinstance(seen[0].value, KeyError)
    assert seen[1] == Outcome("returned", 7)
    assert report.outcomes == {("a", "KeyError"): 1, ("b", "returned"): 1}


@pytest.mark.parametrize("error", [ValueError("oh"), SystemExit(3), AssertionError("not so")])
def test_unexpected_exceptions_are_failures(error):
    def fail(scheduler, world):
        scheduler.step("work", lambda: None)
        raise error

    with pytest.raises(Broken, match=type(error).__name__) as found:
        explore(toy(fail, straight(1), expected=(KeyError,)))
    assert found.value.__cause__ is error


def test_an_interrupt_is_not_an_outcome():
    def interrupted(scheduler, world):
        scheduler.step("work", lambda: None)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        explore(toy(interrupted, expected=(BaseException,)))


def locked(*locks: int) -> Program:
    """Return a program that takes locks in this order and releases them; the world has their holders."""

    def program(scheduler: Scheduler, world: list[Any]) -> None:
        hold, free = world.__setitem__, lambda lock: world[lock] is None
        for lock in locks:
            scheduler.step(f"take {lock}", partial(hold, lock, scheduler.current), when=partial(free, lock))
        for lock in locks:
            scheduler.step(f"release {lock}", partial(hold, lock, None))

    return program


def test_leaving_a_waiting_contender_is_not_a_preemption():
    report = explore(toy(locked(0), locked(0), world=[None]), preemptions=99, prune=False)
    # Either goes first; it is preempted once it holds the lock, to no avail, as the other waits.
    assert report.schedules == 2


def test_deadlock():
    scenario = toy(locked(0, 1), locked(1, 0), world=[None, None])
    explore(scenario, preemptions=0)
    with pytest.raises(Broken, match="all that live wait: a for 'take 1', b for 'take 0'") as found:
        explore(scenario, preemptions=1)
    assert isinstance(found.value.__cause__, Deadlock)
    assert {outcome.kind for outcome in found.value.trace.outcomes.values()} == {"stuck"}
    allowed = toy(locked(0, 1), locked(1, 0), world=[None, None], expected=(Deadlock,))
    assert explore(allowed, preemptions=1).outcomes["a", "stuck"]


def test_endless_run():
    def poll(scheduler, world):
        while scheduler.step("look", lambda: world[0]) == 0:
            scheduler.sleep(5)

    scenario = toy(poll, lambda scheduler, world: scheduler.step("write", lambda: put(world, 1)))
    explore(scenario, preemptions=2)
    with pytest.raises(Broken, match="no end after 50 steps") as found:
        explore(scenario, kills=1, max_steps=50)
    assert isinstance(found.value.__cause__, Endless)
    assert found.value.schedule.startswith("a:1 b:kill")


# Time


def test_the_clock_advances_when_all_sleep():
    times = []

    def nap(seconds):
        def program(scheduler, world):
            scheduler.sleep(seconds)
            times.append((seconds, scheduler.now()))
            scheduler.sleep(10)
            times.append((seconds, scheduler.now()))

        return program

    explore(toy(nap(3), nap(5), straight(2)), preemptions=0, limit=1)
    assert times == [(3, 3), (5, 5), (3, 13), (5, 15)]


def test_neither_sleeping_nor_waking_is_a_preemption():
    def nap(scheduler, world):
        scheduler.step("before", lambda: world.append(scheduler.current))
        scheduler.sleep(1)
        scheduler.step("after", lambda: world.append(scheduler.current))

    ends = explore(toy(nap, nap), preemptions=0, collect=True).ends
    orders = {"".join(end[0][1:]) for end in ends}  # type: ignore[index]
    assert orders == {"abab", "abba", "baab", "baba"}


def test_a_contender_that_can_continue_holds_the_clock():
    """Unless it is stalled, which takes a preemption."""

    def lease(seconds):
        def program(scheduler, world):
            scheduler.sleep(seconds)
            if scheduler.step("is it free?", lambda: scheduler.now() >= world[1] and world[0] == 0):
                scheduler.step("take", lambda: world.__setitem__(1, scheduler.now() + 10))
                scheduler.step("pay", partial(add, world))

        return program

    scenario = toy(lease(0), lease(15), world=[0, 0], check=bought_once)
    assert not explore(scenario, preemptions=99).levels[-1].cut
    explore(scenario, preemptions=0, stalls=True)
    explore(scenario, preemptions=1, stalls=True, longest_stall=14)
    with pytest.raises(Broken, match="bought 2 times") as found:
        explore(scenario, preemptions=1, stalls=True, longest_stall=15)
    assert "~" in found.value.schedule.split()
    assert "a is stalled before" in str(found.value)
    assert replayed(scenario, found.value.schedule) == str(found.value)


def test_the_preempted_are_stalled_already():
    """So a lease may expire while its holder is suspended."""

    def holder(scheduler, world):
        scheduler.step("take", lambda: put(world, "a"))
        if scheduler.step("mine?", lambda: world[0]) == "a":
            scheduler.step("pay", lambda: world.append("paid"))

    def heir(scheduler, world):
        if scheduler.step("whose?", lambda: world[0]) == "a":
            scheduler.sleep(60)
            if scheduler.step("whose?", lambda: world[0]) == "a" and "paid" not in world:
                scheduler.step("take over", lambda: put(world, "b"))
                scheduler.step("pay", lambda: world.append("paid"))

    def paid_once(world):
        assert world.count("paid") <= 1

    scenario = toy(holder, heir, check=paid_once)
    explore(scenario, preemptions=1)
    with pytest.raises(Broken) as found:
        explore(scenario, preemptions=1, stalls=True)
    assert found.value.schedule == "a:2 b:1 ~ b:4 a:1"


# Replay


def replayed(scenario: Callable[[Scheduler], Scenario], schedule: str) -> str:
    with pytest.raises(Broken) as found:
        replay(scenario, schedule)
    return str(found.value)


def test_replay_of_a_failure():
    scenario = toy(buy, buy, straight(2), check=bought_once)
    with pytest.raises(Broken) as found:
        explore(scenario)
    text = str(found.value)
    assert replayed(scenario, found.value.schedule) == text
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[:3] == ["AssertionError: bought 2 times", "assert 2 <= 1", ""]
    assert lines[3:] == [
        "1 preemption, 0 kills:",
        "1 a is it bought? → 0",
        "2 · a is preempted before 'buy'",
        "3 b is it bought? → 0",
        "4 b buy → None",
        "5 · b returns None",
        "6 a buy → None",
        "7 · a returns None",
        "8 c step 0 → None",
        "9 c step 1 → None",
        "10 · c returns None",
        "replay: 'a:1 b:2 a:1 c:2'",
    ]


def test_replay_of_a_prefix_continues_without_preemptions():
    trace = replay(toy(buy, buy), "b:1")
    assert trace.schedule == "b:2 a:1"
    assert trace.preemptions == trace.kills == 0
    assert str(replay(toy(buy, buy), trace.schedule)) == str(trace)


@pytest.mark.parametrize("schedule", ["x:1", "a", "a:", "a:-1", "a:2:3", "a:9", "~", "a:kill a:1"])
def test_invalid_schedules(schedule):
    with pytest.raises(ValueError, match=r"no decision|there is no|it ends"):
        replay(toy(buy, buy), schedule)


def test_samples_go_beyond_the_bound():
    def never_swapped(world):
        assert world[0] != "mine"

    scenario = toy(double_check, change_and_back, world=["free"], check=never_swapped)

    def found(seed):
        with pytest.raises(Broken) as broken:
            explore(scenario, preemptions=1, samples=2_000, seed=seed)
        return str(broken.value)

    assert found(7) == found(7)
    report = explore(toy(straight(4), straight(4)), preemptions=0, samples=50)
    assert report.schedules == 2
    assert report.sampled
    assert report.sampled.schedules == 50
    print(report)


# States


def test_history_distinguishes_states():
    """What a contender has read is part of the state, although it is not in the world."""

    def flip(scheduler, world):
        scheduler.step("set", lambda: put(world, 1))
        scheduler.step("unset", lambda: put(world, 0))

    def reader(scheduler, world):
        value = scheduler.step("read", lambda: world[0])
        scheduler.step("think", lambda: None)
        return value

    report = explore(toy(flip, reader), preemptions=99, collect=True)
    assert {end[1][1][1] for end in report.ends} == {"0", "1"}  # type: ignore[index]


def test_equal_values_of_different_types_are_different_states():
    def truth(scheduler, world):
        scheduler.step("write", lambda: put(world, True))

    def one(scheduler, world):
        scheduler.step("write", lambda: put(world, 1))

    def reader(scheduler, world):
        return scheduler.step("read", lambda: world[0])

    report = explore(toy(truth, one, reader), preemptions=99, collect=True)
    assert {end[1][2][1] for end in report.ends} == {"0", "True", "1"}  # type: ignore[index]


def state_after(schedule: str, *programs: Program, longest_stall: float = float("inf")) -> bytes:
    """Return the state after these decisions."""
    bounds = Bounds(preemptions=9, stalls=True, longest_stall=longest_stall)
    run = Run(toy(*programs), bounds, remember=True)
    for decision in decode(schedule, run.names):
        assert decision in run.options()
        run.perform(decision)
    state = run.state()
    run.close()
    return state


@pytest.mark.parametrize("longest_stall", [20, float("inf")])
def test_how_long_one_has_been_stalled_is_part_of_the_state(longest_stall):
    def waiter(scheduler, world):
        scheduler.step("go", lambda: None, when=lambda: world[0] == 1)

    def setter(scheduler, world):
        scheduler.step("set", lambda: put(world, 1))

    def clock(scheduler, world):
        for _ in range(3):
            scheduler.sleep(5)

    def state(schedule):
        return state_after(schedule, waiter, setter, clock, longest_stall=longest_stall)

    # At 5 s the waiter is behind, or the other was while it had nothing to go on for.
    assert state("b:1 ~ c:1") != state("~ c:1 b:1")
    # At 10 s the waiter is behind, for 10 s or for 5 s: which counts where there is a limit to it.
    assert (state("b:1 ~ c:1 ~") == state("~ c:1 b:1 ~")) == (longest_stall == float("inf"))


def test_time_is_part_of_the_state():
    def sleeper(scheduler, world):
        scheduler.step("start", lambda: None)
        scheduler.sleep(5)
        scheduler.step("end", lambda: None)

    def other(scheduler, world):
        scheduler.sleep(3)
        scheduler.step("look", lambda: world[0])

    # At 3 s both have done the same, but one started late, and so sleeps longer; in the end it is 5 s or 8 s.
    assert state_after("a:1 b:2 a:1", sleeper, other) != state_after("~ a:1 b:2 a:1", sleeper, other)
    assert state_after("a:1 b:2", sleeper, other) != state_after("~ a:1 b:2", sleeper, other)
    assert state_after("~ b:1 a:1 b:1", sleeper, other) == state_after("~ a:1 b:2", sleeper, other)


def test_a_state_is_explored_again_with_more_preemptions_left():
    table = _Table(1)
    assert [table.covers(b"state", left) for left in (1, 1, 0, 2, 1)] == [False, True, True, False, True]
    assert [table.covers(b"one too many", 1) for _ in range(2)] == [False, False]


# Misuse


def test_a_step_within_an_effect():
    def nested(scheduler, world):
        scheduler.step("outer", lambda: scheduler.step("inner", lambda: None))

    with pytest.raises(Misuse, match="'inner' is a step within the effect of 'outer'"):
        explore(toy(nested, expected=(BaseException,)))


def test_a_step_of_another_thread():
    def threaded(scheduler, world):
        def work():
            with pytest.raises(Misuse):
                scheduler.step("work", lambda: None)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    with pytest.raises(Misuse, match="thread"):
        explore(toy(threaded))


def test_a_result_without_a_repr():
    with pytest.raises(Misuse, match="no repr of its own"):
        explore(toy(lambda scheduler, world: scheduler.step("make", object)))
    explore(toy(lambda scheduler, world: scheduler.step("make", object)), prune=False)


def test_runs_that_are_not_reproducible():
    number = itertools.count()

    def fickle(scheduler, world):
        scheduler.step(f"step {next(number)}", lambda: None)
        scheduler.step("last", lambda: None)

    with pytest.raises(Misuse, match="not reproducible"):
        explore(toy(fickle, straight(2)))


def test_invalid_names():
    with pytest.raises(ValueError, match="no name"):
        explore(lambda scheduler: Scenario({"a b": lambda: None}, fine))


def test_outside_of_contenders_a_step_just_runs():
    def factory(scheduler):
        world = []
        scheduler.step("set up", lambda: world.append(1))
        scheduler.sleep(5)

        def check(outcomes):
            assert scheduler.step("look", lambda: world) == [1]
            assert scheduler.now() == 5
            assert scheduler.current is None

        return Scenario({"a": lambda: None}, check)

    assert explore(factory).schedules == 1


def test_speed():
    """More than 2,000 schedules per second, here with room for a slow and busy machine."""
    since = time.process_time()
    report = explore(toy(straight(12), straight(12)), preemptions=3)
    print(report)
    assert report.runs / (time.process_time() - since) > 500
