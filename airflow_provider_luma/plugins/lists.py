"""Which clips a page lists, in which order, and what they cost together. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import TypeVar

from airflow_provider_luma.jobs.record import IN_FLIGHT, RecordState
from airflow_provider_luma.plugins import words
from airflow_provider_luma.plugins.index import Entry
from airflow_provider_luma.segmind.ids import id_key
from airflow_provider_luma.segmind.models import model_info

T = TypeVar("T")

#: Tiles on a page of the gallery: three, four or six a row come out even.
PAGE = 24
#: A plot of more days would have bars too thin to see.
DAYS = 60
#: Points of a plot: there are fewer pixels to draw them on.
POINTS = 500
#: The states that the gallery is filtered by.
STATES = ("unknown", "in flight", "delivered", "failed", "given up")


def group(entry: Entry) -> str:
    """Return which of STATES an entry is in."""
    label = words.label(entry.state, entry.error)
    return label if label in STATES else "in flight"


@dataclass(frozen=True)
class Total:
    """What some takes cost.

    :param usd: US dollars, those of a take without a known cost by its model's price
    :param estimated: how many have no known cost
    """

    usd: Decimal = Decimal(0)
    clips: int = 0
    estimated: int = 0


def total(entries: Iterable[Entry]) -> Total:
    """Add up what was charged as far as is on record, each job once."""
    billed = billed_once(entries)
    return Total(
        usd=sum((price(entry) for entry in billed), Decimal(0)),
        clips=len(billed),
        estimated=sum(entry.cost is None for entry in billed),
    )


def billed_once(entries: Iterable[Entry]) -> list[Entry]:
    """Return the takes that were charged, each job once: one in flight may still fail."""
    jobs: dict[str, Entry] = {}
    for entry in entries:
        if entry.cost is not None or entry.state in (RecordState.COMPLETED, RecordState.DELIVERED):
            key = id_key(entry.request_id) if entry.request_id else f"{entry.location.name}\0{entry.key}"
            if key not in jobs or jobs[key].cost is None:
                jobs[key] = entry
    return list(jobs.values())


def price(entry: Entry) -> Decimal:
    """Return what a take cost, or what its model's clips cost."""
    return entry.cost if entry.cost is not None else model_info(entry.model).price or Decimal(0)


def contact_sheet(entries: Iterable[Entry]) -> list[Entry]:
    """Return each clip's last take: those that went wrong first, then in the order of the mapping."""
    last: dict[object, Entry] = {}
    for entry in entries:  # newest first
        last.setdefault(entry.identity, entry)
    return sorted(
        last.values(),
        key=lambda entry: (
            group(entry) not in ("failed", "unknown"),
            entry.identity.task_id,
            entry.identity.map_index,
            entry.identity.key or "",
        ),
    )


@dataclass(frozen=True)
class Wish:
    """What the gallery is to show. An empty value filters nothing.

    :param page: from 1
    """

    dag: str = ""
    state: str = ""
    since: date | None = None
    until: date | None = None
    page: int = 1

    def fits(self, entry: Entry) -> bool:
        """Whether DAG and date are those wished for."""
        day = entry.started.date()
        return (
            (not self.dag or entry.identity.dag_id == self.dag)
            and (self.since is None or day >= self.since)
            and (self.until is None or day <= self.until)
        )


@dataclass(frozen=True)
class Gallery:
    """What the gallery shows.

    :param unsettled: takes that a person may have to settle
    :param in_flight: the others whose clips are to come
    :param clips: one page of the clips, newest first
    :param pages: how many there are
    :param spending: US dollars by day
    :param balances: by connection, the balance on record after its jobs, oldest first
    """

    wish: Wish
    dags: list[str]
    unsettled: list[Entry]
    in_flight: list[Entry]
    clips: list[Entry]
    amount: int
    pages: int
    total: Total
    spending: list[tuple[date, Decimal]]
    balances: Mapping[str, list[tuple[datetime, Decimal]]]


def gallery(entries: Iterable[Entry], may_read: Callable[[str], bool], wish: Wish) -> Gallery:
    """Select what a user may read and wishes to see.

    :param entries: newest first
    :param may_read: tells whether the user may read a DAG
    """
    mine = [entry for entry in entries if may_read(entry.identity.dag_id)]
    fitting = [entry for entry in mine if wish.fits(entry)]
    clips = [
        entry for entry in fitting if entry.is_current and (not wish.state or group(entry) == wish.state)
    ]
    pages = max(1, -(-len(clips) // PAGE))
    page = min(max(wish.page, 1), pages)
    current = [entry for entry in mine if entry.is_current]
    return Gallery(
        wish=Wish(wish.dag, wish.state, wish.since, wish.until, page),
        dags=sorted({entry.identity.dag_id for entry in mine}),
        unsettled=[entry for entry in current if group(entry) == "unknown"],
        in_flight=[e for e in current if e.state in IN_FLIGHT and group(e) != "unknown"],
        clips=clips[(page - 1) * PAGE : page * PAGE],
        amount=len(clips),
        pages=pages,
        total=total(fitting),
        spending=spending(fitting),
        balances=balances(fitting),
    )


def spending(entries: Iterable[Entry]) -> list[tuple[date, Decimal]]:
    """Return the dollars spent on each day from the first to the last: at least a week, at most what a plot takes."""
    by_day: dict[date, Decimal] = defaultdict(Decimal)
    for entry in billed_once(entries):
        by_day[entry.started.date()] += price(entry)
    if not by_day:
        return []
    last = max(by_day)
    first = max(min(*by_day, last - timedelta(days=6)), last - timedelta(days=DAYS - 1))
    days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    return [(day, by_day.get(day, Decimal(0))) for day in days]


def balances(entries: Iterable[Entry]) -> dict[str, list[tuple[datetime, Decimal]]]:
    """Return the balance after each job, by the connection that paid, oldest first."""
    found: dict[str, list[tuple[datetime, Decimal]]] = defaultdict(list)
    for entry in entries:
        if entry.remaining_credits is not None and entry.finished is not None:
            found[entry.luma_ray_conn_id].append((entry.finished, entry.remaining_credits))
    return {conn_id: _thinned(sorted(points)) for conn_id, points in sorted(found.items())}


def _thinned(points: list[T]) -> list[T]:
    """Leave out points, evenly and never the last, until a plot can take them."""
    step = -(-len(points) // POINTS)
    return points[(len(points) - 1) % step :: step] if points else points
