"""Detect that an answer with status 200 reports a failure. Every chunk is looked at; what a failure
means is another matter, for which hardly any process needs `failures`.
"""

from collections.abc import Mapping

# How an answer ends that was not finished: OpenRouter's, Zhipu's and DeepSeek's words.
_BROKEN_OFF = ("error", "network_error", "insufficient_system_resource")
_MESSAGES = ("message", "msg", "detail", "error_msg", "Message")  # of errors without a wrapper
_SUCCESS = (0, 200, "0", "200", "ok", "OK", "success")


def failure_in(value: object) -> object | None:
    """Return the failure that a chunk or a whole answer with status 200 reports, for
    `refusal_in_answer`; None if it reports none. It is called for every chunk.

    An `error` beside choices that has nothing in it is none: some providers send one with each.
    """
    if isinstance(value, list) and value:
        value = value[0]  # as Google's native API wraps it
    if not isinstance(value, dict):
        return None
    error, choices = value.get("error"), value.get("choices")
    if not choices:
        return value if _is_failure(value) else None
    if error and _says_something(error):
        return value
    if isinstance(choices, list):
        for choice in choices:
            if not isinstance(choice, dict):
                continue
            if (error := choice.get("error")) and _says_something(error):
                return {"error": error}
            if choice.get("finish_reason") in _BROKEN_OFF:
                return {"error": {"code": choice["finish_reason"]}}
    return None


def event_is_failure(name: str) -> bool:
    """Return whether an event of this name reports a failure, whatever its data is."""
    return name.strip().lower() == "error"


def _says_something(error: object) -> bool:
    return any(error.values()) if isinstance(error, dict) else bool(error)


def _is_failure(document: Mapping[str, object]) -> bool:
    """Whether a document without choices reports a failure, and is no sign of life, no usage and no
    success in another wrapping (`{"code": 0, "message": "success"}`).
    """
    error, usage = document.get("error"), document.get("usage")
    if error or error in ({}, ""):
        return _says_something(error) or not usage
    kind = document.get("type") or document.get("object")
    if kind == "error" or document.get("errors") or document.get("success") is False:
        return True
    base = document.get("base_resp")  # MiniMax: `{"status_code": 0}` is success
    if isinstance(base, dict):
        return bool(base.get("status_code"))
    code = document.get("code", document.get("error_code", document.get("status")))
    if usage or kind == "ping" or code in _SUCCESS:
        return False
    return any(isinstance(words := document.get(name), str | list) and words for name in _MESSAGES)
