"""Client tokens in the table: one record each, which lists it, revokes it, and counts what is used
with it. It lies with the ledger's counters, because every admission with the token goes by it:

    doc          what its backend asked for, and when it was made
    exp          Unix s
    revoked_at   Unix s, if it was revoked
    ip, other_ip the network address that it is bound to, and that of the other family
    requests, nano_usd, nano_usd_reserved     counters, as of any account
"""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from weir.aws import contention, expressions, items
from weir.aws.expressions import PRESENT, Expression
from weir.aws.items import Item
from weir.aws.store import Part, Store
from weir.errors import LimitReached, NotFound
from weir.identity.client_tokens import ClientTokenRequest, customer_of, token_id

KEPT_S = 86_400  # after it has expired: what was begun with it is settled by then
COUNTED_S = 3600
MINTS_OF_A_CUSTOMER, MINTS_OF_A_KEY = 60, 600  # a minute


class ClientTokens:
    def __init__(self, client: Store, table_name: str) -> None:
        self._client = client
        self._name = table_name

    def count(self, pid: str, caller: str, most: int, now: int) -> None:
        """Count one mint of this minute for an API key or a customer, by its key in the ledger.
        Raise LimitReached above `most`.
        """
        count = Expression()
        count.add("tokens", 1, most=most)
        count.set("ttl", now + COUNTED_S)
        try:
            self._client.update_item(
                TableName=self._name, Key=items.asked(pid, caller, now).item(), **count.built()
            )
        except Exception as error:
            if contention.condition_failed(error):
                raise _too_many(most, now) from error
            raise

    def add(
        self, pid: str, customer_id: str, wish: ClientTokenRequest, key_id: str, issued_at: int
    ) -> str:
        """Write the record of a new token; return its id."""
        made = token_id(customer_id, os.urandom(10))
        expires_at = issued_at + wish.ttl_s
        document = {
            "scope": list(wish.scopes),
            "origin_allowlist": list(wish.origins),
            "bind_ip": str(wish.ip),
            "models": wish.models,
            "max_output_tokens": wish.max_output_tokens,
            "max_requests": wish.limits.max_requests,
            "max_spend_nano_usd": wish.limits.nano_usd,
            "prompt_id": wish.prompt_id,
            "metadata": dict(wish.metadata),
            "key_id": key_id,
            "created_at": issued_at,
        }
        item: Item = {
            **items.client_token(pid, made).item(),
            "doc": {"S": json.dumps(document, separators=(",", ":"), ensure_ascii=False)},
            "exp": {"N": str(expires_at)},
            "ttl": {"N": str(expires_at + KEPT_S)},
        }
        if wish.address is not None:
            item["ip"] = {"S": wish.address}
        self._client.put_item(TableName=self._name, Item=item)
        return made

    def page(
        self, pid: str, customer_id: str, limit: int, after: str | None
    ) -> tuple[list[dict[str, Any]], str | None]:
        """Return the records of a customer's tokens, and after which one the next page begins."""
        condition = "pk = :pk AND sk > :sk"
        answer = self._client.query(
            TableName=self._name,
            KeyConditionExpression=condition,
            ExpressionAttributeValues={
                ":pk": {"S": items.client_tokens(pid, customer_id)},
                ":sk": {"S": after or "ct_"},
            },
            Limit=limit,
            ConsistentRead=True,
        )
        found = [record_of(item) for item in answer["Items"]]
        return found, found[-1]["id"] if "LastEvaluatedKey" in answer else None

    def revoke(self, pid: str, named: str, now: int, also: Sequence[Part] = ()) -> None:
        """Refuse a token on its next request. Raise NotFound if there is none; once more is no
        error. With `also`, in one transaction.
        """
        if customer_of(named) is None:
            raise NotFound("There is no such client token.")
        revoke = Expression(PRESENT)
        revoke.set_once("revoked_at", now)
        part = expressions.update(self._name, items.client_token(pid, named), revoke)
        try:
            self._client.transact_write_items(TransactItems=[part, *also])
        except Exception as error:
            if contention.reason_codes(error)[:1] == [contention.CONDITION_REASON]:
                raise NotFound("There is no such client token.") from error
            raise

    def record(self, pid: str, named: str) -> dict[str, Any] | None:
        answer = self._client.get_item(
            TableName=self._name, Key=items.client_token(pid, named).item(), ConsistentRead=True
        )
        return record_of(answer["Item"]) if "Item" in answer else None


def record_of(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is kept of a token; of its address only that it is bound to one."""
    told = json.loads(item["doc"]["S"])
    number = {name: int(item[name]["N"]) for name in ("exp", "revoked_at") if name in item}
    used = {n: int(item.get(n, {"N": "0"})["N"]) for n in ("requests", "nano_usd")}
    return {
        "id": item["sk"]["S"],
        **told,
        "bound": "ip" in item,
        "expires_at": number["exp"],
        "revoked_at": number.get("revoked_at"),
        "used": used,
    }


def _too_many(most: int, now: int) -> LimitReached:
    refused = LimitReached(
        f"At most {most} client tokens are minted in a minute. A token can be used until it "
        "expires: keep it.",
        retry_after_s=60 - now % 60,
        details={"reason": "mint_rate_limited"},
    )
    refused.code = "mint_rate_limited"
    return refused
