"""The clips on record in the configured folders, listed again and again; a record is read only when it has changed.

There is one index for the whole process. A second thread refreshes it, so a slow store keeps no reader waiting long.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooLong
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from threading import Lock

from airflow_provider_luma.jobs.ledger import SUFFIX
from airflow_provider_luma.jobs.record import Identity, JobRecord, RecordState
from airflow_provider_luma.plugins import words
from airflow_provider_luma.plugins.checks import check
from airflow_provider_luma.plugins.folders import Folder

#: A record has a few kilobytes, and more only with many takes.
MAX_RECORD_BYTES = 1024 * 1024
#: Seconds between two listings: soon enough for a new clip, seldom enough for a page that many people watch. A clip
#: that just misses a listing waits this long and for two listings; of 10,000 clips in a bucket, one takes seconds.
FRESH_SECONDS = 3.0
#: Seconds that a reader waits for a newer list before making do with the old one.
PATIENCE_SECONDS = 0.6
#: The same until all records have been read once, and for a missing clip: a browser asks for a picture only once.
LONG_PATIENCE_SECONDS = 5.0
#: Seconds between two listings while somebody asks for a clip that is missing.
MISSED_SECONDS = 1.0
#: On the first reading, clips show up this many at a time.
_BATCH = 500
#: Records read at once: a store answers many at a time, a disk is none the worse for it.
_READERS = 8
#: Characters of a text that a list keeps: more would only fill the memory.
_SHOWN = 200

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Location:
    """Where a clip is.

    :param folder: the configured folder
    :param name: the clip's path in it
    """

    folder: Folder
    name: str

    @property
    def path(self) -> str:
        """The clip's path or URI."""
        return self.folder.path_of(self.name)

    def record(self) -> JobRecord:
        """Read the record beside the clip.

        :raises OSError: it cannot be read
        :raises ValueError: it is no record of this very place, or cannot be true
        """
        record = JobRecord.load(self.folder.read(self.name + SUFFIX, MAX_RECORD_BYTES))
        if self.folder.name_of(record.output_path) != self.name:
            raise ValueError("it is about another place")
        check(record)
        return record


@dataclass(frozen=True, slots=True)
class Entry:
    """What lists need of one take.

    :param finished: when its clip was seen to be ready
    :param is_current: whether the path is this take's
    """

    location: Location
    identity: Identity
    key: str
    state: RecordState
    started: datetime
    finished: datetime | None
    is_current: bool
    luma_ray_conn_id: str
    model: str
    prompt: str
    start_frame: str | None
    request_id: str | None
    cost: Decimal | None
    remaining_credits: Decimal | None
    error: str | None

    @classmethod
    def of(cls, take: JobRecord, location: Location, *, is_current: bool) -> Entry:
        """Return the entry of a take on the record of a location."""
        return cls(
            location=location,
            identity=take.identity,
            key=take.key,
            state=take.state,
            started=take.started.in_timezone("UTC"),
            finished=words.moment(take.completed_at),
            is_current=is_current,
            luma_ray_conn_id=take.luma_ray_conn_id,
            model=take.model,
            prompt=take.parameters["prompt"][:_SHOWN],
            start_frame=take.start_frame,
            request_id=take.request_id,
            cost=take.cost,
            remaining_credits=take.remaining_credits,
            error=take.error and take.error[:_SHOWN],
        )


@dataclass(frozen=True)
class Snapshot:
    """All clips as of one listing.

    :param entries: the takes, newest first
    :param is_whole: whether the folders have been read once to their end
    """

    entries: tuple[Entry, ...] = ()
    is_whole: bool = False

    @cached_property
    def _by_task(self) -> Mapping[Identity, list[Entry]]:
        by_task = defaultdict(list)
        for entry in self.entries:
            by_task[entry.identity].append(entry)
        return by_task

    def of_run(self, dag_id: str, run_id: str) -> list[Entry]:
        """Return the takes of a run, newest first."""
        run = (dag_id, run_id)
        return [entry for entry in self.entries if (entry.identity.dag_id, entry.identity.run_id) == run]

    def others(self, identity: Identity) -> list[Entry]:
        """Return the takes of a task instance's other clips, newest first: with the hook, one task can buy several."""
        whose = identity.model_copy(update={"key": None})
        run = self.of_run(identity.dag_id, identity.run_id)
        return [
            entry
            for entry in run
            if entry.identity != identity and entry.identity.model_copy(update={"key": None}) == whose
        ]

    def of(self, identity: Identity) -> Entry | None:
        """Return the last take of a clip."""
        entries = self._by_task.get(identity)
        return entries[0] if entries else None


