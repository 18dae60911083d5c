"""What the table's stream brings: each new usage row is added to its sums, once."""

import os
from typing import Any

from aws_lambda_powertools import Logger

from weir.aws import lean, logs
from weir.aws.items import Key
from weir.aws.usage import Unreadable, Usage, kept, row_of
from weir.settings import MeterSettings
from weir.usage.sums import Row

logs.escape_root()
logger = Logger(service="meter", json_serializer=logs.line)

_settings = MeterSettings.from_env(os.environ)
_usage = Usage(lean.client("dynamodb"), _settings.deployment.table_name)
_kept_until = kept(_settings.rollups_kept_s)


@logger.inject_lambda_context
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Fails if the store does: then Lambda brings the records again, in halves. What cannot be read
    is named only when all else has been added, so that it takes nothing with it when it is given
    up.
    """
    rows: dict[Key, Row] = {}
    unreadable: list[str] = []
    for record in event["Records"]:
        change = record["dynamodb"]
        try:
            key, row = row_of(change.get("NewImage", {}))
            rows[key] = row
        except Unreadable:
            unreadable.append(change["SequenceNumber"])
    added = _usage.add(rows, _kept_until)
    counts = {"records": len(event["Records"]), "added": added, "unreadable": len(unreadable)}
    say = logger.warning if unreadable else logger.info
    say("added up", extra=counts)
    # Lambda goes on from the first that is named, whatever else is.
    return {"batchItemFailures": [{"itemIdentifier": number} for number in unreadable[:1]]}
