"""weir webhooks: where a project's server is told of events."""

import argparse
from collections.abc import Mapping
from typing import Any

from weir.operator.documents import NewWebhook, WebhookChange, parsed
from weir.webhooks.endpoints import OLD_SECRET_S
from weir.webhooks.events import SUBSCRIPTIONS

from . import text
from .console import Console
from .flags import Commands, pid_of

_URL = "https, on the public internet"


def add_to(commands: Commands) -> None:
    group = commands.group("webhooks", "servers that are told of budgets")
    group.command("list", list_endpoints, "the endpoints, and whether they answer", project=True)
    create = group.command(
        "create",
        create_endpoint,
        "make one; its secret is printed once, alone on stdout",
        project=True,
    )
    create.add_argument("url", metavar="URL", help=_URL)
    _add_flags(create, required=True)
    verbs = {
        "update": (update_endpoint, "change what is named of an endpoint", False),
        "remove": (remove_endpoint, "tell it nothing any more", True),
        "rotate": (rotate_secret, "make a new secret; the old one signs, too, for a day", False),
        "test": (send_test, "send it an event of type webhook.test", False),
        "deliveries": (list_failed, "what was given up in the last 30 days", False),
        "replay": (replay, "deliver again what was given up", False),
    }
    made = {}
    for verb, (run, help_text, asks) in verbs.items():
        made[verb] = group.command(verb, run, help_text, project=True, asks=asks)
        made[verb].add_argument("endpoint", metavar="ENDPOINT", help="its id, wh_…")
    made["update"].add_argument("--url", help=_URL)
    _add_flags(made["update"], required=False)
    made["update"].add_argument(
        "--enabled", choices=("true", "false"), help="false: it is told nothing for now"
    )
    made["replay"].add_argument(
        "--event", metavar="EVENT", help="one of them, evt_… (default: up to 100)"
    )


def _add_flags(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument(
        "--event",
        dest="events",
        action="append",
        required=required,
        choices=tuple(SUBSCRIPTIONS),
        help="of which it is told; may be repeated",
    )
    parser.add_argument("--description", help="what it is for")


def list_endpoints(console: Console, asked: argparse.Namespace) -> None:
    pid = pid_of(console, asked)
    found, _ = console.operator.webhooks(pid).page()
    rows = [(each["id"], each["url"], " ".join(each["events"]), _state(each)) for each in found]
    console.show({"data": found}, *text.table(("ENDPOINT", "URL", "EVENTS", "STATE"), rows))
    if not found:
        say = console.command("webhooks", "create", "--help")
        console.note(f"The project {pid} has none: {say}")


def create_endpoint(console: Console, asked: argparse.Namespace) -> None:
    pid = pid_of(console, asked)
    told = {"url": asked.url, "events": asked.events, "description": asked.description or ""}
    made, secret = console.operator.webhooks(pid).create(parsed(NewWebhook, told).stored())
    # Alone on stdout, so that SECRET=$(weir webhooks create …) works.
    console.show({**made, "secret": secret}, secret)
    console.note(
        f"{made['id']} of project {pid}. The secret is shown only now: with it your server "
        "verifies X-FC-Signature."
    )
    console.note(f"Try it: {console.command('webhooks', 'test', made['id'], '--project', pid)}")


def update_endpoint(console: Console, asked: argparse.Namespace) -> None:
    pid = pid_of(console, asked)
    named = {
        "url": asked.url,
        "events": asked.events,
        "description": asked.description,
        "enabled": None if asked.enabled is None else asked.enabled == "true",
    }
    told = {name: value for name, value in named.items() if value is not None}
    change = parsed(WebhookChange, told).stored()
    made = console.operator.webhooks(pid).update(asked.endpoint, change)
    console.show(made, *_lines(made))


def remove_endpoint(console: Console, asked: argparse.Namespace) -> None:
    pid = pid_of(console, asked)
    endpoints = console.operator.webhooks(pid)
    url = text.printable(endpoints.get(asked.endpoint)["url"])
    console.confirm(f"{url} will be told nothing of {pid} any more.")
    endpoints.remove(asked.endpoint)
    console.show(
        {"project": pid, "id": asked.endpoint, "removed": True},
        f"{asked.endpoint} of project {pid} is removed; what was on its way to it is dropped.",
    )


def rotate_secret(console: Console, asked: argparse.Namespace) -> None:
    pid = pid_of(console, asked)
    made, secret = console.operator.webhooks(pid).rotate(asked.endpoint)
    console.show({**made, "secret": secret}, secret)
    console.note(
        "It is shown only now. The old secret signs beside it for "
        f"{OLD_SECRET_S // 3600} hours: until then your server may know either."
    )


def send_test(console: Console, asked: argparse.Namespace) -> None:
    pid = pid_of(console, asked)
    event = console.operator.webhooks(pid).test(asked.endpoint)
    console.show(event, f"{event['id']} is on its way.")
    console.note(f"What became of it: {console.command('webhooks', 'list', '--project', pid)}")


def list_failed(console: Console, asked: argparse.Namespace) -> None:
    pid = pid_of(console, asked)
    found, more = console.operator.webhooks(pid).failed(asked.endpoint, 100)
    rows = [
        (
            each["event"]["id"],
            each["event"]["type"],
            text.day(each["first_attempt_at"]),
            text.day(each["given_up_at"]),
            each["last_failure"],
        )
        for each in found
    ]
    heads = ("EVENT", "TYPE", "FIRST TRIED", "GIVEN UP", "BECAUSE")
    console.show({"data": found}, *text.table(heads, rows))
    if more:
        console.note("There are older ones: the admin API shows them all.")
    if found:
        words = ("webhooks", "replay", asked.endpoint, "--project", pid)
        console.note(f"When the server answers again: {console.command(*words)}")


def replay(console: Console, asked: argparse.Namespace) -> None:
    pid = pid_of(console, asked)
    replayed = console.operator.webhooks(pid).replay(asked.endpoint, asked.event)
    console.show({"replayed": replayed}, *(f"{each} is on its way." for each in replayed))
    if not replayed:
        console.note("Nothing was given up.")


def _state(endpoint: Mapping[str, Any]) -> str:
    if not endpoint["enabled"]:
        return "disabled"
    if endpoint["failing_since"]:
        return f"fails since {text.day(endpoint['failing_since'])}: {endpoint['last_failure']}"
    delivered = endpoint["last_delivered_at"]
    return f"answered {text.day(delivered)}" if delivered else "not tried yet"


def _lines(endpoint: Mapping[str, Any]) -> list[str]:
    listed = {
        "Endpoint": endpoint["id"],
        "URL": endpoint["url"],
        "Events": ", ".join(endpoint["events"]),
        "Description": endpoint["description"] or "none",
        "State": _state(endpoint),
    }
    return text.aligned(listed.items())
