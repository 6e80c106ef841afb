"""The folders that may be shown, and how a file in them is listed, read and opened. Nothing outside is ever opened.

A file is named by its path relative to a configured folder, as listing that folder gave it.
"""

from __future__ import annotations

import logging
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import conf

from airflow_provider_luma.exceptions import LumaRayConfigurationError
from airflow_provider_luma.storage import LocalFile, open_file
from airflow_provider_luma.storage.base import plain_errors

SECTION, OPTION = "luma_ray", "preview_roots"
#: Each store has one name here, whichever scheme a URI has. What could reach a local disk is left out.
_STORES = {
    "s3": "s3",
    "s3a": "s3",
    "s3n": "s3",
    "gs": "gs",
    "gcs": "gs",
    "abfs": "abfs",
    "abfss": "abfs",
    "adl": "abfs",
}
#: Bytes read at a time, and so held for each viewer: enough to keep a disk busy.
_LOCAL_PIECE = 256 * 1024
#: The same for a store, where each piece is a request: one megabyte takes longer to travel than to ask for.
_STORE_PIECE = 1024 * 1024
#: What changes with an object's content, by the names that fsspec's file systems give it.
_MARKS = ("md5Hash", "ETag", "etag", "LastModified", "last_modified")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Opened:
    """An open file.

    :param size: bytes
    :param mark: changes when the content does
    :param piece: how many of them to read at a time
    :param read: returns the bytes from one position up to another
    :param close: call it when done
    """

    size: int
    mark: str
    piece: int
    read: Callable[[int, int], bytes]
    close: Callable[[], None]


class Folder(ABC):
    """One configured folder."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    @abstractmethod
    def listed(self, suffix: str) -> Iterator[tuple[str, str]]:
        """Yield the names of all files with a suffix, each with a mark that changes when its content does."""

    @abstractmethod
    def open(self, name: str) -> Opened:
        """Open a file.

        :raises OSError: there is none, or the name leads out of the folder
        """

    @abstractmethod
    def name_of(self, uri: str) -> str | None:
        """Return the name of the file at a path or URI; None if it is not in this folder."""

    @abstractmethod
    def path_of(self, name: str) -> str:
        """Return a file's path or URI."""

    def read(self, name: str, limit: int) -> bytes:
        """Return a file's content.

        :raises OSError: as ``open``, or it is larger than the limit
        """
        opened = self.open(name)
        try:
            if opened.size > limit:
                raise OSError(f"{name} has {opened.size} bytes")
            return opened.read(0, opened.size)
        finally:
            opened.close()


class _LocalFolder(Folder):
    """A folder on a disk. Links in it are not followed, only those that lead to the folder itself."""

    def __init__(self, uri: str, path: Path) -> None:
        super().__init__(uri)
        self._path = os.path.normpath(path)

    def listed(self, suffix: str) -> Iterator[tuple[str, str]]:
        pending = [""]
        while pending:
            folder = pending.pop()
            try:
                entries = list(os.scandir(os.path.join(self._path, folder)))
            except OSError as error:
                log.warning("Not shown in the UI: %s", error)
                continue
            for entry in entries:
                name = f"{folder}/{entry.name}" if folder else entry.name
                with suppress(OSError):  # it is gone by now
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(name)
                    elif name.endswith(suffix) and entry.is_file(follow_symlinks=False):
                        yield name, _local_mark(entry.stat(follow_symlinks=False))

    def open(self, name: str) -> Opened:
        handle = self._open(name)
        try:
            seen = os.fstat(handle)
            if not stat.S_ISREG(seen.st_mode):
                raise OSError(f"{name} is no file")
        except BaseException:
            os.close(handle)
            raise
        return Opened(
            size=seen.st_size,
            mark=_local_mark(seen),
            piece=_LOCAL_PIECE,
            read=lambda start, stop: os.pread(handle, stop - start, start),
            close=lambda: os.close(handle),
        )

    def _open(self, name: str) -> int:
        """Open each folder on the way by its handle, so that nobody can slip a link in between."""
        *folders, last = _parts(name)
        handle = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for folder in folders:
            above = handle
            try:
                handle = os.open(
                    folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above
                )
            finally:
                os.close(above)
        try:
            # Non-blocking, or opening a named pipe would wait for its writer.
            return os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=handle)
        finally:
            os.close(handle)

    def name_of(self, uri: str) -> str | None:
        root = self._path.rstrip("/") + "/"
        try:
            file = open_file(uri) if "://" not in uri or uri.startswith("file://") else None
        except LumaRayConfigurationError:
            return None
        path = str(file) if isinstance(file, LocalFile) else ""
        name = path.removeprefix(root)
        return name if path.startswith(root) and _is_plain(name) else None

    def path_of(self, name: str) -> str:
        return os.path.join(self._path, name)


