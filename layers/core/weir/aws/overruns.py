"""Candidates that have cost more than the worst case of a request."""

import logging

from weir.aws.table import Table

log = logging.getLogger("chat")


def note(table: Table, candidate: str, percent: int) -> None:
    """Reserve more for the next request, in every process within 5 s. Never raises."""
    noted = {"candidate": candidate, "percent": percent}
    try:
        table.raise_overrun(candidate, percent)
    except Exception:
        log.exception("the worst case is not raised", extra=noted)
    else:
        log.warning("the worst case is raised", extra=noted)
