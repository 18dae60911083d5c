"""Secrets Manager's part in a rotation: the four steps, called on the function that the rotation
schedule names.

The embedded AWS has no rotation schedule. Who wants a rotation at another time than the start asks
for one through the control socket.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Mapping, Sequence

from local.embedded_aws import Stack, client
from local.pool import Busy, Pool
from local.sandbox import InvocationFailed, Stream
from local.template import Rotation

STEPS = ("createSecret", "setSecret", "testSecret", "finishSecret")


class RotationFailed(Exception):
    """One of the four steps failed; Secrets Manager would try again later."""


class Rotations:
    def __init__(
        self, schedules: Sequence[Rotation], pools: Mapping[str, Pool], stack: Stack
    ) -> None:
        self._schedules, self._pools, self._stack = schedules, pools, stack

    def uses(self, function: str) -> bool:
        return any(schedule.function == function for schedule in self._schedules)

    async def run_now(self) -> list[str]:
        """One rotation of each secret that has a schedule. Returns the new versions' ids."""
        return [await self._rotate(schedule) for schedule in self._schedules]

    async def _rotate(self, schedule: Rotation) -> str:
        stack, version = self._stack, str(uuid.uuid4())
        secret = await asyncio.to_thread(_arn, stack, stack.resources[schedule.secret])
        for step in STEPS:
            told = {"Step": step, "SecretId": secret, "ClientRequestToken": version}
            try:
                answer = await self._pools[schedule.function].invoke(json.dumps(told).encode())
            except (InvocationFailed, Busy) as error:
                raise RotationFailed(f"{step}: {error}") from error
            if isinstance(answer, Stream):
                answer.abort()
                raise RotationFailed(f"{step}: {schedule.function} streamed an answer")
        await asyncio.to_thread(_forget_pending, stack, secret, version)
        return version


def _arn(stack: Stack, secret: str) -> str:
    arn: str = client(stack.endpoint, "secretsmanager").describe_secret(SecretId=secret)["ARN"]
    return arn


def _forget_pending(stack: Stack, secret: str, version: str) -> None:
    """Secrets Manager takes the label off a version that has become current; the embedded one
    leaves it on.
    """
    secrets = client(stack.endpoint, "secretsmanager")
    stages = secrets.describe_secret(SecretId=secret)["VersionIdsToStages"]
    if "AWSCURRENT" not in stages.get(version, []):
        return
    # An earlier rotation that was given up may have left the label elsewhere, too.
    for labelled in [name for name, labels in stages.items() if "AWSPENDING" in labels]:
        secrets.update_secret_version_stage(
            SecretId=secret, VersionStage="AWSPENDING", RemoveFromVersionId=labelled
        )
