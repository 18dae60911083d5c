"""What every published client relies on in an answer of ours."""

import json
from typing import Any


def checked_stream(
    sent: bytes, *, usage_wanted: bool, completion_id: str = "ours"
) -> tuple[bool, set[int]]:
    """Check the frames of a stream. Return whether it ended well, and its finished choices."""
    assert sent.endswith(b"\n\n")
    assert b"\r" not in sent
    frames = sent.removesuffix(b"\n\n").split(b"\n\n")
    ended_well, failed = frames[-1] == b"data: [DONE]", False
    begun, finished = set[int](), set[int]()
    for frame in frames[: len(frames) - ended_well]:
        if frame == b": ping":
            continue
        assert not failed, "something follows the error"
        assert frame.startswith(b"data: {")
        assert b"\n" not in frame
        chunk = json.loads(frame[6:], parse_constant=_no_json)
        failed = "error" in chunk
        if failed:
            assert set(chunk) == {"error"}
            assert set(chunk["error"]) == {"message", "type", "param", "code"}
            assert isinstance(chunk["error"]["message"], str)
            assert chunk["error"]["code"]
            continue
        _check_common(chunk, "chat.completion.chunk", completion_id)
        assert chunk["choices"] or isinstance(chunk.get("usage"), dict)
        assert usage_wanted or "usage" not in chunk
        for choice in chunk["choices"]:
            begun.add(choice["index"])
            _check_said(choice["delta"])
            for call in choice["delta"].get("tool_calls", ()):
                assert type(call["index"]) is int
            if choice["finish_reason"] is not None:
                _check_finish(choice)
                finished.add(choice["index"])
    assert ended_well is not failed, "not exactly one end"
    if ended_well:
        assert begun
        assert begun == finished
    return ended_well, finished


def checked_whole(sent: bytes, *, completion_id: str = "ours") -> set[int]:
    """Check a whole answer. Return its choices, which are all finished."""
    answer = json.loads(sent, parse_constant=_no_json)
    _check_common(answer, "chat.completion", completion_id)
    assert answer["choices"]
    for choice in answer["choices"]:
        assert choice["message"]["role"] == "assistant"
        assert "content" in choice["message"]
        assert "delta" not in choice
        _check_said(choice["message"])
        for call in choice["message"].get("tool_calls", ()):
            assert "index" not in call
            assert call["id"]
        _check_finish(choice)
    return {choice["index"] for choice in answer["choices"]}


def _check_common(answer: dict[str, Any], kind: str, completion_id: str) -> None:
    assert answer["object"] == kind
    assert answer["id"] == completion_id
    assert type(answer["created"]) is int
    assert isinstance(answer["model"], str)
    assert isinstance(answer["choices"], list)
    assert "error" not in answer
    assert isinstance(answer.get("usage"), dict | None)
    for choice in answer["choices"]:
        assert type(choice["index"]) is int
        assert "error" not in choice


def _check_said(said: dict[str, Any]) -> None:
    """As the schemas of the AI SDK, the strictest of the clients, want it."""
    assert said.get("role", "assistant") == "assistant"
    for name in ("content", "reasoning_content", "reasoning", "refusal"):
        assert isinstance(said.get(name), str | None)
    if "tool_calls" in said:
        assert said["tool_calls"]
    for call in said.get("tool_calls", ()):
        assert isinstance(call.get("id"), str | None)
        if "custom" not in call:
            assert isinstance(call["function"]["arguments"], str)
            assert isinstance(call["function"].get("name", ""), str)


def _check_finish(choice: dict[str, Any]) -> None:
    reasons = ("stop", "length", "tool_calls", "content_filter", "function_call")
    assert choice["finish_reason"] in reasons


def _no_json(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")
