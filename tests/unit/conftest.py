"""What several unit tests need: one signing key (making RSA keys is slow) and a deployment."""

from typing import Any

import pytest

from weir import tokens
from weir.keyring import Kid, PublicKey, SigningKey, make_signing_key
from weir.settings import Deployment

NOW = 1_800_000_000


def make_table(client: Any) -> None:
    """The deployed table's keys, under the name `t`."""
    client.create_table(
        TableName="t",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "S"},
        ],
        KeySchema=[
            {"AttributeName": "pk", "KeyType": "HASH"},
            {"AttributeName": "sk", "KeyType": "RANGE"},
        ],
    )


def minted(key: SigningKey, *, now: int) -> str:
    """A user token of tenant-1, good for a minute."""
    return tokens.mint(
        key,
        issuer="urn:weir:tenant-1",
        tid="tenant-1",
        pid="default",
        uid="u",
        role="user",
        ttl_s=60,
        tier=None,
        session_id="s",
        jti="j",
        now=now,
    ).value


@pytest.fixture(scope="session")
def signing_key() -> SigningKey:
    return make_signing_key(Kid("ring_1"))


@pytest.fixture(scope="session")
def other_key() -> SigningKey:
    return make_signing_key(Kid("ring_2"))


@pytest.fixture(scope="session")
def public_key(signing_key: SigningKey) -> PublicKey:
    return signing_key.public(created_at=NOW)


@pytest.fixture
def deployment() -> Deployment:
    return Deployment("tenant-1", "default", frozenset({"https://app.example.com"}))
