"""Paths that are no route, as a page and an SDK meet them, and models whose names have a slash."""

import httpx
import openai
import pytest

from tests.stack.admin import Admin, bearer, model, soon
from tests.stack.conftest import ORIGIN, Stack, ask, envelope

NAME = "openai/gpt-oss-120b"
PATHS = ("/v1/responses", "/chat/completions", "/v1/v1/chat/completions", "/nothing", "/")


@pytest.fixture(scope="module")
def admin(stack: Stack, token: str) -> Admin:
    one = Admin(stack)
    one("PUT", f"models/{NAME}", model("local", "fake-large"))
    soon(lambda: stack.http.get(f"/v1/models/{NAME}", headers=bearer(token)).status_code == 200)
    return one


def preflight(stack: Stack, path: str, origin: str) -> httpx.Response:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-a"}
    return stack.http.options(path, headers={"Origin": origin, **asked})


@pytest.mark.parametrize("path", PATHS)
def test_page_can_read_that_there_is_no_such_route(stack: Stack, path: str) -> None:
    allowed = preflight(stack, path, ORIGIN)
    assert (allowed.status_code, allowed.text) == (204, "")
    assert allowed.headers["access-control-allow-origin"] == ORIGIN
    reply = stack.http.post(path, headers=bearer("any", ORIGIN), json=ask())
    error = envelope(reply, 404, "not_found")
    assert error["details"]["reason"] == "no_such_route"
    assert reply.headers["access-control-allow-origin"] == ORIGIN


@pytest.mark.parametrize("path", ["/v1/responses", "/"])
def test_page_of_nobody_can_read_nothing_of_it(stack: Stack, path: str) -> None:
    envelope(preflight(stack, path, "https://evil.example"), 403, "origin_not_allowed")
    reply = stack.http.post(path, headers={"Origin": "https://evil.example"})
    envelope(reply, 404, "not_found")
    assert "access-control-allow-origin" not in reply.headers


def test_sdk_that_calls_another_api_shows_the_line_to_change(stack: Stack, token: str) -> None:
    url = f"{stack.env['BEHEST_BASE_URL']}/v1"
    with (
        openai.OpenAI(api_key=token, base_url=url, max_retries=0) as client,
        pytest.raises(openai.NotFoundError, match=r"openai\.chat\(id\)"),
    ):
        client.responses.create(model="default", input="hi")


def test_sdk_whose_base_url_lacks_v1_shows_so(stack: Stack, token: str) -> None:
    url = stack.env["BEHEST_BASE_URL"]
    with (
        openai.OpenAI(api_key=token, base_url=url, max_retries=0) as client,
        pytest.raises(openai.NotFoundError, match="must end with /v1, once"),
    ):
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])


@pytest.mark.parametrize(
    ("path", "reason", "word"),
    [
        ("/v1/responses", "no_such_route", "openai.chat(id)"),
        ("/chat/completions?x=1", "no_such_route", "must end with /v1"),
        ("/v1/chat/completions", "allowed", "is allowed"),
    ],
)
def test_cors_doctor_judges_the_path_too(stack: Stack, path: str, reason: str, word: str) -> None:
    reply = stack.http.get("/v1/cors", params={"path": path}, headers={"Origin": ORIGIN})
    told = reply.json()
    assert (told["allowed"], told["reason"]) == (True, reason)
    assert word in told["message"]


@pytest.mark.parametrize("written", [NAME, NAME.replace("/", "%2F"), NAME.replace("/", "%2f")])
def test_model_with_a_slash_in_its_name_is_found_however_it_is_written(
    stack: Stack, admin: Admin, token: str, written: str
) -> None:
    assert admin("GET", f"models/{written}")["candidates"][0]["model"] == "fake-large"
    reply = stack.http.get(f"/v1/models/{written}", headers=bearer(token))
    assert reply.json()["id"] == NAME
    reply = stack.http.post("/v1/chat/completions", headers=bearer(token), json=ask(model=written))
    assert reply.status_code == 200, reply.text
