"""The calls to DynamoDB that the gateway makes, as both clients offer them: `lean` and botocore."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from weir.aws.items import Item

Answer = dict[str, Any]  # as the API reference describes it
Part = dict[str, dict[str, Any]]  # of a transaction, such as {"Put": {...}}


class Store(Protocol):
    """A client. Members are named as in the API reference, and an absent one is left out. What a
    failed call raises: `weir/aws/contention.py`.
    """

    def get_item(
        self,
        *,
        TableName: str,
        Key: Item,
        ConsistentRead: bool = ...,
        ProjectionExpression: str = ...,
    ) -> Answer: ...

    def batch_get_item(self, *, RequestItems: Mapping[str, Mapping[str, Any]]) -> Answer: ...

    def query(
        self,
        *,
        TableName: str,
        KeyConditionExpression: str,
        ExpressionAttributeValues: Item,
        ScanIndexForward: bool = ...,
        Limit: int = ...,
        ConsistentRead: bool = ...,
        ExclusiveStartKey: Item = ...,
    ) -> Answer: ...

    def scan(
        self,
        *,
        TableName: str,
        FilterExpression: str,
        ExpressionAttributeValues: Item,
        ExclusiveStartKey: Item = ...,
    ) -> Answer: ...

    def put_item(self, *, TableName: str, Item: Item, ConditionExpression: str = ...) -> Answer: ...

    def update_item(
        self,
        *,
        TableName: str,
        Key: Item,
        UpdateExpression: str,
        ConditionExpression: str = ...,
        ExpressionAttributeNames: Mapping[str, str] = ...,
        ExpressionAttributeValues: Item = ...,
    ) -> Answer: ...

    def delete_item(self, *, TableName: str, Key: Item) -> Answer: ...

    def batch_write_item(
        self, *, RequestItems: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> Answer: ...

    def transact_write_items(
        self, *, TransactItems: Sequence[Part], ClientRequestToken: str = ...
    ) -> Answer: ...
