"""weir customers, weir client-tokens: end users with limits of their own, their pages' tokens."""

import argparse
import time
from collections.abc import Mapping
from typing import Any

from weir.customers.customer import Customer, usd
from weir.customers.names import EXTERNAL, PREFIX
from weir.operator.documents import CustomerChange, NewCustomer, parsed

from . import text
from .console import Console
from .deployment import CommandError
from .flags import Commands, pid_of

MOST_AT_ONCE = 100


def add_to(commands: Commands) -> None:
    group = commands.group("customers", "end users with limits of their own")
    listed = group.command("list", list_customers, "the newest first", project=True)
    listed.add_argument("--limit", metavar="N", type=int, default=20, help="how many (20)")
    show = group.command("show", show_customer, "one of them", project=True)
    create = group.command("create", create_customer, "make one", project=True)
    update = group.command("update", update_customer, "change what is named", project=True)
    off = group.command("block", block, "refuse one, from the next request on", project=True)
    on = group.command("unblock", unblock, "let one in again", project=True)
    delete = group.command(
        "delete", delete_customer, "remove one, with its tokens", project=True, asks=True
    )
    for parser in (show, update, off, on, delete):
        parser.add_argument("ref", metavar="REF", help="cust_…, or the external id")
    create.add_argument("external_id", metavar="EXTERNAL_ID", help="your own id of the user")
    for parser in (create, update):
        _add_fields(parser)
    tokens = commands.group("client-tokens", "tokens of customers' pages")
    of_one = tokens.command("list", list_tokens, "a customer's tokens", project=True)
    revoke = tokens.command(
        "revoke", revoke_token, "refuse one from the next request on", project=True
    )
    every = tokens.command(
        "revoke-all", revoke_tokens, "refuse all that a customer has now", project=True, asks=True
    )
    revoke.add_argument("token", metavar="ID", help="the token's id, ct_…")
    for parser in (of_one, every):
        parser.add_argument("ref", metavar="REF", help="cust_…, or the external id")


