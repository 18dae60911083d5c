"""What a provider says, brought into the one form that every published client reads.

Rules of this file
* Tolerant in what is read: what is missing is filled in, what has another spelling is respelt, what
  says nothing is swallowed.
* Strict in what is judged: a failure is a failure wherever it is said, and an answer is finished
  only by a `finish_reason`.
* What clients index is always there: `choices[0]`, its `index`, its `delta` or `message`, and the
  `index` of a tool call.
* Every text that comes is counted, whatever its name: it may have to be paid for.
"""

from collections.abc import Iterator
from typing import Any

from weir.chat.detection import failure_in
from weir.chat.masking import Mask
from weir.chat.outcome import Outcome, State
from weir.chat.tool_calls import MOST_INDEX, ToolCalls
from weir.errors import Refusal, UpstreamFailed

CHUNK, COMPLETION = "chat.completion.chunk", "chat.completion"

# Other spellings of OpenAI's reasons; any other word means that the answer is finished, too.
FINISH_REASONS = {
    **{reason: reason for reason in ("stop", "length", "tool_calls", "content_filter")},
    "function_call": "function_call",
    **dict.fromkeys(("max_tokens", "max_output_tokens", "model_length"), "length"),
    "model_context_window_exceeded": "length",
    **dict.fromkeys(("tool_use", "tool_call", "tool"), "tool_calls"),
    **dict.fromkeys(
        ("safety", "recitation", "blocklist", "prohibited_content", "spii", "content_filtered",
         "guardrail_intervened", "refusal", "sensitive"),
        "content_filter",
    ),
}  # fmt: skip
# An answer that ended so is no answer.
BROKEN_OFF = frozenset(
    {"error", "failed", "abort", "aborted", "cancelled", "canceled", "network_error", "timeout",
     "insufficient_system_resource", "malformed_function_call"}
)  # fmt: skip
UNFINISHED = frozenset({"", "null", "none"})

# Members of a delta or message that clients read as strings, beside its `content`.
_TEXTS = ("reasoning_content", "reasoning", "refusal")
# Members of a delta or message whose strings are no text of the answer.
_NO_TEXT = frozenset({"role", "id", "type", "index", "object", "status", "format", "signature"})


