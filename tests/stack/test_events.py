"""Every file in events/ through the real function under AWS's own Runtime Interface Emulator."""

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.provider import FakeProvider
from tests.runtime.rie import WRAPPER, Rie, find_rie
from tests.stack.admin import Admin, set_up_embeddings
from tests.stack.conftest import ROOT, Stack

# By the events' names; all but one are called as their function's folder.
FUNCTIONS = {
    "token": "TokenFunction",
    "chat": "ChatFunction",
    "embeddings": "EmbeddingsFunction",
    "preflight": "PreflightFunction",
    "doctor": "PreflightFunction",
    "account": "AccountFunction",
    "customers": "CustomersFunction",
    "webhooks": "WebhooksFunction",
    "notify": "NotifyFunction",
    "deliver": "DeliverFunction",
    "admin": "AdminFunction",
    "rotate": "RotateFunction",
    "sweep": "SweepFunction",
    "meter": "MeterFunction",
}
FOLDERS = {"doctor": "preflight"}
STOCK_RUNTIME = Path(__file__).with_name("stock-runtime")


def read(name: str, stack: Stack) -> dict[str, Any]:
    text = (ROOT / "events" / f"{name}.json").read_text()
    outputs = stack.outputs()
    ringside = "REPLACE_WITH_RINGSIDE_API_KEY"
    if ringside in text:
        scopes = ["api:client_tokens", "api:webhooks"]
        fresh = f"r_{uuid.uuid4().hex}"
        key = Admin(stack).key("default", contract="ringside", scopes=scopes)
        text = text.replace(ringside, key).replace("r_7", fresh).replace("upsert-7", fresh)
    for placeholder, value in {
        "REPLACE_WITH_API_KEY": stack.env["BEHEST_KEY"],
        "REPLACE_WITH_USER_TOKEN": stack.mint()["token"],
        "REPLACE_WITH_COGNITO_CLIENT_ID": stack.env["COGNITO_CLIENT_ID"],
        "REPLACE_WITH_SIGNING_KEY_SECRET_ARN": outputs["SigningKeySecretArn"],
    }.items():
        text = text.replace(placeholder, value)
    event = json.loads(text)
    assert isinstance(event, dict)
    return event


