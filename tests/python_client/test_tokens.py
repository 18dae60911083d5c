"""Tokens of users: minted once, renewed in time, never of somebody else."""

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import anyio
import httpx2
import pytest

from tests.python_client.fake import HELLO, Gateway, answer, failure
from weir_client import (
    AuthenticationError,
    BadRequest,
    ConfigurationError,
    PermissionDeniedError,
    Unavailable,
    Weir,
    WeirError,
)
from weir_client._tokens import Entries, Identity


class Clock:
    """What the machine's clock says."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def with_clock(weir: Weir) -> Clock:
    clock = Clock()
    weir.auth._entries.clock = clock
    return clock


def test_a_token_is_minted_once_for_many_calls() -> None:
    gateway = Gateway(answer(), answer())
    weir = gateway.weir()
    for _ in range(2):
        weir.chat.completions.create(user_id="u", messages=HELLO)
    assert gateway.minted == 1
    assert gateway.requests[-1].headers["authorization"] == "Bearer token-1"


def test_a_token_is_renewed_a_minute_before_it_ends_in_the_same_session() -> None:
    gateway = Gateway()
    weir = gateway.weir()
    clock = with_clock(weir)
    first = weir.auth.token(user_id="u")
    clock.now += 839
    assert weir.auth.token(user_id="u") is first
    clock.now += 1
    second = weir.auth.token(user_id="u")
    assert second.token != first.token
    assert second.session_id == first.session_id


def test_a_short_token_is_renewed_a_tenth_before_it_ends() -> None:
    gateway = Gateway()
    gateway.mint = lambda request: httpx2.Response(
        200,
        json={"token": "t", "ttl": 60, "session_id": "s", "expires_at": 0, "project_id": "p"},
    )
    weir = gateway.weir()
    clock = with_clock(weir)
    first = weir.auth.token(user_id="u")
    clock.now += 53.9
    assert weir.auth.token(user_id="u") is first
    clock.now += 0.1
    assert weir.auth.token(user_id="u") is not first


def test_no_two_users_tiers_or_sessions_share_a_token_or_a_session() -> None:
    weir = Gateway().weir()
    tokens = [
        weir.auth.token(user_id="a"),
        weir.auth.token(user_id="b"),
        weir.auth.token(user_id="a", tier=1),
        weir.auth.token(user_id="a", tier="1"),
        weir.auth.token(user_id="a", role="admin"),
        weir.auth.token(user_id="a", session_id="s"),
    ]
    assert len({token.token for token in tokens}) == len(tokens)
    assert len({token.session_id for token in tokens}) == len(tokens)


def test_a_minted_token_is_never_shared() -> None:
    weir = Gateway().weir()
    first, second = weir.auth.mint(user_id="u"), weir.auth.mint(user_id="u")
    assert first.session_id != second.session_id
    assert weir.auth.token(user_id="u").token not in (first.token, second.token)


def test_the_cache_forgets_the_user_who_came_least_recently() -> None:
    entries = Entries(threading.Lock, at_most=2)
    first = entries.of(Identity("a"))
    entries.of(Identity("b"))
    assert entries.of(Identity("a")) is first
    entries.of(Identity("c"))
    assert entries.of(Identity("a")) is first
    assert len(entries._entries) == 2


def test_a_refused_token_is_renewed_once() -> None:
    gateway = Gateway(failure(401, "invalid_token", details={"reason": "token_revoked"}), answer())
    reply = gateway.weir().chat.completions.create(user_id="u", messages=HELLO)
    assert reply.choices[0].message.content == "hello"
    assert gateway.minted == 2


def test_a_token_that_is_refused_twice_is_the_callers_error() -> None:
    refused = failure(401, "invalid_token", details={"reason": "token_revoked"})
    gateway = Gateway(refused, failure(401, "invalid_token", details={"reason": "bad_tid"}))
    with pytest.raises(AuthenticationError) as caught:
        gateway.weir().chat.completions.create(user_id="u", messages=HELLO)
    assert caught.value.reason == "bad_tid"
    assert caught.value.docs_url == "docs/errors.md#401"
    assert gateway.minted == 2


def test_a_blocked_user_is_refused_by_mint_with_its_reason() -> None:
    gateway = Gateway()
    gateway.mint = lambda _: failure(403, "forbidden", details={"reason": "killed"})
    with pytest.raises(PermissionDeniedError) as caught:
        gateway.weir().chat.completions.create(user_id="u", messages=HELLO)
    assert caught.value.reason == "killed"


@pytest.mark.parametrize("user_id", ["", None])
def test_nothing_is_sent_without_a_user(user_id: str | None) -> None:
    gateway = Gateway()
    with pytest.raises(BadRequest) as caught:
        gateway.weir().chat.completions.create(user_id=user_id, messages=HELLO)
    assert caught.value.param == "user_id"
    assert not gateway.requests


def test_a_key_for_customers_cannot_mint_for_users() -> None:
    gateway = Gateway()
    with pytest.raises(ConfigurationError, match="customer="):
        gateway.weir(key="sk_live_" + "a" * 43).auth.mint(user_id="u")
    assert not gateway.requests


def held(gateway: Gateway, meet: Callable[[], object]) -> None:
    """Make mint answer only once `meet` has returned."""
    mint = gateway.mint

    def wait(request: httpx2.Request) -> httpx2.Response:
        meet()
        return mint(request)

    gateway.mint = wait


def test_threads_that_need_the_same_token_mint_it_once() -> None:
    gateway = Gateway()
    weir = gateway.weir()
    begun = threading.Barrier(16)
    another = threading.Barrier(2)

    def linger() -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            another.wait(0.3)  # long enough for the others to begin a mint of their own

    held(gateway, linger)

    def token(_: int) -> str:
        begun.wait(10)
        return weir.auth.token(user_id="u").token

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(token, range(16))) == {"token-1"}


def test_threads_of_different_users_do_not_wait_for_each_other() -> None:
    gateway = Gateway()
    weir = gateway.weir()
    together = threading.Barrier(4)
    held(gateway, lambda: together.wait(10))  # only passes if all four mint at the same time
    with ThreadPoolExecutor(4) as pool:
        tokens = list(pool.map(lambda n: weir.auth.token(user_id=f"u{n}").token, range(4)))
    assert len(set(tokens)) == 4


def test_tasks_that_need_the_same_token_mint_it_once_and_share_a_failure() -> None:
    async def run() -> None:
        gateway = Gateway()
        weir = gateway.async_weir(max_retries=0)
        waiting = 0
        all_wait = anyio.Event()

        async def slow(request: httpx2.Request) -> httpx2.Response:
            gateway.requests.append(request)
            await all_wait.wait()
            await anyio.lowlevel.checkpoint()
            return (
                failure(503, "not_ready") if len(gateway.requests) == 1 else gateway.mint(request)
            )

        weir._http.client._transport = httpx2.MockTransport(slow)
        outcomes: list[str | WeirError] = []

        async def one() -> None:
            nonlocal waiting
            waiting += 1
            if waiting == 8:
                all_wait.set()
            try:
                outcomes.append((await weir.auth.token(user_id="u")).token)
            except WeirError as error:
                outcomes.append(error)

        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(one)
        assert len(gateway.requests) == 1
        assert {type(outcome) for outcome in outcomes} == {Unavailable}
        outcomes.clear()
        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(one)
        assert outcomes == ["token-1"] * 8
        await weir._http.client.aclose()

    anyio.run(run)


def test_a_task_that_is_cancelled_while_it_mints_leaves_the_mint_to_the_next() -> None:
    async def run() -> None:
        gateway = Gateway()
        weir = gateway.async_weir()
        begun = anyio.Event()

        async def slow(request: httpx2.Request) -> httpx2.Response:
            if not begun.is_set():
                begun.set()
                await anyio.sleep_forever()
            return gateway(request)

        weir._http.client._transport = httpx2.MockTransport(slow)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: weir.auth.token(user_id="u"))
            await begun.wait()
            tasks.cancel_scope.cancel()
        assert (await weir.auth.token(user_id="u")).token == "token-1"
        await weir._http.client.aclose()

    anyio.run(run)


def test_revoking_a_users_tokens_drops_the_kept_ones() -> None:
    gateway = Gateway(httpx2.Response(200, json={"revoked": True}))
    weir = gateway.weir()
    weir.auth.token(user_id="u")
    other = weir.auth.token(user_id="v")
    assert weir.auth.revoke(user_id="u")
    assert weir.auth.token(user_id="u").token == "token-3"
    assert weir.auth.token(user_id="v") is other
