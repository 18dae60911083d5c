"""The kept part of a conversation, as it is sent before a request's own messages."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from weir.chat import turns
from weir.chat.threads import Merge
from weir.chat.turns import Message

Fits = Callable[[int, int], bool]  # so many more bytes of text, and so many more images


def with_history(
    messages: Sequence[Message], merge: Merge, window: int, *, images: bool, fits: Fits
) -> list[Message] | None:
    """Return the caller's messages with the history before them, behind those of the system that
    come first; None if there is no history to be sent.

    The history has at most `window` turns, a turn being what begins with a message of the user, and
    only as many of them as fit. `images`: the model takes them.
    """
    first = next(
        (place for place, m in enumerate(messages) if m.get("role") not in turns.SYSTEM), None
    )
    own = list(messages[first:]) if first is not None else []
    history = _sound([_sendable(message, images) for message in merge.history], own)
    chosen: list[list[Message]] = []
    text_bytes = shown = 0
    for count, group in enumerate(_from_the_last(history)):
        continues = count == 0 and bool(own) and own[0].get("role") != "user"
        addresses = [part["image_url"]["url"] for part in _images(group)]
        text_bytes += len(turns.compact(group)) - sum(map(len, addresses))
        shown += len(addresses)
        # Results of tools mean nothing without the calls.
        if not continues and (len(chosen) >= window or not fits(text_bytes, shown)):
            break
        chosen.insert(0, group)
    if not chosen:
        return None
    system = messages[:first] if first is not None else messages
    return [*system, *(message for group in chosen for message in group), *own]


def _from_the_last(history: Sequence[Message]) -> Iterator[list[Message]]:
    """Yield the turns, the last one first. What is left of one whose beginning is no longer kept is
    not among them.
    """
    end = len(history)
    for place in range(len(history) - 1, -1, -1):
        begins = history[place]["role"] == "user"
        if begins and (place == 0 or history[place - 1]["role"] != "user"):
            yield list(history[place:end])
            end = place


def _sendable(message: Message, images: bool) -> Message:
    content = message.get("content")
    if not isinstance(content, list):
        return message
    parts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == turns.OMITTED:
            parts.append({"type": "text", "text": turns.in_words(part)})
        elif kind == "image_url" and not images:
            parts.append({"type": "text", "text": "[an image, which this model cannot see]"})
        else:
            parts.append(part)
    if all(part.get("type") == "text" for part in parts):  # which every role may have
        return {**message, "content": "\n".join(part["text"] for part in parts)}
    return {**message, "content": parts}


def _images(messages: Sequence[Message]) -> Iterator[dict[str, Any]]:
    for message in messages:
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            if part.get("type") == "image_url":
                yield part


def _sound(history: Sequence[Message], own: Sequence[Message]) -> list[Message]:
    """Return the history as providers take it: every tool call has its result and the other way
    round, and no answer is empty. What was broken off, or not kept, is left out.
    """
    sound: list[Message] = []
    waiting: list[Message] = []  # a message with tool calls, and the results that have come

    def close(following: Sequence[Message] = ()) -> None:
        if not waiting:
            return
        called = {call.get("id") for call in turns.calls_of(waiting[0])}
        results = {message.get("tool_call_id") for message in [*waiting[1:], *following]}
        if called <= results or (following and following[0].get("role") == "function"):
            sound.extend(waiting)
        elif waiting[0].get("content"):
            sound.append({"role": "assistant", "content": waiting[0]["content"]})
        waiting.clear()

    for message in history:
        role = message.get("role")
        if role in ("tool", "function"):
            if waiting:
                waiting.append(message)
            continue
        close()
        if turns.calls_of(message):
            waiting.append(message)
        elif message.get("content") or message.get("refusal"):
            sound.append(message)
    results = []
    for message in own:
        if message.get("role") not in ("tool", "function"):
            break
        results.append(message)
    close(results)
    return sound
