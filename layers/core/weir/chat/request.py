"""Understanding a chat request: what the caller may say, and what the provider is told.

The body is OpenAI's chat completion request and passes through; only what Weir owns is changed: the
model, the output cap, and that usage is always asked for. Model and cap are put in last, because
they are chosen after admission, and again for another provider. Bad input is refused before
anything is opened, with the name of the field.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from weir.errors import BadRequest
from weir.ledger import costs
from weir.projects.catalogue import THINKING_PARAMETERS, Candidate, Model

# Client libraries' own arguments that stray into the body (contract sections 8 and 21.3).
STRAY_FIELDS = ("session_id", "token", "user_id", "tier", "signal", "headers")

# Fields with which some provider produces more, or dearer, output than the cap that we send allows:
# other names of the cap, several answers for one, other models or places that serve them, dearer
# ways to serve them, searches and other rounds of the provider's own, what is billed beside tokens,
# and fields within which any of these may be said.
COSTLY_FIELDS = frozenset(
    {
        "n_predict",
        "max_new_tokens",
        "max_output_tokens",
        "max_tokens_to_sample",
        "min_tokens",
        "ignore_eos",
        "best_of",
        "use_beam_search",
        "models",
        "route",
        "fallbacks",
        "plugins",
        "service_tier",
        "prediction",
        "web_search",
        "web_search_options",
        "enable_search",
        "search_options",
        "search_parameters",
        "search_settings",
        "compound_custom",
        "mcp_servers",
        "modalities",
        "audio",
        "provider",
        "preset",
        "speed",
        "inference_geo",
        "safety_model",
        "cache_control",
        "extra_body",
    }
)

_CAP_FIELDS = ("max_tokens", "max_completion_tokens")
_NOT_PASSED = COSTLY_FIELDS.union(STRAY_FIELDS, _CAP_FIELDS, THINKING_PARAMETERS, ("model",))
_CLIENT_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
# Only a member's name is written so: a quote within a text is escaped.
_CACHE_MARK = '"cache_control":'
_MAX_TOLD = 1000  # characters of a provider's message that are passed on


@dataclass(frozen=True, slots=True)
class Target:
    """What a request is held to, whichever provider answers it."""

    max_output_tokens: int
    images: bool = True
    system_prompt: str | None = None


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A request that has been understood.

    `common` is what any provider gets, as JSON, without the model and the output cap. `text_bytes`
    is its length without the addresses of its `images`, which have a price of their own.
    `output_cap` is for each of `choices`; `cap_asked`: the caller named one himself.
    """

    stream: bool
    usage_wanted: bool
    common: bytes
    text_bytes: int = 0
    images: int = 0
    choices: int = 1
    output_cap: int = 1
    cap_asked: bool = False
    logprobs: bool = False

    def body_for(self, candidate: Candidate, output_cap: int) -> bytes:
        """What this candidate gets; `output_cap` is for each choice."""
        owned = f',"model":{_json(candidate.model)},"{candidate.output_cap_parameter}":{output_cap}'
        if candidate.thinking_parameter is not None:
            owned += f',"{candidate.thinking_parameter}":{candidate.thinking_tokens}'
        return b"".join((memoryview(self.common)[:-1], owned.encode(), b"}"))

    def output_tokens(self, output_cap: int) -> int:
        """Of all choices together."""
        return self.choices * output_cap


