"""Events posted over real TLS on loopback, to receivers that hang, redirect, flood and lie about
where they are. Checked and dialled as always: the tests pass in what a name resolves to, who may
certify it, and where a public address is really connected to.
"""

import ssl
import threading
import time
from pathlib import Path

import httpcore
import pytest

from tests.unit.upstreams.served import ANOTHER, HOST, PUBLIC, Serve, Served, answer
from weir.upstreams import guarded, webhooks
from weir.upstreams.guarded import GuardedClient
from weir.upstreams.webhooks import Poster

URL = f"https://{HOST}/hooks?a=1"
BODY = b'{"id":"evt_1"}'
METADATA = "169.254.169.254"


def poster(
    served: Served, trusted: Path, *answers: list[str], dialled: list[str] | None = None
) -> Poster:
    """`answers` are what the name resolves to, look-up by look-up; the last one stays."""
    left = list(answers or ([PUBLIC],))

    def dial(address: str, port: int, timeout_s: float) -> httpcore.NetworkStream:
        if dialled is not None:
            dialled.append(address)
        return guarded.dial("127.0.0.1", served.port, timeout_s)

    def resolve(host: str, port: int) -> list[str]:
        assert (host, port) == (HOST, 443)
        return left.pop(0) if len(left) > 1 else left[0]

    tls = ssl.create_default_context(cafile=trusted)
    return Poster(GuardedClient(resolve=resolve, dial=dial, tls=tls))


def test_event_is_posted_as_it_was_signed(serve: Serve, certificates: dict[str, Path]) -> None:
    served = serve(answer(b"thanks", status="204 No Content"))
    assert poster(served, certificates[HOST])(URL, BODY, "t=1,v1=aa") is None
    head, _, body = served.requests[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /hooks?a=1 HTTP/1.1"
    assert {
        "content-type: application/json",
        "x-fc-signature: t=1,v1=aa",
        f"host: {HOST}",
        f"content-length: {len(BODY)}",
    } <= {line.lower() for line in lines}
    assert body == BODY


@pytest.mark.parametrize("status", ["400 Bad Request", "404 Not Found", "410 Gone", "500 No"])
def test_status_that_is_no_success_is_named(
    serve: Serve, certificates: dict[str, Path], status: str
) -> None:
    served = serve(answer(b"no", status=status))
    told = poster(served, certificates[HOST])(URL, BODY, "s")
    assert told == f"It answers with status {status[:3]}."


def test_redirect_to_a_private_address_is_not_followed(
    serve: Serve, certificates: dict[str, Path]
) -> None:
    served = serve(answer(b"", f"Location: https://{METADATA}/", status="307 Temporary Redirect"))
    dialled: list[str] = []
    told = poster(served, certificates[HOST], dialled=dialled)(URL, BODY, "s")
    assert told == "It redirects elsewhere (status 307), which is not followed."
    assert dialled == [PUBLIC]


@pytest.mark.parametrize(
    "addresses", [[METADATA], ["10.0.0.1"], ["127.0.0.1"], ["::1"], [PUBLIC, "192.168.0.1"]]
)
def test_name_that_leads_to_a_private_address_is_not_dialled(
    serve: Serve, certificates: dict[str, Path], addresses: list[str]
) -> None:
    served = serve(answer(b""))
    dialled: list[str] = []
    told = poster(served, certificates[HOST], addresses, dialled=dialled)(URL, BODY, "s")
    assert told == f"{HOST} leads to an address that is not public."
    assert (dialled, served.requests) == ([], [])


def test_name_that_changes_after_the_check_is_dialled_where_it_was_checked(
    serve: Serve, certificates: dict[str, Path]
) -> None:
    served = serve(answer(b""))
    dialled: list[str] = []
    post = poster(served, certificates[HOST], [ANOTHER], ["127.0.0.1"], dialled=dialled)
    assert post(URL, BODY, "s") is None
    assert dialled == [ANOTHER]
    assert post(URL, BODY, "s") == f"{HOST} leads to an address that is not public."


def test_receiver_with_another_names_certificate_is_not_told(
    serve: Serve, certificates: dict[str, Path]
) -> None:
    served = serve(answer(b""), name="other.example.com")
    told = poster(served, certificates["other.example.com"])(URL, BODY, "s")
    assert told is not None
    assert "over TLS" in told
    assert served.requests == []


def test_receiver_that_hangs_is_given_up_in_time(
    serve: Serve, certificates: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "TOTAL_S", 0.3)
    over = threading.Event()
    served = serve(lambda spoken: over.wait(20))
    began = time.monotonic()
    told = poster(served, certificates[HOST])(URL, BODY, "s")
    over.set()
    assert told == f"{HOST} took too long (at most 0.3 s)."
    assert time.monotonic() - began < 3


def test_receiver_that_drips_its_headers_is_given_up_in_time(
    serve: Serve, certificates: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "TOTAL_S", 0.4)

    def drip(spoken: ssl.SSLSocket) -> None:
        for byte in b"HTTP/1.1 200 OK\r\nX: " + b"a" * 1000:
            spoken.sendall(bytes([byte]))
            if served.over.wait(0.05):
                return

    served = serve(drip)
    began = time.monotonic()
    told = poster(served, certificates[HOST])(URL, BODY, "s")
    assert told == f"{HOST} took too long (at most 0.4 s)."
    assert time.monotonic() - began < 3


def test_of_an_answer_of_10_mb_next_to_nothing_is_read(
    serve: Serve, certificates: dict[str, Path]
) -> None:
    sent = 0

    def flood(spoken: ssl.SSLSocket) -> None:
        nonlocal sent
        spoken.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n")
        try:
            for _ in range(1000):
                spoken.sendall(b"x" * 10_000)
                sent += 10_000
        except OSError:
            gone.set()

    gone = threading.Event()
    served = serve(flood)
    assert poster(served, certificates[HOST])(URL, BODY, "s") is None
    assert gone.wait(10)
    assert sent < 9_000_000  # what the two systems' buffers hold


def test_answer_that_is_no_http_is_a_failure(serve: Serve, certificates: dict[str, Path]) -> None:
    served = serve(lambda spoken: spoken.sendall(b"220 smtp.example.com ESMTP\r\n"))
    told = poster(served, certificates[HOST])(URL, BODY, "s")
    assert told is not None
    assert "is not HTTP" in told
