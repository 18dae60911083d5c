"""What a function sees of a request, and what the client sees of its answer."""

import json
from typing import Any

import pytest

from local import events
from local.events import BadAnswer, Place, Request
from local.template import Route

PLACE = Place("000000000000", "abc123", "live", "us-east-1", "dep1")
REQUEST_ID = "3f1e0b0a-0000-4000-8000-123456789abc"


def route(path: str = "/v1/a", method: str = "POST") -> Route:
    return Route(method, path, "F", False, 29.0, None, ())


def request(**changes: Any) -> Request:
    told: dict[str, Any] = {
        "method": "POST",
        "path": "/v1/a",
        "query": "",
        "headers": [],
        "source_ip": "127.0.0.1",
        "request_id": REQUEST_ID,
        "received": 1_795_247_755.25,
    }
    return Request(**{**told, **changes})


def test_the_smallest_request_makes_the_whole_event() -> None:
    assert events.event(request(), route(), {}, None, b"", PLACE) == {
        "resource": "/v1/a",
        "path": "/v1/a",
        "httpMethod": "POST",
        "headers": {
            "X-Amzn-Trace-Id": "Root=1-6b014e8b-3f1e0b0a0000400080001234",
            "X-Forwarded-For": "127.0.0.1",
            "X-Forwarded-Port": "443",
            "X-Forwarded-Proto": "https",
        },
        "multiValueHeaders": {
            "X-Amzn-Trace-Id": ["Root=1-6b014e8b-3f1e0b0a0000400080001234"],
            "X-Forwarded-For": ["127.0.0.1"],
            "X-Forwarded-Port": ["443"],
            "X-Forwarded-Proto": ["https"],
        },
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "pathParameters": None,
        "stageVariables": None,
        "requestContext": {
            "accountId": "000000000000",
            "apiId": "abc123",
            "deploymentId": "dep1",
            "domainName": "abc123.execute-api.us-east-1.amazonaws.com",
            "domainPrefix": "abc123",
            "extendedRequestId": "3f1e0b0a000FCoAMEV0w=",
            "httpMethod": "POST",
            "identity": {
                "accessKey": None,
                "accountId": None,
                "caller": None,
                "cognitoAuthenticationProvider": None,
                "cognitoAuthenticationType": None,
                "cognitoIdentityId": None,
                "cognitoIdentityPoolId": None,
                "principalOrgId": None,
                "sourceIp": "127.0.0.1",
                "user": None,
                "userAgent": None,
                "userArn": None,
            },
            "path": "/live/v1/a",
            "protocol": "HTTP/1.1",
            "requestId": REQUEST_ID,
            "requestTime": "21/Nov/2026:07:55:55 +0000",
            "requestTimeEpoch": 1_795_247_755_250,
            "resourceId": events.event(request(), route(), {}, None, b"", PLACE)["requestContext"][
                "resourceId"
            ],
            "resourcePath": "/v1/a",
            "stage": "live",
        },
        "body": None,
        "isBase64Encoded": False,
    }


def test_a_full_request_keeps_spelling_repeats_and_text() -> None:
    headers = [
        ("Host", "127.0.0.1:9347"),
        ("User-Agent", "curl/8"),
        ("X-Twice", "one"),
        ("x-twice", "two"),
        ("X-Forwarded-For", "203.0.113.9"),
        ("Content-Length", "9"),
        ("Connection", "keep-alive"),
    ]
    told = events.event(
        request(headers=headers, query="a=1&a=2%20x&b=&c+d=%7C"),
        route("/v1/{id}"),
        {"id": "a/b"},
        {"sub": "s"},
        "grüß".encode() + b"\xff",
        PLACE,
    )
    assert told["headers"]["X-Twice"] == "two"
    assert told["multiValueHeaders"]["X-Twice"] == ["one", "two"]
    assert told["headers"]["X-Forwarded-For"] == "203.0.113.9, 127.0.0.1"
    assert {"Content-Length", "Connection"}.isdisjoint(told["headers"])
    assert told["queryStringParameters"] == {"a": "2 x", "b": "", "c d": "|"}
    assert told["multiValueQueryStringParameters"] == {"a": ["1", "2 x"], "b": [""], "c d": ["|"]}
    assert told["pathParameters"] == {"id": "a/b"}
    assert told["requestContext"]["authorizer"] == {"claims": {"sub": "s"}}
    assert told["requestContext"]["identity"]["userAgent"] == "curl/8"
    assert told["body"] == "grüß\ufffd"


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        ("/a?b=c?d", ("/a", "b=c?d")),
        ("/a", ("/a", "")),
        ("http://host:1/a/b?c", ("/a/b", "c")),
        ("http://host", ("/", "")),
        ("*", ("/*", "")),
    ],
)
def test_every_form_of_a_request_target_has_a_path(target: str, parts: tuple[str, str]) -> None:
    assert events.split_target(target) == parts


