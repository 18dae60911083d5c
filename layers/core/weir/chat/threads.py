"""Threads and the memory of sessions: what a request continues, and what it adds.

Some clients send the newest message alone, some the whole conversation with every request, and some
both in turn (contract of Behest, sections 10 and 11.4). So what comes is compared with what is
kept: only what is new is added, and what is kept is put before the request only if the request does
not carry a history of its own. Pure: what is kept was read before, and is written after, by
`weir/aws/conversations.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from weir.chat import turns
from weir.chat.turns import Message, Turn
from weir.projects.project import Project

THREAD, SESSION = "thread", "session"

# Of a request's messages, those that are compared with what is kept, and kept if all are new.
MOST_COMPARED = 1_000
# A client library sends a request again within a minute or so. Later it is the user who repeats it.
RETRIED_WITHIN_MS = 120_000
DAY_MS = 86_400_000
# A session is as long as the longest token, and nobody can list or delete it.
SESSION_KEPT_MS = DAY_MS
FEWEST_TURNS_READ = 10  # even if none may be sent: duplicates are recognised by them
ITEMS_OF_A_TURN = 4  # a turn with tools is several requests, each with an item of its own


@dataclass(frozen=True, slots=True)
class Conversation:
    """A thread or a session as it was before a request. `document` is empty and `version` 0 if it
    is new, or its time is over. `turns` are the last ones, oldest first; `is_whole`: there are no
    others. `listed_ms` is where it stands in the list of threads.
    """

    kind: str
    name: str
    document: Mapping[str, Any]
    version: int
    turns: Sequence[Turn]
    is_whole: bool
    listed_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Merge:
    """What a request adds and what it continues. `history` goes before the caller's messages; `new`
    is kept with the answer, in place of the turn `replaces` if that is not None.
    """

    history: Sequence[Message]
    new: Sequence[Message]
    digests: Sequence[str]
    replaces: Turn | None = None


@dataclass(frozen=True, slots=True)
class Addition:
    """What a request adds to a conversation, once it is answered. `session_id` is of the request;
    `kept_ms` is how long it is kept, None: until it is deleted.
    """

    conversation: Conversation
    merge: Merge
    session_id: str | None
    tool_calls: bool
    kept_ms: int | None


# ---------------------------------------------------------------- what is read


def items_read(project: Project) -> int:
    """Return how many items of turns are read at most, in one call."""
    return ITEMS_OF_A_TURN * max(project.memory_window, FEWEST_TURNS_READ)


def kept_ms(project: Project, kind: str) -> int | None:
    """Return for how long a turn is kept, in milliseconds; None: until it is deleted."""
    days = project.retention_days
    of_project = None if days is None else days * DAY_MS
    if kind == THREAD:
        return of_project
    return SESSION_KEPT_MS if of_project is None else min(of_project, SESSION_KEPT_MS)


def is_over(at_ms: int, kept_for_ms: int | None, now_ms: int) -> bool:
    """Return whether the time of something that was kept at `at_ms` is over."""
    return kept_for_ms is not None and at_ms + kept_for_ms <= now_ms


# ---------------------------------------------------------------- comparing


def merge(
    conversation: Conversation,
    messages: Sequence[Message],
    *,
    at_ms: int,
    completion_id: str | None = None,
    is_retry: bool = False,
    tool_calls: bool = True,
) -> Merge:
    """Compare a request's messages with what is kept.

    `completion_id` is one that the caller has chosen, `is_retry` what its library says of itself.
    Messages of the system are neither compared nor kept; tool calls and their results are not if
    not `tool_calls`.
    """
    said = [m for m in messages if m.get("role") not in turns.SYSTEM]
    if not tool_calls:
        said = [message for message in said if not turns.is_of_tools(message)]
    said = said[-MOST_COMPARED:]
    asked = _Asked(said, [turns.digest(message) for message in said])
    last = conversation.turns[-1] if conversation.turns else None
    if last is not None and _is_repeated(last, at_ms, completion_id, is_retry):
        before = replace(conversation, turns=conversation.turns[:-1])
        merged = _merge(before, asked)
        if list(merged.digests) == list(last.input_digests):
            return replace(merged, replaces=last)
    return _merge(conversation, asked)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request's messages, with the digest of each."""

    messages: Sequence[Message]
    digests: Sequence[str]

    def __len__(self) -> int:
        return len(self.digests)

    def has(self, role: str, end: int | None = None) -> bool:
        return any(message.get("role") == role for message in self.messages[:end])

    def added(
        self, start: int, history: Sequence[Message] = (), replaces: Turn | None = None
    ) -> Merge:
        """Return a merge that adds what begins at `start`."""
        if replaces is not None:
            return Merge(history, replaces.inputs, replaces.input_digests, replaces)
        return Merge(history, self.messages[start:], self.digests[start:])


