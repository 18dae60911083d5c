"""The same over TLS, whose records cut the bytes where they like."""

import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.unit.upstreams.test_openai_compatible import SSE_HEAD, TO, http_chunk, read_request
from weir.upstreams.openai_compatible import Provider


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "provider")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "provider.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
    return path


class TlsProvider:
    """Serves two answers on one connection, the second after a silence, cut into odd records."""

    def __init__(self, certificate: Path) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self.listener.getsockname()[1]}/v1"
        self.go_on = threading.Event()
        self.connections = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self.listener.accept()
                self.connections += 1
                with self._context.wrap_socket(plain, server_side=True) as peer:
                    read_request(peer)
                    coded = SSE_HEAD + http_chunk(b"first") + b"0\r\n\r\n"
                    for place in range(0, len(coded), 7):
                        peer.sendall(coded[place : place + 7])
                    read_request(peer)
                    peer.sendall(SSE_HEAD + b"5\r\nse")
                    self.go_on.wait(5)
                    peer.sendall(b"con\r")
                    peer.sendall(b"\n1\r\nd\r\n0\r\n\r\n")
                    peer.recv(1)
            except OSError:
                return


@pytest.fixture
def provider(certificate: Path) -> Iterator[TlsProvider]:
    served = TlsProvider(certificate)
    yield served
    served.listener.close()


def test_answers_over_tls_are_whole_and_share_a_connection(
    provider: TlsProvider, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusting = ssl.create_default_context(cafile=certificate)
    monkeypatch.setattr(ssl, "create_default_context", lambda **_: trusting)
    ours = Provider(provider.url)
    content = []
    for turn in range(2):
        call = ours.open(TO, b"{}", stream=True)
        got = b""
        while (data := call.receive(0.2)) != b"":
            if data is None:
                provider.go_on.set()
            got += data or b""
        content.append(got)
        assert turn == 0 or provider.go_on.is_set(), "the silence was seen"
        call.close()
    ours.close()
    assert content == [b"first", b"second"]
    assert provider.connections == 1


def test_certificate_that_nobody_vouches_for_is_refused(provider: TlsProvider) -> None:
    from weir.errors import UpstreamUnavailable

    call = Provider(provider.url).open(TO, b"{}", stream=True)
    with pytest.raises(UpstreamUnavailable):
        call.receive(5)
    call.close()