@pytest.mark.parametrize(
    ("path", "resource", "parameters"),
    [
        ("/v1/models", "/v1/models", {}),
        ("/v1/other", "/v1/{id}", {"id": "other"}),
        ("/v1/a%2Fb", "/v1/{id}", {"id": "a/b"}),
        ("/v1/a%20b", "/v1/{id}", {"id": "a b"}),
        ("/v1/a/b", "/v1/{rest+}", {"rest": "a/b"}),
        ("/v1/", None, {}),
        ("/v1", None, {}),
        ("/v1/models/", "/v1/{rest+}", {"rest": "models/"}),
        ("//v1/models", None, {}),
    ],
)
def test_the_most_literal_route_wins(
    path: str, resource: str | None, parameters: dict[str, str]
) -> None:
    routes = tuple(route(one, "GET") for one in ("/v1/{rest+}", "/v1/{id}", "/v1/models"))
    found = events.match(path, routes).get("GET")
    assert (found[0].path, found[1]) == (resource, parameters) if found else resource is None


def test_a_resource_without_the_method_does_not_fall_back_to_a_wider_one() -> None:
    routes = (route("/v1/{rest+}", "OPTIONS"), route("/v1/models", "GET"))
    assert "OPTIONS" not in events.match("/v1/models", routes)
    assert "OPTIONS" in events.match("/v1/else", routes)


def test_an_answer_becomes_status_headers_and_body() -> None:
    answer = {
        "statusCode": 401,
        "headers": {"Content-Type": "text/plain", "X-N": 3, "Set-Cookie": "lost"},
        "multiValueHeaders": {"set-cookie": ["a=1", "b=2"]},
        "body": "nö",
    }
    status, headers, body = events.buffered_answer(json.dumps(answer).encode())
    assert status == 401
    assert headers == [
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("Content-Type", "text/plain"),
        ("X-N", "3"),
    ]
    assert body == "nö".encode()


def test_headers_that_api_gateway_keeps_for_itself_are_renamed() -> None:
    told = {
        "statusCode": 401,
        "headers": {"WWW-Authenticate": "Bearer", "Date": "now", "Vary": "O"},
    }
    _, headers = events.status_and_headers(told)
    assert headers == [
        ("x-amzn-Remapped-WWW-Authenticate", "Bearer"),
        ("x-amzn-Remapped-Date", "now"),
        ("Vary", "O"),
    ]


def test_a_body_in_base64_is_handed_on_as_it_is() -> None:
    told = b'{"statusCode":200,"body":"aGk=","isBase64Encoded":true}'
    assert events.buffered_answer(told)[2] == b"aGk="


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"text",
        b"null",
        b"[]",
        b'"text"',
        b'{"statusCode":"abc"}',
        b'{"statusCode":99}',
        b'{"statusCode":600}',
        b'{"statusCode":true}',
        b'{"statusCode":200,"body":{}}',
        b'{"statusCode":200,"headers":[]}',
        b'{"statusCode":200,"headers":{"a b":"c"}}',
        b'{"statusCode":200,"headers":{"a":"b\\r\\nc: d"}}',
        b'{"statusCode":200,"headers":{"a":["b"]}}',
        b'{"statusCode":200,"multiValueHeaders":{"a":"b"}}',
        b'{"statusCode":200,"stausCode":200}',
    ],
)
def test_a_malformed_answer_is_refused(payload: bytes) -> None:
    with pytest.raises(BadAnswer):
        events.buffered_answer(payload)
