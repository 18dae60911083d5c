"""AWS clients, made by botocore, for operators and rotation. What a page waits for uses `lean`."""

import functools
from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import Session, get_session

from weir.aws.contention import AwsError

# Inside one region a healthy call takes milliseconds; better an error than a request that hangs.
_CONFIG = Config(
    connect_timeout=2, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 3}
)

# What a call to AWS can fail with.
AWS_ERRORS = (AwsError, BotoCoreError, ClientError)


@functools.cache
def session() -> Session:
    return get_session()


@functools.cache
def client(service: str) -> Any:
    """One client a process: they keep their connections."""
    return session().create_client(service, config=_CONFIG)
