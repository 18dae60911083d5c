"""Amazon Bedrock's OpenAI-compatible endpoint, reached with the function's own role.

The bearer is a short-term Bedrock API key: a presigned `CallWithBearerToken` request in base64. It
is made locally, without a network call. Source: Bedrock user guide, "Generate short-term API keys";
checked in tests against AWS's own aws-bedrock-token-generator.
"""

import base64
from typing import Any

from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest

HOST = "bedrock.amazonaws.com"
VALID_FOR_S = 43_200  # at most; the role's own session ends it earlier
RENEW_AFTER_S = 600


def base_url(region: str) -> str:
    return f"https://bedrock-runtime.{region}.amazonaws.com/openai/v1"


def bearer(credentials: Any, region: str) -> str:
    """`credentials` is a botocore Credentials or a frozen copy of one."""
    request = AWSRequest(
        method="POST",
        url=f"https://{HOST}/",
        headers={"host": HOST},
        params={"Action": "CallWithBearerToken"},
    )
    SigV4QueryAuth(credentials, "bedrock", region, expires=VALID_FOR_S).add_auth(request)
    presigned = str(request.url).removeprefix("https://") + "&Version=1"
    return "bedrock-api-key-" + base64.b64encode(presigned.encode()).decode()


class RoleBearer:
    """The bearer of this process's role, made anew every ten minutes."""

    def __init__(self, session: Any, region: str) -> None:
        self._session = session
        self._region = region
        self._made_at = float("-inf")
        self._bearer = ""

    def at(self, now: int) -> str:
        if now - self._made_at >= RENEW_AFTER_S:
            self._bearer = bearer(
                self._session.get_credentials().get_frozen_credentials(), self._region
            )
            self._made_at = now
        return self._bearer
