"""What every reader of the table must do: DynamoDB hands out long answers in pages, and may hand
back a part of what it was asked.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from weir.aws.items import Item, Key
from weir.aws.lean import AwsError

TRIES = 4


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
    client: Any,
    table_name: str,
    keys: Sequence[Key],
    wait: Callable[[int], None] = lambda tried: None,
) -> dict[Key, Item]:
    """Those that are there, strongly consistent, in one round trip. `wait` is called between tries,
    with their number. Raises AwsError.
    """
    asked = {table_name: {"Keys": [key.item() for key in keys], "ConsistentRead": True}}
    found: dict[Key, Item] = {}
    for tried in range(1, TRIES + 1):
        answer = client.batch_get_item(RequestItems=asked)
        for item in answer["Responses"].get(table_name, ()):
            found[Key(item["pk"]["S"], item["sk"]["S"])] = item
        asked = answer.get("UnprocessedKeys") or {}
        if not asked:
            return found
        wait(tried)
    raise Overloaded
