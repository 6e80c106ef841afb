"""Files on a disk of this machine, or on one that several machines mount."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from airflow_provider_luma.storage.base import Seen, StoredFile, Version

#: One for each folder, never removed: whoever removed it could leave two writers with locks on two files.
LOCK_NAME = ".luma_ray.lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS)
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
#: A file's time is by the clock of the machine that has the disk; no clocks that work together are this far apart.
_CLOCKS_APART = timedelta(hours=1)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LocalFile(StoredFile):
    """A file on a mounted disk.

    ``create`` is a hard link, which one writer alone can make, on NFS too; ``replace`` and ``put`` compare and write
    under an advisory lock of the folder, which a dead process holds no longer.
    """

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def is_conditional(self) -> bool:
        """True, but where the file system has no locks, which is logged."""
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
        """Return the file whose name is longer by a suffix."""
        return LocalFile(self.path.with_name(self.path.name + suffix))

    def below(self, relative: str) -> LocalFile:
        """Return a file below this folder."""
        return LocalFile(self.path / relative)

    def look(self) -> Seen | None:
        """Return the size; None where there is no such file."""
        try:
            size = self.path.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Seen(size=size, is_folder=self.path.is_dir())

    def read(self, limit: int | None = None) -> bytes | None:
        """Return the content, or its first bytes; None where there is no such file."""
        try:
            with self.path.open("rb") as file:
                return file.read(-1 if limit is None else limit)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read_version(self) -> Version | None:
        """Return the content and its digest; None where there is no such file."""
        content = self.read()
        return None if content is None else Version(content, _token(content))

    def create(self, content: bytes) -> str | None:
        """Write the file where there is none; of several writers one succeeds."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # A link needs no lock; that one can be had is found out here, for later writes need it, after the money.
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
        """Write the file where its content still has the digest that a token is."""
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
        if is_locked:  # so whoever wrote what is there was killed
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
        """Tell whether the file's content is the one of a digest."""
        seen = self.look()
        if seen is None or seen.is_folder or seen.size != size:
            return False
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256

    @contextmanager
    def staged(self, tag: str) -> Iterator[Path]:
        """Give a hidden file beside this one."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(f"{self._part_prefix}{tag}.part")
        try:
            yield part
        finally:
            part.unlink(missing_ok=True)

    def rest(self, tag: str) -> Path:
        """Return a hidden file beside this one, which goes when the video comes."""
        return self.path.with_name(f"{self._part_prefix}{tag}.rest")

    def put(self, local: Path, allowed: Callable[[], bool]) -> str | None:
        """Rename a file of this folder to this one while nobody else can; what killed attempts left goes with it."""
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
        """Yield the files whose names end so, but for those that were last written well before."""
        oldest = (since - _CLOCKS_APART).timestamp()

        def tell(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                raise error

        for folder, folders, names in os.walk(
            self.path, onerror=tell
        ):  # glob passes over what it may not read
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
        """Return the paths of all files below, relative to this folder, with their times."""
        listed: dict[str, datetime | None] = {}
        for path in self.path.rglob("*"):
            with suppress(FileNotFoundError):
                seen = path.stat()
                if stat.S_ISREG(seen.st_mode):
                    written = datetime.fromtimestamp(seen.st_mtime, UTC)
                    listed[path.relative_to(self.path).as_posix()] = written
        return listed

    def sign(self) -> None:
        """Return None: a disk signs no URLs."""


def _token(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Keep every other writer of a folder out, threads and machines alike; the lock ends with the process.

    False where the file system has no locks.
    """
    lock = _open_lock(folder / LOCK_NAME)
    is_locked = True
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            _tell_no_locks(folder)
            is_locked = False
        yield is_locked
    finally:
        os.close(lock)


def _open_lock(path: Path) -> int:
    """Open a lock file for whoever may write to its folder, another user of this machine too."""
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
            "The file system of %s has no locks: two tasks that write one record in the same instant are not kept "
            "apart. Give each task instance an output_path of its own.",
            folder,
        )


def _sync_folder(folder: Path) -> None:
    """Make a new name survive a power cut: money may be spent right after it."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # file systems that sync no folders
            raise
    finally:
        os.close(handle)
