"""The running stack as Behest's published clients meet it: behest-ai 1.5.0b1, unmodified."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, TypeVar

import httpx
import pytest
from behest import Behest

from tests.provider import FakeProvider
from tests.stack.admin import Admin, bearer
from tests.stack.conftest import ORIGIN, Stack, ask, start
from weir.identity import tokens
from weir.identity.keyring import KeyRing

CHAT = "/v1/chat/completions"
HELLO: list[Any] = [{"role": "user", "content": "hi"}]

COUNTS_WITHIN_S = 15  # a change of configuration: 5 s, on a machine that has other things to do

Sdk = Callable[..., Behest]
T = TypeVar("T")


def until(look: Callable[[], T | None]) -> T:
    """Return the first result of `look` that is not None or False."""
    give_up = time.monotonic() + COUNTS_WITHIN_S
    while True:
        seen = look()
        if seen is not None and seen is not False:
            return seen
        assert time.monotonic() < give_up, f"not within {COUNTS_WITHIN_S} seconds"
        time.sleep(0.1)


@pytest.fixture(scope="session")
def provider() -> Iterator[FakeProvider]:
    fake = FakeProvider()
    yield fake
    fake.close()


@pytest.fixture(scope="session")
def stack(provider: FakeProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with start(
        tmp_path_factory.mktemp("behest"),
        upstream=provider.url,
        WEIR_PARAM_NextKeyMinimumAgeSeconds="0",
    ) as running:
        yield running


@pytest.fixture(scope="session")
def admin(stack: Stack) -> Admin:
    return Admin(stack)


@pytest.fixture
def sdk(stack: Stack) -> Iterator[Sdk]:
    """Makes a `Behest` of the stack, with the default project's API key unless another is given."""
    with ExitStack() as connections:

        def made(**more: Any) -> Behest:
            http = connections.enter_context(httpx.Client(timeout=30))
            told = {"key": stack.env["BEHEST_KEY"], "base_url": stack.env["BEHEST_BASE_URL"]}
            return Behest(http_client=http, **{**told, **more})

        yield made


@pytest.fixture
def behest(sdk: Sdk) -> Behest:
    return sdk()


@pytest.fixture(scope="session")
def limited(admin: Admin) -> str:
    """The API key of a project with the built-in tiers."""
    admin.project("vectors", origins=[ORIGIN], default_model="fake-large", limits={"rpm": None})
    return admin.key("vectors")


def expired(stack: Stack, uid: str = "u_1") -> str:
    """A token that was good until a minute ago: signed with the stack's own key."""
    secret = stack.aws("secretsmanager").get_secret_value(
        SecretId=stack.outputs()["SigningKeySecretArn"]
    )
    tid = stack.env["BEHEST_TENANT_ID"]
    return tokens.mint(
        KeyRing.from_secret(secret["SecretString"]).current,
        issuer=f"urn:weir:{tid}",
        tid=tid,
        pid=stack.env["BEHEST_PROJECT_ID"],
        uid=uid,
        role="user",
        ttl_s=60,
        tier=None,
        session_id="s",
        jti="j",
        now=int(time.time()) - 120,
    ).value


def chat(stack: Stack, token: str, headers: dict[str, str] | None = None, **more: Any) -> Any:
    named = bearer(token) | (headers or {})
    return stack.http.post(CHAT, headers=named, json=ask(**more))