def understand(body: Mapping[str, Any], target: Target) -> ChatRequest:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest("messages is required: a list of at least one message.", param="messages")
    if not all(isinstance(message, dict) for message in messages):
        raise BadRequest("Each of messages must be an object.", param="messages")
    addresses = _image_addresses(messages, images=target.images)
    _check_tools(body)
    stream = _optional(body, "stream", bool) or False
    options = _optional(body, "stream_options", dict) or {}
    choices = _positive(body, "n") or 1
    if choices > target.max_output_tokens:
        raise BadRequest(f"n must be at most {target.max_output_tokens}.", param="n")

    # `n` answers share the cap, so that it bounds the request and not each answer.
    caps = [cap for name in _CAP_FIELDS if (cap := _positive(body, name)) is not None]

    upstream = {name: value for name, value in body.items() if name not in _NOT_PASSED}
    if target.system_prompt is not None:
        # First, so that the caller's own instructions come after it (contract section 8).
        prompt = {"role": "system", "content": target.system_prompt}
        upstream["messages"] = [prompt, *messages]
    if stream:
        upstream["stream_options"] = {**options, "include_usage": True}
    text = _json(upstream)
    if _CACHE_MARK in text:  # looked for in what is made anyway: hardly any request has one
        text = _json(_without_cache_marks(upstream))
    # A lone surrogate cannot be UTF-8; its JSON escape can.
    common = text.encode("utf-8", "backslashreplace")
    return ChatRequest(
        stream=stream,
        usage_wanted=options.get("include_usage") is True,
        common=common,
        # In characters, which are the bytes of an address that is one, and never more than them.
        text_bytes=len(common) - sum(map(len, addresses)),
        images=len(addresses),
        choices=choices,
        output_cap=min([*caps, target.max_output_tokens // choices]),
        cap_asked=bool(caps),
        logprobs=bool(body.get("logprobs")),
    )


def check_length(model: Model, request: ChatRequest) -> None:
    """Refuses what might cost more than the model's prices say. What is too long for the model
    itself its provider refuses, who alone can count it.
    """
    size = request.text_bytes, request.images
    most = model.max_input_tokens
    if most is not None and (bound := costs.most_input(model, *size)) > most:
        fit = max(0, request.text_bytes - (bound - most))
        beside = " beside its images" if request.images else ""
        raise BadRequest(
            f"The request has {request.text_bytes:,} bytes of text; at most {fit:,} fit{beside}, "
            f"because this model's price rises beyond {most:,} input tokens, and a token may be a "
            "single byte.",
            code="context_length_exceeded",
            param="messages",
        )


def completion_id(client_request_id: str | None, random_hex: str) -> str:
    """The answer's id, known before its first token. X-Client-Request-Id lets a caller choose."""
    if not client_request_id:
        return f"chatcmpl-{random_hex}"
    if not _CLIENT_ID.fullmatch(client_request_id):
        raise BadRequest(
            "X-Client-Request-Id must be 1 to 128 of A-Z a-z 0-9 _ . : -",
            param="X-Client-Request-Id",
        )
    return client_request_id


def _image_addresses(messages: list[dict[str, Any]], *, images: bool) -> list[str]:
    """Text is bounded by its bytes, images by their number. What is bounded by neither (files,
    sound, films) would have no known price.
    """
    addresses: list[str] = []
    for message in messages:
        content = message.get("content")
        if isinstance(content, dict):
            content = [content]  # no list, but some provider may read it as one
        for part in content if isinstance(content, list) else ():
            kind = part.get("type") if isinstance(part, dict) else None
            if kind in ("text", "refusal"):
                continue
            if kind != "image_url" or not images:
                what = "images" if kind == "image_url" else f"content of type {_told(kind)!r}"
                raise BadRequest(f"This model takes no {what}.", param="messages")
            image = part.get("image_url")
            address = image.get("url") if isinstance(image, dict) else None
            if not isinstance(address, str):
                raise BadRequest(
                    "image_url must be an object with a url, which is a string.", param="messages"
                )
            addresses.append(address)
    return addresses


def _check_tools(body: Mapping[str, Any]) -> None:
    """A tool is described by the caller and run by him: what a provider runs itself (searches,
    code) it bills beside the tokens, and adds to the input what it has found.
    """
    tools, functions = body.get("tools"), body.get("functions")
    for tool in _objects(tools, "tools"):
        kind = tool.get("type")
        if kind not in ("function", "custom"):
            raise BadRequest(
                f"A tool's type must be function or custom, not {_told(kind)[:64]!r}: tools that "
                "the provider runs itself have no known price.",
                param="tools",
            )
        for told in (tool, tool.get("function"), tool.get("custom")):
            _check_name(told, "tools")
    for function in _objects(functions, "functions"):
        _check_name(function, "functions")


def _objects(value: object, name: str) -> list[dict[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise BadRequest(f"{name} must be a list of objects.", param=name)
    return value


def _check_name(function: object, param: str) -> None:
    name = function.get("name") if isinstance(function, dict) else None
    if isinstance(name, str) and name.startswith("$"):
        raise BadRequest(
            "A function's name must not begin with $: functions that the provider runs itself have "
            "no known price.",
            param=param,
        )


def _without_cache_marks(upstream: dict[str, Any]) -> dict[str, Any]:
    """Writing a cache costs more than input with some providers. Looked for only as deep as a
    provider does: a parameter of a caller's function may have that name.
    """
    depths = {"messages": 4, "tools": 2, "functions": 1}
    return {name: _unmarked(value, depths.get(name, -1)) for name, value in upstream.items()}


def _unmarked(value: Any, depth: int) -> Any:
    if depth >= 0 and isinstance(value, dict):
        return {
            name: _unmarked(each, depth - 1)
            for name, each in value.items()
            if name != "cache_control"
        }
    if depth > 0 and isinstance(value, list):
        return [_unmarked(each, depth - 1) for each in value]
    return value


def _optional(body: Mapping[str, Any], name: str, kind: type) -> Any:
    value = body.get(name)
    if value is not None and not isinstance(value, kind):
        spelled = {bool: "true or false", dict: "an object"}[kind]
        raise BadRequest(f"{name} must be {spelled}.", param=name)
    return value


def _positive(body: Mapping[str, Any], name: str) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BadRequest(f"{name} must be an integer of at least 1.", param=name)
    return value


def _told(value: object) -> str:
    return value[:_MAX_TOLD] if isinstance(value, str) else ""


# Made once: json.dumps with arguments would make one for every request.
_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
