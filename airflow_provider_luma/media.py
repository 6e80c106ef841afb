"""Frames in, videos out: what can be sent, and what counts as a video."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import imagesize  # type: ignore[import-untyped]

from airflow_provider_luma.exceptions import (
    LumaRayConfigurationError,
    LumaRayDeliveryFailed,
    LumaRayUnavailable,
)
from airflow_provider_luma.segmind.models import Model
from airflow_provider_luma.segmind.ratios import Shape
from airflow_provider_luma.storage import StoredFile, is_lasting, open_file, permission_hint

#: The vendor publishes no limit. A 4k photo has a few MB as JPEG and 25 MB uncompressed, and a frame is held in memory,
#: in base64 a third larger.
MAX_FRAME_BYTES = 20 * 1024 * 1024

#: How image files begin: bytes at an offset.
_MAGIC = (
    (b"\xff\xd8\xff", 0, "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", 0, "image/png"),
    (b"WEBP", 8, "image/webp"),
    (b"GIF8", 0, "image/gif"),
    (b"II*\0", 0, "image/tiff"),
    (b"MM\0*", 0, "image/tiff"),
    (b"ftypheic", 4, "image/heic"),
    (b"ftypheix", 4, "image/heic"),
    (b"ftypmif1", 4, "image/heif"),
    (b"ftypavif", 4, "image/avif"),
    (b"ftypavis", 4, "image/avif"),
)
#: How much of an object is read: the type is in its first bytes, a JPEG's dimensions after its EXIF preview.
_HEAD_BYTES = 64 * 1024

#: The query parameters of a store's signed URL, and the prefix of any others that belong to the signature. They change
#: with every signing and say nothing about the content. A single one may be part of the content's address.
_SIGNATURES: tuple[tuple[frozenset[str], tuple[str, ...]], ...] = (
    (frozenset({"x-amz-signature"}), ("x-amz-",)),
    (frozenset({"x-goog-signature"}), ("x-goog-",)),
    (frozenset({"x-oss-signature"}), ("x-oss-",)),
    (frozenset({"signature", "expires", "awsaccesskeyid"}), ()),
    (frozenset({"signature", "expires", "googleaccessid"}), ()),
    (frozenset({"signature", "expires", "ossaccesskeyid"}), ()),
    (frozenset({"signature", "key-pair-id", "policy"}), ()),
    (frozenset({"signature", "key-pair-id", "expires"}), ()),
)
#: Azure's: sig, sv and se always, the others optionally.
_AZURE_SIGNED = frozenset({"sig", "sv", "se"})
_AZURE = frozenset(
    "sv ss srt sp se st spr sig sr skoid sktid skt ske sks skv sip si sdd saoid suoid scid".split()
)
#: Parameters that may be a password: kept only as a digest.
_SECRET = frozenset(
    "token access_token auth authorization signature sig key api_key apikey password secret".split()
)


@dataclass(frozen=True)
class Frame:
    """A checked start frame.

    :param source: where it comes from, without a signature; for the record
    :param identity: its content's digest, its store's version mark, or its URL without a signature; for the fingerprint
    :param url: the URL as given, if it is one
    :param file: the file, if it is one
    :param mime: the file's type, from its first bytes
    :param shape: its width and height, if known; never for a URL
    :param content: a local file's content as checked, so that exactly this is sent
    """

    source: str
    identity: str
    url: str | None = field(default=None, repr=False)
    file: StoredFile | None = None
    mime: str = ""
    shape: Shape | None = field(default=None, compare=False)
    content: bytes | None = field(default=None, repr=False)

    def read(self) -> bytes:
        """Return the content that was checked.

        :raises LumaRayUnavailable: the object has changed since
        """
        if self.content is not None:
            return self.content
        if self.file is None:
            raise LumaRayConfigurationError(f"start_frame {self.source!r} no longer exists.")
        with _frame_errors(self.source):
            content = self.file.read()
            seen = self.file.look()
        known = {_digest(content), f"{seen.mark}" if seen else ""} if content is not None else set()
        if content is None or self.identity not in known:
            raise LumaRayUnavailable(f"start_frame {self.source!r} changed while it was read.")
        return content

    @property
    def data_url(self) -> str:
        """The content as a data URL."""
        return f"data:{self.mime};base64,{base64.b64encode(self.read()).decode()}"


def read_frame(start_frame: str, conn_id: str | None = None) -> Frame:
    """Check a start frame: an http(s) URL passes as it is; a file must be an image of at most 20 MB.

    A local file is read once; of an object only the first bytes, if its store reports a size and a version mark.

    :raises LumaRayConfigurationError: not usable as a frame; says what would be
    :raises LumaRayUnavailable: the store does not answer
    """
    if start_frame.startswith(("http://", "https://")):
        plain = unsigned(start_frame)
        if not plain or not urlsplit(plain).hostname:
            raise _bad_frame(start_frame, "is not a URL of an image")
        return Frame(source=plain, identity=plain, url=start_frame)
    file = open_file(start_frame, conn_id)
    content: bytes | None = None
    with _frame_errors(start_frame):
        seen = file.look()
        if seen is None:
            raise FileNotFoundError
        if seen.is_folder:
            raise IsADirectoryError
        size, identity = seen.size, seen.mark
        if size is not None and identity is not None:
            head = file.read(_HEAD_BYTES) or b"" if 0 < size <= MAX_FRAME_BYTES else b""
        else:
            content = file.read(MAX_FRAME_BYTES + 1)
            if content is None:
                raise FileNotFoundError
            size, identity, head = len(content), _digest(content), content[:_HEAD_BYTES]
    if not size:
        raise _bad_frame(start_frame, "is empty; give an image")
    if size > MAX_FRAME_BYTES:
        raise _bad_frame(start_frame, f"is larger than {MAX_FRAME_BYTES // 1024**2} MB; give a smaller image")
    mime = image_type(head)
    if mime is None:
        raise _bad_frame(
            start_frame, f"is not an image: it begins with {head[:8]!r}; give a JPEG, PNG, WebP, HEIC or AVIF"
        )
    shape = _shape(content or head)
    return Frame(source=str(file), identity=identity, file=file, mime=mime, shape=shape, content=content)


def _shape(content: bytes) -> Shape | None:
    try:
        width, height = imagesize.get(io.BytesIO(content))
    except Exception:  # unknown to us; the vendor may still be able to read it
        return None
    return (width, height) if width > 0 and height > 0 else None


def image_type(head: bytes) -> str | None:
    """Return an image file's MIME type, from its first 16 bytes; None if it is not an image."""
    if head[:2] == b"BM" and head[6:10] == bytes(4):
        return "image/bmp"
    return next((mime for magic, at, mime in _MAGIC if head[at : at + len(magic)] == magic), None)


