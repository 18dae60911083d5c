"""What several unit tests need: one signing key (making RSA keys is slow) and a deployment."""

import pytest

from weir.keyring import Kid, PublicKey, SigningKey, make_signing_key
from weir.settings import Deployment

NOW = 1_800_000_000


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
