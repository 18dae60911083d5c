"""What the embedded AWS answers, and to whom: the real one, with a secret in it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from botocore.session import Session

from local import embedded_aws, processes
from tests.local.harness import NEEDS_ROOT, as_nobody

INTERPRETER = Path(__file__).parents[2] / ".local/venv-aws/bin/python"
PAGE, CANARY, PASSWORD = "http://localhost:5173", "canary-signing-key", "Demo-Password-1"
COGNITO = "AWSCognitoIdentityProviderService."
READ = "secretsmanager.GetSecretValue"
ROOT = Credentials(*embedded_aws.ROOT.values())
TEST = Credentials("test", "test")


@dataclass(frozen=True)
class Aws:
    endpoint: str
    pool: str
    client: str

    @property
    def host(self) -> str:
        return self.endpoint.removeprefix("http://")

    def send(self, *requests: bytes) -> str:
        """The answers to these requests, sent at once on one connection."""
        name, _, port = self.host.rpartition(":")
        with socket.create_connection((name, int(port)), 10) as connection:
            connection.sendall(b"".join(requests))
            received = b""
            while piece := connection.recv(65536):
                received += piece
        return received.decode("latin-1")


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    directory = tmp_path_factory.mktemp("aws")
    for name in ("logs", "tmp", "aws/s3"):
        (directory / name).mkdir(parents=True)
    with asyncio.Runner() as runner:
        child, port = runner.run(embedded_aws.start(INTERPRETER, directory, [PAGE]))
        try:
            yield fill(runner.run(embedded_aws.until_ready(child, port)))
        finally:
            runner.run(processes.stop([child], 5))


def fill(endpoint: str) -> Aws:
    embedded_aws.client(endpoint, "secretsmanager").create_secret(Name="keys", SecretString=CANARY)
    users = embedded_aws.client(endpoint, "cognito-idp")
    pool = users.create_user_pool(PoolName="users")["UserPool"]["Id"]
    flows = ["ALLOW_USER_PASSWORD_AUTH", "ALLOW_REFRESH_TOKEN_AUTH"]
    client = users.create_user_pool_client(
        UserPoolId=pool,
        ClientName="page",
        ExplicitAuthFlows=flows,
        AllowedOAuthFlowsUserPoolClient=True,
        AllowedOAuthFlows=["code"],
        AllowedOAuthScopes=["openid", "email"],
        CallbackURLs=[f"{PAGE}/"],
        LogoutURLs=[f"{PAGE}/"],
    )["UserPoolClient"]["ClientId"]
    users.admin_create_user(UserPoolId=pool, Username="demo", MessageAction="SUPPRESS")
    users.admin_set_user_password(
        UserPoolId=pool, Username="demo", Password=PASSWORD, Permanent=True
    )
    return Aws(endpoint, pool, client)


def raw(
    aws: Aws,
    headers: dict[str, str] | list[tuple[str, str]],
    body: str = "",
    *,
    method: str = "POST",
    target: str = "/",
    host: str | None = None,
    last: bool = True,
) -> bytes:
    pairs = list(headers.items()) if isinstance(headers, dict) else headers
    if not any(name.lower() == "host" for name, _ in pairs):
        pairs = [("Host", host or aws.host), *pairs]
    pairs += [("Content-Length", str(len(body))), ("Connection", "close" if last else "keep-alive")]
    head = "".join(f"{name}: {value}\r\n" for name, value in pairs)
    return f"{method} {target} HTTP/1.1\r\n{head}\r\n{body}".encode()


JSON = {"Content-Type": "application/x-amz-json-1.1"}
SECRET = json.dumps({"SecretId": "keys"})


def signed(
    aws: Aws,
    credentials: Credentials = ROOT,
    *,
    body: str = SECRET,
    target: str = "/",
    method: str = "POST",
    service: str = "secretsmanager",
    more: dict[str, str] | None = None,
) -> dict[str, str]:
    headers = {**JSON, "X-Amz-Target": READ, **(more or {})}
    request = AWSRequest(method, aws.endpoint + target, headers, body)
    SigV4Auth(credentials, service, "us-east-1").add_auth(request)
    return dict(request.headers)


def presigned(aws: Aws, credentials: Credentials = TEST) -> str:
    """The query of a presigned address."""
    request = AWSRequest("POST", f"{aws.endpoint}/", {**JSON, "X-Amz-Target": READ}, SECRET)
    SigV4QueryAuth(credentials, "secretsmanager", "us-east-1").add_auth(request)
    return str(request.url).partition("?")[2]


def query_form(**more: str) -> str:
    return urlencode({"Action": "AssumeRole", "Version": "2011-06-15", **more})


def sign_in(aws: Aws) -> str:
    return json.dumps(
        {
            "ClientId": aws.client,
            "AuthFlow": "USER_PASSWORD_AUTH",
            "AuthParameters": {"USERNAME": "demo", "PASSWORD": PASSWORD},
        }
    )


def asks(aws: Aws, action: str = "InitiateAuth", **more: str) -> dict[str, str]:
    return {**JSON, "X-Amz-Target": COGNITO + action, **more}


def refused(answer: str, *statuses: int) -> None:
    head, _, body = answer.partition("\r\n\r\n")
    assert int(head.split()[1]) in (statuses or (403,)), answer
    assert "access-control-" not in head.lower()
    assert CANARY not in body


# --- with the key ids that ministack believes ---------------------------------------------------


def test_the_key_id_test_opens_nothing(aws: Aws) -> None:
    refused(aws.send(raw(aws, signed(aws, TEST), SECRET)))


@pytest.mark.parametrize("key_id", ["test", "TEST", "000000000000", "123456789012", "", "AKIA"])
def test_nor_does_any_key_id_that_is_believed_without_a_signature(aws: Aws, key_id: str) -> None:
    headers = signed(aws)
    headers["Authorization"] = headers["Authorization"].replace(ROOT.access_key, key_id)
    refused(aws.send(raw(aws, headers, SECRET)))


def test_nor_does_it_in_the_query_however_it_is_written(aws: Aws) -> None:
    query = presigned(aws)
    asked = {**JSON, "X-Amz-Target": READ}
    for written in (
        query,
        query.lower(),
        query.replace("X-Amz", "%58-Amz"),
        query.replace("X-Amz", "X-%41mz"),
        "AWSAccessKeyId=test&Signature=x&Expires=9999999999",
        "awsaccesskeyid=test&signature=x&expires=9999999999",
        "a=b;X-Amz-Credential=test",
    ):
        refused(aws.send(raw(aws, asked, SECRET, target=f"/?{written}")))
        # With the run's own signature, too: what stands behind would have to choose.
        target = f"/?{written}"
        if ";" not in written:
            headers = signed(aws, target=target)
            refused(aws.send(raw(aws, headers, SECRET, target=target)))


@pytest.mark.parametrize(
    "authorization",
    [
        "AWS test:c2lnbmF0dXJl",
        "AWS4-ECDSA-P256-SHA256 Credential=test/20260101/secretsmanager/aws4_request,"
        " SignedHeaders=host;x-amz-region-set, Signature=00",
        "Bearer test",
        "Basic dGVzdDp0ZXN0",
        "",
    ],
)
def test_other_authorizations_open_nothing(aws: Aws, authorization: str) -> None:
    asked = {**JSON, "X-Amz-Target": READ, "Authorization": authorization}
    refused(aws.send(raw(aws, asked, SECRET)))


def test_the_algorithm_in_lower_case_opens_nothing(aws: Aws) -> None:
    headers = signed(aws)
    headers["Authorization"] = headers["Authorization"].replace("AWS4-HMAC", "aws4-hmac")
    refused(aws.send(raw(aws, headers, SECRET)))


def test_no_credential_opens_nothing(aws: Aws) -> None:
    refused(aws.send(raw(aws, {**JSON, "X-Amz-Target": READ}, SECRET)))
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    refused(aws.send(raw(aws, form, query_form())))
    refused(aws.send(raw(aws, form, query_form(AWSAccessKeyId="test", Signature="x"))))
    refused(aws.send(raw(aws, {}, method="GET", target=f"/?{query_form()}")))
    refused(aws.send(raw(aws, {}, method="GET", target="/bucket/key")))
    refused(aws.send(raw(aws, {"X-Amz-Target": READ}, method="GET")))
    refused(aws.send(raw(aws, {"X-Amz-Security-Token": "t"}, method="GET")))


def test_a_signed_form_may_not_name_credentials_of_its_own(aws: Aws) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    body = query_form(**{"X-Amz-Credential": "test/20260101/us-east-1/sts/aws4_request"})
    refused(aws.send(raw(aws, signed(aws, body=body, service="sts", more=form), body)))


# --- with credentials that are nearly right -----------------------------------------------------


def test_a_signature_must_be_right(aws: Aws) -> None:
    wrong = Credentials(ROOT.access_key, "guessed")
    refused(aws.send(raw(aws, signed(aws, wrong), SECRET)))
    refused(aws.send(raw(aws, signed(aws), SECRET.replace("keys", "else"))))
    unknown = Credentials("ASIAAAAAAAAAAAAAAAAA", "guessed", "token")
    refused(aws.send(raw(aws, signed(aws, unknown), SECRET)))


def test_a_header_may_come_once(aws: Aws) -> None:
    headers = list(signed(aws).items())
    other = signed(aws, TEST)["Authorization"]
    refused(aws.send(raw(aws, [*headers, ("authorization", other)], SECRET)), 400)
    refused(aws.send(raw(aws, [("AUTHORIZATION", other), *headers], SECRET)), 400)
    refused(aws.send(raw(aws, [*headers, ("X-Amz-Target", COGNITO + "InitiateAuth")], SECRET)), 400)
    hosts = [("Host", aws.host), ("Host", "evil.example")]
    refused(aws.send(raw(aws, [*hosts, *headers], SECRET)), 400)


def test_a_session_works_with_its_token_only(aws: Aws) -> None:
    iam = embedded_aws.client(aws.endpoint, "iam")
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "lambda.amazonaws.com"},
                "Action": "sts:AssumeRole",
            }
        ],
    }
    role = iam.create_role(RoleName="role", AssumeRolePolicyDocument=json.dumps(trust))["Role"]
    made = embedded_aws.client(aws.endpoint, "sts").assume_role(
        RoleArn=role["Arn"], RoleSessionName="session"
    )["Credentials"]

    def who(token: str | None) -> str:
        sts: Any = Session().create_client(
            "sts",
            region_name="us-east-1",
            endpoint_url=aws.endpoint,
            aws_access_key_id=made["AccessKeyId"],
            aws_secret_access_key=made["SecretAccessKey"],
            aws_session_token=token,
        )
        return str(sts.get_caller_identity()["Arn"])

    assert who(made["SessionToken"]).endswith("assumed-role/role/session")
    for token in (None, "another"):
        with pytest.raises(ClientError, match="AccessDenied"):
            who(token)


def test_its_root_user_may_do_what_a_deployment_does(aws: Aws) -> None:
    """Each protocol signs its path, query and body in its own way."""
    s3 = embedded_aws.client(aws.endpoint, "s3")
    s3.create_bucket(Bucket="bucket")
    s3.put_object(Bucket="bucket", Key="a b/ü+c:d", Body=b"x" * 100_000)
    assert s3.get_object(Bucket="bucket", Key="a b/ü+c:d")["Body"].read() == b"x" * 100_000
    found = s3.list_objects_v2(Bucket="bucket", Prefix="a b/")["Contents"]
    assert [each["Key"] for each in found] == ["a b/ü+c:d"]
    lambda_ = embedded_aws.client(aws.endpoint, "lambda")
    arn = "arn:aws:lambda:us-east-1:000000000000:function:none"
    with pytest.raises(lambda_.exceptions.ResourceNotFoundException):
        lambda_.get_function_configuration(FunctionName=arn)
    assert embedded_aws.client(aws.endpoint, "cloudformation").describe_stacks()["Stacks"] == []


# --- from other addresses, and to them ----------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "x.execute-api.localhost", "localhost.evil.example"]
)
def test_another_name_for_this_machine_is_refused(aws: Aws, host: str) -> None:
    """A page's own domain name may resolve to 127.0.0.1 (DNS rebinding)."""
    refused(aws.send(raw(aws, {**asks(aws), "Host": host}, sign_in(aws))), 421)
    refused(aws.send(raw(aws, {**signed(aws), "Host": host}, SECRET)), 421)


