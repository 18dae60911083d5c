"""The one table: every key and what lies there. The calls are in `table`, the items of API keys,
signing keys and audit entries in `codecs`. Standard library only: the preflight function uses it.

    pk                    sk           what
    KEYRING               KID#<kid>    a public key of the ring; not_after once it is retired
    SIGNINGKEYS           KID#sk_<h>   a public key of a tenant; not_after once it is revoked
    MINTED#<kid>          <hour>       how many tokens a key of the ring may have signed in an hour
    APIKEY#<sha256>       APIKEY       an API key, found by the hash of what was sent
    PROJECT#<pid>         APIKEY#<id>  the same key's hash, found by its id
    PROJECT#<pid>         BLOCKED#<h>  a subject that is blocked, so that they can be listed
    TENANT                TENANT       record: limits of the deployment, its kill switch
    TENANT                CATALOGUE    record: upstreams and models
    TENANT                ORIGINS      record: the union of all projects' origins, for preflights
    TENANT                KEYS         record: until when one operator alone writes providers' keys
    OVERRUNS              OVERRUNS     by candidate, the percent of its output cap to reserve
    PROJECTS              <pid>        record: a project
    SUBJECT#<pid>#<s>     SUBJECT      record: what is revoked of a subject, or that it is blocked
                          … of a customer, `customer` is its own document, `etag` its version
    EXTERNAL#<pid>#<x>    EXTERNAL     the customer whose external id is <x>
    CUSTOMERS#<pid>       cust_…       one for each customer, by when it was created
    CONTENT#<pid>#<s>     TURN#<h>#…   of a thread: <ms>#… each turn, RECORD its title and sums
    CONTENT#<pid>#<s>     THREAD#<ms>… a copy of the record, in the order of last use; then <h>
    CONTENT#<pid>#<s>     SESSION_TURN#<h>#… a turn of a session that is remembered
    LEDGER#<pid>#<s>      NOW          a subject's open requests; MINUTE#…, MONTH#… what it has used
    LEDGER#<pid>#<k>      …            the same of a project's k-th shard; no pid: of the tenant's
    LEDGER#<pid>#<a>      MINUTE#…     how many requests came from a network address in a minute
    LEDGER#<pid>#t#cust_… ct_…         a client token, and what it has used
    OPEN#<n>              <due>#<id>   a reservation, which is settled once, or swept when it is due
    USAGE#<pid>#<s>       <ms>#<id>    what one request has used; no word of what was said
    ROLLUP#<pid>#<day>    <h>#<h>      sums of usage rows: weir/usage/sums.py, detail
    ROLLUP#<pid>          <day>#<m>    … days, by model
    ROLLUP#<pid>#<month>  <h>          … users
    ROLLUP#<pid>#<day>#M  <HHMM>#<m>   … minutes, by model
    ASKED#<pid>#<c>       MINUTE#…     how many questions about usage a caller has asked in a
                                       minute, and how many client tokens were minted
    ONCE#<pid>#<h>        ONCE         what a request with an Idempotency-Key was answered
    WEBHOOKS#<pid>        WEBHOOKS     record: a project's webhook endpoints, their secrets sealed
    WATCH#<pid>#<s>       MONTH#…      the least that requests of a subject or project have held
    OUTBOX#<pid>          <place>      an event, once, on its way to the queue of deliveries
    DELIVERIES#<pid>      STATE#<wh>   whether an endpoint answers; FAILED#<wh>#<event> what it lost
    JWKS#<sha256>         JWKS         an issuer's key set, by the hash of its address; who fetches
    KNOWN#<pid>#<s>       KNOWN        a user of another issuer has been here before
    ARRIVALS#<pid>#<n>    HOUR#…       how many users of the issuer <n> were new in an hour; of
                                       no issuer: how many customers were created
    REFUSED#<pid>         <slot>       a page's origin that was refused; no pid: at a preflight
    AUDIT                 <ms>#<id>    who changed what

`<s>` is a subject's key: u#<uid>, c#cust_…, or k#<key id> of a server that names nobody; `<a>` an
address's: a#203.0.113.7; `<c>` a subject's, or of an API key k#<key id>; `<h>` its hash, for a sort
key has at most 1,024 bytes. A record is a JSON document with a version, which every change states
and raises by one; members that conditions look at are attributes beside `doc`
(`weir/aws/subjects.py`, `weir/aws/customers.py`). What a ledger's item holds:
`weir/aws/ledger/`. Times are Unix seconds. `ttl` lets DynamoDB tidy up; it may be days late, so no
rule leans on it.
"""

