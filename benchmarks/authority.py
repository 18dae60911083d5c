"""A certificate authority of the benchmark's own, and the provider's certificate, new in each run.

Everything that is measured trusts it beside certifi's authorities, not instead of them: loading
those is a part of what a relay's first request costs.
"""

from __future__ import annotations

import datetime
import os
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

import certifi
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from benchmarks import CannotMeasure

HOST = "localhost"
VALID_FOR = datetime.timedelta(days=2)
PEM = serialization.Encoding.PEM


@dataclass(frozen=True)
class Authority:
    """Files, all in PEM."""

    certificate: Path  # of the authority alone
    bundle: Path  # certifi's authorities, and this one
    server: Path  # the provider's certificate and its key

    def client_context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.certificate))

    def trust_in(self, layers: Path) -> None:
        """Add it to the authorities that a copy of the layers carries.

        `certificates`, where the layers have it, is a directory by hash of the authority's name.
        """
        pem = self.certificate.read_text()
        with (layers / "python" / "certifi" / "cacert.pem").open("a") as bundle:
            bundle.write(pem)
        directory = layers / "python" / "certificates"
        if directory.is_dir():
            command = ["openssl", "x509", "-noout", "-hash", "-in", str(self.certificate)]
            try:
                found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            except (OSError, subprocess.CalledProcessError) as error:
                raise CannotMeasure(f"openssl x509 -hash failed: {error}") from error
            (directory / f"{found.strip()}.0").write_text(pem)


def make(directory: Path) -> Authority:
    directory.mkdir(parents=True, exist_ok=True)
    key, subject = ec.generate_private_key(ec.SECP256R1()), _named("Weir benchmark authority")
    certificate = (
        _builder(subject, subject, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_may_only_sign(), critical=True)
        .sign(key, hashes.SHA256())
    )
    server_key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.DNSName(HOST)])
    issued_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
    server = (
        _builder(_named(HOST), subject, server_key)
        .add_extension(names, critical=False)
        .add_extension(issued_by, critical=False)
        .sign(key, hashes.SHA256())
    )
    private = server_key.private_bytes(
        PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    made = Authority(directory / "ca.pem", directory / "bundle.pem", directory / "server.pem")
    made.certificate.write_bytes(certificate.public_bytes(PEM))
    made.bundle.write_text(Path(certifi.where()).read_text() + made.certificate.read_text())
    made.server.touch(mode=0o600)
    os.chmod(made.server, 0o600)
    made.server.write_bytes(private + server.public_bytes(PEM))
    return made


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + VALID_FOR)
    )


def _may_only_sign() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
