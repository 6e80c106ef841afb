"""One run of contenders that take turns: before each effect the scheduler decides who continues.

The contenders are plain functions. Each runs as a greenlet and changes the world only through test doubles that call
:meth:`Scheduler.step`; only there can it be preempted or killed. What it does between its steps is invisible to others.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Mapping
from contextvars import copy_context
from dataclasses import dataclass
from hashlib import blake2b
from threading import get_ident
from typing import Any, Final, Literal, TypeVar

from greenlet import getcurrent, greenlet  # type: ignore[import-untyped]

from tests.schedules.trace import KILL, KILL_AFTER, KINDS, STEP, TICK, Journal, check_name

T = TypeVar("T")

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_MOST_REFUSALS = 1_000

# Contenders that swallowed their end over and over: to free one would throw it another.
_undead: list[Any] = []


class Killed(BaseException):
    """Raised in a killed contender at any step that it still tries."""


class Deadlock(AssertionError):
    """All that are still alive wait for something that none of them will do."""


class Endless(AssertionError):
    """A run does not end."""


class Misuse(Exception):
    """The scenario cannot be explored: its runs would not be reproducible or distinguishable."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a contender ended.

    :param kind: "stuck" for one that waits in a deadlock
    :param value: what it returned or raised
    """

    kind: Literal["returned", "raised", "killed", "stuck"]
    value: Any = None

    @property
    def word(self) -> str:
        """The kind, or the name of the exception's type."""
        return type(self.value).__name__ if self.kind == "raised" else self.kind


_KILLED: Final = Outcome("killed")
_STUCK: Final = Outcome("stuck")


@dataclass(slots=True)
class Scenario:
    """A world and its contenders, created again for each run.

    :param contenders: their functions, by name
    :param check: the invariant: raises if the world or the outcomes are wrong
    :param fingerprint: everything in the world that effects, conditions and the check depend on, as a value with a
        complete repr; with it, states that were explored before are not explored again
    :param expected: what contenders may raise; anything else is a failure, and so is a deadlock unless
        :class:`Deadlock` is among them
    :param describe: describes results and exceptions; equal descriptions must be equal to a contender
    """

    contenders: Mapping[str, Callable[[], object]]
    check: Callable[[Mapping[str, Outcome]], None]
    fingerprint: Callable[[], Hashable] | None = None
    expected: tuple[type[BaseException], ...] = ()
    describe: Callable[[Any], str] = repr


@dataclass(frozen=True, slots=True)
class Bounds:
    """What may happen to the contenders of a run.

    :param preemptions: how often one may be suspended although it could continue
    :param kills: how many may be killed
    :param after: whether they may also be killed between an effect and its result
    :param stalls: whether the clock may advance past one that could continue. That counts as a preemption, unless it
        was preempted already
    :param longest_stall: how many seconds the clock may advance past one
    """

    preemptions: int
    kills: int = 0
    after: bool = True
    stalls: bool = False
    longest_stall: float = math.inf


class _Contender:
    """One contender: its next step, and what it has seen so far."""

    __slots__ = (
        "asleep", "behind", "doomed", "history", "index", "label", "name", "outcome", "refusals", "thread",
        "until", "when",
    )  # fmt: skip

    def __init__(self, index: int, name: str) -> None:
        self.index = index
        self.name = name
        self.label = ""
        self.when: Callable[[], bool] | None = None
        self.asleep = False
        self.until = 0.0
        self.behind: float | None = None  # since when it has been left behind
        self.doomed = False
        self.outcome: Outcome | None = None
        self.history = b""
        self.refusals = 0
        self.thread: Any = None


