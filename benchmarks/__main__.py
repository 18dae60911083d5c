"""python -m benchmarks [--quick] [--plain]"""

from __future__ import annotations

import argparse
import subprocess
import sys

from benchmarks import ROOT, STATE, CannotMeasure, authority, environment, measure, report
from benchmarks.store import Store
from benchmarks.targets import Place, Upstream
from layers.build import BuildError
from local import CannotRun


def say(line: str) -> None:
    print(line, flush=True)


def bench(*, quick: bool, plain: bool) -> None:
    prepared = environment.prepare()
    if prepared.nginx is None:
        say(f"Without nginx: {prepared.why_no_nginx}.")
    plan = measure.QUICK if quick else measure.FULL
    with Store() as store:
        trusted = None
        if not plain:
            trusted = authority.make(STATE / "authority")
            trusted.trust_in(prepared.layers)
        upstream = Upstream(store.credentials.jwks, trusted)
        try:
            place = Place(prepared, upstream.port, store.endpoint, store.credentials, trusted)
            store.configure(f"{place.upstream}/v1")
            results = measure.run(plan, place, say)
        finally:
            upstream.stop()
    say(f"\n{report.machine()}. Least / median over {plan.rounds} rounds.\n")
    say(report.table(results))
    say("\nFirst bytes and paced chunks by how long they took:\n")
    say(report.steps(results))
    counted = report.histogram(results)
    stepped = [name for name in results.names if report.has_step(counted[name])]
    say(f"\nA step at 40 ms: {', '.join(stepped) or 'none'}.")
    if not quick and not plain:
        _write(results, prepared)


def _write(results: measure.Results, prepared: environment.Environment) -> None:
    data, picture = STATE / "results.json", ROOT / "docs" / "images" / "bench.svg"
    data.write_text(report.data_for_the_plot(results))
    plot = ROOT / "benchmarks" / "plot.py"
    subprocess.run([prepared.python, plot, data, picture], check=True)
    report.PAGE.write_text(report.page(results, prepared.versions, prepared.why_no_nginx))
    say(f"\nWritten: {report.PAGE.relative_to(ROOT)}, {picture.relative_to(ROOT)}")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--quick", action="store_true", help="few rounds; writes nothing")
    parser.add_argument("--plain", action="store_true", help="a provider without TLS; the same")
    options = parser.parse_args(arguments)
    try:
        bench(quick=options.quick, plain=options.plain)
    except (BuildError, CannotMeasure, CannotRun) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
