"""The audit trail's entries: who changed what, when, from what to what. Never a secret: of an API
key its id, of a provider's key its last four characters.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Entry:
    """`at_ms` is Unix milliseconds; `before` and `after` hold what differs, None: was not there.
    `actor` is cognito:<sub> <e-mail> for the admin API, an IAM ARN for the command line.
    """

    at_ms: int
    entry_id: str
    actor: str
    action: str
    target: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None

    def document(self) -> dict[str, Any]:
        return {
            "id": f"{self.at_ms:013d}#{self.entry_id}",
            "at": self.at_ms // 1000,
            "actor": self.actor,
            "action": self.action,
            "target": self.target,
            "before": self.before,
            "after": self.after,
        }


def differing(
    before: Mapping[str, Any] | None, after: Mapping[str, Any] | None
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Of two documents the fields that differ, on both sides."""
    if before is None or after is None:
        return (
            None if before is None else dict(before),
            None if after is None else dict(after),
        )
    changed = [n for n in {**before, **after} if before.get(n, ...) != after.get(n, ...)]
    return (
        {name: before[name] for name in changed if name in before},
        {name: after[name] for name in changed if name in after},
    )