def _is_repeated(last: Turn, at_ms: int, completion_id: str | None, is_retry: bool) -> bool:
    """Return whether a request with the same messages as the last turn's is that request again."""
    if completion_id is not None and completion_id == last.completion_id:
        return True
    return is_retry and at_ms - last.at_ms < RETRIED_WITHIN_MS


def _merge(conversation: Conversation, asked: _Asked) -> Merge:
    kept = [message for turn in conversation.turns for message in turn.messages]
    digests = [each for turn in conversation.turns for each in turn.digests]
    if not kept or not asked:
        return asked.added(0, kept)
    if (end := _end_of_overlap(digests, asked.digests)) is not None:
        # A user's message in what is known already: the client sends a history of its own.
        own = asked.has("user", end)
        return asked.added(end, () if own else kept[: len(kept) - end])
    if (again := _answered_again(conversation, asked, kept, digests)) is not None:
        return again
    if not asked.has("assistant"):
        return asked.added(0, kept)
    return _edited(conversation, asked, digests)


def _end_of_overlap(kept: Sequence[str], asked: Sequence[str]) -> int | None:
    """Return where in the request the new messages begin, if what is before them agrees with what
    is kept as far back as both go; None if there is no such place.
    """
    for end in range(len(asked), 0, -1):
        if asked[end - 1] == kept[-1]:
            common = _common(kept, asked, end)
            if common == min(end, len(kept)):
                return end
    return None


def _common(kept: Sequence[str], asked: Sequence[str], end: int) -> int:
    """Return how many of the last messages kept are the last ones before `end`, too."""
    count, most = 0, min(end, len(kept))
    while count < most and kept[-1 - count] == asked[end - 1 - count]:
        count += 1
    return count


def _answered_again(
    conversation: Conversation, asked: _Asked, kept: Sequence[Message], digests: Sequence[str]
) -> Merge | None:
    """Return the merge of a request for another answer to the last turn; None if it is none.

    A message alone that is equal to the last one counts as a new one if that was answered to the
    end: people say `go on` twice. If it is all that the thread has, it is taken for the same.
    """
    last = conversation.turns[-1]
    if not last.replies:
        return None
    unanswered = len(digests) - last.replies
    if _common(digests[:unanswered], asked.digests, len(asked)) < min(unanswered, len(asked)):
        return None
    is_all = conversation.is_whole and len(asked) == unanswered
    if not (is_all or asked.has("assistant") or not last.is_complete):
        return None
    known = len(asked) - len(last.input_digests)
    own = is_all or (known > 0 and asked.has("user", known))
    return asked.added(0, () if own else kept[: max(0, unanswered - len(asked))], last)


def _edited(conversation: Conversation, asked: _Asked, digests: Sequence[str]) -> Merge:
    """Return the merge of a request whose history is another than what is kept. The client's is
    believed, and what begins with its last message of the user is added.
    """
    best, end = max(
        (_common(digests, asked.digests, place), place) for place in range(1, len(asked) + 1)
    )
    end = end if best else 0
    users = [place for place, m in enumerate(asked.messages) if m.get("role") == "user"]
    start = max(users[-1] if users else len(asked) - 1, end)
    last = conversation.turns[-1]
    same = list(asked.digests[start:]) == list(last.input_digests)
    return asked.added(start, (), last if same and end != start else None)