@dataclass
class Index:
    """The clips below some folders."""

    folders: tuple[Folder, ...]
    _known: dict[Location, tuple[str, tuple[Entry, ...]]] = field(default_factory=dict)
    _snapshot: Snapshot = Snapshot()
    _listed_at: float = float("-inf")
    _lock: Lock = field(default_factory=Lock)
    _refreshing: Future[None] | None = None

    def snapshot(self, *, is_missed: bool = False) -> Snapshot:
        """Return the clips, as new as patience allows.

        :param is_missed: something was not there that may be new: then even a fresh list is made anew
        """
        patience = PATIENCE_SECONDS if self._snapshot.is_whole and not is_missed else LONG_PATIENCE_SECONDS
        with self._lock:
            if time.monotonic() - self._listed_at < (MISSED_SECONDS if is_missed else FRESH_SECONDS):
                return self._snapshot
            if self._refreshing is None:
                worker = ThreadPoolExecutor(1, thread_name_prefix="luma_ray_index")
                self._refreshing = worker.submit(self._refresh)
                worker.shutdown(wait=False)
            refreshing = self._refreshing
        with suppress(TooLong):
            refreshing.result(patience)
        return self._snapshot

    def _refresh(self) -> None:
        try:
            known: dict[Location, tuple[str, tuple[Entry, ...]]] = {}
            new: dict[Location, str] = {}
            for folder in self.folders:
                for location, mark in self._listed(folder):
                    there = self._known.get(location)
                    if there is not None:
                        known[location] = there
                    if there is None or there[0] != mark:
                        new[location] = mark
            with ThreadPoolExecutor(_READERS) as readers:
                for (location, mark), entries in zip(new.items(), readers.map(_read, new), strict=True):
                    if entries is not None:
                        known[location] = (mark, entries)
                    if not self._snapshot.is_whole and len(known) % _BATCH == 0:
                        self._snapshot = Snapshot(_newest_first(known.values()))
            if known != self._known or not self._snapshot.is_whole:
                self._known, self._snapshot = known, Snapshot(_newest_first(known.values()), is_whole=True)
        except Exception:
            log.exception("The records of the clips cannot be listed")
        finally:
            with self._lock:
                self._listed_at, self._refreshing = time.monotonic(), None

    def _listed(self, folder: Folder) -> list[tuple[Location, str]]:
        """Return a folder's clips with their records' marks; if it cannot be listed now, those that are known."""
        try:
            return [
                (Location(folder, name.removesuffix(SUFFIX)), mark) for name, mark in folder.listed(SUFFIX)
            ]
        except Exception as error:
            log.warning("The clips below %s cannot be listed: %s", folder.uri, error)
            return [
                (location, mark) for location, (mark, _) in self._known.items() if location.folder is folder
            ]


def _read(location: Location) -> tuple[Entry, ...] | None:
    """Return the takes on a record; None if it cannot be read now."""
    try:
        record = location.record()
        *earlier, current = record.takes
        return (
            Entry.of(current, location, is_current=True),
            *(Entry.of(take, location, is_current=False) for take in earlier),
        )
    except ValueError as error:
        log.warning("Not shown in the UI: the record of %s: %s", location.path, error)
        return ()
    except Exception as error:
        log.warning("Not shown in the UI: the record of %s: %r", location.path, error)
        return None


def _newest_first(known: Iterable[tuple[str, tuple[Entry, ...]]]) -> tuple[Entry, ...]:
    entries = [entry for _, takes in known for entry in takes]
    return tuple(sorted(entries, key=lambda entry: (entry.started, entry.is_current), reverse=True))
