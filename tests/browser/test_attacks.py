"""A page that has nothing to do with Weir is open in the developer's browser while `make run` runs,
and tries every port.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Page

from tests.stack.conftest import Stack
from tests.stack.store import chat_processes

CANARIES = ("provider-secret-key", "PRIVATE KEY", "IdToken", "SecretString", "signing")
SCOPE = "20260101/us-east-1/{service}/aws4_request"
HEADER = "AWS4-HMAC-SHA256 Credential=test/{scope}, SignedHeaders=host, Signature=" + "0" * 64


class Blank(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>elsewhere</title>")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def attacker(page: Page) -> Iterator[Page]:
    """A page of an origin that no project lists."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Blank) as server:
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        page.goto(f"http://localhost:{server.server_port}/")
        yield page
        server.shutdown()


def reads(page: Page, url: str, **how: Any) -> str:
    """What the page's script gets to see: status and text, or that it may not."""
    script = """async ([url, how]) => {
        try { const reply = await fetch(url, how); return `${reply.status} ${await reply.text()}`; }
        catch (error) { return `blocked: ${error}`; }
    }"""
    return str(page.evaluate(script, [url, how]))


def json_call(target: str, body: object, **headers: str) -> dict[str, Any]:
    asked = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": target, **headers}
    return {"method": "POST", "headers": asked, "body": json.dumps(body)}


def believed(service: str) -> dict[str, str]:
    """A query with the key id that ministack believes, and any signature."""
    return {
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"test/{SCOPE.format(service=service)}",
        "X-Amz-Date": "20260101T000000Z",
        "X-Amz-Expires": "900",
        "X-Amz-SignedHeaders": "host",
        "X-Amz-Signature": "0" * 64,
    }


def test_a_strange_page_reads_no_secret(attacker: Page, stack: Stack) -> None:
    aws = stack.env["COGNITO_ENDPOINT"]
    secrets = {value for name, value in stack.outputs().items() if name.endswith("SecretArn")}
    assert len(secrets) == 2
    authorization = HEADER.format(scope=SCOPE.format(service="secretsmanager"))
    query = urlencode(believed("secretsmanager"))
    for secret in secrets:
        call = ("secretsmanager.GetSecretValue", {"SecretId": secret})
        for seen in (
            reads(attacker, f"{aws}/", **json_call(*call, Authorization=authorization)),
            reads(attacker, f"{aws}/?{query}", **json_call(*call)),
            reads(attacker, f"{aws}/?{query.replace('X-', '%58-')}", **json_call(*call)),
            reads(attacker, f"{aws}/?AWSAccessKeyId=test&Signature=x", **json_call(*call)),
            reads(attacker, f"{aws}/", **json_call(*call)),
        ):
            assert not any(canary in seen for canary in CANARIES)
            assert seen.startswith("blocked: ")


def test_nor_does_it_read_anything_else_there(attacker: Page, stack: Stack) -> None:
    aws, pool = stack.env["COGNITO_ENDPOINT"], stack.env["COGNITO_USER_POOL_ID"]
    paths = ("/_ministack/health", "/_aws/sqs/messages", f"/{pool}/.well-known/jwks.json")
    credentials = {
        "ClientId": stack.env["COGNITO_CLIENT_ID"],
        "AuthFlow": "USER_PASSWORD_AUTH",
        "AuthParameters": {
            "USERNAME": stack.env["DEMO_EMAIL"],
            "PASSWORD": stack.env["DEMO_PASSWORD"],
        },
    }
    sign_in = json_call("AWSCognitoIdentityProviderService.InitiateAuth", credentials)
    assert reads(attacker, f"{aws}/", **sign_in).startswith("blocked: ")
    for path in paths:
        assert reads(attacker, aws + path).startswith("blocked: ")


def test_nor_does_it_change_anything_there_unseen(attacker: Page, stack: Stack) -> None:
    """Of a request without CORS the page sees no answer, but it is carried out."""
    aws = stack.env["COGNITO_ENDPOINT"]
    create = {"Action": "CreateUser", "Version": "2010-05-08"}
    query = urlencode(believed("iam") | create | {"UserName": "by-query"})
    for method in ("GET", "POST"):
        reads(attacker, f"{aws}/?{query}", method=method, mode="no-cors")
    form = create | {"UserName": "by-form"} | believed("iam")
    attacker.evaluate(
        """([url, fields]) => new Promise(done => {
            const frame = document.createElement("iframe");
            frame.name = "elsewhere";
            document.body.append(frame);
            const form = document.createElement("form");
            Object.assign(form, {method: "post", action: url, target: "elsewhere"});
            for (const [name, value] of Object.entries(fields))
                form.append(Object.assign(document.createElement("input"), {name, value}));
            document.body.append(form);
            frame.onload = done;
            form.submit();
        })""",
        [f"{aws}/?{urlencode(believed('iam'))}", form],
    )
    assert stack.aws("iam").list_users()["Users"] == []
    assert stack.outputs(), "still there"


def test_it_cannot_pass_for_a_functions_runtime(attacker: Page, stack: Stack) -> None:
    addresses = {runtime_api(pid) for pid in chat_processes(stack)}
    assert addresses
    for address in addresses:
        for how in ({"method": "POST", "body": "{}"}, {"method": "GET"}):
            path = "init/error" if how["method"] == "POST" else "invocation/next"
            url = f"http://{address}/2018-06-01/runtime/{path}"
            with attacker.expect_response(url) as answered:
                reads(attacker, url, mode="no-cors", **how)
            assert answered.value.status == 403
            assert answered.value.headers["content-type"] == "text/plain"


def runtime_api(pid: int) -> str:
    environ = Path(f"/proc/{pid}/environ").read_text().split("\0")
    (address,) = (each for each in environ if each.startswith("AWS_LAMBDA_RUNTIME_API="))
    return address.partition("=")[2]


def test_a_name_of_its_own_for_this_machine_does_not_help(page: Page, stack: Stack) -> None:
    """DNS rebinding: the page is of the same origin as what it asks, and sees every answer."""
    ports = {
        "aws": stack.env["COGNITO_ENDPOINT"],
        "gateway": stack.env["BEHEST_BASE_URL"],
        "page": stack.env["ALLOWED_ORIGIN"],
        "runtime": "http://" + runtime_api(chat_processes(stack)[0]),
    }
    status = {}
    for name, url in ports.items():
        path = "/healthz" if name == "gateway" else "/"
        reply = page.goto(f"http://rebound.example:{url.rpartition(':')[2]}{path}")
        assert reply is not None
        status[name] = reply.status
    assert status == {"aws": 421, "gateway": 421, "page": 421, "runtime": 403}
