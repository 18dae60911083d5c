"""A project's webhook endpoints: one record, so that there are never more than MOST_ENDPOINTS, and
every change is written with its entry in the audit trail.
"""

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from weir.aws import items
from weir.aws.contention import retried
from weir.aws.items import Record
from weir.aws.table import Change, Stale, Table
from weir.aws.webhooks import outbox
from weir.aws.webhooks.deliveries import Failures, states
from weir.aws.webhooks.seal import Sealer
from weir.errors import Conflict, NotFound
from weir.operator.audit import Entry, differing
from weir.webhooks import endpoints as rules
from weir.webhooks.endpoints import MOST_ENDPOINTS, OLD_SECRET_S, Endpoint
from weir.webhooks.events import TEST
from weir.webhooks.signature import SECRET_BYTES, SECRET_PREFIX

TRIES = 10
FIRST_WAIT_S = 0.05
MOST_WAIT_S = 0.4
MOST_REPLAYED = 100  # of one call

T = TypeVar("T")
Document = dict[str, Any]


def endpoints_of(record: Record) -> dict[str, Endpoint]:
    """Return a project's endpoints by id, in order of id."""
    told = record.document.get("endpoints", {})
    return {each: Endpoint.from_document(each, told[each]) for each in sorted(told)}


class Endpoints:
    """What one actor may do with the endpoints of one project, which must exist."""

    def __init__(
        self,
        table: Table,
        sealer: Sealer,
        pid: str,
        *,
        actor: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`clock` gives Unix seconds."""
        self._table = table
        self._client, self._name = table.client, table.name
        self._sealer = sealer
        self._pid = pid
        self._actor = actor
        self._clock = clock

    # ------------------------------------------------------------ reading

    def page(
        self, limit: int = MOST_ENDPOINTS, after: str | None = None
    ) -> tuple[list[Document], str | None]:
        """Return one page, and the id after which the next one begins."""
        found = endpoints_of(self._record())
        ids, more = rules.page(list(found), limit, after)
        return self._views([found[each] for each in ids]), more

    def get(self, endpoint_id: str) -> Document:
        return self._views([self._found(self._record(), endpoint_id)])[0]

    def _views(self, endpoints: list[Endpoint]) -> list[Document]:
        known = states(self._client, self._name, self._pid, [each.id for each in endpoints])
        return [{**each.view(), **known[each.id].view()} for each in endpoints]

    # ------------------------------------------------------------ changing

    def create(self, told: Mapping[str, Any]) -> tuple[Document, str]:
        """Return the endpoint and its secret, which nobody can read again."""
        parsed, endpoint_id, now = rules.parse_new(told), _new_id(), int(self._clock())
        secret, sealed = self._new_secret(endpoint_id)
        made = Endpoint(
            id=endpoint_id, created_at=now, secret=sealed, secret_created_at=now, **parsed
        )

        def create() -> Document:
            record = self._record()
            if len(endpoints_of(record)) >= MOST_ENDPOINTS:
                raise Conflict(
                    f"A project has at most {MOST_ENDPOINTS} webhook endpoints. Remove one first.",
                    details={"reason": "too_many_webhook_endpoints", "most": MOST_ENDPOINTS},
                )
            self._write(record, "webhook.create", None, made)
            return made.view()

        return self._until_current(create), secret

    def update(self, endpoint_id: str, told: Mapping[str, Any]) -> Document:
        parsed = rules.parse_change(told)

        def update() -> Document:
            record = self._record()
            before = self._found(record, endpoint_id)
            self._write(record, "webhook.update", before, replace(before, **parsed))
            return self.get(endpoint_id)

        return self._until_current(update)

    def remove(self, endpoint_id: str) -> None:
        """What is on its way to it is dropped."""

        def remove() -> None:
            record = self._record()
            self._write(record, "webhook.remove", self._found(record, endpoint_id), None)

        self._until_current(remove)

    def rotate(self, endpoint_id: str) -> tuple[Document, str]:
        """Return the endpoint and its new secret. The old one signs, too, for OLD_SECRET_S."""
        secret, sealed = self._new_secret(endpoint_id)
        now = int(self._clock())

        def rotate() -> Document:
            record = self._record()
            before = self._found(record, endpoint_id)
            after = replace(
                before,
                secret=sealed,
                secret_created_at=now,
                old_secret=before.secret,
                old_secret_until=now + OLD_SECRET_S,
            )
            self._write(record, "webhook.rotate_secret", before, after)
            return after.view()

        return self._until_current(rotate), secret

    # ------------------------------------------------------------ deliveries

    def test(self, endpoint_id: str) -> Document:
        """Send it an event of type `webhook.test`; return the event."""
        self._found(self._record(), endpoint_id)
        data = {"project": self._pid, "endpoint": endpoint_id}
        event = outbox.new_event(TEST, data, self._clock())
        outbox.add(self._client, self._name, self._pid, f"test#{event.id}", event, to=endpoint_id)
        return event.document()

    def failed(
        self, endpoint_id: str, limit: int, after: str | None = None
    ) -> tuple[list[Document], str | None]:
        """Return what could not be delivered, newest first, and the id after which older ones
        come.
        """
        self._found(self._record(), endpoint_id)
        found, more = self._failures(endpoint_id).page(limit, after)
        return [each.view() for each in found], more

    def replay(self, endpoint_id: str, event_id: str | None) -> list[str]:
        """Deliver again, under its own id, an event that was given up; None: up to MOST_REPLAYED of
        them, newest first. Return their ids.
        """
        self._found(self._record(), endpoint_id)
        failures = self._failures(endpoint_id)
        if event_id is None:
            found, _ = failures.page(MOST_REPLAYED, None)
        else:
            found = [failures.get(event_id)]
        at_ms = int(self._clock() * 1000)
        for failure in found:
            place = f"replay#{endpoint_id}#{failure.event.id}#{at_ms}"
            # The record goes once the event is on its way: a crash between delivers twice.
            outbox.add(self._client, self._name, self._pid, place, failure.event, to=endpoint_id)
            failures.remove(failure.event.id)
        return [failure.event.id for failure in found]

    # ------------------------------------------------------------ the record

    def _failures(self, endpoint_id: str) -> Failures:
        return Failures(self._client, self._name, self._pid, endpoint_id)

    def _record(self) -> Record:
        return self._table.records([items.webhooks(self._pid)])[0]

    def _found(self, record: Record, endpoint_id: str) -> Endpoint:
        found = endpoints_of(record).get(endpoint_id)
        if found is None:
            raise NotFound(f"There is no webhook endpoint {endpoint_id[:100]!r}.")
        return found

    def _new_secret(self, endpoint_id: str) -> tuple[str, str]:
        secret = SECRET_PREFIX + secrets.token_urlsafe(SECRET_BYTES)
        return secret, self._sealer.seal(self._pid, endpoint_id, secret)

    def _write(
        self, record: Record, action: str, before: Endpoint | None, after: Endpoint | None
    ) -> None:
        kept = {each.id: each for each in endpoints_of(record).values()}
        if before is not None:
            del kept[before.id]
        if after is not None:
            kept[after.id] = after
        document = {"endpoints": {name: each.document() for name, each in kept.items()}}
        named = after or before
        was, becomes = differing(
            None if before is None else before.view(), None if after is None else after.view()
        )
        entry = Entry(
            at_ms=int(self._clock() * 1000),
            entry_id=secrets.token_hex(4),
            actor=self._actor,
            action=action,
            target=f"{self._pid}/{named.id if named else ''}",
            before=was,
            after=becomes,
        )
        key = items.webhooks(self._pid)
        self._table.commit([Change(key, document, record.version)], [entry])

    def _until_current(self, change: Callable[[], T]) -> T:
        return retried(
            change,
            lambda error: isinstance(error, Stale),
            tries=TRIES,
            first_wait_s=FIRST_WAIT_S,
            most_wait_s=MOST_WAIT_S,
            given_up=lambda: Conflict("Somebody else is changing the same thing. Try again."),
        )


def _new_id() -> str:
    return f"wh_{secrets.token_hex(12)}"
