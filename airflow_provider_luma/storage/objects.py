"""Objects in S3, GCS, Azure and any other fsspec file system, through Airflow's ``ObjectStoragePath``."""

from __future__ import annotations

import errno
import hashlib
import logging
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from airflow_provider_luma.storage.base import CLOCKS_APART, Seen, StoredFile, Version, plain_errors

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

#: How long a signed URL is valid. The vendor fetches a frame when a job leaves its queue, and forgets a job
#: after an hour; before that, the submit may have waited out the rate limit.
SIGNED_FOR = timedelta(hours=2)

_S3 = ("s3", "s3a", "s3n")
_GCS = ("gs", "gcs")
_AZURE = ("abfs", "abfss", "adl")
#: Where stores keep a version mark: GCS a digest, S3 and Azure an opaque tag that changes with the content.
_MARKS = ("md5Hash", "ETag", "etag")
#: S3's minimum for a part of an upload. s3fs itself would buffer up to ten times 50 MB.
_PIECE = 5 * 1024 * 1024
_UPLOADS: dict[str, dict[str, int]] = {
    **{scheme: {"chunksize": _PIECE} for scheme in _GCS},
    **{scheme: {"max_concurrency": 2} for scheme in _AZURE},
}
#: Stores without conditional writes, already logged as such.
_unconditional: set[str] = set()

log = logging.getLogger(__name__)


def open_object(uri: str, conn_id: str | None) -> ObjectFile:
    """Return the object at a URI.

    :param conn_id: the storage connection; None: as the URI says
    """
    from airflow.sdk import ObjectStoragePath

    path = ObjectStoragePath(uri, conn_id=conn_id)
    path.fs  # noqa: B018 - raises here if the file system or its connection is missing
    return (_S3File if path.protocol in _S3 else ObjectFile)(path)