@pytest.mark.parametrize(
    "target",
    [
        "/_ministack/config",
        "/_ministack/reset",
        "/_ministack/rds/iam-auth",
        "/%5Fministack/reset",
        "//_ministack/reset",
        "/_aws/execute-api/a/live/",
        "/_localstack/health",
        "http://evil.example/",
        "http://127.0.0.1/_ministack/reset",
        "/_ministack/health?a=b",
    ],
)
def test_what_is_not_awss_is_refused_with_and_without_a_signature(aws: Aws, target: str) -> None:
    for method in ("GET", "POST"):
        refused(aws.send(raw(aws, {}, method=method, target=target)))
        path = target if target.startswith("/") else "/"
        headers = signed(aws, body="", target=path, method=method)
        refused(aws.send(raw(aws, headers, method=method, target=target)))


def test_each_request_of_a_connection_is_judged(aws: Aws) -> None:
    first = raw(aws, asks(aws), sign_in(aws), last=False)
    answers = aws.send(first, raw(aws, signed(aws, TEST), SECRET))
    assert answers.count("HTTP/1.1 200") == answers.count("HTTP/1.1 403") == 1
    assert CANARY not in answers


# --- pages --------------------------------------------------------------------------------------


def cors(answer: str) -> dict[str, str]:
    pairs = (line.partition(": ") for line in answer.partition("\r\n\r\n")[0].split("\r\n")[1:])
    found = [(name.lower(), value) for name, _, value in pairs]
    assert len(dict(found)) == len(found), "a header came twice"
    return {name: value for name, value in found if name.startswith("access-control-")}


