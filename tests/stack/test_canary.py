"""What callers say and what is secret is kept nowhere: not in a log, a metric, an item of the table
or an error answer.

Each field that a caller controls is sent with a canary of its own, a text that is nowhere else; a
failing test says whose canary it has found, and where.
"""

import base64
import contextlib
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from tests.provider import FakeProvider, chunk
from tests.stack.admin import Admin, bearer
from tests.stack.conftest import Stack, start
from tests.stack.test_cli import told

# Words: what is said to a model, by a model and around it. Secrets: credentials, whole or in part.
# Names: what a caller calls himself and his request; these are kept, as usage.
WORDS, SECRET, NAME = "wordscanary", "secretcanary", "namecanary"
CANARY = re.compile(rf"(?i)({WORDS}|{SECRET}|{NAME})-([a-z0-9]+)-zq")

PROVIDER_KEY = f"sk-{SECRET}-providerkey-zq"
OTHER_PROVIDER_KEY = f"sk-{SECRET}-otherproviderkey-zq"
ORIGIN = "https://canary-page.example"

# What an error may repeat to the caller who sent it, in a sentence that says what is wrong with it;
# and what the provider says of the request, or of a failure within a 200, is passed on.
ECHOED = {
    "pathmodel",
    "pathcancel",
    "parttype",
    "query",
    "providersays",
    "provider413",
    "providerstream",
    "unknownpath",
    "audience",
}
# The log of `make run`'s gateway has the paths that were asked for. On AWS the access log has the
# route alone (tests/template/test_template.py).
LOGGED = {"gateway.log": {"pathmodel", "pathcancel", "unknownpath"}}


def words(of: str) -> str:
    return f"{WORDS}-{of}-zq"


def secret(of: str) -> str:
    return f"{SECRET}-{of}-zq"


def name(of: str) -> str:
    return f"{NAME}-{of}-zq"


def found(text: str, *kinds: str) -> set[str]:
    """Whose canaries are in there."""
    return {each[1] for each in CANARY.findall(text) if each[0].lower() in kinds}


@dataclass
class Left:
    """All that is left of the canaries' flight."""

    answers: list[tuple[str, httpx.Response]] = field(default_factory=list)
    logs: dict[str, str] = field(default_factory=dict)
    items: list[dict[str, Any]] = field(default_factory=list)
    secrets: dict[str, str] = field(default_factory=dict)
    usage: dict[str, Any] = field(default_factory=dict)  # as `weir usage` tells it

    def lines(self) -> Iterator[dict[str, Any]]:
        """The log's lines that are JSON objects."""
        for text in self.logs.values():
            for line in text.splitlines():
                with contextlib.suppress(ValueError):
                    loaded = json.loads(line)
                    if isinstance(loaded, dict):
                        yield loaded


class Flight:
    def __init__(self, stack: Stack, provider: FakeProvider) -> None:
        self.stack, self.provider, self.left = stack, provider, Left()

    def send(self, what: str, method: str, path: str, **more: Any) -> httpx.Response:
        reply = self.stack.http.request(method, path, **more)
        self.left.answers.append((what, reply))
        return reply

    def chat(self, what: str, token: str, **more: Any) -> httpx.Response:
        headers = {**bearer(token), **HEADERS, **more.pop("headers", {})}
        if "content" in more:
            return self.send(what, "POST", "/v1/chat/completions", headers=headers, **more)
        body = {**BODY, **more}
        return self.send(what, "POST", "/v1/chat/completions", headers=headers, json=body)


