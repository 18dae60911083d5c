"""How many admissions a second one project can have before callers see 503 ledger_busy.

A model, not a measurement: no real DynamoDB was asked. Each request makes two transactions on a
shard of its project's counters, one to be admitted and one to be settled. One that arrives while
another is under way on the same item is refused with TransactionConflict and tries again after a
random wait, as weir/aws/ledger/ does. Prints the table of docs/ledger.md:

    python -m benchmarks.ledger_model
"""

import heapq
import random

UNDER_WAY_S = 0.010  # how long a transaction keeps its items; the assumption that matters most
STREAM_S = 10.0  # from admission to settlement
SIMULATED_S = 300.0
CONFLICTS_S, SETTLE_S, MOST_WAIT_S = 1.0, 5.0, 0.2  # weir/aws/ledger/books.py


def simulate(per_second: float, shards: int, seed: int = 1) -> tuple[float, float, float]:
    """Share of admissions that end as ledger_busy, share that needs a second try, and the 99th
    percentile of what trying again adds, in seconds.
    """
    chance = random.Random(seed)  # noqa: S311 (nothing here is a secret)
    free_at = [0.0] * shards
    events: list[tuple[float, int, float, int, bool]] = []  # when, shard, begun, tries, admission
    at = 0.0
    while at < SIMULATED_S:
        at += chance.expovariate(per_second)
        shard = chance.randrange(shards)
        heapq.heappush(events, (at, shard, at, 1, True))
    admissions = busy = again = 0
    waits = []
    while events:
        at, shard, begun, tries, admission = heapq.heappop(events)
        if at >= free_at[shard]:
            free_at[shard] = at + UNDER_WAY_S
            if admission:
                admissions += 1
                again += tries > 1
                waits.append(at - begun)
                settled = at + chance.expovariate(1 / STREAM_S)
                heapq.heappush(events, (settled, shard, settled, 1, False))
            continue
        if at - begun > (CONFLICTS_S if admission else SETTLE_S):
            admissions += admission
            busy += admission
            continue
        # The answer that there was a conflict takes about as long as a transaction.
        wait = UNDER_WAY_S + chance.random() * min(MOST_WAIT_S, 0.01 * 2**tries)
        heapq.heappush(events, (at + wait, shard, begun, tries + 1, admission))
    waits.sort()
    return busy / admissions, again / admissions, waits[int(len(waits) * 0.99)]


def main() -> None:
    print("| admissions a second | shards | second try | 99th percentile adds | 503 ledger_busy |")
    print("|---:|---:|---:|---:|---:|")
    for per_second in (1, 5, 10, 20, 30, 50, 100, 200, 500):
        for shards in (1, 4, 16):
            busy, again, p99 = simulate(per_second, shards)
            if again < 0.95:
                told = f"{again:.0%} | {p99 * 1000:.0f} ms | {busy:.3%}"
                print(f"| {per_second} | {shards} | {told} |")


if __name__ == "__main__":
    main()
