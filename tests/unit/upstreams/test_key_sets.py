"""Key sets over real TLS on loopback, from an issuer that lies, hangs, drips, redirects and floods.

The fetcher checks and dials as it always does. The tests pass in what a name resolves to, who may
certify a name, and where a public address is really connected to.
"""

import json
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import NamedTuple

import httpcore
import pytest

from tests.issuers import ISSUER, JWKS_URI, jwk, jwks
from tests.unit.upstreams.served import ANOTHER, HOST, PUBLIC, Script, Serve, Served, answer
from weir.identity.key_sets import KeySetUnavailable
from weir.upstreams import guarded, key_sets
from weir.upstreams.guarded import resolve
from weir.upstreams.key_sets import MAX_BYTES, KeySetFetcher
from weir.web.public_addresses import is_public

GOOD = json.dumps(jwks(jwk("RS256"), jwk("ES256"))).encode()


class Place(NamedTuple):
    """A fetcher, and what it has dialled."""

    fetch: KeySetFetcher
    dialled: list[str]


def place(
    served: Served, trusted: Path, *answers: list[str], resolver: guarded.Resolve | None = None
) -> Place:
    """`answers` are what the name resolves to, look-up by look-up; the last one stays."""
    dialled: list[str] = []
    left = list(answers or ([PUBLIC],))

    def dial(address: str, port: int, timeout_s: float) -> httpcore.NetworkStream:
        dialled.append(address)
        assert port == 443
        if address == ANOTHER:
            raise httpcore.ConnectError("nothing listens there")
        return guarded.dial("127.0.0.1", served.port, timeout_s)

    def resolved(host: str, port: int) -> list[str]:
        assert (host, port) == (HOST, 443)
        return left.pop(0) if len(left) > 1 else left[0]

    tls = ssl.create_default_context(cafile=trusted)
    return Place(KeySetFetcher(resolve=resolver or resolved, dial=dial, tls=tls), dialled)


def failure(fetch: KeySetFetcher, url: str = JWKS_URI) -> str:
    with pytest.raises(KeySetUnavailable) as why:
        fetch(url)
    return str(why.value)


# ---------------------------------------------------------------- what works


def test_keys_are_fetched_by_name_from_the_address_that_was_checked(
    serve: Serve, certificates: dict[str, Path]
) -> None:
    served = serve(answer(GOOD, "Cache-Control: public, max-age=7200", "Age: 200"))
    there = place(served, certificates[HOST])
    found = there.fetch(JWKS_URI)
    assert [key.kid for key in found.keys] == ["RS256-one", "ES256-one"]
    assert found.fresh_for_s == 7000
    assert there.dialled == [PUBLIC]
    assert served.names == [HOST]
    assert b"GET /.well-known/jwks.json HTTP/1.1\r\n" in served.requests[0]
    assert b"Host: sign-in.example.com\r\n" in served.requests[0]


def test_rotated_keys_are_there_with_the_next_fetch(
    serve: Serve, certificates: dict[str, Path]
) -> None:
    rotated = json.dumps(jwks(jwk("RS256", "two"))).encode()
    there = place(serve(answer(GOOD), answer(rotated)), certificates[HOST])
    assert there.fetch(JWKS_URI).find("RS256-one", "RS256")
    assert there.fetch(JWKS_URI).find("RS256-two", "RS256")


def test_next_address_is_tried_if_nothing_listens_at_the_first(
    serve: Serve, certificates: dict[str, Path]
) -> None:
    there = place(serve(answer(GOOD)), certificates[HOST], ["2606:4700::1111", ANOTHER, PUBLIC])
    assert there.fetch(JWKS_URI).keys
    assert there.dialled == [ANOTHER, PUBLIC]


def test_chunked_answer_is_read_whole(serve: Serve, certificates: dict[str, Path]) -> None:
    def chunked(spoken: ssl.SSLSocket) -> None:
        spoken.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for at in range(0, len(GOOD), 100):
            part = GOOD[at : at + 100]
            spoken.sendall(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        spoken.sendall(b"0\r\n\r\n")

    assert len(place(serve(chunked), certificates[HOST]).fetch(JWKS_URI).keys) == 2


# ---------------------------------------------------------------- where it must not go


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["169.254.169.254"],
        ["10.0.0.5"],
        ["::1"],
        ["::ffff:10.0.0.5"],
        ["fd00:ec2::254"],
        ["224.0.0.1"],
        [PUBLIC, "127.0.0.1"],
        ["192.168.1.1", PUBLIC],
        ["not an address"],
    ],
    ids=str,
)
def test_name_that_leads_to_a_private_address_is_not_dialled_at_all(
    serve: Serve, certificates: dict[str, Path], addresses: list[str]
) -> None:
    served = serve(answer(GOOD))
    there = place(served, certificates[HOST], addresses)
    assert "not public" in failure(there.fetch)
    assert (there.dialled, served.requests) == ([], [])


