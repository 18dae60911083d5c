"""What a caller chose is in a log line as escapes, whichever function and logger writes it."""

import importlib.util
import io
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from awslambdaric.lambda_runtime_log_utils import JsonFormatter  # type: ignore[import-untyped]

import stream_runtime
from tests.unit.conftest import unattended_door
from weir.aws import logs
from weir.aws.edge import Edge
from weir.web.origins import Origins

# C0, DEL, C1, bidirectional formatting, line separators, a byte order mark, a lone surrogate.
NASTY = (
    "a\x00\x1b[31m\r\n\x7f\x80\x9b\x9f\u061c\u200e\u202a\u202e\u2066\u2069\u2028\u2029\ufeff\ud800z"
)
TOLD = {"uid": NASTY, NASTY: "as a name"}


def escapes_all(written: str, **expected: Any) -> None:
    line = written.rstrip("\n")
    assert line.isascii()
    assert line.isprintable()
    told = json.loads(line)
    for name, value in {**TOLD, **expected}.items():
        assert told[name] == value


@pytest.mark.parametrize(
    ("door", "environment"),
    [
        ("sweep", {}),
        ("meter", {"ROLLUP_RETENTION_DAYS": "800"}),
        ("rotate", {"NEXT_KEY_MIN_AGE_S": "600"}),
    ],
)
def test_function_that_no_user_calls_escapes(
    monkeypatch: pytest.MonkeyPatch, door: str, environment: dict[str, str]
) -> None:
    logger = unattended_door(monkeypatch, door, environment).logger
    logger.info(NASTY, extra=TOLD)
    escapes_all(logger.handlers[0].stream.getvalue(), message=NASTY)


def test_account_admin_and_token_escape() -> None:
    logger = Edge("test", Origins).logger
    written = io.StringIO()
    logger.handlers[0].stream = written  # type: ignore[attr-defined]
    logger.info(NASTY, extra=TOLD)
    escapes_all(written.getvalue(), message=NASTY)


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """What the root logger writes with the handler that Lambda's own runtime installs."""
    root, handler = logging.getLogger(), logging.StreamHandler(io.StringIO())
    handler.setFormatter(JsonFormatter())
    before, root.handlers = root.handlers, [handler]
    yield handler.stream
    root.handlers = before


def test_lambdas_own_formatter_which_preflight_and_modules_log_through_escapes(
    written: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = preflights_logger(monkeypatch)
    try:
        raise ValueError(NASTY)
    except ValueError:
        log.exception(NASTY, extra=TOLD)
    escapes_all(written.getvalue(), message=NASTY, errorMessage=NASTY)


def test_second_door_in_a_process_leaves_lines_as_they_are(written: io.StringIO) -> None:
    logs.escape_root()
    logs.escape_root()
    logging.getLogger("x").error(NASTY, extra=TOLD)
    escapes_all(written.getvalue(), message=NASTY)


def preflights_logger(monkeypatch: pytest.MonkeyPatch) -> logging.Logger:
    monkeypatch.setenv("TABLE_NAME", "t")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    path = Path(__file__).parents[3] / "functions" / "preflight" / "app.py"
    spec = importlib.util.spec_from_file_location("door_preflight", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    log: logging.Logger = module.log
    return log


def record(text: str) -> logging.LogRecord:
    try:
        raise ValueError(text)
    except ValueError:
        found = logging.LogRecord("chat", logging.ERROR, "f", 1, text, None, sys.exc_info())
    for name, value in TOLD.items():
        setattr(found, name, value)
    return found


def test_chat_escapes() -> None:
    formatter = stream_runtime.OneLine(as_text=False)
    escapes_all(formatter.format(record(NASTY)) + "\n", message=NASTY, errorMessage=NASTY)


def test_chat_escapes_in_plain_text_too_and_keeps_one_line_and_letters() -> None:
    line = stream_runtime.OneLine(as_text=True).format(record(NASTY + "\tJürgen"))
    assert all(c.isprintable() or c in "\t\r" for c in line)
    assert "\\x9b" in line
    assert "\\u202e" in line
    assert "Jürgen" in line