class Normaliser:
    """Of one answer. `created` (Unix seconds) is for providers that do not say when; `choices` is
    how many answers were asked for.
    """

    def __init__(
        self,
        completion_id: str,
        created: int,
        choices: int,
        mask: Mask,
        outcome: Outcome,
        *,
        model: str | None = None,
    ) -> None:
        """`model` is told in the place of whatever the provider says."""
        self._choices_asked = choices
        self._id = completion_id
        self._created = created
        self._model = model or ""
        self._is_named = model is not None
        self._mask = mask
        self._outcome = outcome
        self._begun: set[int] = set()
        self._finished: set[int] = set()
        self._calls: dict[int, ToolCalls] = {}
        self._calls_begun = 0  # of all choices
        # What the last chunk or completion said, and where: the choice, and the path from its delta
        # or message (`content`, `tool_calls.0.function.arguments`).
        self.texts: list[tuple[tuple[int, str], str]] = []

    @property
    def unfinished(self) -> list[int]:
        """The indexes of answers that have begun and have no end; at least one until any has."""
        if not self._begun:
            return [0]
        return sorted(self._begun - self._finished)

    @property
    def is_over(self) -> bool:
        """Whether all the answers that were asked for are finished."""
        is_finished = self._outcome.state is State.FINISHED
        return is_finished and len(self._finished) >= self._choices_asked

    @property
    def named(self) -> tuple[str, int, int]:
        """Return what another chunk like the last one depends on: the model and the time that it
        gets if it has none, and how many tool calls have begun.
        """
        return self._model, self._created, self._calls_begun

    def repeat(self, index: int, name: str, text: str) -> None:
        """Count a chunk like one before, with another text in a member of the delta."""
        self.texts = [((index, name), text)] if text else []
        self._count(None)

    def chunk(self, value: object) -> dict[str, Any] | None:
        """Return a chunk of a stream in normal form; None for one that says nothing.

        Its `choices` are empty only if it has a usage. Raise the refusal for what reports a failure
        or cannot be read.
        """
        self.texts = []
        usage = usage_of(value)
        if usage is not None:  # also beside a failure
            self._outcome.usage = usage
            self._outcome.usage_is_final = False
            self._outcome.state = State.SPEAKING
        chunk = self._checked(value)
        choices = _choices(chunk)
        broken_off = False
        for place, choice in enumerate(choices):
            index = _index(choice, place)
            delta = _delta(choice)
            if index not in self._begun and delta.get("role") is None:
                delta["role"] = "assistant"  # openai-js gives up without one
            if "tool_calls" in delta:
                calls = self._calls.setdefault(index, ToolCalls(self._id, index))
                self._calls_begun += calls.normalise(delta)
            self.texts += texts_of(index, delta)
            self._begun.add(index)
            reason = _respell_finish_reason(choice)
            if reason in BROKEN_OFF:
                broken_off = True
            elif reason is not None:
                self._finished.add(index)
        self._count(usage)
        if broken_off:
            raise UpstreamFailed("The provider broke off its answer.")
        if not choices and usage is None:
            return None
        chunk["choices"] = choices
        if usage is not None or "usage" in chunk:
            chunk["usage"] = usage
        return self._named(chunk, CHUNK)

    def completion(self, value: object) -> dict[str, Any]:
        """Return a whole answer in normal form. Raises the same refusals."""
        self.texts = []
        usage = self._outcome.usage = usage_of(value)
        try:
            answer = self._checked(value)
            if not answer.get("choices"):
                raise unreadable("it has no choices")
        except Refusal:
            if usage is None:
                self._outcome.state = State.REFUSED  # it says itself that it has done nothing
            raise
        choices = _choices(answer)
        if usage is not None or "usage" in answer:
            answer["usage"] = usage
        for place, choice in enumerate(choices):
            index = _index(choice, place)
            is_part = "delta" in choice
            message = _message(choice)
            if "tool_calls" in message:
                ToolCalls(self._id, index).normalise(message, whole=True)
            texts = texts_of(index, message)
            self.texts += texts
            self._outcome.content_chunks += any(texts)
            self._begun.add(index)
            reason = _respell_finish_reason(choice)
            if reason in BROKEN_OFF:
                raise UpstreamFailed("The provider broke off its answer.")
            if reason is None and is_part:
                raise unreadable("it is only a part of an answer")
            choice["finish_reason"] = reason or "stop"
            self._finished.add(index)
        self._outcome.content_bytes += _utf8(self.texts)
        self._outcome.state = State.FINISHED
        self._outcome.usage_is_final = self._outcome.usage is not None
        answer["choices"] = choices
        return self._named(answer, COMPLETION)

    def end_of(self, index: int, reason: str) -> dict[str, Any]:
        """Return a chunk of ours that ends an answer."""
        self._begun.add(index)
        self._finished.add(index)
        choice = {"index": index, "delta": {}, "finish_reason": reason}
        return self._named({"choices": [choice]}, CHUNK)

    def usage_chunk(self, usage: dict[str, Any]) -> dict[str, Any]:
        """Return a chunk of ours as OpenAI forms it: a usage alone."""
        return self._named({"choices": [], "usage": usage}, CHUNK)

    def _checked(self, value: object) -> dict[str, Any]:
        failure = failure_in(value)
        if failure is not None:
            silent = self._outcome.content_chunks == 0
            from weir.chat.failures import refusal_in_answer  # few processes need it

            raise refusal_in_answer(failure, self._mask, before_any_word=silent)
        if not isinstance(value, dict):
            raise unreadable("it is not an object")
        value.pop("error", None)  # it says nothing, but clients take any for a failure
        return value

    def _count(self, usage: dict[str, Any] | None) -> None:
        outcome = self._outcome
        said = _utf8(self.texts)
        if said:
            outcome.content_bytes += said
            outcome.content_chunks += 1
        if self._finished and self._begun == self._finished:
            outcome.state = State.FINISHED
        elif said or outcome.state is State.FINISHED:
            outcome.state = State.SPEAKING
        is_finished = outcome.state is State.FINISHED
        if usage is not None:
            outcome.usage_is_final = is_finished
        else:  # another answer may begin after the first, or this one go on
            outcome.usage_is_final &= is_finished and not said

    def _named(self, value: dict[str, Any], kind: str) -> dict[str, Any]:
        model, created = value.get("model"), value.get("created")
        if isinstance(model, str) and not self._is_named:
            self._model = model
        else:
            value["model"] = self._model
        if type(created) is int:
            self._created = created
        else:
            value["created"] = self._created
        value["id"] = self._id
        value["object"] = kind
        return value


def usage_of(value: object) -> dict[str, Any] | None:
    """Return the usage that a chunk or completion has; None if there is no number in it."""
    if not isinstance(value, dict):
        return None
    usage = value.get("usage")
    if usage is None and "x_groq" in value:
        groq = value["x_groq"]
        usage = groq.get("usage") if isinstance(groq, dict) else None
    if not isinstance(usage, dict) or not any(type(n) in (int, float) for n in usage.values()):
        return None
    return usage


