"""Frames in and videos out: what may be sent, and what counts as a video."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from airflow_provider_luma.exceptions import (
    LumaRayConfigurationError,
    LumaRayDeliveryFailed,
    LumaRayUnavailable,
)
from airflow_provider_luma.segmind.models import Model
from airflow_provider_luma.storage import asked_anew, is_lasting, open_path, permissions, sign

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_luma.storage import StoragePath

MAX_FRAME_BYTES = 20 * 1024 * 1024

_IMAGES = (
    (b"\xff\xd8\xff", 0, "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", 0, "image/png"),
    (b"WEBP", 8, "image/webp"),
    (b"GIF8", 0, "image/gif"),
    (b"BM", 0, "image/bmp"),
    (b"II*\0", 0, "image/tiff"),
    (b"MM\0*", 0, "image/tiff"),
    (b"ftypheic", 4, "image/heic"),
    (b"ftypavif", 4, "image/avif"),
)
_HEAD_BYTES = 16
#: By what a store tells a content: GCS by a digest, S3 and Azure by a mark that is another when the content is.
_MARKS = ("md5Hash", "ETag", "etag")
#: Query parameters by which stores sign an URL: they change with every signing and are as good as a password.
_SIGNATURES = ("x-amz-", "x-goog-", "x-oss-")
_SIGNATURE_NAMES = frozenset(
    "signature expires awsaccesskeyid googleaccessid key-pair-id policy token access_token sig se sp sv sr st spr "
    "skoid sktid skt ske sks skv".split()
)


@dataclass(frozen=True)
class Frame:
    """A start frame that was checked.

    :param source: where it comes from, without a signature; for the record
    :param identity: its content's digest, its store's mark of the content, or its URL without a signature; for the
        fingerprint
    :param url: the URL as given, for a frame that is one
    :param path: the file, for a frame that is one
    :param mime: the file's type, read from its first bytes
    """

    source: str
    identity: str
    url: str | None = field(default=None, repr=False)
    path: StoragePath | None = None
    mime: str = ""


def read_frame(start_frame: str, conn_id: str | None = None) -> Frame:
    """Check a start frame: an http(s) URL is taken as it is, a file must be an image of at most 20 MB.

    Of an object no more is read than its first bytes, where its store tells its size and marks its content.

    :raises LumaRayConfigurationError: naming the frame and what would be right
    :raises LumaRayUnavailable: the store gives no answer
    """
    if start_frame.startswith(("http://", "https://")):
        plain = unsigned(start_frame)
        if not plain or not urlsplit(plain).hostname:
            raise _bad_frame(start_frame, "is no URL of an image")
        return Frame(source=plain, identity=plain, url=start_frame)
    path = open_path(start_frame, conn_id)
    with _frame_errors(start_frame):
        if isinstance(path, Path):
            if path.is_dir():
                raise IsADirectoryError
            with path.open("rb") as file:
                seen = _seen(file.read(MAX_FRAME_BYTES + 1))
        else:
            seen = _see_object(path)
    if not seen.size:
        raise _bad_frame(start_frame, "is empty; give an image")
    if seen.size > MAX_FRAME_BYTES:
        raise _bad_frame(start_frame, f"is larger than {MAX_FRAME_BYTES // 1024**2} MB; give a smaller image")
    mime = next((mime for magic, at, mime in _IMAGES if seen.head[at : at + len(magic)] == magic), None)
    if mime is None:
        raise _bad_frame(
            start_frame, f"is not an image: it begins with {seen.head[:8]!r}; give a JPEG or PNG"
        )
    return Frame(source=str(path), identity=seen.identity, path=path, mime=mime)


@dataclass(frozen=True)
class _Seen:
    size: int
    head: bytes
    identity: str


def _seen(content: bytes) -> _Seen:
    return _Seen(len(content), content[:_HEAD_BYTES], f"sha256:{hashlib.sha256(content).hexdigest()}")


def _see_object(path: ObjectStoragePath) -> _Seen:
    store = asked_anew(path)
    info = store.info(path.path)
    if info["type"] == "directory":
        raise IsADirectoryError
    size = info.get("size")
    mark = next((f"{name}:{info[name]}" for name in _MARKS if info.get(name)), None)
    if size is None or mark is None:
        return _seen(store.cat_file(path.path, start=0, end=MAX_FRAME_BYTES + 1))
    head = store.cat_file(path.path, start=0, end=_HEAD_BYTES) if 0 < size <= MAX_FRAME_BYTES else b""
    return _Seen(size, head, mark)


@contextmanager
def _frame_errors(start_frame: str) -> Iterator[None]:
    """Tell what keeps a frame from being read."""
    try:
        yield
    except IsADirectoryError:
        raise _bad_frame(start_frame, "is a directory; name one image in it") from None
    except FileNotFoundError:
        raise _bad_frame(start_frame, "does not exist; give an image file or an http(s) URL") from None
    except Exception as error:
        problem = f"cannot be read: {error}{permissions(error)}"
        if is_lasting(error) or not _is_object(start_frame):
            raise _bad_frame(start_frame, problem) from None
        raise LumaRayUnavailable(
            f"start_frame {start_frame!r} {problem}. Nothing was bought; a retry reads it again."
        ) from None


def _is_object(start_frame: str) -> bool:
    scheme, separator, _ = start_frame.partition("://")
    return bool(separator) and scheme.lower() != "file"


def send_frame(
    frame: Frame,
    transfer: str,
    model: Model,
    upload: Callable[[StoragePath], str],
    reaches: Callable[[str], bool],
) -> str:
    """Return what stands for the frame in the request body, uploading it where that is the way.

    :param transfer: auto, url, upload or base64; auto: an URL stays one, an object goes by a signed URL where there can
        be one that the vendor reaches, and any other file is uploaded
    :param upload: the hook's ``upload_image``
    :param reaches: the hook's
    :raises LumaRayConfigurationError: the frame cannot go that way
    """
    if frame.url is not None:
        if transfer not in ("auto", "url"):
            raise LumaRayConfigurationError(
                f"frame_transfer={transfer!r} is for files, but start_frame is the URL {frame.source}; use 'auto'. "
                "Nothing was bought."
            )
        return frame.url
    if frame.path is None:
        raise LumaRayConfigurationError(
            f"start_frame {frame.source!r} is no longer there. Nothing was bought."
        )
    if transfer in ("auto", "url"):
        url = sign(frame.path)
        if url and reaches(url):
            return url
        if transfer == "url":
            why = (
                "its store's address is a private one, out of the vendor's reach"
                if url
                else "no URL of it can be signed"
            )
            raise LumaRayConfigurationError(
                f"frame_transfer='url' does not work with start_frame {frame.source}: {why}; use 'auto'. "
                "Nothing was bought."
            )
    if transfer != "base64":
        return upload(frame.path)
    if not model.takes_base64:
        raise LumaRayConfigurationError(
            f"frame_transfer='base64' does not work with {model.slug}, which takes an URL; use 'upload'. "
            "Nothing was bought."
        )
    return _base64(frame.path)


def data_url(path: StoragePath) -> str:
    """Return an image file as a data URL."""
    frame = read_frame(str(path)) if isinstance(path, Path) else read_frame(str(path), path.conn_id)
    return f"data:{frame.mime};base64,{_base64(path)}"


def _base64(path: StoragePath) -> str:
    with _frame_errors(str(path)):
        content = path.read_bytes() if isinstance(path, Path) else asked_anew(path).cat_file(path.path)
    return base64.b64encode(content).decode()


def unsigned(url: str) -> str:
    """Return an URL without fragment, user and signature; empty where it is none."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    query = [
        (name, value)
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
        if name.lower() not in _SIGNATURE_NAMES and not name.lower().startswith(_SIGNATURES)
    ]
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, urlencode(query), ""))


