"""What a backend may ask to be revoked, and what a misspelt question must not do."""

from typing import Any

import pytest

from tests.unit.conftest import NOW
from weir.errors import BadRequest, Forbidden
from weir.identity import api_keys
from weir.identity.revoke import RevokeRequest, revocation_of
from weir.identity.tokens import Claims
from weir.revocation import KEPT_S, Revocation


@pytest.mark.parametrize(
    ("body", "token", "what"),
    [
        ({"user_id": "u"}, None, Revocation("u")),
        ({"user_id": "u", "session_id": None}, None, Revocation("u")),
        ({"user_id": "u", "session_id": "s"}, None, Revocation("u", session_id="s")),
        ({"token": "a.b.c"}, "a.b.c", None),
        ({"token": "a.b.c", "token_type_hint": "access_token"}, "a.b.c", None),
        ({"user_id": "u", "token": None, "token_type_hint": 7}, None, Revocation("u")),
    ],
)
def test_token_or_user_or_session_is_named(
    body: dict[str, Any], token: str | None, what: Revocation | None
) -> None:
    assert RevokeRequest.parse(body) == RevokeRequest(token, what)


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        ({}, "token", "either `token`, or `user_id`"),
        ({"session_id": "s"}, "token", "either"),
        ({"user_id": "u", "token": "t"}, "token", "either"),
        ({"token": "t", "session_id": "s"}, "token", "either"),
        ({"user_id": "u", "session_id": "s", "token": "t"}, "token", "either"),
        ({"user_id": "u", "sesion_id": "s"}, "sesion_id", "no field 'sesion_id'"),
        ({"user_id": "u", "x" * 500: 1}, "x" * 100, "no field"),
        ({"user_id": ""}, "user_id", "1 to 255 characters"),
        ({"user_id": 7}, "user_id", "1 to 255 characters"),
        ({"user_id": "u", "session_id": ""}, "session_id", "1 to 255 characters"),
        ({"user_id": "u", "session_id": ["s"]}, "session_id", "1 to 255 characters"),
        ({"user_id": "u\u202e"}, "user_id", "bidirectional"),
        ({"token": 7}, "token", "must be a string"),
        ({"token": ""}, "token", "must be a string"),
        ({"token": api_keys.form("0" * 32)}, "token", "weir keys revoke"),
    ],
)
def test_bad_revocation_names_the_field(body: dict[str, Any], param: str, said: str) -> None:
    with pytest.raises(BadRequest, match=said) as refused:
        RevokeRequest.parse(body)
    assert refused.value.param == param
    assert "0" * 32 not in refused.value.message


def test_token_is_revoked_by_its_id_and_in_its_own_project_only() -> None:
    told: dict[str, Any] = {"tid": "t", "pid": "p", "uid": "u", "role": "user", "sid": "s"}
    claims = Claims(**told, tier=None, jti="j", expires_at=NOW)
    assert revocation_of(claims, "p") == Revocation("u", jti="j")
    with pytest.raises(Forbidden, match="another project"):
        revocation_of(claims, "q")
    with pytest.raises(BadRequest, match="no id") as refused:
        revocation_of(Claims(**told, tier=None, jti=None, expires_at=NOW), "p")
    assert refused.value.param == "token"


def test_revoked_keys_are_forgotten_once_their_tokens_must_have_expired() -> None:
    revoked = {"key_1": NOW - KEPT_S, "key_2": NOW - KEPT_S + 1, "key_3": NOW}
    assert api_keys.still_to_refuse(revoked, NOW).keys() == {"key_2", "key_3"}
