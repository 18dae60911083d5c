"""Customers in the table: found by either of their names, created once, changed by version.

A customer's record lies on its subject's item, where an admission looks anyway: `customer` is the
document, and `etag` the version that the admission demands. So a request may go by the copy that
its process has, however old: if it has been changed since, the admission fails, brings the new
record along, and is tried again with it.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from weir.aws import contention, expressions, items
from weir.aws.expressions import ABSENT, PRESENT, Expression
from weir.aws.items import Key
from weir.aws.ledger.admission import judge_token
from weir.aws.reading import items_at
from weir.aws.store import Part, Store
from weir.chat.customers import (
    ForCustomer,
    named_by_server,
    refuse_another,
    token_use,
    with_its_limits,
)
from weir.customers.customer import DELETED, Customer, created
from weir.customers.names import PREFIX, Reference, ulid
from weir.errors import ExternalIdTaken, LedgerBusy, LimitReached, NotFound
from weir.freshness import Clock, is_due
from weir.identity.tokens import CUSTOMER, SERVER, Claims
from weir.projects.project import Project
from weir.projects.snapshot import Snapshot
from weir.revocation import Revocations
from weir.revocation import refusal as revoked
from weir.web.request import Request

HOUR_S = 3600
COUNTED_S = 2 * HOUR_S
FREED_AFTER_S = 86_400  # of a deleted customer's external id: as long as an Idempotency-Key is kept
MOST_KEPT = 1_000  # by one process
KNOWN_FOR_S = 5  # as any configuration
_NOTHING = (float("-inf"), None)
WITHIN_S = 3.0
FIRST_WAIT_S = 0.02
MOST_WAIT_S = 0.2


class Changed(Exception):
    """A customer's record has been changed since it was read."""


