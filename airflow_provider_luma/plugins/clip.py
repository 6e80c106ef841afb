"""One task instance's clip: what is on record of it, and its video and start frame where they may be shown."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache, partial

from airflow_provider_luma.jobs.record import Identity, JobRecord, RecordState
from airflow_provider_luma.media import MAX_FRAME_BYTES, image_type, is_mp4_head
from airflow_provider_luma.plugins.folders import Folder, Opened
from airflow_provider_luma.plugins.index import Index, Location

_HEAD_BYTES = 16
#: Every browser shows these, and none of them can run a script.
_SHOWN = ("image/jpeg", "image/png", "image/webp", "image/gif", "image/avif")
#: How the checksums begin that stores keep themselves: they change with the content, as a digest does.
_STORES_OWN = ("md5Hash:", "ETag:", "etag:")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShownClip:
    """A task instance's clip.

    :param location: where it is
    :param take: the task instance's last take
    :param is_current: whether the path is still this take's
    :param earlier: its other takes, oldest first
    """

    location: Location
    take: JobRecord
    is_current: bool
    earlier: tuple[JobRecord, ...]

    @property
    def is_playable(self) -> bool:
        """Whether the video is there."""
        return _is_there(self.open_video())

    def has_poster(self, folders: Iterable[Folder]) -> bool:
        """Whether the start frame may be shown."""
        return _is_there(self.open_poster(folders))

    def open_video(self) -> tuple[Opened, str] | None:
        """Open the video, with its media type; None if it is not there, or not the one on record."""
        take = self.take
        if not self.is_current or take.state is not RecordState.DELIVERED or not take.sha256:
            return None

        def type_of(opened: Opened) -> str | None:
            return "video/mp4" if opened.size == take.bytes and is_mp4_head(_head(opened)) else None

        return _open(self.location.folder, self.location.name, type_of)

    def open_poster(self, folders: Iterable[Folder]) -> tuple[Opened, str] | None:
        """Open the start frame, with its media type.

        None if it is not in one of the folders, or not the very picture that was sent: a record may name any file, but
        only who has read one can know its digest.
        """
        source, identity = self.take.start_frame, self.take.frame_identity
        if source is None or identity is None:
            return None
        for folder in folders:
            name = folder.name_of(source)
            if name is not None:
                return _open(folder, name, partial(_type_of_frame, folder, name, identity))
        return None


def find_clip(index: Index, identity: Identity) -> ShownClip | None:
    """Return a clip as its record has it right now; None if there is none."""
    entry = index.snapshot().of(identity) or index.snapshot(is_missed=True).of(identity)
    if entry is None:
        return None
    try:
        record = entry.location.record()
    except (OSError, ValueError) as error:
        log.warning("The record of %s cannot be read: %s", identity, error)
        return None
    own = [take for take in record.takes if take.identity == identity]
    if not own:
        return None
    last = max(own, key=lambda take: (take.started, take.key == record.key))
    return ShownClip(
        location=entry.location,
        take=last,
        is_current=last.key == record.key,
        earlier=tuple(take for take in own if take is not last),
    )


def _open(folder: Folder, name: str, type_of: Callable[[Opened], str | None]) -> tuple[Opened, str] | None:
    """Open a file with its media type; None if it has none, or cannot be read."""
    try:
        opened = folder.open(name)
        with ExitStack() as stack:
            stack.callback(opened.close)
            media_type = type_of(opened)
            if media_type is not None:
                stack.pop_all()
                return opened, media_type
    except OSError as error:
        log.info("Not shown in the UI: %s: %s", folder.path_of(name), error)
    return None


def _is_there(found: tuple[Opened, str] | None) -> bool:
    if found is None:
        return False
    found[0].close()
    return True


def _head(opened: Opened) -> bytes:
    return opened.read(0, min(_HEAD_BYTES, opened.size))


def _type_of_frame(folder: Folder, name: str, identity: str, opened: Opened) -> str | None:
    media_type = image_type(_head(opened)) if opened.size <= MAX_FRAME_BYTES else None
    if media_type not in _SHOWN:
        return None
    known = opened.mark if identity.startswith(_STORES_OWN) else _digest(folder, name, opened.mark)
    return media_type if identity == known else None


#: Enough for a busy page; making a digest means reading the whole picture.
@lru_cache(maxsize=2048)
def _digest(folder: Folder, name: str, mark: str) -> str | None:
    """Return a file's digest as records have it; None if it is no longer at its mark."""
    opened = folder.open(name)
    try:
        if opened.mark != mark:
            return None
        digest, at = hashlib.sha256(), 0
        while at < opened.size and (piece := opened.read(at, min(at + opened.piece, opened.size))):
            digest.update(piece)
            at += len(piece)
        return f"sha256:{digest.hexdigest()}"
    finally:
        opened.close()
