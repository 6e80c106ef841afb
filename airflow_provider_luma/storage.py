"""Paths on local disks and in object stores, and the two ways in which a file is committed whole."""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import unquote, urlsplit

from airflow.providers.common.compat.sdk import AirflowException

from airflow_provider_luma.exceptions import LumaRayConfigurationError

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

StoragePath: TypeAlias = "Path | ObjectStoragePath"

_EXTRAS = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "abfs": "azure",
    "abfss": "azure",
    "adl": "azure",
}
_MADE_SAFE = re.compile(r"-[0-9a-f]{8}")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


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
        path.write_text(text)
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
    target.fs.put_file(str(local), target.path)
    with suppress(FileNotFoundError):
        local.unlink()


def size(path: StoragePath) -> int | None:
    """Return a file's size in bytes; None where there is no such file."""
    try:
        return int(path.stat().st_size)
    except (FileNotFoundError, NotADirectoryError):
        return None
