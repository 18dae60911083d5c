"""What the template tells a function through its environment: read once at start, then frozen.

A missing or malformed value names its variable, so that the first log line of a wrong deployment
says what is wrong with it. Secrets are named here (by ARN), never held.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from weir.cors import parse_origins

# Until spending is limited by the ledger, one request may produce at most this many tokens.
MAX_OUTPUT_TOKENS = 1024

MAX_CHAT_BODY_BYTES = 4_000_000  # with a user token; Lambda's own limit is 6 MB for the whole event
MAX_MINT_BODY_BYTES = 64_000


class SettingsError(Exception):
    pass


@dataclass(frozen=True, slots=True)
class Deployment:
    """Who we are: one tenant, and for now one project, both from the stack."""

    tid: str
    pid: str
    origins: frozenset[str]

    @property
    def issuer(self) -> str:
        """`iss` of the tokens made here. No URL: an API Gateway cannot know its own."""
        return f"urn:weir:{self.tid}"

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "Deployment":
        return cls(
            tid=_text(env, "TENANT_ID"),
            pid=_text(env, "PROJECT_ID"),
            origins=parse_origins(_text(env, "ALLOWED_ORIGINS")),
        )


@dataclass(frozen=True, slots=True)
class TokenSettings:
    deployment: Deployment
    table_name: str
    signing_key_secret: str
    cognito_client_id: str
    session_token_ttl_s: int

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "TokenSettings":
        return cls(
            deployment=Deployment.from_env(env),
            table_name=_text(env, "TABLE_NAME"),
            signing_key_secret=_text(env, "SIGNING_KEY_SECRET"),
            cognito_client_id=_text(env, "COGNITO_CLIENT_ID"),
            session_token_ttl_s=_integer(env, "SESSION_TOKEN_TTL_S", 60, 86_400),
        )


@dataclass(frozen=True, slots=True)
class ChatSettings:
    deployment: Deployment
    table_name: str
    provider_keys_secret: str
    upstream_base_url: str | None  # None: Bedrock in `region`
    upstream_model: str
    output_cap_parameter: str
    max_stream_s: int
    region: str

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "ChatSettings":
        return cls(
            deployment=Deployment.from_env(env),
            table_name=_text(env, "TABLE_NAME"),
            provider_keys_secret=_text(env, "PROVIDER_KEYS_SECRET"),
            upstream_base_url=env.get("UPSTREAM_BASE_URL", "").rstrip("/") or None,
            upstream_model=_text(env, "UPSTREAM_MODEL"),
            output_cap_parameter=_text(env, "UPSTREAM_OUTPUT_CAP_PARAMETER"),
            max_stream_s=_integer(env, "MAX_STREAM_S", 1, 840),
            region=_text(env, "AWS_REGION"),
        )


@dataclass(frozen=True, slots=True)
class RotateSettings:
    table_name: str
    next_key_min_age_s: int

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "RotateSettings":
        return cls(
            table_name=_text(env, "TABLE_NAME"),
            next_key_min_age_s=_integer(env, "NEXT_KEY_MIN_AGE_S", 0, 10**9),
        )


def _text(env: Mapping[str, str], name: str) -> str:
    value = env.get(name, "").strip()
    if not value:
        raise SettingsError(f"The environment variable {name} is missing or empty.")
    return value


def _integer(env: Mapping[str, str], name: str, lowest: int, highest: int) -> int:
    text = _text(env, name)
    if not text.isascii() or not text.isdigit() or not lowest <= int(text) <= highest:
        raise SettingsError(f"{name} must be an integer of {lowest} to {highest}, not {text!r}.")
    return int(text)
