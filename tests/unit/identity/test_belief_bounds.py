"""When exactly a token begins and ceases to be believed."""

from collections.abc import Callable

import pytest

from tests.unit.conftest import NOW
from tests.unit.identity.test_tokens import believe as believe  # the fixture
from tests.unit.identity.test_tokens import claims, sign
from weir.errors import Unauthenticated
from weir.identity import tokens
from weir.identity.keyring import SigningKey

Believe = Callable[..., tokens.Claims]


@pytest.mark.parametrize("name", ["iat", "nbf"])
def test_token_may_begin_60_seconds_ahead_and_not_one_more(
    name: str, signing_key: SigningKey, believe: Believe
) -> None:
    assert believe(sign(signing_key, claims(**{name: NOW + 60}))).uid == "u_1"
    with pytest.raises(Unauthenticated) as refused:
        believe(sign(signing_key, claims(**{name: NOW + 61})))
    assert refused.value.reason == "bad_nbf"


def test_token_may_live_a_day_and_not_a_second_more(
    signing_key: SigningKey, believe: Believe
) -> None:
    assert believe(sign(signing_key, claims(exp=NOW + 86_400))).uid == "u_1"
    with pytest.raises(Unauthenticated) as refused:
        believe(sign(signing_key, claims(exp=NOW + 86_401)))
    assert refused.value.reason == "bad_exp"


def test_token_that_names_no_beginning_but_the_epoch_is_believed(
    signing_key: SigningKey, believe: Believe
) -> None:
    assert believe(sign(signing_key, claims(nbf=0))).uid == "u_1"
    with pytest.raises(Unauthenticated) as refused:
        believe(sign(signing_key, claims(nbf=-1)))
    assert refused.value.reason == "bad_nbf"


def test_only_the_given_clock_says_that_a_token_has_ended(
    signing_key: SigningKey, believe: Believe
) -> None:
    """The machine's own clock is long past this token."""
    then = 1_500_000_000
    token = sign(signing_key, claims(iat=then, nbf=then, exp=then + 900))
    assert believe(token, now=then + 899).uid == "u_1"


def test_credential_of_any_length_is_refused_before_it_is_decoded(
    signing_key: SigningKey, believe: Believe
) -> None:
    token = sign(signing_key, claims(uid="u" * 4000))
    with pytest.raises(Unauthenticated) as refused:
        believe(token)
    assert refused.value.reason == "malformed"


@pytest.mark.parametrize("tier", [1, "1", "x" * 64])
def test_tier_of_any_length_up_to_64_is_believed(
    tier: object, signing_key: SigningKey, believe: Believe
) -> None:
    assert believe(sign(signing_key, claims(tier=tier))).tier == tier
