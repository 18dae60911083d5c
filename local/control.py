"""A Unix socket beside the logs, for what a test or an operator asks of the running stack from
outside:

    POST /rotate                               one rotation of the signing keys, now
    POST /schedules                            every function that has a schedule once, now
    POST /streams                              what changed in the table, to whom it concerns, now
    POST /functions/<LogicalId>/invocations    one event to one function; its answer as it gave it

    curl --unix-socket .local/control.sock -X POST http://weir/rotate
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path

from local import CannotRun
from local.http1 import Exchange
from local.pool import Busy, Pool
from local.rotation import RotationFailed, Rotations
from local.sandbox import InvocationFailed, Stream
from local.schedules import Schedules
from local.streams import Streams

MAX_EVENT = 6 * 1024 * 1024


class Control:
    def __init__(
        self,
        pools: Mapping[str, Pool],
        rotations: Rotations,
        schedules: Schedules,
        streams: Streams | None = None,
    ) -> None:
        self._pools, self._rotations, self._schedules = pools, rotations, schedules
        self._streams = streams

    async def __call__(self, exchange: Exchange) -> None:
        call = (exchange.method, *exchange.target.strip("/").split("/"))
        event = await exchange.read(MAX_EVENT)
        if call == ("POST", "rotate"):
            try:
                await _answer(exchange, 200, {"versions": await self._rotations.run_now()})
            except RotationFailed as error:
                await _answer(exchange, 500, {"error": str(error)})
        elif call == ("POST", "schedules"):
            await self._run_schedules(exchange)
        elif call == ("POST", "streams") and self._streams is not None:
            await _answer(exchange, 200, {"records": await self._streams.run_now()})
        elif len(call) == 4 and call[1] == "functions" and call[2] in self._pools:
            await self._invoke(exchange, self._pools[call[2]], event)
        else:
            await _answer(
                exchange, 404, {"error": f"no such call: {exchange.method} {exchange.target}"}
            )

    async def _run_schedules(self, exchange: Exchange) -> None:
        outcomes = await self._schedules.run_now()
        failed = {function: why for function, why in outcomes.items() if why is not None}
        ran = [function for function in outcomes if function not in failed]
        told: dict[str, object] = {"ran": ran, **({"failed": failed} if failed else {})}
        await _answer(exchange, 500 if failed else 200, told)

    async def _invoke(self, exchange: Exchange, pool: Pool, event: bytes) -> None:
        try:
            answer = await pool.invoke(event)
        except (InvocationFailed, Busy) as error:
            await _answer(exchange, 502, {"error": str(error)})
            return
        if isinstance(answer, Stream):
            try:
                pieces = [piece async for piece in answer.chunks()]
            except InvocationFailed as error:
                await _answer(exchange, 502, {"error": str(error)})
                return
            head = json.dumps(answer.prelude).encode() + b"\0" * 8
            await exchange.respond(200, [], head + b"".join(pieces))
        else:
            await exchange.respond(200, [("Content-Type", "application/json")], answer)


async def _answer(exchange: Exchange, status: int, told: dict[str, object]) -> None:
    await exchange.respond(
        status, [("Content-Type", "application/json")], json.dumps(told).encode()
    )


def listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise CannotRun(f"The control socket {path} cannot be made: {error}.") from error
    path.chmod(0o600)
    listener.listen()
    return listener
