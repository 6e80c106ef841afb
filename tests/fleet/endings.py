"""The table of how runs ended under faults."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from benchmarks.report import Report

#: A clip is delivered, or a person is told what to do about it, with or without a purchase.
DELIVERED, TOLD, TOLD_AND_BOUGHT = "delivered", "told, not bought", "told, bought"


def _empty() -> Report:
    return Report(
        "Clips under faults; none was bought twice",
        ("fault", "clips", DELIVERED, TOLD, TOLD_AND_BOUGHT),
    )


@dataclass
class Endings:
    """Collects them."""

    report: Report = field(default_factory=_empty)

    def add(self, fault: str, found: Counter[str]) -> None:
        """Add what one fault led to."""
        counts = [found[ending] for ending in (DELIVERED, TOLD, TOLD_AND_BOUGHT)]
        self.report.rows.append((fault, found.total(), *counts))
