"""The storage interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Self

#: How far the clocks of a worker and of a disk's or store's machine may be apart. S3 rejects requests that are further
#: off; a larger margin only means that more records are read.
CLOCKS_APART = timedelta(hours=1)
_LASTING = (
    FileNotFoundError,
    FileExistsError,
    PermissionError,
    NotADirectoryError,
    IsADirectoryError,
    ValueError,
)


@dataclass(frozen=True)
class Version:
    """A file's content as it was read.

    :param content: the bytes
    :param token: identifies this version, for a conditional write
    """

    content: bytes
    token: str


@dataclass(frozen=True)
class Seen:
    """A file's metadata.

    :param size: bytes
    :param mark: the store's version mark (an ETag or a digest); None if it has none
    :param is_folder: whether it is a folder, or in a store a prefix of other names
    """

    size: int | None
    mark: str | None = None
    is_folder: bool = False


class StoredFile(ABC):
    """One file, which need not exist. ``str()`` is its path or URI.

    Every method may raise OSError, or in an object store whatever its libraries raise. Only a file that certainly does
    not exist reads as None.
    """

    @abstractmethod
    def __str__(self) -> str: ...

    @property
    @abstractmethod
    def is_conditional(self) -> bool:
        """Whether exactly one of several concurrent ``create`` or ``replace`` calls succeeds.

        If not, they check before they write, and a writer must read again before it relies on what it wrote.
        """

    @property
    @abstractmethod
    def name(self) -> str:
        """The file's own name."""

    @property
    @abstractmethod
    def parent(self) -> Self:
        """The folder that the file is in."""

    @abstractmethod
    def beside(self, suffix: str) -> Self:
        """Return the sibling file with a suffix appended to the name."""

    @abstractmethod
    def below(self, relative: str) -> Self:
        """Return a file in this folder."""

    @abstractmethod
    def look(self) -> Seen | None:
        """Return the file's metadata; None if it does not exist."""

    @abstractmethod
    def read(self, limit: int | None = None) -> bytes | None:
        """Return the current content, or its first bytes; None if the file does not exist."""

    @abstractmethod
    def read_version(self) -> Version | None:
        """Return the content with its version token; None if the file does not exist."""

    @abstractmethod
    def create(self, content: bytes) -> str | None:
        """Write the file if it does not exist, and return its version token; None if it exists."""

    @abstractmethod
    def replace(self, content: bytes, token: str) -> str | None:
        """Write the file if it is still at a version, and return the new version token; None if it is not.

        None can also mean that this write succeeded, but its answer was lost and the client sent it again.
        """

    @abstractmethod
    def holds(self, size: int, sha256: str, mark: str | None) -> bool:
        """Whether the file's content has a digest.

        :param mark: the store's mark when that content was written; if it is unchanged, the content is not read
        """

    @abstractmethod
    def staged(self, tag: str) -> AbstractContextManager[Path]:
        """Provide a temporary local file to fill; it is removed at the end unless it was moved.

        :param tag: unique to the attempt
        """

    def rest(self, tag: str) -> Path | None:
        """Return where a broken download is saved for the task's next attempt; None: nowhere.

        :param tag: unique to the task instance
        """
        return None

    @abstractmethod
    def put(self, local: Path, allowed: Callable[[], bool]) -> str | None:
        """Move a finished local file here, all or nothing.

        :param allowed: called right before; if it returns False, or the store detects that somebody else has written
            the file since, nothing is written
        :return: the store's mark of it, empty if it has none; None: not written
        """

    @abstractmethod
    def fetch(self, local: Path) -> bool:
        """Copy the file to a local one; False if it does not exist."""

    @abstractmethod
    def files_below(self, suffix: str, since: datetime, *, deep: bool) -> Iterator[Self]:
        """Yield the files with a suffix in this folder; raise rather than miss one.

        :param since: files last written well before may be left out
        :param deep: whether to include subfolders
        """

    @abstractmethod
    def listed_below(self) -> dict[str, datetime | None]:
        """Return the relative paths of all files in this folder and below, with when each was last written.

        None if that is unknown.
        """

    @abstractmethod
    def sign(self) -> str | None:
        """Return a URL that lets anyone who has it fetch the file for a while; None if that is not possible."""

    @property
    def signs_uniquely(self) -> bool:
        """Whether no two of these URLs are the same."""
        return False


def is_lasting(error: Exception) -> bool:
    """Whether a retry would fail the same way: no such bucket, no permission, an impossible name."""
    return isinstance(error, _LASTING) or type(error).__name__ == "ParamValidationError"  # botocore's


def permission_hint(error: Exception) -> str:
    """Return advice for a permission error, for the end of a sentence; else nothing."""
    needed = (
        " (the storage connection needs permission to list, read and write there; a path names its connection as in "
        "s3://aws_default@bucket/, else storage_conn_id does)"
    )
    return needed if isinstance(error, PermissionError) else ""


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn whatever a store's libraries raise into OSError."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from None
