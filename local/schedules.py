"""EventBridge's part in a schedule: an event to each function that has one, at its rate.

The embedded AWS keeps the rules and would run stand-ins. Whoever wants a run at another time asks
for one through the control socket.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from local.embedded_aws import REGION, Stack
from local.pool import Busy, Pool
from local.sandbox import InvocationFailed, Stream
from local.template import Schedule


class Schedules:
    """`say` takes one line for each run that fails."""

    def __init__(
        self,
        schedules: Sequence[Schedule],
        pools: Mapping[str, Pool],
        stack: Stack,
        say: Callable[[str], None],
    ) -> None:
        self._schedules, self._pools, self._stack, self._say = schedules, pools, stack, say

    def uses(self, function: str) -> bool:
        return any(schedule.function == function for schedule in self._schedules)

    async def run(self) -> None:
        """For as long as the stack runs. A rule's first run comes when its rate has passed once."""
        await asyncio.gather(*(self._repeat(schedule) for schedule in self._schedules))

    async def run_now(self) -> dict[str, str | None]:
        """Each once. By function: None, or why it failed."""
        outcomes = await asyncio.gather(*(self._invoke(one) for one in self._schedules))
        return {
            schedule.function: why for schedule, why in zip(self._schedules, outcomes, strict=True)
        }

    async def _repeat(self, schedule: Schedule) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            # One that takes longer than its rate is late, and does not run beside itself.
            due = max(due + schedule.every_s, loop.time())
            await asyncio.sleep(due - loop.time())
            await self._invoke(schedule)

    async def _invoke(self, schedule: Schedule) -> str | None:
        why = None
        try:
            answer = await self._pools[schedule.function].invoke(self._event(schedule))
            if isinstance(answer, Stream):
                answer.abort()
                why = "it streamed an answer"
        except InvocationFailed as error:
            why = str(error)
        except Busy:
            why = "every process was at work"
        if why is not None:
            self._say(f"{_now()} {schedule.function}: {why}")
        return why

    def _event(self, schedule: Schedule) -> bytes:
        """EventBridge User Guide, "Creating a rule that runs on a schedule": the event's form."""
        stack = self._stack
        rule = stack.resources[schedule.rule]
        told: dict[str, Any] = {
            "version": "0",
            "id": str(uuid.uuid4()),
            "detail-type": "Scheduled Event",
            "source": "aws.events",
            "account": stack.account,
            "time": _now(),
            "region": REGION,
            "resources": [f"arn:aws:events:{REGION}:{stack.account}:rule/{rule}"],
            "detail": {},
        }
        return json.dumps(told).encode()


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
