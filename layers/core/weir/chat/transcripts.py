"""What a user reads of their threads: the list, the messages, and the title of each."""

import base64
import binascii
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from weir import identifiers
from weir.chat import turns
from weir.chat.turns import Turn
from weir.errors import BadRequest
from weir.projects.limits import NANO

MOST_TITLE = 80  # characters of one that is made here
MOST_TITLE_SET = 200
MOST_THREADS, MOST_MESSAGES, MOST_EXPORTED = 200, 1_000, 10_000  # of one answer
_CURSOR = r"[A-Za-z0-9_-]{1,400}"


def title(stored: Sequence[Turn]) -> str:
    """Return the beginning of the first message of the user, cut between two words."""
    for turn in stored:
        for message in turn.messages:
            if message["role"] == "user":
                return shortened(flattened(message.get("content")))
    return ""


def shortened(text: str) -> str:
    """Return a line of at most MOST_TITLE characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[:1000]).split())
    if len(line) <= MOST_TITLE:
        return line
    cut = line[: MOST_TITLE - 1]
    head = cut.rpartition(" ")[0]
    return f"{head if len(head) > MOST_TITLE // 2 else cut}…"


def flattened(content: Any) -> str:
    """Return a content as one text."""
    if not isinstance(content, list):
        return content if isinstance(content, str) else ""
    return "\n".join(filter(None, map(_flat_part, content)))


def _flat_part(part: Any) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == turns.OMITTED:
        return turns.in_words(part)
    if kind == "image_url":
        return "[an image]"
    text = part.get("text") or part.get("refusal") if isinstance(part, dict) else None
    return text if isinstance(text, str) else ""


# ---------------------------------------------------------------- views


def thread_view(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a thread as a list shows it (contract of Behest, section 11.3)."""
    last = moment(record["last_ms"])
    return {
        "id": record["id"],
        "object": "thread",
        "title": record["title"],
        "created_at": moment(record["created_ms"]),
        "updated_at": last,
        "last_message_at": last,
        "messages_count": record["messages"],
        "session_id": record["session_id"],
        "tokens": record["tokens"],
        "cost_usd": record["nano_usd"] / NANO,
    }


def message_views(turn: Turn) -> list[dict[str, Any]]:
    """Return the messages of a turn. `content` is always a string; `parts` is there, too, where the
    message was more than a text.
    """
    name = turn.id.replace("#", "_")
    views = []
    for place, message in enumerate(turn.messages):
        is_reply = place >= len(turn.messages) - turn.replies
        content = message.get("content")
        view = {
            "id": f"msg_{name}_{place}",
            "object": "thread.message",
            "role": message["role"],
            "content": flattened(content) or (message.get("refusal") or ""),
            "created_at": moment(turn.at_ms),
            "model": turn.model if is_reply else None,
            "tool_calls": message.get("tool_calls"),
            "usage": turn.usage if is_reply else None,
        }
        if is_reply:
            view["finish_reason"] = turn.finish_reason
        if isinstance(content, list):
            view["parts"] = content
        for member in ("name", "tool_call_id", "function_call", "refusal"):
            if message.get(member) is not None:
                view[member] = message[member]
        views.append(view)
    return views


def moment(at_ms: int) -> str:
    """Return a time as ISO 8601 with milliseconds, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at_ms // 1000)) + f".{at_ms % 1000:03d}Z"


# ---------------------------------------------------------------- questions


def parse_limit(query: Mapping[str, Sequence[str]], most: int) -> int:
    """Return how many are wanted; `most` if the query does not say it."""
    text = one(query, "limit")
    if text is None:
        return most
    if not re.fullmatch(r"(?a)\d{1,4}", text) or not 1 <= int(text) <= most:
        raise BadRequest(f"limit must be an integer of 1 to {most}.", param="limit")
    return int(text)


def parse_cursor(query: Mapping[str, Sequence[str]]) -> str | None:
    """Return the sort key that a page begins behind. It gives no right: the partition is the
    caller's own whatever it says.
    """
    text = one(query, "cursor")
    if text is None:
        return None
    try:
        if not re.fullmatch(_CURSOR, text):
            raise ValueError
        raw = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
        return raw.decode("ascii")
    except (ValueError, binascii.Error):
        raise bad_cursor() from None


def parse_place(text: str) -> tuple[str, int]:
    """Return the sort key of a turn, and a number of messages of the next one."""
    key, _, count = text.partition("!")
    if not re.fullmatch(r"(?a)\d{1,4}", count):
        raise bad_cursor()
    return key, int(count)


def bad_cursor() -> BadRequest:
    return BadRequest("That is no cursor of this gateway's.", param="cursor")


def cursor(sort_key: str) -> str:
    return base64.urlsafe_b64encode(sort_key.encode("ascii")).decode().rstrip("=")


def one(query: Mapping[str, Sequence[str]], name: str) -> str | None:
    """Return the value of a query parameter; None without one, or if it is empty."""
    values = {str(value or "") for value in query.get(name, ())}
    if len(values) > 1:
        raise BadRequest(f"{name} is there more than once.", param=name)
    return "".join(values) or None


def refuse_others(query: Mapping[str, Sequence[str]], *known: str) -> None:
    """Raise BadRequest for a query parameter that the route does not have."""
    for name in query:
        if name not in known:
            raise BadRequest(f"There is no query parameter {name[:100]!r}.", param=name[:100])


def parse_title(body: Mapping[str, Any]) -> str:
    for name in body:
        if name != "title":
            raise BadRequest(f"There is no field {name[:100]!r}.", param=name[:100])
    text = body.get("title")
    fits = isinstance(text, str) and 1 <= len(text.strip()) <= MOST_TITLE_SET
    if not isinstance(text, str) or not fits or not identifiers.is_plain(text):
        raise BadRequest(
            f"title must be a string of 1 to {MOST_TITLE_SET} characters, without control "
            "characters.",
            param="title",
        )
    return text.strip()
