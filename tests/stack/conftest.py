"""The whole stack as `make run` starts it, in front of a provider that the tests script."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest

from cli.dotenv import read_env
from local import embedded_aws, processes
from tests.provider import FakeProvider
from weir.aws.operator import Operator
from weir.aws.provider_keys import ProviderKeys
from weir.aws.table import Table
from weir.operator.documents import LimitsDocument, ProjectChange, parsed
from weir.projects.limits import BUILT_IN

ROOT = Path(__file__).parents[2]
ORIGIN = "http://localhost:5173"
LIFTED = ("rpm", "requests_per_day", "tokens_per_day", "concurrent_streams")


@dataclass(frozen=True)
class Stack:
    env: dict[str, str]
    directory: Path
    http: httpx.Client

    def aws(self, service: str, credentials: dict[str, str] | None = None) -> Any:
        """A client of the embedded AWS: as its root, or with a role's credentials."""
        named = credentials or {
            "AccessKeyId": self.env["WEIR_LOCAL_ACCESS_KEY_ID"],
            "SecretAccessKey": self.env["WEIR_LOCAL_SECRET_ACCESS_KEY"],
        }
        return boto3.client(  # type: ignore[call-overload]
            service,
            endpoint_url=self.env["COGNITO_ENDPOINT"],
            region_name="us-east-1",
            aws_access_key_id=named["AccessKeyId"],
            aws_secret_access_key=named["SecretAccessKey"],
            aws_session_token=named.get("SessionToken"),
        )

    def outputs(self) -> dict[str, str]:
        (found,) = self.aws("cloudformation").describe_stacks(StackName="weir-local")["Stacks"]
        return {o["OutputKey"]: o["OutputValue"] for o in found["Outputs"]}

    def mint(self, user_id: str = "u_1", **more: Any) -> dict[str, Any]:
        reply = self.http.post(
            "/v1/auth/mint",
            headers={"Authorization": f"Bearer {self.env['BEHEST_KEY']}"},
            json={"user_id": user_id, **more},
        )
        assert reply.status_code == 200, reply.text
        minted = reply.json()
        assert isinstance(minted, dict)
        return minted

    def sign_in(self, password: str | None = None) -> dict[str, str]:
        """Cognito's tokens for the demo user."""
        answer = self.aws("cognito-idp").initiate_auth(
            ClientId=self.env["COGNITO_CLIENT_ID"],
            AuthFlow="USER_PASSWORD_AUTH",
            AuthParameters={
                "USERNAME": self.env["DEMO_EMAIL"],
                "PASSWORD": password or self.env["DEMO_PASSWORD"],
            },
        )
        result = answer["AuthenticationResult"]
        assert isinstance(result, dict)
        return result

    def log(self, function: str) -> str:
        return (self.directory / "logs" / f"{function}.log").read_text()


def operator_of(stack: Stack) -> Operator:
    named = stack.outputs()
    keys = ProviderKeys(stack.aws("secretsmanager"), named["ProviderKeysSecretArn"])
    return Operator(Table(stack.aws("dynamodb"), named["TableName"]), keys, actor="tests")


def lift_limits(stack: Stack) -> None:
    """Of the project that tests share: they ask more in a minute than any user may."""
    operator = operator_of(stack)
    none = dict.fromkeys(LIFTED)
    operator.update_project("default", parsed(ProjectChange, {"limits": none, "user_limits": none}))
    for tier in BUILT_IN:
        operator.set_tier("default", tier, parsed(LimitsDocument, none))


@contextlib.contextmanager
def start(
    directory: Path, *, limited: bool = False, upstream: str | None = None, **settings: str
) -> Iterator[Stack]:
    """The running stack; ends it as Ctrl-C's SIGTERM would. `limited`: as the project is made.
    `upstream` is the address of the only provider.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "UPSTREAM_", "WEIR_"))
    }
    environment |= {"PORT": "0", "HEADLESS": "1", "WEIR_LOCAL_DIR": str(directory)}
    environment |= {**(upstream_at(upstream) if upstream else {}), **settings}
    with subprocess.Popen(
        [sys.executable, "-m", "local"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if line.startswith("Ready"):
                break
        else:
            pytest.fail(f"the stack did not start:\n{said}")
        env = read_env(directory / "env")
        assert env is not None
        try:
            with httpx.Client(base_url=env["BEHEST_BASE_URL"], timeout=30) as http:
                stack = Stack(env, directory, http)
                if not limited and "WEIR_EMPTY" not in settings:
                    lift_limits(stack)
                yield stack
        finally:
            process.terminate()
            process.communicate(timeout=10)


def upstream_at(url: str) -> dict[str, str]:
    """Return the settings of a stack whose only upstream is the fake provider."""
    return {
        "UPSTREAM_BASE_URL": url,
        "UPSTREAM_MODEL": "fake-large",
        "UPSTREAM_API_KEY": "provider-secret-key",
        "UPSTREAM_PRICE_INPUT": "1",
        "UPSTREAM_PRICE_OUTPUT": "2",
    }


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of an embedded AWS with nothing in it."""
    directory = tmp_path_factory.mktemp("aws")
    for name in ("logs", "tmp", "aws/s3"):
        (directory / name).mkdir(parents=True)
    interpreter = ROOT / ".local/venv-aws/bin/python"
    with asyncio.Runner() as runner:
        child, port = runner.run(embedded_aws.start(interpreter, directory))
        try:
            yield runner.run(embedded_aws.until_ready(child, port))
        finally:
            runner.run(processes.stop([child], 5))


@pytest.fixture(scope="session")
def provider() -> Iterator[FakeProvider]:
    fake = FakeProvider()
    yield fake
    fake.close()


@pytest.fixture(scope="session")
def stack(provider: FakeProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with start(
        tmp_path_factory.mktemp("stack"),
        upstream=provider.url,
        WEIR_PARAM_NextKeyMinimumAgeSeconds="0",
    ) as running:
        yield running


@pytest.fixture(scope="session")
def token(stack: Stack) -> str:
    return str(stack.mint()["token"])


def ask(how: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A chat request that tells the fake provider how to behave."""
    content = "hi" if how is None else json.dumps(how)
    return {"messages": [{"role": "user", "content": content}], **more}


def envelope(reply: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The reply's `error`, after checking that it is the one envelope with its trace headers."""
    assert reply.status_code == status, reply.text
    told = reply.json()
    assert set(told) == {"error", "code", "message", "retryable", "trace_id"}
    error = told["error"]
    assert set(error) == {"message", "type", "param", "code", "details", "request_id"}
    assert error["code"] == code, error
    trace = {reply.headers["x-request-id"], reply.headers["x-trace-id"], told["trace_id"]}
    assert trace == {error["request_id"]}
    assert isinstance(error, dict)
    return error
