"""Admitting a request by all of its accounts or by none: in one transaction, with the room for it
made first if its pool is divided, and undone if nobody knows whether it was carried out.
"""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from weir.aws import contention, expressions, items, subjects
from weir.aws.contention import CONDITION_REASON, Busy
from weir.aws.expressions import ABSENT, PRESENT, Expression
from weir.aws.items import Item, Key
from weir.aws.ledger.books import (
    CONFLICTS_S,
    key_of,
    let_expire,
    members,
    place,
    reservation_item,
    used_of,
)
from weir.aws.ledger.settlement import Settlements
from weir.aws.store import Part
from weir.errors import Conflict, Internal, LedgerBusy
from weir.identity.bindings import ip_mismatch
from weir.ledger import rules
from weir.ledger.admission import Ask, Reservation, StaleConfiguration, StaleCustomer, TokenUse
from weir.ledger.rules import (
    MINUTE,
    NOW,
    TOKEN,
    USER,
    Account,
    Amounts,
    Field,
    Settlement,
    Used,
)
from weir.revocation import Revocations
from weir.revocation import refusal as revoked

log = logging.getLogger(__name__)

UNDO_TRIES = 5

_MARK = "g"


@dataclass(frozen=True, slots=True)
class _Over:
    """A limit that refuses; `used` is of the whole pool."""

    account: Account
    field: Field
    used: int


