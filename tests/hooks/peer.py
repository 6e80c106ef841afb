"""A host that answers byte by byte as a test says: for what neither a decent server nor the simulator sends."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

#: Instead of an answer: hang up, with a FIN or with a RST.
HANG_UP = b""
RESET = b"RESET"


@dataclass(frozen=True)
class Seen:
    """A request as it arrived; header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, object]:
        return dict(json.loads(self.body))

    def __contains__(self, text: str) -> bool:
        return text in repr((self.method, self.target, self.headers, self.body))


Answer = bytes | Iterable[bytes] | Callable[[Seen], bytes]


def http(status: int = 200, body: bytes | str = b"", *, length: int | None = -1, **headers: str) -> bytes:
    """Return a reply; ``length`` is its claimed length, None: it ends with the connection."""
    content = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status} Whatever", "Connection: close"]
    if length is not None:
        lines.append(f"Content-Length: {len(content) if length < 0 else length}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def to_json(value: object, status: int = 200, **headers: Any) -> bytes:
    return http(status, json.dumps(value), Content_Type="application/json", **headers)


def chunked(*chunks: bytes, whole: bool = True, **headers: Any) -> bytes:
    """Return a reply in chunks, with or without the last, empty one."""
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return http(
        200, body + (b"0\r\n\r\n" if whole else b""), length=None, Transfer_Encoding="chunked", **headers
    )


class Peer:
    """Serves one request per connection on a free port; repeats the last answer."""

    def __init__(self, *answers: Answer, bound: socket.socket | None = None) -> None:
        self.seen: list[Seen] = []
        self._answers = list(answers)
        self._socket = bound or socket.create_server(("127.0.0.1", 0))
        self._socket.listen()
        self.port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(10)
                try:
                    self._answer(connection)
                except OSError:
                    continue

    def _answer(self, connection: socket.socket) -> None:
        seen = _read(connection)
        if seen is None:
            return
        self.seen.append(seen)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if callable(answer):
            answer = answer(seen)
        if answer == RESET:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return
        for part in [answer] if isinstance(answer, bytes) else answer:
            connection.sendall(part)


def _read(connection: socket.socket) -> Seen | None:
    if connection.recv(1, socket.MSG_PEEK) == b"\x16":
        return Seen("a TLS greeting", "", {}, b"")
    with connection.makefile("rb") as stream:
        line = stream.readline().decode()
        if not line:
            return None
        method, target, _ = line.split(" ")
        headers = {}
        while line := stream.readline().decode("latin-1").strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return Seen(method, target, headers, stream.read(int(headers.get("content-length", "0"))))
