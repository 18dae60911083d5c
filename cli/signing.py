"""weir signing: the keys that sign user tokens: the ring, and those of tenants' servers."""

import argparse
import http.client
import json
import socket
import time
from typing import Any

from weir.aws.minted import Minted
from weir.errors import Conflict
from weir.identity.keyring import Kid, PublicKey
from weir.identity.tenant_keys import TenantKey, is_tenant_kid
from weir.operator.documents import NewSigningKey, parsed

from . import text
from .console import Console
from .deployment import LOCAL_ENV, CommandError
from .flags import Commands, read_input

WAIT_S = 60  # for a rotation: four calls of a function, one of which may start cold
LOOK_EVERY_S = 1.0


def add_to(commands: Commands) -> None:
    group = commands.group("signing", "keys that sign user tokens")
    group.command("list", list_keys, "every key: the ring's, and those of tenants' servers")
    create = group.command(
        "create",
        create_key,
        "make a key for a server that signs tokens itself; printed once, alone on stdout",
        project=True,
    )
    upload = group.command(
        "upload", upload_key, "take the public half of a key that was made elsewhere", project=True
    )
    upload.add_argument("file", metavar="FILE", help="PEM or JWK; - is stdin")
    for parser in (create, upload):
        parser.add_argument(
            "--every-project",
            action="store_true",
            help="it may sign for every project, those included that are made later",
        )
        parser.add_argument("--name", default="", help="which server has it")
    revoke = group.command(
        "revoke", revoke_key, "believe a tenant's key no longer, for good", asks=True
    )
    revoke.add_argument("kid", metavar="KID", help="its id (sk_…)")
    group.command(
        "rotate", rotate_ring, "let the ring's next key sign from now on, and make another"
    )
    distrust = group.command(
        "distrust", distrust_key, "believe a leaked key no longer, for good", asks=True
    )
    distrust.add_argument("kid", metavar="KID", help="its id")
    distrust.add_argument(
        "--force", action="store_true", help="also if tokens may be alive that it has signed"
    )


# ---------------------------------------------------------------- list


def list_keys(console: Console, _asked: argparse.Namespace) -> None:
    now = int(time.time())
    minted = _minted(console)
    ring = console.operator.ring()
    told = [
        *(_of_the_ring(key, minted, now) for key in ring),
        *(_of_a_tenant(key) for key in console.operator.tenant_keys()),
    ]
    secret = _described(console)
    rows = [_row(each, now) for each in told]
    heads = ("KID", "ROLE", "AGE", "BELIEVED UNTIL", "TOKENS ALIVE", "PROJECT", "NAME")
    lines = text.table(heads, rows)
    times = {
        "last_rotation": _unix(secret.get("LastRotatedDate")),
        "next_rotation": _unix(secret.get("NextRotationDate")),
    }
    due = times["next_rotation"]
    lines += ["", f"Next rotation: {text.day(due) if due else 'not scheduled here'}."]
    console.show({"data": told, **times}, *lines)


def _of_the_ring(key: PublicKey, minted: Minted, now: int) -> dict[str, Any]:
    """`tokens_alive` is an upper bound: tokens are counted in blocks before they are signed."""
    return {
        "kid": key.kid,
        "role": key.role,
        "created_at": key.created_at,
        "signs_since": key.signs_since,
        "believed_until": key.not_after,
        "tokens_alive": minted.outstanding(key.kid, now) if key.believed_at(now) else 0,
        "project": None,
        "name": "",
    }


def _of_a_tenant(key: TenantKey) -> dict[str, Any]:
    """`tokens_alive` null: not known, they are signed elsewhere."""
    return {
        "kid": key.kid,
        "role": "tenant" if key.revoked_at is None else "revoked",
        "created_at": key.public.created_at,
        "signs_since": None,
        "believed_until": key.revoked_at,
        "tokens_alive": None if key.revoked_at is None else 0,
        "project": key.pid or "every project",
        "name": key.name,
    }