def test_name_that_changes_between_check_and_dial_changes_nothing(
    serve: Serve, certificates: dict[str, Path]
) -> None:
    """DNS rebinding: public for the check, loopback for whoever resolves again."""
    there = place(serve(answer(GOOD)), certificates[HOST], [PUBLIC], ["127.0.0.1"])
    assert there.fetch(JWKS_URI).keys
    assert there.dialled == [PUBLIC]
    assert "not public" in failure(there.fetch)
    assert there.dialled == [PUBLIC]


def test_local_name_is_not_public_for_the_system_resolver_either() -> None:
    found = resolve("localhost", 443)
    assert found
    assert not any(map(is_public, found))


@pytest.mark.parametrize(
    "url", ["http://sign-in.example.com/keys", "https://127.0.0.1/keys", "https://localhost/keys"]
)
def test_address_that_is_not_https_of_a_public_name_is_not_even_resolved(url: str) -> None:
    def never(host: str, port: int) -> list[str]:
        raise AssertionError(host)

    assert "must be" in failure(KeySetFetcher(resolve=never), url)


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
def test_redirect_is_not_followed(serve: Serve, certificates: dict[str, Path], status: str) -> None:
    served = serve(answer(b"", "Location: https://127.0.0.1/keys", status=status), answer(GOOD))
    there = place(served, certificates[HOST])
    assert "redirects" in failure(there.fetch)
    assert there.dialled == [PUBLIC]


def test_proxy_of_the_environment_is_not_used(
    serve: Serve, certificates: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    there = place(serve(answer(GOOD)), certificates[HOST])
    assert there.fetch(JWKS_URI).keys
    assert there.dialled == [PUBLIC]


def test_certificate_must_be_of_the_name_and_of_a_known_authority(
    serve: Serve, certificates: dict[str, Path]
) -> None:
    other = serve(answer(GOOD), name="other.example.com")
    assert "TLS" in failure(place(other, certificates["other.example.com"]).fetch)
    unknown = serve(answer(GOOD))
    assert "TLS" in failure(place(unknown, certificates["other.example.com"]).fetch)
    assert other.requests == unknown.requests == []


# ---------------------------------------------------------------- what it sends


def flood(spoken: ssl.SSLSocket) -> None:
    spoken.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
    for _ in range(640):  # 10 MB
        spoken.sendall(b" " * 16_384)


def endless_headers(spoken: ssl.SSLSocket) -> None:
    spoken.sendall(b"HTTP/1.1 200 OK\r\n")
    for number in range(20_000):
        spoken.sendall(f"X-{number}: {'y' * 100}\r\n".encode())


TEN_THOUSAND = json.dumps({"keys": [{"kty": "RSA", "kid": "k"}] * 10_000}).encode()


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (answer(b"", status="404 Not Found"), "status 404"),
        (answer(b"", status="500 Oops"), "status 500"),
        (answer(b"<html>"), "cannot be read"),
        (answer(b'{"keys":[],"keys":[]}'), "twice"),
        (answer(b"[" * 100_000), "cannot be read"),
        (answer(b"\xff\xfe\x00"), "cannot be read"),
        (answer(b'{"keys":[]}'), "no key"),
        (answer(TEN_THOUSAND), "more than|at most"),
        (answer(json.dumps({"keys": [jwk()] * 51}).encode()), "at most 50"),
        (answer(GOOD, "Content-Encoding: gzip"), "compresses"),
        (flood, f"more than {MAX_BYTES}"),
        (endless_headers, "not HTTP|broke off"),
        (lambda spoken: spoken.sendall(b"SSH-2.0-OpenSSH_9.9\r\n\r\n"), "not HTTP"),
        (lambda spoken: None, "broke off"),
        (
            lambda spoken: spoken.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n{"),
            "broke off",
        ),
    ],
)
def test_answer_that_is_no_key_set_is_an_error_that_says_what_is_wrong(
    serve: Serve, certificates: dict[str, Path], script: Script, why: str
) -> None:
    with pytest.raises(KeySetUnavailable, match=why):
        place(serve(script), certificates[HOST]).fetch(JWKS_URI)