def test_a_page_of_this_run_signs_in(aws: Aws) -> None:
    asked = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type,x-amz-target",
    }
    preflight = aws.send(raw(aws, asked, method="OPTIONS"))
    assert preflight.startswith("HTTP/1.1 204")
    allowed = cors(preflight)
    assert allowed["access-control-allow-origin"] == PAGE
    assert "authorization" not in allowed["access-control-allow-headers"]
    answer = aws.send(raw(aws, asks(aws, Origin=PAGE), sign_in(aws)))
    assert '"IdToken"' in answer
    assert cors(answer)["access-control-allow-origin"] == PAGE
    assert "*" not in cors(answer).values()
    # What it does not send is not passed on either.
    refresh = json.loads(answer.partition("\r\n\r\n")[2])["AuthenticationResult"]["RefreshToken"]
    again = json.dumps(
        {
            "ClientId": aws.client,
            "AuthFlow": "REFRESH_TOKEN_AUTH",
            "AuthParameters": {"REFRESH_TOKEN": refresh},
        }
    )
    assert '"IdToken"' in aws.send(raw(aws, asks(aws, Origin=PAGE), again))


FORM = {"Content-Type": "application/x-www-form-urlencoded"}
VISIT = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
VERIFIER = "a-verifier-that-is-forty-three-characters-long"


