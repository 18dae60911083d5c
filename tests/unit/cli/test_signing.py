"""`weir signing` in this process, against moto: what it prints, asks and refuses. That the gateway
believes and refuses accordingly: tests/stack/test_signing.py.
"""

import base64
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives import serialization
from moto import mock_aws

from cli import signing
from cli.deployment import Deployment
from tests.unit.cli import test_cli
from tests.unit.cli.test_cli import Session, Weir
from weir.aws.minted import FIRST_BLOCK, Minted
from weir.aws.table import Table
from weir.identity.keyring import Kid, PublicKey, SigningKey

fresh, weir, configured = test_cli.fresh, test_cli.weir, test_cli.configured
NEXT_ROTATION = 1_900_000_000


@pytest.fixture(scope="module")
def deployment() -> Iterator[Deployment]:
    with mock_aws():
        session = Session("test", "test", region_name="us-east-1")
        session.client("secretsmanager").create_secret(Name="ring", SecretString="{}")
        outputs = {
            "TableName": "t",
            "ProjectId": "default",
            "ProviderKeysSecretArn": "provider-keys",
            "UserPoolId": "none",
            "SigningKeySecretArn": "ring",
            "TenantId": "tenant-1",
            "NextKeyMinimumAgeSeconds": "600",
        }
        yield Deployment("moto", "CREATE_COMPLETE", outputs, "http://127.0.0.1:9", session, None)


@pytest.fixture
def table(fresh: Deployment) -> Table:
    return fresh.table()


@pytest.fixture
def ring(table: Table, signing_key: SigningKey, other_key: SigningKey) -> dict[str, Kid]:
    """As a rotation a day ago has left it: current, next, and a retired key."""
    now = int(time.time())
    retired = Kid("ring_0")
    table.publish(PublicKey(retired, "AQAB", "AQAB", now - 90_000))
    table.publish(signing_key.public(created_at=now - 90_000))
    table.publish(other_key.public(created_at=now - 3600))
    table.signs_from(signing_key.kid, now - 3600)
    table.retire([retired], now + 80_000)
    return {"current": signing_key.kid, "next": other_key.kid, "retired": retired}


def minted(deployment: Deployment, kid: Kid) -> None:
    Minted(deployment.client("dynamodb"), "t").count(kid, int(time.time()))


def actions(configured: Weir) -> list[str]:
    return [entry["action"] for entry in configured("audit", "--json").json()["data"]]


# ---------------------------------------------------------------- tenants' keys


def test_created_key_is_alone_on_stdout_and_the_rest_of_the_environment_beside_it(
    configured: Weir,
) -> None:
    made = configured("signing", "create", "--name", "backend")
    (printed,) = made.out.splitlines()
    assert base64.b64decode(printed).startswith(b"-----BEGIN PRIVATE KEY-----")
    (key,) = configured("signing", "list", "--json").json()["data"]
    assert (key["project"], key["role"], key["name"]) == ("default", "tenant", "backend")
    for said in ("BEHEST_KID", key["kid"], "BEHEST_TENANT_ID   tenant-1", "BEHEST_PROJECT_ID"):
        assert said in made.err
    assert printed not in made.err
    assert actions(configured)[0] == "signing_key.create"


def test_created_key_as_json_has_everything_a_script_needs(configured: Weir) -> None:
    told = configured("signing", "create", "--every-project", "--json").json()
    assert told["kid"].startswith("sk_")
    assert told["project"] is None
    assert base64.b64decode(told["private_key"]).startswith(b"-----BEGIN PRIVATE KEY-----")


def test_public_half_is_taken_from_a_file_or_stdin(
    configured: Weir, tmp_path: Path, signing_key: SigningKey, other_key: SigningKey
) -> None:
    def pem(key: SigningKey) -> str:
        return (
            key.rsa()
            .public_key()
            .public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            .decode()
        )

    (tmp_path / "public.pem").write_text(pem(signing_key))
    told = configured("signing", "upload", str(tmp_path / "public.pem"), "--json").json()
    assert (told["project"], told["bits"]) == ("default", 2048)
    taken = configured("signing", "upload", "-", "--every-project", stdin=pem(other_key))
    assert taken.code == 0, taken.err
    assert "every project" in taken.out
    twice = configured("signing", "upload", "-", stdin=pem(other_key))
    assert twice.code == 1
    assert "That key is here already, as sk_" in twice.err, "the kid is no secret"


