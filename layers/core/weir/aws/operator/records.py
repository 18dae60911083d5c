"""Reading and writing of records, which all verbs share."""

import contextlib
import json
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from weir.aws import items
from weir.aws.contention import retried
from weir.aws.items import Key, Record
from weir.aws.provider_keys import ProviderKeys
from weir.aws.table import Change, Stale, Table
from weir.aws.webhooks.seal import Sealer
from weir.errors import Conflict, NotFound
from weir.operator.audit import Entry, differing
from weir.operator.documents import MAX_DOCUMENT_BYTES, check_catalogue
from weir.operator.mocks import check_no_mock_changes_places
from weir.web.origins import Origins

TRIES = 10
LEASE_S = 20  # for a few calls to Secrets Manager
MAX_TRANSACTION_BYTES = 3_500_000
FIRST_WAIT_S = 0.05
MOST_WAIT_S = 0.4

Document = dict[str, Any]
T = TypeVar("T")

# Members of a record that are no configuration.
STATE = ("killed", "created_at", "ledger_generation", "revoked_keys")


class Touched(NamedTuple):
    """One record that changes, under the name that the audit trail gives it."""

    key: Key
    before: Record
    after: Document
    action: str
    target: str

    @property
    def changes(self) -> bool:
        return self.after != self.before.document

    @property
    def redivides(self) -> bool:
        """It gives a pool that has, or had, several shards other limits or another number of them:
        what is used must be divided anew (weir/aws/ledger/), by whoever first counts by it.
        Nobody can have used what is new.
        """
        was, becomes = self.before.document, self.after
        shards = (was.get("ledger_shards", 1), becomes.get("ledger_shards", 1))
        return (
            self.before.version > 0
            and max(shards) > 1
            and (len(set(shards)) > 1 or was.get("limits", {}) != becomes.get("limits", {}))
        )

    def written(self) -> Document:
        """As it is kept: state that follows from the change is no part of what was asked for."""
        if not self.redivides:
            return self.after
        return {**self.after, "ledger_generation": self.after.get("ledger_generation", 0) + 1}

    def differing(self) -> tuple[Document | None, Document | None]:
        """Of the catalogue not all of its models, but those that differ."""
        before, after = differing(self.before.document or None, self.after)
        if self.key != items.CATALOGUE or before is None or after is None:
            return before, after
        parts = {n: differing(before.get(n, {}), after.get(n, {})) for n in {**before, **after}}
        return (
            {name: was for name, (was, _) in parts.items()},
            {name: now for name, (_, now) in parts.items()},
        )


