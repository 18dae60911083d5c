"""One attempt to deliver an event; what is known of an endpoint, and what was given up.

While an endpoint fails, one attempt at a time is made: the others are put off, so that a receiver
that hangs does not hold the workers that others need. A worker that is killed after it has sent and
before it has said so sends again, with the same event id.
"""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from weir.aws import contention, expressions, items
from weir.aws.expressions import Expression
from weir.aws.items import Item, Key
from weir.aws.reading import items_at
from weir.aws.store import Store
from weir.aws.webhooks.seal import Opener
from weir.errors import NotFound
from weir.webhooks import schedule, signature
from weir.webhooks.endpoints import Endpoint
from weir.webhooks.events import Event

log = logging.getLogger(__name__)

FAILED_KEPT_S = 30 * 86_400
STATE_KEPT_S = 90 * 86_400
TRIAL_S = 15  # for which an attempt to an endpoint that fails keeps others away
MOST_TOLD = 200  # characters of why it failed

DELIVERED, DROPPED, GIVEN_UP, AGAIN = "delivered", "dropped", "given_up", "again"


class Message(NamedTuple):
    """What the queue brings. `since`: when it was put there, Unix seconds."""

    pid: str
    endpoint: str
    event: Event
    since: float

    @classmethod
    def of(cls, body: str, since: float) -> "Message":
        """Raise KeyError, TypeError or ValueError for what is none."""
        told = json.loads(body)
        return cls(told["pid"], told["endpoint"], Event.from_document(told["event"]), since)


class Outcome(NamedTuple):
    """`wait_s`: after how many seconds to try again, for AGAIN."""

    what: str
    why: str = ""
    wait_s: int = 0


class Send(Protocol):
    """Posts a body; returns None if it was accepted, or why not (weir/upstreams/webhooks.py)."""

    def __call__(self, url: str, body: bytes, signature: str) -> str | None: ...


# ---------------------------------------------------------------- what is known of an endpoint


@dataclass(frozen=True, slots=True)
class State:
    """Unix seconds. `failing_since` None: the last attempt was accepted, or there was none."""

    delivered_at: int | None = None
    failing_since: int | None = None
    failed_at: int | None = None
    failure: str | None = None

    @classmethod
    def of(cls, item: Item) -> "State":
        times = ("delivered_at", "failing_since", "failed_at")
        told = {name: int(item[name]["N"]) for name in times if name in item}
        return cls(**told, failure=item["failure"]["S"] if "failure" in item else None)

    def view(self) -> dict[str, Any]:
        return {
            "last_delivered_at": self.delivered_at,
            "failing_since": self.failing_since,
            "last_failed_at": self.failed_at,
            "last_failure": self.failure,
        }


def states(
    client: Store, table_name: str, pid: str, endpoint_ids: Sequence[str]
) -> dict[str, State]:
    keys = {each: items.webhook_state(pid, each) for each in endpoint_ids}
    found = items_at(client, table_name, list(keys.values())) if keys else {}
    return {each: State.of(found.get(key, {})) for each, key in keys.items()}


# ---------------------------------------------------------------- what was given up


@dataclass(frozen=True, slots=True)
class Failure:
    """A delivery that was given up. Times are Unix seconds: first tried, and given up."""

    event: Event
    since: int
    given_up_at: int
    why: str

    def view(self) -> dict[str, Any]:
        return {
            "object": "webhook_delivery",
            "status": "failed",
            "event": self.event.document(),
            "first_attempt_at": self.since,
            "given_up_at": self.given_up_at,
            "last_failure": self.why,
        }


class Failures:
    """Those of one endpoint."""

    def __init__(self, client: Store, table_name: str, pid: str, endpoint_id: str) -> None:
        self._client = client
        self._name = table_name
        self._pid = pid
        self._endpoint = endpoint_id

    def add(self, failure: Failure) -> None:
        told = {
            "doc": json.dumps(failure.event.document(), ensure_ascii=False),
            "since": failure.since,
            "given_up_at": failure.given_up_at,
            "failure": failure.why,
            "ttl": failure.given_up_at + FAILED_KEPT_S,
        }
        item = {**self._key(failure.event.id).item(), **expressions.attributes(told)}
        self._client.put_item(TableName=self._name, Item=item)

    def get(self, event_id: str) -> Failure:
        key = self._key(event_id)
        found = items_at(self._client, self._name, [key])
        if key not in found:
            raise NotFound(f"There is no failed delivery of the event {event_id[:100]!r}.")
        return _failure_of(found[key])

    def remove(self, event_id: str) -> None:
        self._client.delete_item(TableName=self._name, Key=self._key(event_id).item())

    def page(self, limit: int, after: str | None) -> tuple[list[Failure], str | None]:
        """Return the newest first, from before the event `after`; and the id after which older ones
        come, if there are.
        """
        prefix = self._key("")
        # One more tells whether there are more. What comes after the ids is above all of them.
        last = self._key(after).sk if after is not None else f"{prefix.sk}~"
        answer = self._client.query(
            TableName=self._name,
            KeyConditionExpression="pk = :pk AND sk BETWEEN :first AND :last",
            ExpressionAttributeValues={
                ":pk": {"S": prefix.pk},
                ":first": {"S": prefix.sk},
                ":last": {"S": last},
            },
            ScanIndexForward=False,
            Limit=limit + 2,
        )
        found = [_failure_of(item) for item in answer["Items"] if item["sk"]["S"] != last]
        more = found[limit - 1].event.id if len(found) > limit else None
        return found[:limit], more

    def _key(self, event_id: str) -> Key:
        return items.failed_delivery(self._pid, self._endpoint, event_id)


