"""Rounds to figures, and figures to a table: on the terminal, and in docs/benchmarks.md.

A figure is made of each round by itself, and so is a ratio; over the rounds their least and their
median are told. A noisy machine moves the median; the least is what the program can do.
"""

from __future__ import annotations

import itertools
import json
import os
import platform
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import ROOT
from benchmarks.measure import PACED_GAP_S, TRIPS_OVER, Results, Round, median, quantile
from benchmarks.situations import CHAT_CHUNKS

PAGE = ROOT / "docs" / "benchmarks.md"
COLUMNS = {"direct": "direct", "nginx": "nginx", "fastapi": "FastAPI relay", "weir": "Weir"}
RIVAL, OURS = "fastapi", "weir"
# Bounds of the histogram, in ms. Nagle's algorithm against delayed acknowledgements makes a step at
# 40.
BANDS = (0.5, 1, 2, 5, 10, 20, 35, 50)
STEP_ENDS_AT = 50


@dataclass(frozen=True)
class Figure:
    name: str
    unit: str
    of: Callable[[Round, Round], float]  # the target's round, and the direct one
    meaning: str
    limit: float | None = None  # what Weir's ratio to the FastAPI relay may be
    limit_to_nginx: float | None = None


def _added(pick: Callable[[Round], list[int]], share: float, unit: float) -> Callable[..., float]:
    return lambda round_, direct: (
        (quantile(pick(round_), share) - quantile(pick(direct), 0.5)) / unit
    )


FIGURES = (
    Figure(
        "cold start",
        "ms",
        lambda r, _: median(r.cold_starts) / 1e6,
        "From the start of the process to the first streamed byte of its first request: every "
        "import, every secret and key fetched, and the provider's answer included.",
        0.25,
    ),
    Figure(
        "memory",
        "MB",
        lambda r, _: r.memory * 1024 / 1e6,
        "Resident set of the process after the short requests of a round.",
        0.65,
    ),
    Figure(
        "peak memory",
        "MB",
        lambda r, _: r.peak_memory * 1024 / 1e6,
        "The largest resident set, at the end of a round: after the streams at full speed.",
    ),
    Figure(
        "first byte added, p50",
        "ms",
        _added(lambda r: r.first_bytes, 0.5, 1e6),
        "From sending a short request to a warm process to the answer's first byte, above what "
        "the provider alone usually takes (its median, for p99 as well).",
        0.9,
    ),
    Figure("first byte added, p99", "ms", _added(lambda r: r.first_bytes, 0.99, 1e6), ""),
    Figure(
        "delay added, p50",
        "µs",
        _added(lambda r: r.paced, 0.5, 1e3),
        f"From the provider's sending of a chunk to its arrival, with {PACED_GAP_S * 1000:.0f} ms "
        "between two chunks, above what the provider alone takes.",
        1.0,
    ),
    Figure("delay added, p99", "µs", _added(lambda r: r.paced, 0.99, 1e3), ""),
    Figure(
        "delay added at full speed, p50",
        "ms",
        _added(lambda r: r.full_speed, 0.5, 1e6),
        "The same while the provider sends as fast as it can, in which case a slow relay falls "
        "behind: it says how long a burst takes to pass.",
        1.0,
    ),
    Figure("delay added at full speed, p99", "ms", _added(lambda r: r.full_speed, 0.99, 1e6), ""),
    Figure(
        "CPU per chunk",
        "µs",
        lambda r, _: r.cpu_per_chunk / 1e3,
        "User and system time of the process at full speed, by chunk.",
        0.25,
        6,
    ),
    Figure(
        "CPU per paced chunk",
        "µs",
        lambda r, _: r.cpu_per_paced_chunk / 1e3,
        "The same with the gaps, in which case each chunk wakes the process and leaves by itself. "
        "What a short request takes is taken off first.",
        None,
        3,
    ),
    Figure(
        "CPU per request",
        "ms",
        lambda r, _: r.cpu_per_request / 1e6,
        "User and system time of the process for a short request.",
        0.5,
    ),
)


@dataclass(frozen=True)
class Line:
    """One figure: by target its least and its median, and Weir's ratio."""

    figure: Figure
    cells: dict[str, tuple[float, float]]
    ratio: tuple[float, float]
    to_nginx: tuple[float, float] | None

    @property
    def verdict(self) -> str:
        verdicts = []
        if self.figure.limit is not None:
            verdicts.append(_verdict(self.ratio[1], self.figure.limit, ""))
        if self.figure.limit_to_nginx is not None and self.to_nginx is not None:
            verdicts.append(_verdict(self.to_nginx[1], self.figure.limit_to_nginx, " times nginx"))
        return "; ".join(verdicts)


def _verdict(ratio: float, limit: float, of: str) -> str:
    return f"{'reached' if ratio <= limit else 'MISSED'}: ≤ {limit:g}{of}"


def _ratios(ours: list[float], theirs: list[float]) -> tuple[float, float]:
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return min(ratios), median(ratios)


