"""Moves a bought video into place, and only the bytes whose digest is on record."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import TYPE_CHECKING

from airflow_provider_luma.exceptions import LumaRayConfigurationError, LumaRayDeliveryFailed
from airflow_provider_luma.jobs.record import JobRecord, RecordState

if TYPE_CHECKING:
    from airflow_provider_luma.jobs.ledger import Ledger
    from airflow_provider_luma.media import VideoFile
    from airflow_provider_luma.storage import StoredFile

log = logging.getLogger(__name__)


def is_in_place(take: JobRecord, output: StoredFile) -> bool:
    """Whether a file is a take's video, by digest; a digest is recorded before its video is moved into place."""
    is_due = take.state in (RecordState.COMPLETED, RecordState.DELIVERED)
    known = is_due and take.bytes is not None and take.sha256 is not None
    return known and output.holds(take.bytes or 0, take.sha256 or "", take.mark)


def refuse_given_up(take: JobRecord, ledger: Ledger) -> None:
    """Deliver nothing that a person has given up while the task waited for it."""
    if take.state is RecordState.GIVEN_UP:
        raise LumaRayConfigurationError(
            "A person gave this job up while the task waited for it.",
            request_id=take.request_id,
            remedy="To buy another clip, clear the task.",
        ).with_context(take.request_id, f"The job is on record at {ledger.path}. Nothing else was bought.")


def place(ledger: Ledger, output: StoredFile, take: JobRecord, video: VideoFile, at: datetime) -> JobRecord:
    """Move a checked video into place and return the take as delivered.

    The digest is recorded first, so that of several attempts with different bytes (possible on v1) only one delivers.

    :param at: the time, for the record
    :raises LumaRayConfigurationError: a person has given it up
    :raises LumaRayDeliveryFailed: the path belongs to another take by now
    :raises OSError: the path cannot be written
    """
    refuse_given_up(take, ledger)
    if take.state is RecordState.DELIVERED and is_in_place(take, output):
        log.info("%s: another attempt has already delivered it.", take.name)
        return take
    take = ledger.note(
        take,
        state=RecordState.COMPLETED,
        sha256=video.sha256,
        bytes=video.size,
        mark=None,
        output_path=str(output),
    )
    refuse_given_up(take, ledger)
    mark, problem = None, None
    if take.sha256 == video.sha256:
        try:
            mark = output.put(video.path, lambda: ledger.is_current(take))
        except FileNotFoundError as error:  # a delivery removes other attempts' partial files
            problem = error
    if mark is None:
        done = next((one for one in ledger.read().takes if one.key == take.key), take)
        if is_in_place(done, output):
            log.info("%s: already there, by another attempt or an upload whose answer was lost.", take.name)
            if done.state is RecordState.DELIVERED:
                return done
            take = done
        elif problem is not None:
            raise problem
        else:
            raise LumaRayDeliveryFailed(
                f"Its path {str(output)!r} is not its own: the record there is another's, or could not be written.",
                request_id=take.request_id,
            )
    log.info("%s: %d bytes at %s.", take.name, video.size, output)
    return ledger.advance(
        take,
        state=RecordState.DELIVERED,
        completed_at=take.completed_at or at.isoformat(),
        delivered_at=at.isoformat(),
        mark=mark or None,
    )