import hashlib
import json
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from weir.web.origins import MOST_TOLD

Item = dict[str, Any]

DAYS, MINUTES = "days", "minutes"  # of weir.usage, which the preflight function need not import

REFUSED_SLOTS = 64  # of a project: what is remembered is bounded, whoever asks for whatever
REFUSED_FOR_S = 30 * 86_400
MOST_SHARDS = 16  # of a pool: the counters that all users of a project share
OPEN_SHARDS = 8  # of the list of reservations, which every request writes to


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
TENANT_KEYS = "SIGNINGKEYS"
PROJECTS = "PROJECTS"
AUDIT = "AUDIT"
TENANT = Key("TENANT", "TENANT")
CATALOGUE = Key("TENANT", "CATALOGUE")
ORIGINS = Key("TENANT", "ORIGINS")
PROVIDER_KEYS = Key("TENANT", "KEYS")
# With a partition of its own, which is all of the configuration that the chat function may write.
OVERRUNS = Key("OVERRUNS", "OVERRUNS")


def user(uid: str) -> str:
    """An end user's subject key."""
    return f"u#{uid}"


def customer(customer_id: str) -> str:
    """A customer's subject key."""
    return f"c#{customer_id}"


def address(counted: str) -> str:
    """Return the key of a network address, as weir/web/addresses.py spells it."""
    return f"a#{counted}"


def api_key(key_id: str) -> str:
    """An API key, where it is counted beside subjects."""
    return f"k#{key_id}"


def project(pid: str) -> Key:
    return Key(PROJECTS, pid)


def subject(pid: str, subject_key: str) -> Key:
    return Key(f"SUBJECT#{pid}#{subject_key}", "SUBJECT")


def blocked(pid: str, subject_key: str) -> Key:
    digest = hashlib.sha256(subject_key.encode()).hexdigest()
    return Key(f"PROJECT#{pid}", f"BLOCKED#{digest}")


def content(pid: str, subject_key: str) -> str:
    return f"CONTENT#{pid}#{subject_key}"


def minted(kid: str, hour: int) -> Key:
    """`hour` is in hours since 1970."""
    return Key(f"MINTED#{kid}", str(hour))


def conversation(kind: str, name: str) -> str:
    """Return what the sort keys of the turns of a thread or session begin with; `kind` is thread or
    session.
    """
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{_TURNS[kind]}{digest}#"


_TURNS = {"thread": "TURN#", "session": "SESSION_TURN#"}
THREADS = "THREAD#"  # the list
RECORD_OF_A_THREAD = "RECORD"  # sorts behind the turns, whose keys begin with a digit


def listed_thread(pid: str, subject_key: str, name: str, last_ms: int) -> Key:
    _, digest, _ = conversation("thread", name).split("#")
    return Key(content(pid, subject_key), f"{THREADS}{last_ms:013d}#{digest}")


def record_item(key: Key, document: Mapping[str, Any], version: int) -> Item:
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    return {**key.item(), "doc": {"S": text}, "version": {"N": str(version)}}


def record_of(item: Item | None) -> Record:
    if item is None:
        return NO_RECORD
    document = json.loads(item["doc"]["S"]) if "doc" in item else {}
    for name, value in item.items():
        if "N" in value and name not in ("version", "ttl"):
            document[name] = int(value["N"])
    return Record(document, int(item["version"]["N"]))


# ---------------------------------------------------------------- the ledger

NOW = "NOW"


