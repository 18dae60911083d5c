"""What every reader of the table must do: DynamoDB hands out long answers in pages, and may hand
back a part of what it was asked.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from weir.aws.contention import AwsError, retried
from weir.aws.items import Item, Key
from weir.aws.store import Store

TRIES = 4
FIRST_WAIT_S = 0.02
MOST_WAIT_S = 0.2


class Overloaded(AwsError):
    def __init__(self) -> None:
        super().__init__("the table keeps handing back a part of what it was asked")


def every_item(call: Callable[..., dict[str, Any]], **asked: Any) -> Iterator[Item]:
    """Of a Query or a Scan, page after page."""
    start: dict[str, Any] = {}
    while True:
        answer = call(**asked, **start)
        yield from answer["Items"]
        if "LastEvaluatedKey" not in answer:
            return
        start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}


def items_at(
    store: Store,
    table_name: str,
    keys: Sequence[Key],
    sleep: Callable[[float], None] = time.sleep,
) -> dict[Key, Item]:
    """Return those that are there, strongly consistent, in one round trip. Raises AwsError."""
    found: dict[Key, Item] = {}

    def read(left: Mapping[str, Any]) -> Mapping[str, Any]:
        answer = store.batch_get_item(RequestItems=left)
        for item in answer["Responses"].get(table_name, ()):
            found[Key(item["pk"]["S"], item["sk"]["S"])] = item
        return answer.get("UnprocessedKeys") or {}

    until_nothing_is_left(
        read,
        {table_name: {"Keys": [key.item() for key in keys], "ConsistentRead": True}},
        sleep,
    )
    return found


def until_nothing_is_left(
    call: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    requested: Mapping[str, Any],
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Send a batch, and again what of it the store hands back. `call` returns that. Raises
    Overloaded after TRIES.
    """
    left = requested

    def send() -> None:
        nonlocal left
        left = call(left)
        if left:
            raise Overloaded

    retried(
        send,
        lambda error: isinstance(error, Overloaded),
        tries=TRIES,
        first_wait_s=FIRST_WAIT_S,
        most_wait_s=MOST_WAIT_S,
        sleep=sleep,
    )
