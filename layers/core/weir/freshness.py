"""How long something has been kept, by a clock that goes on while a process is frozen.

Lambda freezes a process between two requests, and its monotonic clock with it: by that clock a
switch that was pulled ten minutes ago would be five seconds old for many requests more.
"""

from collections.abc import Callable

Clock = Callable[[], float]  # Unix seconds: time.time


def is_due(read_at: float, kept_for_s: float, now: float) -> bool:
    """Also after the clock was set back: better to read once more than to believe for too long."""
    return not 0 <= now - read_at < kept_for_s
