"""What the package needs of a place to keep files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

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
    :param token: by which the place knows this content again: a write can be made to depend on it
    """

    content: bytes
    token: str


@dataclass(frozen=True)
class Seen:
    """What a place says of a file without giving its content.

    :param size: bytes
    :param mark: the store's own mark of the content (an ETag or a digest); None where it has none
    :param is_folder: whether it is a folder, or in a store a name that others begin with
    """

    size: int | None
    mark: str | None = None
    is_folder: bool = False


class StoredFile(ABC):
    """One file, which need not be there. ``str()`` is its path or URI.

    Every method may raise OSError, or in an object store whatever its libraries raise. Only a file that is certainly
    not there reads as None.
    """

    @abstractmethod
    def __str__(self) -> str: ...

    @property
    @abstractmethod
    def is_conditional(self) -> bool:
        """Whether of several writers who ``create`` or ``replace`` at once exactly one succeeds.

        Elsewhere they look before they write, so a writer has to read again before it relies on what it wrote.
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
        """Return the file whose name is longer by a suffix."""

    @abstractmethod
    def below(self, relative: str) -> Self:
        """Return a file below this folder."""

    @abstractmethod
    def look(self) -> Seen | None:
        """Return what can be said of the file without reading it; None where there is none."""

    @abstractmethod
    def read(self, limit: int | None = None) -> bytes | None:
        """Return the content, or its first bytes, as it is now; None where there is no such file."""

    @abstractmethod
    def read_version(self) -> Version | None:
        """Return the content together with what a conditional write needs; None where there is no such file."""

    @abstractmethod
    def create(self, content: bytes) -> str | None:
        """Write the file where there is none, and return the token of what was written; None where there is one."""

    @abstractmethod
    def replace(self, content: bytes, token: str) -> str | None:
        """Write the file where it still is the version of a token, and return the new token; None where it is not.

        None may also follow on a write of one's own whose answer was lost and that was sent again.
        """

    @abstractmethod
    def holds(self, size: int, sha256: str, mark: str | None) -> bool:
        """Tell whether the file's content is the one of a digest.

        :param mark: the store's mark when the content was put there; where it still is that, the content is not read
        """

    @abstractmethod
    def staged(self, tag: str) -> AbstractContextManager[Path]:
        """Give a local file to fill for this one; it is gone at the end, unless it was moved away.

        :param tag: tells one attempt's file from another's
        """

    def rest(self, tag: str) -> Path | None:
        """Return where a broken download is kept for the task's next attempt; None: nowhere.

        :param tag: tells one task instance's file from another's
        """
        return None

    @abstractmethod
    def put(self, local: Path, allowed: Callable[[], bool]) -> str | None:
        """Move a finished local file here, where it appears whole or not at all.

        :param allowed: asked right before; where it says no, or the place can tell that somebody else has written
            the file since, nothing is written
        :return: the store's mark of it, empty where it has none; None: not written
        """

    @abstractmethod
    def fetch(self, local: Path) -> bool:
        """Copy the file to a local one; False where there is no such file."""

    @abstractmethod
    def files_below(self, suffix: str, since: datetime, *, deep: bool) -> Iterator[Self]:
        """Yield the files whose names end so, in this folder or anywhere below it: all of interest, or an error.

        :param since: what was certainly last written before is left out
        """

    @abstractmethod
    def listed_below(self) -> dict[str, datetime | None]:
        """Return the paths, relative to this folder, of all files below it, and when each was last written.

        None where the place does not tell.
        """

    @abstractmethod
    def sign(self) -> str | None:
        """Return a URL by which whoever has it can fetch the file for a while; None where the place signs none."""


def is_lasting(error: Exception) -> bool:
    """Tell whether a place would say the same at a retry: no such bucket, no permission, an impossible name."""
    return isinstance(error, _LASTING) or type(error).__name__ == "ParamValidationError"  # botocore's


def permission_hint(error: Exception) -> str:
    """Return what to do where an error is one of permission, for the end of a sentence."""
    needed = " (the storage connection needs the permission to list, read and write there)"
    return needed if isinstance(error, PermissionError) else ""