class Admissions(Settlements):
    def admit(self, ask: Ask) -> Reservation:
        """Hold the worst case of a request: in one round trip, all or nothing, if no other request
        is in the way and nothing must shrink.

        Raises the refusal that says which limit; Killed for a blocked user; Unauthenticated for a
        revoked token; Conflict if this user has an open request with this id; LedgerBusy if others
        were in the way for too long; StaleConfiguration; AwsError, and then nothing is held.
        """
        at = int(self._clock())
        reservation_id = os.urandom(16).hex()
        accounts = _accounts(ask)
        if ask.limits.concurrent_streams == 0:  # a set that is not there has no size to compare
            (user,) = (each for each in accounts if each.scope == USER)
            raise rules.refusal(user, rules.BY_CODE["s"], 0, Amounts(0, 0), at, ask.tier)
        held = [rules.held(each) for each in accounts if each.scope == USER or each.fields]
        output_tokens, tries = ask.output_tokens, 0

        def admit() -> Reservation:
            nonlocal output_tokens, tries
            while True:
                tries += 1
                reservation = Reservation(
                    id=reservation_id,
                    due=ask.due,
                    pid=ask.pid,
                    subject=ask.subject,
                    completion_id=ask.completion_id,
                    at=at,
                    amounts=ask.price(output_tokens),
                    output_tokens=output_tokens,
                    held=held,
                    row=ask.row,
                )
                over = self._reserve(reservation, accounts, ask, tries)
                if not over:
                    return reservation
                output_tokens = _smaller(ask, output_tokens, over, reservation.amounts, at)

        return self._retried(admit, _was_busy, within_s=CONFLICTS_S, given_up=LedgerBusy)

    def _reserve(
        self,
        reservation: Reservation,
        accounts: Sequence[Account],
        ask: Ask,
        tries: int,
    ) -> list[_Over]:
        """Return the limits that refuse it; none, if it is admitted. Raises Busy if it is neither
        admitted nor refused.
        """
        # In the order of what is read from the reasons below.
        subject = items.subject(reservation.pid, reservation.subject)
        parts = [
            expressions.check(self._name, subject, subjects.condition_for(ask.token, ask.etag)),
            expressions.put(self._name, reservation_item(reservation), Expression(ABSENT)),
        ]
        places: list[tuple[Account, str, list[Field]]] = []
        for account in accounts:
            for window, fields in account.windows().items():
                places.append((account, window, fields))
                if account.scope == TOKEN and ask.client_token is not None:
                    parts.append(self._with_token(reservation, account, ask.client_token))
                else:
                    parts.append(self._taking(reservation, account, window, fields))
        try:
            self._transact(parts, f"{reservation.id}{tries:04d}")
            return []
        except Exception as error:
            if contention.is_busy(error):
                raise Busy from error
            reasons = contention.reasons_of(error)
            failed = [reason.get("Code") == CONDITION_REASON for reason in reasons]
            if not any(failed):
                if not contention.is_wrong(error):
                    self._undo(reservation)
                raise
        if failed[1]:  # it was admitted the first time, and the answer was lost
            return []
        if failed[0]:
            raise _refusal_of_subject(reasons[0].get("Item") or {}, ask)
        refusing = [
            (*place, reason.get("Item") or {})
            for place, failing, reason in zip(places, failed[2:], reasons[2:], strict=True)
            if failing
        ]
        for account, _, _, item in refusing:
            if account.scope == TOKEN and ask.client_token is not None:
                judge_token(item, ask.client_token)
        return self._refused(reservation, refusing)

    def _refused(
        self,
        reservation: Reservation,
        refusing: Iterable[tuple[Account, str, Sequence[Field], Item]],
    ) -> list[_Over]:
        """Return the limits that refuse it indeed, once room has been made where there is any."""
        over: list[_Over] = []
        waits = False
        for account, window, fields, item in refusing:
            try:
                over += self._judged(reservation, account, window, fields, item)
            except Busy as busy:
                waits = waits or not busy.at_once
        if over:
            return over
        raise Busy(at_once=not waits)

    def _judged(
        self,
        reservation: Reservation,
        account: Account,
        window: str,
        fields: Sequence[Field],
        item: Item,
    ) -> list[_Over]:
        at, amounts, used = reservation.at, reservation.amounts, used_of(item)
        is_open = account.scope == USER and window == NOW
        if is_open and reservation.completion_id in members(item, "open"):
            raise Conflict(
                f"A request with the id {reservation.completion_id!r} is still open. Choose "
                "another X-Client-Request-Id, or cancel that one."
            )
        if account.is_pool and window != MINUTE and used.get(_MARK, 0) > account.generation:
            raise StaleConfiguration
        if account.is_pool and (account.shards > 1 or account.generation):
            return self._make_room(reservation, account, window)
        over = account.over(fields, used, amounts, at)
        return [_Over(account, field, used.get(rules.attribute(field, at), 0)) for field in over]

    def _taking(
        self, reservation: Reservation, account: Account, window: str, fields: Sequence[Field]
    ) -> Part:
        at, amounts = reservation.at, reservation.amounts
        expression = Expression()
        if account.scope == USER and window == NOW:
            expression.add("open", [reservation.completion_id])
            expression.require_member("open", reservation.completion_id, absent=True)
            most = account.limit(rules.BY_CODE["s"])
            if most is not None:
                expression.require_fewer("open", most)
            fields = ()
        for field in fields:
            most = account.share(field)
            expression.add(rules.attribute(field, at), amounts.of(field), most=most)
            if field.reserved:
                expression.add(field.reserved, amounts.of(field))
        if account.is_pool and window != MINUTE:
            expression.require_equal(_MARK, account.generation or None)
        let_expire(expression, window, at)
        if any(field.period == rules.DAY for field in fields):
            expression.remove(rules.other_days(at))
        return self._update(
            place(reservation.pid, account.scope, account.part, window, at), expression
        )

    def _with_token(self, reservation: Reservation, account: Account, used: TokenUse) -> Part:
        """Return the part that looks at a client token's record, binds it and counts."""
        expression = Expression(PRESENT)
        expression.require_absent("revoked_at")
        for field in account.fields:
            amount = reservation.amounts.of(field)
            expression.add(field.unit, amount, most=account.limit(field))
            if field.reserved:
                expression.add(field.reserved, amount)
        if used.address is not None and used.first:
            expression.require_equal_if_present(used.attribute, used.address)
            expression.set(used.attribute, used.address)
        elif used.address is not None:
            expression.require_equal(used.attribute, used.address)
        key = items.client_token(reservation.pid, used.token_id)
        if expression.changes_nothing:
            return expressions.check(self._name, key, expression)
        return self._update(key, expression)

    # ------------------------------------------------------------ making room

    def _make_room(self, reservation: Reservation, account: Account, window: str) -> list[_Over]:
        """Move what is used between the shards of a pool, so that this one has room.

        Returns the limits that refuse the request even so. Raises Busy if none does: room was made,
        and the request is to be tried again.
        """
        at, amounts = reservation.at, reservation.amounts
        shards = items.MOST_SHARDS if account.generation else account.shards
        keys = [
            place(reservation.pid, account.scope, str(shard), window, at) for shard in range(shards)
        ]
        found = self.read(keys)
        used = [used_of(item) for item in found]
        if window != MINUTE and any(each.get(_MARK, 0) > account.generation for each in used):
            raise StaleConfiguration
        wanted, refused = rules.redistributed(account, window, used, amounts, at)
        if refused:
            # The items are read one after the other. What was settled or moved meanwhile is in both
            # of two, and adds up to more than there ever was: nobody is refused because of that.
            if self.read(keys) != found:
                raise Busy
            return [_Over(account, field, total) for field, total in refused]
        parts = self._moving(account, window, at, zip(keys, used, wanted, strict=True))
        if parts:
            try:
                self._transact(parts, os.urandom(16).hex())
            except Exception as error:
                if contention.is_busy(error) or contention.met_others(error):
                    raise Busy from error
                raise
        raise Busy(at_once=True)

    def _moving(
        self,
        account: Account,
        window: str,
        at: int,
        changes: Iterable[tuple[Key, Used, Mapping[str, int]]],
    ) -> list[Part]:
        """Return the writes by which each item, that has the first, comes to have the second. What
        is settled meanwhile is no hindrance; what is admitted is.
        """
        marked = account.generation > 0 and window != MINUTE
        parts = []
        for key, was, wants in changes:
            divided = marked and was.get(_MARK) != account.generation
            moved = {n: value - was.get(n, 0) for n, value in wants.items()}
            if not divided and not any(moved.values()):
                continue
            expression = Expression()
            for name, by in moved.items():
                expression.add(name, by, most=was.get(name, 0) + by)
            if marked:
                expression.require_equal(_MARK, was.get(_MARK))
                expression.set(_MARK, account.generation)
            let_expire(expression, window, at)  # this may make the item
            parts.append(self._update(key, expression))
        return parts

    # ------------------------------------------------------------ undoing

    def _undo(self, reservation: Reservation) -> None:
        """Undo an admission whose answer never came: whether it was carried out, is being so, or
        never will be. Never raises.
        """
        nothing = Settlement(0, 0, answered=False)

        def undo() -> None:
            if self.settle(reservation, nothing, None, by="u"):
                return
            try:
                # It is not there, and with this in its place it never will be. The sweeper removes
                # it.
                self._client.put_item(
                    TableName=self._name,
                    Item=key_of(reservation).item(),
                    ConditionExpression=ABSENT,
                )
            except Exception as error:
                if contention.condition_failed(error) or contention.is_conflict(error):
                    raise Busy from error  # it is there now, or coming
                raise

        try:
            self._retried(undo, _was_busy, tries=UNDO_TRIES)
        except Exception:
            log.exception("an admission of which nothing is known could not be undone")


