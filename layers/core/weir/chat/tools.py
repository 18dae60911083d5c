"""The tools of a chat request, member by member. A tool is described by the caller and run by the
caller: what a provider runs itself (searches, code) it bills beside the tokens, and adds to the
input what it has found.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from weir.chat.messages import objects, shown
from weir.errors import BadRequest

FUNCTION: Mapping[str, type] = {"name": str, "description": str, "parameters": dict, "strict": bool}
CUSTOM: Mapping[str, type] = {"name": str, "description": str, "format": dict}
_SPELLED: Mapping[type, str] = {str: "a string", dict: "an object", bool: "true or false"}
_CHOICES = ("none", "auto", "required", "any")

Dropped = dict[str, None]


def tools(value: object, name: str, dropped: Dropped) -> list[dict[str, Any]]:
    """Return `tools` with the members that are known. Raise BadRequest for another type of tool."""
    passed = []
    for number, tool in enumerate(objects(value, name, name)):
        kind = tool.get("type")
        if kind not in ("function", "custom"):
            raise BadRequest(
                f"A tool's type must be function or custom, not {shown(kind)!r}: tools that the "
                "provider runs itself have no known price.",
                param=name,
            )
        if len(tool) > 2:
            _drop(tool, ("type", kind), name, dropped)
        described = _function(
            tool.get(kind),
            FUNCTION if kind == "function" else CUSTOM,
            f"{name}[{number}].{kind}",
            name,
            dropped,
        )
        passed.append({"type": kind, kind: described})
    return passed


def functions(value: object, name: str, dropped: Dropped) -> list[dict[str, Any]]:
    """Return `functions`, the older spelling of `tools`."""
    return [
        _function(each, FUNCTION, f"{name}[{number}]", name, dropped)
        for number, each in enumerate(objects(value, name, name))
    ]


def tool_choice(value: object, name: str, dropped: Dropped) -> object:
    if isinstance(value, str) and value in _CHOICES:
        return value
    kind = value.get("type") if isinstance(value, dict) else None
    if isinstance(value, dict) and kind in ("function", "custom"):
        return _chosen(value, name, dropped)
    allowed = value.get("allowed_tools") if isinstance(value, dict) else None
    if kind == "allowed_tools" and isinstance(allowed, dict):
        if allowed.get("mode") not in ("auto", "required"):
            raise BadRequest(f"{name}.allowed_tools.mode must be auto or required.", param=name)
        among = objects(allowed.get("tools"), f"{name}.allowed_tools.tools", name)
        passed = [_chosen(each, name, dropped) for each in among]
        return {"type": kind, kind: {"mode": allowed["mode"], "tools": passed}}
    raise BadRequest(
        f"{name} must be one of {', '.join(_CHOICES)}, or an object of type function, custom or "
        "allowed_tools.",
        param=name,
    )


def function_call(value: object, name: str, dropped: Dropped) -> object:
    if isinstance(value, str) and value in ("none", "auto"):
        return value
    return _function(value, {"name": str}, name, name, dropped)


def _chosen(choice: dict[str, Any], param: str, dropped: Dropped) -> dict[str, Any]:
    kind = choice.get("type")
    if kind not in ("function", "custom"):
        raise BadRequest(f"{param}: a tool's type must be function or custom.", param=param)
    _drop(choice, ("type", kind), param, dropped)
    return {
        "type": kind,
        kind: _function(choice.get(kind), {"name": str}, f"{param}.{kind}", param, dropped),
    }


def _function(
    told: object, members: Mapping[str, type], place: str, param: str, dropped: Dropped
) -> dict[str, Any]:
    if not isinstance(told, dict) or told.get("name") is None:
        raise BadRequest(f"{place} must be an object with a name.", param=param)
    passed = {}
    for name, value in told.items():
        kind = members.get(name)
        if value is None:
            continue
        if kind is None:
            dropped[f"{param}.{name}"] = None
        elif isinstance(value, kind):
            passed[name] = value
        else:
            raise BadRequest(f"{place}.{name} must be {_SPELLED[kind]}.", param=param)
    if told["name"].startswith("$"):
        raise BadRequest(
            "A function's name must not begin with $: functions that the provider runs itself have "
            "no known price.",
            param=param,
        )
    return passed


def _drop(told: dict[str, Any], members: Iterable[str], of: str, dropped: Dropped) -> None:
    for name, value in told.items():
        if name not in members and value is not None:
            dropped[f"{of}.{name}"] = None