def _row(told: dict[str, Any], now: int) -> tuple[object, ...]:
    until, alive = told["believed_until"], told["tokens_alive"]
    believed = "further notice" if until is None else text.day(until) if until > now else "no"
    if alive is None:
        alive = "not known"
    return (
        told["kid"],
        told["role"],
        _age(now - told["created_at"]),
        believed,
        f"at most {alive}" if alive and alive != "not known" else alive,
        told["project"] or "",
        told["name"],
    )


def _age(seconds: int) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{max(seconds, 0)} s"


# ---------------------------------------------------------------- tenants' keys


def create_key(console: Console, asked: argparse.Namespace) -> None:
    new = _new(console, asked)
    private, key = console.operator.create_tenant_key(new.project, name=new.name)
    # Alone on stdout, so that KEY=$(weir signing create) works.
    console.show({**key.document(), "private_key": private}, private)
    console.note(
        f"{key.kid} signs for {_for(key)}. Its private half is shown only now, and kept nowhere "
        "here. On the server that signs, never in a page:"
    )
    _note_environment(console, key, "the line on stdout")


def upload_key(console: Console, asked: argparse.Namespace) -> None:
    new = _new(console, asked)
    given = read_input(asked.file)
    key = console.operator.upload_tenant_key(new.project, given, name=new.name)
    console.show(key.document(), f"{key.kid} signs for {_for(key)}.")
    console.note("On the server that signs:")
    _note_environment(
        console, key, "base64 of the private half as PKCS#8 PEM: openssl base64 -A -in FILE"
    )


def revoke_key(console: Console, asked: argparse.Namespace) -> None:
    if not is_tenant_kid(asked.kid):
        say = console.command("signing", "distrust", asked.kid)
        raise CommandError(f"{asked.kid} is no tenant's key (sk_…). For a key of the ring: {say}")
    _revoke(console, asked.kid)


def _revoke(console: Console, kid: str) -> None:
    key = next((key for key in console.operator.tenant_keys() if key.kid == kid), None)
    was_active = key is None or key.revoked_at is None
    if key is not None and was_active:
        named = f" ({text.printable(key.name)})" if key.name else ""
        console.confirm(f"Tokens signed with {kid}{named} for {_for(key)} will be refused.")
    was_active = console.operator.revoke_tenant_key(kid) and was_active
    console.show(
        {"kid": kid, "revoked": True, "was_active": was_active},
        f"{kid} is revoked: its tokens are refused within 5 seconds."
        if was_active
        else f"{kid} was revoked before.",
    )


def _new(console: Console, asked: argparse.Namespace) -> NewSigningKey:
    if asked.every_project and asked.project:
        raise CommandError("Either --project or --every-project.")
    project = None if asked.every_project else str(asked.project or console.deployment.pid)
    told = {"name": asked.name, "project": project, "every_project": asked.every_project}
    return parsed(NewSigningKey, told)


def _for(key: TenantKey) -> str:
    return "every project" if key.pid is None else f"project {key.pid}"


def _note_environment(console: Console, key: TenantKey, private: str) -> None:
    tenant = console.deployment.outputs.get("TenantId", "the stack's output TenantId")
    console.note(f"  BEHEST_KEY         {private}")
    console.note(f"  BEHEST_KID         {key.kid}")
    console.note(f"  BEHEST_TENANT_ID   {tenant}")
    console.note(f"  BEHEST_PROJECT_ID  {key.pid or 'the project of the user'}")
    console.note(f"  BEHEST_BASE_URL    {console.deployment.url}")


# ---------------------------------------------------------------- the ring


def rotate_ring(console: Console, _asked: argparse.Namespace) -> None:
    ring = console.operator.ring()
    _refuse_too_early(console, ring)
    before = _current(ring)
    console.operator.note_rotation()
    console.note("Rotating: the next key becomes the current one.")
    _start_rotation(console)
    give_up = time.monotonic() + WAIT_S
    while (current := _current(console.operator.ring())) == before:
        if time.monotonic() > give_up:
            say = console.command("signing", "list")
            raise CommandError(
                f"The rotation has started, and is not done after {WAIT_S} s. {say} shows when it "
                "is; why it fails is in the log of the function RotateFunction."
            )
        time.sleep(LOOK_EVERY_S)
    console.show(
        {"current": current, "retired": before},
        f"{current} signs from now on."
        + (f" {before} is believed for as long as its tokens live." if before else ""),
    )


