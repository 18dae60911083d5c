"""Makes the directory of certificate authorities in which OpenSSL finds one by its name.

    python layers/certificates.py BUNDLE OUT_DIR

OpenSSL looks for `<hash>.<n>`: the hash is that of the authority's subject (X509_NAME_hash), and n
counts, from 0, those that have the same. `openssl rehash` makes such a directory, too; a build must
not depend on the program, which not every machine has.
"""

import hashlib
import re
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_UTF8_STRING = 0x0C
# The tags of the other strings whose content OpenSSL compares as text, with their encodings.
_TEXT = {
    _UTF8_STRING: "utf-8",
    0x13: "latin-1",  # PrintableString
    0x14: "latin-1",  # T61String
    0x16: "latin-1",  # IA5String
    0x1A: "latin-1",  # VisibleString
    0x1C: "utf-32-be",  # UniversalString
    0x1E: "utf-16-be",  # BMPString
}
_SPACES = re.compile(r"[ \t\n\v\f\r]+")


def write_by_hash(bundle: Path, out: Path) -> int:
    """Write each certificate of a PEM bundle into `out`, under its hash. Return how many."""
    out.mkdir(parents=True)
    names: dict[str, int] = {}
    certificates = _PEM.findall(bundle.read_text())
    for pem in certificates:
        name = subject_hash(ssl.PEM_cert_to_DER_cert(pem))
        (out / f"{name}.{names.setdefault(name, 0)}").write_text(pem + "\n")
        names[name] += 1
    return len(certificates)


def subject_hash(certificate: bytes) -> str:
    """Return OpenSSL's hash of a DER certificate's subject: eight hexadecimal digits."""
    digest = hashlib.sha1(_canonical(_subject(certificate)), usedforsecurity=False).digest()
    return digest[3::-1].hex()


def _subject(certificate: bytes) -> bytes:
    """Return the content of the subject's SEQUENCE (RFC 5280, section 4.1)."""
    [(_, whole)] = _parts(certificate)
    (_, to_be_signed), *_ = _parts(whole)
    fields = list(_parts(to_be_signed))
    if fields[0][0] == 0xA0:  # the version, which the oldest certificates leave out
        del fields[0]
    _serial, _algorithm, _issuer, _validity, (_, subject), *_ = fields
    return subject


def _canonical(name: bytes) -> bytes:
    """Spell a name's sets as X509_NAME_hash does: texts in UTF-8 and lower case, single spaces."""
    return b"".join(
        _der(0x31, b"".join(_canonical_attribute(each) for _, each in _parts(attributes)))
        for _, attributes in _parts(name)
    )


def _canonical_attribute(attribute: bytes) -> bytes:
    (kind, identifier), (tag, value) = _parts(attribute)
    if tag in _TEXT:
        text = _SPACES.sub(" ", value.decode(_TEXT[tag])).strip(" ")
        lower = "".join(each.lower() if each.isascii() else each for each in text)
        tag, value = _UTF8_STRING, lower.encode()
    return _der(0x30, _der(kind, identifier) + _der(tag, value))


def _parts(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the tag and the content of each value in a row of them."""
    at = 0
    while at < len(der):
        tag, length, at = der[at], der[at + 1], at + 2
        if length & 0x80:
            size = length & 0x7F
            length, at = int.from_bytes(der[at : at + size]), at + size
        yield tag, der[at : at + length]
        at += length


def _der(tag: int, content: bytes) -> bytes:
    if len(content) < 0x80:
        return bytes((tag, len(content))) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8)
    return bytes((tag, 0x80 | len(length))) + length + content


if __name__ == "__main__":
    write_by_hash(Path(sys.argv[1]), Path(sys.argv[2]))
