"""What a server does with the client, against the running gateway."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import pytest

from tests.python_client.conftest import ORIGIN, PID, Shop, until
from tests.stack.admin import bearer
from tests.stack.test_cli import told
from weir_client import (
    AuthenticationError,
    BudgetExceeded,
    Cancelled,
    ConfigurationError,
    Conflict,
    NotFound,
    PermissionDeniedError,
    RateLimited,
    Unavailable,
    Weir,
)


def hello(text: str = "hi") -> list[Any]:
    return [{"role": "user", "content": text}]


def text(chunks: Any) -> str:
    return "".join(part.choices[0].delta.content or "" for part in chunks)


def open_streams(weir: Weir, user_id: str) -> float:
    limits = {each.limit_name: each for each in weir.me(user_id=user_id, tier="pro").limits}
    return limits["concurrent_streams"].used


def test_a_minted_token_is_one_that_a_page_can_use(shop: Shop, weir: Weir) -> None:
    minted = weir.auth.mint(user_id="u_1", tier=1, ttl=900, session_id="s_1")
    assert (minted.ttl, minted.session_id, minted.project_id) == (900, "s_1", PID)
    assert abs(minted.expires_at - time.time() - 900) < 30
    me = shop.stack.http.get("/v1/me", headers=bearer(minted.token)).json()
    assert (me["user_id"], me["tier"]) == ("u_1", 1)


def test_an_answer_comes_whole_or_as_a_stream(weir: Weir) -> None:
    answer = weir.chat.completions.create(user_id="u_1", messages=hello("Hello there"))
    assert answer.choices[0].message.content == "Hello there"
    assert (
        text(weir.chat.completions.create(user_id="u_1", messages=hello("a b c"), stream=True))
        == "a b c"
    )


def test_the_async_client_streams_to_many_users_at_once_each_with_their_own_session(
    shop: Shop,
) -> None:
    async def run() -> dict[str, str]:
        said: dict[str, str] = {}

        async def one(weir: Any, user_id: str) -> None:
            chunks = await weir.chat.completions.create(
                user_id=user_id, messages=hello(f"I am {user_id}"), stream=True
            )
            said[user_id] = ""
            async for part in chunks:
                said[user_id] += part.choices[0].delta.content or ""
            used = await weir.usage.get(user_id=user_id, group_by="session")
            session = (await weir.auth.token(user_id=user_id)).session_id
            assert {group.key for group in used.data} <= {session}

        async with shop.async_weir() as weir, anyio.create_task_group() as tasks:
            for number in range(8):
                tasks.start_soon(one, weir, f"many_{number}")
        return said

    said = anyio.run(run)
    assert said == {f"many_{number}": f"I am many_{number}" for number in range(8)}


def test_leaving_a_stream_ends_it_at_the_provider(shop: Shop, weir: Weir) -> None:
    slow = weir.chat.completions.create(
        user_id="u_left", messages=hello("word " * 300), model="slow", stream=True
    )
    for _ in slow:
        assert open_streams(weir, "u_left") == 1
        break
    until(lambda: open_streams(weir, "u_left") == 0)


def test_a_stream_is_cancelled_from_elsewhere(weir: Weir) -> None:
    slow = weir.chat.completions.create(
        user_id="u_stop", messages=hello("word " * 300), model="slow", stream=True
    )
    with slow:
        next(slow)
        assert not weir.chat.completions.cancel(slow.id, user_id="u_other")
        assert weir.chat.completions.cancel(slow.id, user_id="u_stop")
        with pytest.raises(Cancelled):
            list(slow)
    assert not weir.chat.completions.cancel(slow.id, user_id="u_stop")


def test_an_answer_that_is_cancelled_while_it_is_awaited_ends(shop: Shop) -> None:
    async def run(weir: Weir) -> None:
        async with shop.async_weir() as theirs, anyio.create_task_group() as tasks:

            async def ask() -> None:
                await theirs.chat.completions.create(
                    user_id="u_gone", messages=hello("word " * 300), model="slow"
                )

            tasks.start_soon(ask)
            await anyio.to_thread.run_sync(until, lambda: open_streams(weir, "u_gone") == 1)
            tasks.cancel_scope.cancel()

    with shop.weir() as weir:
        anyio.run(run, weir)
        until(lambda: open_streams(weir, "u_gone") == 0)


def test_a_failure_within_a_stream_is_raised(weir: Weir) -> None:
    chunks = weir.chat.completions.create(
        user_id="u_1", messages=hello("a b c d"), model="error-mid-stream", stream=True
    )
    with pytest.raises(Unavailable) as caught:
        list(chunks)
    assert caught.value.code == "upstream_error"
    assert caught.value.request_id


def test_a_providers_failure_is_repeated_and_then_raised(shop: Shop) -> None:
    with shop.weir(max_retries=1) as weir, pytest.raises(Unavailable) as caught:
        weir.chat.completions.create(user_id="u_1", messages=hello(), model="error-500")
    assert (caught.value.status, caught.value.code) == (502, "upstream_error")


def test_a_revoked_token_is_renewed_once(shop: Shop, weir: Weir) -> None:
    first = weir.auth.token(user_id="u_revoked")
    with shop.weir() as another:
        assert another.auth.revoke(user_id="u_revoked")
    answer = weir.chat.completions.create(user_id="u_revoked", messages=hello())
    assert answer.choices[0].message.content == "hi"
    second = weir.auth.token(user_id="u_revoked")
    assert second.token != first.token
    assert second.session_id == first.session_id


def test_a_blocked_user_is_refused_with_the_reason(shop: Shop, weir: Weir) -> None:
    weir.auth.token(user_id="u_blocked")
    told(shop.stack, "kill", "user", "u_blocked", "--project", PID, "--reason", "abuse")
    with pytest.raises(PermissionDeniedError) as caught:
        weir.chat.completions.create(user_id="u_blocked", messages=hello())
    assert caught.value.reason == "killed"


def test_a_wrong_key_is_an_authentication_error(shop: Shop) -> None:
    with shop.weir("behest_sk_live_" + "0" * 32) as weir, pytest.raises(AuthenticationError) as e:
        weir.auth.mint(user_id="u")
    assert e.value.reason == "unknown_api_key"


def test_a_limit_of_the_minute_says_how_long_to_wait(shop: Shop, weir: Weir) -> None:
    told(shop.stack, "tiers", "set", "slow-lane", "rpm=1", "--project", PID)
    until(lambda: tier_counts(weir))

    def ask_three_times() -> None:  # the minute may end between two of them
        for _ in range(3):
            weir.chat.completions.create(user_id="u_fast", tier="slow-lane", messages=hello())

    with pytest.raises(RateLimited) as caught:
        ask_three_times()
    error = caught.value
    assert error.details["limit_name"] == "rpm"
    assert error.retry_after is not None
    assert 0 < error.retry_after <= 60
    assert error.docs_url == "docs/errors.md#limits"


def tier_counts(weir: Weir) -> bool:
    limits = weir.me(user_id="u_tier", tier="slow-lane").limits
    return any(each.limit_name == "rpm" and each.limit == 1 for each in limits)


def test_a_thread_is_continued_read_renamed_exported_and_deleted(weir: Weir) -> None:
    thread_id, user = "trip/to ?#%2F", {"user_id": "u_thread"}
    for word in ("one", "two"):
        weir.chat.completions.create(**user, messages=hello(word), thread_id=thread_id)
    until(lambda: len(list(weir.threads.messages(thread_id, **user))) == 4)
    assert [message.content for message in weir.threads.messages(thread_id, **user)] == [
        "one",
        "one",
        "two",
        "two",
    ]
    assert weir.threads.rename(thread_id, "A trip", **user).title == "A trip"
    assert [found.id for found in weir.threads.list(**user, search="trip")] == [thread_id]
    assert weir.threads.get(thread_id, **user).messages_count == 4
    assert len(weir.threads.export(thread_id, **user).messages) == 4
    with pytest.raises(NotFound):
        weir.threads.get(thread_id, user_id="u_other")
    weir.threads.delete(thread_id, **user)
    with pytest.raises(NotFound):
        weir.threads.get(thread_id, **user)
    weir.chat.completions.create(**user, messages=hello(), thread_id="another")
    until(lambda: bool(list(weir.threads.list(**user))))
    weir.threads.delete_all(**user)
    assert not list(weir.threads.list(**user))


def test_usage_is_a_users_own_or_the_projects(weir: Weir) -> None:
    weir.chat.completions.create(user_id="u_used", messages=hello(), tag="greeting")
    until(lambda: weir.usage.get(user_id="u_used").totals.requests == 1)
    mine = weir.usage.get(user_id="u_used", group_by="tag", granularity="hour")
    assert [group.key for group in mine.data] == ["greeting"]
    until(lambda: "u_used" in {g.key for g in weir.usage.get(group_by="user").data})


def test_many_threads_mint_one_token_for_one_user(shop: Shop) -> None:
    """Each token that the gateway makes has another id, so one mint is one token."""
    begin = threading.Barrier(12)

    def token(weir: Weir) -> str:
        begin.wait(30)
        return weir.auth.token(user_id="u_race").token

    with shop.weir() as weir, ThreadPoolExecutor(12) as pool:
        assert len(set(pool.map(token, [weir] * 12))) == 1


def test_tokens_that_this_server_signs_are_believed_and_renewed(shop: Shop) -> None:
    made = told(shop.stack, "signing", "create", "--project", PID)
    named = {"tenant_id": shop.stack.env["BEHEST_TENANT_ID"], "project_id": PID}
    with shop.weir(made["private_key"], kid=made["kid"], **named) as weir:
        answer = weir.chat.completions.create(user_id="u_signed", messages=hello("signed"))
        assert answer.choices[0].message.content == "signed"
        assert weir.me(user_id="u_signed").user_id == "u_signed"
        with pytest.raises(ConfigurationError, match="API key"):
            weir.usage.get()


def test_a_customer_is_put_and_has_tokens_a_budget_and_usage(shop: Shop, sales: Weir) -> None:
    made = sales.customers.put("auth0|7", budget_usd=0.02, name="Jo")
    assert (made.external_id, made.budget_usd) == ("auth0|7", 0.02)
    assert sales.customers.put("auth0|7", name="Joan").id == made.id
    with pytest.raises(Conflict) as taken:
        sales.customers.create("auth0|7")
    assert taken.value.code == "external_id_taken"
    assert sales.customers.get(id=made.id).name == "Joan"
    sales.customers.create("second")
    listed = {customer.external_id for customer in sales.customers.list()}
    assert {"auth0|7", "second"} <= listed
    sales.customers.delete("second")
    with pytest.raises(NotFound):
        sales.customers.get("second")

    token = sales.client_tokens.mint("auth0|7", origin_allowlist=[ORIGIN], bind_ip=False)
    assert token.token not in repr(token)
    page = {"Authorization": f"Client {token.token}", "Origin": ORIGIN}
    assert shop.stack.http.get("/v1/me", headers=page).status_code == 200
    assert [record.id for record in sales.client_tokens.list("auth0|7", active=True)] == [token.id]
    sales.client_tokens.revoke(token.id)
    assert shop.stack.http.get("/v1/me", headers=page).status_code == 401
    again = sales.client_tokens.mint("auth0|7", origin_allowlist=[ORIGIN], bind_ip=False)
    sales.client_tokens.revoke_all("auth0|7")
    page["Authorization"] = f"Client {again.token}"
    assert shop.stack.http.get("/v1/me", headers=page).status_code == 401

    ask = sales.chat.completions.create
    spent = ask(customer="ext:auth0|7", model="fc:mock/priced", messages=hello(), max_tokens=9)
    assert spent.choices[0].message.content == "hi"
    with pytest.raises(BudgetExceeded) as broke:
        ask(customer="ext:auth0|7", model="fc:mock/priced", messages=hello(), max_tokens=20)
    assert broke.value.code == "budget_exceeded"
    assert broke.value.resets_at is not None
    sales.customers.update("auth0|7", budget_usd=5)
    ask(customer="ext:auth0|7", model="fc:mock/priced", messages=hello(), max_tokens=20)
    until(lambda: sales.customers.usage("auth0|7").totals.requests == 2)


def test_a_webhook_endpoint_is_made_changed_and_removed(sales: Weir) -> None:
    made = sales.webhook_endpoints.create("https://app.example.com/hook", ["wallet.low"])
    assert made.secret is not None
    assert made.secret not in repr(made)
    assert not sales.webhook_endpoints.update(made.id, enabled=False).enabled
    assert sales.webhook_endpoints.rotate_secret(made.id).secret != made.secret
    assert made.id in [endpoint.id for endpoint in sales.webhook_endpoints.list()]
    sales.webhook_endpoints.delete(made.id)
    with pytest.raises(NotFound):
        sales.webhook_endpoints.get(made.id)