def distrust_key(console: Console, asked: argparse.Namespace) -> None:
    kid, minted = asked.kid, _minted(console)
    if is_tenant_kid(kid):
        _revoke(console, kid)
        return
    key = next((key for key in console.operator.ring() if key.kid == kid), None)
    if key is None:
        raise CommandError(
            f"There is no key {kid} in the ring. {console.command('signing', 'list')} shows them."
        )
    if key.distrusted_at is None and key.role != "current":
        console.confirm(f"Every token signed with {kid} ({key.role}) will be refused, for good.")
    try:
        was_believed = console.operator.distrust(kid, minted, force=asked.force)
    except Conflict as refusal:
        raise CommandError(_instead(console, kid, refusal)) from None
    lines = [f"{kid} is distrusted: what it has signed is refused within 5 seconds."]
    if key.role == "next":
        lines.append(
            "It will never sign: the next rotation makes both keys anew. To have that now: "
            + console.command("signing", "rotate")
        )
    console.show(
        {"kid": kid, "distrusted": True, "was_believed": was_believed},
        *(lines if was_believed else [f"{kid} was distrusted before."]),
    )


def _instead(console: Console, kid: str, refusal: Conflict) -> str:
    reason = refusal.details.get("reason")
    if reason == "signs_now":
        return f"{refusal.message} {console.command('signing', 'rotate')}"
    if reason == "living_tokens":
        say = console.command("signing", "distrust", kid, "--force")
        return f"{refusal.message} If the key has leaked: {say}"
    return refusal.message


def _refuse_too_early(console: Console, ring: list[PublicKey]) -> None:
    least = int(console.deployment.outputs.get("NextKeyMinimumAgeSeconds", 0))
    now = int(time.time())
    for key in ring:
        if key.role == "next" and now - key.created_at < least:
            say = console.command("signing", "distrust", key.kid)
            raise CommandError(
                f"Too early: the next key {key.kid} was published {now - key.created_at} s ago, "
                f"and may sign after {least} s, when every verifier has seen it. Try again in "
                f"{least - now + key.created_at} s. If it has leaked, too: {say}, then rotate; "
                "both keys are then made anew."
            )


def _current(ring: list[PublicKey]) -> Kid | None:
    """Return the key that signs: of two, which there may be for a moment, the newer one."""
    signing = [key for key in ring if key.role == "current"]
    return max(signing, key=lambda key: key.signs_since or 0).kid if signing else None


def _start_rotation(console: Console) -> None:
    deployment = console.deployment
    if deployment.endpoint_url is None:
        deployment.client("secretsmanager").rotate_secret(SecretId=_secret(console))
        return
    # The embedded AWS has no rotation; `make run` plays Secrets Manager's part.
    local = _Local(str(LOCAL_ENV.parent / "control.sock"))
    try:
        local.request("POST", "/rotate")
        answer = local.getresponse()
        told = json.loads(answer.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise CommandError(f"`make run` does not answer: {error}") from None
    finally:
        local.close()
    if answer.status != 200:
        raise CommandError(f"The rotation failed: {told.get('error')}")


class _Local(http.client.HTTPConnection):
    """Over the control socket of `make run`."""

    def __init__(self, path: str) -> None:
        super().__init__("weir", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _secret(console: Console) -> str:
    try:
        return console.deployment.outputs["SigningKeySecretArn"]
    except KeyError:
        raise CommandError("The stack is of another release: deploy this one first.") from None


def _described(console: Console) -> dict[str, Any]:
    found: dict[str, Any] = console.deployment.client("secretsmanager").describe_secret(
        SecretId=_secret(console)
    )
    return found


def _minted(console: Console) -> Minted:
    deployment = console.deployment
    return Minted(deployment.client("dynamodb"), deployment.outputs["TableName"])


def _unix(moment: Any) -> int | None:
    return None if moment is None else int(moment.timestamp())
