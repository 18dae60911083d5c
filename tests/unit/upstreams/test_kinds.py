"""The contract of every kind of upstream, over real sockets: a request is addressed as the kind's
provider expects it, carries exactly one credential, and shows that to nobody else.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.provider.wire import SSE_HEAD, Script, http_chunk, read_request, reply
from tests.unit.conftest import CANDIDATE, UPSTREAM_OF
from tests.unit.upstreams.test_openai_compatible import FakeProvider
from weir.aws.provider_keys import host_of
from weir.aws.vault import Vault
from weir.chat import request as chat
from weir.errors import BadRequest, NotReady, Refusal
from weir.operator.documents import ConfigurationFile, UpstreamDocument, parsed
from weir.projects.catalogue import Candidate, Catalogue, Upstream
from weir.projects.model_kinds import CHAT, EMBEDDING, MODERATION
from weir.projects.upstream_kinds import KINDS, SETTINGS
from weir.upstreams import bedrock
from weir.upstreams.providers import Providers

KEY, OTHER_KEY, NEW_KEY = "key-of-this-upstream", "key-of-another-upstream", "a-new-key-0123456"
MODEL = "house/large model?"  # what an address must escape
ROLE = {name: "role-secret-" + name for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
CREDENTIAL_HEADERS = {"authorization", "api-key", "x-api-key", "x-goog-api-key", "cookie"}
ADDRESSED = [name for name, kind in KINDS.items() if not kind.in_process]
WITH_KEY = [name for name, kind in KINDS.items() if kind.has_key]


@dataclass(frozen=True)
class Expected:
    """What a provider of this kind sees. `base_path` is the path of the address it is given."""

    base_path: str
    target: str
    credential: tuple[str, str]


EXPECTED = {
    "openai": Expected("/v1", "/v1/chat/completions", ("authorization", f"Bearer {KEY}")),
    "bedrock": Expected(
        "/openai/v1", "/openai/v1/chat/completions", ("authorization", "Bearer bedrock-api-key-")
    ),
    "azure": Expected(
        "",
        "/openai/deployments/house%2Flarge%20model%3F/chat/completions?api-version=2024-10-21",
        ("api-key", KEY),
    ),
}


class Secrets:
    """Secrets Manager with the one secret of all keys; counts who reads it."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {}
        self.reads = 0

    def get_secret_value(self, **_: Any) -> dict[str, str]:
        self.reads += 1
        return {"SecretString": json.dumps(self.keys)}


class Gateway:
    """Providers as the chat function has them, and one provider that follows a script."""

    def __init__(self, kind: str, monkeypatch: pytest.MonkeyPatch, *scripts: Script) -> None:
        self.fake = FakeProvider(*scripts)
        self.secrets = Secrets()
        self.providers = Providers(
            Vault(self.secrets, 60), "all-keys", region="us-east-1", role=ROLE, clock=lambda: 1000.0
        )
        self.base_url = self.fake.url.removesuffix("/v1") + EXPECTED[kind].base_path
        monkeypatch.setattr(bedrock, "base_url", lambda region: self.base_url)
        document = dict(UPSTREAM_OF[kind])
        if "base_url" in document:
            document["base_url"] = self.base_url
        self.upstream = upstream_of(parsed(UpstreamDocument, document).stored())
        self.secrets.keys["other"] = {"key": OTHER_KEY, "host": host_of(self.base_url)}
        self.set_key(KEY)

    def set_key(self, key: str) -> None:
        self.secrets.keys["main"] = {"key": key, "host": host_of(self.base_url)}

    def ask(
        self, *, model: str = MODEL, stream: bool = False, body: bytes = b"{}", of: str = CHAT
    ) -> bytes:
        call = self.providers.open(self.upstream, model, body, stream=stream, kind_of_model=of)
        try:
            pieces = []
            while piece := call.receive(5):
                pieces.append(piece)
            assert piece == b"", "the upstream fell silent"
            return b"".join(pieces)
        finally:
            call.close()

    def refusal(self, **how: Any) -> Refusal:
        with pytest.raises(Refusal) as refused:
            self.ask(**how)
        return refused.value

    def seen(self, number: int = -1) -> tuple[str, dict[str, str], bytes]:
        """The request line, the headers, the body of a request."""
        head, _, body = self.fake.received[number].partition(b"\r\n\r\n")
        line, *lines = head.decode().split("\r\n")
        fields = [tuple(field.split(": ", 1)) for field in lines]
        assert len({name.lower() for name, _ in fields}) == len(fields), "a header came twice"
        return line, {name.lower(): value for name, value in fields}, body


