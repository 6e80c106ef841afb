"""A benchmark's results: a table and limits, as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

Cell = str | float | int | None


@dataclass(frozen=True)
class Limit:
    """A bound on one of our measured numbers, which is None if it could not be measured here."""

    what: str
    measured: float | None
    most: float
    least: float = float("-inf")
    unit: str = ""

    @property
    def missed(self) -> bool:
        """Whether the number was measured and is out of bounds."""
        return self.measured is not None and not self.least <= self.measured <= self.most

    def __str__(self) -> str:
        mark = "  --  " if self.measured is None else "MISSED" if self.missed else "  ok  "
        found = "not measured" if self.measured is None else f"{self.measured:.3g}{self.unit}"
        bound = f"exactly {self.most:g}" if self.most == self.least else f"at most {self.most:g}"
        if self.most == float("inf"):
            bound = f"at least {self.least:g}"
        return f"[{mark}] {self.what}: {found} ({bound}{self.unit})"


@dataclass
class Report:
    """One benchmark's result.

    :param title: what was measured, and how
    :param columns: the table's column heads; the first column is text
    :param notes: what a reader must know to interpret the numbers
    """

    title: str
    columns: Sequence[str]
    rows: list[Sequence[Cell]] = field(default_factory=list)
    limits: list[Limit] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        table = [tuple(self.columns), *(tuple(map(_text, row)) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
            for row in table
        ]
        rule = "-" * max(map(len, lines))
        notes = [f"  {note}" for note in self.notes]
        return "\n".join([self.title, rule, lines[0], rule, *lines[1:], rule, *notes, *map(str, self.limits)])

    def to_json(self) -> dict[str, Any]:
        """Return the result in JSON types."""
        limits = [
            {
                "what": limit.what,
                "measured": limit.measured,
                "most": None if limit.most == float("inf") else limit.most,
                "least": None if limit.least == float("-inf") else limit.least,
                "unit": limit.unit,
                "missed": limit.missed,
            }
            for limit in self.limits
        ]
        return asdict(self) | {"limits": limits}


def _text(cell: Cell) -> str:
    if cell is None:
        return "-"
    return f"{cell:.2f}" if isinstance(cell, float) else str(cell)
