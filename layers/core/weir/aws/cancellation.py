"""Whether the caller has asked that his running request be stopped: asked of the table about once a
second, beside the stream and never in its way.
"""

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

EVERY_S = 1.0
# Longer than one look takes: the function must not end, and be frozen, in its middle.
LOOK_S = 4.0


class Cancellation:
    """Call it: True once the request is to be stopped. Quick. Most answers end before the first
    look, and start no thread.
    """

    def __init__(self, look: Callable[[], bool]) -> None:
        """`look` asks the table, in a thread of its own: nobody else may use its connection."""
        self._look = look
        self._due = time.monotonic() + EVERY_S
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self._cancelled = False

    def __call__(self) -> bool:
        if self._thread is None and time.monotonic() >= self._due:
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self._cancelled

    def end(self) -> bool:
        """False if a look is still under way: then its connection is not to be used again."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(LOOK_S)
        return self._thread is None or not self._thread.is_alive()

    def _watch(self) -> None:
        while not self._ended.is_set():
            try:
                if self._look():
                    self._cancelled = True
                    return
            except Exception:
                log.exception("whether a request was cancelled cannot be seen")
            self._ended.wait(EVERY_S)
