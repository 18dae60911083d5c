"""What a caller of a path that is no route reads: which one is meant, and what to change."""

import time

import pytest

from weir.web import routes
from weir.web.routes import CHAT, MODELS


@pytest.mark.parametrize(
    ("path", "route", "advice"),
    [
        # The paths that published SDKs call, with the base URLs that people give them.
        ("/v1/responses", CHAT, "openai.chat(id) with the AI SDK"),
        ("/v1/responses", CHAT, "openai-chat:"),
        ("/v1/responses", CHAT, 'set_default_openai_api("chat_completions")'),
        ("/v1/responses", CHAT, "neither reasoning= nor include="),
        ("/responses", CHAT, "openai.chat(id)"),
        ("/v1/responses/resp_1/cancel", CHAT, "openai.chat(id)"),
        ("/live/v1/responses", CHAT, "openai.chat(id)"),
        ("/v1/completions", CHAT, "is_chat_model=True"),
        ("/completions", CHAT, "is_chat_model=True"),
        ("/v1/messages", CHAT, "OpenAI-compatible provider"),
        ("/v1/images/generations", None, "from your server"),
        ("/chat/completions", CHAT, "must end with /v1, once"),
        ("/v1/v1/chat/completions", CHAT, "must end with /v1, once"),
        ("/v1/chat/completions/chat/completions", CHAT, "must end with /v1, once"),
        ("/live/v1/chat/completions", CHAT, "must end with /v1, once"),
        ("/openai/deployments/gpt-4o/chat/completions", CHAT, "must end with /v1, once"),
        ("/models", MODELS, "must end with /v1, once"),
        ("/", CHAT, "must end with /v1, once"),
        ("/v1", CHAT, "must end with /v1, once"),
        ("/v1/chat", CHAT, "must end with /v1, once"),
        ("/v1/chat/completions/", CHAT, "without the additional slash"),
        ("//v1/chat/completions", CHAT, "without the additional slash"),
        ("/v1/.well-known/jwks.json", "GET /.well-known/jwks.json", ""),
        ("/v1/api/behest/token", "POST /api/behest/token", ""),
        ("/models/openai/gpt-oss-120b", "GET /v1/models/{name+}", "must end with /v1, once"),
        ("/favicon.ico", None, "docs/routes.md"),
        ("/wp-login.php", None, "docs/routes.md"),
    ],
)
def test_unknown_path_is_answered_with_the_route_that_is_meant(
    path: str, route: object, advice: str
) -> None:
    assert not routes.is_route(path)
    refusal = routes.no_such_route("POST", path)
    assert (refusal.status, refusal.code) == (404, "not_found")
    assert refusal.message.startswith(f"There is no route POST {path}. ")
    assert advice in refusal.message
    assert refusal.details["reason"] == "no_such_route"
    assert refusal.details.get("route") == (str(route) if route else None)
    assert "authenti" not in refusal.message.lower()


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions",
        "/v1/chat/completions/chatcmpl-1/cancel",
        "/v1/models",
        "/v1/models/gpt-4o-mini",
        "/v1/models/openai/gpt-oss-120b",
        "/v1/models/openai%2Fgpt-oss-120b",
        "/.well-known/jwks.json",
        "/admin/v1/projects/shop/keys",
        "/v1/projects/shop/tiers",
        "/v1/projects/shop/tiers/4/resolved",
    ],
)
def test_path_of_a_route_is_known_as_one(path: str) -> None:
    assert routes.is_route(path)


@pytest.mark.parametrize("path", ["", "/", "/v1/models/", "/v1/chat/completions//cancel", "/x"])
def test_path_that_only_begins_like_a_route_is_none(path: str) -> None:
    assert not routes.is_route(path)


@pytest.mark.parametrize(
    "path", ["/a" * 5_000, "/" * 10_000, "/v1/models" * 1_000, "/" + "x" * 9_999]
)
def test_long_path_costs_little_and_is_not_repeated_whole(path: str) -> None:
    began = time.process_time()
    refusal = routes.no_such_route("GET", path)
    assert time.process_time() - began < 0.05
    assert len(refusal.message) < 1_000
