"""The benchmarks run, and report missed limits; the measuring is for `make bench`."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from benchmarks import batch, paid, polling, slots, throughput, transfer, triggerer
from benchmarks.report import Limit, Report
from benchmarks.server import durations


def test_a_report_is_a_table_with_missed_limits() -> None:
    report = Report("A title", ("way", "s"), [("ours", 1.234), ("theirs", None)], notes=["A note."])
    report.limits = [
        Limit("time", 1.234, 1, unit=" s"),
        Limit("memory", None, 40),
        Limit("ratio", 1, 1, least=1),
        Limit("share", 0.5, float("inf"), least=0.85),
    ]

    assert [limit.missed for limit in report.limits] == [True, False, False, True]
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
        "[MISSED] share: 0.5 (at least 0.85)",
    ]
    assert json.loads(json.dumps(report.to_json()))["limits"][0]["missed"] is True


@pytest.mark.parametrize(
    ("duration", "at_once", "expected"),
    [(2.5, True, (4, 0.5)), (2.5, False, (3, 0.5)), (3.0, False, (3, 0.0))],
)
def test_polls_and_lag_are_counted(duration: float, at_once: bool, expected: polling.Wait) -> None:
    assert polling.watch(duration, lambda _: 1.0, at_once=at_once) == expected


@pytest.mark.parametrize("kind", ["lognormal", "normal"])
def test_the_drawn_durations_have_the_mean_and_are_reproducible(kind: str) -> None:
    times = durations(4000, 125, 0.2, kind)

    assert sum(times) / len(times) == pytest.approx(125, rel=0.02)
    assert times == durations(4000, 125, 0.2, kind)


def test_the_schedules_alone() -> None:
    report = polling.computed(50)

    assert [row[0] for row in report.rows][::13] == [
        "ours, jobs of 2 s",
        "ours, about 125 s, lognormal, sd 20%",
    ]
    assert not any(limit.missed for limit in report.limits if "polls" in limit.what)


def test_the_operator_the_trigger_and_the_sdk_wait_on_an_advancing_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(polling, "DURATIONS", (20,))

    blocking, deferred, sdk, loop = polling.served(1).rows[:4]

    assert 0 < blocking[1] < sdk[1] > deferred[1] > loop[1]  # type: ignore[operator]


def test_the_faults_are_reproducible_and_of_every_kind() -> None:
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


@pytest.mark.parametrize(
    ("times", "per_minute", "seconds"),
    [
        ([125] * 24, 60, 125),
        ([10] * 24, 60, 10),
        ([10] * 24, 24, 60),
        ([10, 30], 60, 30),
    ],
)
def test_the_ideal_keeps_the_limit(times: list[float], per_minute: int, seconds: float) -> None:
    assert throughput.ideal(times, per_minute) == seconds


def test_a_crowd_under_a_limit() -> None:
    rows = throughput.crowds(jobs=3, latency=1, per_minute=1000, poll_interval=0.3).rows

    assert [row[1:4] for row in rows] == [(3, 3, 0)] * 4


def test_processes_of_one_account_starve_nobody() -> None:
    assert not any(limit.missed for limit in throughput.processes(30).limits)


def test_a_triggerer_waits_for_all_its_jobs() -> None:
    report = triggerer.to_their_end(jobs=5, latency=1, poll_interval=0.3)

    assert report.rows[0][1] == 5
    assert not any(limit.missed for limit in report.limits if "fired" in limit.what)


def test_a_triggerer_is_watched_while_its_jobs_wait() -> None:
    report = triggerer.waiting(jobs=5, per_minute=6000, seconds=8)

    assert 0 < report.rows[0][2] < 8  # type: ignore[operator]


def test_a_deferred_job_occupies_its_worker_for_less() -> None:
    (_, blocked, held, _), (_, deferred, held_deferred, _) = slots.run(
        jobs=1, latency=1, poll_interval=0.3
    ).rows

    assert blocked == deferred == 1
    assert held > held_deferred  # type: ignore[operator]


def test_a_video_is_transferred_every_way() -> None:
    assert transfer._measure(4, rounds=1).keys() == transfer.LABELS.keys()


def test_a_plan_costs_little_more_than_a_listing() -> None:
    report = batch.run(frames=100, rounds=1)

    assert {limit.what for limit in report.limits if limit.missed} <= {"time compared with a plain listing"}
