"""The fields of a chat request that are passed on: a list of what is known to be safe.

`CHECKED` is OpenAI's documented request. A field beyond it is passed on where every upstream that
may answer takes it, or an operator has allowed it. Otherwise it is dropped, and named in
X-Weir-Dropped; or refused, if without it the answer would mean something else (`REFUSED`).
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from weir.chat import tools
from weir.errors import BadRequest
from weir.projects.allowed_fields import UNPRICED_FIELDS
from weir.projects.extras import SAMPLING

# A constraint or a format of the answer. Dropped silently, it would be taken for granted.
CONSTRAINTS = frozenset(
    {
        "bad_words",
        "documents",
        "ebnf",
        "grammar",
        "guided_choice",
        "guided_grammar",
        "guided_json",
        "guided_regex",
        "json_schema",
        "moderation",
        "regex",
        "response_schema",
        "safe_prompt",
        "safety_settings",
        "structural_tag",
        "structured_outputs",
    }
)
REFUSED = CONSTRAINTS | UNPRICED_FIELDS

MOST_STOPS = 16
MOST_BIASES = 1_024
MOST_NAMED = 20
_WORD = re.compile(r"[a-z][a-z_-]{0,31}")
_NAME = re.compile(r"[!-+\--~]{1,64}")  # what a header can list: no space, no comma

Dropped = dict[str, None]
# Returns what is passed on, and adds to `Dropped` what was left out of it.
Check = Callable[[Any, str, Dropped], object]


def _number(least: float, most: float) -> Check:
    def check(value: Any, name: str, _: Dropped) -> object:
        if type(value) not in (int, float) or not least <= value <= most:
            raise BadRequest(f"{name} must be a number from {least} to {most}.", param=name)
        return value

    return check


def _integer(least: int, most: int) -> Check:
    def check(value: Any, name: str, _: Dropped) -> object:
        if type(value) is not int or not least <= value <= most:
            raise BadRequest(f"{name} must be an integer from {least} to {most}.", param=name)
        return value

    return check


def _flag(value: Any, name: str, _: Dropped) -> object:
    if type(value) is not bool:
        raise BadRequest(f"{name} must be true or false.", param=name)
    return value


def _word(value: Any, name: str, _: Dropped) -> object:
    """Which words there are differs between providers and changes from year to year."""
    if not isinstance(value, str) or not _WORD.fullmatch(value):
        raise BadRequest(f"{name} must be a word, such as low, medium or high.", param=name)
    return value


def _stop(value: Any, name: str, _: Dropped) -> object:
    stops = [value] if isinstance(value, str) else value
    if (
        not isinstance(stops, list)
        or len(stops) > MOST_STOPS
        or not all(isinstance(each, str) for each in stops)
    ):
        raise BadRequest(
            f"{name} must be a string or a list of at most {MOST_STOPS} strings.", param=name
        )
    return value


def _logit_bias(value: Any, name: str, _: Dropped) -> object:
    if (
        not isinstance(value, dict)
        or len(value) > MOST_BIASES
        or not all(type(n) in (int, float) and -100 <= n <= 100 for n in value.values())
    ):
        raise BadRequest(
            f"{name} must be an object of at most {MOST_BIASES:,} numbers from -100 to 100.",
            param=name,
        )
    return value


def _response_format(value: Any, name: str, dropped: Dropped) -> object:
    kind = value.get("type") if isinstance(value, dict) else None
    if kind not in ("text", "json_object", "json_schema"):
        raise _not_passed(name, f"{name}.type must be text, json_object or json_schema.")
    for member, each in value.items():
        if member not in ("type", "json_schema") and each is not None:
            raise _not_passed(name, f"{name}.{member} is not known to every provider.")
    if kind != "json_schema":
        return {"type": kind}
    told = value.get("json_schema")
    if not isinstance(told, dict):
        raise _not_passed(name, f"{name}.json_schema must be an object.")
    passed = {}
    for member, each in told.items():
        known = _JSON_SCHEMA.get(member)
        if known is None:
            if each is not None:
                dropped[f"{name}.json_schema.{member}"] = None
        elif each is not None:
            if not isinstance(each, known):
                raise _not_passed(name, f"{name}.json_schema.{member} has the wrong type.")
            passed[member] = each
    return {"type": kind, "json_schema": passed}


_JSON_SCHEMA = {"name": str, "description": str, "schema": dict, "strict": bool}

# OpenAI, "Create chat completion", with its types and bounds. What Weir sets itself (the model, the
# cap, stream_options, …) and `messages` are in `weir.chat.request`.
CHECKED: Mapping[str, Check] = {
    "temperature": _number(0, 2),
    "top_p": _number(0, 1),
    "frequency_penalty": _number(-2, 2),
    "presence_penalty": _number(-2, 2),
    "stop": _stop,
    "seed": _integer(-(2**63), 2**63 - 1),
    "logit_bias": _logit_bias,
    "logprobs": _flag,
    "top_logprobs": _integer(0, 20),
    "response_format": _response_format,
    "tools": tools.tools,
    "tool_choice": tools.tool_choice,
    "parallel_tool_calls": _flag,
    "functions": tools.functions,
    "function_call": tools.function_call,
    "reasoning_effort": _word,
    "verbosity": _word,
}
# Of providers that take them.
_EXTRA: Mapping[str, Check] = dict.fromkeys(SAMPLING, _number(-1_000_000, 1_000_000))


def passed_on(
    body: Mapping[str, Any],
    own: frozenset[str],
    *,
    allowed: frozenset[str],
    taken: Callable[[], frozenset[str]],
    dropped: Dropped,
) -> dict[str, Any]:
    """Return the fields that a provider gets, except those in `own`. null is as good as absent.

    `allowed` are passed on as they are, because an operator has said so; `taken()` are known to
    every upstream. Raises BadRequest.
    """
    passed = {}
    for name, value in body.items():
        if value is None or name in own:
            continue
        if name in allowed:
            passed[name] = value
        elif check := CHECKED.get(name):
            passed[name] = check(value, name, dropped)
        elif name in taken():
            extra = _EXTRA.get(name)
            passed[name] = extra(value, name, dropped) if extra else value
        elif name in REFUSED and not _asks_for_nothing(name, value):
            raise _not_passed(name, f"{name} is not passed on, and without it the answer differs.")
        else:
            dropped[name] = None
    return passed


def listed(names: Iterable[str]) -> str:
    """Return the value of X-Weir-Dropped: at most 20 names, then how many more there are."""
    every = list(names)
    shown = [name for name in every if _NAME.fullmatch(name)][:MOST_NAMED]
    more = len(every) - len(shown)
    return ", ".join([*shown, *([f"+{more}"] if more else [])])


def _asks_for_nothing(name: str, value: object) -> bool:
    return value is False or value == [] or (name == "modalities" and value == ["text"])


def _not_passed(name: str, message: str) -> BadRequest:
    how = (
        "No setting allows it: it has no known price."
        if name in UNPRICED_FIELDS
        else f"The operator can allow it: allowed_fields with {name}, of the project, the model or "
        "its upstreams."
    )
    return BadRequest(f"{message} {how}", param=name)
