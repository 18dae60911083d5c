"""Tables of what happens once: cold processes, silences, one large answer, a chat's price."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from benchmarks import costs
from benchmarks.measure import median
from benchmarks.report import COLUMNS, markdown, number
from benchmarks.situations import WHOLE_CORE, Chat, Cold, Pause, Whole

TRACED = 0.05  # X-Ray's default rule: one request a second, and five in a hundred beyond
SIZES_MB = (128, 256, 512, 1024)
# What Weir's figures are to be, at most.
COLD_AT, COLD_MS = 256, 160
ABOVE_HOT_AFTER_S, ABOVE_HOT_MS = 60, 15
MILLION_USD = 75
PEAK_FLOOR_MB, PEAK_FACTOR = 45, 2.5


@dataclass
class Situations:
    """A part that was not measured is None or empty."""

    cold: dict[str, Cold] = field(default_factory=dict)
    pauses: dict[str, dict[float, Pause]] = field(default_factory=dict)
    whole: dict[str, Whole] = field(default_factory=dict)
    chat: Chat | None = None


def told(found: Situations) -> str:
    """All tables that there is something for, with a heading each."""
    parts = [
        ("A cold process, from the request to the first byte (ms)", _cold(found.cold)),
        ("After a silence, the provider 20 ms away", _pauses(found.pauses)),
        ("One answer of 29 MB that does not stream", _whole(found.whole)),
        ("A million chats of ten seconds (USD, list price)", _costs(found.chat)),
    ]
    return "\n\n".join(f"### {heading}\n\n{text}" for heading, text in parts if text)


def _cold(found: dict[str, Cold]) -> str:
    if not found:
        return ""
    sizes = list(next(iter(found.values())).first_bytes)
    rows = [["CPU of", *(COLUMNS[name] for name in found), "Weir / FastAPI", "to reach"]]
    for kind in ("first", "next"):
        for size in sizes:
            medians = {}
            cells = []
            for name, cold in found.items():
                source = cold.first_bytes if kind == "first" else cold.hot
                values = [each / 1e6 for each in source[size]]
                medians[name] = median(values)
                cells.append(f"{number(min(values))} / {number(medians[name])}")
            what = "a core" if size == WHOLE_CORE else f"{size} MB"
            verdict = ""
            if kind == "first" and size == COLD_AT:
                verdict = _verdict(medians["weir"] <= COLD_MS, f"≤ {COLD_MS} ms")
            ratio = f"{medians['weir'] / medians['fastapi']:.2f}"
            rows.append([f"{what}, {kind} request", *cells, ratio, verdict])
    why = next(iter(found.values())).why_no_quota
    return markdown(rows) + (f"\n\nNo rows under a quota: {why}." if why else "")


def _pauses(found: dict[str, dict[float, Pause]]) -> str:
    if not found:
        return ""
    rows = [["", *(COLUMNS[name] for name in found), "to reach"]]
    for silence in next(iter(found.values())):
        above = {}
        for name, by_silence in found.items():
            pause = by_silence[silence]
            pairs = zip(pause.first_bytes, pause.hot, strict=True)
            above[name] = [(first - hot) / 1e6 for first, hot in pairs]
        cells = [f"{min(v):+.1f} / {median(v):+.1f}" for v in above.values()]
        verdict = ""
        if silence == ABOVE_HOT_AFTER_S:
            verdict = _verdict(median(above["weir"]) <= ABOVE_HOT_MS, f"≤ +{ABOVE_HOT_MS} ms")
        rows.append([f"first byte after {silence:g} s, above hot (ms)", *cells, verdict])
    hot = [median([t / 1e6 for p in each.values() for t in p.hot]) for each in found.values()]
    rows.append(["first byte, hot (ms)", *(number(value) for value in hot), ""])
    for silence in next(iter(found.values())):
        for when in ("before", "after"):
            cells = [_usual(getattr(each[silence], when)) for each in found.values()]
            name = f"store trips {when} the first byte, after {silence:g} s"
            rows.append([name, *cells, "1"])
    return markdown(rows)


def _usual(trips: list[str]) -> str:
    [(what, _)] = Counter(trips).most_common(1)
    return what or "0"


def _whole(found: dict[str, Whole]) -> str:
    if not found:
        return ""
    rows = [["", *(COLUMNS[name] for name in found)]]
    rows.append(["status", *(str(each.status) for each in found.values())])
    rows.append(["MB received", *(number(each.received / 1e6) for each in found.values())])
    rows.append(["MB before", *(number(each.rss_kb * 1024 / 1e6) for each in found.values())])
    rows.append(["MB at the most", *(number(each.peak_kb * 1024 / 1e6) for each in found.values())])
    weir = found["weir"]
    most = PEAK_FLOOR_MB + PEAK_FACTOR * (weir.received / 1e6 if weir.status == 200 else 0)
    reached = weir.peak_kb * 1024 / 1e6 <= most
    return (
        markdown(rows) + f"\n\nTo reach: {PEAK_FLOOR_MB} MB and {PEAK_FACTOR} times the answer, "
        f"{most:.0f} MB: {'reached' if reached else 'MISSED'}."
    )


def _costs(chat: Chat | None) -> str:
    if chat is None:
        return ""
    by_size = {size: costs.of_a_million(chat, size, TRACED) for size in SIZES_MB}
    rows = [["", *(f"{size} MB" for size in SIZES_MB)]]
    for what in by_size[SIZES_MB[0]]:
        rows.append([what, *(f"{by_size[size][what]:.2f}" for size in SIZES_MB)])
    sums = [sum(by_size[size].values()) for size in SIZES_MB]
    rows.append(["**sum**", *(f"**{total:.0f}**" for total in sums)])
    rows.append([f"to reach: ≤ {MILLION_USD}", *(_met(total <= MILLION_USD) for total in sums)])
    return markdown(rows) + (
        f"\n\nMeasured of one chat of {chat.billed_s:.2f} s: {chat.cpu_ns / 1e6:.0f} ms of CPU, "
        f"{chat.write_units:g} write units, {chat.read_units:g} read units, {chat.log_bytes} bytes "
        f"of log, {chat.sent_bytes / 1000:.0f} kB sent."
    )


def _verdict(met: bool, limit: str) -> str:
    return f"{_met(met)}: {limit}"


def _met(met: bool) -> str:
    return "reached" if met else "MISSED"
