"""Putting a bought video into its place, as the bytes that its record names."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import TYPE_CHECKING

from airflow_provider_luma.exceptions import LumaRayDeliveryFailed
from airflow_provider_luma.jobs.record import JobRecord, RecordState

if TYPE_CHECKING:
    from airflow_provider_luma.jobs.ledger import Ledger
    from airflow_provider_luma.media import VideoFile
    from airflow_provider_luma.storage import StoredFile

log = logging.getLogger(__name__)


def is_in_place(take: JobRecord, output: StoredFile) -> bool:
    """Tell whether a file is a take's video, by the digest that is on record before the video is in its place."""
    is_due = take.state in (RecordState.COMPLETED, RecordState.DELIVERED)
    known = is_due and take.bytes is not None and take.sha256 is not None
    return known and output.holds(take.bytes or 0, take.sha256 or "", take.mark)


def place(ledger: Ledger, output: StoredFile, take: JobRecord, video: VideoFile, at: datetime) -> JobRecord:
    """Put a checked video into its place and return the take as delivered.

    Its digest is on record before it is there, so that of several attempts with different bytes, as v1 may give them,
    one alone is the path's.

    :param at: the time, for the record
    :raises LumaRayDeliveryFailed: the path is another's by now
    :raises OSError: the place cannot be written
    """
    if take.state is RecordState.DELIVERED and is_in_place(take, output):
        log.info("%s: another attempt has delivered it meanwhile.", take.request_id)
        return take
    take = ledger.note(
        take,
        state=RecordState.COMPLETED,
        sha256=video.sha256,
        bytes=video.size,
        mark=None,
        output_path=str(output),
    )
    mark, problem = None, None
    if take.sha256 == video.sha256:
        try:
            mark = output.put(video.path, lambda: ledger.is_current(take))
        except FileNotFoundError as error:  # who delivers removes what others have begun
            problem = error
    if mark is None:
        done = next((one for one in ledger.read().takes if one.key == take.key), take)
        if is_in_place(done, output):
            log.info("%s: another attempt has delivered it meanwhile.", take.request_id)
            return done
        if problem is not None:
            raise problem
        raise LumaRayDeliveryFailed(
            f"Its path {str(output)!r} is not its own at the moment: the record there is another's, or could not be "
            "written.",
            request_id=take.request_id,
        )
    log.info("%s: %d bytes at %s.", take.request_id, video.size, output)
    return ledger.advance(
        take,
        state=RecordState.DELIVERED,
        completed_at=take.completed_at or at.isoformat(),
        delivered_at=at.isoformat(),
        mark=mark or None,
    )
