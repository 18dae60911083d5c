"""Which deployment a command speaks to: a stack on AWS, or the one that `make run` has started.

On AWS everything is found through the stack's outputs, with the operator's own credentials. Locally
`.local/env` says where the embedded AWS listens, and has the credentials of its root user.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError

from weir.aws.table import Table

from .dotenv import read_env

DEFAULT_STACK = "weir-dev"  # samconfig.toml's default
NEEDED = {
    "TableName",
    "KeyArn",
    "ProjectId",
    "ProviderKeysSecretArn",
    "UserPoolId",
}  # of its outputs
LOCAL_ENV = Path(os.environ.get("WEIR_LOCAL_DIR", ".local")) / "env"


class CommandError(Exception):
    """Told to the operator as it is."""


@dataclass(frozen=True, slots=True)
class Deployment:
    label: str
    stack_status: str
    outputs: Mapping[str, str]
    url: str
    session: boto3.Session
    endpoint_url: str | None

    def client(self, service: str) -> Any:
        return self.session.client(service, endpoint_url=self.endpoint_url)  # type: ignore[call-overload]

    def table(self) -> Table:
        return Table(self.client("dynamodb"), self.outputs["TableName"])

    @property
    def pid(self) -> str:
        return self.outputs["ProjectId"]


def find(*, stack: str | None, local: bool) -> Deployment:
    """`--stack` means AWS, `--local` this machine; with neither, this machine if `make run` was
    ever started in this folder: a command meant for it must not fall through to AWS.
    """
    env = read_env(LOCAL_ENV) if stack is None else None
    if local or env is not None:
        deployment = _local(env or {})
        if deployment is None:
            raise CommandError(
                "Nothing runs here: start it with `make run`, or name a stack on AWS with --stack."
            )
        return deployment
    return _on_aws(stack or DEFAULT_STACK)


def _local(env: Mapping[str, str]) -> Deployment | None:
    try:
        session = boto3.Session(
            env["WEIR_LOCAL_ACCESS_KEY_ID"],
            env["WEIR_LOCAL_SECRET_ACCESS_KEY"],
            region_name="us-east-1",
        )
        status, outputs = _describe(session, env["WEIR_STACK"], env["COGNITO_ENDPOINT"])
    except (KeyError, BotoCoreError, ClientError):
        return None  # a file left by a run that has ended
    url = env["BEHEST_BASE_URL"]
    return Deployment(
        f"this machine ({url})", status, outputs, url, session, env["COGNITO_ENDPOINT"]
    )


def _on_aws(stack: str) -> Deployment:
    try:
        # boto3 reads AWS_DEFAULT_REGION only; every other tool, and Lambda, says AWS_REGION.
        session = boto3.Session(region_name=os.environ.get("AWS_REGION"))
        status, outputs = _describe(session, stack, None)
    except NoCredentialsError:
        raise CommandError(
            "No AWS credentials. Sign in (for example `aws sso login`), or set AWS_PROFILE; for "
            "this machine's gateway start `make run` first."
        ) from None
    except NoRegionError:
        raise CommandError(
            "No AWS region. Set AWS_REGION; for this machine's gateway start `make run` first."
        ) from None
    except ClientError as error:
        raise CommandError(f"The stack {stack!r} cannot be read: {_words(error)}") from None
    except BotoCoreError as error:
        raise CommandError(f"AWS cannot be reached: {error}") from None
    return Deployment(
        f"stack {stack} in {session.region_name}", status, outputs, outputs["ApiUrl"], session, None
    )


def _describe(
    session: boto3.Session, stack: str, endpoint_url: str | None
) -> tuple[str, dict[str, str]]:
    client = session.client("cloudformation", endpoint_url=endpoint_url)
    found = client.describe_stacks(StackName=stack)["Stacks"][0]
    outputs = {o["OutputKey"]: o["OutputValue"] for o in found.get("Outputs", [])}
    if "TableName" not in outputs:
        raise CommandError(f"The stack {stack!r} is {found['StackStatus']} and not a Weir (yet).")
    if not outputs.keys() >= NEEDED:
        raise CommandError(f"The stack {stack!r} is of another release: deploy this one first.")
    return found["StackStatus"], outputs


def _words(error: ClientError) -> str:
    return str(error.response["Error"].get("Message", error))
