"""A new kind of limit is a row, and everything that knows limits knows it.

The product's modules are loaded once more, with the rows that docs/ledger.md has for an example.
"""

import argparse
import importlib
import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
TABLE = "weir.projects.limits"
# Each row with what it is put before.
ROWS = {r"images: int .*": "    def of(", r"images_per_day: int .*": "    def overridden("}
NOON = 1_795_262_400  # 21 November 2026
LOADED_ANEW = ("weir", "cli", "tests.unit.aws.small_dynamodb")


class Gateway:
    """Its modules, by name; and what a user does there."""

    def __init__(self) -> None:
        self.limits = self["weir.projects.limits"]
        self.rules = self["weir.ledger.rules"]
        self.errors = self["weir.errors"]
        self.ledger_module = self["weir.aws.ledger"]
        self.store = self["tests.unit.aws.small_dynamodb"].SmallDynamoDB()
        self.now = NOON
        self.ledger = self.ledger_module.Ledger(self.store, "t", lambda: self.now)
        self._asked = 0

    def __getitem__(self, name: str) -> ModuleType:
        return importlib.import_module(name)

    def ask(self, images: int, **changed: Any) -> Any:
        self._asked += 1
        told: dict[str, Any] = {
            "pid": "p",
            "subject": "u#ann",
            "tier": "free",
            "completion_id": f"chatcmpl-{self._asked}",
            "limits": self.limits.Limits(images_per_day=5),
            "limited": frozenset(),
            "project": self.limits.Pool(self.limits.Limits()),
            "tenant": self.limits.Pool(self.limits.Limits()),
            "price": lambda tokens: self.limits.Amounts(10 + tokens, 0, images=images),
            "afford": lambda field, left: 0,
            "output_tokens": 90,
            "choices": 1,
            "shrinkable": False,
            "due": NOON + 360,
            "row": {},
        }
        return self["weir.ledger.admission"].Ask(**{**told, **changed})

    def refusal(self, images: int, **changed: Any) -> Any:
        with pytest.raises(self.errors.QuotaExceeded) as told:
            self.ledger.admit(self.ask(images, **changed))
        return told.value

    def settle(self, reservation: Any, *, answered: bool) -> None:
        tokens = 50 if answered else 0
        settled = self.rules.Settlement(tokens, 0, answered=answered)
        assert self.ledger.settle(reservation, settled, {})

    def counters(self) -> dict[str, int]:
        return dict(self.ledger.used_by("p", "u#ann", self.now)[2])

    def told(self) -> dict[str, Any]:
        account = self.rules.of_subject("u#ann", self.limits.Limits(images_per_day=5), frozenset())
        used = self.ledger.used_by("p", "u#ann", self.now)
        state: dict[str, Any] = self.rules.own_state(account, *used, self.now)
        return state


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    def loaded() -> dict[str, ModuleType]:
        return {
            name: module
            for name, module in sys.modules.items()
            if name in LOADED_ANEW or name.startswith(("weir.", "cli."))
        }

    before = loaded()
    for name in before:
        del sys.modules[name]
    try:
        _load_table_with_the_row()
        yield Gateway()
    finally:
        for name in loaded():
            del sys.modules[name]
        sys.modules.update(before)


