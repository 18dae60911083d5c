"""What a revocation notes, which tokens it concerns, and when it is forgotten."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.conftest import NOW
from weir.errors import Conflict, Killed, Unauthenticated
from weir.identity.tokens import CLOCK_SKEW_S, MAX_TTL_S
from weir.revocation import KEPT_S, MOST_NOTED, Issued, Revocation, Revocations

ALL = Revocation("u")
SESSION = Revocation("u", session_id="s")
TOKEN = Revocation("u", jti="j")


def passes(document: dict[str, object], at: int, sid: str | None = "s", jti: str = "j") -> bool:
    try:
        Revocations(document).judge(Issued(at, jti, sid))
    except Unauthenticated:
        return False
    return True


def test_kind_says_how_much_is_revoked() -> None:
    assert [what.kind for what in (ALL, SESSION, TOKEN)] == ["user", "session", "token"]


@pytest.mark.parametrize("what", [ALL, SESSION])
def test_new_token_is_good_at_once_and_goes_with_the_next_revocation(what: Revocation) -> None:
    """All within one second: a token is dated after what was revoked, in whole seconds."""
    document: dict[str, object] = {}
    for _ in range(5):
        at = Revocations(document).first_valid_at("s", NOW)
        assert passes(document, at)
        document = what.applied_to(document, NOW)
        assert not passes(document, at)


@given(st.lists(st.tuples(st.sampled_from([ALL, SESSION, TOKEN]), st.integers(0, 3)), max_size=20))
def test_whatever_is_revoked_when_a_minted_token_is_good_until_it_is_named(
    steps: list[tuple[Revocation, int]],
) -> None:
    document: dict[str, object] = {}
    now = NOW
    for what, later in steps:
        now += later
        at = Revocations(document).first_valid_at("s", now)
        assert now <= at <= now + 31 < now + CLOCK_SKEW_S
        assert passes(document, at, jti="fresh")
        document = what.applied_to(document, now)
        assert passes(document, at, jti="fresh") is (what is TOKEN)


def test_same_second_again_and_again_is_refused_before_tokens_are_dated_too_far_ahead() -> None:
    document: dict[str, object] = {}
    for _ in range(31):
        document = ALL.applied_to(document, NOW)
    with pytest.raises(Conflict, match="within a second"):
        ALL.applied_to(document, NOW)
    at = Revocations(document).first_valid_at("s", NOW)
    assert NOW < at < NOW + CLOCK_SKEW_S
    ALL.applied_to(document, NOW + 60)


def test_many_sessions_and_tokens_may_be_revoked_in_one_second() -> None:
    document: dict[str, object] = {}
    for number in range(MOST_NOTED // 2):
        document = Revocation("u", session_id=f"s_{number}").applied_to(document, NOW)
        document = Revocation("u", jti=f"j_{number}").applied_to(document, NOW)
    for full in (Revocation("u", session_id="one more"), Revocation("u", jti="one more")):
        with pytest.raises(Conflict, match="all of the user's tokens"):
            full.applied_to(document, NOW)
    assert TOKEN.applied_to(document, NOW + KEPT_S).keys() == TOKEN.applied_to({}, NOW).keys()
    assert len(ALL.applied_to(document, NOW)) == 1


def test_what_is_noted_outlives_every_token_that_it_concerns() -> None:
    """Counted from the latest moment at which such a token may have been signed."""
    last_end = NOW + CLOCK_SKEW_S + MAX_TTL_S
    for what in (ALL, SESSION, TOKEN):
        document = what.applied_to({}, NOW)
        kept = Revocation("u", jti="another").applied_to(document, last_end + CLOCK_SKEW_S)
        assert document.items() <= kept.items()
        gone = Revocation("u", jti="another").applied_to(document, NOW + KEPT_S)
        assert not document.keys() & gone.keys()


def test_block_stays_whatever_is_revoked() -> None:
    blocked = {"blocked": {"reason": "", "at": 0, "by": ""}}
    for what in (ALL, SESSION, TOKEN):
        document = what.applied_to(blocked, NOW + 10 * KEPT_S)
        for token in (None, Issued(NOW * 2, "x", "x")):
            with pytest.raises(Killed):
                Revocations(document).judge(token)


def test_names_are_not_mistaken_for_each_other_nor_kept() -> None:
    document = Revocation("u", session_id="j").applied_to({}, NOW)
    assert passes(document, NOW, jti="j")
    document = Revocation("u", jti="s").applied_to({}, NOW)
    assert passes(document, NOW)
    secret = Revocation("u", session_id="secret session").applied_to({}, NOW)
    assert "secret" not in repr(secret)


@given(st.text(), st.text())
def test_any_names_can_be_revoked(sid: str, jti: str) -> None:
    document = Revocation("u", session_id=sid).applied_to({}, NOW)
    assert not passes(document, NOW, sid, jti)
    assert not passes(Revocation("u", jti=jti).applied_to({}, NOW), NOW, sid, jti)
