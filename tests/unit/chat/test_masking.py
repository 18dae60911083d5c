"""A secret is hidden wherever it stands in a text, and no other word ever is."""

import json
from typing import Any

import pytest

from weir.chat.masking import NOTHING_MASKED, Mask, is_secret

KEY = "sk-proj-4fZ9q/Lm"


@pytest.mark.parametrize(
    "placeholder",
    ["", "x", "i", "none", "EMPTY", "ollama", "lm-studio", "not-needed", "no-key", "Password",
     "anything", "changeme", "dummy-key", "internationalization", "index", "Bearer", "content"],
)  # fmt: skip
def test_what_only_stands_in_for_a_key_is_never_cut_out(placeholder: str) -> None:
    mask = Mask(placeholder)
    answer = {"index": 0, "content": f"There are {placeholder}; {placeholder}theless."}
    assert mask.value(answer) == answer
    assert mask.text(placeholder) == placeholder
    assert not mask.is_needed(json.dumps(answer).encode())


@pytest.mark.parametrize(
    "key",
    [KEY, "sk-CANARY", "gsk_0123456789", "AIzaSyA-9", "provider-secret-key", "0123456789abcdef",
     "bedrock-api-key-YWJj+/==", 'quo"ted-k3y', "back\\slash-k3y", "schlüssel-1"],
)  # fmt: skip
def test_real_secret_is_masked_in_every_string_and_nowhere_else(key: str) -> None:
    mask = Mask(key)
    value: dict[str, Any] = {"a": f"<{key}>", "b": [key, 1, None, {"c": f"{key}{key}"}], "d": True}
    line = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    assert mask.is_needed(line)
    masked = mask.value(value)
    assert masked == {"a": "<***>", "b": ["***", 1, None, {"c": "******"}], "d": True}
    assert not mask.is_needed(json.dumps(masked, ensure_ascii=False).encode())


def test_member_whose_name_has_the_secret_is_left_out() -> None:
    assert Mask(KEY).value({"error": {KEY: 1, "code": "x"}}) == {"error": {"code": "x"}}


def test_nothing_is_masked_without_a_credential() -> None:
    assert not is_secret("")
    assert NOTHING_MASKED.value({"a": "***"}) == {"a": "***"}
    assert NOTHING_MASKED.text("") == ""
