"""Turns of conversations, and the records of threads, as items of the table."""

from collections.abc import Mapping
from typing import Any

from weir.aws import expressions, items
from weir.aws.expressions import ABSENT, Expression
from weir.aws.items import Item, Key, Record
from weir.aws.store import Part
from weir.chat import threads
from weir.chat.threads import THREAD
from weir.chat.turns import Turn


def current(record: Record, kept_ms: int | None, now_ms: int) -> dict[str, Any]:
    """Return a thread's record; `{}` if there is none, or its time is over."""
    if not record.version or threads.is_over(record.document["last_ms"], kept_ms, now_ms):
        return {}
    return record.document


def record_key(pid: str, subject: str, name: str) -> Key:
    prefix = items.conversation(THREAD, name)
    return Key(items.content(pid, subject), prefix + items.RECORD_OF_A_THREAD)


def thread_parts(
    table: str,
    pid: str,
    subject: str,
    version: int,
    listed_ms: int | None,
    document: Mapping[str, Any],
    ttl: int | None,
) -> list[Part]:
    """Return the parts of a transaction that write a thread's record, if it still has `version`,
    and its copy in the list, which was at `listed_ms`. The record is the first part.
    """
    same = Expression(ABSENT)
    if version:
        same = Expression()
        same.require_equal("version", version)
    name = document["id"]
    copy = items.listed_thread(pid, subject, name, document["last_ms"])
    key = record_key(pid, subject, name)
    parts = [
        expressions.put(table, with_ttl(items.record_item(key, document, version + 1), ttl), same),
        expressions.put(table, with_ttl(items.record_item(copy, document, version + 1), ttl)),
    ]
    parts[0]["Put"]["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
    if listed_ms is not None and listed_ms != document["last_ms"]:
        old = items.listed_thread(pid, subject, name, listed_ms)
        parts.append(expressions.delete(table, old))
    return parts


def with_ttl(item: Item, ttl: int | None) -> Item:
    return item if ttl is None else {**item, "ttl": {"N": str(ttl)}}


def turn_item(key: Key, turn: Turn) -> Item:
    return {**key.item(), "doc": {"S": turn.text()}}


def turn_of(item: Item) -> Turn:
    _, _, turn_id = item["sk"]["S"].split("#", 2)
    return Turn.parse(turn_id, item["doc"]["S"])