def lines(results: Results) -> list[Line]:
    found = []
    for figure in FIGURES:
        by_target = {
            name: [figure.of(r[name], r["direct"]) for r in results.rounds]
            for name in results.names
            if name != "direct"
        }
        cells = {name: (min(values), median(values)) for name, values in by_target.items()}
        ratio = _ratios(by_target[OURS], by_target[RIVAL])
        to_nginx = None
        if figure.unit == "µs" and figure.name.startswith("CPU") and "nginx" in by_target:
            to_nginx = _ratios(by_target[OURS], by_target["nginx"])
        found.append(Line(figure, cells, ratio, to_nginx))
    return found


def histogram(results: Results) -> dict[str, list[int]]:
    """How many first bytes and paced chunks fell into each band."""
    counted = {}
    for name in results.names:
        times = [
            t / 1e6
            for round_ in results.rounds
            for t in (*round_[name].first_bytes, *round_[name].paced)
        ]
        edges = (0.0, *BANDS, float("inf"))
        counted[name] = [
            sum(low <= t < high for t in times) for low, high in itertools.pairwise(edges)
        ]
    return counted


def has_step(counts: list[int]) -> bool:
    """More than an accident lies where delayed acknowledgements would put it, and more than in the
    band before: a busy machine has a tail, but no second hill.
    """
    band = BANDS.index(STEP_ENDS_AT)
    return counts[band] > max(2, sum(counts) // 200, counts[band - 1])


# ---------------------------------------------------------------- telling


def table(results: Results) -> str:
    names = [name for name in results.names if name != "direct"]
    rows = [["", *(COLUMNS[name] for name in names), "Weir / FastAPI", "Weir / nginx", "to reach"]]
    for line in lines(results):
        cells = [f"{number(line.cells[n][0])} / {number(line.cells[n][1])}" for n in names]
        ratio = f"{line.ratio[0]:.2f} / **{line.ratio[1]:.2f}**"
        nginx = f"{line.to_nginx[0]:.1f} / **{line.to_nginx[1]:.1f}**" if line.to_nginx else ""
        name = f"{line.figure.name} ({line.figure.unit})"
        rows.append([name, *cells, ratio, nginx, line.verdict])
    rows.append(
        ["store round trips, first request", *_trips(results, names, first=True), "", "", ""]
    )
    rows.append(
        ["store round trips, each further", *_trips(results, names, first=False), "", "", ""]
    )
    preflight = [value / 1e6 for value in results.preflight]
    rows.append(
        [
            "cold start of the preflight function (ms)",
            *("" for _ in names[:-1]),
            f"{number(min(preflight))} / {number(median(preflight))}",
            "",
            "",
            "",
        ]
    )
    return markdown(rows)


def steps(results: Results) -> str:
    edges = [f"< {BANDS[0]}", *(f"< {bound}" for bound in BANDS[1:]), f"≥ {BANDS[-1]}"]
    rows = [["ms", *edges]]
    for name, counts in histogram(results).items():
        rows.append([COLUMNS[name], *(str(count) for count in counts)])
    return markdown(rows)


def _trips(results: Results, names: list[str], *, first: bool) -> list[str]:
    told = []
    for name in names:
        trips = results.trips[name]
        counted: Counter[str] = trips.first if first else trips.further
        over = 1 if first else TRIPS_OVER
        what = ", ".join(sorted(counted))
        told.append(f"{sum(counted.values()) / over:g}{f' ({what})' if what else ''}")
    return told


def number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2g}" if value < 1 else f"{value:.1f}"


def markdown(rows: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    padded = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([padded[0], rule, *padded[1:]])


def machine() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return f"{os.cpu_count()} cores of {model}, Linux {platform.release().split('-')[0]}"


def page(results: Results, situations: str, versions: dict[str, str], why_no_nginx: str) -> str:
    template = (Path(__file__).parent / "page.md").read_text()
    meanings = "\n".join(
        f"* **{figure.name.removesuffix(', p50')}**: {figure.meaning}"
        for figure in FIGURES
        if figure.meaning
    )
    return template.format(
        date=time.strftime("%Y-%m-%d", time.gmtime()),
        machine=machine(),
        versions=", ".join(f"{name} {version}" for name, version in versions.items()),
        rounds=results.plan.rounds,
        table=table(results),
        meanings=meanings,
        steps=steps(results),
        situations=situations,
        load=f"{os.getloadavg()[2]:.1f}",
        chat_chunks=CHAT_CHUNKS,
        nginx=f"\nnginx is missing from the table: {why_no_nginx}.\n" if why_no_nginx else "",
    )


def data_for_the_plot(results: Results) -> str:
    return json.dumps(
        {
            "columns": COLUMNS,
            "figures": [
                {"name": line.figure.name, "unit": line.figure.unit, "cells": line.cells}
                for line in lines(results)
            ],
            "first_bytes_ms": {
                name: [t / 1e6 for r in results.rounds for t in r[name].first_bytes]
                for name in results.names
            },
            "delays_us": {
                name: [t / 1e3 for r in results.rounds for t in r[name].paced]
                for name in results.names
            },
        }
    )
