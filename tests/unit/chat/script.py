"""An upstream for the relay's tests. Time is scripted."""

from weir.chat.masking import Mask
from weir.errors import Refusal

Step = bytes | float | Refusal


class Script:
    """An upstream that does as written: bytes arrive, a number is seconds of silence."""

    mask = Mask("sk-CANARY")

    def __init__(self, *steps: Step) -> None:
        self.steps = list(steps)
        self.now = 1000.0
        self.closed = 0
        self.cancelled_at = float("inf")
        self.asked = 0

    def cancelled(self) -> bool:
        self.asked += 1
        return self.now >= self.cancelled_at

    def monotonic(self) -> float:
        return self.now

    def receive(self, timeout_s: float) -> bytes | None:
        while self.steps:
            step = self.steps[0]
            if isinstance(step, float):
                if step > timeout_s:
                    self.steps[0] = step - timeout_s
                    self.now += timeout_s
                    return None
                self.now += step
                timeout_s -= step
                self.steps.pop(0)
                continue
            self.steps.pop(0)
            if isinstance(step, Refusal):
                raise step
            return step
        return b""

    def close(self) -> None:
        self.closed += 1
