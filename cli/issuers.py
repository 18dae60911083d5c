"""weir issuers: other issuers whose users may call: Clerk, Auth0, Supabase, Firebase, Cognito, any
OpenID Connect provider.
"""

import argparse
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from weir.errors import BadRequest
from weir.identity.issuers import CHECKS
from weir.identity.key_sets import KeySetUnavailable
from weir.operator.documents import IssuerDocument, IssuerName, parsed

from . import text
from .console import Console
from .deployment import CommandError
from .flags import Commands, checked_name, pid_of, read_input

Told = dict[str, Any]


class Provider(NamedTuple):
    """A known issuer: what it is asked for, and the entry that this makes."""

    help_text: str
    flags: Mapping[str, str]  # the flag's help, by its name
    entry: Callable[[argparse.Namespace], Told]


def _clerk(asked: argparse.Namespace) -> Told:
    # clerk.com/docs: "Session tokens", "Manual JWT verification".
    issuer = f"https://{asked.domain}"
    return {
        "issuer": issuer,
        "jwks_uri": f"{issuer}/.well-known/jwks.json",
        "algs": ["RS256"],
        "session_claim": "sid",
    }


def _auth0(asked: argparse.Namespace) -> Told:
    # auth0.com/docs: "Validate JSON Web Tokens", "Locate JSON Web Key Sets".
    issuer = f"https://{asked.domain}/"  # Auth0's has the slash
    return {
        "issuer": issuer,
        "jwks_uri": f"{issuer}.well-known/jwks.json",
        "algs": ["RS256"],
    }


def _supabase(asked: argparse.Namespace) -> Told:
    # supabase.com/docs: "JWT signing keys", "JWT claims reference".
    issuer = f"https://{asked.project_ref}.supabase.co/auth/v1"
    return {
        "issuer": issuer,
        "jwks_uri": f"{issuer}/.well-known/jwks.json",
        "algs": ["ES256", "RS256"],
        "audiences": ["authenticated"],
        "session_claim": "session_id",
    }


def _firebase(asked: argparse.Namespace) -> Told:
    # firebase.google.com/docs: "Verify ID tokens using a third-party JWT library".
    return {
        "issuer": f"https://securetoken.google.com/{asked.project_id}",
        "jwks_uri": "https://www.googleapis.com/service_accounts/v1/jwk/"
        "securetoken@system.gserviceaccount.com",
        "algs": ["RS256"],
        "audiences": [asked.project_id],
    }


def _cognito(asked: argparse.Namespace) -> Told:
    # docs.aws.amazon.com/cognito: "Verifying JSON web tokens".
    region, _, rest = asked.user_pool_id.partition("_")
    if not rest:
        raise CommandError("A user pool's id looks like eu-central-1_AbCdEfGhI.")
    issuer = f"https://cognito-idp.{region}.amazonaws.com/{asked.user_pool_id}"
    return {
        "issuer": issuer,
        "jwks_uri": f"{issuer}/.well-known/jwks.json",
        "algs": ["RS256"],
        "audiences": [asked.client_id],
    }


def _oidc(asked: argparse.Namespace) -> Told:
    from weir.upstreams.key_sets import KeySetFetcher

    jwks_uri = asked.jwks_uri
    if jwks_uri is None:
        try:
            jwks_uri = KeySetFetcher().discovered(asked.issuer)
        except KeySetUnavailable as error:
            raise CommandError(f"{error} Name its keys yourself: --jwks-uri.") from None
    return {"issuer": asked.issuer, "jwks_uri": jwks_uri, "algs": ["RS256"]}


