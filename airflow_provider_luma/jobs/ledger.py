"""Owns a job's record: claims before each purchase, and never overwrites what it has not read.

The record is a sidecar file of the video and, on Airflow 3.3 and later, a value in the task state store too.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from json import JSONDecodeError
from typing import Any, Protocol

from airflow_provider_luma.exceptions import (
    LumaRayConfigurationError,
    LumaRayRecordError,
    LumaRaySuperseded,
)
from airflow_provider_luma.jobs.record import (
    Clears,
    Identity,
    JobRecord,
    RecordState,
    assemble,
    combine,
    is_other_job,
    merge,
    names_another,
)
from airflow_provider_luma.storage import StoredFile, Version, is_lasting, permission_hint, safe_name

#: Renaming it would lose the jobs in flight.
STATE_KEY = "luma_ray_job"
SUFFIX = ".job.json"
#: A claim older than this is read again before the money is spent: its process may have been suspended while a retry
#: bought. Normally both writes of a claim together take well under a second.
FRESH_SECONDS = 5.0
#: A writer that loses this often in a row is not unlucky; something else is wrong.
MAX_ROUNDS = 20

#: What an attempt does about a job that only the task state store has.
_NEXT = {
    RecordState.INTENT: "searches for it",
    RecordState.SUBMITTED: "finishes it",
    RecordState.COMPLETED: "fetches its video",
    RecordState.DELIVERED: "returns its video",
    RecordState.FAILED: "buys another clip, since it FAILED",
    RecordState.GIVEN_UP: "buys another clip once the task is cleared, since it was given up",
}
_LIKE_MAPPED = re.compile(r"-\d+$")

log = logging.getLogger(__name__)


def clip_name(identity: Identity) -> str:
    """Return where an identity's clip goes below the folder that ``output_path`` names."""
    parts = [] if identity.key is None else [safe_name(identity.key)]
    if identity.is_of_task:
        mapped = f"-{identity.map_index}" if identity.map_index >= 0 else ""
        # An unmapped task named like another's clip: no file of that name may be both.
        is_like_mapped = not mapped and _LIKE_MAPPED.search(identity.task_id)
        task = safe_name(f"{identity.task_id}{'/' if is_like_mapped else mapped}")
        parts = [safe_name(identity.dag_id), safe_name(identity.run_id), task, *parts]
    return f"{'/'.join(parts)}.mp4"


def state_key(identity: Identity) -> str:
    """Return a job's key in the task state store; the caller's own key may be any string."""
    return STATE_KEY if identity.key is None else f"{STATE_KEY}_{identity.digest}"


class StateStore(Protocol):
    """The part of Airflow's ``context["task_state_store"]`` that is used."""

    def get(self, key: str) -> Any:
        """Return a value; None if there is none, and for an attempt that a retry has replaced."""

    def set(self, key: str, value: Any, *, retention: Any = ...) -> None:
        """Store a value."""


@dataclass(frozen=True)
class Standing:
    """What the record says at one time.

    :param own: this task instance's last take
    :param current: the take that the path belongs to
    :param takes: all takes on this record, of any task instance
    """

    own: JobRecord | None = None
    current: JobRecord | None = None
    takes: tuple[JobRecord, ...] = ()

    @property
    def other(self) -> JobRecord | None:
        """The current take, if it is another task instance's."""
        is_own = self.current is None or (self.own and self.own.identity == self.current.identity)
        return None if is_own else self.current


class _Damaged(LumaRayRecordError):
    """The file is there, and is no JSON: a power failure, or somebody's editor."""