@dataclass(frozen=True)
class VideoFile:
    """A video on the local disk, whole and checked.

    :param path: the file
    :param size: bytes
    :param sha256: hex digest of the content
    """

    path: Path
    size: int
    sha256: str


class VideoSink:
    """Writes a stream to a file, refusing at its first bytes what is not an MP4."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.restart()

    def restart(self) -> None:
        """Forget what was written."""
        self._file.seek(0)
        self._file.truncate()
        self._digest = hashlib.sha256()
        self._head = b""
        self.size = 0

    def write(self, chunk: bytes) -> None:
        """Append a chunk.

        :raises LumaRayDeliveryFailed: the stream does not begin like an MP4
        """
        self._file.write(chunk)
        self._digest.update(chunk)
        self.size += len(chunk)
        if len(self._head) < 8:
            self._head += chunk[: 8 - len(self._head)]
            self.check()

    def check(self, *, whole: bool = False) -> None:
        """Check that what came so far can be an MP4; with ``whole``, that it can be all of one."""
        if not is_mp4_head(self._head) and (whole or len(self._head) == 8):
            raise LumaRayDeliveryFailed(f"The download is not an MP4 video: it begins with {self._head!r}.")

    def finish(self, path: Path) -> VideoFile:
        """Return the file as a checked video."""
        self.check(whole=True)
        self._file.flush()
        return VideoFile(path, self.size, self._digest.hexdigest())


def is_mp4_head(head: bytes) -> bool:
    """Tell an MP4 by ``ftyp`` at byte 4."""
    return head[4:8] == b"ftyp"


def ends_whole(file: BinaryIO) -> bool:
    """Tell whether an MP4's top-level boxes end where the file does; for downloads whose length nobody told."""
    end = file.seek(0, 2)
    at = 0
    while at < end:
        file.seek(at)
        header = file.read(16)
        length, shortest = int.from_bytes(header[:4], "big"), 8
        if length == 1:
            length, shortest = int.from_bytes(header[8:16], "big"), 16
        elif length == 0:
            length = end - at
        if length < shortest or len(header) < shortest:
            return False
        at += length
    return at == end > 0


@contextmanager
def staged(target: StoragePath, tag: str) -> Iterator[Path]:
    """Give a local file to fill for a target: beside it where that is local, else in a temporary folder.

    The file is gone at the end, unless it was moved away.

    :param tag: tells one task instance's file from another's; the same in each of its attempts, so that what a
        killed one left is overwritten by the next
    """
    if isinstance(target, Path):
        target.parent.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(target.name.encode()).hexdigest()[:8]
        part = target.with_name(f".{name}.{tag}.part")
        try:
            yield part
        finally:
            part.unlink(missing_ok=True)
    else:
        with TemporaryDirectory(prefix="luma_ray_") as folder:
            yield Path(folder) / "video.part"


def _bad_frame(start_frame: str, problem: str) -> LumaRayConfigurationError:
    shown = unsigned(start_frame) if start_frame.startswith(("http://", "https://")) else start_frame
    return LumaRayConfigurationError(f"start_frame {shown!r} {problem}. Nothing was bought.")