class Scheduler:
    """What test doubles call; outside of contenders it just performs the effect."""

    def __init__(self) -> None:
        self._main = getcurrent()
        self._thread = get_ident()
        self._running: _Contender | None = None
        self._acting = False
        self._clock = 0.0
        self._fault: Misuse | None = None
        self._journal: Journal | None = None
        self._remembers = False
        self._describe: Callable[[Any], str] = repr

    @property
    def current(self) -> str | None:
        """The name of the running contender; None outside of them."""
        return self._running.name if self._running else None

    def now(self) -> float:
        """Return the time in seconds; it stands still while anybody has something to do.

        Nothing can happen between this and the step before. If something should, make it a step:
        ``step("now", scheduler.now)``.
        """
        me = self._running
        if me is not None and me.outcome is None and not self._acting:
            self._remember(me, "now", repr(self._clock))
        return self._clock

    def step(self, label: str, effect: Callable[[], T], *, when: Callable[[], bool] | None = None) -> T:
        """Change the world, or read it: others may go first, and the effect is atomic.

        :param label: describes it in traces; the same in each run of a schedule
        :param when: the condition that it waits for; reads the world, without changing it or using the clock
        """
        me = self._enter(label)
        if me is None:
            return effect()
        me.label, me.when = label, when
        self._main.switch()
        self._acting = True
        try:
            result = effect()
        except BaseException as error:
            self._acting = False
            self._observe(me, error, raised=True)
            raise
        self._acting = False
        self._observe(me, result, raised=False)
        return result

    def sleep(self, seconds: float) -> None:
        """Let others run, and continue after some seconds."""
        me = self._enter("sleep")
        if me is None:
            self._clock += max(0.0, seconds)
            return
        me.label, me.when, me.asleep = f"sleep {seconds:g} s", None, True
        me.until = self._clock + max(0.0, seconds)
        self._main.switch()
        me.asleep = False
        if self._remembers:
            self._remember(me, me.label, "")

    def _enter(self, label: str) -> _Contender | None:
        """Return the contender whose step it is."""
        if get_ident() != self._thread:
            raise self._failed(f"{label!r} comes from a thread that no schedule knows")
        me = self._running
        if me is None:
            return None
        if me.outcome is not None:
            me.refusals += 1
            if me.refusals > _MOST_REFUSALS:
                self._failed(f"{me.name} never ends: it swallows its end at {label!r}")
                _undead.append(me.thread)
                self._main.switch()
            raise Killed
        if self._acting:
            raise self._failed(f"{label!r} is a step within the effect of {me.label!r}, which is atomic")
        return me

    def _observe(self, me: _Contender, result: object, *, raised: bool) -> None:
        """Give a contender its result, unless it is killed first."""
        if me.doomed:
            me.outcome = _KILLED
        if self._journal is not None:
            self._journal.result(self._text(result, raised))
        if me.doomed:
            self._main.switch()
        elif self._remembers:
            self._remember(me, me.label, self._text(result, raised))

    def _text(self, result: object, raised: bool) -> str:
        text = self._describe(result)
        return f"raises {type(result).__qualname__}: {text}" if raised else text

    def _remember(self, me: _Contender, label: str, text: str) -> None:
        """Add to what a contender has seen, which determines what it will do."""
        if not self._remembers:
            return
        if " at 0x" in text and _ADDRESS.search(text):
            self._failed(f"the result of {label!r} has no repr of its own: {text}")
        seen = me.history + f"{label}\0{text}".encode("utf-8", "surrogatepass")
        me.history = blake2b(seen, digest_size=16).digest()

    def _failed(self, why: str) -> Misuse:
        """Record what is wrong with the scenario; raised when the contender stops, even if it caught the error."""
        if self._fault is None:
            self._fault = Misuse(why)
        return self._fault


Factory = Callable[[Scheduler], Scenario]