class _StoreFolder(Folder):
    """A folder in an object store."""

    def __init__(self, uri: str, path: Any) -> None:
        super().__init__(uri)
        self._path = path
        self._store = _STORES[path.protocol]
        self._root = str(path.path).rstrip("/") + "/"

    @property
    def _fs(self) -> Any:
        fs = self._path.fs
        fs.invalidate_cache()  # other processes write here
        return fs

    def listed(self, suffix: str) -> Iterator[tuple[str, str]]:
        fs = self._fs
        for path, info in fs.find(self._root, detail=True).items():
            name = path.removeprefix(self._root)
            if name.endswith(suffix) and _is_plain(name):
                yield name, f"{_mark(info)}-{info.get('size')}"
        fs.invalidate_cache()  # or the whole list would stay in memory

    def open(self, name: str) -> Opened:
        path = self._root + "/".join(_parts(name))
        fs = self._fs
        with plain_errors():
            info = fs.info(path)
        if info.get("type") != "file" or info.get("size") is None:
            raise OSError(f"{name} is no file")

        def read(start: int, stop: int) -> bytes:
            with plain_errors():
                return bytes(fs.cat_file(path, start=start, end=stop)) if stop > start else b""

        return Opened(
            size=int(info["size"]),
            mark=_mark(info),
            piece=_STORE_PIECE,
            read=read,
            close=lambda: None,
        )

    def read(self, name: str, limit: int) -> bytes:
        path = self._root + "/".join(_parts(name))
        try:
            # One request, not one more for the size: ten thousand records are read when a server starts.
            with plain_errors():
                content = bytes(self._fs.cat_file(path, start=0, end=limit + 1))
        except OSError:
            return super().read(name, limit)  # an empty object has no ranges
        if len(content) > limit:
            raise OSError(f"{name} has more than {limit} bytes")
        return content

    def name_of(self, uri: str) -> str | None:
        scheme, _, rest = uri.partition("://")
        bucket, _, key = rest.partition("/")
        path = f"{bucket.rpartition('@')[2]}/{key}"
        name = path.removeprefix(self._root)
        is_here = _STORES.get(scheme.lower()) == self._store and path.startswith(self._root)
        return name if is_here and _is_plain(name) else None

    def path_of(self, name: str) -> str:
        return f"{self.uri.rstrip('/')}/{name}"


def _local_mark(seen: os.stat_result) -> str:
    return f"{seen.st_mtime_ns}-{seen.st_size}-{seen.st_ino}"


def _mark(info: dict[str, Any]) -> str:
    """Return a store's own mark, written as ``storage`` writes it in records."""
    return next((f"{name}:{info[name]}" for name in _MARKS if info.get(name)), "")


def _is_plain(name: str) -> bool:
    return "\0" not in name and not {"", ".", ".."} & set(name.split("/"))


def _parts(name: str) -> list[str]:
    if not _is_plain(name):
        raise OSError("not the name of a file in this folder")
    return name.split("/")


def configured() -> tuple[Folder, ...]:
    """Return the folders that the configuration names; one that cannot be used is logged and left out."""
    text = conf.get(SECTION, OPTION, fallback="") or ""
    uris = [uri.strip() for uri in text.replace("\n", ",").split(",")]
    folders = {folder.path_of(""): folder for uri in uris if uri and (folder := _folder(uri))}.values()
    # What is in a folder within another is already shown with that one; twice, it would count twice.
    return tuple(
        one for one in folders if all(other.name_of(one.uri.rstrip("/")) is None for other in folders)
    )


def _folder(uri: str) -> Folder | None:
    try:
        file = open_file(uri)
        if isinstance(file, LocalFile):
            return _LocalFolder(uri, file.path)
        path: Any = file.path  # type: ignore[attr-defined]  # the only other kind is an object
        if path.protocol in _STORES:
            return _StoreFolder(uri, path)
        problem = "no local path and not in S3, GCS or Azure"
    except Exception as error:
        problem = str(error)
    log.error("[%s] %s: %s is left out: %s", SECTION, OPTION, uri, problem)
    return None
