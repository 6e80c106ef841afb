"""A real S3 server in its own process, behind a gate that sees each request and injects faults."""

from __future__ import annotations

import re
import socket
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self


class Store:
    """moto's server, on a port chosen by the system."""

    def __init__(self) -> None:
        self.port = 0
        self.start()

    def start(self) -> None:
        """Start it, empty; after a kill, on another port."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if found := re.search(r"Running on http://127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1])
                break
        else:
            raise RuntimeError("the S3 server did not start")
        self._drain = threading.Thread(target=self._process.stderr.read, daemon=True)
        self._drain.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """Kill it with SIGKILL; its content is lost."""
        self._process.kill()
        self._process.wait()
        self._drain.join()
        assert self._process.stderr is not None
        self._process.stderr.close()


def _answer(status: int, code: str) -> bytes:
    error = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
    return b"HTTP/1.1 %d %s\r\nContent-Length: %d\r\n\r\n%s" % (status, code.encode(), len(error), error)


@dataclass(frozen=True)
class Seen:
    """The head of a request that reached the gate."""

    head: str

    @property
    def line(self) -> str:
        return self.head.partition("\r\n")[0].removesuffix(" HTTP/1.1")

    @property
    def signed_by_header(self) -> bool:
        """Whether it is the worker's, rather than one with a signed URL."""
        return "\r\nauthorization:" in self.head.lower()


class Hold:
    """Keeps one request from the store until it is let go of.

    :param line: the first line that matches is held
    :param after: how many that match pass before
    """

    def __init__(self, line: str, after: int) -> None:
        self._line = re.compile(line)
        self._after = after
        self._is_set = True
        self._lock = threading.Lock()
        self._passes = True
        self.reached, self._over = threading.Event(), threading.Event()

    def passes(self, line: str) -> bool:
        """Wait if the request is to be held; return whether it may go on."""
        with self._lock:
            if not self._is_set or not self._line.search(line):
                return True
            if self._after:
                self._after -= 1
                return True
            self._is_set = False
        self.reached.set()
        self._over.wait()
        return self._passes

    def let_go(self, *, passes: bool = True) -> None:
        """Let the request go on, or reset its connection."""
        self._passes, self._is_set = passes, False
        self._over.set()


class Server(Protocol):
    """What a gate leads to."""

    @property
    def port(self) -> int: ...

    def kill(self) -> None: ...


class Gate:
    """Forwards connections to a store.

    :param store: where they go
    """

    def __init__(self, store: Server) -> None:
        self._store = store
        self._hold: Hold | None = None
        self.seen: list[Seen] = []
        self._trouble: tuple[re.Pattern[str], int, bool] | None = None
        self._kills = False
        self._refused: tuple[re.Pattern[str], re.Pattern[str], bytes] | None = None
        self._kept: re.Pattern[str] | None = None
        self._mute: set[socket.socket] = set()
        self.down = False
        self.struck = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()

    def reset(self) -> None:
        """Remove all faults and forget what was seen."""
        self._trouble = self._refused = self._kept = self._hold = None
        self.down = self._kills = False
        self.struck.clear()
        self.seen.clear()

    def strike(self, line: str, *, after: int = 0, stays_down: bool = False, kills: bool = False) -> None:
        """Reset the connection of each request whose first line matches.

        :param after: how many of its bytes pass first
        :param stays_down: whether nothing passes from then on
        :param kills: whether the store is killed, too
        """
        self._trouble, self._kills = (re.compile(line), after, stays_down), kills

    def refuse(self, line: str, status: int = 403, code: str = "AccessDenied", header: str = "") -> None:
        """Answer with an error to each request whose first line and one of its headers match."""
        self._refused = re.compile(line), re.compile(header), _answer(status, code)

    def hold(self, line: str, *, after: int = 0) -> Hold:
        """Keep a request whose first line matches from the store, which does not see it before it is let go.

        :param after: how many that match pass before
        """
        self._hold = Hold(line, after)
        return self._hold

    def keep_answers(self, line: str) -> None:
        """Forward each request whose first line matches, but reset the connection instead of answering."""
        self._kept = re.compile(line)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.down:
                    _break(client)
                    continue
                try:
                    server = socket.create_connection(("127.0.0.1", self._store.port))
                except OSError:
                    _break(client)
                    continue
                threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
                threading.Thread(target=self._back, args=(server, client), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        left: int | None = None
        is_refused = False
        with suppress(OSError):
            while chunk := client.recv(65536):
                if self.down:
                    break
                if found := re.match(rb"(?:GET|HEAD|PUT|POST|DELETE) .*?\r\n\r\n", chunk, re.DOTALL):
                    seen = Seen(found[0].decode("latin-1"))
                    self.seen.append(seen)
                    if self._hold and not self._hold.passes(seen.line):
                        break
                    if self._kept and self._kept.search(seen.line):
                        self._mute.add(server)
                    is_refused = False
                    if self._refused:
                        line, header, answer = self._refused
                        is_refused = bool(line.search(seen.line) and header.search(seen.head))
                        client.sendall(answer if is_refused else b"")
                    if self._trouble and self._trouble[0].search(seen.line):
                        left = self._trouble[1]
                if is_refused:
                    continue
                if left is not None:
                    if left < len(chunk):
                        server.sendall(chunk[:left])
                        self._hit()
                        break
                    left -= len(chunk)
                server.sendall(chunk)
        _break(client)
        _break(server)

    def _hit(self) -> None:
        if self._trouble and self._trouble[2]:
            self.down = True
        if self._kills:
            self._store.kill()
        self.struck.set()

    def _back(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while chunk := server.recv(65536):
                if server in self._mute:
                    go_on = re.match(rb"HTTP/1\.1 100 .*?\r\n\r\n", chunk, re.DOTALL)
                    client.sendall(go_on[0] if go_on else b"")
                    if not go_on or go_on[0] != chunk:
                        break
                else:
                    client.sendall(chunk)
        _break(client)
        _break(server)


def _break(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
