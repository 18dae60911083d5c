"""What `weir usage` shows on a page: numbers, what changed, tables of who used what, the chart."""

from collections.abc import Callable, Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal

from weir.projects.limits import NANO
from weir.usage.sums import Totals

from .page import Page
from .periods import Period, Times

HEADS = ("REQUESTS", "TOKENS", "COST")
NOTHING = "No request has been counted."


def money(nano_usd: int) -> str:
    """Write money with two decimals from one dollar on; below that with the three digits after
    its zeros.
    """
    usd = Decimal(nano_usd) / NANO
    places = 2 if usd >= 1 or not usd else max(2, 2 - usd.adjusted())
    rounded = usd.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP)
    whole, _, digits = f"{rounded:,f}".partition(".")
    return f"${whole}.{digits.rstrip('0'):0<2}"


def change(now: int, before: int) -> str:
    """Write a change in percent of what was before, to one decimal."""
    if not before:
        return "new" if now else "-"
    percent = (Decimal(now - before) * 100 / before).quantize(Decimal("0.1"), ROUND_HALF_UP)
    return f"{percent:+,f}%" if percent else "0.0%"


def numbers(totals: Totals) -> tuple[str, str, str]:
    """Write the columns of HEADS."""
    return f"{totals.requests:,}", f"{totals.tokens:,}", money(totals.nano_usd)


def compare(page: Page, whose: str, times: Times, now: Totals, before: Totals) -> None:
    page.say(f"{whose}, {times.now} (UTC), beside {times.before}:")
    if not now.requests:
        page.say(NOTHING)
        if before.requests:
            requests, tokens, cost = numbers(before)
            page.say(f"Before: requests {requests}, tokens {tokens}, {cost}.")
        return
    counts: list[tuple[str, Callable[[Totals], int]]] = [
        ("Requests", lambda totals: totals.requests),
        ("Failed", lambda totals: totals.failed),
        ("Tokens", lambda totals: totals.tokens),
    ]
    rows = [
        (name, f"{of(now):,}", f"{of(before):,}", change(of(now), of(before)))
        for name, of in counts
    ]
    a, b = now.nano_usd, before.nano_usd
    page.table(("", "NOW", "BEFORE", "CHANGE"), [*rows, ("Cost", money(a), money(b), change(a, b))])


def listed(
    page: Page,
    head: str,
    sums: Mapping[str, Totals],
    shown: Sequence[tuple[str, Totals]],
    total: Totals | None = None,
) -> None:
    """Add a table of those that are `shown`, one line for all others, and one for the total."""
    rows = [(name, *numbers(totals)) for name, totals in shown]
    if left := len(sums) - len(shown):
        names = {name for name, _ in shown}
        others = sum((t for name, t in sums.items() if name not in names), Totals())
        rows.append((f"({left:,} more)", *numbers(others)))
    if total is not None:
        rows.append(("Total", *numbers(total)))
    page.table((head, *HEADS), rows)


def chart(page: Page, by_day: Mapping[str, Totals], shown: Period) -> None:
    """Add a chart of what each day cost; of its tokens, if none cost anything."""
    days = shown.days()
    sums = [by_day.get(str(day), Totals()) for day in days]
    if any(totals.nano_usd for totals in sums):
        page.chart("Cost", days, [totals.nano_usd for totals in sums], money)
    else:
        page.chart("Tokens", days, [totals.tokens for totals in sums], "{:,}".format)
