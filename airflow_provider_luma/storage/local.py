"""Files on a local or network-mounted disk."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import random
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from airflow_provider_luma.storage.base import CLOCKS_APART, Seen, StoredFile, Version

#: One per folder, never removed: removing it could leave two writers holding locks on two different files.
LOCK_NAME = ".luma_ray.lock"
#: Seconds. A writer holds it for milliseconds, on a slow network disk for a second or two.
LOCK_SECONDS = 60.0
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS)
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LocalFile(StoredFile):
    """A file on a mounted disk.

    ``create`` makes a hard link, which only one writer can, on NFS too; ``replace`` and ``put`` compare and write under
    an advisory lock on the folder, which is released when a process dies.
    """

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def is_conditional(self) -> bool:
        """True; a file system without locks breaks this promise, and is logged."""
        return True

    @property
    def name(self) -> str:
        """The file's own name."""
        return self.path.name

    @property
    def parent(self) -> LocalFile:
        """The folder that the file is in."""
        return LocalFile(self.path.parent)

    def beside(self, suffix: str) -> LocalFile:
        """Return the sibling file with a suffix appended to the name."""
        return LocalFile(self.path.with_name(self.path.name + suffix))

    def below(self, relative: str) -> LocalFile:
        """Return a file in this folder."""
        return LocalFile(self.path / relative)

    def look(self) -> Seen | None:
        """Return the size; None if the file does not exist."""
        try:
            size = self.path.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Seen(size=size, is_folder=self.path.is_dir())

    def read(self, limit: int | None = None) -> bytes | None:
        """Return the content, or its first bytes; None if the file does not exist."""
        try:
            with self.path.open("rb") as file:
                return file.read(-1 if limit is None else limit)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read_version(self) -> Version | None:
        """Return the content and its digest; None if the file does not exist."""
        content = self.read()
        return None if content is None else Version(content, _token(content))

    def create(self, content: bytes) -> str | None:
        """Write the file if it does not exist; only one of several writers succeeds."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # A link needs no lock; taking it shows before the money is spent that later writes can get it.
        with _locked(self.path.parent) as is_locked, self._written(content, is_locked) as part:
            try:
                os.link(part, self.path)
            except FileExistsError:
                return None
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                if self.path.exists():
                    return None
                part.replace(self.path)
        _sync_folder(self.path.parent)
        return _token(content)

    def replace(self, content: bytes, token: str) -> str | None:
        """Write the file if its content's digest still equals the token."""
        if not self.path.parent.is_dir():
            return None
        with _locked(self.path.parent) as is_locked, self._written(content, is_locked) as part:
            there = self.read()
            if there is None or _token(there) != token:
                return None
            part.replace(self.path)
        _sync_folder(self.path.parent)
        return _token(content)

    @contextmanager
    def _written(self, content: bytes, is_locked: bool) -> Iterator[Path]:
        if is_locked:  # so any partial file here is from a killed writer
            self._remove("part")
        part = self.path.with_name(f"{self._part_prefix}{uuid.uuid4().hex[:8]}.part")
        try:
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            yield part
        finally:
            part.unlink(missing_ok=True)

    def holds(self, size: int, sha256: str, mark: str | None) -> bool:
        """Whether the file's content has a digest."""
        seen = self.look()
        if seen is None or seen.is_folder or seen.size != size:
            return False
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256

    @contextmanager
    def staged(self, tag: str) -> Iterator[Path]:
        """Provide a hidden temporary file next to this one."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(f"{self._part_prefix}{tag}.part")
        try:
            yield part
        finally:
            part.unlink(missing_ok=True)

    def rest(self, tag: str) -> Path:
        """Return a hidden file next to this one, which is removed when the video is delivered."""
        return self.path.with_name(f"{self._part_prefix}{tag}.rest")

    def put(self, local: Path, allowed: Callable[[], bool]) -> str | None:
        """Rename a file in this folder to this one under the lock, and remove what killed attempts left."""
        with local.open("rb") as file:
            os.fsync(file.fileno())
        with _locked(self.path.parent):
            if not allowed():
                return None
            local.replace(self.path)
        _sync_folder(self.path.parent)
        self._remove("part", "rest")
        return ""

    def _remove(self, *kinds: str) -> None:
        for kind in kinds:
            for left in self.path.parent.glob(f"{self._part_prefix}*.{kind}"):
                left.unlink(missing_ok=True)

    def fetch(self, local: Path) -> bool:
        """Copy the file."""
        try:
            shutil.copyfile(self.path, local)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    @property
    def _part_prefix(self) -> str:
        return f".{hashlib.sha256(self.path.name.encode()).hexdigest()[:8]}."

    def files_below(self, suffix: str, since: datetime, *, deep: bool) -> Iterator[LocalFile]:
        """Yield the files with a suffix, except those last written well before ``since``."""
        oldest = (since - CLOCKS_APART).timestamp()

        def tell(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                raise error

        for folder, folders, names in os.walk(
            self.path, onerror=tell
        ):  # glob silently skips folders that it may not read
            if not deep:
                folders.clear()
            for path in (Path(folder, name) for name in names if name.endswith(suffix)):
                try:
                    is_old = path.stat().st_mtime < oldest
                except FileNotFoundError:
                    continue
                if not is_old:
                    yield LocalFile(path)

    def listed_below(self) -> dict[str, datetime | None]:
        """Return the relative paths of all files in this folder and below, with their times."""
        listed: dict[str, datetime | None] = {}
        for path in self.path.rglob("*"):
            with suppress(FileNotFoundError):
                seen = path.stat()
                if stat.S_ISREG(seen.st_mode):
                    written = datetime.fromtimestamp(seen.st_mtime, UTC)
                    listed[path.relative_to(self.path).as_posix()] = written
        return listed

    def sign(self) -> None:
        """Return None: disks have no signed URLs."""


def _token(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Hold the folder's lock against all other writers, threads and machines alike; it is released with the process.

    Yields False if the file system has no locks.
    """
    lock = _open_lock(folder / LOCK_NAME)
    is_locked = True
    try:
        try:
            _take(lock, folder)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            _tell_no_locks(folder)
            is_locked = False
        yield is_locked
    finally:
        os.close(lock)


def _take(lock: int, folder: Path) -> None:
    """Take the lock; whoever holds it writes one file, so one that is held long is a stopped process's."""
    waited = 0.0
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waited >= LOCK_SECONDS:
                raise TimeoutError(
                    f"another process has held the lock {folder / LOCK_NAME} for {waited:.0f} s; it may be stopped "
                    "(see 'fuser' or 'lslocks' on its machine)"
                ) from None
        pause = min(0.005 + waited / 4, 0.25) * (0.5 + random.random())
        time.sleep(pause)
        waited += pause


def _open_lock(path: Path) -> int:
    """Open the lock file, shared with whoever may write to its folder, including other users of this machine."""
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError:
        try:
            return os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except PermissionError:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    with suppress(OSError):
        os.fchmod(lock, 0o666)
    return lock


_told: set[Path] = set()


def _tell_no_locks(folder: Path) -> None:
    if folder not in _told:
        _told.add(folder)
        log.warning(
            "The file system of %s has no locks: two tasks writing the same record at the same time can overwrite each "
            "other. Give each task instance its own output_path.",
            folder,
        )


def _sync_folder(folder: Path) -> None:
    """Make a new name survive a power failure: money may be spent right afterwards."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # file systems that sync no folders
            raise
    finally:
        os.close(handle)
