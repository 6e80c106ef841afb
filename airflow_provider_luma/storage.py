"""Paths on local disks and in object stores: how a file is seen as it is now, and how it gets there whole."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import unquote, urlsplit

from airflow.providers.common.compat.sdk import AirflowException

from airflow_provider_luma.exceptions import LumaRayConfigurationError, LumaRayRecordError

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

StoragePath: TypeAlias = "Path | ObjectStoragePath"

#: How long a signed URL lives. The vendor fetches a frame when a job leaves its queue and knows a job for an hour;
#: before that a refused submit may have waited for the request limit to pass.
SIGNED_FOR = timedelta(hours=2)

#: The stores of objects and their extras: there an object appears when its upload has ended, and needs no folder.
_EXTRAS = {
    "s3": "s3",
    "s3a": "s3",
    "s3n": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "abfs": "azure",
    "abfss": "azure",
    "adl": "azure",
}
#: How their file systems upload without holding much of the file: left alone, s3fs holds up to ten times 50 MB twice.
_PIECE = 5 * 1024 * 1024  # the least that S3 takes as a part
_UPLOADS: dict[str | None, dict[str, int]] = {
    "s3": {"chunksize": _PIECE, "max_concurrency": 2},
    "gcs": {"chunksize": _PIECE},
    "azure": {"max_concurrency": 2},
}
_LASTING = (
    FileNotFoundError,
    FileExistsError,
    PermissionError,
    NotADirectoryError,
    IsADirectoryError,
    ValueError,
)
_MADE_SAFE = re.compile(r"-[0-9a-f]{8}")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
#: A record in a store is not read where it was last written this long before what is looked for: no clocks of a worker
#: and a store, which sign and check times, are that far apart.
_CLOCKS_APART = timedelta(hours=1)

log = logging.getLogger(__name__)


def open_path(uri: str, conn_id: str | None = None) -> StoragePath:
    """Return the path of an URI: a local one for no scheme or ``file://``, else an ``ObjectStoragePath``.

    :param uri: a path, or ``scheme://[conn_id@]bucket/key``
    :param conn_id: the storage connection, where the URI names none
    """
    scheme, separator, rest = uri.partition("://")
    scheme = scheme.lower()
    try:
        if not separator:
            return Path(uri).expanduser().absolute()
        if scheme == "file":
            return Path("/" + unquote(urlsplit(uri).path).lstrip("/"))
        from airflow.sdk import ObjectStoragePath

        path = ObjectStoragePath(uri, conn_id=None if "@" in rest.partition("/")[0] else conn_id)
        path.fs  # noqa: B018 - where the file system or its connection is missing, it is told here
    except (ValueError, RuntimeError, ImportError, AirflowException) as error:
        if "filesystem" in str(error) or isinstance(error, ImportError):
            extra = _EXTRAS.get(scheme)
            cure = (
                f"install 'airflow-provider-luma[{extra}]'"
                if extra
                else "install the provider that brings it"
            )
            problem = f"No file system for {scheme!r} paths is installed: {cure}"
        else:
            problem = f"{uri!r} is no path that can be used: {error}"
        raise LumaRayConfigurationError(f"{problem}. Nothing was bought.") from None
    return path


def sidecar(path: StoragePath, suffix: str) -> StoragePath:
    """Return the path beside another whose name is longer by a suffix."""
    return path.parent / (path.name + suffix)


def safe_name(text: str) -> str:
    """Return a file name for any text; a changed or long one ends with a digest, so that two never meet."""
    name = _UNSAFE.sub("-", text).strip(".")[:100]
    if name and name == text and not _MADE_SAFE.fullmatch(name[-9:]):
        return name
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def write_text(path: StoragePath, text: str) -> None:
    """Write a small file so that a reader sees the old text or the new one, never a part."""
    if not isinstance(path, Path):
        _put(path, lambda name: path.fs.pipe_file(name, text.encode()))
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def commit(local: Path, target: StoragePath) -> None:
    """Move a finished local file to its target, where it appears whole or not at all."""
    if isinstance(target, Path):
        with local.open("rb") as file:
            os.fsync(file.fileno())
        local.replace(target)
        return
    how = _UPLOADS.get(_EXTRAS.get(target.protocol), {})
    _put(target, lambda name: target.fs.put_file(str(local), name, **how))
    with suppress(FileNotFoundError):
        local.unlink()


def _put(path: ObjectStoragePath, put: Callable[[str], object]) -> None:
    """Put an object into its place: at once where it appears whole by itself, else under another name first.

    :raises OSError: whatever the store's own libraries raise
    """
    fs, place = path.fs, path.path
    try:
        if path.protocol in _EXTRAS:
            put(place)
            return
        folder, _, name = place.rpartition("/")
        part = f"{folder}/.{name}.{os.getpid()}.part"
        fs.makedirs(folder, exist_ok=True)
        try:
            put(part)
            fs.mv(part, place)
        except BaseException:
            with suppress(Exception):
                fs.rm_file(part)
            raise
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from None


def asked_anew(path: ObjectStoragePath) -> Any:
    """Return a path's file system with its listings forgotten, so that what others wrote meanwhile is seen."""
    fs = path.fs
    fs.invalidate_cache()
    return fs


