"""`weir`: what an operator does to a deployment. Reads like a sentence: weir keys create."""

import argparse
import os
import sys
from collections.abc import Sequence

from botocore.exceptions import BotoCoreError, ClientError

from weir.errors import NotFound, Refusal

from . import (
    customers,
    files,
    flags,
    issuers,
    keys,
    limits,
    models,
    origins,
    people,
    projects,
    revocations,
    signing,
    status,
    switches,
    text,
    upstreams,
    usage,
    webhooks,
)
from .console import Console, command, operator_of
from .deployment import DEFAULT_STACK, CommandError, find

_IN_ORDER = (
    status,
    projects,
    keys,
    signing,
    issuers,
    customers,
    webhooks,
    origins,
    limits,
    models,
    upstreams,
    usage,
    switches,
    revocations,
    files,
    people,
)


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parser().parse_args(arguments)
    if asked.run is None:
        asked.parser.print_help()
        return 0
    try:
        code = _run(asked)
        sys.stdout.flush()
    except CommandError as error:
        return _refuse(str(error))
    except Refusal as refusal:
        return _refuse(_sentence(refusal, flags.where(asked)))
    except (ClientError, BotoCoreError) as error:
        return _refuse(f"AWS refused: {error}")
    except KeyboardInterrupt:
        return _refuse("Stopped.")
    except BrokenPipeError:
        # Whoever read the answer has gone (`weir audit | head`); the interpreter shall not mind.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def _run(asked: argparse.Namespace) -> int:
    deployment = find(stack=getattr(asked, "stack", None), local="local" in asked)
    print(f"On {deployment.label}:", file=sys.stderr)
    console = Console(
        deployment,
        operator_of(deployment),
        as_json="json" in asked,
        yes=getattr(asked, "yes", False),
        where=flags.where(asked),
    )
    return int(asked.run(console, asked) or 0)


def _refuse(sentence: str) -> int:
    print(f"weir: {text.without_keys(sentence)}", file=sys.stderr)
    return 1


def _sentence(refusal: Refusal, where: tuple[str, ...]) -> str:
    told, param = refusal.message, refusal.param
    if isinstance(refusal, NotFound) and told.startswith("There is no project "):
        # The pid is left out: it may be misspelt, and would be made.
        shows, makes = (
            command(where, "projects", *words) for words in (["list"], ["create", "PID"])
        )
        return f"{told} `{shows}` shows them; `{makes}` makes one."
    return f"{param}: {told}" if param and not told.startswith(param) else told


def parser() -> argparse.ArgumentParser:
    shared = flags.shared()
    made = flags.Parser(
        prog="weir",
        description="Operate a Weir deployment.",
        epilog="Without --stack or --local: the gateway of `make run`, if it was ever started in "
        f"this folder, else the stack {DEFAULT_STACK}.",
        parents=[shared],
    )
    commands = flags.Commands(made, shared)
    for each in _IN_ORDER:
        each.add_to(commands)
    return made


if __name__ == "__main__":
    sys.exit(main())