class Run(Scheduler):
    """One run, as seen by the explorer, which asks for the options and chooses one.

    :param factory: makes the world
    :param bounds: what may happen to the contenders
    :param remember: whether :meth:`state` will be called
    :param journal: records what happens
    """

    def __init__(
        self, factory: Factory, bounds: Bounds, *, remember: bool = False, journal: Journal | None = None
    ) -> None:
        super().__init__()
        self.preemptions = 0
        self.kills = 0
        self.steps = 0
        self.cut = False  # whether the bound on preemptions withheld an option
        self.goes_on = False  # whether the first of the options lets the one go on who did the last step
        self._bounds = bounds
        self._journal = journal
        self._scenario = scenario = factory(self)
        self._remembers = remember and scenario.fingerprint is not None
        self._describe = scenario.describe
        self._current: _Contender | None = None
        self._contenders: list[_Contender] = []
        for index, (name, call) in enumerate(scenario.contenders.items()):
            check_name(name)
            self._contenders.append(_Contender(index, name))
            self._start(self._contenders[index], call)
        self.names = [contender.name for contender in self._contenders]

    @property
    def outcomes(self) -> dict[str, Outcome]:
        """How each contender ended."""
        return {contender.name: contender.outcome or _STUCK for contender in self._contenders}

    def options(self) -> list[int]:
        """Return what may happen next, in a fixed order: preemptions and kills last."""
        ready = self._awaken()
        if not ready:
            return []
        bounds = self._bounds
        current = self._current if self._current in ready else None
        self.goes_on = current is not None
        free = [current] if current else ready
        others = [contender for contender in ready if contender is not current] if current else []
        left = bounds.preemptions - self.preemptions
        if others and left <= 0:
            self.cut = True
            others = []
        options = [contender.index * KINDS + STEP for contender in (*free, *others)]
        if bounds.stalls:
            options += self._ticks(ready, left)
        if self.kills < bounds.kills:
            # To preempt one for another that is killed at once comes to killing the other later.
            options += [contender.index * KINDS + KILL for contender in free]
            if bounds.after:
                awake = [contender for contender in (*free, *others) if not contender.asleep]
                options += [contender.index * KINDS + KILL_AFTER for contender in awake]
        return options

    def perform(self, decision: int) -> str:
        """Perform one of the options, and return its label."""
        if decision == TICK:
            return self._tick()
        index, kind = divmod(decision, KINDS)
        chosen, current = self._contenders[index], self._current
        if current is not None and current is not chosen and self._ready(current):
            self.preemptions += 1
            current.behind = self._clock
            self._note(f"{current.name} is preempted before {current.label!r}")
        if chosen.until > self._clock:
            self._move(chosen.until)
        chosen.behind = None
        label = chosen.label
        if kind == KILL:
            self.kills += 1
            chosen.outcome = _KILLED
            self._current = None
            self._note(f"{chosen.name} is killed before {label!r}")
            return label
        if self._journal is not None:
            self._journal.step(self._clock, chosen.name, label)
        self.steps += 1
        if kind == KILL_AFTER:
            self.kills += 1
            chosen.doomed = True
        self._switch(chosen)
        self._current = None if chosen.asleep or chosen.outcome is not None else chosen
        if kind == KILL_AFTER:
            self._note(f"{chosen.name} is killed before it has the result of {label!r}")
        elif chosen.outcome is not None and self._journal is not None:
            value = self._text(chosen.outcome.value, chosen.outcome.kind == "raised")
            self._note(f"{chosen.name} {value if chosen.outcome.kind == 'raised' else f'returns {value}'}")
        return label

    def state(self) -> bytes:
        """Return a hash of everything that the future depends on, except the remaining bounds."""
        assert self._scenario.fingerprint is not None
        current = self._current
        # By their reprs: 1, 1.0 and True are equal, yet no program has to take them for the same.
        state = repr((
            self._scenario.fingerprint(),
            self._clock,
            current.index if current is not None and self._ready(current) else None,
            [self._mark(contender) for contender in self._contenders],
        ))  # fmt: skip
        if " at 0x" in state and _ADDRESS.search(state):
            raise Misuse(f"the fingerprint has parts without a repr of their own: {state}")
        return blake2b(state.encode("utf-8", "surrogatepass"), digest_size=16).digest()

    def end(self) -> Hashable:
        """Return the world and the outcomes at the end, as values."""
        scenario = self._scenario
        world = scenario.fingerprint() if scenario.fingerprint else None
        outcomes = self.outcomes.values()
        return world, tuple(
            (outcome.kind, self._text(outcome.value, outcome.kind == "raised")) for outcome in outcomes
        )

    @property
    def remembers(self) -> bool:
        """Whether :meth:`state` may be called."""
        return self._remembers

    def finish(self) -> None:
        """Check the invariant.

        :raise Deadlock: not all have ended
        :raise BaseException: what a contender raised and should not have; what the check raises
        """
        scenario, outcomes = self._scenario, self.outcomes
        stuck = [contender for contender in self._contenders if contender.outcome is None]
        if stuck and not issubclass(Deadlock, scenario.expected):
            waits = ", ".join(f"{contender.name} for {contender.label!r}" for contender in stuck)
            raise Deadlock(f"all that live wait: {waits}")
        for outcome in outcomes.values():
            if outcome.kind == "raised" and not isinstance(outcome.value, scenario.expected):
                raise outcome.value
        scenario.check(outcomes)

    def close(self) -> None:
        """Unwind the contenders' stacks; nothing of that has an effect."""
        for contender in self._contenders:
            if contender.outcome is None:
                contender.outcome = _KILLED
            if contender.thread:
                self._running = contender
                contender.thread.throw(Killed())
                self._running = None
        if self._fault is not None:
            raise self._fault

    def _start(self, contender: _Contender, call: Callable[[], object]) -> None:
        """Let a contender run up to its first step."""

        def live() -> None:
            try:
                outcome = Outcome("returned", call())
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                outcome = Outcome("raised", error)
            if contender.outcome is None:
                contender.outcome = outcome

        contender.thread = greenlet(live)
        contender.thread.gr_context = copy_context()
        self._switch(contender)

    def _switch(self, contender: _Contender) -> None:
        """Let a contender run to its next step, or its end."""
        self._running = contender
        try:
            contender.thread.switch()
        finally:
            self._running = None
        if self._fault is not None:
            raise self._fault

    def _ready(self, contender: _Contender) -> bool:
        if contender.outcome is not None or contender.until > self._clock:
            return False
        return contender.when is None or contender.when()

    def _awaken(self) -> list[_Contender]:
        """Return who can continue; if nobody can, advance the clock until a sleeper wakes, if there is one."""
        ready = [contender for contender in self._contenders if self._ready(contender)]
        if ready:
            return ready
        sleeping = [contender.until for contender in self._contenders if self._sleeps(contender)]
        if not sleeping:
            return []
        self._move(min(sleeping))
        self._current = None
        return [contender for contender in self._contenders if self._ready(contender)]

    def _sleeps(self, contender: _Contender) -> bool:
        return contender.outcome is None and contender.until > self._clock

    def _ticks(self, ready: list[_Contender], left: int) -> list[int]:
        """Return the option to advance the clock past those that are ready, if there is one."""
        sleeping = [contender.until for contender in self._contenders if self._sleeps(contender)]
        if not sleeping:
            return []
        if sum(contender.behind is None for contender in ready) > left:
            self.cut = True
            return []
        since = min(self._clock if one.behind is None else one.behind for one in ready)
        return [TICK] if min(sleeping) - since <= self._bounds.longest_stall else []

    def _tick(self) -> str:
        for contender in self._awaken():
            if contender.behind is None:
                self.preemptions += 1
                contender.behind = self._clock
            self._note(f"{contender.name} is stalled before {contender.label!r}")
        self._move(min(contender.until for contender in self._contenders if self._sleeps(contender)))
        self._current = None
        return "~"

    def _move(self, clock: float) -> None:
        self._clock = clock
        self._note("the clock moves on")

    def _mark(self, contender: _Contender) -> object:
        """Return a contender's part of the state; a killed one has none."""
        if contender.outcome is _KILLED:
            return None
        if contender.outcome is not None:
            return contender.history
        until = max(contender.until - self._clock, 0.0)
        if not self._bounds.stalls:
            return contender.history, until
        behind = contender.behind
        if behind is not None and self._bounds.longest_stall == math.inf:
            behind = 0.0
        return contender.history, until, behind

    def _note(self, text: str) -> None:
        if self._journal is not None:
            self._journal.note(self._clock, text)
