"""The operator's command line against the running stack."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stack.conftest import Stack, envelope

WEIR = Path(sys.executable).with_name("weir")


def weir(stack: Stack, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "WEIR_LOCAL_DIR": str(stack.directory)}
    return subprocess.run(
        [WEIR, *words], env=env, capture_output=True, text=True, timeout=30, check=False
    )


def mint(stack: Stack, key: str) -> int:
    reply = stack.http.post(
        "/v1/auth/mint", headers={"Authorization": f"Bearer {key}"}, json={"user_id": "u"}
    )
    if reply.status_code != 200:
        envelope(reply, 401, "invalid_token")
    return reply.status_code


def test_created_key_mints_and_a_revoked_one_is_refused_at_once(stack: Stack) -> None:
    created = weir(stack, "keys", "create", "--name", "shop")
    assert created.returncode == 0, created.stderr
    key = created.stdout.strip()
    assert created.stdout == key + "\n", "alone on stdout, for KEY=$(weir keys create)"
    assert mint(stack, key) == 200

    status = weir(stack, "status", "--local").stdout
    (line,) = [line for line in status.splitlines() if line.endswith("shop")]
    key_id = line.split()[0]
    assert key not in status
    assert "active" in line

    assert "revoked" in weir(stack, "keys", "revoke", key_id).stdout
    assert mint(stack, key) == 401
    assert "revoked before" in weir(stack, "keys", "revoke", key).stdout


def test_status_says_what_is_deployed_and_that_it_answers(stack: Stack) -> None:
    status = weir(stack, "status")
    assert status.returncode == 0, status.stderr
    assert stack.env["BEHEST_BASE_URL"] in status.stdout
    assert "Answers      yes" in status.stdout


@pytest.mark.parametrize("key", ["key_0000000000000000", "behest_sk_live_" + "0" * 32, "nonsense"])
def test_unknown_key_is_one_clear_sentence(stack: Stack, key: str) -> None:
    answer = weir(stack, "keys", "revoke", key)
    assert answer.returncode == 1
    assert "No API key" in answer.stderr
    assert "Traceback" not in answer.stderr


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
    (tmp_path / "env").write_text("COGNITO_ENDPOINT=http://127.0.0.1:9\nWEIR_STACK=weir-local\n")
    answer = elsewhere(tmp_path, "keys", "create")
    assert (answer.returncode, answer.stdout) == (1, "")
    assert "make run" in answer.stderr


def test_no_credentials_for_aws_is_one_clear_sentence(tmp_path: Path) -> None:
    unset = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    answer = elsewhere(tmp_path, "--stack", "x", "status", **unset)
    assert answer.returncode == 1
    assert "No AWS credentials" in answer.stderr
    assert "Traceback" not in answer.stderr