def _digest(content: bytes | None) -> str:
    return f"sha256:{hashlib.sha256(content or b'').hexdigest()}"


@contextmanager
def _frame_errors(start_frame: str) -> Iterator[None]:
    """Turn errors of reading a frame into ours."""
    try:
        yield
    except IsADirectoryError:
        raise _bad_frame(start_frame, "is a directory; name one image in it") from None
    except FileNotFoundError:
        raise _bad_frame(start_frame, "does not exist; give an image file or an http(s) URL") from None
    except Exception as error:
        problem = f"cannot be read: {error}{permission_hint(error)}"
        if is_lasting(error) or not _is_object(start_frame):
            raise _bad_frame(start_frame, problem) from None
        raise LumaRayUnavailable(f"start_frame {start_frame!r} {problem}.") from None


def _is_object(start_frame: str) -> bool:
    scheme, separator, _ = start_frame.partition("://")
    return bool(separator) and scheme.lower() != "file"


def send_frame(
    frame: Frame,
    transfer: str,
    model: Model,
    upload: Callable[[Frame], str],
    reaches: Callable[[str], bool],
) -> tuple[str, bool]:
    """Return the frame's value in the request body, uploading the frame if necessary.

    :param transfer: auto, url, upload or base64. With auto, a URL is sent as it is, an object by a signed URL if the
        store can sign one that the vendor can reach, and any other file is uploaded
    :param upload: the hook's ``upload_image``
    :param reaches: the hook's ``reaches``
    :return: the value, and whether it is unique to this call
    :raises LumaRayConfigurationError: the frame cannot be sent that way
    """
    if frame.url is not None:
        if transfer not in ("auto", "url"):
            raise LumaRayConfigurationError(
                f"frame_transfer={transfer!r} is for files, but start_frame is the URL {frame.source}; use 'auto'."
            )
        return frame.url, False
    if frame.file is None:
        raise LumaRayConfigurationError(f"start_frame {frame.source!r} no longer exists.")
    if transfer in ("auto", "url"):
        url = frame.file.sign()
        if url and reaches(url):
            return url, frame.file.signs_uniquely
        if transfer == "url":
            why = (
                "its store has a private address, which the vendor cannot reach"
                if url
                else "its store signs no URL for it"
            )
            raise LumaRayConfigurationError(
                f"frame_transfer='url' does not work with start_frame {frame.source}: {why}; use 'auto'."
            )
    if transfer != "base64":
        return upload(frame), True
    if not model.takes_base64:
        raise LumaRayConfigurationError(
            f"frame_transfer='base64' does not work with {model.slug}, which takes a URL; use 'upload'."
        )
    return base64.b64encode(frame.read()).decode(), False


