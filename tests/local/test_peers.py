"""Who is heard at the ports of `make run`: not a page, not another name, not another user."""

import asyncio
import contextlib
import os
import socket

import pytest

from local import peers, processes
from local.http1 import Exchange, Server
from tests.local.harness import NEEDS_ROOT, NOBODY, as_nobody, exchange, run, serving


async def hello(to: Exchange) -> None:
    await to.respond(200, [], b"hello")


def status(answer: bytes) -> int:
    return int(answer.split()[1]) if answer else 0


def request(*headers: str, target: str = "/") -> bytes:
    return "\r\n".join([f"GET {target} HTTP/1.1", *headers, "Connection: close\r\n\r\n"]).encode()


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("127.0.0.1:9347", "127.0.0.1"),
        ("LocalHost", "localhost"),
        ("localhost.:80", "localhost"),
        ("[::1]:80", "[::1]"),
        ("evil.example:127.0.0.1", ""),
        ("localhost@evil.example", ""),
        ("localhost:80:80", ""),
        ("127.0.0.1, evil.example", ""),
        ("", ""),
    ],
)
def test_a_host_header_is_a_name_and_maybe_a_port(host: str, name: str) -> None:
    assert peers.host_name(host) == name


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost:5173", 200),  # as a dev server's proxy passes it on
        ("app.localhost", 200),
        ("host.docker.internal:9347", 200),
        ("weir.test:9347", 200),  # listed
        ("evil.example:9347", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("evillocalhost", 421),
    ],
)
def test_gateway_and_page_answer_for_names_of_this_machine_only(host: str, expected: int) -> None:
    async def test() -> None:
        async with serving(peers.for_hosts(hello, ["Weir.test"])) as port:
            assert status(await exchange(port, request(f"Host: {host}"))) == expected

    run(test())


@pytest.mark.parametrize(
    "headers",
    [
        ("Host: 127.0.0.1:1", "Origin: http://localhost:5173"),
        ("Host: 127.0.0.1:1", "origin: null"),
        ("Host: 127.0.0.1:1", "Sec-Fetch-Site: cross-site"),
        ("Host: evil.example",),
        ("Host: host.docker.internal",),
    ],
)
def test_what_is_for_programs_is_not_for_pages(headers: tuple[str, ...]) -> None:
    async def test() -> None:
        async with serving(peers.for_programs(hello)) as port:
            assert status(await exchange(port, request(*headers))) == 403
            from_node = ("Host: 127.0.0.1:1", "Sec-Fetch-Mode: cors")
            assert status(await exchange(port, request(*from_node))) == 200

    run(test())


@NEEDS_ROOT
def test_another_user_of_the_machine_is_not_heard() -> None:
    async def test() -> None:
        server = Server(hello)
        port = await server.start(peers.only_ours(processes.listen_on_loopback(0)))
        try:
            assert await asyncio.to_thread(as_nobody, port) == b""
            assert status(await exchange(port, request("Host: localhost"))) == 200
        finally:
            await server.stop()

    run(test())


def test_the_kernel_names_the_owner_of_the_other_end() -> None:
    with (
        processes.listen_on_loopback(0) as listener,
        socket.create_connection(listener.getsockname()),
    ):
        accepted, _ = listener.accept()
        with accepted:
            assert peers.owner(accepted) == os.geteuid()


def test_who_is_not_this_user_is_not_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "owner", lambda _: NOBODY)

    async def test() -> None:
        server = Server(hello)
        port = await server.start(peers.only_ours(processes.listen_on_loopback(0)))
        try:
            answer = b""
            with contextlib.suppress(ConnectionError):
                answer = await exchange(port, request("Host: localhost"))
            assert answer == b""
        finally:
            await server.stop()

    run(test())