def test_private_half_is_not_taken_and_not_repeated(
    configured: Weir, signing_key: SigningKey
) -> None:
    answer = configured("signing", "upload", "-", stdin=signing_key.private_key)
    assert answer.code == 1
    assert "private key" in answer.err
    assert signing_key.private_key[100:140] not in answer.err


def test_key_is_for_one_project_or_for_every_one(configured: Weir) -> None:
    both = configured("signing", "create", "--project", "default", "--every-project")
    assert (both.code, "Either" in both.err) == (1, True)
    nowhere = configured("signing", "create", "--project", "nowhere")
    assert nowhere.code == 1
    assert "There is no project 'nowhere'" in nowhere.err


def test_revoking_asks_and_says_whether_it_was_active(configured: Weir) -> None:
    kid = configured("signing", "create", "--json").json()["kid"]
    unasked = configured("signing", "revoke", kid)
    assert unasked.code == 1
    assert "--yes" in unasked.err
    assert "is revoked" in configured("signing", "revoke", kid, types="yes\n").out
    assert "revoked before" in configured("signing", "revoke", kid).out
    (key,) = configured("signing", "list", "--json").json()["data"]
    assert (key["role"], key["tokens_alive"]) == ("revoked", 0)
    unknown = configured("signing", "revoke", "sk_" + "0" * 32, "--yes")
    assert unknown.code == 1
    assert "There is no signing key 'sk_000" in unknown.err


def test_distrusting_a_tenants_key_revokes_it(configured: Weir) -> None:
    kid = configured("signing", "create", "--json").json()["kid"]
    assert "is revoked" in configured("signing", "distrust", kid, "--yes").out
    elsewhere = configured("signing", "revoke", "ring_1", "--yes")
    assert elsewhere.code == 1
    assert "weir signing distrust ring_1" in elsewhere.err


# ---------------------------------------------------------------- the list