HEADERS = {
    "X-Session-Id": name("session"),
    "X-Thread-Id": name("thread"),
    "FC-Tag": name("tag"),
    "User-Agent": words("useragent"),
    "X-End-User-Id": words("enduser"),
    "X-Role": words("role"),
    "X-Tier": words("tierheader"),
    "X-Forwarded-For": words("forwarded"),
    "Referer": f"https://canary-page.example/?q={words('referer')}",
    "Cookie": f"session={secret('cookie')}",
    "Accept-Language": words("language"),
    "X-Amzn-Trace-Id": f"Root=1-{words('trace')}",
    "Traceparent": words("traceparent"),
    "X-Anything": words("anyheader"),
}
BODY: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": words("system"), "name": words("messagename")},
        {"role": "user", "content": [{"type": "text", "text": words("part")}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": words("callid"),
                    "type": "function",
                    "function": {
                        "name": words("calledtool"),
                        "arguments": json.dumps({words("argumentname"): words("argument")}),
                    },
                }
            ],
        },
        {"role": "tool", "tool_call_id": words("callid"), "content": words("toolresult")},
        {"role": "user", "content": words("prompt")},
    ],
    "tools": [
        {
            "type": "function",
            "function": {
                "name": words("tool"),
                "description": words("tooldescription"),
                "parameters": {"type": "object", "properties": {words("toolproperty"): {}}},
            },
        }
    ],
    "tool_choice": {"type": "function", "function": {"name": words("toolchoice")}},
    "response_format": {"type": "json_schema", "json_schema": {"name": words("schema")}},
    "metadata": {words("metadataname"): words("metadata")},
    "user": words("bodyuser"),
    "stop": [words("stop")],
    "prompt_cache_key": words("cachekey"),
    "safety_identifier": words("safety"),
    "session_id": words("bodysession"),
    "token": secret("bodytoken"),
    "user_id": words("bodyuserid"),
    "tier": words("bodytier"),
    "headers": {"Authorization": f"Bearer {secret('bodyheader')}"},
    words("fieldname"): words("unknownfield"),
}


def jwt(**parts: Any) -> str:
    """Formed like a token, and signed by nobody."""
    coded = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
        for part in parts.values()
    ]
    return ".".join([*coded, secret("signature")])


CALL = {"name": words("answertool"), "arguments": words("answerargument")}
DELTA = {"reasoning_content": words("reasoning"), "tool_calls": [{"index": 0, "function": CALL}]}
# What the provider answers with.
DEEDS: list[dict[str, Any]] = [
    {
        "do": "frames",
        "frames": [
            chunk(choices=[{"index": 0, "delta": DELTA}]).decode(),
            chunk(f"my key is {PROVIDER_KEY}").decode(),
            chunk(None, "stop").decode(),
            "data: [DONE]\n\n",
        ],
    },
    {"do": "whole", "text": f"my key is {PROVIDER_KEY}"},
    {"do": "fail", "status": 400, "message": f"not with {PROVIDER_KEY}"},
    {"do": "fail", "status": 400, "message": words("providersays")},
    {"do": "fail", "status": 401, "message": f"bad key {PROVIDER_KEY} {words('provider401')}"},
    {"do": "fail", "status": 404, "message": words("provider404")},
    {"do": "fail", "status": 413, "message": words("provider413")},
    {"do": "fail", "status": 429, "message": words("provider429")},
    {"do": "fail", "status": 500, "message": words("provider500"), "type": words("mediatype")},
    {"do": "frames", "frames": [f"data: {{{words('garbage')}}}\n\n"]},
    {"do": "frames", "frames": [f"{words('nosse')}\n\n"]},
    {
        "do": "frames",
        "frames": [
            chunk(words("begun")).decode(),
            f'data: {{"error": {{"message": "{words("providerstream")}"}}}}\n\n',
        ],
    },
    {"do": "frames", "frames": [chunk(words("cut")).decode()]},
    {"do": "reset"},
]


