"""A forward proxy that opens tunnels (CONNECT), and the certificate of the host behind it."""

from __future__ import annotations

import socket
import socketserver
import ssl
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


class ForwardProxy(socketserver.ThreadingTCPServer):
    """Leads every tunnel to one local port, as a company's proxy resolves hosts that its clients cannot.

    :param port: where each tunnel ends
    """

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Tunnel)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.target = "127.0.0.1", port
        #: The head of each request, and everything that clients sent.
        self.heads: list[str] = []
        self.received = bytearray()
        self.sockets: list[socket.socket] = []
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        for end in self.sockets:  # clients may keep them open
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self.server_close()
        self._thread.join()


class _Tunnel(socketserver.BaseRequestHandler):
    server: ForwardProxy

    def handle(self) -> None:
        client: socket.socket = self.request
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.recv(1)
        self.server.heads.append(head.decode("latin-1"))
        self.server.received += head
        with socket.create_connection(self.server.target) as host:
            self.server.sockets += client, host
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=_copy, args=(host, client, bytearray()))
            back.start()
            _copy(client, host, self.server.received)
            back.join()


def _copy(source: socket.socket, target: socket.socket, copy: bytearray) -> None:
    with suppress(OSError):
        while chunk := source.recv(65536):
            copy += chunk
            target.sendall(chunk)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def make_certificate(host: str, folder: Path) -> tuple[Path, ssl.SSLContext]:
    """Return a certificate that clients may trust, and a server's context that shows it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    bundle, private = folder / "bundle.pem", folder / "key.pem"
    bundle.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(bundle, private)
    return bundle, context