def test_list_tells_roles_ages_and_how_many_tokens_may_be_alive(
    configured: Weir,
    fresh: Deployment,
    ring: dict[str, Kid],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    minted(fresh, ring["current"])
    kid = configured("signing", "create", "--every-project", "--json").json()["kid"]
    due = {"NextRotationDate": datetime.fromtimestamp(NEXT_ROTATION, UTC)}
    monkeypatch.setattr(signing, "_described", lambda console: due)
    listed = configured("signing", "list")
    assert listed.code == 0, listed.err
    lines = {line.split()[0]: line for line in listed.out.splitlines() if line}
    assert "current" in lines[ring["current"]]
    assert "1 d" in lines[ring["current"]]
    assert f"at most {FIRST_BLOCK}" in lines[ring["current"]]
    assert "next" in lines[ring["next"]]
    assert "1 h" in lines[ring["next"]]
    assert "retired" in lines[ring["retired"]]
    assert "UTC" in lines[ring["retired"]]
    assert "not known" in lines[kid]
    assert "every project" in lines[kid]
    assert "Next rotation: 2030-03-17" in listed.out

    told = configured("signing", "list", "--json").json()
    assert told["next_rotation"] == NEXT_ROTATION
    alive = {key["kid"]: key["tokens_alive"] for key in told["data"]}
    assert alive == {ring["current"]: FIRST_BLOCK, ring["next"]: 0, ring["retired"]: 0, kid: None}


def test_empty_list_says_when_the_next_rotation_is(configured: Weir) -> None:
    listed = configured("signing", "list")
    assert listed.code == 0, listed.err
    assert "not scheduled" in listed.out


# ---------------------------------------------------------------- rotating


@pytest.fixture
def rotates(table: Table, ring: dict[str, Kid], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Secrets Manager's part, which moto does not play: the next key becomes the current one."""
    calls: list[str] = []

    def rotate_secret(SecretId: str) -> None:
        calls.append(SecretId)
        now = int(time.time())
        table.signs_from(ring["next"], now)
        table.retire([ring["current"]], now + 86_400)

    monkeypatch.setattr(signing, "_start_rotation", lambda console: rotate_secret("ring"))
    return calls


def test_rotation_is_started_watched_and_audited(
    configured: Weir, ring: dict[str, Kid], rotates: list[str]
) -> None:
    done = configured("signing", "rotate", "--json")
    assert done.json() == {"current": ring["next"], "retired": ring["current"]}
    assert rotates == ["ring"]
    assert actions(configured)[0] == "ring.rotate"


def test_rotation_that_is_too_early_says_when_and_what_to_do_about_a_leak(
    configured: Weir, table: Table, rotates: list[str], signing_key: SigningKey
) -> None:
    young = PublicKey(Kid("ring_young"), "AQAB", "AQAB", int(time.time()) - 100)
    table.publish(young)
    refused = configured("signing", "rotate")
    assert refused.code == 1
    assert "may sign after 600 s" in refused.err
    assert "Try again in" in refused.err
    assert "weir signing distrust ring_young" in refused.err
    assert rotates == []


def test_rotation_that_does_not_end_is_told(
    configured: Weir, ring: dict[str, Kid], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing, "_start_rotation", lambda console: None)
    monkeypatch.setattr(signing, "WAIT_S", 0)
    monkeypatch.setattr(signing, "LOOK_EVERY_S", 0)
    answer = configured("signing", "rotate")
    assert answer.code == 1
    assert "RotateFunction" in answer.err


def test_rotation_on_aws_is_secrets_managers(fresh: Deployment) -> None:
    called: list[str] = []
    there = SimpleNamespace(rotate_secret=lambda SecretId: called.append(SecretId))
    on_aws = SimpleNamespace(endpoint_url=None, client=lambda service: there, outputs=fresh.outputs)
    signing._start_rotation(SimpleNamespace(deployment=on_aws))  # type: ignore[arg-type]
    assert called == ["ring"]


# ---------------------------------------------------------------- distrusting


def test_key_that_signs_now_is_not_distrusted_and_rotation_is_named(
    configured: Weir, ring: dict[str, Kid]
) -> None:
    refused = configured("signing", "distrust", ring["current"], "--force", "--yes")
    assert refused.code == 1
    assert "signs now" in refused.err
    assert "weir signing rotate" in refused.err


def test_key_with_living_tokens_is_distrusted_only_by_force(
    configured: Weir, fresh: Deployment, ring: dict[str, Kid]
) -> None:
    minted(fresh, ring["retired"])
    refused = configured("signing", "distrust", ring["retired"], "--yes")
    assert refused.code == 1
    assert f"Up to {FIRST_BLOCK} tokens" in refused.err
    assert f"weir signing distrust {ring['retired']} --force" in refused.err
    done = configured("signing", "distrust", ring["retired"], "--force", "--yes")
    assert "refused within 5 seconds" in done.out
    assert "distrusted before" in configured("signing", "distrust", ring["retired"]).out
    assert actions(configured)[0] == "ring.distrust"


def test_distrusted_next_key_will_never_sign(configured: Weir, ring: dict[str, Kid]) -> None:
    unasked = configured("signing", "distrust", ring["next"])
    assert (unasked.code, "--yes" in unasked.err) == (1, True)
    done = configured("signing", "distrust", ring["next"], "--yes")
    assert "It will never sign" in done.out
    assert "weir signing rotate" in done.out


def test_unknown_key_is_one_clear_sentence(configured: Weir) -> None:
    answer = configured("signing", "distrust", "ring_x", "--yes")
    assert answer.code == 1
    assert "There is no key ring_x in the ring. weir signing list shows them." in answer.err