def _failure_of(item: Item) -> Failure:
    return Failure(
        event=Event.from_document(json.loads(item["doc"]["S"])),
        since=int(item["since"]["N"]),
        given_up_at=int(item["given_up_at"]["N"]),
        why=item["failure"]["S"],
    )


# ---------------------------------------------------------------- an attempt


class Deliveries:
    def __init__(
        self,
        client: Store,
        table_name: str,
        opener: Opener,
        send: Send,
        clock: Callable[[], float],
        chance: Callable[[], float],
    ) -> None:
        """`clock` gives Unix seconds, `chance` numbers from 0 to 1."""
        self._client = client
        self._name = table_name
        self._opener = opener
        self._send = send
        self._clock = clock
        self._chance = chance

    def attempt(self, message: Message) -> Outcome:
        """Deliver it, or say what is to become of it. Raise AwsError, or what botocore does: then
        nothing was sent.
        """
        config = items.webhooks(message.pid)
        state_key = items.webhook_state(message.pid, message.endpoint)
        found = items_at(self._client, self._name, [config, state_key])
        told = items.record_of(found.get(config)).document.get("endpoints", {})
        if message.endpoint not in told:
            return Outcome(DROPPED, "the endpoint was removed")
        endpoint = Endpoint.from_document(message.endpoint, told[message.endpoint])
        if not endpoint.enabled:
            return Outcome(DROPPED, "the endpoint is disabled")
        state = found.get(state_key, {})
        if "failing_since" in state and not self._claim(state_key):
            why = state["failure"]["S"] if "failure" in state else "other attempts failed"
            return self._later(message, why, TRIAL_S)
        failure = self._post(message, endpoint)
        self._note(state_key, failure)
        return Outcome(DELIVERED) if failure is None else self._later(message, failure)

    def _post(self, message: Message, endpoint: Endpoint) -> str | None:
        at, body = int(self._clock()), message.event.body()
        secrets = [
            self._opener.open(message.pid, endpoint.id, sealed)
            for sealed in endpoint.sealed_secrets(at)
        ]
        failure = self._send(endpoint.url, body, signature.header_value(secrets, at, body))
        return None if failure is None else failure[:MOST_TOLD]

    def _later(self, message: Message, why: str, least_s: int = 0) -> Outcome:
        now = self._clock()
        wait = schedule.wait_s(now - message.since, self._chance())
        if wait is not None:
            return Outcome(AGAIN, why, max(wait, least_s))
        failures = Failures(self._client, self._name, message.pid, message.endpoint)
        failures.add(Failure(message.event, int(message.since), int(now), why))
        return Outcome(GIVEN_UP, why)

    # ------------------------------------------------------------ what is known of the endpoint

    def _claim(self, state_key: Key) -> bool:
        """Whether this is the one attempt that is made now to an endpoint that fails."""
        now = int(self._clock())
        claim = Expression()
        claim.require_below("trial_until", now)
        claim.set("trial_until", now + TRIAL_S)
        try:
            self._client.update_item(TableName=self._name, Key=state_key.item(), **claim.built())
        except Exception as error:
            if contention.condition_failed(error):
                return False
            raise
        return True

    def _note(self, state_key: Key, failure: str | None) -> None:
        """Best effort: an event that was accepted must not be sent again for want of a note."""
        now = int(self._clock())
        note = Expression()
        note.set("ttl", now + STATE_KEPT_S)
        if failure is None:
            note.set("delivered_at", now)
            note.remove(["failing_since", "trial_until"])
        else:
            note.set_once("failing_since", now)
            note.set("failed_at", now)
            note.set("failure", failure)
            note.remove(["trial_until"])
        try:
            self._client.update_item(TableName=self._name, Key=state_key.item(), **note.built())
        except Exception:
            log.exception("what became of a delivery was not noted")
