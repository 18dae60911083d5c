"""What may be asked of the mint, to the second and to the byte."""

from dataclasses import replace

import jwt
import pytest

from weir.errors import BadRequest
from weir.identity import tokens
from weir.identity.keyring import Kid, SigningKey

NOW = 1_800_000_000


def minted(key: SigningKey, *, uid: str = "u", ttl_s: int = 900) -> tokens.Token:
    return tokens.mint(
        key,
        issuer="https://api.example/live",
        tid="t",
        pid="p",
        uid=uid,
        role="user",
        ttl_s=ttl_s,
        tier=None,
        session_id="s",
        jti="j",
        now=NOW,
    )


@pytest.mark.parametrize("ttl", [60, 86_400])
def test_shortest_and_longest_lifetime_are_granted(ttl: int) -> None:
    assert tokens.MintRequest.parse({"user_id": "u", "ttl": ttl}).ttl_s == ttl


def test_reply_names_the_second_at_which_the_token_ends(signing_key: SigningKey) -> None:
    token = minted(signing_key, ttl_s=60)
    claims = jwt.decode(token.value, options={"verify_signature": False})
    assert (token.expires_at, claims["exp"]) == (NOW + 60, NOW + 60)


@pytest.mark.parametrize(("size", "fits"), [(2048, True), (2049, False)])
def test_token_may_have_2048_bytes_and_not_one_more(
    signing_key: SigningKey, size: int, fits: bool
) -> None:
    """Base64 makes no string of every length: together with the key's name it does."""
    granted, refused = set(), set()
    for kid in ("ring_1", "ring_12", "ring_123"):
        key = replace(signing_key, kid=Kid(kid))
        short = len(minted(key).value)
        for letters in range((size - short) * 3 // 4 - 3, (size - short) * 3 // 4 + 4):
            try:
                granted.add(len(minted(key, uid="x" * letters).value))
            except BadRequest as refusal:
                refused.add(int(refusal.message.split(" bytes")[0].split()[-1]))
    assert size in (granted if fits else refused)


@pytest.mark.parametrize("user_id", [None, 42, "", "x" * 256, "a\nb"])
def test_user_id_that_is_none_is_not_called_reserved(user_id: object) -> None:
    with pytest.raises(BadRequest, match="user_id is required"):
        tokens.MintRequest.parse({"user_id": user_id})