def read_bytes(path: StoragePath) -> bytes | None:
    """Return a file's content as it is now; None where there is no such file."""
    try:
        if isinstance(path, Path):
            return path.read_bytes()
        return bytes(asked_anew(path).cat_file(path.path))
    except (FileNotFoundError, NotADirectoryError):
        return None


def size(path: StoragePath) -> int | None:
    """Return a file's size in bytes; None where there is no such file.

    :raises LumaRayRecordError: a store does not tell
    """
    if not isinstance(path, Path):
        info = _info(path)
        return None if info is None or info["type"] == "directory" else int(info["size"])
    try:
        return int(path.stat().st_size)
    except (FileNotFoundError, NotADirectoryError):
        return None


def is_folder(path: StoragePath) -> bool:
    """Tell whether there is a folder, or in a store a name that others begin with.

    :raises LumaRayRecordError: a store does not tell
    """
    if isinstance(path, Path):
        return path.is_dir()
    info = _info(path)
    return info is not None and info["type"] == "directory"


def _info(path: ObjectStoragePath) -> dict[str, Any] | None:
    try:
        return dict(asked_anew(path).info(path.path))
    except FileNotFoundError:
        return None
    except Exception as error:
        if is_lasting(error) and not isinstance(error, PermissionError):
            raise LumaRayConfigurationError(
                f"output_path {str(path)!r} is no place for a video: {error}. Nothing was bought."
            ) from None
        raise LumaRayRecordError(
            f"What lies at output_path {str(path)!r} cannot be seen: {error}{permissions(error)}. Nothing new was "
            "bought; a retry looks again."
        ) from None


def is_lasting(error: Exception) -> bool:
    """Tell whether a store would say the same at a retry: no such bucket, no permission, a name that cannot be."""
    return isinstance(error, _LASTING) or type(error).__name__ == "ParamValidationError"  # botocore's


def permissions(error: Exception) -> str:
    """Return what to do where an error is one of permission, for the end of a sentence."""
    needed = " (the storage connection needs the permission to list, read and write there)"
    return needed if isinstance(error, PermissionError) else ""


def files_below(folder: StoragePath, suffix: str, since: datetime, *, deep: bool) -> Iterator[StoragePath]:
    """Yield the files whose names end so, in a folder or anywhere below it; all that can be of interest, or an error.

    :param since: in a store of objects, one that was last written well before is left out
    """
    if isinstance(folder, Path):
        yield from folder.glob(f"**/*{suffix}" if deep else f"*{suffix}")
        return

    def tell(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    top = None
    depth = None if deep else 1
    for place, _, files in asked_anew(folder).walk(folder.path, maxdepth=depth, on_error=tell, detail=True):
        top = place if top is None else top
        for name, info in files.items():
            written = info.get("LastModified") or info.get("last_modified") or info.get("mtime")
            told = folder.protocol in _EXTRAS and isinstance(written, datetime) and written.tzinfo
            if name.endswith(suffix) and not (told and written < since - _CLOCKS_APART):
                yield folder / f"{place[len(top) :]}/{name}".lstrip("/")


def sign(path: StoragePath) -> str | None:
    """Return an URL by which whoever has it can fetch a file for a while; None where the store signs none."""
    if isinstance(path, Path):
        return None
    signer = logging.getLogger("botocore.auth")  # logs signatures at DEBUG
    level = signer.level
    signer.setLevel(logging.INFO)
    try:
        url = path.fs.sign(path.path, expiration=int(SIGNED_FOR.total_seconds()))
    except Exception as error:  # every store says no in its own way, be it for want of a key
        log.info("No URL of %s can be signed (%s).", path, type(error).__name__)
        return None
    finally:
        signer.setLevel(level)
    return url if isinstance(url, str) and url.startswith(("https://", "http://")) else None