def test_key_set_of_the_most_bytes_is_read_and_a_longer_one_is_not(
    serve: Serve, certificates: dict[str, Path]
) -> None:
    longest = GOOD + b" " * (256_000 - len(GOOD))
    there = place(serve(answer(longest), answer(longest + b" ")), certificates[HOST])
    assert there.fetch(JWKS_URI).keys
    assert "more than 256000 bytes" in failure(there.fetch)


# ---------------------------------------------------------------- how long it takes


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_sets, "TOTAL_S", 0.5)
    monkeypatch.setattr(guarded, "CONNECT_S", 0.2)


def drip(whole: bytes) -> Script:
    def script(spoken: ssl.SSLSocket) -> None:
        for at in range(len(whole)):
            spoken.sendall(whole[at : at + 1])
            time.sleep(0.02)

    return script


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n"


def stops(spoken: ssl.SSLSocket) -> None:
    spoken.sendall(HEAD + b"{")
    time.sleep(2)


@pytest.mark.parametrize(
    "script",
    [
        lambda spoken: time.sleep(2),
        drip(b"HTTP/1.1 200 OK\r\n" + b"X-Slow: y\r\n" * 20),
        drip(HEAD + b" " * 100),
        stops,
    ],
    ids=["silent", "drips its headers", "drips its body", "stops in the middle"],
)
def test_slow_issuer_is_given_up_in_time(
    serve: Serve, certificates: dict[str, Path], soon: None, script: Script
) -> None:
    there = place(serve(script), certificates[HOST])
    began = time.monotonic()
    assert "too long" in failure(there.fetch)
    assert time.monotonic() - began < 1.5


def test_port_that_accepts_and_speaks_no_tls_is_given_up_in_time(
    serve: Serve, certificates: dict[str, Path], soon: None
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        served = serve(answer(GOOD))
        served.port = silent.getsockname()[1]
        began = time.monotonic()
        assert "too long" in failure(place(served, certificates[HOST]).fetch)
        assert time.monotonic() - began < 1.5


def test_resolver_that_hangs_is_given_up_in_time(
    serve: Serve, certificates: dict[str, Path], soon: None
) -> None:
    over = threading.Event()

    def hangs(host: str, port: int) -> list[str]:
        over.wait(5)
        return [PUBLIC]

    there = place(serve(answer(GOOD)), certificates[HOST], resolver=hangs)
    began = time.monotonic()
    assert "not resolved in time" in failure(there.fetch)
    assert time.monotonic() - began < 1.5
    over.set()


def test_issuer_that_is_down_or_unknown_is_an_error(
    serve: Serve, certificates: dict[str, Path]
) -> None:
    served = serve(answer(GOOD))
    assert "cannot be reached" in failure(place(served, certificates[HOST], [ANOTHER]).fetch)
    assert "no address" in failure(place(served, certificates[HOST], []).fetch)

    def unknown(host: str, port: int) -> list[str]:
        raise socket.gaierror("unknown")

    there = place(served, certificates[HOST], resolver=unknown)
    assert "cannot be resolved" in failure(there.fetch)


# ---------------------------------------------------------------- discovery


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ({"issuer": ISSUER, "jwks_uri": JWKS_URI}, JWKS_URI),
        ({"issuer": ISSUER + "/", "jwks_uri": JWKS_URI}, None),
        ({"issuer": "https://evil.example", "jwks_uri": JWKS_URI}, None),
        ({"issuer": ISSUER}, None),
        ([], None),
    ],
    ids=str,
)
def test_discovery_believes_an_issuer_of_that_very_name(
    serve: Serve, certificates: dict[str, Path], told: object, found: str | None
) -> None:
    served = serve(answer(json.dumps(told).encode()))
    fetch = place(served, certificates[HOST]).fetch
    if found is None:
        with pytest.raises(KeySetUnavailable, match="very name"):
            fetch.discovered(ISSUER)
    else:
        assert fetch.discovered(ISSUER) == found
    assert b"GET /.well-known/openid-configuration " in served.requests[0]
