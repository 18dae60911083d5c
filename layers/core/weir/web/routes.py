"""Routes: which there are, and which one a caller of another path probably meant.

API Gateway sends every path without a route of its own to the preflight function, which answers 404
with what is said here. SDKs differ in the paths they call and in the base URL they want, so most
such calls need one line of the caller's code changed: the answer names it.

Standard library only: the preflight function has nothing else.
"""

from collections.abc import Sequence
from typing import NamedTuple

from weir.errors import NotFound

MOST_REPEATED = 200  # characters of a path that an answer repeats
_MOST_SEGMENTS = 12  # that are looked at: a stranger's path may have thousands


class Route(NamedTuple):
    method: str
    path: str

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


CHAT = Route("POST", "/v1/chat/completions")
MODELS = Route("GET", "/v1/models")

# As in template.yaml; a test compares the two.
ROUTES = (
    CHAT,
    Route("POST", "/v1/chat/completions/{id}/cancel"),
    Route("POST", "/v1/embeddings"),
    Route("POST", "/v1/moderations"),
    MODELS,
    Route("GET", "/v1/models/{name+}"),
    Route("GET", "/v1/threads"),
    Route("DELETE", "/v1/threads"),
    Route("GET", "/v1/threads/{id+}"),
    Route("PATCH", "/v1/threads/{id+}"),
    Route("DELETE", "/v1/threads/{id+}"),
    Route("GET", "/v1/me"),
    Route("GET", "/v1/usage"),
    Route("GET", "/v1/billing/usage"),
    Route("POST", "/v1/customers"),
    Route("GET", "/v1/customers"),
    Route("GET", "/v1/customers/{ref}"),
    Route("PUT", "/v1/customers/{ref}"),
    Route("PATCH", "/v1/customers/{ref}"),
    Route("POST", "/v1/customers/{ref}"),
    Route("DELETE", "/v1/customers/{ref}"),
    Route("POST", "/v1/customers/{ref}/client_tokens"),
    Route("GET", "/v1/customers/{ref}/client_tokens"),
    Route("DELETE", "/v1/customers/{ref}/client_tokens"),
    Route("DELETE", "/v1/customers/{ref}/client_tokens/{id}"),
    Route("GET", "/v1/customers/{ref}/usage"),
    Route("POST", "/v1/client_tokens"),
    Route("DELETE", "/v1/client_tokens/{id}"),
    Route("POST", "/v1/webhook_endpoints"),
    Route("GET", "/v1/webhook_endpoints"),
    Route("GET", "/v1/webhook_endpoints/{id}"),
    Route("PATCH", "/v1/webhook_endpoints/{id}"),
    Route("DELETE", "/v1/webhook_endpoints/{id}"),
    Route("POST", "/v1/webhook_endpoints/{id}/rotate_secret"),
    Route("POST", "/v1/webhook_endpoints/{id}/test"),
    Route("GET", "/v1/webhook_endpoints/{id}/deliveries"),
    Route("POST", "/v1/webhook_endpoints/{id}/replay"),
    Route("GET", "/v1/cors"),
    Route("POST", "/v1/auth/mint"),
    Route("POST", "/auth/v1/auth/mint"),
    Route("POST", "/v1/auth/revoke"),
    Route("POST", "/api/behest/token"),
    Route("POST", "/v1/token"),
    Route("GET", "/.well-known/jwks.json"),
    Route("GET", "/auth/.well-known/jwks.json"),
    Route("ANY", "/admin/v1/{proxy+}"),
    Route("ANY", "/v1/projects/{pid}/tiers"),
    Route("ANY", "/v1/projects/{pid}/tiers/{proxy+}"),
)

_BASE_URL = "The SDK's base URL (baseURL, base_url) must end with /v1, once."
_SLASHES = "Write it without the additional slash."
_NOT_RELAYED = (
    "Weir relays chats, embeddings and moderations only: call the provider for this from your "
    "server."
)
_STATE = (
    "Weir keeps no such objects: send the messages with each request to POST /v1/chat/completions."
)

# What SDKs call besides chat completions, by the first segment after /v1: which route serves
# instead, and what to change.
_INSTEAD: dict[str, tuple[Route | None, str]] = {
    "responses": (
        CHAT,
        "Make the SDK use chat completions: openai.chat(id) with the AI SDK, openai-chat:… as the "
        'model with pydantic-ai, set_default_openai_api("chat_completions") with OpenAI Agents; '
        "with LangChain use_responses_api=False, and neither reasoning= nor include=.",
    ),
    "completions": (
        CHAT,
        "Make the SDK use chat completions: is_chat_model=True with LlamaIndex's OpenAILike, "
        "client.chat.completions.create with OpenAI's SDKs.",
    ),
    "messages": (
        CHAT,
        "This is Anthropic's API. Use the SDK's OpenAI-compatible provider.",
    ),
    "engines": (CHAT, "Name the model in the body."),
    "assistants": (CHAT, _STATE),
    "conversations": (CHAT, _STATE),
    "vector_stores": (None, _NOT_RELAYED),
    "images": (None, _NOT_RELAYED),
    "audio": (None, _NOT_RELAYED),
    "videos": (None, _NOT_RELAYED),
    "realtime": (None, _NOT_RELAYED),
    "rerank": (None, _NOT_RELAYED),
    "files": (None, _NOT_RELAYED),
    "uploads": (None, _NOT_RELAYED),
    "batches": (None, _NOT_RELAYED),
    "fine_tuning": (None, _NOT_RELAYED),
}


def is_route(path: str) -> bool:
    """Return whether some method has this path."""
    return _route(path.split("/", _MOST_SEGMENTS)) is not None


def no_such_route(method: str, path: str) -> NotFound:
    """Return the 404 of a path that is no route. `method` is empty if it is not known."""
    route, advice = _meant([part for part in path.split("/", _MOST_SEGMENTS) if part])
    called = f"{method} {path[:MOST_REPEATED]}".strip()
    message = f"There is no route {called}."
    details = {"reason": "no_such_route"}
    if route is not None:
        message += f" Use {route}."
        details["route"] = str(route)
    return NotFound(f"{message} {advice}".strip(), details=details)


def _meant(segments: Sequence[str]) -> tuple[Route | None, str]:
    """Return the route that was probably meant, and what to change."""
    if (route := _route(["", *segments])) is not None:
        return route, _SLASHES
    for start in range(len(segments)):
        for base in ([""], ["", "v1"]):
            if (route := _route([*base, *segments[start:]])) is not None:
                return route, _BASE_URL if route.path.startswith("/v1/") else ""
    lasts = [at for at, part in enumerate(segments) if part == "v1"]
    rest = list(segments[lasts[-1] + 1 :]) if lasts else list(segments)
    if rest and rest[0] in _INSTEAD:
        return _INSTEAD[rest[0]]
    if not rest or rest[0] == "chat":
        return CHAT, _BASE_URL
    return None, "The routes are listed in Weir's docs/routes.md."


def _route(segments: Sequence[str]) -> Route | None:
    return next((each for each in ROUTES if _matches(each.path.split("/"), segments)), None)


def _matches(pattern: Sequence[str], segments: Sequence[str]) -> bool:
    for at, part in enumerate(pattern):
        if part.endswith("+}"):
            return any(segments[at:])
        if at >= len(segments) or not (part == segments[at] or (part[:1] == "{" and segments[at])):
            return False
    return len(pattern) == len(segments)
