"""Counts questions about usage, so that a caller cannot keep a function busy with them."""

from weir.aws import contention, items
from weir.aws.expressions import Expression
from weir.aws.store import Store
from weir.usage.question import too_many_questions

KEPT_S = 3600


class Questions:
    def __init__(self, client: Store, table_name: str) -> None:
        self._client = client
        self._name = table_name

    def count(self, pid: str, caller: str, most: int, now: int) -> None:
        """Count one question of this minute, in one small write. Raises LimitReached for one above
        `most`, and AwsError. `now` is Unix seconds; `caller` a subject's key, or items.api_key.
        """
        expression = Expression()
        expression.add("questions", 1, most=most)
        expression.set("ttl", now + KEPT_S)
        try:
            self._client.update_item(
                TableName=self._name,
                Key=items.asked(pid, caller, now).item(),
                **expression.built(),
            )
        except Exception as error:
            if contention.condition_failed(error):
                raise too_many_questions(most, now) from error
            raise
