"""AWS clients, made by botocore: importing the whole of boto3 would add to every cold start."""

import functools
from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import Session, get_session

from weir.errors import NotReady

# Inside one region a healthy call takes milliseconds; better an error than a request that hangs.
_CONFIG = Config(
    connect_timeout=2, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 3}
)

# What a call to AWS can fail with.
AWS_ERRORS = (BotoCoreError, ClientError)


@functools.cache
def session() -> Session:
    return get_session()


@functools.cache
def client(service: str) -> Any:
    """One client a process: they keep their connections."""
    return session().create_client(service, config=_CONFIG)


def unavailable() -> NotReady:
    """What a caller is told of a failed call to AWS. The failure itself goes to the log."""
    return NotReady(
        "The gateway cannot reach its own store. Try again in a second.",
        code="store_unavailable",
        retry_after_s=1,
    )
