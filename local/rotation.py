"""Secrets Manager's part in a rotation: the four steps, called on the function that the rotation
schedule names.

The embedded AWS has no rotation schedule. Who wants a rotation at another time than the start asks
for one through the control socket.
"""

from __future__ import annotations

import asyncio
import json
import uuid

from local.embedded_aws import Stack, client
from local.pool import Pool
from local.sandbox import InvocationFailed, Stream
from local.template import Rotation

STEPS = ("createSecret", "setSecret", "testSecret", "finishSecret")


class RotationFailed(Exception):
    """One of the four steps failed; Secrets Manager would try again later."""


async def rotate(rotation: Rotation, pool: Pool, stack: Stack) -> str:
    """Runs one rotation to its end. Returns the id of the new version."""
    secret = await asyncio.to_thread(_arn, stack, stack.resources[rotation.secret])
    version = str(uuid.uuid4())
    for step in STEPS:
        event = json.dumps(
            {"Step": step, "SecretId": secret, "ClientRequestToken": version}
        ).encode()
        try:
            if isinstance(await pool.invoke(event), Stream):
                raise RotationFailed(f"{step}: {rotation.function} streamed an answer")
        except InvocationFailed as error:
            raise RotationFailed(f"{step}: {error}") from error
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
    stages = secrets.describe_secret(SecretId=secret)["VersionIdsToStages"].get(version, [])
    if {"AWSCURRENT", "AWSPENDING"} <= set(stages):
        secrets.update_secret_version_stage(
            SecretId=secret, VersionStage="AWSPENDING", RemoveFromVersionId=version
        )
