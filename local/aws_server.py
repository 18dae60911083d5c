r"""The embedded AWS: ministack behind its front (aws_front.py), on a socket that it inherits.

Run by its own environment, which has ministack and what ministack needs:
    AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=... SIGN_IN_ORIGINS="..." \
        python -m local.aws_server FD

There is no listener of ministack's own: what the front does not let through cannot reach it.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import resource
import sys
from urllib.parse import parse_qs

from hypercorn.asyncio import serve
from hypercorn.config import Config, Sockets
from ministack.app import app
from ministack.core import iam_evaluator, sigv4
from ministack.core.responses import _account_from_sts_session

from local.aws_front import HEALTH, Front, Headers, Scope
from local.peers import OwnSocket

ROOT_KEY_ID = os.environ["AWS_ACCESS_KEY_ID"]
KEEP_ALIVE_S = 75


def believes(key_id: str, scope: Scope, headers: Headers, body: bytes) -> bool:
    """Verify a signature: of this run's root user, or of a session or user that ministack made.

    ministack verifies those of sessions and users, too; those of its root user never.
    """
    if iam_evaluator.is_root_access_key(key_id) and not hmac.compare_digest(key_id, ROOT_KEY_ID):
        return False
    signature = sigv4.parse_header_signature(headers)
    if isinstance(signature, tuple) or sigv4.request_time_failure(signature) is not None:
        return False
    account = _account_from_sts_session(key_id) or iam_evaluator.find_iam_access_key_account(key_id)
    credential = iam_evaluator.resolve_credential(
        key_id, account, headers.get("x-amz-security-token", "")
    )
    if not isinstance(credential, iam_evaluator.ResolvedCredential):
        return False
    failure = sigv4.header_signature_failure(
        signature,
        credential.secret_access_key,
        scope["method"],
        scope["raw_path"].decode("latin-1"),
        parse_qs(scope["query_string"].decode(), keep_blank_values=True),
        headers,
        body,
    )
    return failure is None


def _is_no_health_check(record: logging.LogRecord) -> bool:
    return HEALTH not in record.getMessage()


def main() -> None:
    logging.getLogger("hypercorn.access").addFilter(_is_no_health_check)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a connection takes one
    listener = OwnSocket(fileno=int(sys.argv[1]))
    config = Config()
    config.create_sockets = lambda: Sockets([], [listener], [])
    config.keep_alive_timeout = KEEP_ALIVE_S
    front = Front(app, frozenset(os.environ["SIGN_IN_ORIGINS"].split()), believes)
    asyncio.run(serve(front, config, mode="asgi"))


if __name__ == "__main__":
    main()
