"""Which gateway is called, as whom, and that a key shows nowhere."""

import base64
import importlib.util
import logging
import pickle
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tests.python_client.fake import HELLO, KEY, URL, Gateway, answer
from weir_client import AsyncWeir, BadRequest, ConfigurationError, RateLimited, Weir
from weir_client._settings import read

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "clients/python"
PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
BASE64 = base64.b64encode(PEM.encode()).decode()
SIGNING: dict[str, Any] = {"kid": "sk_1", "tenant_id": "t", "project_id": "shop", "base_url": URL}


def test_weir_variables_win_over_behest_variables() -> None:
    env = {"BEHEST_KEY": KEY, "WEIR_BASE_URL": URL, "BEHEST_BASE_URL": "https://other.test"}
    assert read(env=env).base_url == URL
    assert read(env=env).api_key == KEY


def test_an_address_may_end_with_v1_or_a_slash() -> None:
    for spelled in (URL, URL + "/", URL + "/v1", URL + "/v1/"):
        assert read(key=KEY, base_url=spelled, env={}).base_url == URL


@pytest.mark.parametrize(
    ("missing", "given"),
    [
        ("KEY", {"base_url": URL}),
        ("BASE_URL", {"key": KEY}),
        ("KID", {**SIGNING, "key": BASE64, "kid": None}),
        ("TENANT_ID", {**SIGNING, "key": BASE64, "tenant_id": None}),
        ("PROJECT_ID", {**SIGNING, "key": BASE64, "project_id": None}),
    ],
)
def test_a_missing_setting_is_named_with_both_variables(
    missing: str, given: dict[str, str | None]
) -> None:
    with pytest.raises(ConfigurationError, match=f"WEIR_{missing} or BEHEST_{missing}"):
        read(**given, env={})


@pytest.mark.parametrize(
    "form",
    [
        BASE64,
        "behest_pk_" + BASE64,
        PEM,
        "behest_pk_" + PEM,
        PEM.replace("\n", "\\n"),
        PEM.replace("\n", " "),
        "\n".join(BASE64[at : at + 64] for at in range(0, len(BASE64), 64)),
    ],
    ids=["base64", "prefix-base64", "pem", "prefix-pem", "escaped", "spaces", "wrapped"],
)
def test_a_signing_key_is_read_in_every_form(form: str) -> None:
    weir = Weir(key=form, **SIGNING)
    minted = weir.auth.mint(user_id="u_1", tier=2, session_id="s", ttl=900)
    public = PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    claims = jwt.decode(minted.token, public, algorithms=["RS256"], audience="behest")
    assert (claims["uid"], claims["tier"], claims["sid"]) == ("u_1", 2, "s")
    assert claims["exp"] - claims["iat"] == 900 == minted.ttl
    assert jwt.get_unverified_header(minted.token)["kid"] == "sk_1"


@pytest.mark.parametrize("ttl", [59, 86_401])
def test_a_lifetime_that_the_gateway_refuses_is_not_signed(ttl: int) -> None:
    with pytest.raises(BadRequest) as caught:
        Weir(key=BASE64, **SIGNING).auth.mint(user_id="u", ttl=ttl)
    assert caught.value.param == "ttl"


def test_a_signed_token_cannot_be_an_admins() -> None:
    with pytest.raises(BadRequest):
        Weir(key=BASE64, **SIGNING).auth.mint(user_id="u", role="admin")


def test_a_reserved_user_is_not_signed_for() -> None:
    with pytest.raises(BadRequest):
        Weir(key=BASE64, **SIGNING).auth.mint(user_id="Admin")


def test_what_is_no_key_is_refused_without_repeating_it() -> None:
    elliptic = ec.generate_private_key(ec.SECP256R1())
    pem = elliptic.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    for secret in ("bh_live_secretsecret", pem, PEM[:200] + PEM[260:]):
        with pytest.raises(ConfigurationError) as caught:
            read(key=secret, **SIGNING, env={})
        assert secret[60:90] not in str(caught.value) or len(secret) < 60
        assert "secretsecret" not in str(caught.value)


def test_a_key_shows_neither_in_a_repr_nor_in_a_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    weir = Gateway(answer()).weir()
    weir.chat.completions.create(user_id="u", messages=HELLO)
    minted = weir.auth.mint(user_id="u")
    shown = repr([weir, weir._settings, weir.auth._entries, minted]) + caplog.text
    assert URL in shown
    for secret in (KEY, "token-1", "token-2"):
        assert secret not in shown


def test_an_account_at_openai_is_not_named_to_the_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    gateway = Gateway(answer())
    gateway.weir().chat.completions.create(user_id="u", messages=HELLO)
    sent = str(gateway.requests[-1].headers.raw)
    assert "org-1" not in sent
    assert "proj-1" not in sent
    assert "sk-secret" not in sent


def test_an_error_survives_being_pickled() -> None:
    error = RateLimited("Wait.", status=429, retry_after=3, details={"reason": "THROTTLED"})
    there = pickle.loads(pickle.dumps(error))  # noqa: S301 (our own)
    assert (type(there), str(there), there.retry_after) == (RateLimited, str(error), 3)


def test_the_blocking_client_is_the_generated_one() -> None:
    spec = importlib.util.spec_from_file_location("make_sync", PACKAGE / "make_sync.py")
    assert spec is not None
    assert spec.loader is not None
    make_sync = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_sync)
    sources = sorted((PACKAGE / "src/weir_client/_async").glob("*.py"))
    assert len(sources) > 5
    for source in sources:
        generated = source.parents[1] / "_sync" / source.name
        assert generated.read_text() == make_sync.synchronous(source.read_text()), source.name


def test_both_clients_have_the_same_parts() -> None:
    def parts(client: object) -> set[str]:
        return {name for name in vars(client) if not name.startswith("_")}

    assert parts(Gateway().weir()) == parts(AsyncWeir(key=KEY, base_url=URL))
