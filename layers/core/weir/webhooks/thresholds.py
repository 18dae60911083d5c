"""Which thresholds of a monthly budget have been reached. No I/O, no clock.

A budget is *low* from 80 % on, and *exceeded* from 100 % on, of what has been spent: what open
requests hold does not count, because most of it is given back. Near the end a request is admitted
only if its worst case fits, so the last cents may be out of reach for every request, and 100 % may
never come. Hence a budget is exceeded, too, once less is left than any request of this month has
held. docs/decisions/0030 argues for this.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from weir.projects.limits import usd
from weir.webhooks import events

LOW, FULL = 80, 100  # percent
SPENT, NO_ROOM = "spent", "no_room"


@dataclass(frozen=True, slots=True)
class Budget:
    """A monthly budget in nano-USD, and whose. `public` is what the events say of the subject: a
    project, or a customer.
    """

    limit: int
    is_customers: bool
    public: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Reached:
    """A threshold in percent; `reason`: the money is spent, or no request fits."""

    threshold: int
    reason: str = SPENT


def reached(limit: int, spent: int, least_held: int) -> list[Reached]:
    """Return the thresholds that so much spending has reached, in nano-USD. `least_held` is the
    least that one of the month's requests has held.
    """
    found = [Reached(LOW)] if spent * 100 >= limit * LOW else []
    if spent >= limit:
        found.append(Reached(FULL))
    elif limit - spent < least_held:
        found.append(Reached(FULL, NO_ROOM))
    return found


def event_type(budget: Budget, threshold: int) -> str:
    if budget.is_customers:
        return events.CUSTOMER_LOW if threshold == LOW else events.CUSTOMER_EXCEEDED
    return events.PROJECT_LOW if threshold == LOW else events.PROJECT_EXCEEDED


def event_data(
    budget: Budget, found: Reached, spent: int, period: str, resets_at: int
) -> dict[str, Any]:
    """Return the `data` of an event. `period` is a month, 2026-11; `resets_at` is Unix seconds."""
    low = found.threshold == LOW
    return {
        **budget.public,
        "reason": "budget_80" if low else found.reason,
        "threshold_percent": found.threshold,
        "budget_usd": usd(budget.limit),
        "spent_usd": usd(spent),
        "remaining_usd": usd(max(0, budget.limit - spent)),
        "period": period,
        "resets_at": resets_at,
    }