def fly(flight: Flight, admin: Admin) -> None:
    """Everything once, in every field."""
    stack, does = flight.stack, flight.provider.does
    key = stack.env["BEHEST_KEY"]
    wish = {
        "user_id": name("user"),
        "session_id": name("sid"),
        "metadata": {"m": words("mintmetadata")},
        words("mintfield"): words("mintvalue"),
    }
    minted = flight.send(
        "mint", "POST", "/v1/auth/mint", headers={**bearer(key), **HEADERS}, json=wish
    )
    assert minted.status_code == 200, minted.text
    token = minted.json()["token"]
    session = stack.sign_in()
    flight.left.secrets |= {
        "API key": key,
        "user token": token,
        "user token's signature": token.rpartition(".")[2],
        "ID token's signature": session["IdToken"].rpartition(".")[2],
        "refresh token": session["RefreshToken"],
        "password": stack.env["DEMO_PASSWORD"],
    }

    # Good requests: whole, as a stream, with an id of the caller's own, without his session.
    for stream in (False, True):
        does.clear()
        does.update(do="stream" if stream else "whole", text=words("answer"))
        own = {"X-Client-Request-Id": name("completion") + str(int(stream))}
        assert flight.chat("chat", token, stream=stream, headers=own).status_code == 200
    bare = {**bearer(token), "User-Agent": words("useragent")}
    plain = {
        "messages": BODY["messages"],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    flight.send("chat", "POST", "/v1/chat/completions", headers=bare, json=plain)

    for deed in DEEDS:
        for stream in (False, True):
            does.clear()
            does.update(deed)
            flight.chat(f"provider: {deed['do']}", token, stream=stream)
    does.clear()

    wrong_chats(flight, token)
    wrong_credentials(flight, key, token)
    wrong_mints(flight, key)
    wrong_exchanges(flight)
    others(flight, token, admin)


def wrong_chats(flight: Flight, token: str) -> None:
    prompt = words("prompt")
    for body in (
        f'{{"messages": "{prompt}',
        f'"{prompt}"',
        f'{{"messages": [{{"content": "{prompt}"}}], "temperature": NaN}}',
        f'{{"{words("membername")}": 1, "messages": "{prompt}"}}',
        "[" * 5000 + prompt,
        prompt.encode("utf-16"),
    ):
        assert flight.chat("broken body", token, content=body).status_code == 400
    wrongs: list[dict[str, Any]] = [
        {"messages": prompt},
        {"messages": [prompt]},
        {"messages": []},
        {"stream": words("stream")},
        {"stream_options": words("streamoptions")},
        {"n": words("n")},
        {"max_tokens": words("maxtokens")},
        {"model": words("model")},
        {"prediction": {"type": "content", "content": words("prediction")}},
        {"guided_regex": words("constraint")},
        {"stop": {words("stopname"): words("stopvalue")}},
        {"model": {"name": words("modelobject")}},
        {"messages": [{"content": [{"type": words("parttype"), "text": prompt}]}]},
        {"messages": [{"content": [{"type": "image_url", "image_url": prompt}]}]},
        {"messages": [{"role": "user", "content": prompt * 200_000}]},
    ]
    for wrong in wrongs:
        status = flight.chat(f"wrong {', '.join(wrong)}", token, **wrong).status_code
        assert 400 <= status < 500, wrong
    for headers in (
        {"FC-Tag": words("longtag") * 9},
        {"X-Client-Request-Id": f"no {words('badcompletion')}"},
    ):
        assert flight.chat("wrong header", token, headers=headers).status_code == 400
    flight.chat("page", token, headers={"Origin": "https://elsewhere.example"})


def wrong_credentials(flight: Flight, key: str, token: str) -> None:
    head, claims, _ = token.split(".")
    forged = {
        "alg": "RS256",
        "typ": "at+jwt",
        "kid": secret("kid"),
    }
    for credential in (
        f"Bearer {secret('bearer')}",
        f"Bearer {jwt(head=forged, claims={'uid': secret('claim')})}",
        f"Bearer {jwt(head={'alg': 'none', 'x': secret('head')}, claims={})}",
        f"Bearer {head}.{claims}.{secret('signature')}",
        f"Basic {secret('basic')}",
        secret("schemeless"),
        f"Bearer behest_sk_live_{secret('apikey')}",
        f"Bearer {key}",
    ):
        headers = {"Authorization": credential}
        reply = flight.chat("wrong credential", "", headers=headers)
        assert reply.status_code == 401, reply.text
        for method, path in (
            ("GET", "/v1/me"),
            ("GET", "/v1/usage"),
            ("POST", "/api/behest/token"),
            ("GET", "/admin/v1/projects"),
        ):
            flight.send("wrong credential", method, path, headers=headers)
        if credential != f"Bearer {key}":
            flight.send("wrong key", "POST", "/v1/auth/mint", headers=headers, json={})
    in_a_page = {**bearer(key), "Origin": ORIGIN}
    flight.send("key in a page", "POST", "/v1/auth/mint", headers=in_a_page, json={})


def wrong_mints(flight: Flight, key: str) -> None:
    for wrong in (
        {"user_id": [words("mintlist")]},
        {"user_id": words("longuser") * 20},
        {"user_id": "u", "tier": words("tier")},
        {"user_id": "u", "ttl": words("ttl")},
        {"user_id": "u", "role": words("mintrole")},
        {"user_id": "u", "session_id": [words("mintsession")]},
    ):
        for path in ("/v1/auth/mint", "/auth/v1/auth/mint"):
            flight.send("wrong mint", "POST", path, headers=bearer(key), json=wrong)
    broken = f'{{"user_id": "{words("mintbroken")}'
    flight.send("broken mint", "POST", "/v1/auth/mint", headers=bearer(key), content=broken)


def wrong_exchanges(flight: Flight) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    grant = "urn:ietf:params:oauth:grant-type:token-exchange"
    kind = "urn:ietf:params:oauth:token-type:id_token"
    told = {"grant_type": grant, "subject_token_type": kind}
    forged = jwt(head={"alg": "RS256", "kid": secret("subjectkid")}, claims={"iss": words("iss")})
    for fields in (
        {**told, "subject_token": forged},
        {**told, "subject_token": secret("subjecttoken")},
        {**told, "subject_token": forged, "audience": words("audience")},
        {**told, "subject_token": forged, "session_id": words("exchangesession") * 20},
        {**told, "subject_token": forged, "actor_token": secret("actor")},
        {**told, "grant_type": words("grant"), "client_secret": secret("clientsecret")},
    ):
        body = urlencode(fields)
        flight.send("wrong exchange", "POST", "/v1/token", headers=form, content=body)


def others(flight: Flight, token: str, admin: Admin) -> None:
    query = f"?{words('query')}={words('queryvalue')}&token={secret('query')}"
    for method, path in (
        ("GET", "/v1/me"),
        ("GET", "/v1/models"),
        ("GET", f"/v1/models/{words('pathmodel')}"),
        ("POST", f"/v1/chat/completions/{words('pathcancel')}/cancel"),
        ("GET", "/v1/usage"),
        ("GET", "/v1/billing/usage"),
        ("GET", "/.well-known/jwks.json"),
        ("GET", "/v1/cors"),
        ("GET", f"/{words('unknownpath')}"),
        ("OPTIONS", "/v1/chat/completions"),
    ):
        headers = {**bearer(token), **HEADERS}
        flight.send("query", method, path + query, headers=headers)
    flight.send("usage", "GET", f"/v1/usage?from={words('from')}", headers=bearer(token))
    flight.send("own", "GET", "/v1/me", headers=bearer(token))

    wrong = {"key": OTHER_PROVIDER_KEY, "unknown": words("adminvalue")}
    sent = admin.send("PUT", "upstreams/local/key", wrong)
    assert sent.status_code == 400, sent.text
    flight.left.answers.append(("admin", sent))
    upstream = {"kind": "openai", "base_url": "https://other.example/v1"}
    for path, document in (
        ("upstreams/other", upstream),
        ("upstreams/other/key", {"key": OTHER_PROVIDER_KEY}),
    ):
        sent = admin.send("PUT", path, document)
        flight.left.answers.append(("admin", sent))
        assert sent.status_code in (200, 201, 204), sent.text
    made = admin.key("default", name="one more")
    flight.left.secrets["second API key"] = made
    flight.left.secrets["operator's token"] = admin.token.rpartition(".")[2]


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Left]:
    provider = FakeProvider()
    try:
        with start(
            tmp_path_factory.mktemp("canary"),
            UPSTREAM_BASE_URL=provider.url,
            UPSTREAM_MODEL="fake-large",
            UPSTREAM_API_KEY=PROVIDER_KEY,
            UPSTREAM_PRICE_INPUT="1",
            UPSTREAM_PRICE_OUTPUT="2",
        ) as stack:
            flight = Flight(stack, provider)
            fly(flight, Admin(stack))
            control(stack, "streams")
            control(stack, "schedules")
            flight.left.items = at_rest(stack)
            flight.left.usage = told(stack, "usage", "--project", "default", "--by", "tag")
            folder = stack.directory / "logs"
            flight.left.logs = {p.name: p.read_text(errors="replace") for p in folder.iterdir()}
            assert any(words("prompt") in json.dumps(asked) for asked in provider.requests)
            keys = {headers["authorization"] for headers in provider.headers}
            assert keys == {f"Bearer {PROVIDER_KEY}"}
            yield flight.left
    finally:
        provider.close()


