"""What happens once: a first request to a new process, also under a quota; a request after a
silence; one large answer; one chat of ten seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

from benchmarks import quota
from benchmarks.counting import CountingProxy, Trip, by_operation
from benchmarks.measure import PACED_GAP_S, SHORT_CHUNKS, asked_whole, median
from benchmarks.targets import Ask, Place, Target, Weir, all_targets
from benchmarks.wire import now

WHOLE_CORE = 0  # instead of a size in MB: no quota
SIZES_MB = (WHOLE_CORE, 512, 256, 128)
HOT = 8  # requests, before each silence
WHOLE_BYTES = 29_000_000
CHAT_S = 10
CHAT_CHUNKS = round(CHAT_S / PACED_GAP_S)


@dataclass
class Cold:
    """By size in MB: nanoseconds from the request, the process being ready, to the first byte."""

    first_bytes: dict[int, list[int]] = field(default_factory=dict)
    hot: dict[int, list[int]] = field(default_factory=dict)  # of the same process, the next ones
    why_no_quota: str = ""


@dataclass
class Pause:
    """One target after one length of silence, by repetition."""

    first_bytes: list[int] = field(default_factory=list)
    hot: list[float] = field(default_factory=list)  # the median of those just before the silence
    before: list[str] = field(default_factory=list)  # operations that left before the first byte
    after: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Whole:
    status: int
    received: int  # bytes
    rss_kb: int  # before
    peak_kb: int


@dataclass(frozen=True)
class Chat:
    """What one chat of ten seconds took from a warm process."""

    billed_s: float  # from the event to the process's wish for the next one
    cpu_ns: int
    write_units: float
    read_units: float
    log_bytes: int
    sent_bytes: int


Say = Callable[[str], None]


def cold(place: Place, repetitions: int, say: Say) -> dict[str, Cold]:
    targets = [target for target in all_targets(place) if target.name != "direct"]
    why = quota.why_not()
    found = {target.name: Cold(why_no_quota=why) for target in targets}
    for size in (WHOLE_CORE,) if why else SIZES_MB:
        for _ in range(repetitions):
            for target in targets:
                first, hot = _cold(target, size)
                found[target.name].first_bytes.setdefault(size, []).append(first)
                found[target.name].hot.setdefault(size, []).append(hot)
        say(f"cold processes{f' with the CPU of {size} MB' if size else ''}: done")
    return found


def _cold(target: Target, size: int) -> tuple[int, int]:
    """Starting is not under the quota: Lambda gives a function more CPU while it starts."""
    target.start()
    try:
        target.until_ready()
        process = target.process()
        assert process is not None
        with quota.limited(process.pid, size) if size else nullcontext():
            asked, answer = asked_whole(target, Ask(SHORT_CHUNKS))
            target.until_ready()
            hot = []
            for _ in range(3):
                again, hot_answer = asked_whole(target, Ask(SHORT_CHUNKS))
                hot.append(hot_answer.first_byte - again)
            return answer.first_byte - asked, round(median(hot))
    finally:
        target.stop()


def pauses(
    place: Place, silences_s: Sequence[float], repetitions: int, say: Say
) -> dict[str, dict[float, Pause]]:
    """`place` has the provider at its distance. Silent together, asked in turns."""
    proxies = [CountingProxy(place.store) for _ in all_targets(place)]
    targets = [
        all_targets(replace(place, store=proxy.endpoint))[number]
        for number, proxy in enumerate(proxies)
    ]
    found = {t.name: {silence: Pause() for silence in silences_s} for t in targets}
    started: list[Target] = []
    try:
        for target in targets:
            started.append(target)
            target.start()
            asked_whole(target, Ask(SHORT_CHUNKS))
        for _ in range(repetitions):
            for silence in silences_s:
                _hot(targets, found, silence)
                _be_silent(targets, silence)
                for target, proxy in zip(targets, proxies, strict=True):
                    _after_silence(target, proxy, found[target.name][silence])
                say(f"after {silence:g} s of silence: done")
    finally:
        for target in started:
            target.stop()
        for proxy in proxies:
            proxy.close()
    return found


def _hot(targets: Sequence[Target], found: dict[str, dict[float, Pause]], silence: float) -> None:
    for target in targets:
        times = []
        for _ in range(HOT):
            asked, answer = asked_whole(target, Ask(SHORT_CHUNKS))
            times.append(answer.first_byte - asked)
        target.until_ready()
        found[target.name][silence].hot.append(median(times[1:]))


def _be_silent(targets: Sequence[Target], silence: float) -> None:
    """Lambda freezes a function between its invocations; a server runs on."""
    frozen = [t.process() for t in targets if isinstance(t, Weir)]
    for process in frozen:
        process.freeze()
    time.sleep(silence)
    for process in frozen:
        process.thaw()


def _after_silence(target: Target, proxy: CountingProxy, pause: Pause) -> None:
    """With gaps: in a burst the settlement would leave before we have seen the first byte."""
    proxy.trips()
    asked, answer = asked_whole(target, Ask(SHORT_CHUNKS, PACED_GAP_S))
    target.until_ready()
    pause.first_bytes.append(answer.first_byte - asked)
    trips = proxy.trips()
    pause.before.append(_named(t for t in trips if t.at <= answer.first_byte))
    pause.after.append(_named(t for t in trips if t.at > answer.first_byte))


def _named(trips: Iterable[Trip]) -> str:
    counted = by_operation(trips)
    return " + ".join(
        f"{number} {name}" if number > 1 else name for name, number in sorted(counted.items())
    )


def whole(place: Place) -> dict[str, Whole]:
    found = {}
    for target in all_targets(place):
        if target.name == "direct":
            continue
        target.start()
        try:
            asked_whole(target, Ask(SHORT_CHUNKS))
            target.until_ready()
            process = target.process()
            assert process is not None
            before = process.memory_kb()
            _, answer = target.ask(Ask(0, whole_bytes=WHOLE_BYTES))
            target.until_ready()
            size, peak = len(answer.body), process.memory_kb("VmHWM")
            found[target.name] = Whole(answer.status, size, before, peak)
        finally:
            target.stop()
    return found


def chat(place: Place) -> Chat:
    """The second of two: the first one's start is no part of it. Its settings have expired."""
    proxy = CountingProxy(place.store)
    target = Weir(replace(place, store=proxy.endpoint))
    target.start()
    try:
        for _ in range(2):
            target.until_ready()
            proxy.trips()
            process, log = target.process(), target.process().log
            cpu, logged = process.cpu_ns(), log.stat().st_size
            asked, answer = asked_whole(target, Ask(CHAT_CHUNKS, PACED_GAP_S))
            target.until_ready()
            billed, trips = (now() - asked) / 1e9, proxy.trips()
        return Chat(
            billed_s=billed,
            cpu_ns=process.cpu_ns() - cpu,
            write_units=sum(trip.write_units for trip in trips),
            read_units=sum(trip.read_units for trip in trips),
            log_bytes=log.stat().st_size - logged,
            sent_bytes=len(answer.body),
        )
    finally:
        target.stop()
        proxy.close()
