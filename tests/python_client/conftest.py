"""The running stack, with the mock provider's models and API keys for each kind of call."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.provider import FakeProvider
from tests.stack.admin import UNLIMITED
from tests.stack.conftest import Stack, operator_of, start
from weir.aws.operator import Operator
from weir.identity import api_keys
from weir.operator.documents import ModelDocument, NewProject, UpstreamDocument, parsed
from weir_client import AsyncWeir, BadRequest, NotFound, Weir, WeirError

PID = "shop"
COUNTS_WITHIN_S = 15  # a change of configuration: 5 s, on a machine that has other things to do
CUSTOMERS_SCOPES = ["api:client_tokens", "api:chat", "api:read", "api:write", "api:webhooks"]
PRICE_NANO_USD = 1_000_000  # of each token of `priced`
ORIGIN = "https://widget.example"


@dataclass(frozen=True)
class Shop:
    """A project's server: its keys, and clients that hold them."""

    stack: Stack
    operator: Operator
    key: str
    customers_key: str

    @property
    def url(self) -> str:
        return self.stack.env["BEHEST_BASE_URL"]

    def weir(self, key: str | None = None, **more: Any) -> Weir:
        return Weir(key=key or self.key, base_url=self.url, **more)

    def async_weir(self, key: str | None = None, **more: Any) -> AsyncWeir:
        return AsyncWeir(key=key or self.key, base_url=self.url, **more)


def until(holds: Callable[[], bool]) -> None:
    """Wait until `holds` is true."""
    give_up = time.monotonic() + COUNTS_WITHIN_S
    while not holds():
        assert time.monotonic() < give_up, f"not within {COUNTS_WITHIN_S} seconds"
        time.sleep(0.1)


def model(name: str, output_nano_usd: int = 0) -> ModelDocument:
    candidate = {
        "upstream": "mock",
        "model": name,
        "input_nano_usd": 0,
        "cached_input_nano_usd": 0,
        "output_nano_usd": output_nano_usd,
    }
    sizes = {"context_tokens": 10_000, "max_output_tokens": 1_000, "overhead_tokens": 0}
    alias = f"fc:mock/{name}" if output_nano_usd == 0 else "fc:mock/priced"
    return parsed(
        ModelDocument,
        {"aliases": [alias], "candidates": [candidate], "hidden_reasoning": False, **sizes},
    )


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    provider = FakeProvider()
    with start(tmp_path_factory.mktemp("python"), upstream=provider.url) as running:
        yield running
    provider.close()


@pytest.fixture(scope="session")
def shop(stack: Stack) -> Shop:
    operator = operator_of(stack)
    operator.put_upstream("mock", parsed(UpstreamDocument, {"kind": "mock"}))
    for name in ("slow", "error-mid-stream", "error-500"):
        operator.put_model(name, model(name))
    operator.put_model("priced", model("echo", PRICE_NANO_USD))
    limits = {**UNLIMITED, "limits": {**UNLIMITED["limits"], "usd_per_month": 100}}
    project = {"pid": PID, "name": "Shop", "origins": [ORIGIN], "default_model": "mock-echo"}
    operator.create_project(parsed(NewProject, {**project, **limits}))
    key, _ = operator.create_key(PID, name="", scopes=["mint", "api:read"], role="user")
    customers_key, _ = operator.create_key(
        PID, name="", scopes=CUSTOMERS_SCOPES, role="user", contract=api_keys.RINGSIDE
    )
    made = Shop(stack, operator, key, customers_key)
    until(lambda: counts(made))
    return made


def counts(shop: Shop) -> bool:
    """Return whether the functions know the project, its models and its keys."""
    hello: list[Any] = [{"role": "user", "content": "hi"}]
    try:
        with shop.weir() as weir:
            weir.chat.completions.create(user_id="u_0", messages=hello, model="priced")
        with shop.weir(shop.customers_key) as weir:
            weir.chat.completions.create(messages=hello, model="fc:mock/slow")
    except (BadRequest, NotFound, WeirError):
        return False
    return True


@pytest.fixture
def weir(shop: Shop) -> Iterator[Weir]:
    with shop.weir() as client:
        yield client


@pytest.fixture
def sales(shop: Shop) -> Iterator[Weir]:
    """The client with the key for customers."""
    with shop.weir(shop.customers_key) as client:
        yield client