def upstream_of(document: dict[str, Any]) -> Upstream:
    """As the chat function reads it out of the catalogue."""
    model = {
        "candidates": [{**CANDIDATE, "output_cap_parameter": "max_tokens"}],
        **dict.fromkeys(("context_tokens", "max_output_tokens", "overhead_tokens"), 1),
    }
    catalogue = Catalogue({"upstreams": {"main": document}, "models": {"m": model}})
    return catalogue.models["m"].candidates[0].upstream


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Gateway]]:
    started: list[Gateway] = []

    def start(kind: str, *scripts: Script) -> Gateway:
        started.append(Gateway(kind, monkeypatch, *scripts))
        return started[-1]

    yield start
    for each in started:
        each.providers.close()
        each.fake.close()


WHOLE = reply(b"200 OK", b"application/json", b'{"choices":[]}')


def streamed(peer: Any) -> None:
    peer.sendall(SSE_HEAD + http_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")


def test_every_kind_is_held_to_this_contract() -> None:
    assert EXPECTED.keys() == set(ADDRESSED)
    assert UPSTREAM_OF.keys() == KINDS.keys()
    for kind, document in UPSTREAM_OF.items():
        taken = {setting.name for setting in KINDS[kind].settings}
        assert document == {"kind": kind, **{name: document[name] for name in taken}}


# ---------------------------------------------------------------- the request


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("kind", ADDRESSED)
def test_request_goes_to_the_kinds_address_with_its_one_credential(
    gateway: Callable[..., Gateway], kind: str, stream: bool
) -> None:
    here = gateway(kind, streamed if stream else WHOLE)
    body = {"messages": [{"role": "user", "content": "hi"}], "stream": stream}
    candidate = Candidate(here.upstream, MODEL, 1, 1, 1, "max_completion_tokens")
    asked = chat.understand(body, chat.Target(1000)).body_for(candidate, 77)

    answered = here.ask(stream=stream, body=asked)
    assert answered == (b"data: [DONE]\n\n" if stream else b'{"choices":[]}')

    line, headers, sent = here.seen()
    expected = EXPECTED[kind]
    assert line == f"POST {expected.target} HTTP/1.1"
    (name,) = headers.keys() & CREDENTIAL_HEADERS
    assert name == expected.credential[0]
    if KINDS[kind].has_key:
        assert headers[name] == expected.credential[1]
    else:
        assert headers[name].startswith(expected.credential[1])
        assert KEY not in repr(headers)
    assert headers["accept"] == ("text/event-stream" if stream else "application/json")
    assert headers["content-type"] == "application/json"
    assert headers["host"] == here.base_url.split("/")[2]
    assert sent == asked
    told = json.loads(sent)
    assert (told["model"], told["max_completion_tokens"]) == (MODEL, 77)
    everything = here.fake.received[-1].decode()
    for secret in (OTHER_KEY, ROLE["AWS_SECRET_ACCESS_KEY"]):
        assert secret not in everything


DEPLOYMENT = "/openai/deployments/house%2Flarge%20model%3F"


@pytest.mark.parametrize(
    ("kind", "of", "target"),
    [
        ("openai", EMBEDDING, "/v1/embeddings"),
        ("openai", MODERATION, "/v1/moderations"),
        ("azure", EMBEDDING, f"{DEPLOYMENT}/embeddings?api-version=2024-10-21"),
    ],
)
def test_request_for_another_kind_of_model_goes_to_its_path(
    gateway: Callable[..., Gateway], kind: str, of: str, target: str
) -> None:
    here = gateway(kind, WHOLE)
    here.ask(of=of)
    line, headers, _ = here.seen()
    assert line == f"POST {target} HTTP/1.1"
    name, value = EXPECTED[kind].credential
    assert headers[name] == value


@pytest.mark.parametrize(
    ("kind", "of"), [("azure", MODERATION), ("bedrock", EMBEDDING), ("bedrock", MODERATION)]
)
def test_kind_of_model_that_is_not_served_is_refused_without_a_request(
    gateway: Callable[..., Gateway], kind: str, of: str
) -> None:
    here = gateway(kind)
    refusal = here.refusal(of=of)
    assert (type(refusal), refusal.code) == (NotReady, "upstream_not_configured")
    assert here.fake.received == []


@pytest.mark.parametrize("kind", ADDRESSED)
def test_requests_to_one_upstream_share_a_connection(
    gateway: Callable[..., Gateway], kind: str
) -> None:
    def twice(peer: Any) -> None:
        WHOLE(peer)
        read_request(peer)
        WHOLE(peer)

    here = gateway(kind, twice)
    here.ask()
    here.ask(model="another")
    assert here.fake.connections == 1


# ---------------------------------------------------------------- credentials


@pytest.mark.parametrize("kind", ADDRESSED)
@pytest.mark.parametrize("status", [b"400 Bad Request", b"401 Unauthorized", b"500 No"])
def test_credential_is_in_no_error(
    gateway: Callable[..., Gateway], kind: str, status: bytes
) -> None:
    def echo(peer: Any) -> None:
        shown = here.seen()[1]
        (name,) = shown.keys() & CREDENTIAL_HEADERS
        error = {"error": {"message": f"You sent {shown[name]}", "code": "no"}}
        reply(status, b"application/json", json.dumps(error).encode())(peer)

    here = gateway(kind, echo)
    refusal = here.refusal()
    secret = here.seen()[1][EXPECTED[kind].credential[0]].removeprefix("Bearer ")
    assert len(secret) > 10
    assert secret not in repr((refusal.message, refusal.details, refusal.code, refusal.param))
    if status.startswith(b"400"):
        assert "You sent" in refusal.message


@pytest.mark.parametrize("kind", WITH_KEY)
def test_key_that_was_refused_is_forgotten_and_a_new_one_counts_at_once(
    gateway: Callable[..., Gateway], kind: str
) -> None:
    unauthorized = reply(b"401 Unauthorized", b"application/json", b"{}", b"Connection: close\r\n")
    here = gateway(kind, unauthorized, unauthorized, WHOLE)
    assert here.refusal().code == "upstream_credentials_refused"
    here.set_key(NEW_KEY)
    assert here.refusal().code == "upstream_credentials_refused"
    assert (here.secrets.reads, NEW_KEY in repr(here.fake.requests)) == (1, False)
    here.providers.forget_keys()
    here.ask()
    name, value = EXPECTED[kind].credential
    assert here.seen()[1][name] == value.replace(KEY, NEW_KEY)


@pytest.mark.parametrize("kind", WITH_KEY)
def test_without_a_key_for_its_host_nothing_is_sent(
    gateway: Callable[..., Gateway], kind: str
) -> None:
    here = gateway(kind, WHOLE)
    here.secrets.keys["main"] = {"key": KEY, "host": "https://elsewhere.example"}
    with pytest.raises(NotReady, match="weir upstreams set-key main") as refused:
        here.ask()
    assert (refused.value.code, refused.value.retryable) == ("upstream_not_configured", False)
    assert here.fake.connections == 0
    here.set_key(KEY)
    here.ask()  # at once
    assert here.fake.connections == 1


@pytest.mark.parametrize("kind", [name for name in ADDRESSED if name not in WITH_KEY])
def test_kind_without_a_key_leaves_the_vault_alone(
    gateway: Callable[..., Gateway], kind: str
) -> None:
    here = gateway(kind, WHOLE)
    here.ask()
    assert here.secrets.reads == 0


def test_mock_needs_no_key_and_no_connection(gateway: Callable[..., Gateway]) -> None:
    here = gateway("openai", WHOLE)
    here.upstream = upstream_of(UPSTREAM_OF["mock"])
    body = b'{"messages":[{"role":"user","content":"within the gateway"}]}'
    assert b'"content":"within the gateway"' in here.ask(model="echo", body=body)
    assert (here.secrets.reads, here.fake.connections) == (0, 0)


def test_kind_of_a_later_release_is_passed_over(gateway: Callable[..., Gateway]) -> None:
    here = gateway("openai", WHOLE)
    later = upstream_of({"kind": "later", "base_url": here.base_url})
    with pytest.raises(NotReady, match="'later'") as refused:
        here.providers.open(later, MODEL, b"{}", stream=False)
    assert refused.value.code == "upstream_not_configured"
    assert here.fake.connections == 0


# ---------------------------------------------------------------- what an operator writes


def problem(document: dict[str, Any]) -> str:
    with pytest.raises(BadRequest) as refused:
        parsed(UpstreamDocument, document)
    return refused.value.message


@pytest.mark.parametrize("kind", KINDS)
def test_upstream_is_kept_as_it_was_written_and_comes_back_from_a_file(kind: str) -> None:
    document = UPSTREAM_OF[kind]
    assert parsed(UpstreamDocument, document).stored() == document
    file = {"format": "weir-configuration/1", "upstreams": {"main": document}}
    read = parsed(ConfigurationFile, file)
    assert read.model_dump()["upstreams"] == {"main": document}


@pytest.mark.parametrize(
    ("kind", "name"),
    [(name, setting.name) for name, kind in KINDS.items() for setting in kind.required],
)
def test_setting_that_is_missing_is_named(kind: str, name: str) -> None:
    document = {each: value for each, value in UPSTREAM_OF[kind].items() if each != name}
    assert problem(document) == f"{name} is required."
    assert problem({**document, name: None}) == f"{name} is required."


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (name, setting)
        for name, kind in KINDS.items()
        for setting in sorted(SETTINGS.keys() - {own.name for own in kind.settings})
    ],
)
def test_setting_of_another_kind_is_refused_by_its_name(kind: str, name: str) -> None:
    assert problem({**UPSTREAM_OF[kind], name: SETTINGS[name].example}).startswith(f"{name}: ")


