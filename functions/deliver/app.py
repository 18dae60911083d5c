"""Delivers events to servers that want to be told of them: one message, one attempt."""

import os
import random
import time
from typing import Any

from aws_lambda_powertools import Logger

from weir.aws import clients, lean, logs
from weir.aws.webhooks.deliveries import AGAIN, GIVEN_UP, Deliveries, Message
from weir.aws.webhooks.outbox import Queue
from weir.aws.webhooks.seal import Opener
from weir.settings import DeliverSettings
from weir.upstreams.guarded import GuardedClient
from weir.upstreams.webhooks import Poster

logs.escape_root()
logger = Logger(service="deliver", json_serializer=logs.line)

_settings = DeliverSettings.from_env(os.environ)
_sqs = clients.client("sqs")
_dead_letters = Queue(_sqs, _settings.dead_letters_url)
_deliveries = Deliveries(
    lean.client("dynamodb"),
    _settings.deployment.table_name,
    Opener(clients.client("kms"), _settings.key),
    Poster(GuardedClient()),
    time.time,
    random.random,
)


@logger.inject_lambda_context
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """A message that is not named in the answer is done with. One that fails here comes again when
    its visibility time-out has passed, and lands among the dead letters in the end.
    """
    again = [record["messageId"] for record in event["Records"] if not _done(record)]
    return {"batchItemFailures": [{"itemIdentifier": each} for each in again]}


def _done(record: dict[str, Any]) -> bool:
    try:
        message = Message.of(record["body"], int(record["attributes"]["SentTimestamp"]) / 1000)
        outcome = _deliveries.attempt(message)
        if outcome.what == GIVEN_UP:
            _dead_letters.send([record["body"]])
        if outcome.what == AGAIN:
            _sqs.change_message_visibility(
                QueueUrl=_settings.queue_url,
                ReceiptHandle=record["receiptHandle"],
                VisibilityTimeout=outcome.wait_s,
            )
    except Exception:
        logger.exception("a delivery failed here")
        return False
    told = {"project": message.pid, "endpoint": message.endpoint, "event": message.event.id}
    logger.info(outcome.what, extra={**told, "why": outcome.why, "wait_s": outcome.wait_s})
    return outcome.what != AGAIN