def minute(at: int) -> str:
    return time.strftime("MINUTE#%Y%m%d%H%M", time.gmtime(at))


def month(at: int) -> str:
    return time.strftime("MONTH#%Y%m", time.gmtime(at))


def ledger(pid: str, part: str) -> str:
    """`part` is a subject's key, or the number of a shard; `pid` is empty for the tenant."""
    return f"LEDGER#{pid}#{part}"


def reservation(reservation_id: str, due: int) -> Key:
    shard = int(reservation_id[:8], 16) % OPEN_SHARDS
    return Key(f"OPEN#{shard}", f"{due:010d}#{reservation_id}")


def usage(pid: str, subject_key: str, at_ms: int, reservation_id: str) -> Key:
    return Key(f"USAGE#{pid}#{subject_key}", f"{at_ms:013d}#{reservation_id}")


def rollup(kind: str, pid: str, period: str, name: str = "") -> Key:
    """`period` is a day, 20261121, or of users a month, 202611. Without `name` the key's beginning:
    of days that of one day, of the others that of all.
    """
    if kind == DAYS:
        return Key(f"ROLLUP#{pid}", f"{period}#{name}")
    return Key(f"ROLLUP#{pid}#{period}{'#M' if kind == MINUTES else ''}", name)


def asked(pid: str, caller: str, at: int) -> Key:
    return Key(f"ASKED#{pid}#{caller}", minute(at))


# ---------------------------------------------------------------- customers


def external(pid: str, external_id: str) -> Key:
    return Key(f"EXTERNAL#{pid}#{external_id}", "EXTERNAL")


def listed_customer(pid: str, customer_id: str) -> Key:
    return Key(f"CUSTOMERS#{pid}", customer_id)


def customers_made(pid: str, at: int) -> Key:
    """Beside the users of issuers, none of which has an empty name."""
    return arrivals(pid, "", at)


def client_tokens(pid: str, customer_id: str) -> str:
    return ledger(pid, f"t#{customer_id}")


def client_token(pid: str, token_id: str) -> Key:
    """A token's id begins with its customer's (weir/identity/client_tokens.py)."""
    return Key(client_tokens(pid, f"cust_{token_id[3:29]}"), token_id)


def once(pid: str, digest: str) -> Key:
    return Key(f"ONCE#{pid}#{digest}", "ONCE")


# ---------------------------------------------------------------- webhooks


def webhooks(pid: str) -> Key:
    return Key(f"WEBHOOKS#{pid}", "WEBHOOKS")


def watch(pid: str, subject_key: str, month: str) -> Key:
    """`subject_key` is empty for the project; `month` is a sort key of the ledger."""
    return Key(f"WATCH#{pid}#{subject_key}", month)


OUTBOX = "OUTBOX#"


def outbox(pid: str, place: str) -> Key:
    """`place` says which event it is: there is one of it."""
    return Key(f"{OUTBOX}{pid}", place)


def pid_of_outbox(key: Key) -> str:
    return key.pk.removeprefix(OUTBOX)


def webhook_state(pid: str, endpoint_id: str) -> Key:
    return Key(f"DELIVERIES#{pid}", f"STATE#{endpoint_id}")


def failed_delivery(pid: str, endpoint_id: str, event_id: str) -> Key:
    """Without `event_id` the beginning of all of an endpoint's, which sort by time."""
    return Key(f"DELIVERIES#{pid}", f"FAILED#{endpoint_id}#{event_id}")


# ---------------------------------------------------------------- other issuers


def key_set(jwks_uri: str) -> Key:
    return Key(f"JWKS#{hashlib.sha256(jwks_uri.encode()).hexdigest()}", "JWKS")


def known_user(pid: str, subject_key: str) -> Key:
    return Key(f"KNOWN#{pid}#{subject_key}", "KNOWN")


def arrivals(pid: str, issuer_name: str, at: int) -> Key:
    hour = time.strftime("HOUR#%Y%m%d%H", time.gmtime(at))
    return Key(f"ARRIVALS#{pid}#{issuer_name}", hour)


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