class Ledger:
    """Reads and writes the record of one task instance's job for one attempt.

    :param identity: the task instance
    :param output: where the video goes; the sidecar file is next to it
    :param store: Airflow's task state store, if there is one
    :param cleared: the task instance's clears as of this attempt
    :param shared: the folder below which other task instances keep their videos; None: the video's own folder only
    :param clock: a clock in seconds that keeps running while the machine is suspended
    :param nonce: returns a unique string
    """

    def __init__(
        self,
        identity: Identity,
        output: StoredFile,
        store: StateStore | None,
        cleared: Clears = Clears(),  # noqa: B008 - it is frozen
        shared: StoredFile | None = None,
        clock: Callable[[], float] = time.time,
        nonce: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self._identity = identity
        self._output = output
        self._store = store
        self._state_key = state_key(identity)
        self.cleared = cleared
        self._shared = shared
        self._clock = clock
        self._nonce = nonce
        self._file = output.beside(SUFFIX)
        self._version: Version | None = None
        self._record: JobRecord | None = None
        self._stored: JobRecord | None = None
        self._claimed_at = 0.0
        #: In the names of this attempt's temporary files.
        self.attempt = nonce()[:12]

    @property
    def path(self) -> str:
        """The sidecar file's path."""
        return str(self._file)

    @property
    def output(self) -> str:
        """Where the video goes."""
        return str(self._output)

    def read(self) -> Standing:
        """Read both copies and return what they say together.

        :raises LumaRayRecordError: a copy exists but cannot be read
        """
        try:
            self._refresh()
        except _Damaged as error:
            stored = self._read_store()
            error.remedy = (
                f"Move that file away: the task state store has {stored.label}. The next attempt, its inputs "
                f"unchanged, {_NEXT[stored.state]}."
                if stored and not stored.bought_nothing
                else "No other copy is known here. Check the account's request history for its job, then move the file "
                "away: the next attempt buys another clip."
            )
            raise
        self._stored = self._read_store()
        takes = {take.key: take for take in self._known_takes}
        if self._stored is not None:  # else a later write would bring back what the file has newer
            *earlier, last = (takes[take.key] for take in self._stored.takes)
            self._stored = last.changed(superseded=tuple(earlier))
        current = takes[self._record.key] if self._record else None
        mine = [take for take in takes.values() if take.identity == self._identity]
        return Standing(
            own=max(mine, key=lambda take: (*lateness(take), take is current), default=None),
            current=current,
            takes=tuple(takes.values()),
        )

    def claim(self, intent: JobRecord) -> JobRecord | None:
        """Write an intent if nobody has written since the last read (compare-and-set); call it before each paid call.

        :return: the claim; None if another writer was first: then do not buy
        :raises LumaRaySuperseded: a retry has replaced this attempt
        :raises LumaRayRecordError: it cannot be written; a copy that was written is withdrawn
        :raises LumaRayConfigurationError: nothing can ever be written next to the video
        """
        intent = intent.changed(claim=self._nonce(), cleared=self.cleared)
        record = assemble(intent.changed(revision=self._next_revision()), self._known_takes)
        self._claimed_at = self._clock()
        if not self._claim_file(record):
            return None
        try:
            self._store_takes(record)
        except (LumaRayRecordError, LumaRaySuperseded) as error:
            self.withdraw(record, str(error))
            raise
        return record.changed(superseded=())

    @property
    def _known_takes(self) -> list[JobRecord]:
        """All takes as last read or written, the file's first, each reconciled between the two copies."""
        takes = {take.key: take for take in (self._record.takes if self._record else ())}
        for take in self._stored.takes if self._stored else ():
            beside = takes.get(take.key)
            takes[take.key] = _reconciled(take, beside) if beside else take
        return list(takes.values())

    @property
    def bought(self) -> frozenset[str]:
        """The keys of all takes that are, or may be, bought, as last read or written."""
        return frozenset(
            take.key for take in self._known_takes if take.is_in_flight or take.state is RecordState.DELIVERED
        )

    def confirm(self, claim: JobRecord) -> bool:
        """Check that a claim still stands, right before the money is spent.

        The store may lack conditional writes, or this process may have been suspended since the claim.

        :raises LumaRaySuperseded: a retry has replaced this attempt
        :raises LumaRayRecordError: a copy cannot be read or written
        """
        is_safe = self._output.is_conditional
        since = self._claimed_at
        while True:
            is_late = self._clock() - since >= FRESH_SECONDS
            since = self._clock()
            if self._stored is not None and (is_late or not is_safe):
                self._set(self._stored)
            # Always, since some stores that speak S3 accept a condition and ignore it.
            self._refresh()
            if self._record is None or (self._record.key, self._record.state) != (
                claim.key,
                RecordState.INTENT,
            ):
                return False
            if self._clock() - since < FRESH_SECONDS:
                return True

    def withdraw(self, claim: JobRecord, why: str) -> None:
        """Record that nothing was bought under a claim, so that nobody searches for its job."""
        try:
            self.advance(claim.changed(state=RecordState.FAILED, error=why))
        except (LumaRayRecordError, LumaRaySuperseded) as error:
            log.warning("%s", error)

    def advance(self, take: JobRecord, *, leaving: JobRecord | None = None, **changes: Any) -> JobRecord:
        """Record changes to a take, and return it merged with what others have recorded of it.

        If another take owns the path by now, this one stays among the superseded.

        :param leaving: the take that this one takes the path over from; None: the path keeps its owner
        :raises LumaRaySuperseded: a retry has replaced this attempt; the sidecar file is written nevertheless
        :raises LumaRayRecordError: neither copy could be written
        """
        base = next((one for one in self._known_takes if one.key == take.key), take)
        changed = take.changed(superseded=(), **changes)
        take = combine(base, changed) if base.revision > take.revision else changed
        self._keep_other_id(take, changed)
        problems = []
        try:
            take = self._advance_file(take, leaving)
        except Exception as error:
            problems.append(f"{self._file}: {error!r}")
        if self._store is not None:
            take = take.changed(revision=max(take.revision, self._next_revision() - 1))
            try:
                self._store_takes(take)
            except LumaRaySuperseded as error:
                standing = f"The job is on record at {self._file}; its successor continues from there."
                if problems:
                    standing = (
                        f"The job could not be recorded ({problems[0]}); its successor searches for it."
                    )
                raise error.with_context(take.request_id, standing) from None
            except LumaRayRecordError as error:
                problems.append(str(error))
        copies = 1 if self._store is None else 2
        if len(problems) == copies:
            raise LumaRayRecordError(
                f"The job's record cannot be written: {'; '.join(problems)}.", request_id=take.request_id
            )
        for problem in problems:
            log.warning("One copy of the record could not be written (%s); the other is up to date.", problem)
        return take

    def _keep_other_id(self, kept: JobRecord, mine: JobRecord) -> None:
        """Record a job as a separate take if its call's record names another job by now."""
        if is_other_job(kept, mine):
            log.error("One call has two jobs on record: %s and %s.", mine.request_id, kept.request_id)
            self.note(mine.changed(claim=f"{mine.key}/{mine.request_id}", state=RecordState.SUBMITTED))

    def note(self, take: JobRecord, *, leaving: JobRecord | None = None, **changes: Any) -> JobRecord:
        """Like ``advance``, but if neither copy can be written, log that and carry on with what is known."""
        try:
            return self.advance(take, leaving=leaving, **changes)
        except LumaRayRecordError as error:
            log.error("%s The attempt carries on, but this is not on record.", error.cause)
            return take.changed(superseded=(), **changes)

    @property
    def current_key(self) -> str | None:
        """The key of the take that the path belonged to at the last read or write."""
        return self._record.key if self._record else None

    def is_current(self, take: JobRecord) -> bool:
        """Read again, and check that the path belongs to this take and records its digest."""
        record = self._refresh()
        return record is not None and (record.key, record.sha256) == (take.key, take.sha256)

    def _advance_file(self, take: JobRecord, leaving: JobRecord | None) -> JobRecord:
        for _ in range(MAX_ROUNDS):
            there = self._record
            wanted = _with(there, take, leaving)
            if wanted == there:
                return take
            take = take.changed(revision=self._next_revision())
            wanted = _with(there, take, leaving).changed(revision=take.revision)
            if self._write(wanted):
                return _take_of(wanted, take)
            # Somebody else has written it since: read again and merge.
            self._refresh()
            newer = _take_of(self._record, take) if self._record else take
            if newer is not take:
                mine, take = take, combine(newer, take)
                self._keep_other_id(take, mine)
        raise OSError(f"others wrote it {MAX_ROUNDS} times in a row")

    def _claim_file(self, record: JobRecord) -> bool:
        try:
            if self._write(record):
                return True
        except Exception as error:
            if is_lasting(error):
                raise LumaRayConfigurationError(
                    f"output_path {str(self._output)!r} cannot be written: {error}{permission_hint(error)}. Give a "
                    "path in a bucket or folder that exists and is writable."
                ) from None
            if not self._holds(record):
                raise LumaRayRecordError(
                    f"The job's record cannot be written next to output_path ({self._file}): {error!r}."
                ) from None
        # Lost the race, or won it with a write whose answer was lost and that the store's client sent again.
        return self._holds(record)

    def _holds(self, claim: JobRecord) -> bool:
        self._refresh()
        return self._record is not None and self._record.key == claim.key

    def _write(self, record: JobRecord) -> bool:
        """Write the file if it is still what was read; False if not."""
        content = record.to_bytes()
        if self._version is None:
            token = self._file.create(content)
        else:
            token = self._file.replace(content, self._version.token)
        if token is None:
            return False
        self._record, self._version = record, Version(content, token)
        return True

    def _next_revision(self) -> int:
        return 1 + max(record.revision if record else 0 for record in (self._record, self._stored))

    def _refresh(self) -> JobRecord | None:
        self._version, self._record = _read(self._file)
        return self._record

    def _read_store(self) -> JobRecord | None:
        if self._store is None:
            return None
        try:
            raw = self._store.get(self._state_key)
            record = None if raw is None else JobRecord.load(raw)
        except Exception as error:
            raise _unreadable(f"key {self._state_key!r} of the task state store", error) from None
        if record is not None and record.identity != self._identity:
            raise _unreadable(
                f"key {self._state_key!r} of the task state store",
                ValueError(f"it belongs to {record.identity}"),
            )
        return record

    def _store_takes(self, take: JobRecord) -> None:
        mine = (one for one in self._known_takes if one.identity == self._identity)
        # Under "keep" a sibling may wait for the same job.
        self._set(assemble(take.changed(identity=self._identity), mine))

    def _set(self, record: JobRecord) -> None:
        if self._store is None:
            return
        try:
            self._store.set(self._state_key, record.dump(), retention=_never_expire())
        except Exception as error:
            if _says_replaced(error):
                raise LumaRaySuperseded(
                    "Airflow has replaced this attempt, by a retry or a clear; this one stops.",
                    request_id=record.request_id,
                ) from None
            raise LumaRayRecordError(
                f"The job's record cannot be written to the task state store: {error!r}.",
                request_id=record.request_id,
            ) from None
        self._stored = record

    def neighbours(self, since: datetime) -> Iterator[JobRecord]:
        """Yield the other records in the same folder, or below the shared one.

        :param since: records last written before may be left out
        :raises LumaRayRecordError: one of them cannot be read
        """
        folder = self._shared or self._file.parent
        try:
            files = list(folder.files_below(SUFFIX, since, deep=folder is self._shared))
        except Exception as error:
            raise LumaRayRecordError(
                f"The records below {folder} cannot be listed: {error}{permission_hint(error)}."
            ) from None
        for file in files:
            if str(file) != self.path:
                _, record = _read(file)
                if record is not None:
                    yield record


def lateness(take: JobRecord) -> tuple[tuple[int, int, int], bool, int]:
    """Return the sort key for a task instance's last take; a replaced attempt writes late, so revisions mislead."""
    return take.cleared.order, not take.bought_nothing, take.revision


def _reconciled(stored: JobRecord, beside: JobRecord) -> JobRecord:
    """Reconcile the two copies of one take: the newer wins; at the same revision they are merged."""
    if stored.revision == beside.revision:
        return combine(beside, stored)
    newer, older = (stored, beside) if stored.revision > beside.revision else (beside, stored)
    ids = {
        "request_id": newer.request_id or older.request_id,
        "output_url": newer.output_url or older.output_url,
    }
    if names_another(newer, older):
        ids["answered_id"] = older.request_id
    return newer.changed(**ids)


def _with(there: JobRecord | None, take: JobRecord, leaving: JobRecord | None) -> JobRecord:
    """Return the record ``there`` with a take as it is now."""
    if there is None:
        return take
    if there.key == take.key:
        return assemble(take, there.superseded)
    if leaving is not None and there.key == leaving.key:
        return assemble(take, there.takes)
    if any(one.key == take.key for one in there.superseded):
        return there.changed(
            superseded=tuple(take if one.key == take.key else one for one in there.superseded)
        )
    return merge(there, take)


def _take_of(record: JobRecord, take: JobRecord) -> JobRecord:
    return next((one for one in reversed(record.takes) if one.key == take.key), take)


def _read(file: StoredFile) -> tuple[Version | None, JobRecord | None]:
    try:
        version = file.read_version()
        return version, None if version is None else JobRecord.load(version.content)
    except (JSONDecodeError, UnicodeDecodeError) as error:
        raise _Damaged(
            f"The job's record at {file} is damaged: {error}.",
            remedy="Restore it, or clear the task that wrote it, whose error then says what to do.",
        ) from None
    except Exception as error:
        raise _unreadable(str(file), error) from None


def _unreadable(where: str, error: Exception) -> LumaRayRecordError:
    return LumaRayRecordError(
        f"The job's record at {where} exists but cannot be read: {error}{permission_hint(error)}."
    )


def _says_replaced(error: Exception) -> bool:
    """Recognize the API server's answer for a stale task instance id: each retry and clear gets a new one."""
    detail = getattr(getattr(error, "error", None), "detail", None)
    return isinstance(detail, dict) and detail.get("status_code") in (404, 410)


def _never_expire() -> Any:
    # As new as the store itself, so older versions of Airflow lack it.
    from airflow.sdk import NEVER_EXPIRE  # type: ignore[attr-defined]

    return NEVER_EXPIRE