def hosted(aws: Aws, **more: str) -> dict[str, str]:
    digest = hashlib.sha256(VERIFIER.encode()).digest()
    return {
        "client_id": aws.client,
        "redirect_uri": f"{PAGE}/",
        "response_type": "code",
        "scope": "openid email",
        "state": "s",
        "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
        "code_challenge_method": "S256",
        **more,
    }


def typed(aws: Aws) -> str:
    return urlencode({**hosted(aws), "username": "demo", "password": PASSWORD})


def test_a_visitor_signs_in_on_cognitos_own_page_and_the_page_gets_tokens(aws: Aws) -> None:
    target = f"/oauth2/authorize?{urlencode(hosted(aws))}"
    answer = aws.send(raw(aws, VISIT, method="GET", target=target))
    assert answer.startswith("HTTP/1.1 200")
    assert 'action="/login"' in answer
    own = {**FORM, "Origin": aws.endpoint, "Sec-Fetch-Site": "same-origin"}
    answer = aws.send(raw(aws, own, typed(aws), target="/login"))
    found = re.search(r"(?i)^location: (\S+)", answer, re.MULTILINE)
    assert found is not None, answer
    assert found[1].startswith(f"{PAGE}/?")
    form = {
        "grant_type": "authorization_code",
        "client_id": aws.client,
        "code": parse_qs(urlsplit(found[1]).query)["code"][0],
        "redirect_uri": f"{PAGE}/",
        "code_verifier": VERIFIER,
    }
    page = {**FORM, "Origin": PAGE}
    answer = aws.send(raw(aws, page, urlencode(form), target="/oauth2/token"))
    assert cors(answer)["access-control-allow-origin"] == PAGE
    tokens = json.loads(answer.partition("\r\n\r\n")[2])
    assert tokens["id_token"]
    ended = urlencode({"token": tokens["refresh_token"], "client_id": aws.client})
    assert aws.send(raw(aws, page, ended, target="/oauth2/revoke")).startswith("HTTP/1.1 200")
    renewal = {
        "grant_type": "refresh_token",
        "client_id": aws.client,
        "refresh_token": tokens["refresh_token"],
    }
    answer = aws.send(raw(aws, page, urlencode(renewal), target="/oauth2/token"))
    assert answer.startswith("HTTP/1.1 400")
    leave = urlencode({"client_id": aws.client, "logout_uri": f"{PAGE}/"})
    answer = aws.send(raw(aws, VISIT, method="GET", target=f"/logout?{leave}"))
    assert f"location: {PAGE}/" in answer.lower()


