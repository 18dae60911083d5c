"""A provider is dialled while the store is asked, and is sent nothing by that."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.connections.authority import authority, named
from tests.unit.upstreams.test_openai_compatible import TO
from weir.connections import trust
from weir.errors import UpstreamUnavailable
from weir.upstreams.openai_compatible import Provider

HOST = "localhost"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
PATIENCE_S = 5.0


class Far:
    """A provider on loopback. `shakes_hands` unset: it accepts, and says nothing."""

    def __init__(self, certificate: Path) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://{HOST}:{self._listener.getsockname()[1]}"
        self.shakes_hands = threading.Event()
        self.shakes_hands.set()
        self.dialled = threading.Semaphore(0)
        self.greeted = threading.Semaphore(0)
        self.requests: list[bytes] = []
        self.connections = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self.dialled.release()
            threading.Thread(target=self._answer, args=(peer,), daemon=True).start()

    def _answer(self, peer: socket.socket) -> None:
        with contextlib.suppress(OSError), peer:
            self.shakes_hands.wait(PATIENCE_S)
            with self._context.wrap_socket(peer, server_side=True) as spoken:
                self.greeted.release()
                while request := spoken.recv(65_536):
                    self.requests.append(request)
                    if request.endswith(b"{}"):
                        spoken.sendall(ANSWER)


@pytest.fixture
def far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Far]:
    ours = authority(named("Our Authority"))
    trusting = ssl.create_default_context(cadata=ours.pem)
    monkeypatch.setattr(trust, "context", lambda: trusting)
    made = Far(ours.issue(tmp_path, HOST))
    yield made
    made.close()


@pytest.fixture
def provider(far: Far) -> Iterator[Provider]:
    made = Provider(far.url)
    yield made
    made.close()


def ask(provider: Provider) -> bytes | None:
    call = provider.open(TO, b"{}", stream=False)
    try:
        return call.receive(PATIENCE_S)
    finally:
        call.close()


def no_thread_dials() -> bool:
    return not any(thread.name.endswith("(_run)") for thread in threading.enumerate())


def wait_until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not holds() and time.monotonic() < until:
        time.sleep(0.005)
    assert holds()


def test_request_goes_into_the_connection_that_was_dialled_for_it(
    far: Far, provider: Provider
) -> None:
    provider.prepare()
    assert far.greeted.acquire(timeout=PATIENCE_S)
    assert far.requests == [], "nothing is asked before it is admitted"
    assert ask(provider) == b"{}"
    assert far.connections == 1


def test_request_waits_for_a_dial_that_is_under_way(far: Far, provider: Provider) -> None:
    far.shakes_hands.clear()
    provider.prepare()
    assert far.dialled.acquire(timeout=PATIENCE_S)
    threading.Timer(0.1, far.shakes_hands.set).start()
    assert ask(provider) == b"{}"
    assert far.connections == 1


def test_connection_of_a_refused_request_is_the_next_ones(far: Far, provider: Provider) -> None:
    provider.prepare()
    assert far.greeted.acquire(timeout=PATIENCE_S)
    wait_until(no_thread_dials)
    provider.forgo()
    provider.prepare()
    assert ask(provider) == b"{}"
    assert far.connections == 1


def test_refused_request_ends_a_dial_that_is_not_over_at_once(far: Far, provider: Provider) -> None:
    far.shakes_hands.clear()
    provider.prepare()
    assert far.dialled.acquire(timeout=PATIENCE_S)
    began = time.monotonic()
    provider.forgo()
    assert time.monotonic() - began < 0.5
    assert no_thread_dials()
    far.shakes_hands.set()
    assert ask(provider) == b"{}"


def test_connection_that_is_kept_is_not_dialled_beside(far: Far, provider: Provider) -> None:
    assert ask(provider) == b"{}"
    provider.prepare()
    assert ask(provider) == b"{}"
    assert far.connections == 1


def test_provider_that_cannot_be_reached_is_dialled_once(
    far: Far, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    far.close()
    dialled = []
    connect = socket.socket.connect

    def counted(sock: socket.socket, address: object) -> None:
        dialled.append(address)
        connect(sock, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", counted)
    provider.prepare()
    with pytest.raises(UpstreamUnavailable):
        ask(provider)
    assert len(dialled) == len(set(map(str, dialled))), "each address once"


def test_wait_in_the_systems_resolver_delays_no_refusal(
    far: Far, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()
    look_up = socket.getaddrinfo

    def slowly(*asked: object, **how: object) -> object:
        over.wait(PATIENCE_S)
        return look_up(*asked, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", slowly)
    provider.prepare()
    began = time.monotonic()
    provider.forgo()
    assert time.monotonic() - began < 0.5
    over.set()
    assert ask(provider) == b"{}"
    wait_until(no_thread_dials)
    assert far.connections == 1, "the thread that came late dialled nothing"
