"""Schedules: who is invoked, when, and that a failure is told and ends nothing."""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from local.control import Control
from local.embedded_aws import Stack
from local.pool import Pool
from local.rotation import Rotations
from local.sandbox import InvocationFailed
from local.schedules import Schedules
from local.template import Schedule
from tests.local.harness import exchange, pool_of, program, run, serving, until

STACK = cast(
    "Stack", SimpleNamespace(account="123456789012", resources={"AFunctionTick": "the-rule"})
)
NOTE = "def handler(event, context):\n    with open('seen', 'a') as f: f.write(repr(event))\n"
FAIL = "def handler(event, context):\n    raise ValueError('out of order')\n"


class FakePool:
    """Answers at once, or as it is told to."""

    def __init__(self, *, fails: bool = False, hangs: bool = False) -> None:
        self.events: list[dict[str, Any]] = []
        self.fails, self.hangs = fails, hangs

    async def invoke(self, event: bytes) -> bytes:
        self.events.append(json.loads(event))
        if self.fails:
            raise InvocationFailed("ValueError: out of order")
        if self.hangs:
            await asyncio.Event().wait()
        return b"null"


def schedules(pools: dict[str, Any], said: list[str], every_s: float = 60) -> Schedules:
    told = [Schedule(name, "AFunctionTick", cast("int", every_s)) for name in pools]
    return Schedules(told, cast("dict[str, Pool]", pools), STACK, said.append)


def test_function_gets_eventbridges_event() -> None:
    pool = FakePool()
    run(_ran(schedules({"A": pool}, []), {"A": None}))
    (told,) = pool.events
    assert told.pop("id")
    assert told.pop("time").endswith("Z")
    assert told == {
        "version": "0",
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": "123456789012",
        "region": "us-east-1",
        "resources": ["arn:aws:events:us-east-1:123456789012:rule/the-rule"],
        "detail": {},
    }


async def _ran(what: Schedules, outcome: dict[str, str | None]) -> None:
    assert await what.run_now() == outcome


def test_each_runs_again_and_again_at_its_rate_even_if_it_or_another_fails() -> None:
    async def check() -> None:
        good, bad, said = FakePool(), FakePool(fails=True), list[str]()
        running = asyncio.ensure_future(schedules({"A": good, "B": bad}, said, 0.05).run())
        await asyncio.sleep(0.02)
        assert not good.events, "the first run comes when the rate has passed once"
        await until(lambda: len(good.events) >= 3 and len(bad.events) >= 3)
        assert not running.done()
        running.cancel()
        assert len(said) >= 2
        assert all(line.endswith(" B: ValueError: out of order") for line in said)

    run(check())


def test_run_that_takes_longer_than_its_rate_does_not_run_beside_itself() -> None:
    async def check() -> None:
        slow = FakePool(hangs=True)
        running = asyncio.ensure_future(schedules({"A": slow}, [], 0.01).run())
        await until(lambda: bool(slow.events))
        await asyncio.sleep(0.05)
        assert len(slow.events) == 1
        running.cancel()

    run(check())


def test_end_of_the_stack_waits_for_no_run() -> None:
    async def check() -> None:
        slow = FakePool(hangs=True)
        running = asyncio.ensure_future(schedules({"A": slow}, [], 0.01).run())
        await until(lambda: bool(slow.events))
        running.cancel()
        done, _ = await asyncio.wait({running}, timeout=0.5)
        assert done

    run(check())


@pytest.mark.parametrize(
    ("source", "answer"),
    [
        (NOTE, (b"200", {"ran": ["A"]})),
        (FAIL, (b"500", {"ran": [], "failed": {"A": "ValueError: out of order"}})),
    ],
)
def test_control_socket_runs_every_schedule_now_and_says_how_it_went(
    tmp_path: Path, source: str, answer: tuple[bytes, dict[str, Any]]
) -> None:
    async def check() -> None:
        said: list[str] = []
        async with pool_of(program(tmp_path, source)) as pool:
            scheduled = schedules({"A": pool}, said)
            control = Control({"A": pool}, cast("Rotations", None), scheduled)
            async with serving(control) as port:
                asked = b"POST /schedules HTTP/1.1\r\nHost: weir\r\nConnection: close\r\n"
                told = await exchange(port, asked + b"Content-Length: 0\r\n\r\n")
        head, _, body = told.partition(b"\r\n\r\n")
        assert (head.split()[1], json.loads(body)) == answer
        assert (tmp_path / "seen").exists() == (source == NOTE)
        assert bool(said) == (source == FAIL)

    run(check())
