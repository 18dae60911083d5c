"""Answers about usage as callers read them: a JSON document, a CSV table, the billing document."""

import io
from typing import Any

from weir.projects.limits import NANO
from weir.usage import pages, spreadsheet
from weir.usage.pages import Cursor
from weir.usage.question import Question
from weir.usage.reading import Found
from weir.usage.sums import COUNTS, Totals, by_cost
from weir.usage.times import format_time


def document(question: Question, pid: str, found: Found) -> dict[str, Any]:
    """Return the answer as JSON; money in USD, from a sum of whole nano-USD."""
    page, cursor = _page(question, found)
    if question.group_by:
        buckets = sorted(found.buckets)
        data = [{"key": key or None, **found.groups[key].told()} for key in page]
    else:
        buckets, data = page, []
    totals = found.totals.told()
    return {
        "object": "usage",
        "project_id": pid,
        "user_id": question.user_id,
        "customer_id": question.customer_id,
        "from": format_time(question.from_ms),
        "to": format_time(question.to_ms),
        "granularity": question.granularity,
        "group_by": question.group_by,
        "totals": totals,
        "breakdown": [{"timestamp": at, **found.buckets[at].told()} for at in buckets],
        "data": data,
        "has_more": cursor is not None,
        "next_cursor": cursor,
        "total_cost_usd": totals["cost_usd"],
        "total_requests": totals["requests"],
        "prompt_tokens": totals["input_tokens"],
        "completion_tokens": totals["output_tokens"],
    }


def table(question: Question, found: Found) -> tuple[str, str | None]:
    """Return the answer as CSV, a line for each bucket or group, and the next page's cursor."""
    page, cursor = _page(question, found)
    sums = found.groups if question.group_by else found.buckets
    text = io.StringIO()
    heads = ["key" if question.group_by else "timestamp", *COUNTS, "tokens", "cost_usd"]
    spreadsheet.write(text, [heads, *(_line(key, sums[key]) for key in page)])
    return text.getvalue(), cursor


def billing(question: Question, pid: str, found: Found) -> dict[str, Any]:
    """Return the answer as the published guide has it. All provider keys are the operator's own, so
    there is one cost, under `platform`, where that guide's clients look for it.
    """
    return {
        "project_id": pid,
        "window": {"from": format_time(question.from_ms), "to": format_time(question.to_ms)},
        "platform": {
            **_billed(found.totals),
            "by_model": [
                {"model": name, "requests": each.requests, "cost_usd": each.nano_usd / NANO}
                for name, each in by_cost(found.groups)
            ],
        },
        "byok": {**_billed(Totals()), "by_model": []},
    }


def _page(question: Question, found: Found) -> tuple[list[str], str | None]:
    """Return the keys of this page and the cursor of the next one."""
    if question.group_by:
        page, more = pages.of_groups(found.groups, question.limit, question.place)
    else:
        page, more = pages.of_times(found.buckets, question.limit, question.place)
    window = question.from_ms, question.to_ms
    return page, Cursor(question.digest(), window, more).text() if more else None


def _line(key: str, totals: Totals) -> list[str | int]:
    counts = (getattr(totals, name) for name in COUNTS)
    return [key, *counts, totals.tokens, spreadsheet.exact_usd(totals.nano_usd)]


def _billed(totals: Totals) -> dict[str, Any]:
    listed = totals.told()
    return {
        name: listed[name] for name in ("requests", "input_tokens", "output_tokens", "cost_usd")
    }
