"""Signing keys, API keys and audit entries as items of the table, and back."""

import json

from weir.aws.items import AUDIT, KEYRING, TENANT_KEYS, Item, Key
from weir.identity.api_keys import ApiKey, KeyHash
from weir.identity.keyring import Kid, PublicKey
from weir.identity.tenant_keys import TenantKey
from weir.operator.audit import Entry

# ---------------------------------------------------------------- signing keys, public halves


def keyring_key(kid: Kid) -> Key:
    return Key(KEYRING, f"KID#{kid}")


def public_key_item(key: PublicKey) -> Item:
    return {
        **keyring_key(key.kid).item(),
        "n": {"S": key.n},
        "e": {"S": key.e},
        "created_at": {"N": str(key.created_at)},
    }


def public_key_of(item: Item) -> PublicKey:
    return PublicKey(
        kid=Kid(item["sk"]["S"].removeprefix("KID#")),
        n=item["n"]["S"],
        e=item["e"]["S"],
        created_at=int(item["created_at"]["N"]),
        **{name: int(item[name]["N"]) for name in _TIMES if name in item},
    )


_TIMES = ("not_after", "signs_since", "distrusted_at")


def tenant_key_key(kid: Kid) -> Key:
    return Key(TENANT_KEYS, f"KID#{kid}")


def tenant_key_item(key: TenantKey) -> Item:
    return {
        **public_key_item(key.public),
        **tenant_key_key(key.kid).item(),
        **({} if key.pid is None else {"pid": {"S": key.pid}}),
        "name": {"S": key.name},
    }


def tenant_key_of(item: Item) -> TenantKey:
    pid = item["pid"]["S"] if "pid" in item else None
    return TenantKey(public_key_of(item), pid, item["name"]["S"])


# ---------------------------------------------------------------- API keys


def api_key_key(key_hash: KeyHash) -> Key:
    return Key(f"APIKEY#{key_hash}", "APIKEY")


def api_key_id_key(pid: str, key_id: str) -> Key:
    return Key(f"PROJECT#{pid}", f"APIKEY#{key_id}")


def api_key_item(key: ApiKey) -> Item:
    return {
        **api_key_key(key.hash).item(),
        "key_id": {"S": key.key_id},
        "pid": {"S": key.pid},
        "role": {"S": key.role},
        "scopes": {"SS": sorted(key.scopes)},
        "name": {"S": key.name},
        "display": {"S": key.display},
        "created_at": {"N": str(key.created_at)},
    }


def api_key_of(item: Item) -> ApiKey:
    return ApiKey(
        key_id=item["key_id"]["S"],
        hash=KeyHash(item["pk"]["S"].removeprefix("APIKEY#")),
        pid=item["pid"]["S"],
        role=item["role"]["S"],
        scopes=frozenset(item["scopes"]["SS"]),
        name=item["name"]["S"],
        display=item["display"]["S"],
        created_at=int(item["created_at"]["N"]),
        revoked_at=int(item["revoked_at"]["N"]) if "revoked_at" in item else None,
        last_used_at=int(item["last_used_at"]["N"]) if "last_used_at" in item else None,
    )


# ---------------------------------------------------------------- audit trail


def audit_item(entry: Entry) -> Item:
    told = {"before": entry.before, "after": entry.after}
    return {
        **Key(AUDIT, f"{entry.at_ms:013d}#{entry.entry_id}").item(),
        "actor": {"S": entry.actor},
        "action": {"S": entry.action},
        "target": {"S": entry.target},
        "doc": {"S": json.dumps(told, separators=(",", ":"), ensure_ascii=False)},
    }


def audit_of(item: Item) -> Entry:
    at_ms, _, entry_id = item["sk"]["S"].partition("#")
    told = json.loads(item["doc"]["S"])
    return Entry(
        at_ms=int(at_ms),
        entry_id=entry_id,
        actor=item["actor"]["S"],
        action=item["action"]["S"],
        target=item["target"]["S"],
        before=told["before"],
        after=told["after"],
    )