def unreadable(why: str) -> Refusal:
    return UpstreamFailed(
        f"The provider's answer cannot be read: {why}.", code="upstream_invalid_response"
    )


def _choices(value: dict[str, Any]) -> list[dict[str, Any]]:
    choices = value.get("choices")
    if not choices:
        return []
    if not isinstance(choices, list):
        raise unreadable("its choices are not a list of objects")
    for choice in choices:
        if not isinstance(choice, dict):
            raise unreadable("its choices are not a list of objects")
        choice.pop("error", None)  # as in `_checked`
    return choices


def _index(choice: dict[str, Any], place: int) -> int:
    index = choice.get("index")
    if type(index) is not int or not 0 <= index < MOST_INDEX:
        index = choice["index"] = place
    return index


def _delta(choice: dict[str, Any]) -> dict[str, Any]:
    """A `message` or `text` beside a `delta` is taken to repeat it."""
    delta = choice.get("delta")
    message, text = choice.pop("message", None), choice.pop("text", None)
    if not isinstance(delta, dict):
        delta = choice["delta"] = _said(delta or message or text)
    if not _is_plain(delta):
        _respell(delta)
    return delta


def _message(choice: dict[str, Any]) -> dict[str, Any]:
    delta, text = choice.pop("delta", None), choice.pop("text", None)
    message = choice["message"] = _said(choice.get("message") or delta or text)
    message.setdefault("role", "assistant")
    message.setdefault("content", None)
    _respell(message)
    return message


def _respell(said: dict[str, Any]) -> None:
    """What clients read as strings is one, or null."""
    if "content" in said and not isinstance(said["content"], str | None):
        _flatten(said)
    if "role" in said and said["role"] != "assistant":
        said["role"] = "assistant"
    for name in _TEXTS:
        if name in said and not isinstance(said[name], str | None):
            said[name] = "".join(_strings(said[name]))


def _said(value: object) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    return {"content": value} if isinstance(value, str) else {}


def _flatten(message: dict[str, Any]) -> None:
    """Make a text of a content that is a list of parts: clients add contents up as strings.

    What a model thinks becomes `reasoning_content`, as most providers spell it.
    """
    content = message["content"]
    parts = content if isinstance(content, list) else [content]
    spoken: list[str] = []
    thought: list[str] = []
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        into = thought if kind in ("thinking", "reasoning", "redacted_thinking") else spoken
        into += _strings(part)
    message["content"] = "".join(spoken)
    if thought and not isinstance(message.get("reasoning_content"), str):
        message["reasoning_content"] = "".join(thought)


def _respell_finish_reason(choice: dict[str, Any]) -> str | None:
    """Return the reason in OpenAI's spelling (or one of BROKEN_OFF); None: not finished."""
    reason = choice.get("finish_reason")
    if reason is None:
        choice["finish_reason"] = None
        return None
    known = FINISH_REASONS.get(reason) if isinstance(reason, str) else None
    if known == reason:
        return known
    word = reason.strip().lower() if isinstance(reason, str) else "stop"
    if word in UNFINISHED:
        choice["finish_reason"] = None
        return None
    if word in BROKEN_OFF:
        return word
    choice["native_finish_reason"] = reason
    choice["finish_reason"] = respelt = FINISH_REASONS.get(word, "stop")
    return respelt


def _is_plain(said: dict[str, Any]) -> bool:
    """Whether it is a content and nothing else, as nearly all are."""
    return len(said) == 1 and isinstance(said.get("content"), str)


def texts_of(index: int, said: dict[str, Any]) -> list[tuple[tuple[int, str], str]]:
    if _is_plain(said):
        return [((index, "content"), said["content"])] if said["content"] else []
    return [((index, path), text) for path, text in _placed(said) if text]


def _placed(value: Any, path: str = "", depth: int = 8) -> Iterator[tuple[str, str]]:
    """Yield every text within a delta or message, whatever its name, with the path to it: names,
    and in lists the `index` that an element has, or its place.
    """
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict) and depth:
        for name, each in value.items():
            if name not in _NO_TEXT:
                yield from _placed(each, f"{path}.{name}" if path else name, depth - 1)
    elif isinstance(value, list) and depth:
        for place, each in enumerate(value):
            index = each.get("index", place) if isinstance(each, dict) else place
            yield from _placed(each, f"{path}.{index}", depth - 1)


def _strings(value: Any) -> Iterator[str]:
    return (text for _, text in _placed(value))


def _utf8(texts: list[tuple[tuple[int, str], str]]) -> int:
    size = 0
    for _, text in texts:
        size += len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return size
