"""From a fresh deployment to a first token, and to a first answer: the documents' own commands.

The deployment is the embedded AWS without any configuration; `weir --stack` reaches it as it would
reach AWS. Only the address of API Gateway, which nothing here answers, is put right on its way to
curl.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.provider import FakeProvider
from tests.stack.conftest import ROOT, Stack, start

STACK = "weir-local"


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with start(
        tmp_path_factory.mktemp("fresh"),
        WEIR_EMPTY="1",
        UPSTREAM_BASE_URL="http://127.0.0.1:9/v1",
        UPSTREAM_MODEL="nobody",
        UPSTREAM_PRICE_INPUT="0",
        UPSTREAM_PRICE_OUTPUT="0",
    ) as running:
        yield running


def blocks(document: str, heading: str) -> list[str]:
    """The commands under a heading."""
    text = (ROOT / document).read_text()
    section = re.split(r"^## ", text.split(f"## {heading}")[1], flags=re.MULTILINE)[0]
    return re.findall(r"```\n(.*?)```", section, re.DOTALL)


def run(
    fresh: Stack, tools: Path, script: str, typed: str = ""
) -> subprocess.CompletedProcess[str]:
    """As a person would paste it, in a checkout."""
    shim = tools / "curl"
    curl = shutil.which("curl")
    assert curl is not None
    here = fresh.env["BEHEST_BASE_URL"]
    shim.write_text(
        '#!/bin/bash\nfor a in "$@"; do\n'
        f'  args+=("$(sed -E "s#https://[^/]*execute-api[^/]*/live#{here}#" <<<"$a")")\n'
        f'done\nexec {curl} "${{args[@]}}"\n'
    )
    shim.chmod(0o755)
    environment = {
        **{n: v for n, v in os.environ.items() if not n.startswith(("AWS_", "WEIR_"))},
        "PATH": f"{tools}:{os.environ['PATH']}",
        "AWS_ENDPOINT_URL": fresh.env["COGNITO_ENDPOINT"],
        "AWS_ACCESS_KEY_ID": fresh.env["WEIR_LOCAL_ACCESS_KEY_ID"],
        "AWS_SECRET_ACCESS_KEY": fresh.env["WEIR_LOCAL_SECRET_ACCESS_KEY"],
        "AWS_REGION": "us-east-1",
    }
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script.replace("weir-dev", STACK)],
        cwd=ROOT,
        env=environment,
        input=typed,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_readme_leads_from_a_fresh_deployment_to_a_first_token(
    fresh: Stack, tmp_path: Path
) -> None:
    _, commands = blocks("README.md", "On AWS")
    done = run(fresh, tmp_path, commands + "\necho KEY=$KEY")
    assert done.returncode == 0, done.stderr
    key = done.stdout.split("KEY=")[1].strip()
    minted = fresh.http.post(
        "/v1/auth/mint", headers={"Authorization": f"Bearer {key}"}, json={"user_id": "me"}
    )
    assert minted.status_code == 200, minted.text
    models = fresh.http.get(
        "/v1/models", headers={"Authorization": f"Bearer {minted.json()['token']}"}
    )
    assert [model["id"] for model in models.json()["data"]] == ["default", "gpt-oss-120b"]


def test_deploy_guide_leads_to_a_first_answer_from_a_provider(
    fresh: Stack, tmp_path: Path, provider: FakeProvider
) -> None:
    """Its own project and key, so that it stands alone; the provider is one of ours."""
    bedrock, other = blocks("docs/deploy.md", "3. The model")
    done = run(fresh, tmp_path, f"{bedrock}\n{other}", typed="sk-of-the-provider\n")
    assert done.returncode == 0, done.stderr
    assert "sk-of-the-provider" not in done.stdout + done.stderr
    moved = (
        f"export PATH=$PWD/.venv/bin:$PATH\n"
        f"weir --stack {STACK} upstreams set openai --kind openai --base-url {provider.url} --yes\n"
        f"weir --stack {STACK} upstreams set-key openai --yes"
    )
    done = run(fresh, tmp_path, moved, typed="sk-of-the-provider\n")
    assert done.returncode == 0, done.stderr

    (first,) = blocks("docs/deploy.md", "4. The first project, key and token")
    first = first.replace("projects create default", "projects create guide").replace(
        "gpt-oss-120b", "gpt-4o-mini"
    )
    first = first.replace("keys create)", "keys create --project guide)")
    done = run(fresh, tmp_path, f"export PATH=$PWD/.venv/bin:$PATH\n{first}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("data: [DONE]"), done.stdout