class Customers:
    def __init__(self, client: Store, table_name: str, clock: Clock) -> None:
        self._client = client
        self._name = table_name
        self._clock = clock
        self._kept: dict[tuple[str, str], tuple[float, Customer]] = {}

    # ------------------------------------------------------------ finding

    def find(self, pid: str, named: Reference, *, known: bool = False) -> Customer:
        """Return a customer as it is now: in one round trip, or in two by its external id. Raise
        NotFound, also for one that was deleted. `known`: as this process knows it, if it does.
        """
        customer_id = named.customer_id
        if named.external_id is not None:
            customer_id = self.id_of(pid, named.external_id)
        read = self.known if known else self.read
        found = None if customer_id is None else read(pid, customer_id)
        if found is None or found.status == DELETED:
            raise NotFound("There is no such customer.")
        return found

    def id_of(self, pid: str, external_id: str) -> str | None:
        key = items.external(pid, external_id)
        item = items_at(self._client, self._name, [key]).get(key)
        return None if item is None or "free_at" in item else str(item["customer"]["S"])

    def read(self, pid: str, customer_id: str) -> Customer | None:
        """Deleted ones are found, too."""
        key = items.subject(pid, items.customer(customer_id))
        found = items_at(self._client, self._name, [key])
        return self.keep(pid, customer_id, found.get(key, {}))

    def known(self, pid: str, customer_id: str) -> Customer | None:
        """Return what this process knows, and else reads. Who goes by it states its `etag` when the
        ledger admits. What refuses before that must not be old: one that is not active is read.
        """
        read_at, kept = self._kept.get((pid, customer_id), _NOTHING)
        if kept is None or not kept.is_active or is_due(read_at, KNOWN_FOR_S, self._clock()):
            return self.read(pid, customer_id)
        return kept

    def keep(self, pid: str, customer_id: str, item: Mapping[str, Any]) -> Customer | None:
        """Remember what somebody has read; return it, None if it is no customer."""
        self._kept.pop((pid, customer_id), None)
        found = customer_of(customer_id, item)
        if found is not None:
            if len(self._kept) >= MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[pid, customer_id] = (self._clock(), found)
        return found

    def of_request(
        self,
        request: Request,
        claims: Claims,
        body: Mapping[str, Any],
        snapshot: Snapshot,
        at_ms: int,
    ) -> tuple[ForCustomer, Snapshot]:
        """Return for which customer a request is, by what this process knows of it, and the
        snapshot with their limits. One that a server names as `user`, and that is not there, is
        created.
        """
        whom = self._whom(request, claims, body, snapshot.project, at_ms)
        return whom, with_its_limits(snapshot, whom)

    def _whom(
        self,
        request: Request,
        claims: Claims,
        body: Mapping[str, Any],
        project: Project,
        at_ms: int,
    ) -> ForCustomer:
        model = str(body.get("model"))
        if claims.bindings is not None:
            refuse_another(request, body, claims.uid)
            customer = self.known(claims.pid, claims.uid)
            if customer is None or customer.status == DELETED:
                raise revoked()
            customer.require_active()
            return ForCustomer(claims, customer, model)
        named = named_by_server(request, body)
        if named is None:
            return ForCustomer(claims, None, model)
        customer = self._named(project, *named, at_ms)
        customer.require_active()
        return ForCustomer(replace(claims, uid=customer.id, kind=CUSTOMER), customer, model)

    def _named(self, project: Project, named: Reference, create: bool, at_ms: int) -> Customer:
        try:
            return self.find(project.pid, named, known=True)
        except NotFound:
            if not create or named.external_id is None:
                raise NotFound(
                    "There is no such customer.", code="customer_not_found", param="FC-Customer"
                ) from None
        now = at_ms // 1000
        made = created({}, self.new_id(at_ms), now, project.customer_limits, named.external_id)
        try:
            self.create(project.pid, made, now, project.new_customers_per_hour)
        except (
            ExternalIdTaken
        ) as taken:  # by a request at the same moment; not by one deleted yesterday
            if taken.existing_id is None:
                raise
            return self.find(project.pid, Reference(taken.existing_id, None))
        return made

    def named(self, request: Request, claims: Claims) -> str | None:
        """Return the key in the ledger of the customer whom a server's request names beside its
        body; None if it names none. Raise NotFound.
        """
        if claims.kind != SERVER or (found := named_by_server(request, {})) is None:
            return None
        return items.customer(self.find(claims.pid, found[0], known=True).id)

    def of_page(self, request: Request, claims: Claims) -> Customer:
        """Return the customer of a client token that is used for something other than a chat, whose
        admission looks at the same. One round trip. Raise Unauthenticated, Forbidden.
        """
        bindings = claims.bindings
        assert bindings is not None
        subject = items.subject(claims.pid, claims.subject)
        record = items.client_token(claims.pid, bindings.token_id)
        found = items_at(self._client, self._name, [subject, record])
        item = found.get(subject, {})
        Revocations(items.record_of(item or None).document).judge(claims.issued)
        customer = self.keep(claims.pid, claims.uid, item)
        if customer is None or customer.status == DELETED:
            raise revoked()
        customer.require_active()
        judge_token(found.get(record, {}), token_use(request, bindings))
        return customer

    def page(self, pid: str, limit: int, after: str | None) -> tuple[list[Customer], str | None]:
        """Return the newest first, and after which one the next page begins. Two round trips."""
        condition, values = "pk = :pk", {":pk": {"S": items.listed_customer(pid, "").pk}}
        if after is not None:
            condition, values[":sk"] = f"{condition} AND sk < :sk", {"S": after}
        answer = self._client.query(
            TableName=self._name,
            KeyConditionExpression=condition,
            ExpressionAttributeValues=values,
            ScanIndexForward=False,
            Limit=limit,
            ConsistentRead=True,
        )
        ids = [item["sk"]["S"] for item in answer["Items"]]
        keys = [items.subject(pid, items.customer(each)) for each in ids]
        found = items_at(self._client, self._name, keys) if keys else {}
        read = [customer_of(each, found.get(key, {})) for each, key in zip(ids, keys, strict=True)]
        more = ids[-1] if "LastEvaluatedKey" in answer else None
        return [each for each in read if each is not None and each.status != DELETED], more

    # ------------------------------------------------------------ writing

    def new_id(self, at_ms: int) -> str:
        return PREFIX + ulid(at_ms, os.urandom(10))

    def create(
        self,
        pid: str,
        customer: Customer,
        now: int,
        most_per_hour: int,
        also: Sequence[Part] = (),
    ) -> None:
        """In one transaction, with its external id and its place in the list, and with `also`.
        Raise ExternalIdTaken, LimitReached above `most_per_hour`, LedgerBusy.
        """
        pointer = items.external(pid, customer.external_id)
        free = Expression()
        free.require_new_or_below("free_at", now)
        count = Expression()
        count.add("customers", 1, most=most_per_hour)
        count.set("ttl", now + COUNTED_S)
        named = {**pointer.item(), "customer": {"S": customer.id}}
        parts: list[Part] = [
            expressions.put(self._name, named, free),
            expressions.update(self._name, items.customers_made(pid, now), count),
            expressions.put(
                self._name, items.listed_customer(pid, customer.id).item(), Expression(ABSENT)
            ),
            expressions.update(
                self._name,
                items.subject(pid, items.customer(customer.id)),
                _written(customer, Expression(ABSENT)),
            ),
            *also,
        ]

        def create() -> None:
            try:
                self._client.transact_write_items(TransactItems=parts)
            except Exception as error:
                codes = contention.reason_codes(error)
                if codes[:1] == [contention.CONDITION_REASON]:
                    existing = self.id_of(pid, customer.external_id)
                    if existing == customer.id:
                        return  # the answer to the first try was lost
                    raise ExternalIdTaken(existing) from error
                if codes[1:2] == [contention.CONDITION_REASON]:
                    raise _too_many(most_per_hour, now) from error
                raise

        self._retried(create, contention.is_busy)
        self._kept[pid, customer.id] = (self._clock(), customer)

    def change(
        self, pid: str, before: Customer, after: Customer, also: Sequence[Part] = ()
    ) -> Customer:
        """Raise Changed if it is no longer as it was read."""
        same = Expression()
        same.require_equal("etag", before.etag)
        written = replace(after, etag=_next(before.etag))
        self._transact([self._subject(pid, written, same), *also])
        self._kept[pid, after.id] = (self._clock(), written)
        return written

    def delete(self, pid: str, before: Customer, now: int, also: Sequence[Part] = ()) -> None:
        """Refuse it from now on, with its tokens; free its external id after a day. Its record
        stays, so that what it has used has a name. Raise Changed.
        """
        gone = replace(before, status=DELETED, updated_at=now)
        same, pointer = Expression(), Expression(PRESENT)
        same.require_equal("etag", before.etag)
        pointer.set("free_at", now + FREED_AFTER_S)
        after = replace(gone, etag=_next(before.etag))
        self._transact(
            [
                self._subject(pid, after, same),
                expressions.update(self._name, items.external(pid, before.external_id), pointer),
                expressions.delete(self._name, items.listed_customer(pid, before.id)),
                *also,
            ]
        )
        self._kept[pid, before.id] = (self._clock(), after)

    def sign_out(self, pid: str, customer_id: str, now: int, also: Sequence[Part] = ()) -> None:
        """Refuse all tokens issued until now, as weir/revocation.py has it."""
        key = items.subject(pid, items.customer(customer_id))

        def sign_out() -> None:
            earlier = self._not_before(key)
            update = Expression(PRESENT)
            update.require_below("not_before", max(now, earlier + 1))
            update.set("not_before", max(now, earlier + 1))
            self._transact([expressions.update(self._name, key, update), *also])

        self._retried(sign_out, lambda error: isinstance(error, Changed))

    def issued_after(self, pid: str, customer_id: str, now: int) -> int:
        """Return the `iat` of a token that is minted now: after the last `sign_out`."""
        return max(now, self._not_before(items.subject(pid, items.customer(customer_id))) + 1)

    def _not_before(self, key: Key) -> int:
        item = items_at(self._client, self._name, [key]).get(key, {})
        return int(item.get("not_before", {"N": "0"})["N"])

    def _subject(self, pid: str, customer: Customer, when: Expression) -> Part:
        key = items.subject(pid, items.customer(customer.id))
        return expressions.update(self._name, key, _written(customer, when))

    def _transact(self, parts: Sequence[Part]) -> None:
        try:
            self._client.transact_write_items(TransactItems=list(parts))
        except Exception as error:
            if contention.met_others(error):
                raise Changed from error
            raise

    def _retried(self, call: Callable[[], None], again: Callable[[Exception], bool]) -> None:
        contention.retried(
            call,
            again,
            within_s=WITHIN_S,
            first_wait_s=FIRST_WAIT_S,
            most_wait_s=MOST_WAIT_S,
            given_up=LedgerBusy,
        )


def customer_of(customer_id: str, item: Mapping[str, Any]) -> Customer | None:
    """Return the customer whose subject's item this is; None if there is none."""
    if "customer" not in item:
        return None
    document = json.loads(item["customer"]["S"])
    return Customer.from_document(customer_id, document, item["etag"]["S"])


def _written(customer: Customer, when: Expression) -> Expression:
    text = json.dumps(customer.document(), separators=(",", ":"), ensure_ascii=False)
    when.set("customer", text)
    when.set("etag", customer.etag)
    when.set_once("version", 1)  # as any record has one
    return when


def _next(etag: str) -> str:
    return str(int(etag) + 1)


def _too_many(most: int, now: int) -> LimitReached:
    return LimitReached(
        f"{most} customers of this project have been created in this hour, which is its limit. "
        "Those that are there are not affected.",
        retry_after_s=HOUR_S - now % HOUR_S,
        details={"reason": "new_customers_per_hour"},
    )
