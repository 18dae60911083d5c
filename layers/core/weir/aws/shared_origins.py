"""The preflight function's view of the table: which origins any project allows, and a note of those
that were refused. Standard library only (docs/decisions/0007).
"""

from weir.aws import items
from weir.aws.lean import AwsError, Client
from weir.freshness import Clock, is_due
from weir.web.origins import Origins

CACHED_FOR_S = 30
NOTED_EVERY_S = 5  # at most, by one process: whoever floods us does not thereby write


class SharedOrigins:
    def __init__(self, dynamodb: Client, table_name: str, clock: Clock) -> None:
        self._dynamodb = dynamodb
        self._table_name = table_name
        self._clock = clock
        self._origins: Origins | None = None
        self._read_at = self._noted_at = float("-inf")

    def current(self) -> Origins:
        """Kept for CACHED_FOR_S, and for as long as the table cannot be read. Raises AwsError
        if it never could.
        """
        now = self._clock()
        if is_due(self._read_at, CACHED_FOR_S, now):
            try:
                self._origins = self._read()
            except AwsError:
                if self._origins is None:
                    raise
            self._read_at = now
        assert self._origins is not None
        return self._origins

    def note_refused(self, origin: str, now: int) -> None:
        """For `weir cors refused`. `now` is Unix seconds. Raises AwsError."""
        if is_due(self._noted_at, NOTED_EVERY_S, now):
            self._noted_at = now
            item = items.refused_item("", origin, now)
            self._dynamodb.put_item(TableName=self._table_name, Item=item)

    def _read(self) -> Origins:
        answer = self._dynamodb.get_item(TableName=self._table_name, Key=items.ORIGINS.item())
        return Origins.from_document(items.record_of(answer.get("Item")).document)
