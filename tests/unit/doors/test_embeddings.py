"""The door of embeddings and moderations in process: what the running stack cannot show."""

import json
import logging
from typing import Any

import pytest

from tests.unit.conftest import NOW, minted
from tests.unit.doors.test_chat_and_account import (
    CHAT_DOOR,
    CONTEXT,
    Load,
    Scripted,
    event,
    load,
    rows,
)
from weir.aws import lean
from weir.aws.clients import client
from weir.aws.operator import Operator
from weir.aws.table import Table
from weir.errors import UpstreamUnavailable
from weir.identity.keyring import SigningKey
from weir.ledger.admission import StaleConfiguration
from weir.operator.documents import LimitsDocument, ModelDocument, ProjectChange, parsed

__all__ = ["load"]  # a fixture

TEXT = "text-canary"
VECTORS = {"data": [{"embedding": [0.5, 1]}], "usage": {"total_tokens": 2}}
EMBED = {
    "kind": "embedding",
    "candidates": [{"upstream": "main", "model": "v-1", "input_nano_usd": 1_000}],
    "context_tokens": 8192,
    "overhead_tokens": 0,
}


class Door:
    def __init__(
        self,
        load: Load,
        operator: Operator,
        signing_key: SigningKey,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        operator.put_model("embed", parsed(ModelDocument, EMBED))
        self.operator = operator
        self.app = load("embeddings", **CHAT_DOOR)
        Table(client("dynamodb"), "t").publish(signing_key.public(created_at=NOW))
        self.token = minted(signing_key, now=int(self.app.time.time()))
        self.opened: list[tuple[Any, ...]] = []
        self.answer: Any = lambda: Scripted(json.dumps(VECTORS).encode())

        def open_(upstream: Any, model: str, body: bytes, **how: Any) -> Any:
            self.opened.append((upstream.name, model, json.loads(body), how))
            return self.answer()

        monkeypatch.setattr(self.app._providers, "open", open_)

    def ask(self, **body: Any) -> tuple[int, dict[str, str], Any]:
        asked = event("embeddings.smallest", REPLACE_WITH_USER_TOKEN=self.token)
        asked["body"] = json.dumps({"input": TEXT, **body})
        status, headers, first, rest = self.app.handler(asked, CONTEXT)
        return status, headers, json.loads(first + b"".join(rest))


@pytest.fixture
def door(
    load: Load,
    configured: Operator,
    signing_key: SigningKey,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> Door:
    caplog.set_level(logging.INFO, "embeddings")
    return Door(load, configured, signing_key, monkeypatch)


def line(caplog: pytest.LogCaptureFixture, message: str) -> dict[str, Any]:
    (found,) = [vars(r) for r in caplog.records if (r.name, r.msg) == ("embeddings", message)]
    return found


def test_request_is_settled_at_what_it_took_and_its_log_line_has_no_word_of_it(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    status, headers, answer = door.ask(model="embed")
    assert (status, answer["usage"]["cost_usd"]) == (200, 2 * 1_000 / 10**9)
    assert door.opened == [
        (
            "main",
            "v-1",
            {"input": TEXT, "encoding_format": "base64", "model": "v-1"},
            {"stream": False, "kind_of_model": "embedding"},
        )
    ]
    assert headers["Content-Type"] == "application/json"
    assert headers["X-Completion-Id"].startswith("embd-")
    assert headers["RateLimit-Policy"].startswith('"rpm";q=6')
    (row,) = rows("USAGE#")
    assert row["nano_usd"] == "2000"
    assert rows("OPEN#") == []
    told = line(caplog, "embeddings")
    assert (told["model"], told["input_tokens"], told["outcome"]) == ("embed", 2, "completed")
    assert TEXT not in caplog.text + repr([vars(record) for record in caplog.records])


def test_warm_request_is_one_call_to_the_store_before_the_provider_and_one_after(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    door.ask()
    calls: list[str] = []
    real = type(door.app._dynamodb).__getattr__

    def counted(self: Any, name: str) -> Any:
        calls.append(name)
        return real(self, name)

    monkeypatch.setattr(type(door.app._dynamodb), "__getattr__", counted)

    def answer() -> Scripted:
        calls.append("the provider")
        return Scripted(json.dumps(VECTORS).encode())

    door.answer = answer
    assert door.ask()[0] == 200
    assert calls == ["transact_write_items", "the provider", "transact_write_items"]


def test_what_is_refused_asks_no_provider_and_leaves_nothing(door: Door) -> None:
    status, _, answer = door.ask(input=[[1, 2]])
    assert (status, answer["error"]["code"]) == (400, "invalid_input")
    nothing = parsed(LimitsDocument, {"usd_per_month": 0})
    door.operator.update_project("default", ProjectChange(limits=nothing))
    door.app._snapshots.forget("default")
    status, headers, answer = door.ask()
    assert (status, answer["error"]["code"]) == (402, "quota_exceeded")
    assert headers["x-should-retry"] == "false"
    assert door.opened == []
    assert rows("USAGE#") == rows("OPEN#") == []


def test_body_beyond_its_bound_is_a_413(door: Door) -> None:
    assert door.ask(input="x" * 4_000_001)[0] == 413


def test_provider_that_fails_is_a_502_with_its_attempt_in_the_log_and_nothing_charged(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    def fails() -> Any:
        raise UpstreamUnavailable("gone")

    door.answer = fails
    status, _, answer = door.ask()
    assert (status, answer["error"]["code"]) == (502, "upstream_unavailable")
    assert line(caplog, "upstream failed")["code"] == "upstream_unavailable"
    (row,) = rows("USAGE#")
    assert row["nano_usd"] == "0"


def test_answer_is_given_though_settling_fails_and_the_sweeper_has_its_reservation(
    door: Door, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: Any) -> bool:
        raise lean.AwsError("down", 500, "InternalServerError", [])

    monkeypatch.setattr(door.app._ledger, "settle", fails)
    assert door.ask()[0] == 200
    assert line(caplog, "not settled")
    assert line(caplog, "embeddings")["SettlementFailures"] == 1
    assert len(rows("OPEN#")) == 1


def test_stale_configuration_is_read_again_and_twice_stale_is_busy(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, stale = door.app._ledger.admit, [True]

    def admit(ask: Any) -> Any:
        if stale:
            stale.pop()
            raise StaleConfiguration
        return real(ask)

    monkeypatch.setattr(door.app._ledger, "admit", admit)
    assert door.ask()[0] == 200
    stale[:] = [True, True]
    status, _, answer = door.ask()
    assert (status, answer["error"]["code"]) == (503, "ledger_busy")


def test_overrun_of_a_provider_is_noted_where_every_process_reads_it(door: Door) -> None:
    lie = {**VECTORS, "usage": {"total_tokens": 10 * len(json.dumps(TEXT))}}
    door.answer = lambda: Scripted(json.dumps(lie).encode())
    assert door.ask()[0] == 200
    door.app._snapshots.forget("default")
    shared = door.app._snapshots.of("default").shared
    assert shared.overruns == {"main/v-1": 1_000}


def test_store_that_is_gone_is_a_503_and_a_bug_a_500(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door.app.routes, "understood", lambda *_, **__: 1 / 0)
    status, _, answer = door.ask()
    assert (status, answer["error"]["code"]) == (500, "server_error")
    monkeypatch.undo()
    client("dynamodb").delete_table(TableName="t")
    status, _, answer = door.ask()
    assert (status, answer["error"]["code"]) == (503, "store_unavailable")
