"""What a request that was answered adds to its thread or session."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from weir.chat import transcripts, turns
from weir.chat.replies import Reply
from weir.chat.threads import Addition
from weir.chat.turns import Turn


def added_turns(
    addition: Addition,
    reply: Reply,
    *,
    at_ms: int,
    request: str,
    completion_id: str,
    row: Mapping[str, Any],
    usage: Mapping[str, Any],
) -> list[Turn]:
    """Return the turns to be stored, oldest first: one, or several if the request began the thread
    with a long history; none if nothing was answered.

    `request` tells requests of one millisecond apart; `row` is the request's usage row; `usage` is
    what the caller is shown of it.
    """
    answer = reply.message()
    if answer is None:
        return []
    merge, old = addition.merge, addition.merge.replaces
    if old is None:
        inputs = [turns.kept(each, tool_calls=addition.tool_calls) for each in merge.new]
    else:
        inputs = list(old.inputs)
    messages, digests, replies = inputs, list(merge.digests), 0
    if addition.tool_calls or not turns.is_of_tools(answer):
        messages = [*inputs, turns.kept(answer, tool_calls=addition.tool_calls)]
        digests = [*digests, turns.digest(answer)]
        replies = 1
    if not messages:
        return []
    runs = turns.packed(messages) if old is None else [len(messages)]
    stored, start = [], 0
    for number, length in enumerate(runs):
        is_last = number == len(runs) - 1
        turn = Turn(
            turns.turn_id(at_ms, request, number),
            turns.fitted(messages[start : start + length]),
            digests[start : start + length],
        )
        if is_last:
            turn = replace(
                turn,
                replies=replies,
                completion_id=completion_id,
                model=row.get("model"),
                finish_reason=reply.finish_reason or row["outcome"],
                usage=usage,
            )
        stored.append(turn)
        start += length
    if old is not None:
        stored[-1] = replace(stored[-1], id=old.id)
    return stored


def record(
    addition: Addition,
    document: Mapping[str, Any],
    stored: Sequence[Turn],
    *,
    at_ms: int,
    now_ms: int,
    tokens: int,
    nano_usd: int,
) -> dict[str, Any]:
    """Return a thread's record after a turn, from the one before it: `{}` if there was none.

    `since_ms`: older turns are of a thread of this name that was deleted.
    """
    old = addition.merge.replaces
    replaced = 0 if old is None else len(old.messages)
    return {
        "id": addition.conversation.name,
        "title": document.get("title") or transcripts.title(stored),
        "created_ms": document.get("created_ms", at_ms),
        "since_ms": min(document.get("since_ms", at_ms), stored[0].at_ms),
        "last_ms": max(document.get("last_ms", 0), now_ms),
        "messages": document.get("messages", 0) + sum(len(t.messages) for t in stored) - replaced,
        "tokens": document.get("tokens", 0) + tokens,
        "nano_usd": document.get("nano_usd", 0) + nano_usd,
        "session_id": addition.session_id or document.get("session_id"),
    }