def emulate(stack: Stack, function: str) -> Rie:
    """The deployed function's own environment and role, in a process of the emulator's."""
    resources = stack.aws("cloudformation").list_stack_resources(StackName="weir-local")
    names = {
        r["LogicalResourceId"]: r["PhysicalResourceId"] for r in resources["StackResourceSummaries"]
    }
    deployed = stack.aws("lambda").get_function_configuration(
        FunctionName=names[FUNCTIONS[function]]
    )
    session = stack.aws("sts").assume_role(RoleArn=deployed["Role"], RoleSessionName="rie")
    environment = deployed["Environment"]["Variables"] | {
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": stack.env["COGNITO_ENDPOINT"],
        "AWS_ACCESS_KEY_ID": session["Credentials"]["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": session["Credentials"]["SecretAccessKey"],
        "AWS_SESSION_TOKEN": session["Credentials"]["SessionToken"],
        "PYTHONPATH": str(ROOT / "layers" / "core"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    binary = find_rie()
    assert binary is not None, "the emulator is missing: make install-sam"
    streams = "AWS_LAMBDA_EXEC_WRAPPER" in environment
    wrapper = WRAPPER if streams else STOCK_RUNTIME
    folder = ROOT / "functions" / FOLDERS.get(function, function)
    return Rie(binary, folder, env=environment, wrapper=wrapper)


@pytest.fixture(params=["smallest", "real"])
def size(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# Of each function that answers in one piece: the status, and a word that its answer must contain.
ANSWERS = {
    "token": (200, '"token"'),
    "preflight": (204, ""),
    "doctor": (200, '"allowed": true'),
    "account": (200, '"default"'),
    "customers": (201, '"external_id"'),
    "webhooks": (200, '"has_more"'),
    "admin": (200, '"name"'),
}


@pytest.mark.parametrize("function", ANSWERS)
def test_event_of_a_buffered_function_is_answered(stack: Stack, function: str, size: str) -> None:
    with emulate(stack, function) as rie:
        answer = json.loads(rie.invoke(read(f"{function}.{size}", stack)))
    status, word = ANSWERS[function]
    assert answer["statusCode"] == status, answer
    assert word in answer["body"]


def test_event_of_the_streaming_function_is_answered_by_prelude_and_body(
    stack: Stack, size: str
) -> None:
    event = read(f"chat.{size}", stack)
    with emulate(stack, "chat") as rie:
        prelude, body = rie.invoke(event).split(b"\0" * 8)
    head = json.loads(prelude)
    assert head["statusCode"] == 200, body
    if size == "real":
        assert head["headers"]["Content-Type"].startswith("text/event-stream")
        assert head["headers"]["Access-Control-Allow-Origin"] == "http://localhost:5173"
        assert body.endswith(b"data: [DONE]\n\n")
        assert b'"usage"' in body
    else:
        assert json.loads(body)["choices"]


def test_event_of_the_other_streaming_function_is_answered_by_prelude_and_body(
    stack: Stack, provider: FakeProvider, size: str
) -> None:
    set_up_embeddings(Admin(stack), provider.url)
    with emulate(stack, "embeddings") as rie:
        prelude, body = rie.invoke(read(f"embeddings.{size}", stack)).split(b"\0" * 8)
    assert json.loads(prelude)["statusCode"] == 200, body
    kind = str if size == "real" else list  # base64, or numbers
    assert {type(each["embedding"]) for each in json.loads(body)["data"]} == {kind}


def test_events_of_a_rotation_make_and_test_a_pending_version(stack: Stack) -> None:
    version = str(uuid.uuid4())
    events = [
        read("rotate.smallest", stack),
        {**read("rotate.real", stack), "Step": "setSecret"},
        read("rotate.real", stack),
    ]
    with emulate(stack, "rotate") as rie:
        for event in events:
            answer = rie.invoke({**event, "ClientRequestToken": version})
            assert json.loads(answer) is None, answer
    pending = stack.aws("secretsmanager").get_secret_value(
        SecretId=stack.outputs()["SigningKeySecretArn"], VersionId=version
    )
    assert set(json.loads(pending["SecretString"])) == {"current", "next"}


def test_event_of_a_schedule_makes_one_sweep_whatever_it_says(stack: Stack, size: str) -> None:
    with emulate(stack, "sweep") as rie:
        answer = rie.invoke(read(f"sweep.{size}", stack))
        said = [json.loads(line) for line in rie.log.splitlines() if '"swept"' in line]
    assert json.loads(answer) is None, answer
    (line,) = said
    assert (line["SweepFailures"], line["Stack"]) == (0, "weir-local")


def test_event_of_the_stream_is_read_and_what_is_not_in_the_table_is_not_added(
    stack: Stack, size: str
) -> None:
    with emulate(stack, "meter") as rie:
        answer = rie.invoke(read(f"meter.{size}", stack))
        said = [json.loads(line) for line in rie.log.splitlines() if '"added up"' in line]
    assert json.loads(answer) == {"batchItemFailures": []}, answer
    (line,) = said
    assert (line["added"], line["unreadable"]) == (0, 0)
    assert line["records"] == (1 if size == "real" else 0)


def test_event_of_a_settled_request_is_looked_at(stack: Stack, size: str) -> None:
    with emulate(stack, "notify") as rie:
        answer = rie.invoke(read(f"notify.{size}", stack))
        assert "cannot be read" not in rie.log
        said = [json.loads(line) for line in rie.log.splitlines() if '"looked at"' in line]
    assert json.loads(answer) is None, answer
    (line,) = said
    assert (line["records"], line["reached"]) == (1 if size == "real" else 0, 0)


def test_event_for_an_endpoint_that_is_gone_is_dropped(stack: Stack, size: str) -> None:
    with emulate(stack, "deliver") as rie:
        answer = json.loads(rie.invoke(read(f"deliver.{size}", stack)))
    assert answer == {"batchItemFailures": []}


def test_every_event_file_is_used() -> None:
    found = {path.stem for path in (ROOT / "events").glob("*.json")}
    assert found == {f"{name}.{size}" for name in FUNCTIONS for size in ("smallest", "real")}