def _load_table_with_the_row() -> None:
    spec = importlib.util.find_spec(TABLE)
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).read_text()
    page = (ROOT / "docs" / "ledger.md").read_text()
    for row, method in ROWS.items():
        (documented,) = re.findall(f"^{row}$", page, re.MULTILINE)
        assert source.count(f"\n{method}") == 1
        source = source.replace(f"\n{method}", f"    {documented}\n\n{method}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[TABLE] = module
    exec(compile(source, spec.origin, "exec"), module.__dict__)  # noqa: S102


def test_new_kind_is_counted_refuses_and_is_given_back(gateway: Gateway) -> None:
    first = gateway.ledger.admit(gateway.ask(3))
    assert gateway.counters()["d21i"] == 3
    refusal = gateway.refusal(3)
    assert refusal.message == (
        "This user may use 5 images a day; 3 are used or reserved, and this request may take 3. "
        "It resets at 2026-11-22T00:00:00Z."
    )
    assert refusal.details == {
        "scope": "user",
        "limit_name": "images_per_day",
        "tier": "free",
        "limit": {"images_per_day": 5},
        "usage": {"images_today": 3},
        "resets_at": NOON + 43_200,
    }
    second = gateway.ledger.admit(gateway.ask(2))
    gateway.ledger.admit(gateway.ask(0))  # which has no image, and the day is used up
    gateway.settle(first, answered=True)
    assert gateway.counters()["d21i"] == 5
    gateway.settle(second, answered=False)
    assert gateway.counters()["d21i"] == 3


def test_reservation_of_the_new_kind_is_read_as_it_was_written(gateway: Gateway) -> None:
    reservation = gateway.ledger.admit(gateway.ask(3))
    books = gateway["weir.aws.ledger.books"]
    read = books.reservation_of(books.reservation_item(reservation))
    assert read.amounts == reservation.amounts
    gateway.settle(read, answered=False)
    assert gateway.counters()["d21i"] == 0


def test_days_of_the_new_kind_that_are_over_are_removed(gateway: Gateway) -> None:
    gateway.ledger.admit(gateway.ask(3))
    gateway.now += 2 * 86_400
    gateway.ledger.admit(gateway.ask(1))
    counters = gateway.counters()
    assert {name: counters.get(name) for name in ("d21i", "d23i")} == {"d21i": None, "d23i": 1}


def test_divided_pool_admits_all_of_the_new_kind_and_tells_others_nothing(
    gateway: Gateway,
) -> None:
    pool = gateway.limits.Pool(gateway.limits.Limits(images_per_day=5), 4, 1)
    for _ in range(5):
        gateway.ledger.admit(gateway.ask(1, limits=gateway.limits.Limits(), project=pool))
    refusal = gateway.refusal(1, limits=gateway.limits.Limits(), project=pool)
    assert refusal.details.keys() == {"scope", "limit_name", "resets_at"}
    assert refusal.details["limit_name"] == "images_per_day"


def test_user_sees_what_is_left_of_the_new_kind(gateway: Gateway) -> None:
    gateway.ledger.admit(gateway.ask(3))
    assert gateway.told()["limits"] == [
        {
            "limit_name": "images_per_day",
            "limit": 5,
            "used": 3,
            "left": 2,
            "resets_at": NOON + 43_200,
        }
    ]
    headers = gateway.rules.policy_headers(gateway.limits.Limits(images_per_day=5), NOON)
    assert headers == {
        "RateLimit-Policy": '"images_per_day";q=5;w=86400',
        "x-ratelimit-limit-images": "5",
        "x-ratelimit-reset-images": "43200s",
    }
    refused = gateway.refusal(3).headers
    assert refused["RateLimit"] == '"images_per_day";r=2;t=43200'
    assert refused["x-ratelimit-remaining-images"] == "2"


def test_operator_sets_and_reads_the_new_kind(gateway: Gateway) -> None:
    documents, views = gateway["weir.operator.documents"], gateway["weir.operator.views"]
    told = documents.parsed(documents.ProjectChange, {"user_limits": {"images_per_day": 5}})
    assert told.stored() == {"user_limits": {"images_per_day": 5}}
    for wrong in (-1, 1.5, 10**12 + 1):
        with pytest.raises(gateway.errors.BadRequest) as refused:
            documents.parsed(documents.LimitsDocument, {"images_per_day": wrong})
        assert refused.value.param == "images_per_day"
    schema = documents.LimitsDocument.model_json_schema()["properties"]["images_per_day"]
    assert schema["description"] == "images a day"
    project = gateway["weir.projects.project"].Project.from_document("p", told.stored())
    assert project.limits_of(None).images_per_day == 5
    assert "images_per_day" in project.limited_fields
    resolved = views.ResolvedLimits(**project.limits_of(None).document())
    assert json.loads(resolved.model_dump_json())["images_per_day"] == 5


def test_command_line_takes_the_new_kind(gateway: Gateway) -> None:
    flags = gateway["cli.flags"]
    parser = argparse.ArgumentParser()
    flags.add_limits_flag(parser, "--limit", "of all users together")
    asked = parser.parse_args(["--limit", "images_per_day=5", "--limit", "usd_per_month=1.5"])
    assert flags.named_limits(asked.limits)[0] == {"images_per_day": 5, "usd_per_month": 1.5}
    assert "images_per_day" in parser.format_help()
