"""The operator's command line against the running stack: the real command, and what the gateway
does afterwards. What it prints and asks is in tests/unit/test_cli.py.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.stack.conftest import Stack

WEIR = Path(sys.executable).with_name("weir")
PAGE = "https://cli.example.com"


def weir(stack: Stack, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "WEIR_LOCAL_DIR": str(stack.directory)}
    return subprocess.run(
        [WEIR, *words],
        env=env,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def done(stack: Stack, *words: str, stdin: str = "") -> str:
    """What a command that must succeed has said on stdout."""
    answer = weir(stack, *words, stdin=stdin)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def told(stack: Stack, *words: str) -> Any:
    return json.loads(done(stack, *words, "--json"))


@pytest.fixture(scope="module")
def shop(stack: Stack) -> Iterator[str]:
    """A project of these tests only; its key. Afterwards it is closed."""
    done(stack, "projects", "create", "cli-shop", "--origin", PAGE)
    done(stack, "tiers", "set", "cli-gold", "rpm=5", "--project", "cli-shop")
    yield done(stack, "keys", "create", "--project", "cli-shop").strip()
    done(stack, "projects", "suspend", "cli-shop", "--yes")


def mint(stack: Stack, key: str, **more: Any) -> int:
    reply = stack.http.post(
        "/v1/auth/mint", headers={"Authorization": f"Bearer {key}"}, json={"user_id": "u", **more}
    )
    assert reply.status_code in (200, 400, 401, 403), reply.text
    return reply.status_code


def test_created_key_mints_and_a_revoked_one_is_refused_at_once(stack: Stack) -> None:
    created = weir(stack, "keys", "create", "--name", "shop")
    assert created.returncode == 0, created.stderr
    key = created.stdout.strip()
    assert created.stdout == key + "\n", "alone on stdout, for KEY=$(weir keys create)"
    assert mint(stack, key) == 200

    status = done(stack, "status", "--local")
    (line,) = [line for line in status.splitlines() if line.endswith("shop")]
    key_id = line.split()[0]
    assert key not in status
    assert "active" in line

    assert "is revoked" in done(stack, "keys", "revoke", key_id, "--yes")
    assert mint(stack, key) == 401
    assert "revoked before" in done(stack, "keys", "revoke", key)


def test_status_says_what_is_deployed_and_that_it_answers(stack: Stack) -> None:
    status = weir(stack, "status")
    assert status.returncode == 0, status.stderr
    assert stack.env["BEHEST_BASE_URL"] in status.stdout
    assert "yes" in line_of(status.stdout, "Answers")
    assert stack.env["ALLOWED_ORIGIN"] in line_of(status.stdout, "Origins")
    assert done(stack, "url") == stack.env["BEHEST_BASE_URL"] + "\n"


def line_of(text: str, start: str) -> str:
    (line,) = [line for line in text.splitlines() if line.startswith(start)]
    return line


def test_unknown_key_is_one_clear_sentence(stack: Stack) -> None:
    answer = weir(stack, "keys", "revoke", "behest_sk_live_" + "0" * 32)
    assert answer.returncode == 1
    assert "No API key" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_project_that_was_made_mints_with_its_own_tier(stack: Stack, shop: str) -> None:
    assert mint(stack, shop, tier="cli-gold") == 200
    assert mint(stack, shop, tier="cli-silver") == 400


def test_suspended_project_mints_nothing(stack: Stack) -> None:
    done(stack, "projects", "create", "cli-closed")
    key = done(stack, "keys", "create", "--project", "cli-closed").strip()
    assert "suspended" in done(stack, "projects", "suspend", "cli-closed", "--yes")
    assert mint(stack, key) == 401


def test_killed_user_is_refused_on_his_next_request_and_no_other(stack: Stack, shop: str) -> None:
    assert mint(stack, shop, user_id="u_bad") == 200
    done(stack, "kill", "user", "u_bad", "--project", "cli-shop", "--reason", "abuse")
    assert mint(stack, shop, user_id="u_bad") == 403
    assert mint(stack, shop, user_id="u_good") == 200
    (switch,) = [s for s in told(stack, "switches")["data"] if s.get("project") == "cli-shop"]
    assert (switch["user_id"], switch["reason"]) == ("u_bad", "abuse")
    done(stack, "revive", "user", "u_bad", "--project", "cli-shop")
    assert mint(stack, shop, user_id="u_bad") == 200


def test_page_that_is_refused_is_found_explained_and_allowed(stack: Stack, shop: str) -> None:
    page = "https://cli-new.example.com"

    def allowed() -> bool:
        reply = stack.http.options(
            "/v1/chat/completions",
            headers={"Origin": page, "Access-Control-Request-Method": "POST"},
        )
        return "access-control-allow-origin" in reply.headers

    assert not allowed()
    refused = told(stack, "cors", "refused", "--project", "cli-shop")["data"]
    assert page in [each["origin"] for each in refused if each["project"] is None]

    why = weir(stack, "cors", "check", page, "--project", "cli-shop", "--local")
    assert why.returncode == 1
    command = why.stdout.splitlines()[-1].partition(": ")[2]
    assert command == f"weir --local origins add {page} --project cli-shop"
    done(stack, *command.split()[1:])
    elsewhere = weir(stack, "cors", "check", page, "--json")
    assert json.loads(elsewhere.stdout)["reason"] == "listed_elsewhere"


def test_model_with_its_upstream_and_key_comes_and_goes_and_the_key_is_shown_nowhere(
    stack: Stack,
) -> None:
    key = "sk-cli-0123456789abcdef"
    added = weir(stack, "models", "add", "cli-mini", "--from", "gpt-4o-mini")
    assert added.returncode == 0, added.stderr
    assert "weir upstreams set-key openai" in added.stderr
    given = weir(stack, "upstreams", "set-key", "openai", stdin=f"{key}\n")
    assert given.returncode == 0, given.stderr
    kept = json.loads(
        stack.aws("secretsmanager").get_secret_value(
            SecretId=stack.outputs()["ProviderKeysSecretArn"]
        )["SecretString"]
    )
    assert kept["openai"] == {"key": key, "host": "https://api.openai.com"}
    assert "local" in kept, "another upstream's key stays"

    arn = stack.aws("sts").get_caller_identity()["Arn"]
    trail = told(stack, "audit")
    newest = trail["data"][0]
    assert (newest["action"], newest["target"]) == ("upstream.key.set", "openai")
    assert newest["actor"] == arn
    assert newest["after"] == {"key_last4": key[-4:]}
    for said in (json.dumps(trail), given.stdout, given.stderr):
        assert key not in said

    done(stack, "models", "remove", "cli-mini", "--yes")
    done(stack, "upstreams", "remove", "openai", "--yes")
    assert "openai" not in told(stack, "upstreams", "list")["data"]


def test_export_imports_as_no_change_and_an_edited_one_as_exactly_that(
    stack: Stack, shop: str, tmp_path: Path
) -> None:
    file = tmp_path / "weir.json"
    done(stack, "export", str(file))
    assert stack.env["BEHEST_KEY"] not in file.read_text()
    assert done(stack, "import", str(file), "--dry-run") == "Nothing would change.\n"

    document = json.loads(file.read_text())
    document["projects"]["cli-shop"]["name"] = "From a file"
    edited = json.dumps(document)
    said = done(stack, "import", "-", "--yes", stdin=edited)
    assert said.splitlines() == [
        "project cli-shop",
        '  name: (not set) -> "From a file"',
        "One record changed.",
    ]


def test_user_is_erased_and_told_what_stays(stack: Stack, shop: str) -> None:
    said = done(stack, "erase-user", "u", "--project", "cli-shop", "--yes")
    assert "What stays" in said


def test_new_admin_is_invited_and_one_who_is_there_only_joins_the_group(stack: Stack) -> None:
    users, pool = stack.aws("cognito-idp"), stack.outputs()["UserPoolId"]
    new = "cli-admin@example.com"
    assert told(stack, "admins", "add", new)["created"] is True
    assert told(stack, "admins", "add", new)["created"] is False
    listed = users.admin_list_groups_for_user(UserPoolId=pool, Username=new)
    assert [group["GroupName"] for group in listed["Groups"]] == ["admins"]
    assert new in [admin["email"] for admin in told(stack, "admins", "list")["data"]]
    assert told(stack, "admins", "remove", new, "--yes")["was_admin"] is True
    listed = users.admin_list_groups_for_user(UserPoolId=pool, Username=new)
    assert listed["Groups"] == []
    users.admin_delete_user(UserPoolId=pool, Username=new)


def test_user_who_never_confirmed_his_address_does_not_become_an_admin(stack: Stack) -> None:
    users, pool = stack.aws("cognito-idp"), stack.outputs()["UserPoolId"]
    taken = "cli-taken@example.com"
    users.admin_create_user(
        UserPoolId=pool,
        Username=taken,
        MessageAction="SUPPRESS",
        UserAttributes=[{"Name": "email", "Value": taken}],
    )
    answer = weir(stack, "admins", "add", taken)
    assert answer.returncode == 1
    assert "has never shown" in answer.stderr
    assert users.admin_list_groups_for_user(UserPoolId=pool, Username=taken)["Groups"] == []
    users.admin_delete_user(UserPoolId=pool, Username=taken)


def test_answer_that_nobody_reads_to_its_end_is_no_traceback(stack: Stack) -> None:
    env = {**os.environ, "WEIR_LOCAL_DIR": str(stack.directory)}
    reading, writing = os.pipe()
    os.close(reading)
    try:
        answer = subprocess.run(
            [WEIR, "models", "known", "--json"],
            env=env,
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
            check=False,
        )
    finally:
        os.close(writing)
    assert "Traceback" not in answer.stderr
    assert "BrokenPipe" not in answer.stderr


def elsewhere(tmp_path: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Where nothing runs."""
    environment = {**os.environ, "WEIR_LOCAL_DIR": str(tmp_path), **env}
    return subprocess.run(
        [WEIR, *words], env=environment, capture_output=True, text=True, timeout=30, check=False
    )


def test_nothing_running_is_one_clear_sentence(tmp_path: Path) -> None:
    answer = elsewhere(tmp_path, "--local", "status")
    assert (answer.returncode, answer.stdout) == (1, "")
    assert "make run" in answer.stderr


def test_run_that_has_ended_is_not_taken_for_a_stack_on_aws(tmp_path: Path) -> None:
    left = {
        "COGNITO_ENDPOINT": "http://127.0.0.1:9",
        "WEIR_STACK": "weir-local",
        "WEIR_LOCAL_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "WEIR_LOCAL_SECRET_ACCESS_KEY": "secret",
    }
    (tmp_path / "env").write_text("".join(f"{name}={value}\n" for name, value in left.items()))
    answer = elsewhere(tmp_path, "keys", "create")
    assert (answer.returncode, answer.stdout) == (1, "")
    assert "make run" in answer.stderr


def test_no_credentials_for_aws_is_one_clear_sentence(tmp_path: Path) -> None:
    unset = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    answer = elsewhere(tmp_path, "--stack", "x", "status", **unset)
    assert answer.returncode == 1
    assert "No AWS credentials" in answer.stderr
    assert "Traceback" not in answer.stderr
