"""The embedded AWS (ministack, behind the front in aws_front.py): started on loopback, and the
project's own template deployed into it.

The template is adapted in memory only, and only where the embedded AWS differs: it has no rotation
schedule (the four steps are driven in rotation.py), it does not enable a table's TTL, and code and
layers are stand-ins, because the functions run as processes of ours. That is why its schedules and
event sources are switched off, too: it would run the stand-ins (schedules.py, streams.py and
queues.py run ours). Everything else is its
CloudFormation's work, so that resources, environments and roles are what the template says. It
enforces IAM (AUTH=true): a function that may not do something cannot do it here.
"""

from __future__ import annotations

import asyncio
import functools
import io
import json
import secrets
import socket
import string
import threading
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.session import Session

from local import CannotRun, processes
from local.processes import Child
from local.settings import ROOT as CHECKOUT
from local.template import Template

REGION = "us-east-1"
# Of the root user of the embedded AWS that this process starts: new each time, because a page or
# another user must not know it.
ROOT = {
    "AWS_ACCESS_KEY_ID": "AKIA"
    + "".join(secrets.choice(string.ascii_uppercase + "234567") for _ in range(16)),
    "AWS_SECRET_ACCESS_KEY": secrets.token_urlsafe(30),
}
STACK_NAME = "weir-local"
CAPABILITIES = ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"]
# CloudFormation takes a longer template only from S3.
MAX_TEMPLATE_BODY = 51_200
# Rotation is done here (rotation.py); the style of a sign-in page is unknown there.
NOT_TAKEN = ("AWS::SecretsManager::RotationSchedule", "AWS::Cognito::ManagedLoginBranding")
BUCKET, STAND_IN = "weir-local", "stand-in.zip"
SESSION_S = 12 * 3600
RENEW_S = 6 * 3600
START_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class FunctionConfiguration:
    """What CloudFormation made of a function."""

    name: str
    arn: str
    role: str
    environment: dict[str, str]
    timeout_s: int
    memory_mb: int
    log_group: str
    log_format: str


@dataclass(frozen=True)
class Stack:
    endpoint: str
    account: str
    parameters: dict[str, str]
    outputs: dict[str, str]
    # Logical id: physical id.
    resources: dict[str, str]
    functions: dict[str, FunctionConfiguration]
    processed: Template


async def start(
    interpreter: Path, directory: Path, origins: Sequence[str] = ()
) -> tuple[Child, int]:
    """Starts it with nothing kept from an earlier run, and lets pages of `origins` sign in. Returns
    it and its port.
    """
    if not interpreter.exists():
        raise CannotRun("The embedded AWS is not installed; run `make run`.")
    # It inherits the socket: between closing one here and opening it there, another user could.
    with processes.listen_on_loopback(0) as listener:
        return await _start(interpreter, directory, origins, listener)


async def _start(
    interpreter: Path, directory: Path, origins: Sequence[str], listener: socket.socket
) -> tuple[Child, int]:
    port: int = listener.getsockname()[1]
    state = directory / "aws"
    env = {
        "PATH": f"{interpreter.parent}:/usr/bin:/bin",
        "PYTHONPATH": str(CHECKOUT),
        "SIGN_IN_ORIGINS": " ".join(origins),
        **ROOT,
        "GATEWAY_PORT": str(port),
        "IOT_MTLS_ENABLED": "0",  # by default it opens a port for MQTT, and one for SFTP
        "SFTP_ENABLED": "0",
        "LAMBDA_EXECUTOR": "local",
        "AUTH": "true",
        "STATE_DIR": str(state),
        "S3_DATA_DIR": str(state / "s3"),
        "TMPDIR": str(directory / "tmp"),
        "HOME": str(state),
        "AWS_CONFIG_FILE": "/dev/null",
    }
    child = await processes.start(
        "The embedded AWS",
        [str(interpreter), "-m", "local.aws_server", str(listener.fileno())],
        env=env,
        cwd=directory,
        log=directory / "logs" / "aws.log",
        pass_fds=[listener.fileno()],
    )
    return child, port


