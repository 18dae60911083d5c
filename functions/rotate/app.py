"""Secrets Manager calls this with one step of a rotation of the signing keys."""

import os
import time
import uuid
from typing import Any

from aws_lambda_powertools import Logger

from weir.aws import clients, logs
from weir.aws.rotation import Rotation, RotationError
from weir.aws.table import Table
from weir.settings import RotateSettings

logs.escape_root()
logger = Logger(service="rotate", json_serializer=logs.line)

_settings = RotateSettings.from_env(os.environ)
_rotation = Rotation(
    clients.client("secretsmanager"),
    Table(clients.client("dynamodb"), _settings.table_name),
    next_key_min_age_s=_settings.next_key_min_age_s,
    secrets_cached_s=_settings.secrets_cached_s,
)


@logger.inject_lambda_context
def handler(event: dict[str, Any], _context: Any) -> None:
    step, secret_id, version = event["Step"], event["SecretId"], event["ClientRequestToken"]
    now = int(time.time())
    if step == "createSecret":
        _rotation.create_secret(secret_id, version, now=now, new_id=lambda: uuid.uuid4().hex)
    elif step == "setSecret":
        _rotation.set_secret(secret_id, version, now=now)
    elif step == "testSecret":
        _rotation.test_secret(secret_id, version, now=now)
    elif step == "finishSecret":
        _rotation.finish_secret(secret_id, version, now=now)
    else:
        raise RotationError(f"unknown rotation step {step!r}")
    logger.info("rotation step done", extra={"step": step, "version": version})
