"""Call a Weir gateway from a server: mint tokens for pages, chat for users, manage customers.

    from weir_client import Weir

    weir = Weir()  # reads WEIR_KEY and WEIR_BASE_URL
    token = weir.auth.mint(user_id="u_42")
    answer = weir.chat.completions.create(
        user_id="u_42", messages=[{"role": "user", "content": "Hello"}]
    )

`AsyncWeir` is the same, awaited.
"""

from weir_client import webhooks
from weir_client._async.chat import AsyncStream
from weir_client._async.client import AsyncWeir
from weir_client._errors import (
    AuthenticationError,
    BadRequest,
    BudgetExceeded,
    Cancelled,
    ConfigurationError,
    Conflict,
    ConnectionFailed,
    InvalidSignature,
    NotFound,
    PermissionDeniedError,
    RateLimited,
    RequestTimeout,
    StreamCut,
    Unavailable,
    WeirError,
)
from weir_client._models import (
    Budget,
    ClientToken,
    ClientTokenRecord,
    Customer,
    LimitState,
    Me,
    Thread,
    ThreadExport,
    ThreadMessage,
    Token,
    Usage,
    UsageGroup,
    UsageInterval,
    UsageSums,
    WebhookEndpoint,
    WebhookEvent,
)
from weir_client._sync.chat import Stream
from weir_client._sync.client import Weir
from weir_client._transport import VERSION as __version__

__all__ = [
    "AsyncStream",
    "AsyncWeir",
    "AuthenticationError",
    "BadRequest",
    "Budget",
    "BudgetExceeded",
    "Cancelled",
    "ClientToken",
    "ClientTokenRecord",
    "ConfigurationError",
    "Conflict",
    "ConnectionFailed",
    "Customer",
    "InvalidSignature",
    "LimitState",
    "Me",
    "NotFound",
    "PermissionDeniedError",
    "RateLimited",
    "RequestTimeout",
    "Stream",
    "StreamCut",
    "Thread",
    "ThreadExport",
    "ThreadMessage",
    "Token",
    "Unavailable",
    "Usage",
    "UsageGroup",
    "UsageInterval",
    "UsageSums",
    "WebhookEndpoint",
    "WebhookEvent",
    "Weir",
    "WeirError",
    "__version__",
    "webhooks",
]