async def until_ready(child: Child, port: int) -> str:
    """Returns its endpoint."""
    await processes.until_it_answers(child, port, "/_ministack/health", START_TIMEOUT_S)
    return f"http://127.0.0.1:{port}"


@functools.cache
def client(endpoint: str, service: str) -> Any:
    """A client with the embedded AWS's root user, whatever the operator's shell says of AWS."""
    with _making_clients:  # a session may not make two at once; what it made may be shared
        return _session.create_client(
            service,
            region_name=REGION,
            endpoint_url=endpoint,
            aws_access_key_id=ROOT["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=ROOT["AWS_SECRET_ACCESS_KEY"],
            config=Config(
                retries={"total_max_attempts": 2}, connect_timeout=5, read_timeout=60, proxies={}
            ),
        )


_session, _making_clients = Session(), threading.Lock()


# --- deploying ----------------------------------------------------------------------------------


def adapt(template: Template) -> Template:
    """The template with what the embedded AWS cannot take replaced. `template` itself stays as it
    is.
    """
    adapted: Template = json.loads(json.dumps(template, default=str))
    resources = adapted["Resources"]
    for logical_id, resource in list(resources.items()):
        properties = resource.get("Properties", {})
        if resource["Type"] in NOT_TAKEN:
            del resources[logical_id]
        elif resource["Type"] == "AWS::Serverless::Function":
            properties.update(CodeUri=f"s3://{BUCKET}/{STAND_IN}", Handler="stand_in.handler")
            for event in properties.get("Events", {}).values():
                if event["Type"] == "Schedule":
                    event["Properties"]["State"] = "DISABLED"
                elif event["Type"] in ("DynamoDB", "SQS"):
                    event["Properties"]["Enabled"] = False
        elif resource["Type"] == "AWS::Serverless::LayerVersion":
            properties["ContentUri"] = f"s3://{BUCKET}/{STAND_IN}"
    return adapted


def deploy(endpoint: str, template: Template, parameters: dict[str, str]) -> Stack:
    """Creates the stack and reads back what came of it. Blocks."""
    known = template.get("Parameters", {})
    for name in parameters:
        if name not in known:
            raise CannotRun(f"The template has no parameter {name}; it has {', '.join(known)}.")
    s3 = client(endpoint, "s3")
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key=STAND_IN, Body=_stand_in())
    body = json.dumps(adapt(template))
    where: dict[str, str] = {"TemplateBody": body}
    if len(body) > MAX_TEMPLATE_BODY:
        s3.put_object(Bucket=BUCKET, Key="template.json", Body=body.encode())
        where = {"TemplateURL": f"{endpoint}/{BUCKET}/template.json"}
    cloudformation = client(endpoint, "cloudformation")
    try:
        cloudformation.create_stack(
            StackName=STACK_NAME,
            Capabilities=CAPABILITIES,
            Parameters=[{"ParameterKey": k, "ParameterValue": v} for k, v in parameters.items()],
            **where,
        )
    except ClientError as error:
        raise CannotRun(
            f"The template was refused: {error.response['Error']['Message']}"
        ) from error
    return _read_back(endpoint, _wait(cloudformation), template, parameters)


def _stand_in() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(
            "stand_in.py", "def handler(event, context):\n    raise NotImplementedError\n"
        )
    return packed.getvalue()


def _wait(cloudformation: Any) -> dict[str, Any]:
    while True:
        stack: dict[str, Any] = cloudformation.describe_stacks(StackName=STACK_NAME)["Stacks"][0]
        status = stack["StackStatus"]
        if status == "CREATE_COMPLETE":
            return stack
        if not status.endswith("_IN_PROGRESS") or status.startswith("ROLLBACK"):
            raise CannotRun(f"The stack failed ({status}): {_why_it_failed(cloudformation)}")
        time.sleep(0.02)


