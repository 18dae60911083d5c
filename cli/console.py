"""What every verb has at hand: the deployment, whoever does it, and how to speak to him."""

import json
import shlex
import sys
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from weir.aws.operator import Operator
from weir.aws.provider_keys import ProviderKeys
from weir.aws.webhooks.seal import Sealer

from .deployment import CommandError, Deployment


@dataclass(frozen=True, slots=True)
class Console:
    """`where` is how the deployment was named (--local, or --stack NAME): the commands that are
    suggested speak to the same one.
    """

    deployment: Deployment
    operator: Operator
    as_json: bool
    yes: bool
    where: tuple[str, ...] = ()

    def show(self, document: object, *lines: str) -> None:
        """The answer: for a script the document, for a person the lines."""
        if self.as_json:
            print(json.dumps(document, indent=2))
        else:
            for line in lines:
                print(line)

    def note(self, text: str) -> None:
        """Beside the answer: never in a script's way."""
        print(text, file=sys.stderr)

    def command(self, *words: str) -> str:
        """To be copied into a shell."""
        return command(self.where, *words)

    def confirm(self, what: str) -> None:
        """Before what cannot be undone. Raises CommandError unless the operator means it."""
        if self.yes:
            return
        if not sys.stdin.isatty():
            raise CommandError(f"{what} Nothing was done: repeat it with --yes if you mean it.")
        print(f"{what} Type yes to do it: ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip() != "yes":
            raise CommandError("Nothing was done.")


def command(where: tuple[str, ...], *words: str) -> str:
    return shlex.join(("weir", *where, *words))


def operator_of(deployment: Deployment) -> Operator:
    """Who does it is whoever AWS says that these credentials are; the audit trail keeps that. Times
    are AWS's, too: what is revoked now must include what was issued a moment ago, however this
    machine's clock is set.
    """
    caller: dict[str, Any] = deployment.client("sts").get_caller_identity()
    ahead_s = _ahead_of_this_machine_s(caller)
    keys = ProviderKeys(
        deployment.client("secretsmanager"), deployment.outputs["ProviderKeysSecretArn"]
    )
    return Operator(
        deployment.table(),
        keys,
        actor=caller["Arn"],
        clock=lambda: time.time() + ahead_s,
        sealer=Sealer(deployment.client("kms"), deployment.outputs.get("KeyArn", "")),
    )


def _ahead_of_this_machine_s(answer: dict[str, Any]) -> float:
    """Return by how much AWS's clock is ahead, by the Date of an answer that has just come, which
    is exact to the second. 0 if they agree that far.
    """
    date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    try:
        ahead_s = parsedate_to_datetime(date).timestamp() - time.time()
    except (TypeError, ValueError):
        return 0
    return 0 if -2 < ahead_s < 1 else ahead_s + 1
