"""Describe what the gateway answers. Fields that a later gateway adds are kept, too."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Answer(BaseModel):
    """Accept and keep unknown fields, so that a newer gateway needs no newer client."""

    model_config = ConfigDict(extra="allow")


class Token(Answer):
    """A short-lived token for one user. Its repr does not show the token.

    Attributes:
        ttl: Its lifetime in seconds.
        expires_at: When it ends, in Unix seconds by the signer's clock.
    """

    model_config = ConfigDict(extra="ignore")  # mint repeats the token under other names

    token: str = Field(repr=False)
    ttl: int
    expires_at: int
    session_id: str
    project_id: str
    tenant_id: str | None = None
    token_type: str = "Bearer"  # noqa: S105 (no password)


class LimitState(Answer):
    """One limit of a user. `resets_at` is in Unix seconds."""

    limit_name: str
    limit: float
    used: float
    left: float
    resets_at: int | None = None


class Budget(Answer):
    """What is left of a monthly budget, in USD."""

    limit_usd: float
    spent_usd: float
    remaining_usd: float
    reserved_usd: float = 0
    resets_at: int | None = None


class Me(Answer):
    """A user's limits, and what is left of them."""

    user_id: str
    project_id: str
    tier: str | int | None = None
    limits: list[LimitState] = []
    budget: Budget | None = None
    rate_limit: dict[str, Any] | None = None


class Thread(Answer):
    """A stored conversation. Times are ISO 8601 in UTC."""

    id: str
    title: str | None = None
    created_at: str
    updated_at: str
    last_message_at: str | None = None
    messages_count: int = 0
    session_id: str | None = None
    tokens: int = 0
    cost_usd: float = 0


class ThreadMessage(Answer):
    """One message of a thread. `parts` is there if the message had any."""

    id: str
    role: str
    content: str
    created_at: str
    parts: list[dict[str, Any]] | None = None
    model: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    usage: dict[str, Any] | None = None
    finish_reason: str | None = None


class ThreadExport(Answer):
    """A whole thread."""

    thread: Thread
    messages: list[ThreadMessage]


class UsageSums(Answer):
    """What some requests took together. Costs are in USD."""

    requests: int
    failed: int = 0
    estimated: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    tokens: int = 0
    cost_usd: float = 0


class UsageInterval(UsageSums):
    """The sums of one day, hour or minute."""

    timestamp: str


class UsageGroup(UsageSums):
    """The sums of one user, model, session, thread, tag or day. `key` is None for those without."""

    key: str | None = None


class Usage(Answer):
    """What was used in a window of time. Continue with `cursor=next_cursor` if `has_more`."""

    totals: UsageSums
    breakdown: list[UsageInterval] = []
    data: list[UsageGroup] = []
    has_more: bool = False
    next_cursor: str | None = None


class Customer(Answer):
    """An end user with a budget of their own. Times are Unix seconds."""

    id: str
    external_id: str
    name: str | None = None
    metadata: dict[str, Any] = {}
    status: str = "active"
    budget_usd: float | None = None
    spend_usd_mtd: float = 0
    budget_resets_at: int | None = None
    rate_limit_rpm: int | None = None
    rate_limit_tpm: int | None = None
    max_output_tokens: int | None = None
    allowed_models: list[str] | None = None
    created_at: int
    updated_at: int


class ClientToken(Answer):
    """A new token for one page of a customer. Its repr does not show the token."""

    model_config = ConfigDict(extra="allow")

    id: str
    token: str = Field(repr=False)
    jwt: str | None = Field(default=None, repr=False)
    expires_at: int
    expires_in: int | None = None


class ClientTokenRecord(Answer):
    """What is kept of a client token; the token itself is not."""

    id: str
    expires_at: int


class WebhookEndpoint(Answer):
    """An address that is called on events. `secret` is only there when it is new."""

    id: str
    url: str
    events: list[str]
    description: str | None = None
    enabled: bool = True
    secret: str | None = Field(default=None, repr=False)


class WebhookEvent(Answer):
    """An event of a webhook. The same `id` may come twice: ignore the second."""

    id: str
    type: str
    created_at: int
    data: dict[str, Any] = {}