def _why_it_failed(cloudformation: Any) -> str:
    events = cloudformation.describe_stack_events(StackName=STACK_NAME)["StackEvents"]
    reasons = [
        f"{event['LogicalResourceId']}: {event['ResourceStatusReason']}"
        for event in events
        if event["ResourceStatus"].endswith("_FAILED") and event.get("ResourceStatusReason")
    ]
    return reasons[-1] if reasons else "no reason was given"


def _read_back(
    endpoint: str, stack: dict[str, Any], template: Template, parameters: dict[str, str]
) -> Stack:
    cloudformation = client(endpoint, "cloudformation")
    pages = cloudformation.get_paginator("list_stack_resources").paginate(StackName=STACK_NAME)
    resources = {
        summary["LogicalResourceId"]: summary["PhysicalResourceId"]
        for page in pages
        for summary in page["StackResourceSummaries"]
    }
    _enable_ttl(endpoint, template, resources)
    processed = cloudformation.get_template(StackName=STACK_NAME, TemplateStage="Processed")[
        "TemplateBody"
    ]
    defaults = {
        name: str(told["Default"])
        for name, told in template.get("Parameters", {}).items()
        if "Default" in told
    }
    account = stack["StackId"].split(":")[4]
    return Stack(
        endpoint=endpoint,
        account=account,
        parameters={**defaults, **parameters},
        outputs={output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])},
        resources=resources,
        functions=_functions(endpoint, template, resources),
        processed=json.loads(processed) if isinstance(processed, str) else processed,
    )


def _enable_ttl(endpoint: str, template: Template, resources: dict[str, str]) -> None:
    for logical_id, resource in template["Resources"].items():
        ttl = resource.get("Properties", {}).get("TimeToLiveSpecification")
        if ttl and resource["Type"] == "AWS::DynamoDB::Table":
            client(endpoint, "dynamodb").update_time_to_live(
                TableName=resources[logical_id], TimeToLiveSpecification=ttl
            )


def _functions(
    endpoint: str, template: Template, resources: dict[str, str]
) -> dict[str, FunctionConfiguration]:
    functions = client(endpoint, "lambda")
    found = {}
    for logical_id, resource in template["Resources"].items():
        if resource["Type"] != "AWS::Serverless::Function":
            continue
        told = functions.get_function_configuration(FunctionName=resources[logical_id])
        logging = told.get("LoggingConfig", {})
        found[logical_id] = FunctionConfiguration(
            name=told["FunctionName"],
            arn=told["FunctionArn"],
            role=told["Role"],
            environment=told.get("Environment", {}).get("Variables", {}),
            timeout_s=told["Timeout"],
            memory_mb=told["MemorySize"],
            log_group=logging.get("LogGroup", f"/aws/lambda/{told['FunctionName']}"),
            log_format=logging.get("LogFormat", "Text"),
        )
    return found


# --- credentials --------------------------------------------------------------------------------


class RoleCredentials:
    """The environment variables that make a process act as one function's role, renewed long before
    they expire.
    """

    def __init__(self, endpoint: str, function: FunctionConfiguration) -> None:
        self._endpoint, self._function = endpoint, function
        self._lock = asyncio.Lock()
        self._credentials: dict[str, str] = {}
        self._since = 0.0

    async def __call__(self) -> dict[str, str]:
        async with self._lock:
            if not self._credentials or time.monotonic() - self._since > RENEW_S:
                self._credentials = await asyncio.to_thread(self._assume)
                self._since = time.monotonic()
            return self._credentials

    def _assume(self) -> dict[str, str]:
        told = client(self._endpoint, "sts").assume_role(
            RoleArn=self._function.role,
            RoleSessionName=self._function.name[:64],
            DurationSeconds=SESSION_S,
        )["Credentials"]
        return {
            "AWS_ACCESS_KEY_ID": told["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": told["SecretAccessKey"],
            "AWS_SESSION_TOKEN": told["SessionToken"],
        }
