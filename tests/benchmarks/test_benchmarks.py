"""That the benchmarks run at all, and tell a missed limit; what they measure is for `make bench`."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from tests.benchmarks import paid, polling
from tests.benchmarks.report import Limit, Report


def test_a_report_is_a_table_and_says_what_missed() -> None:
    report = Report("A title", ("way", "s"), [("ours", 1.234), ("theirs", None)], notes=["A note."])
    report.limits = [
        Limit("time", 1.234, 1, unit=" s"),
        Limit("memory", None, 40),
        Limit("ratio", 1, 1, least=1),
    ]

    assert [limit.missed for limit in report.limits] == [True, False, False]
    assert str(report).splitlines() == [
        "A title",
        "------------",
        "way        s",
        "------------",
        "ours    1.23",
        "theirs     -",
        "------------",
        "  A note.",
        "[MISSED] time: 1.23 s (at most 1 s)",
        "[  --  ] memory: not measured (at most 40)",
        "[  ok  ] ratio: 1 (exactly 1)",
    ]
    assert json.loads(json.dumps(report.to_json()))["limits"][0]["missed"] is True


@pytest.mark.parametrize(
    ("duration", "at_once", "expected"),
    [(2.5, True, (4, 0.5)), (2.5, False, (3, 0.5)), (3.0, False, (3, 0.0))],
)
def test_looks_and_lag_are_counted(duration: float, at_once: bool, expected: polling.Wait) -> None:
    assert polling.watch(duration, lambda _: 1.0, at_once=at_once) == expected


@pytest.mark.parametrize("kind", ["lognormal", "normal"])
def test_the_drawn_times_have_the_mean_and_are_the_same_each_time(kind: str) -> None:
    times = polling.durations(4000, kind=kind)

    assert sum(times) / len(times) == pytest.approx(polling.TYPICAL, rel=0.02)
    assert times == polling.durations(4000, kind=kind)


def test_the_schedules_alone() -> None:
    assert [row[0] for row in polling.computed(50).rows][:2] == ["ours, lognormal", "segmind SDK, lognormal"]


def test_the_operator_and_the_sdk_wait_on_a_moving_clock() -> None:
    ours, sdk = polling.served(1).rows

    assert 0 < ours[1] < sdk[1]  # type: ignore[operator]


def test_the_faults_are_the_same_each_time_and_of_every_kind() -> None:
    drawn = paid.troubles(paid.FAULTS)

    assert drawn == paid.troubles(paid.FAULTS)
    assert {(trouble.call, trouble.kind) for trouble in drawn} >= {
        ("submit", kind) for kind in paid.KINDS["submit"]
    }
    assert set(Counter(trouble.call for trouble in drawn)) == set(paid.KINDS)


def test_money_is_counted() -> None:
    report = paid.run([paid.Trouble("submit", "500"), paid.Trouble("worker", "dies while waiting")])

    assert [row[1:3] for row in report.rows] == [(2, 2), (4, 2), (4, 2)]
    assert not any(limit.missed for limit in report.limits)
