"""What is done when an answer has ended, whichever of the models' routes it was given on."""

import logging
import time

from weir.aws.ledger import Ledger
from weir.aws.table import Table
from weir.chat import completion, records
from weir.chat.completion import Charge, Running


def settle(
    running: Running, ledger: Ledger, table: Table, *, stack: str, log: logging.Logger, line: str
) -> Charge:
    """In one round trip. Never raises: the answer has been given, and a request that could not be
    settled is swept. `line` is the message of its line in the log.
    """
    charge = completion.charge(running)
    named = {"completion_id": running.chat.completion_id}
    settled = False
    try:
        if not ledger.settle(running.reservation, charge.settlement, charge.row):
            log.warning("settled before", extra=named)
        settled = True
    except Exception:
        log.exception("not settled", extra=named)
    if charge.overrun:
        _reserve_more(table, running.candidate.name, charge.overrun, log)
    at_ms = int(time.time() * 1000)
    told = records.of_request(running, charge, settled=settled, stack=stack, at_ms=at_ms)
    log.info(line, extra=told)
    for failed in records.of_failed_upstreams(running, stack=stack, at_ms=at_ms):
        log.warning("upstream failed", extra=failed)
    return charge


def _reserve_more(table: Table, candidate: str, percent: int, log: logging.Logger) -> None:
    """For the next request, in every process within 5 s: one has cost more than its worst case."""
    noted = {"candidate": candidate, "percent": percent}
    try:
        table.raise_overrun(candidate, percent)
    except Exception:
        log.exception("the worst case is not raised", extra=noted)
    else:
        log.warning("the worst case is raised", extra=noted)
