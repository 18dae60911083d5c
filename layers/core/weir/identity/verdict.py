"""Why a token of another issuer is, or would not be, exchanged: for an operator who tries one."""

from dataclasses import dataclass
from typing import Any

from weir.errors import ExchangeRefused
from weir.identity.issuers import CHECKS, FindKey, Identity, believe
from weir.projects.project import Project


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a token: the checks that it passed, in order, and the one that it did not."""

    passed: tuple[str, ...]
    failed: str | None = None
    reason: str | None = None
    message: str | None = None
    identity: Identity | None = None

    def document(self) -> dict[str, Any]:
        who = self.identity
        return {
            "accepted": who is not None,
            "passed": list(self.passed),
            "failed": self.failed,
            "reason": self.reason,
            "message": self.message,
            "issuer": None if who is None else who.issuer.name,
            "user_id": None if who is None else who.user_id,
            "tier": None if who is None else who.tier,
            "session_id": None if who is None else who.session_id,
        }


def verdict(
    token: str, project: Project, find_key: FindKey, *, now: int, pool_users: bool
) -> Verdict:
    """Judge a token as an exchange would, and tell how far it got. Nothing of it is repeated."""
    passed: list[str] = []
    try:
        identity = believe(
            token, project, find_key, now=now, pool_users=pool_users, passed=passed.append
        )
    except ExchangeRefused as refusal:
        failed = next(check for check in CHECKS if check not in passed)
        return Verdict(tuple(passed), failed, refusal.reason, refusal.message)
    return Verdict(tuple(passed), identity=identity)