PROVIDERS = {
    "clerk": Provider(
        "Clerk; its session tokens name the page (azp), by default one of the project's origins",
        {"domain": "the Frontend API's host, such as clerk.example.com"},
        _clerk,
    ),
    "auth0": Provider(
        "Auth0; --audience is your API's identifier, or the client id for ID tokens",
        {"domain": "the tenant's domain, such as example.eu.auth0.com"},
        _auth0,
    ),
    "supabase": Provider(
        "Supabase, with asymmetric JWT signing keys",
        {"project-ref": "the project's reference, the first part of its URL"},
        _supabase,
    ),
    "firebase": Provider(
        "Firebase Authentication",
        {"project-id": "the Firebase project's id"},
        _firebase,
    ),
    "cognito": Provider(
        "another Cognito user pool, with its ID tokens",
        {"user-pool-id": "such as eu-central-1_AbCdEfGhI", "client-id": "the app client's id"},
        _cognito,
    ),
    "oidc": Provider(
        "any OpenID Connect provider, or whoever else publishes keys",
        {"issuer": "iss of its tokens, exactly"},
        _oidc,
    ),
}


def add_to(commands: Commands) -> None:
    group = commands.group("issuers", "other sign-ins whose users may call a project")
    group.command("list", list_issuers, "the issuers that a project trusts", project=True)
    add = group.group("add", "trust an issuer, or replace what is said of it")
    for name, provider in PROVIDERS.items():
        made = add.command(name, add_issuer, provider.help_text, project=True)
        made.set_defaults(provider=name)
        _add_flags(made, name, provider)
    remove = group.command(
        "remove", remove_issuer, "trust an issuer no longer", project=True, asks=True
    )
    remove.add_argument("name", metavar="NAME", help="as `weir issuers list` shows it")
    test = group.command(
        "test",
        test_token,
        "say whether a token would be exchanged, and if not, which check it fails (exit code 1)",
        project=True,
    )
    test.add_argument("token", metavar="TOKEN|-", help="a token of an issuer; -: read from stdin")


def _add_flags(parser: argparse.ArgumentParser, name: str, provider: Provider) -> None:
    for flag, help_text in provider.flags.items():
        parser.add_argument(f"--{flag}", required=True, help=help_text)
    if name == "oidc":
        parser.add_argument("--jwks-uri", help="where its keys are (default: as it publishes)")
    parser.add_argument(
        "--name", default=name, help=f"begins its users' ids, before a colon (default: {name})"
    )
    for flag, of in (
        ("--audience", "one of which the token's aud must name"),
        ("--authorized-party", "one of which the token's azp must be"),
        ("--alg", "with which it signs: RS256, ES256, EdDSA"),
    ):
        parser.add_argument(flag, action="append", metavar="VALUE", help=f"{of}; may be repeated")
    parser.add_argument("--uid-claim", metavar="CLAIM", help="names the user (default: sub)")
    parser.add_argument(
        "--tier-claim",
        metavar="CLAIM",
        help="names the tier; a.b is the member b of the claim a (default: none)",
    )
    parser.add_argument("--session-claim", metavar="CLAIM", help="names the session")
    parser.add_argument(
        "--no-prefix",
        action="store_true",
        help="its users' ids are those that your server mints; for one issuer of a project",
    )
    parser.add_argument(
        "--allow-anonymous", action="store_true", help="also users without an account"
    )
    parser.add_argument(
        "--new-users-per-hour",
        metavar="N",
        type=int,
        help="users that were not seen before (default: 100)",
    )
    parser.add_argument(
        "--ttl",
        metavar="SECONDS",
        type=int,
        help="for which a token lives, 60 to 3600 (default: SessionTokenTtlSeconds)",
    )


def add_issuer(console: Console, asked: argparse.Namespace) -> None:
    pid, name = pid_of(console, asked), checked_name(IssuerName, asked.name, "an issuer")
    told = {**PROVIDERS[asked.provider].entry(asked), **_flags(asked)}
    if asked.provider == "clerk" and not {"audiences", "authorized_parties"} & told.keys():
        told["authorized_parties"] = console.operator.project(pid)["origins"]
    try:
        entry = parsed(IssuerDocument, told)
    except BadRequest as refusal:
        if "audiences and authorized_parties" not in refusal.message:
            raise
        raise CommandError(
            "Its tokens are made for many. Name yours: --audience or --authorized-party."
        ) from None
    made = console.operator.put_issuer(pid, name, entry)
    console.show(made, *_lines(made))
    console.note("It counts within 5 seconds.")
    say = console.command("issuers", "test", "-", "--project", pid)
    console.note(f"Try it with a token of your sign-in: {say}")


