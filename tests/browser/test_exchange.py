"""What docs/sign-in.md has a page do, done by a page: its own code blocks in a browser, with
stand-ins for the SDKs of the sign-in providers, and the entry `weir-client/exchange`.
"""

from __future__ import annotations

import base64
import re
import subprocess
import time
from dataclasses import dataclass
from typing import Any

import jwt
import pytest
from playwright.sync_api import Page

from local import client_build, node
from tests.issuers import ENTRY, JWKS_URI, jwk, jwks, token
from tests.stack.admin import Admin, bearer, soon
from tests.stack.conftest import ROOT, Stack, ask
from weir.aws.issuer_keys import IssuerKeys
from weir.identity.key_sets import MAX_FRESH_S, parse

# The example page's policy forbids what only a test does: to make code of text.
pytestmark = pytest.mark.browser_context_args(bypass_csp=True)

PID = "shop"  # as the document calls it
PROVIDERS = ("clerk", "auth0", "supabase", "firebase")
# `provided` is the provider's token, null for a user who is signed out. The document's `client` is
# what it gives to createClient.
RUN = """async ({ module, code, provided, address }) => {
  const { exchangeToken } = await import(module);
  const here = {
    exchangeToken,
    createClient: (options) => options,
    clerk: { session: provided && { getToken: async () => provided } },
    auth0: {
      getTokenSilently: async ({ authorizationParams: { audience } }) =>
        audience === "https://api.example.com" ? provided : "for no API",
    },
    supabase: {
      auth: { getSession: async () =>
        ({ data: { session: provided && { access_token: provided } } }) },
    },
    getAuth: () => ({ currentUser: provided && { getIdToken: async () => provided } }),
    provided,
  };
  const body = `return (async () => { ${code} })();`;
  const run = new Function(...Object.keys(here), body.replaceAll("https://YOUR-GATEWAY", address));
  return run(...Object.values(here)).catch((error) => ({ message: error.message, ...error }));
}"""


def blocks() -> dict[str, str]:
    """Return the code of the chapter "In the page", by what it is for."""
    chapter = (ROOT / "docs/sign-in.md").read_text().split("## In the page\n")[1].split("\n## ")[0]
    found = re.findall(r"```js\n(.*?)```", chapter, re.DOTALL)
    names = ("shared", *PROVIDERS, "session", "plain")
    return {
        name: re.sub(r"^import .*\n", "", block, flags=re.MULTILINE)
        for name, block in zip(names, found, strict=True)
    }


@dataclass(frozen=True)
class Exchanger:
    page: Page
    stack: Stack
    module: str

    def run(self, code: str, provided: str | None, base: str = "") -> dict[str, Any]:
        """Return what the code resolves with, or the members of the error that it throws."""
        address = self.stack.env["BEHEST_BASE_URL"] + base
        told = {"module": self.module, "code": code, "provided": provided, "address": address}
        result = self.page.evaluate(RUN, told)
        assert isinstance(result, dict)
        return result


@pytest.fixture(scope="module")
def module() -> str:
    """The package's entry with all that it imports, as an address to import."""
    client_build.build()
    program, _ = node.find()
    esbuild = client_build.PLACE / "node_modules/esbuild/bin/esbuild"
    entry = client_build.DIST / "exchange.js"
    command = [program, str(esbuild), "--bundle", "--format=esm", str(entry)]
    done = subprocess.run(command, check=True, capture_output=True, timeout=60)
    return "data:text/javascript;base64," + base64.b64encode(done.stdout).decode()


@pytest.fixture(scope="module")
def trusting(stack: Stack) -> Admin:
    """A project whose page this is, and which trusts an issuer; its keys are in the table, as the
    function would have kept them.
    """
    keys = parse(jwks(jwk()), MAX_FRESH_S)
    name = stack.outputs()["TableName"]
    IssuerKeys(stack.aws("dynamodb"), name, lambda _: keys, time.time).find(
        JWKS_URI, "RS256-one", "RS256"
    )
    operator = Admin(stack)
    operator.project(
        PID,
        origins=[stack.env["ALLOWED_ORIGIN"]],
        default_model=operator("GET", "projects/default")["default_model"],
        limits={"usd_per_month": 10},
    )
    operator("PUT", f"projects/{PID}/issuers/clerk", ENTRY)
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": provided(),
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "audience": PID,
    }
    soon(lambda: stack.http.post("/v1/token", data=form).status_code == 200)
    return operator


