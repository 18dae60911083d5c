"""What the template tells a function through its environment: read once at start, then frozen.

A missing or malformed value names its variable, so that the first log line of a wrong deployment
says what is wrong with it. Secrets are named here (by ARN), never held.
"""

from collections.abc import Mapping
from dataclasses import dataclass

MAX_CHAT_BODY_BYTES = 4_000_000  # with a user token; Lambda's own limit is 6 MB for the whole event
MAX_SERVER_BODY_BYTES = 1_000_000  # with an API key
MAX_PAGE_BODY_BYTES = 256_000  # with a client token
MAX_MINT_BODY_BYTES = 64_000
MAX_ADMIN_BODY_BYTES = 1_000_000
DAY_S = 86_400


def most_body_bytes(*, page: bool, server: bool) -> int:
    """Return how large a request may be: of a page with a client token, of a server with an API
    key, or of anybody with a user token.
    """
    if page:
        return MAX_PAGE_BODY_BYTES
    return MAX_SERVER_BODY_BYTES if server else MAX_CHAT_BODY_BYTES


class SettingsError(Exception):
    pass


@dataclass(frozen=True, slots=True)
class Deployment:
    """Who we are: one tenant, the stack. Its projects are in the table."""

    tid: str
    table_name: str
    stack_name: str

    @property
    def issuer(self) -> str:
        """`iss` of the tokens made here. No URL: an API Gateway cannot know its own."""
        return f"urn:weir:{self.tid}"

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "Deployment":
        return cls(
            tid=_text(env, "TENANT_ID"),
            table_name=_text(env, "TABLE_NAME"),
            stack_name=_text(env, "STACK_NAME"),
        )


@dataclass(frozen=True, slots=True)
class Caches:
    """For how many seconds a process keeps what it has read.

    A key that is struck from the ring, or a signing key that is revoked, dies within `keys_s`. A
    `kid` that is not known is looked for at most once in `unknown_kid_s`. A changed secret counts
    after `secrets_s`: short enough for an operator who waits for a new provider key to work, long
    enough that Secrets Manager is not called for every request.
    """

    keys_s: int = 5
    unknown_kid_s: int = 1
    secrets_s: int = 60

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "Caches":
        return cls(
            keys_s=_integer(env, "KEYS_CACHED_S", 0, 300, default="5"),
            unknown_kid_s=_integer(env, "UNKNOWN_KID_EVERY_S", 0, 300, default="1"),
            secrets_s=_integer(env, "SECRETS_CACHED_S", 0, 3600, default="60"),
        )


@dataclass(frozen=True, slots=True)
class TokenSettings:
    deployment: Deployment
    caches: Caches
    signing_key_secret: str
    cognito_client_id: str
    session_project: str  # whose users sign in with the stack's user pool
    session_token_ttl_s: int

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "TokenSettings":
        return cls(
            deployment=Deployment.from_env(env),
            caches=Caches.from_env(env),
            signing_key_secret=_text(env, "SIGNING_KEY_SECRET"),
            cognito_client_id=_text(env, "COGNITO_CLIENT_ID"),
            session_project=_text(env, "PROJECT_ID"),
            session_token_ttl_s=_integer(env, "SESSION_TOKEN_TTL_S", 60, 86_400),
        )


@dataclass(frozen=True, slots=True)
class CustomersSettings:
    deployment: Deployment
    signing_key_secret: str
    secrets_s: int

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "CustomersSettings":
        return cls(
            deployment=Deployment.from_env(env),
            signing_key_secret=_text(env, "SIGNING_KEY_SECRET"),
            secrets_s=Caches.from_env(env).secrets_s,
        )


