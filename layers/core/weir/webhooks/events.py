"""Events: what a project's server can be told of (contracts/ringside.md, section 4.16)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CUSTOMER_LOW = "wallet.low"
CUSTOMER_EXCEEDED = "customer.budget_exceeded"
PROJECT_LOW = "project.budget_low"
PROJECT_EXCEEDED = "project.budget_exceeded"
TEST = "webhook.test"

# What an endpoint may subscribe to, and which event that is.
SUBSCRIPTIONS = {
    CUSTOMER_LOW: CUSTOMER_LOW,
    CUSTOMER_EXCEEDED: CUSTOMER_EXCEEDED,
    "budget.exceeded": CUSTOMER_EXCEEDED,  # the vendor's other name for it
    PROJECT_LOW: PROJECT_LOW,
    PROJECT_EXCEEDED: PROJECT_EXCEEDED,
    TEST: TEST,
}


@dataclass(frozen=True, slots=True)
class Event:
    """`id` stays the same however often the event is delivered. `created_at` is Unix seconds."""

    id: str
    type: str
    created_at: int
    data: Mapping[str, Any]

    def document(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": self.type,
            "created_at": self.created_at,
            "data": dict(self.data),
        }

    def body(self) -> bytes:
        """Return the bytes that are signed and sent: the same ones in each attempt."""
        return json.dumps(self.document(), separators=(",", ":")).encode()

    @classmethod
    def from_document(cls, told: Mapping[str, Any]) -> "Event":
        """Raise KeyError or TypeError for what is no event."""
        return cls(told["id"], told["type"], told["created_at"], told["data"])


def event_id(at_ms: int, random_hex: str) -> str:
    """Return an id that sorts by time. `random_hex`: 12 random hexadecimal digits."""
    return f"evt_{at_ms:012x}{random_hex}"
