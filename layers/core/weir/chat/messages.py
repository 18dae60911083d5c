"""The messages of a chat request, member by member: only what is known is passed on.

A member that is not known is dropped, and named in `Read.dropped`; one that is known and has
another type is refused. Text is bounded by its bytes, images by their number; content that is
bounded by neither (files, sound, films) has no known price and is refused.
"""

from typing import Any

from weir.chat.images import check_image
from weir.errors import BadRequest

_MEMBERS = {
    "system": frozenset({"role", "content", "name"}),
    "developer": frozenset({"role", "content", "name"}),
    "user": frozenset({"role", "content", "name"}),
    "assistant": frozenset({"role", "content", "name", "refusal", "tool_calls", "function_call"}),
    "tool": frozenset({"role", "content", "name", "tool_call_id"}),
    "function": frozenset({"role", "content", "name"}),
}
_NESTED = ("tool_calls", "function_call")
_HISTORY: dict[str, type] = {
    "extra_content": dict,
    "reasoning": str,
    "reasoning_content": str,
    "reasoning_details": list,
}
_THINKING = ("thinking", "redacted_thinking", "reasoning")
_CALLED = {"function": ("name", "arguments"), "custom": ("name", "input")}


class Read:
    """Messages as one provider gets them: `history` are the members that it takes back (see
    `weir.projects.extras`).

    `messages` are new objects where something was left out. `addresses` are those of the images;
    `dropped` are the names of what was left out, in order; `has_history`: some member of the
    history was met, so another provider may get something else.
    """

    def __init__(
        self, messages: object, *, images: bool, history: frozenset[str] = frozenset()
    ) -> None:
        if not isinstance(messages, list) or not messages:
            raise _refused("messages is required: a list of at least one message.")
        self.addresses: list[str] = []
        self.dropped: dict[str, None] = {}
        self.has_history = False
        self._images = images
        self._history = history
        self.messages = [self._message(message, place) for place, message in enumerate(messages)]

    def _message(self, message: Any, number: int) -> dict[str, Any]:
        if not isinstance(message, dict):
            raise _refused("Each of messages must be an object.")
        role = message.get("role")
        if not isinstance(role, str) or role not in _MEMBERS:
            raise _refused(f"messages[{number}].role must be one of {', '.join(_MEMBERS)}.")
        if type(message.get("content")) is str and len(message) == 2:
            return message  # most are
        place = f"messages[{number}]"
        passed = {}
        for name, value in message.items():
            if name in _MEMBERS[role]:
                if name not in _NESTED and type(value) is str:
                    passed[name] = value
                elif value is not None or name == "content":
                    passed[name] = self._member(name, value, f"{place}.{name}", role)
            elif value is not None and self._takes(name, value, "messages", role):
                passed[name] = value
        return passed

    def _member(self, name: str, value: Any, place: str, role: Any) -> Any:
        if name == "content":
            return self._content(value, place, role)
        if name == "tool_calls":
            return [
                self._tool_call(each, f"{place}[{number}]")
                for number, each in enumerate(objects(value, place, "messages"))
            ]
        if name == "function_call":
            return self._called(value, place, _CALLED["function"])
        return _text(value, place)

    def _takes(self, name: str, value: Any, of: str, role: Any) -> bool:
        """Whether the provider takes a member that is not OpenAI's; it is dropped otherwise."""
        if name in _HISTORY and role == "assistant":
            self.has_history = True
            if name in self._history and isinstance(value, _HISTORY[name]):
                return True
        self.dropped[f"{of}.{name}"] = None
        return False

    def _content(self, content: Any, place: str, role: Any) -> Any:
        if content is None or isinstance(content, str):
            return content
        if not isinstance(content, list):
            raise _refused(f"{place} must be a string or a list of parts.")
        parts = [
            passed
            for number, part in enumerate(content)
            if (passed := self._part(part, f"{place}[{number}]", role)) is not None
        ]
        # An empty list is refused by several providers.
        return parts if parts or not content else ""

    def _part(self, part: Any, place: str, role: Any) -> dict[str, Any] | None:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("text", "refusal"):
            if len(part) == 2 and type(part.get(kind)) is str:
                return part  # type: ignore[no-any-return]
            self._drop_beside(part, ("type", kind), "messages.content")
            return {"type": kind, kind: _text(part.get(kind), f"{place}.{kind}")}
        if kind == "image_url" and self._images:
            image = check_image(part.get("image_url"), f"{place}.image_url")
            self._drop_beside(part, ("type", "image_url"), "messages.content")
            self._drop_beside(part["image_url"], ("url", "detail"), "messages.content.image_url")
            self.addresses.append(image["url"])
            return {"type": "image_url", "image_url": image}
        if kind in _THINKING and role == "assistant":
            return self._thought(part, place)
        what = "images" if kind == "image_url" else f"content of type {shown(kind)!r}"
        raise _refused(f"This model takes no {what}.")

    def _thought(self, part: dict[str, Any], place: str) -> dict[str, Any] | None:
        """A part of the answer's thinking, sent back as history."""
        self.has_history = True
        if part["type"] != "thinking" or "thinking" not in self._history:
            self.dropped[f"messages.content.{part['type']}"] = None
            return None
        thinking = part.get("thinking")
        if not isinstance(thinking, str):
            thinking = [
                {"type": "text", "text": _text(each.get("text"), f"{place}.thinking.text")}
                for each in objects(thinking, f"{place}.thinking", "messages")
                if each.get("type") == "text"
            ]
        passed = {"type": "thinking", "thinking": thinking}
        for name, kind in (("closed", bool), ("signature", str)):
            if isinstance(part.get(name), kind):
                passed[name] = part[name]
        self._drop_beside(part, ("type", "thinking", "closed", "signature"), "messages.content")
        return passed

    def _tool_call(self, call: dict[str, Any], place: str) -> dict[str, Any]:
        kind = call.get("type") or "function"
        if kind not in ("function", "custom"):
            raise _refused(f"{place}.type must be function or custom.")
        passed: dict[str, Any] = {}
        for name, value in call.items():
            if value is None:
                continue
            if name == kind:
                passed[name] = self._called(value, f"{place}.{name}", _CALLED[kind])
            elif name in ("id", "type"):
                passed[name] = value if type(value) is str else _text(value, f"{place}.{name}")
            elif self._takes(name, value, "messages.tool_calls", "assistant"):
                passed[name] = value
        return passed

    def _called(self, called: Any, place: str, members: tuple[str, str]) -> dict[str, Any]:
        if not isinstance(called, dict):
            raise _refused(f"{place} must be an object.")
        name, told = members
        if len(called) == 2 and type(called.get(name)) is type(called.get(told)) is str:
            return called
        self._drop_beside(called, members, "messages.tool_calls")
        return {
            name: _text(called[name], f"{place}.{name}")
            for name in members
            if called.get(name) is not None
        }

    def _drop_beside(self, told: dict[str, Any], members: tuple[str, ...], of: str) -> None:
        for name, value in told.items():
            if name not in members and value is not None:
                self.dropped[f"{of}.{name}"] = None


