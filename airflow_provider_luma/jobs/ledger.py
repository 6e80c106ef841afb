"""Where a job's record lives: beside the video, and mirrored in Airflow's task state store (Airflow 3.3 and later)."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_luma.exceptions import LumaRayConfigurationError, LumaRayRecordError
from airflow_provider_luma.jobs.record import Identity, JobRecord
from airflow_provider_luma.storage import (
    files_below,
    is_lasting,
    permissions,
    read_bytes,
    sidecar,
    write_text,
)

if TYPE_CHECKING:
    from airflow_provider_luma.storage import StoragePath

#: Renaming it would lose the jobs in flight.
STATE_KEY = "luma_ray_job"
SUFFIX = ".job.json"

log = logging.getLogger(__name__)


class StateStore(Protocol):
    """What is used of Airflow's ``context["task_state_store"]``."""

    def get(self, key: str) -> Any:
        """Return a value; None where there is none."""

    def set(self, key: str, value: Any, *, retention: Any = ...) -> None:
        """Keep a value."""


class Ledger:
    """Reads and writes the record of one task instance's job on both legs; either alone suffices.

    :param identity: the task instance
    :param output: where the video goes; the record's file is beside it
    :param store: Airflow's task state store, where there is one
    :param shared: the folder below which other task instances keep their videos; None: the video's own folder only
    """

    def __init__(
        self,
        identity: Identity,
        output: StoragePath,
        store: StateStore | None,
        shared: StoragePath | None = None,
    ) -> None:
        self._identity = identity
        self._store = store
        self._shared = shared
        self._output = str(output)
        self.path = sidecar(output, SUFFIX)
        #: Whether the last read found the same on both legs, as far as they are this task instance's.
        self.legs_agree = True

    def read(self) -> tuple[JobRecord | None, JobRecord | None]:
        """Return this task instance's record, and another's at the same path.

        Where the legs differ the newer one counts, and of two equally new ones the file, which a person can edit.

        :raises LumaRayRecordError: a leg that is there cannot be read
        """
        beside = _read_file(self.path)
        stored = self._read_store()
        other = beside if beside and beside.identity != self._identity else None
        own = [record for record in (beside, stored) if record and record.identity == self._identity]
        newest = max(own, key=lambda record: record.revision, default=None)
        self.legs_agree = other is not None or all(
            record == newest for record in ((beside, stored) if self._store else (beside,))
        )
        return newest, other

    def _read_store(self) -> JobRecord | None:
        if self._store is None:
            return None
        try:
            raw = self._store.get(STATE_KEY)
            return None if raw is None else JobRecord.from_json(raw)
        except Exception as error:
            where = f"key {STATE_KEY!r} of the task state store"
            raise _unreadable(f"The job's record at {where} is there but cannot be read", error) from None

    def write(self, record: JobRecord, *, before_purchase: bool = False) -> JobRecord:
        """Write the record on both legs and return it with its new revision.

        :param before_purchase: both legs must take it; afterwards one is enough
        :raises LumaRayRecordError: not written, as far as it had to be
        :raises LumaRayConfigurationError: nothing can be written beside the video, and nothing was, before a purchase
        """
        record = replace(record, revision=record.revision + 1)
        raw = record.to_json()
        problems = []
        try:
            write_text(self.path, json.dumps(raw, indent=2) + "\n")
        except Exception as error:
            if before_purchase and is_lasting(error):
                raise LumaRayConfigurationError(
                    f"output_path {self._output!r} cannot be written: {error}{permissions(error)}. Give a path in a "
                    "bucket or folder that is there and may be written. Nothing was bought."
                ) from None
            problems.append(f"{self.path}: {error!r}")
        legs = 1
        if self._store is not None:
            legs = 2
            try:
                self._store.set(STATE_KEY, raw, retention=_never_expire())
            except Exception as error:
                problems.append(f"the task state store: {error!r}")
        if problems and (before_purchase or len(problems) == legs):
            bought = "Nothing was bought" if before_purchase else "The job goes on, but this is not on record"
            raise LumaRayRecordError(
                f"The job's record cannot be written beside output_path: {'; '.join(problems)}. {bought}.",
                request_id=record.request_id,
            )
        for problem in problems:
            log.warning("The job's record could not be written to %s; the other copy holds it.", problem)
        return record

    def neighbours(self, since: datetime) -> Iterator[JobRecord]:
        """Yield the records of other task instances whose videos lie in the same folder, or below the shared one.

        :param since: what happened to a job before is of no interest
        :raises LumaRayRecordError: one of them cannot be read
        """
        folder = self._shared or self.path.parent
        try:
            paths = list(files_below(folder, SUFFIX, since, deep=folder is self._shared))
        except Exception as error:
            raise _unreadable(f"The records below {folder} cannot be listed", error) from None
        for path in paths:
            record = _read_file(path)
            if record and record.identity != self._identity:
                yield record


def _read_file(path: StoragePath) -> JobRecord | None:
    try:
        text = read_bytes(path)
    except Exception as error:
        raise _unreadable(f"The job's record at {path} cannot be read", error) from None
    try:
        return None if text is None else JobRecord.from_json(json.loads(text))
    except ValueError as error:
        raise _unreadable(f"The job's record at {path} is there but cannot be read", error) from None


def _unreadable(what: str, error: Exception) -> LumaRayRecordError:
    return LumaRayRecordError(
        f"{what}: {error}{permissions(error)}. A job may be bought under it, so nothing new was bought; a retry reads "
        "it again. If it is damaged for good, look the job up in Segmind's request history, then delete the record."
    )


def _never_expire() -> Any:
    # As new as the store itself, so not to be had on every Airflow.
    from airflow.sdk import NEVER_EXPIRE  # type: ignore[attr-defined]

    return NEVER_EXPIRE
