"""What is done with the one table: every call and every condition. Its keys and items: `items`."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from weir.aws import codecs, contention, expressions, items, subjects
from weir.aws.expressions import ABSENT, PRESENT, Expression
from weir.aws.items import Item, Key, Record
from weir.aws.reading import every_item, items_at, until_nothing_is_left
from weir.aws.store import Part, Store
from weir.identity.api_keys import ApiKey, KeyHash
from weir.identity.keyring import Kid, PublicKey
from weir.identity.tenant_keys import REVOKED_KEPT_S, TenantKey, is_tenant_kid
from weir.operator.audit import Entry

_WRITE_BATCH = 25  # items in one BatchWriteItem


class Stale(Exception):
    """A record has changed since it was read: read it again."""


class Change(NamedTuple):
    """A record's next content, or None to remove it, whatever is there. `version` is the one it
    was read at; None if whatever is there may be replaced.
    """

    key: Key
    document: dict[str, Any] | None
    version: int | None


class SubjectChange(NamedTuple):
    """The next content of a subject's record (weir/revocation.py), written at `now`."""

    key: Key
    before: Record
    document: Mapping[str, Any]
    now: int  # Unix s


class Table:
    def __init__(self, client: Store, name: str) -> None:
        self._client = client
        self._name = name

    @property
    def client(self) -> Store:
        """For items whose calls are in a file of their own."""
        return self._client

    @property
    def name(self) -> str:
        return self._name

    # ------------------------------------------------------------ the key ring, public halves

    def public_keys(self) -> list[PublicKey]:
        """Every listed key, retired ones included. One round trip; a ring has a handful of keys."""
        found = [codecs.public_key_of(item) for item in self._query(items.KEYRING, consistent=True)]
        return [key for key in found if not is_tenant_kid(key.kid)]

    def publish(self, key: PublicKey) -> None:
        """List a key. Publishing it again changes nothing: not its age, not its retirement."""
        try:
            self._client.put_item(
                TableName=self._name,
                Item=codecs.public_key_item(key),
                ConditionExpression=ABSENT,
            )
        except Exception as error:
            if not contention.condition_failed(error):
                raise

    def retire(self, kids: Iterable[Kid], not_after: int) -> None:
        """Stop believing these keys at `not_after`. One that is retired already keeps its time."""
        retire = Expression(PRESENT)
        retire.require_absent("not_after")
        retire.set("not_after", not_after)
        retire.set("ttl", not_after)
        for kid in kids:
            try:
                self._client.update_item(
                    TableName=self._name, Key=codecs.keyring_key(kid).item(), **retire.built()
                )
            except Exception as error:
                if not contention.condition_failed(error):
                    raise

    def signs_from(self, kid: Kid, now: int) -> None:
        """Note since when a key is *current*. Noting it again changes nothing."""
        note = Expression(PRESENT)
        note.require_absent("signs_since")
        note.set("signs_since", now)
        try:
            self._client.update_item(
                TableName=self._name, Key=codecs.keyring_key(kid).item(), **note.built()
            )
        except Exception as error:
            if not contention.condition_failed(error):
                raise

    def distrust(self, kid: Kid, now: int, entry: Entry) -> None:
        """Believe a key of the ring no longer. It stays listed, so that rotation knows not to let
        it sign. Raises Stale if it is not there, or was distrusted before.
        """
        distrust = Expression(PRESENT)
        distrust.require_absent("distrusted_at")
        distrust.set("distrusted_at", now)
        distrust.set("not_after", now)
        part = expressions.update(self._name, codecs.keyring_key(kid), distrust)
        self._transact([part, *self._audited(entry)])

    # ------------------------------------------------------------ tenants' signing keys

    def tenant_keys(self) -> list[TenantKey]:
        """Every one, revoked ones included. One round trip."""
        found = [
            codecs.tenant_key_of(item) for item in self._query(items.TENANT_KEYS, consistent=True)
        ]
        return [key for key in found if is_tenant_kid(key.kid)]

    def add_tenant_key(self, key: TenantKey, entry: Entry) -> None:
        """Raises Stale if it exists, or if there is no such project."""
        parts = [expressions.put(self._name, codecs.tenant_key_item(key), Expression(ABSENT))]
        if key.pid is not None:
            parts.append(expressions.check(self._name, items.project(key.pid), Expression(PRESENT)))
        self._transact([*parts, *self._audited(entry)])

    def revoke_tenant_key(self, kid: Kid, now: int, entry: Entry) -> None:
        """Raises Stale if there is no such key, or it was revoked before."""
        revoke = Expression(PRESENT)
        revoke.require_absent("not_after")
        revoke.set("not_after", now)
        revoke.set("ttl", now + REVOKED_KEPT_S)
        part = expressions.update(self._name, codecs.tenant_key_key(kid), revoke)
        self._transact([part, *self._audited(entry)])

    # ------------------------------------------------------------ API keys

    def api_key(self, key_hash: KeyHash) -> ApiKey | None:
        """One round trip, strongly consistent: a revoked key is refused on its next request."""
        answer = self._client.get_item(
            TableName=self._name, Key=codecs.api_key_key(key_hash).item(), ConsistentRead=True
        )
        return codecs.api_key_of(answer["Item"]) if "Item" in answer else None

    def add_api_key(self, key: ApiKey, entry: Entry | None = None) -> None:
        """Raises Stale if it exists."""
        pointer = {**codecs.api_key_id_key(key.pid, key.key_id).item(), "hash": {"S": key.hash}}
        self._transact(
            [
                *(
                    expressions.put(self._name, item, Expression(ABSENT))
                    for item in (codecs.api_key_item(key), pointer)
                ),
                *self._audited(entry),
            ]
        )

    def api_key_hash(self, pid: str, key_id: str) -> KeyHash | None:
        answer = self._client.get_item(
            TableName=self._name, Key=codecs.api_key_id_key(pid, key_id).item(), ConsistentRead=True
        )
        item = answer.get("Item")
        return None if item is None else KeyHash(item["hash"]["S"])

    def api_keys(self, pid: str) -> list[ApiKey]:
        """Every key of a project, newest first, revoked ones included."""
        keys = [
            self.api_key(KeyHash(item["hash"]["S"]))
            for item in self._query(f"PROJECT#{pid}", "APIKEY#", consistent=True)
        ]
        found = [key for key in keys if key is not None]
        return sorted(found, key=lambda key: (key.created_at, key.key_id), reverse=True)

    def revoke_api_key(
        self, key_hash: KeyHash, now: int, project: Change | None = None, entry: Entry | None = None
    ) -> None:
        """`project` says which keys' tokens are refused from now on. Raises Stale if there is no
        such key, or it was revoked before, or somebody else is at it or at the project.
        """
        revoke = Expression(PRESENT)
        revoke.require_absent("revoked_at")
        revoke.set("revoked_at", now)
        part = expressions.update(self._name, codecs.api_key_key(key_hash), revoke)
        listed = [] if project is None else [self._changed(project)]
        self._transact([part, *listed, *self._audited(entry)])

    def api_key_was_used(self, key_hash: KeyHash, now: int) -> None:
        note = Expression(PRESENT)
        note.set("last_used_at", now)
        self._client.update_item(
            TableName=self._name, Key=codecs.api_key_key(key_hash).item(), **note.built()
        )

    # ------------------------------------------------------------ configuration

    def records(self, keys: Sequence[Key]) -> list[Record]:
        """In the order asked for, strongly consistent, in one round trip."""
        found = items_at(self._client, self._name, keys)
        return [items.record_of(found.get(key)) for key in keys]

    def projects(self) -> dict[str, Record]:
        """Every project, by pid."""
        return {
            item["sk"]["S"]: items.record_of(item)
            for item in self._query(items.PROJECTS, consistent=True)
        }

    def commit(
        self,
        changes: Iterable[Change | SubjectChange],
        entries: Iterable[Entry],
        unchanged: Iterable[tuple[Key, int]] = (),
    ) -> None:
        """All of the changes with their entries in the audit trail, or nothing. `unchanged` are
        records, with their versions, that the changes lean on. Raises Stale.
        """
        self._transact(
            [
                *(
                    expressions.check(self._name, key, _of_version(version))
                    for key, version in unchanged
                ),
                *(self._changed(change) for change in changes),
                *(part for entry in entries for part in self._audited(entry)),
            ]
        )

    def raise_overrun(self, candidate: str, percent: int) -> None:
        """Reserve so many percent of a candidate's output cap, unless it is more already."""
        note = Expression()
        note.raise_to(candidate, percent)
        note.add("version", 1)
        try:
            self._client.update_item(
                TableName=self._name, Key=items.OVERRUNS.item(), **note.built()
            )
        except Exception as error:
            if not contention.condition_failed(error):
                raise

    def reset_overrun(self, candidate: str, percent: int, entry: Entry) -> None:
        """Raises Stale if it is no longer `percent`."""
        reset = Expression()
        reset.require_equal(candidate, percent)
        reset.remove_named(candidate)
        reset.add("version", 1)
        self._transact(
            [expressions.update(self._name, items.OVERRUNS, reset), *self._audited(entry)]
        )

    def blocked_subjects(self, pid: str) -> list[dict[str, Any]]:
        return [
            items.record_of(item).document
            for item in self._query(f"PROJECT#{pid}", "BLOCKED#", consistent=True)
        ]

    def audit_trail(self, limit: int, older_than: str | None) -> tuple[list[Entry], bool]:
        """Newest first, and whether there are older ones: a page may have fewer than `limit`,
        because DynamoDB ends one at 1 MB. `older_than` is an entry's id.
        """
        condition, values = "pk = :pk", {":pk": {"S": items.AUDIT}}
        if older_than is not None:
            condition, values[":sk"] = f"{condition} AND sk < :sk", {"S": older_than}
        answer = self._client.query(
            TableName=self._name,
            KeyConditionExpression=condition,
            ExpressionAttributeValues=values,
            ScanIndexForward=False,
            Limit=limit,
            ConsistentRead=True,
        )
        return [codecs.audit_of(item) for item in answer["Items"]], "LastEvaluatedKey" in answer

    # ------------------------------------------------------------ origins that were refused

    def remember_refused_origin(self, pid: str, origin: str, now: int) -> None:
        self._client.put_item(TableName=self._name, Item=items.refused_item(pid, origin, now))

    def refused_origins(self, pid: str) -> list[tuple[str, int]]:
        """With the time of the last attempt, latest first. `pid` empty: at preflights."""
        found = [
            (item["origin"]["S"], int(item["last_at"]["N"]))
            for item in self._query(items.refused(pid))
        ]
        return sorted(found, key=lambda pair: pair[1], reverse=True)

    # ------------------------------------------------------------ a subject's content

    def erase_content(self, pid: str, subject_key: str) -> dict[str, int]:
        """Removes it all; returns how many items of each kind there were."""
        keys = [
            Key(item["pk"]["S"], item["sk"]["S"])
            for item in self._query(items.content(pid, subject_key), consistent=True)
        ]
        for start in range(0, len(keys), _WRITE_BATCH):
            batch = [
                {"DeleteRequest": {"Key": key.item()}} for key in keys[start : start + _WRITE_BATCH]
            ]
            until_nothing_is_left(self._write_batch, {self._name: batch})
        return dict(
            Counter(
                key.sk.partition("#")[0].lower()
                for key in keys
                if not key.sk.endswith(f"#{items.RECORD_OF_A_THREAD}")
            )
        )

    # ------------------------------------------------------------ the calls

    def _query(self, pk: str, prefix: str = "", *, consistent: bool = False) -> list[Item]:
        condition, values = "pk = :pk", {":pk": {"S": pk}}
        if prefix:
            condition, values[":sk"] = f"{condition} AND begins_with(sk, :sk)", {"S": prefix}
        found = every_item(
            self._client.query,
            TableName=self._name,
            KeyConditionExpression=condition,
            ExpressionAttributeValues=values,
            ConsistentRead=consistent,
        )
        return list(found)

    def _write_batch(self, requested: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the store did not get to."""
        answer = self._client.batch_write_item(RequestItems=requested)
        return answer.get("UnprocessedItems") or {}

    def _changed(self, change: Change | SubjectChange) -> Part:
        if isinstance(change, SubjectChange):
            written = subjects.update_of(change.before, change.document, change.now)
            return expressions.update(self._name, change.key, written)
        if change.document is None:
            return expressions.delete(self._name, change.key)
        item = items.record_item(change.key, change.document, (change.version or 0) + 1)
        was = None if change.version is None else _of_version(change.version)
        return expressions.put(self._name, item, was)

    def _audited(self, entry: Entry | None) -> list[Part]:
        if entry is None:
            return []
        return [expressions.put(self._name, codecs.audit_item(entry), Expression(ABSENT))]

    def _transact(self, parts: list[Part]) -> None:
        try:
            self._client.transact_write_items(TransactItems=parts)
        except Exception as error:
            if contention.met_others(error):
                raise Stale from error
            raise


def _of_version(version: int) -> Expression:
    """Return the condition that a record is as it was read; 0: there was none."""
    if not version:
        return Expression(ABSENT)
    same = Expression()
    same.require_equal("version", version)
    return same
