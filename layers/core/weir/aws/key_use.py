"""When an API key was last used, for whoever wonders whether he may revoke it."""

import logging

from weir.aws.table import Table
from weir.identity.api_keys import ApiKey

# How exactly it is known; each use would otherwise be a write.
EXACT_TO_S = 300

log = logging.getLogger(__name__)


class KeyUse:
    def __init__(self, table: Table) -> None:
        self._table = table

    def note(self, key: ApiKey, now: int) -> None:
        """`now` is Unix seconds. Never fails: a key works with or without a note."""
        if now - (key.last_used_at or 0) < EXACT_TO_S:
            return
        try:
            self._table.api_key_was_used(key.hash, now)
        except Exception:
            log.exception("the use of an API key was not noted")
