"""The edge of the doors that Powertools routes, with routes of its own."""

import io
import json
from types import SimpleNamespace
from typing import Any

import pytest
from aws_lambda_powertools.event_handler import Response

from weir.aws import edge as edges
from weir.aws.edge import Edge
from weir.aws.lean import AwsError
from weir.errors import LimitReached
from weir.web.origins import Origins
from weir.web.request import Request

PAGE = "https://app.example.com"
RAISED: dict[str, Exception] = {
    "refused": LimitReached("Too fast.", retry_after_s=7),
    "store": AwsError("a secret of ours", 500, "InternalServerError"),
    "bug": ZeroDivisionError("a secret of ours"),
}


@pytest.fixture
def edge(monkeypatch: pytest.MonkeyPatch) -> Edge:
    made = Edge(
        "test",
        lambda: Origins(frozenset({PAGE})),
        not_found="No such route.",
        too_long="Too long.",
        names_under={"/models/": ()},
    )
    monkeypatch.setattr(made.logger.handlers[0], "stream", io.StringIO())

    @made.app.get("/json")
    def as_json() -> dict[str, Any]:
        return {"origin": made.request.origin}

    @made.app.get("/models/<name>")
    def model(name: str) -> str:
        return name

    @made.app.get("/csv")
    def as_csv() -> Response[str]:
        return Response(200, "text/csv", "a,b", {"Cache-Control": "public", "X-More": "1"})

    @made.app.get("/nothing")
    def nothing() -> Response[None]:
        return Response(204)

    @made.app.get("/raises/<name>")
    def raises(name: str) -> None:
        raise RAISED[name]

    @made.app.get("/unspeakable")
    def unspeakable() -> dict[str, Any]:
        return {"that JSON cannot say": object()}

    return made


def get(edge: Edge, path: str, *admit: Any) -> tuple[int, Any, dict[str, str]]:
    """Return status, body and headers of the answer to a page."""
    event = {
        "httpMethod": "GET",
        "path": path,
        "headers": {"Origin": PAGE, "Content-Type": "text/plain"},
        "multiValueHeaders": {"Origin": [PAGE], "Content-Type": ["text/plain"]},
        "requestContext": {"requestId": "req-1", "httpMethod": "GET", "resourcePath": path},
        "body": None,
    }
    answer = edge.resolve(event, SimpleNamespace(), *admit)
    headers = {name: value for name, (value,) in answer["multiValueHeaders"].items()}
    assert headers["X-Request-Id"] == headers["X-Trace-Id"] == "req-1"
    assert headers["Access-Control-Allow-Origin"] == PAGE
    return answer["statusCode"], answer["body"], headers


def logged(edge: Edge) -> list[dict[str, Any]]:
    lines = edge.logger.handlers[0].stream.getvalue().splitlines()  # type: ignore[attr-defined]
    return [json.loads(line) for line in lines]


def test_value_of_a_route_is_compact_json_and_the_request_keeps_its_headers(edge: Edge) -> None:
    status, body, headers = get(edge, "/json")
    assert (status, body) == (200, f'{{"origin":"{PAGE}"}}')
    assert headers["Content-Type"] == "application/json"
    assert headers["Cache-Control"] == "no-store"
    assert logged(edge) == []


def test_route_may_choose_its_own_headers(edge: Edge) -> None:
    status, body, headers = get(edge, "/csv")
    assert (status, body, headers["Content-Type"]) == (200, "a,b", "text/csv")
    assert (headers["Cache-Control"], headers["X-More"]) == ("public", "1")


def test_answer_without_a_body_has_the_headers_too(edge: Edge) -> None:
    assert get(edge, "/nothing")[:2] == (204, None)


@pytest.mark.parametrize(
    ("path", "status", "code", "lines"),
    [
        ("/raises/refused", 429, "rate_limited", ["refused"]),
        ("/raises/store", 503, "store_unavailable", ["failed", "refused"]),
        ("/raises/bug", 500, "server_error", ["failed", "refused"]),
        ("/unspeakable", 500, "server_error", ["failed", "refused"]),
        ("/elsewhere", 404, "not_found", ["refused"]),
    ],
)
def test_whatever_is_raised_becomes_the_one_envelope_and_is_logged(
    edge: Edge, path: str, status: int, code: str, lines: list[str]
) -> None:
    got, body, headers = get(edge, path)
    assert (got, json.loads(body)["error"]["code"]) == (status, code)
    assert headers["Content-Type"] == "application/json"
    assert headers.get("Retry-After") == {429: "7", 503: "1"}.get(status)
    assert "secret" not in body
    seen = logged(edge)
    assert [line["message"] for line in seen] == lines
    assert {line["request_id"] for line in seen} == {"req-1"}
    assert (seen[-1]["status"], seen[-1]["code"]) == (status, code)
    if lines[0] == "failed":
        assert "Error" in seen[0]["exception"], "the cause is in the log, and only there"


def test_unknown_route_is_said_in_the_words_of_the_door(edge: Edge) -> None:
    assert json.loads(get(edge, "/elsewhere")[1])["message"] == "No such route."


def test_answer_that_lambda_would_not_take_is_a_413(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = get(edge, "/json")[1]
    monkeypatch.setattr(edges, "MAX_ANSWER_BYTES", len(body))
    assert get(edge, "/json")[0] == 200
    monkeypatch.setattr(edges, "MAX_ANSWER_BYTES", len(body) - 1)
    status, body, _ = get(edge, "/json")
    assert (status, json.loads(body)["message"]) == (413, "Too long.")


@pytest.mark.parametrize(("name", "status"), [("refused", 429), ("bug", 500)])
def test_no_route_sees_a_request_that_is_not_admitted(edge: Edge, name: str, status: int) -> None:
    def admit(request: Request) -> None:
        assert request.request_id == "req-1"
        raise RAISED[name]

    for path in ("/json", "/elsewhere"):
        got, body, _ = get(edge, path, admit)
        assert got == status
        assert PAGE not in body


def test_page_that_may_not_read_it_gets_no_cors_header() -> None:
    closed = Edge("test", Origins)
    event = {
        "httpMethod": "GET",
        "path": "/",
        "headers": {"Origin": PAGE},
        "requestContext": {"requestId": "req-1", "httpMethod": "GET", "resourcePath": "/"},
    }
    answer = closed.resolve(event, SimpleNamespace())
    assert answer["statusCode"] == 404
    assert "Access-Control-Allow-Origin" not in answer["multiValueHeaders"]


@pytest.mark.parametrize("written", ["a/b/c", "a%2Fb%2Fc", "a/b%2Fc"])
def test_models_name_reaches_its_route_whole_however_its_slashes_are_written(
    edge: Edge, written: str
) -> None:
    status, body, _ = get(edge, f"/models/{written}")
    assert (status, body) == (200, "a%2Fb%2Fc")
    assert get(edge, "/raises/a/b")[0] == 404, "of models only"
