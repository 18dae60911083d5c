"""Understanding a chat request: what the caller may send, and what the provider gets.

The body is OpenAI's chat completion request. What is passed on is a list of what is known to be
safe: `weir.chat.fields`, and member by member `messages`, `images` and `tools`. The model, the
output cap and what names the user are put in last, because they are chosen after admission, and
again for another provider. Bad input is refused before anything is opened, with the name of the
field.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from weir.chat import fields
from weir.chat.messages import Read, with_system_prompt
from weir.errors import BadRequest
from weir.ledger import costs
from weir.projects.catalogue import Candidate, Model, Upstream

_CAP_FIELDS = ("max_tokens", "max_completion_tokens")
# Weir's to set, or read here. The user's name is dropped like any other field.
_OWN = frozenset({"messages", "model", "stream", "stream_options", "n", *_CAP_FIELDS})
_CLIENT_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


@dataclass(frozen=True, slots=True)
class Target:
    """What a request is held to. `upstreams` are all that may answer it; `allowed_fields` are of
    the project and the model; `safety_identifier` stands for the user at providers that know it.
    """

    max_output_tokens: int
    images: bool = True
    system_prompt: str | None = None
    upstreams: tuple[Upstream, ...] = ()
    allowed_fields: frozenset[str] = frozenset()
    safety_identifier: str | None = None

    def taken(self) -> frozenset[str]:
        """Return the fields beyond OpenAI's that every upstream takes: a request means the same to
        all of them.
        """
        each = [upstream.extras.fields | upstream.allowed_fields for upstream in self.upstreams]
        return frozenset.intersection(*each) if each else frozenset()

    def allowed(self) -> frozenset[str]:
        """Return the names that are passed on unchecked: what an operator has allowed, everywhere
        that the request may go.
        """
        each = [upstream.allowed_fields for upstream in self.upstreams]
        everywhere = frozenset.intersection(*each) if each else frozenset()
        return self.allowed_fields | everywhere


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A request that has been understood.

    `common` is what a provider gets, as JSON, without the model and the output cap; `by_history`
    has it for the providers that take back other members of the history (by
    `Extras.history`), if that makes a difference. `text_bytes` is the length of the longest without
    the addresses of its `images`, which have a price of their own. `output_cap` is for each of
    `choices`; `cap_asked`: the caller named one. `dropped` are the fields that no provider gets.
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
    dropped: tuple[str, ...] = ()
    by_history: Mapping[frozenset[str], bytes] = field(default_factory=dict)
    safety_identifier: str | None = None

    def body_for(self, candidate: Candidate, output_cap: int) -> bytes:
        """Return what this candidate gets; `output_cap` is for each choice."""
        owned = f',"model":{_json(candidate.model)},"{candidate.output_cap_parameter}":{output_cap}'
        if candidate.thinking_parameter is not None:
            owned += f',"{candidate.thinking_parameter}":{candidate.thinking_tokens}'
        extras = candidate.upstream.extras
        if extras.identity and self.safety_identifier is not None:
            owned += f',"safety_identifier":{_json(self.safety_identifier)},"store":false'
        common = self.by_history.get(extras.history, self.common)
        return b"".join((memoryview(common)[:-1], owned.encode(), b"}"))

    def output_tokens(self, output_cap: int) -> int:
        """Of all choices together."""
        return self.choices * output_cap


def understand(body: Mapping[str, Any], target: Target) -> ChatRequest:
    """Return what may be sent. Raise BadRequest, with the name of the field, for what may not."""
    histories = list(dict.fromkeys(upstream.extras.history for upstream in target.upstreams))
    history = histories[0] if histories else frozenset()
    read = Read(body.get("messages"), images=target.images, history=history)
    stream = _optional(body, "stream", bool) or False
    options = _optional(body, "stream_options", dict) or {}
    choices = _positive(body, "n") or 1
    if choices > target.max_output_tokens:
        raise BadRequest(f"n must be at most {target.max_output_tokens}.", param="n")
    # `n` answers share the cap, so that it bounds the request and not each answer.
    caps = [cap for name in _CAP_FIELDS if (cap := _positive(body, name)) is not None]

    dropped: dict[str, None] = {}
    passed = fields.passed_on(
        body, _OWN, allowed=target.allowed(), taken=target.taken, dropped=dropped
    )
    if stream:
        passed["stream"] = True
        passed["stream_options"] = _stream_options(options, dropped)
    if choices > 1:
        passed["n"] = choices
    common = _written(passed, read, target.system_prompt)
    by_history = {}
    if read.has_history:  # hardly any request has one
        by_history[history] = common
        for other in histories[1:]:
            again = Read(body["messages"], images=target.images, history=other)
            by_history[other] = _written(passed, again, target.system_prompt)
            read.dropped = {n: None for n in read.dropped if n in again.dropped}
    longest = max(map(len, by_history.values())) if by_history else len(common)
    return ChatRequest(
        stream=stream,
        usage_wanted=options.get("include_usage") is True,
        common=common,
        # In characters, which are the bytes of an address that is one, and never more than them.
        text_bytes=longest - sum(map(len, read.addresses)),
        images=len(read.addresses),
        choices=choices,
        output_cap=min([*caps, target.max_output_tokens // choices]),
        cap_asked=bool(caps),
        logprobs=bool(body.get("logprobs")),
        dropped=(*dropped, *read.dropped),
        by_history=by_history,
        safety_identifier=target.safety_identifier,
    )


def _written(passed: Mapping[str, Any], read: Read, prompt: str | None) -> bytes:
    text = _json({"messages": with_system_prompt(read.messages, prompt), **passed})
    # A lone surrogate cannot be UTF-8; its JSON escape can.
    return text.encode("utf-8", "backslashreplace")


def _stream_options(options: Mapping[str, Any], dropped: dict[str, None]) -> dict[str, bool]:
    """Usage is always wanted of the provider, whatever the caller wants to see."""
    passed = {"include_usage": True}
    for name, value in options.items():
        if value is None:
            continue
        if name not in ("include_usage", "include_obfuscation"):
            dropped[f"stream_options.{name}"] = None
        elif type(value) is not bool:
            raise BadRequest(
                f"stream_options.{name} must be true or false.", param="stream_options"
            )
        elif name != "include_usage":
            passed[name] = value
    return passed


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


# Made once: json.dumps with arguments would make one for every request.
_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