def _add_fields(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", help="a name for people")
    parser.add_argument("--budget-usd", metavar="USD", type=_limit(float), help="a month; or none")
    for flag, of in (
        ("--rate-limit-rpm", "requests a minute; or none"),
        ("--rate-limit-tpm", "tokens a minute; or none"),
        ("--max-output-tokens", "of one request; or none"),
    ):
        parser.add_argument(flag, metavar="N", type=_limit(int), help=of)
    parser.add_argument(
        "--allow-model",
        dest="allowed_models",
        metavar="REFERENCE",
        action="append",
        help="fc:provider/model, or fc:provider/*; may be repeated, and replaces the list",
    )


NO_LIMIT = "none"


def _limit(kind: type[int] | type[float]) -> Any:
    def limit(typed: str) -> int | float | str:
        if typed == NO_LIMIT:
            return NO_LIMIT
        try:
            return kind(typed)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{typed!r} is no number, nor none") from None

    return limit


def _told(asked: argparse.Namespace) -> dict[str, Any]:
    names = (
        *("name", "budget_usd", "rate_limit_rpm", "rate_limit_tpm", "max_output_tokens"),
        "allowed_models",
    )
    given = {name: getattr(asked, name) for name in names if getattr(asked, name) is not None}
    return {name: None if value == NO_LIMIT else value for name, value in given.items()}


def _ref(asked: argparse.Namespace) -> str:
    ref: str = asked.ref
    return ref if ref.startswith((EXTERNAL, PREFIX)) else EXTERNAL + ref


def list_customers(console: Console, asked: argparse.Namespace) -> None:
    pid = pid_of(console, asked)
    if not 1 <= asked.limit <= 10_000:
        raise CommandError("--limit is from 1 to 10,000.")
    found: list[Customer] = []
    after = None
    while len(found) < asked.limit:
        page, after = console.operator.customers(
            pid, min(MOST_AT_ONCE, asked.limit - len(found)), after
        )
        found += page
        if after is None:
            break
    rows = [
        (
            each.id,
            text.printable(each.external_id),
            each.status,
            "none"
            if each.limits.nano_usd_per_month is None
            else usd(each.limits.nano_usd_per_month),
            "any" if each.limits.rpm is None else each.limits.rpm,
            text.printable(each.name or ""),
        )
        for each in found
    ]
    heads = ("CUSTOMER", "EXTERNAL ID", "STATE", "USD A MONTH", "RPM", "NAME")
    console.show({"data": [each.fields() for each in found]}, *text.table(heads, rows))
    if not found:
        console.note(f"The project {pid} has none.")
    elif after is not None:
        console.note("There are more: --limit.")


def show_customer(console: Console, asked: argparse.Namespace) -> None:
    _show(console, console.operator.customer(pid_of(console, asked), _ref(asked)))


def create_customer(console: Console, asked: argparse.Namespace) -> None:
    told = parsed(NewCustomer, {"external_id": asked.external_id, **_told(asked)}).stored()
    _show(console, console.operator.create_customer(pid_of(console, asked), told))


def update_customer(console: Console, asked: argparse.Namespace) -> None:
    told = _told(asked)
    if not told:
        raise CommandError("Say what to change; `weir customers update --help` lists the flags.")
    _change(console, asked, told)


def block(console: Console, asked: argparse.Namespace) -> None:
    _change(console, asked, {"status": "blocked"})


def unblock(console: Console, asked: argparse.Namespace) -> None:
    _change(console, asked, {"status": "active"})


def _change(console: Console, asked: argparse.Namespace, told: Mapping[str, Any]) -> None:
    change = parsed(CustomerChange, told).stored()
    _show(console, console.operator.change_customer(pid_of(console, asked), _ref(asked), change))
    console.note("It counts on the next request.")


def delete_customer(console: Console, asked: argparse.Namespace) -> None:
    pid = pid_of(console, asked)
    console.confirm(f"The customer {text.printable(asked.ref)} of {pid} will be removed for good.")
    gone = console.operator.delete_customer(pid, _ref(asked))
    console.show(
        {"id": gone.id, "deleted": True},
        f"{gone.id} is removed; its tokens are refused. What it has used stays in usage.",
    )


def list_tokens(console: Console, asked: argparse.Namespace) -> None:
    pid = pid_of(console, asked)
    found: list[dict[str, Any]] = []
    after = None
    while True:
        page, after = console.operator.client_tokens(pid, _ref(asked), MOST_AT_ONCE, after)
        found += page
        if after is None:
            break
    rows = [
        (
            each["id"],
            each["status"],
            time.strftime("%Y-%m-%d %H:%M", time.gmtime(each["expires_at"])),
            " ".join(each["scope"]),
            " ".join(each["origin_allowlist"]),
        )
        for each in found
    ]
    heads = ("TOKEN", "STATE", "EXPIRES (UTC)", "SCOPES", "PAGES")
    console.show({"data": found}, *text.table(heads, rows))


def revoke_token(console: Console, asked: argparse.Namespace) -> None:
    pid = pid_of(console, asked)
    console.operator.revoke_client_token(pid, asked.token)
    console.show(
        {"id": asked.token, "revoked": True},
        f"{asked.token} is refused from the next request on.",
    )


def revoke_tokens(console: Console, asked: argparse.Namespace) -> None:
    pid = pid_of(console, asked)
    console.confirm(f"Every token of {text.printable(asked.ref)} of {pid} will be refused.")
    found = console.operator.revoke_client_tokens(pid, _ref(asked))
    console.show(
        {"customer": found.id, "revoked": True},
        f"Every token of {found.id} that was made until now is refused from the next request on.",
    )


def _show(console: Console, each: Customer) -> None:
    console.show(
        each.fields(),
        *text.aligned(
            [
                ("Customer", each.id),
                ("External id", text.printable(each.external_id)),
                ("Name", text.printable(each.name or "-")),
                ("State", each.status),
                ("USD a month", _usd(each)),
                ("Requests a minute", "any" if each.limits.rpm is None else each.limits.rpm),
                ("Tokens a minute", "any" if each.limits.tpm is None else each.limits.tpm),
                ("Output tokens", each.limits.max_output_tokens or "the model's"),
                (
                    "Models",
                    "all that the project offers"
                    if each.allowed_models is None
                    else ", ".join(each.allowed_models) or "none",
                ),
            ]
        ),
    )


def _usd(each: Customer) -> object:
    budget = each.limits.nano_usd_per_month
    return "no budget" if budget is None else usd(budget)
