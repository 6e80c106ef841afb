"""Finds a job's record, and changes it: the video's sidecar file, and Airflow's task state store."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from airflow_provider_luma.cli.errors import Refused
from airflow_provider_luma.cli.store import DatabaseStore, NoStore
from airflow_provider_luma.jobs.decision import Place
from airflow_provider_luma.jobs.delivery import is_in_place
from airflow_provider_luma.jobs.ledger import SUFFIX, Ledger, Standing, clip_name, state_key
from airflow_provider_luma.jobs.record import Identity, JobRecord, RecordState, assemble
from airflow_provider_luma.segmind.ids import id_key, is_same_id
from airflow_provider_luma.storage import StoredFile, open_file

log = logging.getLogger(__name__)

#: The fields that tell whether a change is on record.
_DECISIVE = ("state", "request_id", "sha256")
_NOBODY = Identity(dag_id="", run_id="", task_id="")


@dataclass(frozen=True)
class Found:
    """A task instance's job on record.

    :param output: the clip
    :param ledger: the record's owner, for this task instance
    :param standing: everything on record, merged from both copies
    :param take: the take that a command is about: the task instance's last one
    :param has_file: whether the sidecar file exists here; if not, only the store's copy is visible
    :param store: Airflow's task state store, or a string that says why it cannot be used from here
    """

    output: StoredFile
    ledger: Ledger
    standing: Standing
    take: JobRecord
    has_file: bool
    store: DatabaseStore | str

    def place(self) -> Place:
        """Return what is at the clip's path."""
        seen = self.output.look()
        if seen is None or seen.is_folder:
            return Place(is_taken=False)
        likely = (self.take, *reversed(self.standing.takes))
        return Place(is_taken=True, holds=next((t for t in likely if is_in_place(t, self.output)), None))

    @property
    def of(self) -> Identity | None:
        """The task instance, for a command that has to name it; None if the path's record is its own."""
        current = self.standing.current
        return (
            None
            if self.has_file and current and current.identity == self.take.identity
            else self.take.identity
        )

    def job(self, request_id: str) -> Found | None:
        """Return what is on record of the task instance that bought a job, about that job; None if it is not there."""
        return self._about(lambda take: any(is_same_id(one, request_id) for one in take.ids))

    def call(self, at: str) -> Found:
        """Return what is on record of the job of the paid call of that time.

        :raises Refused: there is none
        """
        found = self._about(lambda take: take.intent_at == at)
        if found is None:
            raise Refused(f"No paid call of {at} is on record at {self.ledger.path}.")
        return found

    def _about(self, is_wanted: Callable[[JobRecord], bool]) -> Found | None:
        take = next((one for one in self.standing.takes if is_wanted(one)), None)
        if take is None:
            return None
        is_own = take.identity == self.take.identity
        found = self if is_own else look_up(take.identity, self.output, has_file=self.has_file)
        return found and replace(found, take=take)

    def others(self) -> dict[str, JobRecord]:
        """Return other jobs' takes on this record and the neighbouring ones, by normalized id.

        :raises LumaRayRecordError: a neighbouring record cannot be read
        """
        beside = self.ledger.neighbours(self.take.earliest)
        takes = chain(self.standing.takes, *(record.takes for record in beside))
        return {id_key(one): take for take in takes if take.key != self.take.key for one in take.ids}


def open_clip(args: argparse.Namespace) -> StoredFile:
    """Return the clip's file; the arguments give its path or its record's."""
    return open_file(args.path.removesuffix(SUFFIX), args.storage_conn_id)


def find(args: argparse.Namespace) -> Found:
    """Return what is on record for the arguments.

    :raises Refused: there is no record
    :raises LumaRayRecordError: it cannot be read
    """
    found = find_if_any(args)
    if found is None:
        raise Refused(
            f"There is no record at {open_clip(args)}{SUFFIX}.",
            "Give the clip's path as in the task's error. If the file is on another machine, name the task instance "
            "too, with --dag-id, --run-id, --task-id and, if it is mapped, --map-index.",
        )
    return found


def find_if_any(args: argparse.Namespace) -> Found | None:
    """Return what is on record for the arguments; None if they give only a path, and it has no record."""
    output, named = open_clip(args), _named(args)
    if named is None:
        current = Ledger(_NOBODY, output, None).read().current
        return None if current is None else look_up(current.identity, output, has_file=True)
    found = look_up(named, output, has_file=output.beside(SUFFIX).look() is not None)
    if found is None:
        current = Ledger(_NOBODY, output, None).read().current
        there = f"the record there belongs to {current.identity}" if current else "there is no file"
        raise Refused(f"There is no record of {named} at {output}: {there}, and {_store_has_none(named)}.")
    return found