def _flags(asked: argparse.Namespace) -> Told:
    """What was said of it, under the entry's names."""
    named = {
        "audiences": asked.audience,
        "authorized_parties": asked.authorized_party,
        "algs": asked.alg,
        "uid_claim": asked.uid_claim,
        "tier_claim": asked.tier_claim,
        "session_claim": asked.session_claim,
        "prefix_user_ids": False if asked.no_prefix else None,
        "allow_anonymous": True if asked.allow_anonymous else None,
        "new_users_per_hour": asked.new_users_per_hour,
        "ttl": asked.ttl,
    }
    return {name: value for name, value in named.items() if value is not None}


def list_issuers(console: Console, asked: argparse.Namespace) -> None:
    pid = pid_of(console, asked)
    found = console.operator.issuers(pid)
    rows = [
        (
            each["name"],
            each["issuer"],
            " ".join(each["algs"]),
            ", ".join([*each.get("audiences", ()), *each.get("authorized_parties", ())]),
            f"{each['name']}:…" if each.get("prefix_user_ids", True) else "as they are",
        )
        for each in found
    ]
    heads = ("NAME", "ISSUER", "ALGORITHMS", "MADE FOR", "USER IDS")
    console.show({"data": found}, *text.table(heads, rows))
    if not found:
        say = console.command("issuers", "add", "--help")
        console.note(f"The project {pid} trusts none: {say}")


def remove_issuer(console: Console, asked: argparse.Namespace) -> None:
    pid = pid_of(console, asked)
    console.confirm(f"Users of {text.printable(asked.name)} will get no token for {pid} any more.")
    console.operator.remove_issuer(pid, asked.name)
    console.show(
        {"project": pid, "name": asked.name, "removed": True},
        f"The project {pid} trusts {asked.name} no longer, within 5 seconds. Tokens of its users "
        "live until they expire.",
    )


def test_token(console: Console, asked: argparse.Namespace) -> int:
    from weir.upstreams.key_sets import KeySetFetcher

    pid = pid_of(console, asked)
    token = read_input("-").strip() if asked.token == "-" else asked.token  # noqa: S105
    judged = console.operator.judge_token(
        pid, token, KeySetFetcher().find, pool_users=pid == console.deployment.pid
    )
    told = judged.document()
    rows = [("ok", CHECKS[check]) for check in judged.passed]
    if judged.failed is not None:
        rows.append(("FAILS", f"{CHECKS[judged.failed]}: {judged.message}"))
    elif judged.identity is not None:
        who = judged.identity
        rows += [
            ("user", who.user_id),
            ("tier", who.tier or "none: the limits without tier hold"),
            ("session", who.session_id or "none: the page may name it, or it is new"),
        ]
    console.show(told, *text.aligned(rows))
    return 0 if told["accepted"] else 1


def _lines(entry: Mapping[str, Any]) -> list[str]:
    listed = {
        "Name": entry["name"],
        "Issuer": entry["issuer"],
        "Keys": entry["jwks_uri"],
        "Algorithms": ", ".join(entry["algs"]),
        "Audiences": ", ".join(entry["audiences"]) or "not looked at",
        "Authorized parties": ", ".join(entry["authorized_parties"]) or "not looked at",
        "User": entry["uid_claim"],
        "User ids": f"{entry['name']}:…" if entry["prefix_user_ids"] else "as they are",
        "Tier": entry.get("tier_claim") or "none: the limits without tier hold",
        "Session": entry.get("session_claim") or "as the page names it, or new",
        "Anonymous users": "allowed" if entry["allow_anonymous"] else "refused",
        "New users an hour": entry["new_users_per_hour"],
        "Tokens live for": f"{entry['ttl']} s" if "ttl" in entry else "SessionTokenTtlSeconds",
    }
    return text.aligned(listed.items())
