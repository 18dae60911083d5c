"""Amazon Bedrock's OpenAI-compatible endpoint, reached with the function's own role.

The bearer is a short-term Bedrock API key: a presigned `CallWithBearerToken` request in base64. It
is made locally, without a network call. Source: Bedrock user guide, "Generate short-term API keys";
checked in tests against AWS's own aws-bedrock-token-generator.
"""

import base64
from collections.abc import Mapping

from weir.aws.lean import presigned_url

HOST = "bedrock.amazonaws.com"
VALID_FOR_S = 43_200  # at most; the role's own session ends it earlier
RENEW_AFTER_S = 600


def base_url(region: str) -> str:
    return f"https://bedrock-runtime.{region}.amazonaws.com/openai/v1"


def bearer(credentials: Mapping[str, str], region: str, at: float) -> str:
    """`credentials` holds AWS_ACCESS_KEY_ID and its like; `at` is Unix seconds."""
    action = {"Action": "CallWithBearerToken"}
    url = presigned_url("bedrock", region, HOST, action, VALID_FOR_S, credentials, at)
    return "bedrock-api-key-" + base64.b64encode(f"{url}&Version=1".encode()).decode()


class RoleBearer:
    """The bearer of this process's role, made anew every ten minutes."""

    def __init__(self, credentials: Mapping[str, str], region: str) -> None:
        self._credentials = credentials
        self._region = region
        self._made_at = float("-inf")
        self._bearer = ""

    def at(self, now: int) -> str:
        if now - self._made_at >= RENEW_AFTER_S:
            self._bearer = bearer(self._credentials, self._region, now)
            self._made_at = now
        return self._bearer