def with_system_prompt(messages: list[dict[str, Any]], prompt: str | None) -> list[dict[str, Any]]:
    """Put the project's instructions first, so that the caller's own come after them.

    If the caller's first message is a system or developer message, both go out as one, under the
    caller's role: the chat templates of several models refuse a second one.
    """
    if prompt is None:
        return messages
    first = messages[0]
    if first["role"] not in ("system", "developer"):
        return [{"role": "system", "content": prompt}, *messages]
    content = first.get("content")
    together: Any
    if isinstance(content, list):
        together = [{"type": "text", "text": f"{prompt}\n\n"}, *content]
    else:
        together = f"{prompt}\n\n{content}" if content else prompt
    return [{**first, "content": together}, *messages[1:]]


def objects(value: object, place: str, param: str) -> list[dict[str, Any]]:
    """Return a list of objects as it is. Raise BadRequest for anything else."""
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise BadRequest(f"{place} must be a list of objects.", param=param)
    return value


def shown(value: object) -> str:
    """What a refusal repeats of something the caller sent."""
    return value[:64] if isinstance(value, str) else ""


def _text(value: object, place: str) -> str:
    if not isinstance(value, str):
        raise _refused(f"{place} must be a string.")
    return value


def _refused(message: str) -> BadRequest:
    return BadRequest(message, param="messages")
