"""The rounds. In each, every target is started anew, and then all are asked in turns, request by
request, so that whatever else the machine does meets them alike.
"""

from __future__ import annotations

import gc
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from benchmarks import CannotMeasure
from benchmarks.counting import CountingProxy
from benchmarks.targets import Ask, Place, Target, all_targets, preflight_cold_start_ns
from benchmarks.wire import Answer

SHORT_CHUNKS = 5
PACED_STREAMS = 3
PACED_GAP_S = 0.02
TRIPS_OVER = 20


@dataclass(frozen=True)
class Plan:
    rounds: int
    cold_starts: int  # of each relay, a round
    requests: int  # short ones, warm
    paced_chunks: int
    full_speed_chunks: int
    full_speed_streams: int


FULL = Plan(5, 2, 100, 100, 5000, 2)
QUICK = Plan(2, 1, 40, 50, 4000, 1)


@dataclass
class Round:
    """One target in one round; times in nanoseconds, memory in kB."""

    cold_starts: list[int] = field(default_factory=list)
    first_bytes: list[int] = field(default_factory=list)
    paced: list[int] = field(default_factory=list)
    full_speed: list[int] = field(default_factory=list)
    cpu_per_request: float = 0.0
    cpu_per_chunk: float = 0.0
    cpu_per_paced_chunk: float = 0.0
    memory: int = 0
    peak_memory: int = 0


@dataclass(frozen=True)
class Trips:
    """What was asked of the store: by the first request, start included, and by the next ones."""

    first: Counter[str]
    further: Counter[str]


@dataclass
class Results:
    plan: Plan
    names: list[str]
    rounds: list[dict[str, Round]] = field(default_factory=list)
    preflight: list[int] = field(default_factory=list)
    trips: dict[str, Trips] = field(default_factory=dict)


def run(plan: Plan, place: Place, say: Callable[[str], None]) -> Results:
    targets = all_targets(place)
    results = Results(plan, [target.name for target in targets])
    for number in range(plan.rounds):
        turn = number % len(targets)  # who is first in one round is second in the next
        results.rounds.append(_round(plan, [*targets[turn:], *targets[:turn]]))
        results.preflight.append(preflight_cold_start_ns(place))
        say(f"round {number + 1} of {plan.rounds}")
    proxy = CountingProxy(place.store)
    try:
        for target in all_targets(replace(place, store=proxy.endpoint)):
            results.trips[target.name] = _count_trips(target, proxy)
    finally:
        proxy.close()
    return results


def _round(plan: Plan, targets: Sequence[Target]) -> dict[str, Round]:
    measured = {target.name: Round() for target in targets}
    for again in range(plan.cold_starts):
        for target in targets:
            try:
                target.start()
                _first_request(target, measured[target.name])
            except BaseException:
                _stop(targets)
                raise
            if again + 1 < plan.cold_starts:
                target.stop()
    try:
        with _without_garbage_collection():
            _short_requests(plan, targets, measured)
            _paced(plan, targets, measured)
            _at_full_speed(plan, targets, measured)
    finally:
        _stop(targets)
    return measured


def _stop(targets: Iterable[Target]) -> None:
    for target in targets:
        target.stop()


def _first_request(target: Target, measured: Round) -> None:
    process = target.process()
    _, answer = asked_whole(target, Ask(SHORT_CHUNKS))
    if process is not None:
        measured.cold_starts.append(answer.first_byte - process.began)


def _short_requests(plan: Plan, targets: Sequence[Target], measured: dict[str, Round]) -> None:
    for _ in range(plan.requests // 10):  # the first ones after a start fill caches
        for target in targets:
            asked_whole(target, Ask(SHORT_CHUNKS))
    before = _cpu(targets)
    for _ in range(plan.requests):
        for target in targets:
            asked, answer = asked_whole(target, Ask(SHORT_CHUNKS))
            measured[target.name].first_bytes.append(answer.first_byte - asked)
    for name, spent in _cpu(targets).items():
        measured[name].cpu_per_request = (spent - before[name]) / plan.requests
    for target in targets:
        if (process := target.process()) is not None:
            measured[target.name].memory = process.memory_kb()


def _paced(plan: Plan, targets: Sequence[Target], measured: dict[str, Round]) -> None:
    before = _cpu(targets)
    for _ in range(PACED_STREAMS):
        for target in targets:
            _, answer = asked_whole(target, Ask(plan.paced_chunks, PACED_GAP_S))
            measured[target.name].paced += answer.delays
    # The request itself is taken off, as the short ones have it, which are a few chunks long.
    chunks = PACED_STREAMS * (plan.paced_chunks - SHORT_CHUNKS)
    for name, spent in _cpu(targets).items():
        requests = PACED_STREAMS * measured[name].cpu_per_request
        measured[name].cpu_per_paced_chunk = (spent - before[name] - requests) / chunks


def _at_full_speed(plan: Plan, targets: Sequence[Target], measured: dict[str, Round]) -> None:
    before = _cpu(targets)
    for _ in range(plan.full_speed_streams):
        for target in targets:
            _, answer = asked_whole(target, Ask(plan.full_speed_chunks))
            measured[target.name].full_speed += answer.delays
    chunks = plan.full_speed_streams * plan.full_speed_chunks
    for name, spent in _cpu(targets).items():
        measured[name].cpu_per_chunk = (spent - before[name]) / chunks
    for target in targets:
        if (process := target.process()) is not None:
            measured[target.name].peak_memory = process.memory_kb("VmHWM")


def asked_whole(target: Target, ask: Ask) -> tuple[int, Answer]:
    """The answer, after making sure that it is the one asked for."""
    asked, answer = target.ask(ask)
    whole = answer.body.endswith(b"data: [DONE]\n\n") and len(answer.delays) == ask.chunks
    if answer.status != 200 or not whole:
        raise CannotMeasure(
            f"{target.name} answered {answer.status} with {len(answer.delays)} of {ask.chunks} "
            f"chunks, ending in {answer.body[-200:]!r}"
        )
    return asked, answer


def _cpu(targets: Iterable[Target]) -> dict[str, int]:
    return {
        target.name: process.cpu_ns() if (process := target.process()) is not None else 0
        for target in targets
    }


def _count_trips(target: Target, proxy: CountingProxy) -> Trips:
    target.start()
    try:
        asked_whole(target, Ask(SHORT_CHUNKS))
        first = proxy.counted()
        for _ in range(TRIPS_OVER):
            asked_whole(target, Ask(SHORT_CHUNKS))
        return Trips(first, proxy.counted())
    finally:
        target.stop()


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Ours would show as their delay."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return float(ordered[min(len(ordered) - 1, int(len(ordered) * share))])


def median(values: Sequence[float]) -> float:
    return float(statistics.median(values))
