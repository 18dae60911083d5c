"""A server on loopback that speaks real TLS, and answers each connection as a test scripts it."""

import contextlib
import datetime
import re
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOST = "sign-in.example.com"
PUBLIC = "93.184.216.34"
ANOTHER = "1.1.1.1"

Script = Callable[[ssl.SSLSocket], object]


def certificate(directory: Path, name: str) -> Path:
    """A self-signed one, of a DNS name."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path = directory / f"{name}.pem"
    path.write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
    return path


class Served:
    """A server on loopback. Each connection is answered by the next script; the last one stays."""

    def __init__(self, certificate: Path, *scripts: Script) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._context.sni_callback = lambda _sock, name, _context: self.names.append(name)
        self._scripts = list(scripts)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.names: list[str | None] = []
        self.requests: list[bytes] = []
        self.over = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self.over.set()
        self._listener.close()

    def _serve(self) -> None:
        while not self.over.is_set():
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(raw,), daemon=True).start()

    def _answer(self, raw: socket.socket) -> None:
        with contextlib.suppress(OSError), raw:
            script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
            with self._context.wrap_socket(raw, server_side=True) as spoken:
                self.requests.append(_request(spoken))
                script(spoken)


def _request(spoken: ssl.SSLSocket) -> bytes:
    """Read a request with its body, which may come by itself."""
    told = spoken.recv(65_536)
    head, _, body = told.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    left = int(length[1]) - len(body) if length else 0
    while left > 0 and (more := spoken.recv(left)):
        told, left = told + more, left - len(more)
    return told


def answer(body: bytes, *headers: str, status: str = "200 OK") -> Script:
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return lambda spoken: spoken.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + body)


Serve = Callable[..., Served]
