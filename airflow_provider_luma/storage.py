"""Paths on local disks and in object stores, and the two ways in which a file is committed whole."""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import unquote, urlsplit

from airflow_provider_luma.exceptions import LumaRayConfigurationError

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

StoragePath: TypeAlias = "Path | ObjectStoragePath"

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def open_path(uri: str, conn_id: str | None = None) -> StoragePath:
    """Return the path of an URI: a local one for no scheme or ``file://``, else an ``ObjectStoragePath``.

    :param uri: a path, or ``scheme://[conn_id@]bucket/key``
    :param conn_id: the storage connection, where the URI names none
    """
    parts = urlsplit(uri)
    if parts.scheme in ("", "file") or len(parts.scheme) == 1:
        local = unquote(parts.path) if parts.scheme == "file" else uri
        return Path(local).expanduser().absolute()
    from airflow.sdk import ObjectStoragePath

    try:
        return ObjectStoragePath(uri, conn_id=None if "@" in parts.netloc else conn_id)
    except (ValueError, ImportError) as error:
        raise LumaRayConfigurationError(
            f"No file system for {parts.scheme!r} paths is installed: {error}. Nothing was bought."
        ) from None


def sidecar(path: StoragePath, suffix: str) -> StoragePath:
    """Return the path beside another whose name is longer by a suffix."""
    return path.parent / (path.name + suffix)


def safe_name(text: str) -> str:
    """Return a file name for any text; a changed or long one ends with a digest, so that two never meet."""
    name = _UNSAFE.sub("-", text).strip(".")[:100]
    return name if name == text else f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


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
