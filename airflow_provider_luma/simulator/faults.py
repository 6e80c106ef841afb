"""Faults on demand: which call goes wrong next, how, and how often."""

from __future__ import annotations

import json
import math
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from airflow_provider_luma.simulator.kinds import CALLS, KINDS

FAILURE = "The model could not process the request"
_NUMBER = (int, float)
_JSON_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "call": str,
    "kind": (str, int),
    "accepted": bool,
    "times": int,
    "status": int,
    "seconds": _NUMBER,
    "location": str,
    "bytes": int,
    "request_id": str,
    "style": str,
    "message": str,
}


@dataclass
class Fault:
    """One kind of fault for the next calls of one name.

    :param call: the call that goes wrong, one of `CALLS`
    :param kind: how, one of `KINDS`, which says which of the other fields it reads
    :param accepted: whether the call still has its effect; by default as usual for the kind
    :param times: how many calls go wrong
    :param request_id: the `x-request-id` of the reply, for any kind; "" for none
    """

    call: str
    kind: str
    accepted: bool | None = None
    times: int = 1
    status: int | None = None
    seconds: float | None = None
    location: str | None = None
    bytes: int | None = None
    request_id: str | None = None
    style: str | None = None
    message: str | None = None

    def __post_init__(self) -> None:
        if self.call not in CALLS:
            raise ValueError(f"call must be one of {', '.join(CALLS)}: {self.call!r}")
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, or a status: {self.kind!r}")
        kind = KINDS[self.kind]
        if self.call not in kind.calls:
            raise ValueError(f"the call of {self.kind} must be one of {', '.join(kind.calls)}: {self.call!r}")
        if self.times < 1:
            raise ValueError(f"times must be at least 1: {self.times}")
        if self.status is not None and not 200 <= self.status <= 599:
            raise ValueError(f"status must be between 200 and 599: {self.status}")
        if self.seconds is not None and not math.isfinite(self.seconds):
            raise ValueError(f"seconds must be finite: {self.seconds}")
        if self.bytes is not None and self.bytes < 0:
            raise ValueError(f"bytes must not be negative: {self.bytes}")
        if kind.spoils_truth and self.accepted is False:
            raise ValueError(f"accepted must not be false: {self.kind} spoils a true reply")
        if self.style is None and kind.styles:
            self.style = kind.styles[0]
        if self.style is not None and self.style not in kind.styles:
            raise ValueError(f"style of {self.kind} must be one of {', '.join(kind.styles) or 'none'}")
        if self.accepted is None:
            self.accepted = (self.status or 502) >= 500 if kind.accepted is None else kind.accepted

    @classmethod
    def named(cls, call: str, kind: str | int, **options: Any) -> Fault:
        """Make a fault by its kind's name; a number is a status to answer."""
        if isinstance(kind, int) or kind.isdecimal():
            return cls(call, "status", **{**options, "status": int(kind)})
        return cls(call, kind, **options)

    @classmethod
    def from_text(cls, text: str) -> Fault:
        """Parse CALL:KIND[:TIMES], or a JSON object with any of the fields."""
        if text.lstrip().startswith("{"):
            return cls.from_json(json.loads(text))
        call, _, rest = text.partition(":")
        kind, _, times = rest.partition(":")
        return cls.named(call, kind, times=int(times or 1))

    @classmethod
    def from_json(cls, given: object) -> Fault:
        """Make a fault from a JSON object."""
        if not isinstance(given, dict):
            raise ValueError("a fault must be a JSON object")
        names = [field.name for field in fields(cls)]
        unknown = set(given) - set(names)
        if unknown:
            raise ValueError(f"unknown fields: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
        if not {"call", "kind"} <= set(given):
            raise ValueError("a fault must have a call and a kind")
        for name, value in given.items():
            expected = _JSON_TYPES[name]
            optional = value is None and name not in ("call", "kind", "times")
            if not optional and (
                not isinstance(value, expected) or isinstance(value, bool) is not (expected is bool)
            ):
                raise ValueError(f"{name} must not be {value!r}")
        return cls.named(**given)


class FaultPlan:
    """The faults to come, in the order in which they were added."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[Fault]] = defaultdict(deque)

    def add(self, fault: Fault) -> None:
        """Append a fault to its call's queue."""
        self._queues[fault.call].append(fault)

    def clear(self) -> None:
        """Forget all of them."""
        self._queues.clear()

    def take(self, call: str) -> Fault | None:
        """Use up one fault of this call, if there is any."""
        queue = self._queues.get(call)
        if not queue:
            return None
        queue[0].times -= 1
        return queue[0] if queue[0].times else queue.popleft()

    def listing(self) -> list[dict[str, Any]]:
        """Return the remaining faults, for the state page."""
        return [asdict(fault) for queue in self._queues.values() for fault in queue]
