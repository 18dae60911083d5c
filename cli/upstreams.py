"""weir upstreams: model providers and their keys."""

import argparse
import getpass
import sys
from collections.abc import Mapping
from typing import Any

from weir.aws.operator.models import with_its_key
from weir.operator.documents import ProviderKey, UpstreamDocument, UpstreamName, parsed
from weir.projects.upstream_kinds import (
    KINDS,
    SETTINGS,
    described,
    is_mock,
    reason_for_no_key,
    takes_key,
)

from . import text
from .console import Console
from .deployment import CommandError
from .flags import Commands, add_allowed_fields_flag, checked_name


def add_to(commands: Commands) -> None:
    group = commands.group("upstreams", "model providers, and their keys")
    group.command("list", list_upstreams, "every provider of the catalogue")
    show = group.command("show", show_upstream, "one provider")
    set_ = group.command(
        "set",
        set_upstream,
        "make or replace a provider; on another host it needs another key",
        asks=True,
    )
    set_key = group.command(
        "set-key",
        set_key_of,
        "give a provider's API key: typed in unseen, or read from stdin; never an argument",
        asks=True,
    )
    remove_key = group.command("remove-key", remove_key_of, "forget a provider's key", asks=True)
    remove = group.command(
        "remove", remove_upstream, "remove a provider that serves no model, and its key", asks=True
    )
    for parser in (show, set_, set_key, remove_key, remove):
        parser.add_argument("name", metavar="NAME", help="such as openai")
    # Somebody will try; what he typed shall not be repeated in an error.
    set_key.add_argument("key", nargs="?", help=argparse.SUPPRESS)
    set_key.add_argument("--key", nargs="?", dest="flag", const="", help=argparse.SUPPRESS)
    set_.add_argument(
        "--kind",
        required=True,
        choices=tuple(KINDS),
        help="; ".join(f"{kind.name}: {kind.summary}" for kind in KINDS.values()),
    )
    for name, setting in SETTINGS.items():
        set_.add_argument(
            f"--{name.replace('_', '-')}",
            metavar=setting.metavar,
            help=f"{described(setting)}; such as {setting.example}",
        )
    add_allowed_fields_flag(set_, "to this provider, because it knows it")


def list_upstreams(console: Console, _asked: argparse.Namespace) -> None:
    found = console.operator.catalogue()["upstreams"]
    rows = [(name, told["kind"], address(told), _key(told)) for name, told in sorted(found.items())]
    data = {name: _document(told) for name, told in found.items()}
    console.show({"data": data}, *text.table(("UPSTREAM", "KIND", "ADDRESS", "KEY"), rows))
    if not found:
        say = console.command("models", "add", "NAME")
        console.note(f"There is none yet: {say} brings a model's provider with it.")


def show_upstream(console: Console, asked: argparse.Namespace) -> None:
    _show(console, asked.name, console.operator.upstream(asked.name))


def set_upstream(console: Console, asked: argparse.Namespace) -> None:
    name = checked_name(UpstreamName, asked.name, "an upstream")
    told = {name: getattr(asked, name) for name in ("kind", "allowed_fields", *SETTINGS)}
    document = parsed(UpstreamDocument, {n: v for n, v in told.items() if v is not None})
    before = console.operator.catalogue()["upstreams"].get(name, {})
    if "key_last4" in before and "key_last4" not in with_its_key(document, before):
        console.confirm(
            f"The key {_key(before)} of {name} was given for {address(before)}, and will be "
            "forgotten."
        )
    told = console.operator.put_upstream(name, document)
    _show(console, name, told)
    advise_key(console, name, told)


def set_key_of(console: Console, asked: argparse.Namespace) -> None:
    if asked.key is not None or asked.flag is not None:
        raise CommandError(
            "A key is never an argument: the shell keeps those, and other users see them. Leave it "
            "out; you will be asked for it. Take that key back, at the provider."
        )
    before = console.operator.upstream(asked.name)
    if not takes_key(before["kind"]):
        raise CommandError(
            f"An upstream of kind {before['kind']} takes no key: "
            f"{reason_for_no_key(before['kind'])}."
        )
    if "key_last4" in before:
        console.confirm(f"The key {_key(before)} of {asked.name} will be replaced.")
    told = console.operator.set_provider_key(asked.name, _read_key(asked.name))
    _show(console, asked.name, told)
    console.note("It counts within a minute.")


def _read_key(name: str) -> str:
    asks = sys.stdin.isatty()
    given = getpass.getpass(f"Key of {name} (unseen): ") if asks else sys.stdin.read()
    if not given.strip():
        raise CommandError("key: 8 to 1,000 printable characters without spaces; nothing was read.")
    return parsed(ProviderKey, {"key": given.strip()}).key


def remove_key_of(console: Console, asked: argparse.Namespace) -> None:
    before = console.operator.upstream(asked.name)
    if "key_last4" in before:
        console.confirm(f"The key {_key(before)} of {asked.name} will be forgotten.")
    console.operator.remove_provider_key(asked.name)
    console.show({"name": asked.name, "key_last4": None}, f"{asked.name} has no key any more.")


def remove_upstream(console: Console, asked: argparse.Namespace) -> None:
    console.operator.upstream(asked.name)
    console.confirm(f"The upstream {asked.name!r} will be removed, and its key forgotten.")
    console.operator.remove_upstream(asked.name)
    line = f"The upstream {asked.name!r} is removed."
    console.show({"name": asked.name, "removed": True}, line)


def address(upstream: Mapping[str, Any]) -> str:
    if takes_key(upstream["kind"]):
        return str(upstream.get("base_url", "unknown"))
    if is_mock(upstream["kind"]):
        return "within the gateway"
    title = KINDS[upstream["kind"]].title
    return f"{title} in {upstream.get('region') or 'the region of the deployment'}"


def advise_key(console: Console, name: str, upstream: Mapping[str, Any]) -> None:
    """What is still to be done before it answers."""
    if not takes_key(upstream["kind"]):
        kind = KINDS[upstream["kind"]]
        console.note(f"{kind.title} needs no key; {kind.advice}.")
    elif "key_last4" not in upstream:
        say = console.command("upstreams", "set-key", name)
        console.note(f"The upstream {name} has no key yet: {say}")


# The settings that `address` shows.
_IN_ADDRESS = ("base_url", "region")


def _show(console: Console, name: str, upstream: Mapping[str, Any]) -> None:
    rows = [
        ("Upstream", name),
        ("Kind", upstream["kind"]),
        ("Address", address(upstream)),
        *(
            (name.replace("_", " ").capitalize(), upstream[name])
            for name in SETTINGS
            if name in upstream and name not in _IN_ADDRESS
        ),
        *(
            [("Allowed fields", ", ".join(upstream["allowed_fields"]))]
            if upstream.get("allowed_fields")
            else []
        ),
        ("Key", _key(upstream)),
    ]
    console.show({"name": name, **_document(upstream)}, *text.aligned(rows))


def _document(upstream: Mapping[str, Any]) -> dict[str, Any]:
    return {"key_last4": None, **upstream}


def _key(upstream: Mapping[str, Any]) -> str:
    if not takes_key(upstream["kind"]):
        return "not needed"
    return f"…{upstream['key_last4']}" if "key_last4" in upstream else "none"