@pytest.fixture
def exchanger(page: Page, stack: Stack, trusting: Admin, module: str) -> Exchanger:
    """A page of the project's origin: any, so the example page will do."""
    page.goto("/")
    return Exchanger(page, stack, module)


def provided(**more: Any) -> str:
    return token(int(time.time()), **more)


def get_token(provider: str) -> str:
    found = blocks()
    return f"{found[provider]}\n{found['shared']}\nreturn client.getToken();"


@pytest.mark.parametrize("sdk", PROVIDERS)
def test_documented_get_token_brings_a_token_that_chats(
    exchanger: Exchanger, stack: Stack, sdk: str
) -> None:
    reply = exchanger.run(get_token(sdk), provided())
    assert set(reply) == {"token", "ttl", "expiresAt", "sessionId"}
    assert reply["ttl"] > 60
    headers = bearer(reply["token"], stack.env["ALLOWED_ORIGIN"])
    assert stack.http.post("/v1/chat/completions", headers=headers, json=ask()).is_success
    claims = jwt.decode(reply["token"], options={"verify_signature": False})
    assert (claims["pid"], claims["uid"]) == (PID, "clerk:user_2abc")


@pytest.mark.parametrize("sdk", PROVIDERS)
def test_user_who_is_signed_out_is_told_without_a_request(exchanger: Exchanger, sdk: str) -> None:
    sent: list[str] = []
    exchanger.page.on("request", lambda request: sent.append(request.url))
    reply = exchanger.run(get_token(sdk), None)
    assert (reply["name"], reply["code"]) == ("WeirError", "signed_out")
    assert not [url for url in sent if url.endswith("/v1/token")]


def test_documented_session_is_kept_from_one_exchange_to_the_next(exchanger: Exchanger) -> None:
    found = blocks()
    shared = found["shared"].replace(found["shared"].splitlines()[2], found["session"])
    assert "sessionId })" in shared
    twice = "return { one: await client.getToken(), two: await client.getToken() };"
    reply = exchanger.run(f"{found['clerk']}\n{shared}\n{twice}", provided())
    assert reply["one"]["sessionId"] == reply["two"]["sessionId"]
    assert reply["one"]["token"] != reply["two"]["token"]


def test_documented_request_without_the_package_brings_the_same(exchanger: Exchanger) -> None:
    reply = exchanger.run(f"{blocks()['plain']}\nreturn exchange(provided);", provided())
    assert {"token", "ttl", "expiresAt", "sessionId"} <= set(reply)


@pytest.mark.parametrize("base", ["/", "/v1", "/v1/"])
def test_address_is_taken_with_v1_and_slashes_too(exchanger: Exchanger, base: str) -> None:
    code = f'return exchangeToken("https://YOUR-GATEWAY", provided, {{ audience: "{PID}" }});'
    assert exchanger.run(code, provided(), base)["token"]


def test_refusal_says_which_check_failed(exchanger: Exchanger) -> None:
    reply = exchanger.run(get_token("clerk"), provided(aud="another"))
    assert reply["name"] == "WeirError"
    assert (reply["status"], reply["code"], reply["reason"]) == (400, "invalid_request", "bad_aud")
    assert reply["message"]
    assert reply["requestId"]


def test_api_gateways_own_refusal_says_when_to_come_back(exchanger: Exchanger) -> None:
    envelope = {
        "error": {"message": "Too many requests.", "code": "rate_limited"},
        "code": "rate_limited",
        "message": "Too many requests.",
    }
    headers = {
        "Access-Control-Allow-Origin": "*",
        "Access-Control-Expose-Headers": "x-request-id, retry-after",
        "Retry-After": "2",
        "X-Request-Id": "r-1",
    }
    exchanger.page.route(
        "**/v1/token", lambda route: route.fulfill(status=429, json=envelope, headers=headers)
    )
    reply = exchanger.run(get_token("clerk"), provided())
    assert {name: value for name, value in reply.items() if value is not None} == {
        "name": "WeirError",
        "message": "Too many requests.",
        "status": 429,
        "code": "rate_limited",
        "requestId": "r-1",
        "retryAfter": 2,
    }
