"""The npm package in clients/typescript, both halves, against the running gateway."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

from tests.provider import FakeProvider
from tests.stack.admin import Admin
from tests.stack.conftest import ORIGIN, Stack
from tests.typescript_client.conftest import node, run_tests

__all__ = ["node", "run_tests"]  # fixtures


def test_the_package_works_with_the_gateway(
    stack: Stack, provider: FakeProvider, run_tests: Callable[..., None], tmp_path: Path
) -> None:
    admin = Admin(stack)
    created = admin("POST", "signing-keys", {"project": "default", "name": "a server"}, 201)
    signing = {
        "key": created["private_key"],
        "kid": created["kid"],
        "tenantId": stack.env["BEHEST_TENANT_ID"],
        "projectId": "default",
    }
    release = threading.Event()
    reached = tmp_path / "reached"
    provider.points |= {"reached": reached.touch, "hold": lambda: release.wait(60)}
    try:
        run_tests(
            "stack.test.mjs",
            WEIR_BASE_URL=stack.env["BEHEST_BASE_URL"],
            WEIR_KEY=stack.env["BEHEST_KEY"],
            TEST_REACHED=str(reached),
            TEST_SIGNING=json.dumps(signing),
            TEST_ORIGIN=ORIGIN,
            TEST_FC_KEY=stack.env["FC_API_KEY"],
            TEST_FC_MODEL=stack.env["FC_MODEL"],
        )
    finally:
        release.set()
        admin("DELETE", f"signing-keys/{created['kid']}", status=204)