def _refusal_of_subject(item: Item, ask: Ask) -> Exception:
    """Return why the subject's record does not let the request pass, or raise it."""
    Revocations(items.record_of(item or None).document).judge(ask.token)
    if ask.etag is not None and item.get("etag", {}).get("S") != ask.etag:
        return StaleCustomer(item)
    return Internal()  # the condition and the rule disagree


def judge_token(item: Item, used: TokenUse) -> None:
    """Raise the refusal of a token that no longer is what it was, or is not where it was."""
    if not item or "revoked_at" in item:
        raise revoked()
    bound = item.get(used.attribute, {}).get("S")
    if used.address is not None and bound != used.address and not (used.first and bound is None):
        raise ip_mismatch()


def _accounts(ask: Ask) -> list[Account]:
    """Return the client token's, the user's, the project's and the tenant's; of a pool, a shard at
    random. Then the network address's, if the project limits addresses.
    """
    token = ask.client_token
    accounts = [
        *([] if token is None else [rules.of_token(token.token_id, token.limits)]),
        rules.of_subject(ask.subject, ask.limits, ask.limited),
        rules.of_pool(rules.PROJECT, ask.project, os.urandom(1)[0]),
        rules.of_pool(rules.TENANT, ask.tenant, os.urandom(1)[0]),
    ]
    if ask.address_rpm is not None:
        accounts.append(rules.of_address(items.address(ask.address), ask.address_rpm))
    return accounts


def _was_busy(error: Exception) -> bool:
    return isinstance(error, Busy)


def _smaller(ask: Ask, output_tokens: int, over: Sequence[_Over], amounts: Amounts, at: int) -> int:
    """Return how many output tokens fit into what is left, if the caller did not choose how many.
    Raises the refusal.
    """
    fits = output_tokens
    for each in over:
        limit = each.account.limit(each.field) or 0
        fits = min(fits, ask.afford(each.field, limit - each.used))
    fits -= fits % ask.choices
    if ask.shrinkable and rules.LEAST_OUTPUT_TOKENS * ask.choices <= fits < output_tokens:
        return fits
    order = list(rules.BY_CODE)
    first = min(over, key=lambda each: order.index(each.field.code))
    raise rules.refusal(first.account, first.field, first.used, amounts, at, ask.tier)
