"""Vector 8 of the contract: threads, made by a raw call (no published client can name one on chat)
and read with the published client.
"""

from typing import Any

import behest as published
import pytest
from behest import Behest

from tests.behest.conftest import CHAT, until
from tests.stack.admin import bearer
from tests.stack.conftest import Stack


def say(stack: Stack, token: str, thread: str, *texts: str) -> None:
    """Send these messages, of the user and the assistant in turn."""
    roles = ("user", "assistant")
    messages = [{"role": roles[at % 2], "content": text} for at, text in enumerate(texts)]
    headers = bearer(token) | {"X-Thread-Id": thread}
    reply = stack.http.post(CHAT, headers=headers, json={"messages": messages})
    assert reply.status_code == 200, reply.text


def texts(behest: Behest, token: str, thread: str) -> list[Any]:
    messages: Any = behest.threads.messages(thread, token=token)
    return [each["content"] for each in messages]


def test_vector_08_thread_that_is_continued_with_its_whole_history_has_no_duplicates(
    stack: Stack, behest: Behest
) -> None:
    token = behest.auth.mint(user_id="threads-1").token
    say(stack, token, "t1", "first")
    until(lambda: texts(behest, token, "t1") == ["first", "Hello!"])
    say(stack, token, "t1", "first", "Hello!", "second")
    until(lambda: texts(behest, token, "t1") == ["first", "Hello!", "second", "Hello!"])


def test_vector_08_thread_is_listed_read_and_deleted_by_its_own_user_alone(
    stack: Stack, behest: Behest
) -> None:
    token = behest.auth.mint(user_id="threads-2").token
    say(stack, token, "th_abc", "hello there")
    until(lambda: behest.threads.list(token=token))
    (listed,) = behest.threads.list(token=token)
    assert (listed["id"], listed["messages_count"]) == ("th_abc", 2)
    assert listed["title"] == "hello there"
    assert behest.threads.get("th_abc", token=token)["id"] == "th_abc"
    stranger = behest.auth.mint(user_id="threads-3").token
    assert behest.threads.list(token=stranger) == []
    for reads in (behest.threads.get, behest.threads.messages):
        with pytest.raises(published.BehestError) as refused:
            reads("th_abc", token=stranger)
        assert (refused.value.status, refused.value.code) == (404, "not_found")
    behest.threads.delete("th_abc", token=stranger)
    assert behest.threads.get("th_abc", token=token)["id"] == "th_abc"
    behest.threads.delete("th_abc", token=token)
    with pytest.raises(published.BehestError) as gone:
        behest.threads.get("th_abc", token=token)
    assert gone.value.status == 404


@pytest.mark.parametrize("thread", ["two words", "a/b", "x" * 200])
def test_vector_08_thread_ids_that_the_client_does_not_escape_are_good(
    stack: Stack, behest: Behest, thread: str
) -> None:
    token = behest.auth.mint(user_id="threads-4").token
    say(stack, token, thread, "hi")
    until(lambda: [each for each in behest.threads.list(token=token) if each["id"] == thread])
    assert texts(behest, token, thread) == ["hi", "Hello!"]
    behest.threads.delete(thread, token=token)
