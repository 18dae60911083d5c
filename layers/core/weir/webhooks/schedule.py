"""When a delivery that failed is tried again, and when it is given up.

Each wait is as long as the delivery has been under way: 0, 10 s, 20 s, 40 s and so on to 6 hours,
for a day. Time since the first attempt decides, and not a count of attempts, so that a worker that
was killed, or an attempt that was put off, changes nothing.
"""

FIRST_WAIT_S = 10
MOST_WAIT_S = 6 * 3600  # SQS hides a message for at most 12 hours
GIVE_UP_S = 86_400
JITTER = 0.2  # of a wait, at most, is added to it


def wait_s(under_way_s: float, chance: float) -> int | None:
    """Return after how many seconds to try again; None: no more. `chance` is a random number from 0
    to 1, so that deliveries that failed together are not tried together.
    """
    if under_way_s >= GIVE_UP_S:
        return None
    wait = min(MOST_WAIT_S, max(FIRST_WAIT_S, under_way_s))
    # The last attempt is made when the day is over, not hours later.
    return max(
        1, round(min(wait, max(FIRST_WAIT_S, GIVE_UP_S - under_way_s)) * (1 + JITTER * chance))
    )