@pytest.mark.parametrize(
    "base_url",
    [
        "http://api.provider.example/v1",
        "https://user:word@api.provider.example/v1",
        "https://api.provider.example/v1?key=x",
        "https://api.provider.example/v1/../admin",
        "ftp://api.provider.example",
    ],
)
@pytest.mark.parametrize("kind", WITH_KEY)
def test_address_of_every_kind_is_https_and_has_no_credential(kind: str, base_url: str) -> None:
    said = problem({**UPSTREAM_OF[kind], "base_url": base_url})
    assert said.startswith("base_url must be https://host/path")
    assert "word" not in said


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("openai", "/v1/chat/completions"),
        ("openai", "/v1/chat/completions/"),
        ("azure", "/openai"),
        ("azure", "/openai/v1"),
        ("azure", "/gateway/openai/deployments"),
        ("azure", "/openai/deployments/large/chat/completions"),
    ],
)
def test_address_that_goes_on_after_its_end_is_refused(kind: str, path: str) -> None:
    document = {**UPSTREAM_OF[kind], "base_url": f"https://api.provider.example{path}"}
    assert problem(document).startswith("base_url ends before /")


@pytest.mark.parametrize("version", ["", "v1", "preview", "2024-10-21&x=y", "2024-10-21-beta"])
def test_version_of_azures_api_is_a_date(version: str) -> None:
    said = problem({**UPSTREAM_OF["azure"], "api_version": version})
    assert said.startswith("api_version: a dated version of Azure's API")


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=lambda setting: setting.name)
def test_example_of_a_setting_is_a_good_one(setting: Any) -> None:
    for kind, document in UPSTREAM_OF.items():
        if setting in KINDS[kind].settings:
            parsed(UpstreamDocument, {**document, setting.name: setting.example})