def control(stack: Stack, what: str) -> None:
    transport = httpx.HTTPTransport(uds=str(stack.directory / "control.sock"))
    with httpx.Client(transport=transport, timeout=30) as client:
        assert client.post(f"http://weir/{what}").status_code == 200


def at_rest(stack: Stack) -> list[dict[str, Any]]:
    """All items of the table, once no request is open."""
    client, table = stack.aws("dynamodb"), stack.outputs()["TableName"]
    give_up = time.monotonic() + 5
    while True:
        pages = client.get_paginator("scan").paginate(TableName=table, ConsistentRead=True)
        items = [item for page in pages for item in page["Items"]]
        if not any(item["pk"]["S"].startswith("OPEN#") for item in items):
            return items
        assert time.monotonic() < give_up, "a request is not settled"
        time.sleep(0.05)


# ---------------------------------------------------------------- what is left


def test_canaries_have_been_where_they_should_be_found_at_once(left: Left) -> None:
    """Else nothing that follows would prove anything."""
    assert len(left.answers) > 90
    assert {reply.status_code for _, reply in left.answers} >= {200, 400, 401, 403, 404, 502, 503}
    assert {"ChatFunction.log", "TokenFunction.log", "AccountFunction.log"} <= left.logs.keys()
    assert sum("_aws" in line for line in left.lines()) > 30
    prefixes = {item["pk"]["S"].partition("#")[0] for item in left.items}
    assert {"USAGE", "ROLLUP", "LEDGER", "AUDIT", "APIKEY", "TENANT"} <= prefixes


