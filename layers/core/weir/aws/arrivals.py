"""New users of other issuers: how many a project lets in within an hour.

Whoever can sign up at an issuer gets the limits of a user, so an issuer that is open to everyone
would multiply them. A user who was seen before costs one read, a new one a transaction that also
counts the hour: of as many as come at once no more get in.
"""

from weir.aws import contention, expressions, items
from weir.aws.contention import Busy
from weir.aws.expressions import ABSENT, Expression
from weir.aws.store import Store
from weir.errors import LedgerBusy, LimitReached
from weir.identity.issuers import Issuer

HOUR_S = 3600
KEPT_S = 2 * HOUR_S  # a counter
WITHIN_S = 1.0
FIRST_WAIT_S = 0.02
MOST_WAIT_S = 0.2


class Arrivals:
    def __init__(self, client: Store, table_name: str) -> None:
        self._client = client
        self._name = table_name

    def admit(self, pid: str, issuer: Issuer, user_id: str, now: int) -> bool:
        """Let a user in; return whether they are new. Raise LimitReached for a new one above the
        issuer's `new_users_per_hour`, LedgerBusy if too many come at once, AwsError. `now` is Unix
        seconds; an hour is one of the clock, in UTC.
        """
        known = items.known_user(pid, items.user(user_id))
        answer = self._client.get_item(TableName=self._name, Key=known.item())
        if "Item" in answer:
            return False
        return contention.retried(
            lambda: self._let_in(pid, issuer, user_id, now),
            lambda error: isinstance(error, Busy),
            within_s=WITHIN_S,
            first_wait_s=FIRST_WAIT_S,
            most_wait_s=MOST_WAIT_S,
            given_up=LedgerBusy,
        )

    def _let_in(self, pid: str, issuer: Issuer, user_id: str, now: int) -> bool:
        known = items.known_user(pid, items.user(user_id))
        count = Expression()
        count.add("users", 1, most=issuer.new_users_per_hour)
        count.set("ttl", now + KEPT_S)
        marker = {**known.item(), "issuer": {"S": issuer.name}, "first_seen_at": {"N": str(now)}}
        try:
            self._client.transact_write_items(
                TransactItems=[
                    expressions.put(self._name, marker, Expression(ABSENT)),
                    expressions.update(self._name, items.arrivals(pid, issuer.name, now), count),
                ]
            )
        except Exception as error:
            if contention.is_busy(error):
                raise Busy from error
            codes = contention.reason_codes(error)
            if codes[:1] == [contention.CONDITION_REASON]:
                return False  # another request of theirs was first
            if codes[1:2] == [contention.CONDITION_REASON]:
                raise _too_many(issuer, now) from error
            raise
        return True


def _too_many(issuer: Issuer, now: int) -> LimitReached:
    return LimitReached(
        f"{issuer.new_users_per_hour} new users of this issuer have come in this hour, which is "
        "the project's limit. Known users are not affected.",
        retry_after_s=HOUR_S - now % HOUR_S,
        details={"reason": "new_users_per_hour"},
    )