@dataclass(frozen=True)
class ObjectFile(StoredFile):
    """An object in any store. GCS and Azure create conditionally; replacing compares, then writes."""

    path: ObjectStoragePath

    @property
    def is_conditional(self) -> bool:
        """False: even the stores that create conditionally do not replace conditionally here."""
        return False

    @property
    def _store(self) -> str:
        return f"{self.path.protocol}://{self.path.conn_id or ''}"

    @property
    def _is_object_store(self) -> bool:
        return self.path.protocol in (*_S3, *_GCS, *_AZURE)

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """The object's name after the last slash."""
        return str(self.path.name)

    @property
    def parent(self) -> ObjectFile:
        """The object's folder, or what passes for one in a store."""
        return type(self)(self.path.parent)

    def beside(self, suffix: str) -> ObjectFile:
        """Return the sibling object with a suffix appended to the name."""
        return type(self)(self.path.parent / (self.path.name + suffix))

    def below(self, relative: str) -> ObjectFile:
        """Return an object in this folder."""
        return type(self)(self.path / relative)

    @property
    def _fs(self) -> Any:
        """The file system with its listing cache cleared, so that other writers' changes are visible."""
        fs = self.path.fs
        fs.invalidate_cache()
        return fs

    def look(self) -> Seen | None:
        """Return size and mark; None if the object does not exist."""
        try:
            info = self._fs.info(self.path.path)
        except FileNotFoundError:
            return None
        size = info.get("size")
        mark = next((f"{name}:{info[name]}" for name in _MARKS if info.get(name)), None)
        return Seen(None if size is None else int(size), mark, info["type"] == "directory")

    def read(self, limit: int | None = None) -> bytes | None:
        """Return the content, or its first bytes; None if the object does not exist."""
        part = {} if limit is None else {"start": 0, "end": limit}
        try:
            return bytes(self._fs.cat_file(self.path.path, **part))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read_version(self) -> Version | None:
        """Return the content and its digest; None if the object does not exist."""
        content = self.read()
        return None if content is None else Version(content, _token(content))

    def create(self, content: bytes) -> str | None:
        """Write the object if it does not exist."""
        if self._is_object_store:
            try:
                with plain_errors():
                    self.path.fs.pipe_file(self.path.path, content, mode="create")
            except FileExistsError:
                return None
        elif self.look() is not None:
            return None
        else:
            self._tell_unconditional()
            self._put(lambda name: self.path.fs.pipe_file(name, content))
        return _token(content)

    def replace(self, content: bytes, token: str) -> str | None:
        """Write the object if its content's digest still equals the token."""
        there = self.read_version()
        if there is None or there.token != token:
            return None
        self._put(lambda name: self.path.fs.pipe_file(name, content))
        return _token(content)

    def _tell_unconditional(self) -> None:
        if self._store not in _unconditional:
            _unconditional.add(self._store)
            log.warning(
                "The store of %s has no conditional writes: two tasks writing the same record at the same time can "
                "overwrite each other. Give each task instance its own output_path.",
                self,
            )

    def holds(self, size: int, sha256: str, mark: str | None) -> bool:
        """Whether the object's content has a digest; not read if the store's mark is unchanged.

        A different mark proves nothing: a copy, or a restored backup, of the same content has another ETag.
        """
        seen = self.look()
        if seen is None or seen.is_folder or seen.size != size:
            return False
        if mark and mark == seen.mark:
            return True
        content = self.read()
        return content is not None and _token(content) == sha256

    @contextmanager
    def staged(self, tag: str) -> Iterator[Path]:
        """Provide a file in a temporary folder."""
        with TemporaryDirectory(prefix="luma_ray_") as folder:
            yield Path(folder) / "video.part"

    def put(self, local: Path, allowed: Callable[[], bool]) -> str | None:
        """Upload a file; it becomes visible when the upload is complete."""
        if not allowed():
            return None
        how = _UPLOADS.get(self.path.protocol, {})
        self._put(lambda name: self.path.fs.put_file(str(local), name, **how))
        with plain_errors():
            seen = self.look()
        return (seen.mark if seen else None) or ""

    def fetch(self, local: Path) -> bool:
        """Download the object."""
        try:
            self._fs.get_file(self.path.path, str(local))
        except FileNotFoundError:
            return False
        return True

    def _put(self, put: Callable[[str], object]) -> None:
        """Write an object atomically: directly in an object store, elsewhere under another name that is then moved."""
        fs, place = self.path.fs, self.path.path
        with plain_errors():
            if self._is_object_store:
                put(place)
                return
            folder, _, name = place.rpartition("/")
            part = f"{folder}/.{name}.{uuid.uuid4().hex[:8]}.part"
            fs.makedirs(folder, exist_ok=True)
            try:
                put(part)
                fs.mv(part, place)
            except BaseException:
                with suppress(Exception):
                    fs.rm_file(part)
                raise

    def files_below(self, suffix: str, since: datetime, *, deep: bool) -> Iterator[ObjectFile]:
        """Yield the objects with a suffix, except those last written well before ``since``, if the store dates them."""

        def tell(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError):
                raise error

        top = None
        depth = None if deep else 1
        for place, _, files in self._fs.walk(self.path.path, maxdepth=depth, on_error=tell, detail=True):
            top = place if top is None else top
            for name, info in files.items():
                written = _written(info) if self._is_object_store else None
                if name.endswith(suffix) and not (written and written < since - CLOCKS_APART):
                    yield self.below(f"{place[len(top) :]}/{name}".lstrip("/"))

    def listed_below(self) -> dict[str, datetime | None]:
        """Return the relative paths of all objects in this folder and below, with their times if the store has them."""
        root = self.path.path.rstrip("/") + "/"
        found = self._fs.find(root, detail=True)
        return {path.removeprefix(root): _written(info) for path, info in found.items()}

    def sign(self) -> str | None:
        """Return a URL that is valid for two hours; None if the store cannot sign one."""
        signer = logging.getLogger("botocore.auth")  # logs signatures at DEBUG
        level = signer.level
        signer.setLevel(logging.INFO)
        try:
            url = self.path.fs.sign(
                self.path.path, expiration=int(SIGNED_FOR.total_seconds()), **self._signed_with()
            )
        except Exception as error:  # each store fails in its own way, some for lack of a key
            log.info("No URL can be signed for %s (%s).", self, type(error).__name__)
            return None
        finally:
            signer.setLevel(level)
        return url if isinstance(url, str) and url.startswith(("https://", "http://")) else None

    def _signed_with(self) -> dict[str, str]:
        return {}


