"""What a record must be for a page to show it: anybody who writes to its folder can damage or forge one. Pure."""

from __future__ import annotations

from airflow_provider_luma.jobs.record import JobRecord
from airflow_provider_luma.segmind.money import money

#: Dates further off cannot be true, and overflow when a plot counts the days before or after them.
_YEARS = range(2000, 2200)
_MAX_BYTES = 2**63


def check(record: JobRecord) -> None:
    """Refuse a record with a value that cannot be true, in any of its takes.

    :raises ValueError: with the name of the value
    """
    for take in record.takes:
        for name, is_right in (
            ("identity", not take.identity.is_of_task or _can_be_in_a_url(take)),
            ("parameters", isinstance(take.parameters.get("prompt"), str)),
            ("cost", take.cost is None or money(take.cost) is not None),
            (
                "remaining_credits",
                take.remaining_credits is None or money(take.remaining_credits) is not None,
            ),
            ("bytes", take.bytes is None or 0 <= take.bytes < _MAX_BYTES),
            ("submitted_at", take.started.year in _YEARS),
        ):
            if not is_right:
                raise ValueError(f"its {name} cannot be true")


def _can_be_in_a_url(take: JobRecord) -> bool:
    """Whether a link made of the ids leads to the clip's page, and nowhere else in Airflow."""
    whose = take.identity
    return whose.map_index >= -1 and all(
        one.isprintable() and "/" not in one and one not in ("", ".", "..")
        for one in (whose.dag_id, whose.run_id, whose.task_id)
    )