def without_what_the_provider_said(line: str) -> str:
    """A provider's refusal is logged in its own words, in one member of the line: nothing else
    tells the operator what is wrong. They are not the caller's, and its key is masked in them.
    """
    try:
        members = json.loads(line)
    except ValueError:
        return line
    return json.dumps({n: v for n, v in members.items() if n != "upstream_message"})


def test_no_log_holds_what_was_said_or_a_secret(left: Left) -> None:
    leaks = [
        (log, sorted(whose), line)
        for log, text in left.logs.items()
        for line in text.splitlines()
        if (whose := found(without_what_the_provider_said(line), WORDS) - LOGGED.get(log, set()))
        or found(line, SECRET)
    ]
    assert leaks == []
    for log, text in left.logs.items():
        for what, value in left.secrets.items():
            assert value not in text, (log, what)


def test_no_metric_is_named_by_anything_that_a_caller_controls(left: Left) -> None:
    for line in left.lines():
        for directive in line.get("_aws", {}).get("CloudWatchMetrics", ()):
            members = {each for names in directive["Dimensions"] for each in names}
            named = {line[each] for each in members} | {m["Name"] for m in directive["Metrics"]}
            assert not found(json.dumps(sorted(named)), WORDS, SECRET, NAME), line


def test_no_item_of_the_table_holds_what_was_said_or_a_secret(left: Left) -> None:
    for item in left.items:
        text = json.dumps(item, default=repr)
        # A thread keeps what is said in it, under keys and rights of its own.
        said = () if item["pk"]["S"].startswith("CONTENT#") else (WORDS,)
        assert not found(text, *said, SECRET), item
        for what, value in left.secrets.items():
            assert value not in text, (item["pk"], what)


def test_names_that_a_caller_gives_are_kept_as_usage_and_nowhere_else(left: Left) -> None:
    kept: dict[str, set[str]] = {}
    for item in left.items:
        for each in found(json.dumps(item, default=repr), NAME):
            kept.setdefault(each, set()).add(item["pk"]["S"].partition("#")[0])
    counted = {"USAGE", "ROLLUP"}
    assert kept == {
        **dict.fromkeys(("tag", "sid"), counted),
        **{each: {*counted, "CONTENT"} for each in ("session", "thread")},
        "completion": {"USAGE"},
        "user": {*counted, "LEDGER", "CONTENT"},
    }


def test_no_answer_repeats_a_secret_and_no_error_what_was_said(left: Left) -> None:
    leaks = []
    for what, reply in left.answers:
        text = reply.text + repr(reply.headers.multi_items())
        leaks += [(what, whose, text) for whose in found(text, SECRET)]
        if reply.status_code >= 400:
            leaks += [(what, whose, text) for whose in found(text, WORDS) - ECHOED]
        for whose, value in left.secrets.items():
            if value in text and not (what == "mint" and whose.startswith("user token")):
                leaks.append((what, whose, text))
    assert leaks == []


def test_operator_finds_what_was_kept_in_weir_usage(left: Left) -> None:
    rows = [item for item in left.items if item["pk"]["S"].startswith("USAGE#")]
    assert left.usage["total"]["requests"] == len(rows)
    assert left.usage["total"]["cost_usd"] > 0
    assert {each["tag"] for each in left.usage["data"]} == {name("tag"), None}
