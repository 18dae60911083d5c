"""What the table's stream brings for webhooks: settled reservations, which may have brought a
budget to a threshold, and events, which are put into the queue of deliveries.
"""

import os
import time
from typing import Any

from aws_lambda_powertools import Logger

from weir.aws import clients, items, lean, logs
from weir.aws.customers import Customers
from weir.aws.webhooks.outbox import Queue, posted_of
from weir.aws.webhooks.watch import Watch, budgets_of
from weir.settings import NotifySettings

logs.escape_root()
logger = Logger(service="notify", json_serializer=logs.line)

_settings = NotifySettings.from_env(os.environ)
_queue = Queue(clients.client("sqs"), _settings.queue_url)
_table_name = _settings.deployment.table_name
_budgets = budgets_of(Customers(lean.client("dynamodb"), _table_name, time.time))
_watch = Watch(lean.client("dynamodb"), _table_name, _queue, _budgets, time.time)


@logger.inject_lambda_context
def handler(event: dict[str, Any], _context: Any) -> None:
    """Fails if the store or the queue does: then Lambda brings the records again, in halves."""
    settled, posted, unreadable = [], [], 0
    for record in event["Records"]:
        change = record["dynamodb"]
        if change["Keys"]["pk"]["S"].startswith(items.OUTBOX):
            try:
                posted.append(posted_of(change["NewImage"]))
            except (KeyError, TypeError, ValueError):
                logger.exception("an event cannot be read")
                unreadable += 1
        else:
            settled.append(change.get("OldImage", {}))
    queued = _watch.hand_over(posted)
    reached = _watch.note(settled)
    counts = {"records": len(event["Records"]), "reached": reached, "queued": queued}
    logger.info("looked at", extra={**counts, "unreadable": unreadable})