def test_no_other_page_sends_the_sign_in_form_or_fetches_tokens(aws: Aws) -> None:
    for origin in ("https://evil.example", "null"):
        sent = {**FORM, "Origin": origin, "Sec-Fetch-Site": "cross-site"}
        refused(aws.send(raw(aws, sent, typed(aws), target="/login")))
        refused(aws.send(raw(aws, sent, "grant_type=refresh_token", target="/oauth2/token")))
        refused(aws.send(raw(aws, sent, "token=t", target="/oauth2/revoke")))
    script = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    target = f"/oauth2/authorize?{urlencode(hosted(aws))}"
    refused(aws.send(raw(aws, script, method="GET", target=target)))


def test_the_sign_in_pages_take_no_credentials_of_aws(aws: Aws) -> None:
    named = urlencode(
        {**hosted(aws), "X-Amz-Credential": "test/20260101/us-east-1/s3/aws4_request"}
    )
    refused(aws.send(raw(aws, VISIT, method="GET", target=f"/oauth2/authorize?{named}")))
    own = {**FORM, "Origin": aws.endpoint}
    refused(aws.send(raw(aws, own, named, target="/login")))
    refused(aws.send(raw(aws, FORM, named, target="/oauth2/token")))


def test_it_does_nothing_else(aws: Aws) -> None:
    for request in (
        raw(aws, signed(aws, TEST, more={"Origin": PAGE}), SECRET),
        raw(aws, signed(aws, more={"Origin": PAGE}), SECRET),  # not even with the key
        raw(aws, asks(aws, "ListUsers", Origin=PAGE), json.dumps({"UserPoolId": aws.pool})),
        raw(aws, asks(aws, "SignUp", Origin=PAGE), "{}"),
        raw(aws, asks(aws, "AdminInitiateAuth", Origin=PAGE), "{}"),
        raw(aws, {**JSON, "X-Amz-Target": f"x{COGNITO}InitiateAuth", "Origin": PAGE}, "{}"),
        raw(aws, asks(aws, Origin=PAGE, Authorization="AWS test:x"), sign_in(aws)),
        raw(aws, asks(aws, Origin=PAGE), sign_in(aws), target="/?X-Amz-Credential=test"),
        raw(aws, asks(aws, Origin=PAGE), sign_in(aws), target="/bucket"),
        raw(aws, asks(aws, Origin=PAGE), method="GET"),
        raw(aws, {"Origin": PAGE}, method="GET", target="/_ministack/health"),
    ):
        answer = aws.send(request)
        assert answer.startswith("HTTP/1.1 403"), answer
        assert cors(answer)["access-control-allow-origin"] == PAGE
        assert CANARY not in answer


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": PAGE.upper()},
        {"Origin": f"{PAGE}/"},
        {"Origin": f"{PAGE}, {PAGE}"},
        {"Origin": "http://localhost:51730"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    ],
)
def test_any_other_page_gets_nothing_at_all(aws: Aws, headers: dict[str, str]) -> None:
    for request in (
        raw(aws, {**asks(aws), **headers}, sign_in(aws)),
        raw(aws, {**headers, "Access-Control-Request-Method": "POST"}, method="OPTIONS"),
        raw(aws, headers, method="GET", target=f"/{aws.pool}/.well-known/jwks.json"),
        raw(aws, signed(aws, more=headers), SECRET),
        raw(aws, headers, method="GET", target="/?" + presigned(aws)),
    ):
        refused(aws.send(request))


def test_a_websocket_is_refused(aws: Aws) -> None:
    asked = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    request = "".join(f"{name}: {value}\r\n" for name, value in asked.items())
    told = f"GET /_aws/execute-api/a/live HTTP/1.1\r\nHost: {aws.host}\r\n{request}\r\n"
    assert aws.send(told.encode()).startswith("HTTP/1.1 403")


# --- without a page and a credential ------------------------------------------------------------


def test_programs_sign_in_and_read_the_public_keys_without_a_credential(aws: Aws) -> None:
    for more in ({}, {"Sec-Fetch-Mode": "cors"}):  # as Node's fetch sends
        assert '"IdToken"' in aws.send(raw(aws, asks(aws, **more), sign_in(aws)))
    keys = aws.send(raw(aws, {}, method="GET", target=f"/{aws.pool}/.well-known/jwks.json"))
    assert '"kid"' in keys
    assert cors(keys) == {}


@NEEDS_ROOT
def test_another_user_of_the_machine_is_not_heard(aws: Aws) -> None:
    assert as_nobody(int(aws.host.rpartition(":")[2])) == b""


def test_a_body_is_bounded(aws: Aws) -> None:
    asked = raw(aws, [*asks(aws).items()]).replace(
        b"Content-Length: 0", b"Content-Length: 20000000"
    )
    refused(aws.send(asked + b" " * 20_000_000), 413)