class _S3File(ObjectFile):
    """An object in S3, where every write can be conditional (``If-None-Match``, ``If-Match``)."""

    @property
    def is_conditional(self) -> bool:
        return self._store not in _unconditional

    @property
    def signs_uniquely(self) -> bool:
        """True: each names the picture otherwise, in a header of the reply that nobody reads."""
        return True

    def _signed_with(self) -> dict[str, str]:
        return {"ResponseContentDisposition": f'inline; filename="{uuid.uuid4().hex}"'}

    def read_version(self) -> Version | None:
        # The mark first: if the content is newer than its mark, the conditional write fails, which is safe.
        seen = self.look()
        if seen is None or seen.is_folder:
            return None
        content = self.read()
        return None if content is None else Version(content, _etag(seen) or _token(content))

    def create(self, content: bytes) -> str | None:
        return self._write(content, None)

    def replace(self, content: bytes, token: str) -> str | None:
        return self._write(content, token)

    def put(self, local: Path, allowed: Callable[[], bool]) -> str | None:
        with plain_errors():
            seen = self.look()
        written = self._write(local, _etag(seen) if seen else None) if allowed() else None
        return written and f"ETag:{written}"

    def _write(self, content: bytes | Path, expected: str | None) -> str | None:
        """Write if the object has the expected ETag (None: if it does not exist), and return its new ETag."""
        try:
            if self.is_conditional:
                condition = {"IfMatch": expected} if expected else {"IfNoneMatch": "*"}
                with plain_errors():
                    return self._upload(content, condition)
        except OSError as error:
            if error.errno == errno.ENOSYS:
                self._tell_unconditional()
            elif _code(error) in _CONDITION_LOST or isinstance(error, FileExistsError):
                return None
            elif isinstance(error, FileNotFoundError) and expected and self.look() is None:
                return None  # the object has been deleted
            else:
                raise
        finally:
            self.path.fs.invalidate_cache()
        seen = self.look()
        if (_etag(seen) if seen else None) != expected:
            return None
        with plain_errors():
            return self._upload(content, {})

    def _upload(self, content: bytes | Path, condition: dict[str, str]) -> str:
        fs = self.path.fs
        bucket, key, _ = fs.split_path(self.path.path)
        place = {"Bucket": bucket, "Key": key}
        if isinstance(content, bytes):
            kind = {"ContentType": "application/json"}
            return str(fs.call_s3("put_object", **place, Body=content, **kind, **condition)["ETag"])
        kind = {"ContentType": "video/mp4"}
        if content.stat().st_size <= 2 * _PIECE:
            body = content.read_bytes()
            return str(fs.call_s3("put_object", **place, Body=body, **kind, **condition)["ETag"])
        upload = {**place, "UploadId": fs.call_s3("create_multipart_upload", **place, **kind)["UploadId"]}
        try:
            parts: list[dict[str, object]] = []
            with content.open("rb") as file:
                while piece := file.read(_PIECE):
                    number = len(parts) + 1
                    answer = fs.call_s3("upload_part", **upload, PartNumber=number, Body=piece)
                    parts.append({"PartNumber": number, "ETag": answer["ETag"]})
            whole = {"MultipartUpload": {"Parts": parts}}
            return str(fs.call_s3("complete_multipart_upload", **upload, **whole, **condition)["ETag"])
        except BaseException:
            with suppress(Exception):
                fs.call_s3("abort_multipart_upload", **upload)
            raise


#: 412, and 409 while another conditional write of the same object is in progress.
_CONDITION_LOST = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")


def _code(error: OSError) -> str:
    """Return S3's error code, if there is one."""
    response = getattr(error.__cause__, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def _etag(seen: Seen) -> str | None:
    return seen.mark.partition(":")[2] if seen.mark else None


def _token(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _written(info: Mapping[str, Any]) -> datetime | None:
    """Return when an object was last written according to its store; None if that is missing or has no time zone."""
    written = info.get("LastModified") or info.get("last_modified") or info.get("mtime")
    return written if isinstance(written, datetime) and written.tzinfo else None
