"""Usage as the table keeps it, in memory, and questions about it."""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from weir.errors import BadRequest, Forbidden, Refusal
from weir.usage import sums
from weir.usage.answers import document
from weir.usage.question import Question, understand
from weir.usage.reading import find
from weir.usage.sums import DAYS, DETAIL, MINUTES, USERS, Row, Totals
from weir.usage.times import DAY_MS, HOUR_MS, format_time

NOON = 1_795_262_400_000  # 2026-11-21T12:00:00Z
MIDNIGHT = NOON - 12 * HOUR_MS
NOVEMBER, DECEMBER = 1_793_491_200_000, 1_796_083_200_000
PID = "shop"


def row(at_ms: int, uid: str = "ann", nano_usd: int = 1, **told: str | int) -> dict[str, Any]:
    """The attributes of a usage row."""
    return {
        "pid": PID,
        "subject": f"u#{uid}",
        "uid": uid,
        "model": "m-large",
        "at_ms": at_ms,
        "outcome": "completed",
        "estimated": False,
        "input_tokens": 7,
        "cached_tokens": 1,
        "output_tokens": 5,
        "reasoning_tokens": 2,
        "nano_usd": nano_usd,
        **told,
    }


class Kept:
    """What the table keeps of these rows, by its rules. `asked` is what was read."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.kept = list(rows)
        self.sums = sums.added_up(Row.of(each) for each in rows)
        self.asked: list[str] = []

    def _of(
        self, kind: str, pid: str, period: str
    ) -> Iterator[tuple[str, Mapping[str, str], Totals]]:
        for place, (told, totals) in sorted(self.sums.items()):
            if (place.kind, place.pid, place.period) == (kind, pid, period):
                yield place.name, told, totals

    def days(self, pid: str, first: str, last: str) -> Iterator[tuple[str, str, Totals]]:
        self.asked.append("days")
        for place, (_, totals) in sorted(self.sums.items()):
            if (place.kind, place.pid) == (DAYS, pid) and first <= place.period <= last:
                yield place.period, place.name, totals

    def users(self, pid: str, month: str) -> Iterator[tuple[str, Totals]]:
        self.asked.append(f"users {month}")
        for _, told, totals in self._of(USERS, pid, month):
            yield told["subject"], totals

    def minutes(self, pid: str, day: str) -> Iterator[tuple[str, str, Totals]]:
        self.asked.append(f"minutes {day}")
        for name, _, totals in self._of(MINUTES, pid, day):
            yield name[:4], name[5:], totals

    def details(
        self, pid: str, day: str, subject: str | None = None
    ) -> Iterator[tuple[dict[str, str], Totals]]:
        self.asked.append(f"details {day} {subject or 'all'}")
        for _, told, totals in self._of(DETAIL, pid, day):
            if subject in (None, told["subject"]):
                yield dict(told), totals

    def rows(self, pid: str, subject: str, from_ms: int, to_ms: int) -> Iterator[dict[str, Any]]:
        self.asked.append(f"rows {format_time(from_ms)} {format_time(to_ms)} {subject}")
        for each in self.kept:
            if (each["pid"], each["subject"]) == (pid, subject) and from_ms <= each[
                "at_ms"
            ] < to_ms:
                yield dict(each)


def ask(only: str | None = None, now_ms: int = NOON, accept: str = "", /, **query: str) -> Question:
    """`from_` is `from`, which Python does not take."""
    told = {name.rstrip("_"): [value] for name, value in query.items()}
    return understand(told, now_ms, only=only, accept=accept)


def answer(
    kept: Kept, only: str | None = None, now_ms: int = NOON, /, **query: str
) -> dict[str, Any]:
    asked = ask(only, now_ms, **query)
    return document(asked, PID, find(asked, PID, kept, now_ms))


def refused(only: str | None = None, /, **query: str) -> Refusal:
    with pytest.raises((BadRequest, Forbidden)) as told:
        ask(only, **query)
    return told.value


def by_key(told: Mapping[str, Any], member: str = "requests") -> dict[str | None, Any]:
    return {each["key"]: each[member] for each in told["data"]}


def window(asked: Question) -> tuple[str, str]:
    return format_time(asked.from_ms), format_time(asked.to_ms)


def several() -> Kept:
    """Of two days of two months, before and after each midnight."""
    rows = []
    for day in (NOVEMBER - DAY_MS, NOVEMBER, MIDNIGHT - DAY_MS, MIDNIGHT):
        for n, at_ms in enumerate((day, day + HOUR_MS, day + 11 * HOUR_MS + 59_999)):
            rows += [
                row(at_ms, "ann", 3 + n, session_id="s1", tag="a"),
                row(at_ms + 1, "bob", 50 + n, session_id="s2", thread_id="t", model="m-small"),
                row(at_ms + 2, "bob", 700, outcome="cancelled", estimated=True),
            ]
    return Kept(rows)


def forged(*parts: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")
