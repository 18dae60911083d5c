"""The tool calls of an answer, brought into the form that every client puts together."""

import json
from dataclasses import dataclass
from typing import Any

MOST_INDEX = 1_000  # of a choice or a tool call: what is above it is no index


@dataclass(slots=True)
class _Call:
    """A tool call that has begun: what is known of it, "" for what is not."""

    id: str
    name: str
    arguments_begun: bool


class ToolCalls:
    """The tool calls of one answer. Some providers send them without an index, or number all of
    them 0; every client puts them together by it. Some repeat the id and the name with every piece;
    some clients add up names, and take an id for a new call.
    """

    def __init__(self, completion_id: str, choice: int) -> None:
        self._prefix = f"call_{completion_id[-24:]}_{choice}"
        self._calls: list[_Call] = []  # by our index
        self._ours: dict[int, int] = {}  # our index by the provider's
        self._by_id: dict[str, int] = {}

    def normalise(self, said: dict[str, Any], *, whole: bool = False) -> int:
        """Respell the calls in a delta, or in a `whole` message; return how many begin in it."""
        calls = said["tool_calls"]
        calls = [calls] if isinstance(calls, dict) else calls
        found = (
            [each for each in calls if isinstance(each, dict)] if isinstance(calls, list) else []
        )
        if not found:
            del said["tool_calls"]
            return 0
        said["tool_calls"] = found
        begun = len(self._calls)  # before this chunk
        for call in found:
            piece = _Call(_id_of(call), *_respell_function(call))
            index = self._place(call.get("index"), piece, begun)
            if index == len(self._calls):
                self._begin(call, piece)
            else:
                self._go_on(call, self._calls[index], piece)
            if whole:
                call.pop("index", None)
            else:
                call["index"] = index
        return len(self._calls) - begun

    def _place(self, theirs: object, piece: _Call, begun: int) -> int:
        """Return our index of it: the next one if it begins here."""
        new = len(self._calls)
        if piece.id in self._by_id:
            return self._by_id[piece.id]
        if type(theirs) is int and 0 <= theirs < MOST_INDEX:
            ours = self._ours.get(theirs)
            if ours is None or _is_another(self._calls[ours], piece, same_chunk=ours >= begun):
                self._ours[theirs] = ours = new
            return ours
        return new if piece.name or not new else new - 1

    def _begin(self, call: dict[str, Any], piece: _Call) -> None:
        call["id"] = piece.id or f"{self._prefix}_{len(self._calls)}"
        if call.get("type") not in ("function", "custom"):
            call["type"] = "custom" if "custom" in call else "function"
        if piece.id:
            self._by_id[piece.id] = len(self._calls)
        self._calls.append(piece)

    def _go_on(self, call: dict[str, Any], known: _Call, piece: _Call) -> None:
        call.pop("id", None)
        call.pop("type", None)
        if piece.name == known.name:
            call.get("function", {}).pop("name", None)
        else:
            known.name += piece.name
        known.arguments_begun |= piece.arguments_begun


def _is_another(known: _Call, piece: _Call, *, same_chunk: bool) -> bool:
    """Whether a piece with the same index is of another call. Only one with a name can be."""
    if not piece.name or not known.name:
        return False
    if piece.id and known.id:
        return True
    return same_chunk or (piece.name != known.name and known.arguments_begun)


def _id_of(call: dict[str, Any]) -> str:
    id_ = call.get("id")
    return str(id_) if isinstance(id_, str) or type(id_) is int else ""


def _respell_function(call: dict[str, Any]) -> tuple[str, bool]:
    """Return its name, or "" if it is not said here, and whether arguments are."""
    function = call.get("function")
    if "custom" in call and function is None:
        custom = call["custom"] if isinstance(call["custom"], dict) else {}
        return str(custom.get("name") or ""), bool(custom.get("input"))
    if not isinstance(function, dict):
        function = call["function"] = {"name": function}
    arguments = function.get("arguments")
    if arguments is None:
        arguments = function["arguments"] = ""
    elif not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))
        function["arguments"] = arguments
    name = function.get("name")
    if isinstance(name, str) and name:
        return name, bool(arguments)
    function.pop("name", None)
    return "", bool(arguments)
