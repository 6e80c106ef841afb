"""The lists: a run's contact sheet, the gallery, and the spending."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime
from decimal import Decimal
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_luma.jobs.record import RecordState
from airflow_provider_luma.plugins import lists
from airflow_provider_luma.plugins.folders import _folder
from airflow_provider_luma.plugins.index import Entry, Location
from tests.plugins import clips
from tests.plugins.conftest import Shown

FOLDER = _folder("/clips")
assert FOLDER is not None


def entry(
    task_id: str = "generate", *, is_current: bool = True, index: int = -1, dag: str = "clips", **changes: Any
):
    whose = clips.identity(dag, task_id=task_id, map_index=index)
    name = f"{task_id}-{index}.mp4"
    take = clips.record(Path("/clips") / name, whose, **changes)
    return Entry.of(take, Location(FOLDER, name), is_current=is_current)  # type: ignore[arg-type]


def on(day: int, number: int = 0, **changes: Any):
    at = datetime(2026, 11, day, 12, number, tzinfo=UTC).isoformat()
    changes = {"request_id": f"{day}-{number}", "submitted_at": at, "completed_at": at} | changes
    return entry(f"t{day}_{number}", **changes)


def test_a_contact_sheet_has_failures_first_and_the_rest_by_map_index() -> None:
    sheet = [entry(index=index) for index in (3, 0, 11)]
    sheet.append(entry(index=7, state=RecordState.FAILED))
    sheet.append(entry(index=9, state=RecordState.INTENT, error="no reply"))
    assert [one.identity.map_index for one in lists.contact_sheet(sheet)] == [7, 9, 0, 3, 11]


def test_a_contact_sheet_has_each_task_instances_last_take() -> None:
    newer, older = entry(claim="b"), entry(claim="a", state=RecordState.FAILED)
    assert lists.contact_sheet([newer, older]) == [newer]


def test_each_job_is_counted_once_and_a_failed_one_not_at_all() -> None:
    entries = [
        on(1),
        on(2),
        on(2, claim="copied to another folder"),
        on(3, cost=None),
        on(4, cost=None, state=RecordState.FAILED),
        on(5, cost=None, state=RecordState.SUBMITTED),
        on(6, is_current=False),
    ]
    assert lists.total(entries) == lists.Total(Decimal("6.4"), clips=4, estimated=1)


def test_spending_is_shown_for_every_day_from_the_first_to_the_last() -> None:
    entries = [on(1), on(1, 1), on(9)]
    assert lists.spending(entries) == [
        (date(2026, 11, 1), Decimal("3.2")),
        *((date(2026, 11, day), Decimal(0)) for day in range(2, 9)),
        (date(2026, 11, 9), Decimal("1.6")),
    ]
    assert lists.spending([]) == []
    assert [day.day for day, _ in lists.spending([on(9)])] == [3, 4, 5, 6, 7, 8, 9]
    old = on(1, request_id="old", submitted_at="2025-01-01T00:00:00+00:00")
    assert len(lists.spending([*entries, old])) == lists.DAYS


def test_a_balance_belongs_to_the_connection_that_paid() -> None:
    found = lists.balances([on(2, remaining_credits=Decimal(5)), on(1), on(1, 1, luma_ray_conn_id="other")])
    assert {conn_id: [amount for _, amount in points] for conn_id, points in found.items()} == {
        "luma_ray_default": [Decimal("16.8"), Decimal(5)],
        "other": [Decimal("16.8")],
    }


@pytest.mark.parametrize("amount", [1, 2, lists.POINTS, lists.POINTS + 1, 7 * lists.POINTS + 3])
def test_a_plot_of_many_balances_is_thinned_and_ends_with_the_last(amount: int) -> None:
    thinned = lists._thinned(list(range(amount)))
    assert thinned[-1] == amount - 1
    assert min(amount, lists.POINTS) / 2 <= len(thinned) <= lists.POINTS


def test_the_gallery_has_only_what_may_be_read() -> None:
    mine, theirs = on(1), on(2, dag="others")
    shown = lists.gallery([theirs, mine], {"clips"}.__contains__, lists.Wish())
    assert (shown.clips, shown.dags, shown.total.clips) == ([mine], ["clips"], 1)
    wish = lists.Wish(dag="others")
    assert lists.gallery([theirs, mine], {"clips"}.__contains__, wish).clips == []


@pytest.mark.parametrize(
    ("wish", "days"),
    [
        (lists.Wish(), [5, 4, 3, 2, 1]),
        (lists.Wish(dag="others"), [2]),
        (lists.Wish(state="failed"), [4]),
        (lists.Wish(state="in flight"), [5, 3]),
        (lists.Wish(state="unknown"), []),
        (lists.Wish(since=date(2026, 11, 2), until=date(2026, 11, 3)), [3, 2]),
    ],
)
def test_the_gallery_is_filtered(wish: lists.Wish, days: list[int]) -> None:
    entries = [
        on(5, state=RecordState.COMPLETED),
        on(4, state=RecordState.FAILED),
        on(3, state=RecordState.SUBMITTED),
        on(2, dag="others"),
        on(1),
    ]
    shown = lists.gallery(entries, lambda dag: True, wish)
    assert [one.started.day for one in shown.clips] == days


@pytest.mark.parametrize(("page", "shown", "amount"), [(1, 1, 24), (2, 2, 6), (3, 2, 6), (0, 1, 24)])
def test_a_page_number_of_the_gallery_is_clamped(page: int, shown: int, amount: int) -> None:
    entries = [on(1, number) for number in range(30)]
    found = lists.gallery(entries, lambda dag: True, lists.Wish(page=page))
    assert (found.wish.page, len(found.clips), found.pages, found.amount) == (shown, amount, 2, 30)


# The pages, by a real api-server


@pytest.fixture(scope="module")
def batch(shown: Shown):
    """A run with two finished clips and one failed, and a clip of another DAG."""
    for index in range(2):
        whose = shown.identity(map_index=index)
        clips.put(shown.path(whose), whose, request_id=f"job-{shown.run_id}-{index}")
    failed = shown.identity(map_index=2)
    clips.put(shown.path(failed), failed, video=None, state=RecordState.FAILED, cost=None, request_id="gone")
    lost = shown.identity(task_id="lost")
    clips.put(
        shown.path(lost),
        lost,
        video=None,
        state=RecordState.INTENT,
        cost=None,
        error="no reply",
        request_id=None,
    )
    theirs = shown.identity("plots")
    clips.put(shown.path(theirs), theirs, request_id="theirs")
    shown.wait(theirs, "<video")
    return shown


@pytest.mark.airflow
def test_a_runs_page_has_its_clips_and_their_sum(batch: Shown) -> None:
    page = batch.server.get("of_clips", f"run/clips/{batch.run_id}").text
    places = re.findall(r'href="\.\./\.\./(clip/[^"]+)"', page)
    assert [place.rsplit("/", 2)[1:] for place in places] == [
        ["generate", "2"],
        ["lost", "-1"],
        ["generate", "0"],
        ["generate", "1"],
    ]
    assert "<strong>3.20 USD</strong>" in page
    assert "<video" not in page


@pytest.mark.airflow
@pytest.mark.parametrize(
    ("user", "status"), [(None, 401), ("of_others", 403), ("nobody", 403), ("anna", 200)]
)
def test_a_runs_page_is_for_the_readers_of_its_dag(batch: Shown, user: str | None, status: int) -> None:
    assert batch.server.get(user, f"run/clips/{batch.run_id}").status_code == status
    assert batch.server.get(user, "run/~/run").status_code == (401 if user is None else 403)


@pytest.mark.airflow
def test_the_gallery_needs_a_sign_in_and_hides_other_dags(batch: Shown) -> None:
    assert batch.server.get(None, "gallery").status_code == 401
    of_plots = batch.server.get("of_plots", "gallery").text
    assert "clip/plots/" in of_plots
    assert "clip/clips/" not in of_plots
    assert "/clips/" not in of_plots.replace("clip/plots/", "")
    assert "<option>clips</option>" not in of_plots
    nothing = batch.server.get("nobody", "gallery").text
    assert "No clips here." in nothing
    assert batch.run_id not in nothing
    assert "No clips here." in batch.server.get("of_clips", "gallery?dag=plots").text


@pytest.mark.airflow
def test_the_gallery_has_the_commands_that_settle_a_lost_call(batch: Shown) -> None:
    lost = batch.path(batch.identity(task_id="lost"))
    page = unescape(batch.server.get("of_clips", "gallery").text)
    assert f"python -m airflow_provider_luma not-bought {lost}" in page


@pytest.mark.airflow
def test_the_plot_and_the_table_have_what_the_records_say(batch: Shown) -> None:
    page = batch.server.get("of_plots", "gallery").text
    plots = [json.loads(unescape(data)) for data in re.findall(r'data-plot="([^"]*)"', page)]
    assert plots[0][0][-1] == datetime(2026, 11, 25, tzinfo=UTC).timestamp()
    assert plots[0][1] == [0, 0, 0, 0, 0, 0, 1.6]
    assert plots[1] == [[datetime.fromisoformat("2026-11-25T14:04:07.283210+00:00").timestamp()], [16.8]]
    assert '<td>2026-11-25</td><td class="number">1.60</td>' in page


@pytest.mark.airflow
@pytest.mark.parametrize(
    "query", ["page=x", "page=-1", "page=9999999999", "since=yesterday", "state=<b>", "dag=%00"]
)
def test_an_invalid_filter_filters_nothing_or_finds_nothing(batch: Shown, query: str) -> None:
    reply = batch.server.get("anna", f"gallery?{query}")
    assert reply.status_code == 200
    assert "<b>" not in reply.text
