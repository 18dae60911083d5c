"""python -m benchmarks [--quick] [--plain] [--only PART]"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import dataclass, replace

from benchmarks import (
    ROOT,
    STATE,
    CannotMeasure,
    authority,
    environment,
    measure,
    report,
    situations,
    tables,
)
from benchmarks.store import Store
from benchmarks.targets import Helper, Place, provider
from layers.build import BuildError
from local import CannotRun

ONE_WAY_MS = 10  # to the provider, where it is away


def say(line: str) -> None:
    print(line, flush=True)


PARTS = ("rounds", "cold", "pauses", "whole", "cost")


@dataclass(frozen=True)
class Wish:
    quick: bool
    plain: bool
    parts: tuple[str, ...]

    @property
    def writes(self) -> bool:
        """Only what is complete becomes a page."""
        return not self.quick and not self.plain and self.parts == PARTS


def bench(wish: Wish) -> None:
    prepared = environment.prepare()
    if prepared.nginx is None:
        say(f"Without nginx: {prepared.why_no_nginx}.")
    with Store() as store:
        trusted = None
        if not wish.plain:
            trusted = authority.make(STATE / "authority")
            trusted.trust_in(prepared.layers)
        upstream = provider(store.credentials.jwks, trusted)
        try:
            place = Place(prepared, upstream.port, store.endpoint, store.credentials, trusted)
            store.configure(f"{place.upstream}/v1")
            results, found = _measure(wish, place, store)
        finally:
            upstream.stop()
    if results is not None:
        _say_rounds(results)
    if once := tables.told(found):
        say(f"\n{once}")
    if wish.writes and results is not None:
        _write(results, once, prepared)


def _measure(
    wish: Wish, place: Place, store: Store
) -> tuple[measure.Results | None, tables.Situations]:
    results, found = None, tables.Situations()
    if "rounds" in wish.parts:
        results = measure.run(measure.QUICK if wish.quick else measure.FULL, place, say)
    if "cold" in wish.parts:
        found.cold = situations.cold(place, 1 if wish.quick else 3, say)
    if "whole" in wish.parts:
        found.whole = situations.whole(place)
    if "cost" in wish.parts:
        found.chat = situations.chat(place)
    if "pauses" in wish.parts:
        silences, repetitions = ((6.0, 11.0), 1) if wish.quick else ((6.0, 11.0, 60.0), 2)
        away = Helper("benchmarks.distance", str(place.upstream_port), str(ONE_WAY_MS))
        try:
            distant = replace(place, upstream_port=away.port)
            store.point_at(f"{distant.upstream}/v1")
            found.pauses = situations.pauses(distant, silences, repetitions, say)
        finally:
            away.stop()
    return results, found


def _say_rounds(results: measure.Results) -> None:
    say(f"\n{report.machine()}. Least / median over {results.plan.rounds} rounds.\n")
    say(report.table(results))
    say("\nFirst bytes and paced chunks by how long they took:\n")
    say(report.steps(results))
    counted = report.histogram(results)
    stepped = [name for name in results.names if report.has_step(counted[name])]
    say(f"\nA step at 40 ms: {', '.join(stepped) or 'none'}.")


def _write(results: measure.Results, once: str, prepared: environment.Environment) -> None:
    data, picture = STATE / "results.json", ROOT / "docs" / "images" / "bench.svg"
    data.write_text(report.data_for_the_plot(results))
    plot = ROOT / "benchmarks" / "plot.py"
    subprocess.run([prepared.python, plot, data, picture], check=True)
    report.PAGE.write_text(report.page(results, once, prepared.versions, prepared.why_no_nginx))
    say(f"\nWritten: {report.PAGE.relative_to(ROOT)}, {picture.relative_to(ROOT)}")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--quick", action="store_true", help="few rounds; writes nothing")
    parser.add_argument("--plain", action="store_true", help="a provider without TLS; the same")
    parser.add_argument("--only", action="append", choices=PARTS, help="a part, or several")
    options = parser.parse_args(arguments)
    parts = tuple(options.only) if options.only else PARTS
    try:
        bench(Wish(options.quick, options.plain, parts))
    except (BuildError, CannotMeasure, CannotRun) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
