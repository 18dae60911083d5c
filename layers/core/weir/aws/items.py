"""The one table: every key and what lies there. The calls are in `table`, the items of API keys,
signing keys and audit entries in `codecs`. Standard library only: the preflight function uses it.

    pk                    sk           what
    KEYRING               KID#<kid>    a public signing key; not_after once it is retired
    APIKEY#<sha256>       APIKEY       an API key, found by the hash of what was sent
    PROJECT#<pid>         APIKEY#<id>  the same key's hash, found by its id
    PROJECT#<pid>         BLOCKED#<h>  a subject that is blocked, so that they can be listed
    TENANT                TENANT       record: limits of the deployment, its kill switch
    TENANT                CATALOGUE    record: upstreams and models
    TENANT                ORIGINS      record: the union of all projects' origins, for preflights
    TENANT                KEYS         record: until when one operator alone writes providers' keys
    PROJECTS              <pid>        record: a project
    SUBJECT#<pid>#<s>     SUBJECT      record: the subject is blocked, and why; else there is none
    CONTENT#<pid>#<s>     <kind>#…     what a subject has said and been told; none is kept yet
    REFUSED#<pid>         <slot>       a page's origin that was refused; no pid: at a preflight
    AUDIT                 <ms>#<id>    who changed what

`<s>` is a subject's key: u#<uid>; `<h>` its hash, for a sort key has at most 1,024 bytes. A record
is a JSON document with a version, which every change states and raises by one. Times are Unix
seconds. `ttl` lets DynamoDB tidy up; it may be days late, so no rule leans on it.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from weir.origins import MOST_TOLD

Item = dict[str, Any]

REFUSED_SLOTS = 64  # of a project: what is remembered is bounded, whoever asks for whatever
REFUSED_FOR_S = 30 * 86_400


class Key(NamedTuple):
    pk: str
    sk: str

    def item(self) -> Item:
        return {"pk": {"S": self.pk}, "sk": {"S": self.sk}}


class Record(NamedTuple):
    """`version` 0: there is none."""

    document: dict[str, Any]
    version: int


NO_RECORD = Record({}, 0)

KEYRING = "KEYRING"
PROJECTS = "PROJECTS"
AUDIT = "AUDIT"
TENANT = Key("TENANT", "TENANT")
CATALOGUE = Key("TENANT", "CATALOGUE")
ORIGINS = Key("TENANT", "ORIGINS")
PROVIDER_KEYS = Key("TENANT", "KEYS")


def user(uid: str) -> str:
    """An end user's subject key."""
    return f"u#{uid}"


def project(pid: str) -> Key:
    return Key(PROJECTS, pid)


def subject(pid: str, subject_key: str) -> Key:
    return Key(f"SUBJECT#{pid}#{subject_key}", "SUBJECT")


def blocked(pid: str, subject_key: str) -> Key:
    digest = hashlib.sha256(subject_key.encode()).hexdigest()
    return Key(f"PROJECT#{pid}", f"BLOCKED#{digest}")


def content(pid: str, subject_key: str) -> str:
    return f"CONTENT#{pid}#{subject_key}"


def record_item(key: Key, document: Mapping[str, Any], version: int) -> Item:
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    return {**key.item(), "doc": {"S": text}, "version": {"N": str(version)}}


def record_of(item: Item | None) -> Record:
    if item is None:
        return NO_RECORD
    return Record(json.loads(item["doc"]["S"]), int(item["version"]["N"]))


# ---------------------------------------------------------------- origins that were refused


def refused(pid: str) -> str:
    """`pid` is empty for preflights, which name no project."""
    return f"REFUSED#{pid}"


def refused_item(pid: str, origin: str, now: int) -> Item:
    """An origin has one slot; another that falls into it takes its place."""
    told = origin[:MOST_TOLD]
    slot = int.from_bytes(hashlib.sha256(told.encode("utf-8", "replace")).digest()[:2], "big")
    return {
        **Key(refused(pid), f"{slot % REFUSED_SLOTS:02d}").item(),
        "origin": {"S": told},
        "last_at": {"N": str(now)},
        "ttl": {"N": str(now + REFUSED_FOR_S)},
    }