def look_up(identity: Identity, output: StoredFile, *, has_file: bool) -> Found | None:
    """Return what is on record of a task instance; None if nothing is.

    :param has_file: whether the sidecar file exists here
    :raises LumaRayRecordError: it cannot be read
    """
    store = _open_store(identity)
    above = str(output).removesuffix(f"/{clip_name(identity)}")
    shared = open_file(f"{above}/") if above != str(output) else None
    ledger = Ledger(identity, output, None if isinstance(store, str) else store, shared=shared)
    standing = ledger.read()
    if standing.own is None:
        return None
    return Found(output, ledger, standing, standing.own, has_file, store)


def _open_store(identity: Identity) -> DatabaseStore | str:
    try:
        return DatabaseStore(identity)
    except NoStore as why:
        return str(why)


def _store_has_none(identity: Identity) -> str:
    store = _open_store(identity)
    return store if isinstance(store, str) else "Airflow's task state store has nothing of it"


def _named(args: argparse.Namespace) -> Identity | None:
    """Return the task instance that the arguments name."""
    dag_id, run_id, task_id, map_index = args.dag_id, args.run_id, args.task_id, args.map_index
    if dag_id is None and run_id is None and task_id is None and map_index == -1 and args.key is None:
        return None
    if dag_id is None or run_id is None or task_id is None:
        raise Refused(
            "--dag-id, --run-id and --task-id go together, and --map-index and --key with them.", code=2
        )
    return Identity(dag_id=dag_id, run_id=run_id, task_id=task_id, map_index=map_index, key=args.key)


def change(found: Found, **changes: Any) -> tuple[Found, str]:
    """Change a job's record; return the new record, and which copies have the change.

    :raises LumaRayRecordError: neither copy can be written
    :raises Refused: an attempt has changed it at the same time
    """
    take = found.take.changed(claim=found.take.key)  # pin the key of a record from before claims
    if found.has_file:
        found.ledger.advance(take, **changes)
    elif not isinstance(found.store, str):
        _change_stored(found.store, found.standing, take.changed(**changes))
    for path in {*(take.recorded_at or ()), *filter(None, [take.moved_to])}:
        elsewhere = open_file(path)
        if str(elsewhere) != str(found.output):
            _change_elsewhere(Ledger(take.identity, elsewhere, None), take.key, changes)
    return reread(found, changes)


def _change_elsewhere(ledger: Ledger, key: str, changes: Mapping[str, Any]) -> None:
    """Change a take's copy at another path that its task's output_path led to, which it would block otherwise."""
    try:
        left = next((one for one in ledger.read().takes if one.key == key), None)
        if left is not None:
            ledger.advance(left, **changes)
    except Exception as error:
        log.warning("The copy of the record at %s could not be changed: %s", ledger.path, error)


def _change_stored(store: DatabaseStore, standing: Standing, take: JobRecord) -> None:
    """Change a take in the store's copy, the only one visible from here."""
    others = [one for one in standing.takes if one.key != take.key]
    last = standing.own or take
    last = (take if last.key == take.key else last).changed(revision=last.revision + 1)
    store.set(state_key(take.identity), assemble(last, [take, *others]).dump())


def reread(found: Found, changes: Mapping[str, Any]) -> tuple[Found, str]:
    """Read the record again after a change; return it, and which copies have the change.

    :raises Refused: an attempt has changed it at the same time
    """
    output, key = found.output, found.take.key
    after = look_up(found.take.identity, output, has_file=found.has_file)
    if after is None or not _says(after.standing.takes, key, changes):
        take = next((take for take in after.standing.takes if take.key == key), None) if after else None
        raise Refused(
            f"An attempt wrote the record at {found.ledger.path} at the same time: "
            f"{f'it is {take.state} now' if take else 'it is gone'}.",
            "Check it (show), and run the command again if that is still right.",
        )
    filed = Ledger(found.take.identity, output, None).read().takes
    in_file = bool(filed) and _says(filed, key, changes)
    stored = None if isinstance(after.store, str) else after.store.get(state_key(found.take.identity))
    in_store = stored is not None and _says(JobRecord.load(stored).takes, key, changes)
    if in_file and in_store:
        return after, "It is on record in the file and in Airflow's task state store."
    if in_store:
        why = "there is no file here" if not found.has_file else "the file could not be written"
        return after, f"Only Airflow's task state store was changed, as {why}; it counts as the newer copy."
    why = after.store if isinstance(after.store, str) else "Airflow's task state store could not be written"
    return after, f"Only the file was changed, as {why}; it counts as the newer copy."


def _says(takes: Iterable[JobRecord], key: str, values: Mapping[str, Any]) -> bool:
    """Whether a take is on record as changed; an earlier take that bought nothing may be dropped from the record."""
    take = next((take for take in takes if take.key == key), None)
    if take is None:
        return values.get("state") is RecordState.FAILED
    return all(getattr(take, name) == values[name] for name in _DECISIVE if name in values)
