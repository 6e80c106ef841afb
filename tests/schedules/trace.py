"""A schedule written down: as text to replay, and as a trace to read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

# A decision is an int: what happens to the contender of that index, or TICK.
KINDS = 3
STEP, KILL, KILL_AFTER = range(KINDS)
TICK = -1

_WORDS = {KILL: "kill", KILL_AFTER: "kill-after"}
_TICK_WORD = "~"
_NAME = re.compile(r"[^\s:~]+")
_LONGEST_RESULT = 72
_LONGEST_TRACE = 160


def check_name(name: str) -> None:
    """Refuse a contender's name that cannot be part of a schedule's text."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name for a contender: no blanks, no ':', no '~'")


def encode(decisions: Iterable[int], names: Sequence[str]) -> str:
    """Write decisions as text.

    ``a:3`` is three steps of a, ``a:kill`` kills it before its next one, ``a:kill-after`` between the effect
    of its next one and the result; ``~`` moves the clock on past those who are stalled.
    """
    words = []
    for decision, same in groupby(decisions):
        count = len(list(same))
        index, kind = divmod(decision, KINDS)
        if decision == TICK:
            words += [_TICK_WORD] * count
        elif kind == STEP:
            words.append(f"{names[index]}:{count}")
        else:
            words.append(f"{names[index]}:{_WORDS[kind]}")
    return " ".join(words)


def decode(schedule: str, names: Sequence[str]) -> list[int]:
    """Read the decisions back.

    :raise ValueError: it is not a schedule of these contenders
    """
    kinds = {word: kind for kind, word in _WORDS.items()}
    decisions: list[int] = []
    for word in schedule.split():
        name, _, what = word.partition(":")
        if word == _TICK_WORD:
            decisions.append(TICK)
        elif name in names and what.isdecimal():
            decisions += [names.index(name) * KINDS + STEP] * int(what)
        elif name in names and what in kinds:
            decisions.append(names.index(name) * KINDS + kinds[what])
        else:
            raise ValueError(f"{word!r} is no decision on {', '.join(names)}")
    return decisions


@dataclass
class Line:
    """What happened at one moment: a contender's step, or an event if it has no name."""

    time: float
    name: str
    what: str
    result: str = ""


@dataclass
class Journal:
    """What happened in a run, in order."""

    lines: list[Line] = field(default_factory=list)

    def step(self, time: float, name: str, label: str) -> None:
        """Add a contender's step."""
        self.lines.append(Line(time, name, label))

    def result(self, text: str) -> None:
        """Add the last step's result."""
        self.lines[-1].result = text

    def note(self, time: float, text: str) -> None:
        """Add an event of one contender, or of all."""
        self.lines.append(Line(time, "", text))

    def __str__(self) -> str:
        timed = any(line.time for line in self.lines)
        name_width = max((len(line.name) for line in self.lines), default=0)
        what_width = max((len(line.what) for line in self.lines if line.result), default=0)
        text = []
        for number, line in enumerate(self.lines, 1):
            time = f"{line.time:>8g} s" if timed else ""
            if not line.name:
                text.append(f"{number:>4}{time}  {'·' * name_width}  {line.what}")
                continue
            result = f"{line.what:<{what_width}}  → {_short(line.result)}" if line.result else line.what
            text.append(f"{number:>4}{time}  {line.name:<{name_width}}  {result}")
        if len(text) > _LONGEST_TRACE:
            half = _LONGEST_TRACE // 2
            text[half:-half] = [f" ... {len(text) - 2 * half} more ..."]
        return "\n".join(text)


def _short(text: str) -> str:
    text = text.replace("\n", "\\n")
    return text if len(text) <= _LONGEST_RESULT else text[: _LONGEST_RESULT - 1] + "…"
