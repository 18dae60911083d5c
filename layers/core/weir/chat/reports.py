"""Read what a provider reports about a failure, in whichever of the many shapes it has.

Nothing here judges, and nothing raises. A report is read as a row of objects, the outermost first:
`{"error": {…}}`, flat, in a list, in `detail` or `errors`, or as JSON within a string, which is how
one gateway quotes another. All text that leaves here is masked and printable.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from weir.chat import waits
from weir.chat.masking import Mask

MAX_OBJECTS = 12  # of one report that are read
MAX_STEPS = 40  # into lists and strings, on the way to them
MAX_NAMED = 20  # categories of filtered content

# Where an object holds the next one, in the order of reading.
_INNER = ("error", "errors", "detail", "message", "base_resp", "metadata", "raw", "innererror")
_TEXTS = (
    *("message", "msg", "Message", "detail", "error_description", "error_msg", "status_msg"),
    *("title", "error", "raw"),
)
_STATUSES = ("status_code", "statusCode", "http_status", "httpStatus", "code", "status", "error")
_CODES = ("code", "error_code", "__type")
_WORDS = (*_CODES, "type", "status", "reason", "error_type", "error")
_REQUEST_IDS = ("request_id", "requestId")


@dataclass(frozen=True, slots=True)
class Report:
    """`words` are its codes, types and the like, outermost first, reduced to lower-case letters and
    digits: the same word has many spellings. `headers` are those of another provider's answer
    that the report quotes. `filtered` names the categories of content that were not allowed.
    """

    status: int | None = None
    message: str = ""
    code: str | None = None
    type: str | None = None
    param: str | None = None
    words: tuple[str, ...] = ()
    filtered: tuple[str, ...] = ()
    request_id: str | None = None
    wait_s: float | None = None
    headers: Mapping[str, object] = field(default_factory=dict)


def read_body(body: bytes, mask: Mask) -> Report:
    """Read the body of an HTTP answer. What is not JSON counts as text; of a page for people only
    the title does, and nothing of broken JSON.
    """
    try:
        return read(json.loads(body), mask)
    except (ValueError, RecursionError):
        text = body.decode("utf-8", "replace").strip()
    if text.startswith("<"):
        title = re.search(r"(?i)<title>([^<]{1,500})", text)
        text = title[1] if title else ""
    return Report() if text.startswith(("{", "[")) else Report(message=clean(text, mask))


def read(document: object, mask: Mask) -> Report:
    """Read parsed JSON, or text that may be JSON."""
    objects = _objects(document)
    if not objects:
        return Report(message=clean(document, mask) if isinstance(document, str) else "")
    words = {word: None for each in objects for word in _words(each)}
    return Report(
        status=_first(_status(each) for each in objects),
        # The innermost is nearest to the cause: what is around it says "Provider returned error".
        message=clean(_first(_text(each) for each in reversed(objects)) or "", mask),
        code=_first(word_of(each.get(name), mask) for each in objects for name in _CODES),
        type=_first(word_of(each.get("type"), mask) for each in reversed(objects)),
        param=_first(word_of(_param(each), mask) for each in objects),
        words=tuple(words),
        filtered=tuple(name for each in objects for name in _filtered(each, mask))[:MAX_NAMED],
        request_id=_first(id_of(each.get(name), mask) for each in objects for name in _REQUEST_IDS),
        wait_s=waits.in_members(member for each in objects for member in (each, *_details(each))),
        headers=_first(_headers(each) for each in objects) or {},
    )


def word_of(value: object, mask: Mask) -> str | None:
    """Return a code or the name of a field, if it is one. A number is not: it is a status."""
    if not isinstance(value, str) or value.isdigit():
        return None
    is_word = re.fullmatch(r"[A-Za-z0-9_.\[\]-]{1,64}", mask.text(value))  # `***` is none
    return value if is_word else None


def id_of(value: object, mask: Mask) -> str | None:
    """Return the id of a request, if it looks like one."""
    if not isinstance(value, str):
        return None
    is_id = re.fullmatch(r"[A-Za-z0-9_.:/=+-]{1,128}", mask.text(value))
    return value if is_id else None


def clean(text: str, mask: Mask) -> str:
    """Mask a text, and take out of it what a terminal or a reader of logs could be misled by:
    control characters, invisible ones, and those that change the direction of writing. Half a
    surrogate pair, which is no text, goes, too.
    """
    text = re.sub(r"[\t\n\v\f\r\x85\u2028\u2029]+", " ", text)
    text = re.sub(
        "[\\x00-\\x1f\\x7f-\\x9f\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff"
        "\ufff9-\ufffb\\ud800-\\udfff\U000e0000-\U000e007f]+",
        "",
        text,
    )
    return mask.text(text).strip()  # last, so that it also sees what hid between the letters


def _objects(document: object) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    pending = [document]
    for _ in range(MAX_STEPS):
        if not pending or len(found) == MAX_OBJECTS:
            break
        value = pending.pop()
        if isinstance(value, str):
            value = _json_within(value)
        if isinstance(value, list) and value:
            pending.append(value[0])
        elif isinstance(value, dict):
            found.append(value)
            pending += [value[name] for name in reversed(_INNER) if name in value]
    return found


def _json_within(text: str) -> object:
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _first(values: Iterator[Any]) -> Any:
    return next((value for value in values if value), None)


def _status(each: Mapping[str, Any]) -> int | None:
    for name in _STATUSES:
        value = each.get(name)
        if isinstance(value, str) and re.fullmatch("[0-9]{3}", value):
            value = int(value)
        if type(value) is int and 400 <= value <= 599:
            return value
    return None


def _text(each: Mapping[str, Any]) -> str | None:
    texts = (each.get(name) for name in _TEXTS)
    return next((text for text in texts if isinstance(text, str) and text.strip()), None)


def _words(each: Mapping[str, Any]) -> Iterator[str]:
    for member in (each, *_details(each)):
        for name in _WORDS:
            value = member.get(name)
            if isinstance(value, str) and len(value) <= 100:
                # AWS: `com.amazon.coral#ThrottlingException`.
                yield re.sub("[^a-z0-9]", "", value.rpartition("#")[2].lower())


def _details(each: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Google's ErrorInfo and RetryInfo."""
    details = each.get("details")
    members = details[:MAX_NAMED] if isinstance(details, list) else []
    return [member for member in members if isinstance(member, dict)]


def _param(each: Mapping[str, Any]) -> object:
    """Return the field at fault. FastAPI says where it is as a list, `["body", "messages", 0]`."""
    where = each.get("loc")
    if not isinstance(where, list):
        return each.get("param")
    steps = (str(step) for step in where[:9] if isinstance(step, str) or type(step) is int)
    return ".".join(step for step in steps if step != "body")


def _headers(each: Mapping[str, Any]) -> dict[str, object] | None:
    headers = each.get("headers")
    return (
        {name.lower(): value for name, value in headers.items()}
        if isinstance(headers, dict)
        else None
    )


def _filtered(each: Mapping[str, Any], mask: Mask) -> Iterator[str]:
    """Azure: `content_filter_result: {"hate": {"filtered": true, …}}`. OpenRouter: `reasons`."""
    result = each.get("content_filter_result")
    names: list[object] = []
    if isinstance(result, dict):
        names += [k for k, v in result.items() if isinstance(v, dict) and v.get("filtered") is True]
    reasons = each.get("reasons")
    if isinstance(reasons, list):
        names += reasons
    yield from (word for name in names if (word := word_of(name, mask)))