def unsigned(url: str) -> str:
    """Return a URL without fragment, user and signature; empty if it is not a URL.

    A parameter that may be a password or part of the content's address is replaced by its digest.
    """
    try:
        parts = urlsplit(url)
        query = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:
        return ""
    given = {name.lower() for name, _ in query}
    dropped: set[str] = set()
    for names, prefixes in _SIGNATURES:
        if names <= given:
            dropped |= names | {name for name in given if name.startswith(prefixes)}
    if given >= _AZURE_SIGNED:
        dropped |= _AZURE
    kept = [
        (name, _digested(value) if name.lower() in _SECRET and value else value)
        for name, value in query
        if name.lower() not in dropped
    ]
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, urlencode(kept), ""))


_DIGESTED = re.compile(r"sha256-[0-9a-f]{16}")


def _digested(text: str) -> str:
    if _DIGESTED.fullmatch(text):
        return text
    return f"sha256-{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:16]}"


def without_signatures(value: Any) -> Any:
    """Return a JSON value with the signatures removed from its URLs, such as an end frame's."""
    if isinstance(value, dict):
        return {name: without_signatures(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_signatures(item) for item in value]
    if isinstance(value, str) and value.startswith(("http://", "https://")) and "?" in value:
        return unsigned(value) or value.partition("?")[0]
    return value


@dataclass(frozen=True)
class VideoFile:
    """A video on the local disk, complete and checked.

    :param path: the file
    :param size: bytes
    :param sha256: hex digest of the content
    """

    path: Path
    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> VideoFile:
        """Return a file that has been checked before."""
        with path.open("rb") as file:
            return cls(path, path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


class VideoSink:
    """Writes a stream to a file; rejects anything but an MP4 by its first bytes, and anything too large to be a clip.

    :param file: kept if ``size`` and ``sha256`` match, to resume a download; else overwritten
    :param most: the size limit in megabytes
    :param size: how many bytes of a resumed download it should have
    :param sha256: their digest
    """

    def __init__(self, file: BinaryIO, most: float, size: int = 0, sha256: str = "") -> None:
        self._file = file
        self._most = most
        self._digest = hashlib.file_digest(file, "sha256")  # type: ignore[arg-type]  # a real file has readinto
        self.size = file.tell()
        if (self.size, self.sha256) != (size, sha256):
            self.restart()
        else:
            file.seek(0)
            self._head = file.read(8)
            file.seek(size)

    def restart(self) -> None:
        """Discard what was written."""
        self._file.seek(0)
        self._file.truncate()
        self._digest = hashlib.sha256()
        self._head = b""
        self.size = 0

    @property
    def sha256(self) -> str:
        """The digest of the bytes so far."""
        return self._digest.hexdigest()

    def write(self, chunk: bytes) -> None:
        """Append a chunk.

        :raises LumaRayDeliveryFailed: the stream is not an MP4, or is too large
        """
        self.check_size(self.size + len(chunk))
        self._file.write(chunk)
        self._digest.update(chunk)
        self.size += len(chunk)
        if len(self._head) < 8:
            self._head += chunk[: 8 - len(self._head)]
            self.check()

    def check_size(self, size: int) -> None:
        """Reject a size in bytes above the limit."""
        if size > self._most * 1e6:
            raise LumaRayDeliveryFailed(
                f"The download exceeds the limit of {self._most:.0f} MB.",
                remedy="If the clip really is that large, raise max_video_mb in the connection's extra.",
            )

    def check(self, *, whole: bool = False) -> None:
        """Check that the bytes so far can begin an MP4; with ``whole``, that they can be a complete one."""
        if not is_mp4_head(self._head) and (whole or len(self._head) == 8):
            raise LumaRayDeliveryFailed(f"The download is not an MP4 video: it begins with {self._head!r}.")

    def finish(self, path: Path) -> VideoFile:
        """Return the finished file as a checked video."""
        self.check(whole=True)
        self._file.flush()
        return VideoFile(path, self.size, self.sha256)


def is_mp4_head(head: bytes) -> bool:
    """Whether a file begins like an MP4: ``ftyp`` at byte 4."""
    return head[4:8] == b"ftyp"


def _bad_frame(start_frame: str, problem: str) -> LumaRayConfigurationError:
    shown = unsigned(start_frame) if start_frame.startswith(("http://", "https://")) else start_frame
    return LumaRayConfigurationError(f"start_frame {shown!r} {problem}.")