@dataclass(frozen=True, slots=True)
class ChatSettings:
    deployment: Deployment
    caches: Caches
    provider_keys_secret: str
    max_stream_s: int
    region: str
    usage_kept_s: int

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "ChatSettings":
        return cls(
            deployment=Deployment.from_env(env),
            caches=Caches.from_env(env),
            provider_keys_secret=_text(env, "PROVIDER_KEYS_SECRET"),
            max_stream_s=_integer(env, "MAX_STREAM_S", 1, 840),
            region=_text(env, "AWS_REGION"),
            usage_kept_s=_usage_kept_s(env),
        )


@dataclass(frozen=True, slots=True)
class SweepSettings:
    deployment: Deployment
    usage_kept_s: int

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "SweepSettings":
        return cls(Deployment.from_env(env), _usage_kept_s(env))


@dataclass(frozen=True, slots=True)
class MeterSettings:
    deployment: Deployment
    rollups_kept_s: int

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "MeterSettings":
        # A sum must outlive the rows that may still come to it.
        days = _integer(env, "ROLLUP_RETENTION_DAYS", 31, 3650)
        return cls(Deployment.from_env(env), days * DAY_S)


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """`key` is the ARN of the KMS key that seals webhooks' secrets."""

    deployment: Deployment
    key: str

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "WebhookSettings":
        return cls(Deployment.from_env(env), _text(env, "KEY_ARN"))


@dataclass(frozen=True, slots=True)
class NotifySettings:
    deployment: Deployment
    queue_url: str

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "NotifySettings":
        return cls(Deployment.from_env(env), _text(env, "DELIVERIES_QUEUE"))


@dataclass(frozen=True, slots=True)
class DeliverSettings:
    """`queue_url` is where deliveries wait, `dead_letters_url` where those are told that were given
    up.
    """

    deployment: Deployment
    key: str
    queue_url: str
    dead_letters_url: str

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "DeliverSettings":
        return cls(
            deployment=Deployment.from_env(env),
            key=_text(env, "KEY_ARN"),
            queue_url=_text(env, "DELIVERIES_QUEUE"),
            dead_letters_url=_text(env, "DEAD_LETTERS_QUEUE"),
        )


@dataclass(frozen=True, slots=True)
class AdminSettings:
    deployment: Deployment
    key: str
    provider_keys_secret: str
    cognito_client_id: str
    session_project: str  # whose users sign in with the stack's user pool

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "AdminSettings":
        return cls(
            deployment=Deployment.from_env(env),
            key=_text(env, "KEY_ARN"),
            provider_keys_secret=_text(env, "PROVIDER_KEYS_SECRET"),
            cognito_client_id=_text(env, "COGNITO_CLIENT_ID"),
            session_project=_text(env, "PROJECT_ID"),
        )


@dataclass(frozen=True, slots=True)
class RotateSettings:
    table_name: str
    next_key_min_age_s: int
    secrets_cached_s: int  # of the token processes

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "RotateSettings":
        return cls(
            table_name=_text(env, "TABLE_NAME"),
            next_key_min_age_s=_integer(env, "NEXT_KEY_MIN_AGE_S", 0, 10**9),
            secrets_cached_s=Caches.from_env(env).secrets_s,
        )


def _usage_kept_s(env: Mapping[str, str]) -> int:
    """No row may go before it was added up, for which the table's stream leaves a day."""
    # CloudFormation cannot multiply: the template's days come as days.
    return _integer(env, "USAGE_RETENTION_DAYS", 7, 3650, default="90") * DAY_S


def _text(env: Mapping[str, str], name: str) -> str:
    value = env.get(name, "").strip()
    if not value:
        raise SettingsError(f"The environment variable {name} is missing or empty.")
    return value


def _integer(
    env: Mapping[str, str], name: str, lowest: int, highest: int, default: str = ""
) -> int:
    text = env.get(name, default).strip() or _text(env, name)
    if not text.isascii() or not text.isdigit() or not lowest <= int(text) <= highest:
        raise SettingsError(f"{name} must be an integer of {lowest} to {highest}, not {text!r}.")
    return int(text)
