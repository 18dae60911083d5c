"""Events that have happened, each written once, on their way to the queue.

The function that the table's stream tells of them puts one message for each endpoint that wants the
event into the queue. It may do so twice: receivers know an event by its id.
"""

import json
import secrets
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from weir.aws import contention, expressions, items
from weir.aws.expressions import ABSENT
from weir.aws.items import Item, Key
from weir.aws.store import Store
from weir.webhooks.endpoints import Endpoint
from weir.webhooks.events import Event, event_id

KEPT_S = 75 * 86_400  # longer than the month in which it must not be told again


class Posted(NamedTuple):
    """An event of a project. `to`: the id of the one endpoint that gets it; None: all that want
    it.
    """

    pid: str
    event: Event
    to: str | None


def new_event(event_type: str, data: Mapping[str, Any], now: float) -> Event:
    """`now` is Unix seconds."""
    made_id = event_id(int(now * 1000), secrets.token_hex(6))
    return Event(made_id, event_type, int(now), data)


def add(
    client: Store, table_name: str, pid: str, place: str, event: Event, *, to: str | None = None
) -> bool:
    """Write an event, unless there is one at its place: then return False. Raise AwsError."""
    told = {
        "doc": json.dumps(event.document(), separators=(",", ":"), ensure_ascii=False),
        "ttl": event.created_at + KEPT_S,
        "to": to,
    }
    item = {**items.outbox(pid, place).item(), **expressions.attributes(told)}
    try:
        client.put_item(TableName=table_name, Item=item, ConditionExpression=ABSENT)
    except Exception as error:
        if contention.condition_failed(error):
            return False
        raise
    return True


def posted_of(item: Item) -> Posted:
    """Read an item as the stream brings it. Raise KeyError, TypeError or ValueError."""
    key = Key(item["pk"]["S"], item["sk"]["S"])
    event = Event.from_document(json.loads(item["doc"]["S"]))
    return Posted(items.pid_of_outbox(key), event, item["to"]["S"] if "to" in item else None)


def messages(posted: Posted, endpoints: Iterable[Endpoint]) -> list[str]:
    """Return the queue's messages, one for each endpoint that gets the event."""
    return [
        json.dumps(
            {"pid": posted.pid, "endpoint": each.id, "event": posted.event.document()},
            separators=(",", ":"),
        )
        for each in endpoints
        if each.wants(posted.event.type) and posted.to in (None, each.id)
    ]


class Queue:
    """`sqs` is botocore's client. Raises what it does: then all messages are sent again some time,
    and receivers know them by the event's id.
    """

    def __init__(self, sqs: Any, url: str) -> None:
        self._sqs = sqs
        self._url = url

    def send(self, bodies: Iterable[str]) -> int:
        """Return how many there were."""
        count = 0
        for body in bodies:
            self._sqs.send_message(QueueUrl=self._url, MessageBody=body)
            count += 1
        return count
