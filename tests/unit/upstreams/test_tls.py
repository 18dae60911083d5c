"""The same over TLS, whose records cut the bytes where they like."""

import datetime
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.provider import FakeProvider
from tests.provider.answers import naked
from tests.provider.wire import SSE_HEAD, http_chunk
from tests.unit.upstreams.test_openai_compatible import TO
from weir.connections import trust
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


@pytest.fixture
def go_on() -> threading.Event:
    return threading.Event()


@pytest.fixture
def provider(certificate: Path, go_on: threading.Event) -> Iterator[FakeProvider]:
    """Two answers on one connection, the second after a silence, cut into odd records."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    coded = SSE_HEAD + http_chunk(b"first") + b"0\r\n\r\n"
    first = naked(*(coded[place : place + 7] for place in range(0, len(coded), 7)))
    second = naked(
        SSE_HEAD + b"5\r\nse", lambda _: go_on.wait(5), b"con\r", b"\n1\r\nd\r\n0\r\n\r\n"
    )
    served = FakeProvider(first, second, tls=context)
    yield served
    served.close()


def test_answers_over_tls_are_whole_and_share_a_connection(
    provider: FakeProvider,
    go_on: threading.Event,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trusting = ssl.create_default_context(cafile=certificate)
    monkeypatch.setattr(trust, "context", lambda: trusting)
    ours = Provider(provider.url)
    content = []
    for turn in range(2):
        call = ours.open(TO, b"{}", stream=True)
        got = b""
        while (data := call.receive(0.2)) != b"":
            if data is None:
                go_on.set()
            got += data or b""
        content.append(got)
        assert turn == 0 or go_on.is_set(), "the silence was seen"
        call.close()
    ours.close()
    assert content == [b"first", b"second"]
    assert provider.connections == 1


def test_certificate_that_nobody_vouches_for_is_refused(provider: FakeProvider) -> None:
    from weir.errors import UpstreamUnavailable

    call = Provider(provider.url).open(TO, b"{}", stream=True)
    with pytest.raises(UpstreamUnavailable):
        call.receive(5)
    call.close()
