"""Files on local disks and in object stores behind one interface, with conditional writes."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from urllib.parse import unquote

from airflow.providers.common.compat.sdk import AirflowException

from airflow_provider_luma.exceptions import LumaRayConfigurationError
from airflow_provider_luma.storage.base import CLOCKS_APART, StoredFile, Version, is_lasting, permission_hint
from airflow_provider_luma.storage.local import LocalFile

__all__ = [
    "CLOCKS_APART",
    "LocalFile",
    "StoredFile",
    "Version",
    "is_lasting",
    "open_file",
    "permission_hint",
    "safe_name",
]

#: The extra that installs a scheme's file system.
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
_MADE_SAFE = re.compile(r"-[0-9a-f]{8}")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def open_file(uri: str, conn_id: str | None = None) -> StoredFile:
    """Return the file at a path or URI: local if it has no scheme or ``file://``, else in an object store.

    :param uri: a path, or ``scheme://[conn_id@]bucket/key``
    :param conn_id: the storage connection, if the URI does not name one
    :raises LumaRayConfigurationError: no such file system or connection
    """
    scheme, separator, rest = uri.partition("://")
    scheme = scheme.lower()
    try:
        if not separator:
            return LocalFile(Path(uri).expanduser().absolute())
        if scheme == "file":
            return LocalFile(Path("/" + unquote(rest.partition("/")[2]).lstrip("/")))
        from airflow_provider_luma.storage.objects import open_object

        return open_object(uri, None if "@" in rest.partition("/")[0] else conn_id)
    except (ValueError, RuntimeError, ImportError, AirflowException) as error:
        if "filesystem" in str(error) or isinstance(error, ImportError):
            extra = _EXTRAS.get(scheme)
            cure = (
                f"install 'airflow-provider-luma[{extra}]'" if extra else "install the provider that has it"
            )
            problem = f"No file system for {scheme!r} paths is installed: {cure}"
        else:
            problem = f"{uri!r} cannot be used as a path: {error}"
        raise LumaRayConfigurationError(f"{problem}.") from None


def safe_name(text: str) -> str:
    """Turn any text into a file name; if changed or shortened, it ends with a digest so that no two collide."""
    name = _UNSAFE.sub("-", text).strip(".")[:100]
    if name and name == text and not _MADE_SAFE.fullmatch(name[-9:]):
        return name
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