class Records:
    """`actor` is who does it; `provider_keys` is for those who may set them, `sealer` for those who
    may make webhooks' secrets.
    """

    def __init__(
        self,
        table: Table,
        provider_keys: ProviderKeys,
        *,
        actor: str,
        clock: Callable[[], float] = time.time,
        sealer: Sealer | None = None,
    ) -> None:
        self._table = table
        self._provider_keys = provider_keys
        self._sealer = sealer
        self._actor = actor
        self._clock = clock

    # ------------------------------------------------------------ reading

    def catalogue(self) -> Document:
        """{"upstreams": {...}, "models": {...}}, as it is kept."""
        document = self._read(items.CATALOGUE).document
        return {"upstreams": document.get("upstreams", {}), "models": document.get("models", {})}

    def audit_trail(self, limit: int, older_than: str | None = None) -> tuple[list[Entry], bool]:
        """At most `limit` entries, newest first, and whether there are older ones."""
        return self._table.audit_trail(limit, older_than)

    def _now(self) -> int:
        return int(self._clock())

    def _read(self, key: Key) -> Record:
        return self._table.records([key])[0]

    def _project(self, pid: str) -> Record:
        record = self._read(items.project(pid))
        if not record.version:
            raise NotFound(f"There is no project {pid!r}.")
        return record

    # ------------------------------------------------------------ writing

    def _until_current(self, change: Callable[[], T]) -> T:
        return retried(
            change,
            lambda error: isinstance(error, Stale),
            tries=TRIES,
            first_wait_s=FIRST_WAIT_S,
            most_wait_s=MOST_WAIT_S,
            given_up=lambda: Conflict("Somebody else is changing the same thing. Try again."),
        )

    def _commit(self, touched: Iterable[Touched], leans_on: Iterable[tuple[Key, int]] = ()) -> None:
        """What changes of it, with the union of all origins if a project changes. `leans_on` are
        other records, with their versions, that must be as they were read.
        """
        changed = [each for each in touched if each.changes]
        if not changed:
            return
        for each in changed:
            _check_size(each.target, each.after)
        changes = [Change(each.key, each.written(), each.before.version) for each in changed]
        entries = [self._entry(each.action, each.target, *each.differing()) for each in changed]
        if any(each.key.pk == items.PROJECTS for each in changed):
            changes.append(self._changed_union(changed))
        _check_transaction(entries, changes)
        self._table.commit(changes, entries, leans_on)

    def _changed_union(self, changed: Iterable[Touched]) -> Change:
        before = self._read(items.ORIGINS)
        documents: dict[str, Mapping[str, Any]] = {
            pid: record.document for pid, record in self._table.projects().items()
        }
        documents.update({t.key.sk: t.after for t in changed if t.key.pk == items.PROJECTS})
        union = Origins.union(Origins.from_document(d) for d in documents.values()).document()
        _check_size("list of all projects' origins", union)
        # Written even if it is the same: of two projects changed at once, the second to be written
        # must have seen the first.
        return Change(items.ORIGINS, union, before.version)

    def _change_catalogue(
        self,
        part: str,
        name: str,
        action: str,
        put: Callable[[Document | None], Document] | None,
        *,
        always: bool = False,
        unless: Callable[[Document | None], None] = lambda before: None,
    ) -> Document:
        """One model or upstream; `put` None removes it. `always`: with an entry in the audit trail
        even if nothing that can be seen has changed. `unless` raises if a project is in the way;
        no project changes between that and the change.
        """

        def change() -> Document:
            record, origins = self._table.records([items.CATALOGUE, items.ORIGINS])
            document = {**record.document, part: dict(record.document.get(part, {}))}
            before = document[part].get(name)
            unless(before)
            after = put(before) if put else None
            if after is None:
                found(document[part], name, part.removesuffix("s"))
                del document[part][name]
            else:
                document[part][name] = after
            if after != before or always:
                check_catalogue(document)
                check_no_mock_changes_places(record.document, document)
                _check_size("catalogue", document)
                entry = self._entry(action, name, *differing(before, after))
                changes = [Change(items.CATALOGUE, document, record.version)]
                # Every change of a project writes the union of origins anew.
                self._table.commit(changes, [entry], [(items.ORIGINS, origins.version)])
            return after or {}

        return self._until_current(change)

    def _forget_keys(self, *upstreams: str) -> None:
        """Of those that have no note of a key any more."""
        there = self.catalogue()["upstreams"]
        if all("key_last4" in there.get(name, {}) for name in upstreams):
            return
        with self._alone_with_keys():
            there = self.catalogue()["upstreams"]
            self._provider_keys.remove(
                *(name for name in upstreams if "key_last4" not in there.get(name, {}))
            )

    @contextlib.contextmanager
    def _alone_with_keys(self) -> Iterator[None]:
        """All keys are one secret, which can only be read, changed and written: of two who do that
        at once, one would undo the other's.
        """

        def claim() -> int:
            lease = self._read(items.PROVIDER_KEYS)
            if lease.document.get("until", 0) > self._clock():
                raise Stale
            until = {"until": self._now() + LEASE_S, "by": self._actor}
            self._table.commit([Change(items.PROVIDER_KEYS, until, lease.version)], [])
            return lease.version + 1

        version = self._until_current(claim)
        try:
            yield
        finally:
            with contextlib.suppress(Stale):  # it took longer, and somebody else has it now
                self._table.commit([Change(items.PROVIDER_KEYS, {"until": 0}, version)], [])

    def _switched(self, document: Document, off: bool, reason: str) -> Document:
        """With its kill switch `off`, or on again."""
        if bool(document.get("killed")) == off:
            return document
        told = {name: value for name, value in document.items() if name != "killed"}
        if off:
            told["killed"] = {"reason": reason, "at": self._now(), "by": self._actor}
        return told

    def _entry(
        self,
        action: str,
        target: str,
        before: Mapping[str, Any] | None,
        after: Mapping[str, Any] | None,
    ) -> Entry:
        return Entry(
            at_ms=int(self._clock() * 1000),
            entry_id=secrets.token_hex(4),
            actor=self._actor,
            action=action,
            target=target,
            before=before,
            after=after,
        )


def found(there: Mapping[str, Document], name: str, kind: str) -> Document:
    if name not in there:
        raise NotFound(f"The catalogue has no {kind} {name!r}.")
    return there[name]


def existing(before: Document | None, name: str, kind: str) -> Document:
    """Of a change to what must be there: somebody may have removed it meanwhile."""
    return found({} if before is None else {name: before}, name, kind)


def state(document: Mapping[str, Any]) -> Document:
    return {name: document[name] for name in STATE if name in document}


def merged_limits(
    before: Document,
    told: Document,
    field: str,
    unset: Mapping[str, Collection[str]] | None,
) -> Document:
    """Limits that are named are set, the others stay; null takes all of them back."""
    if field in told and told[field] is None:
        return {}
    after = {**before.get(field, {}), **told.get(field, {})}
    return {
        name: value for name, value in after.items() if name not in (unset or {}).get(field, ())
    }


def _check_transaction(entries: list[Entry], changes: list[Change]) -> None:
    """DynamoDB takes 4 MB in one."""
    sizes = [len(json.dumps(c.document, ensure_ascii=False).encode()) for c in changes]
    sizes += [len(json.dumps(e.document(), ensure_ascii=False).encode()) for e in entries]
    if sum(sizes) > MAX_TRANSACTION_BYTES:
        raise Conflict("That is too much at once. Change or import it in parts.")


def _check_size(what: str, document: Document) -> None:
    """A record is one item of the table, and its entry in the audit trail another."""
    size = len(json.dumps(document, ensure_ascii=False).encode())
    if size > MAX_DOCUMENT_BYTES:
        raise Conflict(f"The {what} would have {size} bytes; {MAX_DOCUMENT_BYTES} fit.")
