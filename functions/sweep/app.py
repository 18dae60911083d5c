"""Once a minute: settles what a request has reserved and, killed, could not settle itself."""

import os
import time
from typing import Any

from aws_lambda_powertools import Logger

from weir.aws import lean, logs
from weir.aws.ledger import Ledger
from weir.metrics import COUNT, NO_UNIT, SECONDS, emf
from weir.projects.limits import NANO
from weir.settings import SweepSettings

# So long may the last reservation take that was begun: conflicts and time-outs are tried again.
LAST_ONE_MS = 20_000

logs.escape_root()
logger = Logger(service="sweep", json_serializer=logs.line)

_settings = SweepSettings.from_env(os.environ)
_deployment = _settings.deployment
_ledger = Ledger(
    lean.client("dynamodb"),
    _deployment.table_name,
    time.time,
    usage_kept_s=_settings.usage_kept_s,
)


class SweepFailed(Exception):
    """Reservations that are due could not be settled. The next sweep tries them again."""


@logger.inject_lambda_context
def handler(_event: dict[str, Any], context: Any) -> None:
    def time_is_up() -> bool:
        left_ms: int = context.get_remaining_time_in_millis()
        return left_ms < LAST_ONE_MS

    now = time.time()
    swept = _ledger.sweep(int(now), time_is_up)
    metrics = emf(
        "sweep",
        _deployment.stack_name,
        int(now * 1000),
        {
            "SweptReservations": (swept.settled, COUNT),
            "SweepFailures": (swept.failed, COUNT),
            "OldestReservationSeconds": (swept.oldest_s, SECONDS),
            "CostUsd": (swept.nano_usd / NANO, NO_UNIT),
        },
        {},
    )
    logger.info("swept", extra=metrics)
    if swept.failed:
        raise SweepFailed(f"{swept.failed} of the reservations that are due were not settled")
