"""A real handshake, in memory, with servers of every kind: whom the shared context believes."""

import ssl
from pathlib import Path

import certifi
import pytest
from cryptography import x509

from layers import certificates
from tests.unit.connections.authority import Authority, authority, named
from weir.connections import trust

HOST = "provider.example.com"


@pytest.fixture(scope="module")
def ours() -> Authority:
    return authority(named("Our Authority"))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory, ours: Authority) -> Path:
    """As in the dependencies layer, but of one authority."""
    made = tmp_path_factory.mktemp("layer")
    (made / "bundle.pem").write_text(f"# a comment\n{ours.pem}\n")
    certificates.write_by_hash(made / "bundle.pem", made / "certificates")
    return made / "certificates"


def shake_hands(client: ssl.SSLContext, certificate: Path, host: str = HOST) -> None:
    """Raise ssl.SSLError if the client does not believe the server."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(certificate)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(down, up, server_hostname=host)
    answering = server_context.wrap_bio(up, down, server_side=True)
    for _ in range(3):
        for side in (asking, answering):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert asking.version() is not None
    assert asking.getpeercert() is not None


def test_server_of_an_authority_in_the_directory_is_believed(
    ours: Authority, directory: Path, tmp_path: Path
) -> None:
    shake_hands(trust.new_context({}, str(directory)), ours.issue(tmp_path, HOST))


def test_nobody_else_is_believed(ours: Authority, directory: Path, tmp_path: Path) -> None:
    tls = trust.new_context({}, str(directory))
    stranger = authority(named("Another Authority")).issue(tmp_path, HOST)
    impostor = authority(ours.certificate.subject).issue(tmp_path, HOST)  # of the same name
    elsewhere = ours.issue(tmp_path, "other.example.com")
    expired = ours.issue(tmp_path, HOST, expired=True)
    for certificate in (stranger, impostor, elsewhere, expired):
        with pytest.raises(ssl.SSLCertVerificationError):
            shake_hands(tls, certificate)


def test_environment_wins_over_the_directory(
    ours: Authority, directory: Path, tmp_path: Path
) -> None:
    company = authority(named("A Company's Authority"))
    (tmp_path / "company.pem").write_text(company.pem)
    certificates.write_by_hash(tmp_path / "company.pem", tmp_path / "by-hash")
    for env in (
        {"SSL_CERT_FILE": str(tmp_path / "company.pem")},
        {"SSL_CERT_DIR": str(tmp_path / "by-hash")},
    ):
        tls = trust.new_context(env, str(directory))
        shake_hands(tls, company.issue(tmp_path, HOST))
        with pytest.raises(ssl.SSLCertVerificationError):
            shake_hands(tls, ours.issue(tmp_path, HOST))


def test_without_the_directory_certifis_bundle_is_trusted(tmp_path: Path) -> None:
    tls = trust.new_context({}, str(tmp_path / "missing"))
    assert len(tls.get_ca_certs()) == certifi.contents().count("BEGIN CERTIFICATE")


def test_process_has_one_context() -> None:
    assert trust.context() is trust.context()


def subjects() -> list[x509.Name]:
    found = {each.subject for each in x509.load_pem_x509_certificates(certifi.contents().encode())}
    return sorted(found, key=str)


# One of the bundle's oldest authorities has the serial number 0.
@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
def test_every_authority_of_the_bundle_is_found_by_its_name(tmp_path: Path) -> None:
    """OpenSSL finds an authority of the same subject, whose key we have, under the same hash."""
    certificates.write_by_hash(Path(certifi.where()), tmp_path / "certificates")
    shipped = {path.name for path in (tmp_path / "certificates").iterdir()}
    assert len(shipped) == certifi.contents().count("BEGIN CERTIFICATE")
    assert len(subjects()) > 100
    for turn, subject in enumerate(subjects()):
        place = tmp_path / str(turn)
        twin = authority(subject)
        place.mkdir()
        (place / "bundle.pem").write_text(twin.pem)
        certificates.write_by_hash(place / "bundle.pem", place / "by-hash")
        assert {path.name for path in (place / "by-hash").iterdir()} <= shipped
        shake_hands(trust.new_context({}, str(place / "by-hash")), twin.issue(place, HOST))


def test_authorities_whose_names_share_a_hash_are_all_found(tmp_path: Path) -> None:
    twins = [
        authority(named(name)) for name in ("Twin  Authority ", "twin authority", "TWIN authority")
    ]
    (tmp_path / "bundle.pem").write_text("".join(each.pem for each in twins))
    certificates.write_by_hash(tmp_path / "bundle.pem", tmp_path / "by-hash")
    assert len({path.stem for path in (tmp_path / "by-hash").iterdir()}) == 1
    tls = trust.new_context({}, str(tmp_path / "by-hash"))
    for twin in twins:
        shake_hands(tls, twin.issue(tmp_path, HOST))
