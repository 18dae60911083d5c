"""What has been revoked of one user, and which of their tokens that concerns.

Kept in one small document for each user of a project, of which these rules read and write the
members; a request is judged by it in the same round trip as by everything else:

    blocked      an operator has switched the user off: every request is refused
    not_before   Unix s: tokens issued until then are refused ("signed out everywhere")
    s_<digest>   Unix s: tokens of this session (`sid`) issued until then are refused
    t_<digest>   Unix s: this one token (`jti`) is refused; the moment only says when to forget it

A session has a moment, not a flag, so that its user may sign in again and keep the session's id.
Times of a token are whole seconds: what was issued in the second of the revocation counts as
revoked, and mint dates a new token after it (`first_valid_at`).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from weir.errors import Conflict, Killed, Unauthenticated

BLOCKED = "blocked"
NOT_BEFORE = "not_before"
_SESSION, _TOKEN = "s_", "t_"

# A token lives for at most a day, and hosts' clocks may differ by a minute or two. After that there
# is nothing left to refuse.
KEPT_S = 86_400 + 300
# Sessions and tokens of one user that are noted at a time: each request pays for the item's size.
MOST_NOTED = 64
# Revocations of one user within one second move the moment ahead; a token must not be dated further
# ahead than verifiers believe (identity.tokens.CLOCK_SKEW_S).
_MOST_AHEAD_S = 30


@dataclass(frozen=True, slots=True)
class Issued:
    """What revocation looks at in a token. `at` is when it counts as issued, in Unix seconds; a
    token without `jti` or `sid` can only be revoked with all of its user's tokens.
    """

    at: int
    jti: str | None
    sid: str | None

    @property
    def session(self) -> str | None:
        """Return the name under which a revocation of its session is noted."""
        return None if self.sid is None else _SESSION + _digest(self.sid)

    @property
    def token(self) -> str | None:
        """Return the name under which a revocation of this one token is noted."""
        return None if self.jti is None else _TOKEN + _digest(self.jti)


@dataclass(frozen=True, slots=True)
class Revocations:
    """What has been revoked of one user."""

    document: Mapping[str, Any] = field(default_factory=dict)

    def judge(self, token: Issued | None) -> None:
        """Raise Killed for a blocked user, Unauthenticated for a revoked token. None: the caller
        sent no token but an API key, which is revoked by itself.
        """
        if BLOCKED in self.document:
            raise Killed("user")
        if token is not None and (
            token.token in self.document
            or token.at <= max(self._moment(NOT_BEFORE), self._moment(token.session))
        ):
            raise refusal()

    def first_valid_at(self, session_id: str, now: int) -> int:
        """Return the `iat`, in Unix seconds, of a token that is minted now for this session: now,
        or just after a revocation that was made in this same second.
        """
        session = Issued(now, None, session_id).session
        revoked_at = max(self._moment(NOT_BEFORE), self._moment(session))
        return now if revoked_at > now + _MOST_AHEAD_S else max(now, revoked_at + 1)

    def _moment(self, name: str | None) -> int:
        moment: int = self.document.get(name or "", -1)
        return moment


NOTHING_REVOKED = Revocations()


@dataclass(frozen=True, slots=True)
class Revocation:
    """What is to be revoked of a user: one token, one session, or with neither all tokens issued
    until now.
    """

    user_id: str
    session_id: str | None = None
    jti: str | None = None

    @property
    def kind(self) -> str:
        if self.jti is not None:
            return "token"
        return "user" if self.session_id is None else "session"

    def applied_to(self, document: Mapping[str, Any], now: int) -> dict[str, Any]:
        """Return the document with this revocation noted, and without what has expired. `now` is
        Unix seconds. Raises Conflict if it has no room.
        """
        kept = {n: v for n, v in document.items() if n == BLOCKED or v > now - KEPT_S}
        named = Issued(now, self.jti, None if self.jti else self.session_id)
        if named.token is not None:
            after = {**kept, named.token: now}
        elif named.session is not None:
            earlier = [kept[name] for name in (NOT_BEFORE, named.session) if name in kept]
            after = {**kept, named.session: _moment_after(earlier, now)}
        else:  # whatever else was revoked was issued before
            earlier = [v for n, v in kept.items() if n == NOT_BEFORE or n.startswith(_SESSION)]
            after = {n: v for n, v in kept.items() if n == BLOCKED}
            after[NOT_BEFORE] = _moment_after(earlier, now)
        if sum(name.startswith((_SESSION, _TOKEN)) for name in after) > MOST_NOTED:
            raise Conflict(
                f"{MOST_NOTED} tokens and sessions of this user have been revoked within a day. "
                "Revoke all of the user's tokens instead."
            )
        return after


def refusal() -> Unauthenticated:
    return Unauthenticated(
        "The token has been revoked. Fetch a new one, or sign in again.", reason="token_revoked"
    )


def _moment_after(earlier: Collection[int], now: int) -> int:
    """Return `now`, or the second after an earlier revocation: a token may have been dated then."""
    moment = max(now, 1 + max(earlier, default=0))
    if moment > now + _MOST_AHEAD_S:
        raise Conflict("This was revoked too often within a second. Try again in a minute.")
    return moment


def _digest(name: str) -> str:
    return sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]
