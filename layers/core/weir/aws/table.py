"""The one table: every key, every item and every condition, nowhere else.

    pk               sk           what
    KEYRING          KID#<kid>    a public signing key: n, e, created_at; not_after once retired
    APIKEY#<sha256>  APIKEY       an API key, found by the hash of what was sent
    PROJECT#<pid>    APIKEY#<id>  the same key's hash, found by its id (for revoking)

Times are Unix seconds. `ttl` lets DynamoDB tidy up; it may be days late, so no rule leans on it.
"""

from collections.abc import Iterable
from typing import Any

from botocore.exceptions import ClientError

from weir.api_keys import ApiKey, KeyHash
from weir.keyring import Kid, PublicKey

_KEYRING = "KEYRING"


class Table:
    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self._name = name

    # ------------------------------------------------------------ signing keys, public halves

    def public_keys(self) -> list[PublicKey]:
        """Every listed key, retired ones included. One round trip; a ring has a handful of keys."""
        answer = self._client.query(
            TableName=self._name,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": _KEYRING}},
            ConsistentRead=True,
        )
        return [_public_key(item) for item in answer["Items"]]

    def publish(self, key: PublicKey) -> None:
        """List a key. Publishing it again changes nothing: not its age, not its retirement."""
        item = {
            **_keyring_key(key.kid),
            "n": {"S": key.n},
            "e": {"S": key.e},
            "created_at": {"N": str(key.created_at)},
        }
        try:
            self._client.put_item(
                TableName=self._name, Item=item, ConditionExpression="attribute_not_exists(pk)"
            )
        except ClientError as error:
            if not _condition_failed(error):
                raise

    def retire(self, kids: Iterable[Kid], not_after: int) -> None:
        """Stop believing these keys at `not_after`. One that is retired already keeps its time."""
        for kid in kids:
            try:
                self._client.update_item(
                    TableName=self._name,
                    Key=_keyring_key(kid),
                    UpdateExpression="SET not_after = :t, #ttl = :t",
                    ConditionExpression="attribute_exists(pk) AND attribute_not_exists(not_after)",
                    ExpressionAttributeNames={"#ttl": "ttl"},
                    ExpressionAttributeValues={":t": {"N": str(not_after)}},
                )
            except ClientError as error:
                if not _condition_failed(error):
                    raise

    # ------------------------------------------------------------ API keys

    def api_key(self, key_hash: KeyHash) -> ApiKey | None:
        """One round trip, strongly consistent: a revoked key is refused on its next request."""
        answer = self._client.get_item(
            TableName=self._name, Key=_api_key_key(key_hash), ConsistentRead=True
        )
        item = answer.get("Item")
        return None if item is None else _api_key(key_hash, item)

    def add_api_key(self, key: ApiKey) -> None:
        self._client.transact_write_items(
            TransactItems=[
                {
                    "Put": {
                        "TableName": self._name,
                        "Item": item,
                        "ConditionExpression": "attribute_not_exists(pk)",
                    }
                }
                for item in (
                    _api_key_item(key),
                    {**_api_key_id_key(key.pid, key.key_id), "hash": {"S": key.hash}},
                )
            ]
        )

    def api_key_hash(self, pid: str, key_id: str) -> KeyHash | None:
        answer = self._client.get_item(TableName=self._name, Key=_api_key_id_key(pid, key_id))
        item = answer.get("Item")
        return None if item is None else KeyHash(item["hash"]["S"])

    def api_keys(self, pid: str) -> list[ApiKey]:
        """Every key of a project, newest first, revoked ones included."""
        keys: list[ApiKey] = []
        pages = self._client.get_paginator("query").paginate(
            TableName=self._name,
            KeyConditionExpression="pk = :pk AND begins_with(sk, :sk)",
            ExpressionAttributeValues={":pk": {"S": f"PROJECT#{pid}"}, ":sk": {"S": "APIKEY#"}},
        )
        for page in pages:
            for item in page["Items"]:
                key = self.api_key(KeyHash(item["hash"]["S"]))
                if key is not None:
                    keys.append(key)
        return sorted(keys, key=lambda key: key.created_at, reverse=True)

    def revoke_api_key(self, key_hash: KeyHash, now: int) -> bool:
        """False if there is no such key, or it was revoked before."""
        try:
            self._client.update_item(
                TableName=self._name,
                Key=_api_key_key(key_hash),
                UpdateExpression="SET revoked_at = :now",
                ConditionExpression="attribute_exists(pk) AND attribute_not_exists(revoked_at)",
                ExpressionAttributeValues={":now": {"N": str(now)}},
            )
        except ClientError as error:
            if _condition_failed(error):
                return False
            raise
        return True


def _condition_failed(error: ClientError) -> bool:
    return bool(error.response["Error"]["Code"] == "ConditionalCheckFailedException")


def _keyring_key(kid: Kid) -> dict[str, Any]:
    return {"pk": {"S": _KEYRING}, "sk": {"S": f"KID#{kid}"}}


def _public_key(item: dict[str, Any]) -> PublicKey:
    return PublicKey(
        kid=Kid(item["sk"]["S"].removeprefix("KID#")),
        n=item["n"]["S"],
        e=item["e"]["S"],
        created_at=int(item["created_at"]["N"]),
        not_after=int(item["not_after"]["N"]) if "not_after" in item else None,
    )


def _api_key_key(key_hash: KeyHash) -> dict[str, Any]:
    return {"pk": {"S": f"APIKEY#{key_hash}"}, "sk": {"S": "APIKEY"}}


def _api_key_id_key(pid: str, key_id: str) -> dict[str, Any]:
    return {"pk": {"S": f"PROJECT#{pid}"}, "sk": {"S": f"APIKEY#{key_id}"}}


def _api_key_item(key: ApiKey) -> dict[str, Any]:
    return {
        **_api_key_key(key.hash),
        "key_id": {"S": key.key_id},
        "pid": {"S": key.pid},
        "role": {"S": key.role},
        "scopes": {"SS": sorted(key.scopes)},
        "name": {"S": key.name},
        "display": {"S": key.display},
        "created_at": {"N": str(key.created_at)},
    }


def _api_key(key_hash: KeyHash, item: dict[str, Any]) -> ApiKey:
    return ApiKey(
        key_id=item["key_id"]["S"],
        hash=key_hash,
        pid=item["pid"]["S"],
        role=item["role"]["S"],
        scopes=frozenset(item["scopes"]["SS"]),
        name=item["name"]["S"],
        display=item["display"]["S"],
        created_at=int(item["created_at"]["N"]),
        revoked_at=int(item["revoked_at"]["N"]) if "revoked_at" in item else None,
    )
