"""From an empty Vite project to a streamed, metered answer, with the lines of the README."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from local import client_build, example, node
from tests.examples.conftest import PORTS, STARTS_WITHIN_S
from tests.stack.conftest import ROOT, Stack

pytestmark = pytest.mark.long

CREATE_VITE = "create-vite@9.3.0"
MOST_LINES = 15
PORT = PORTS["react-vite"]


def test_an_empty_vite_project_streams_a_metered_answer_after_15_lines(
    page: Page, stack: Stack, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    began = time.monotonic()
    project = _empty_project(tmp_path)
    own = _lines_of_the_readme()
    assert sum(len(lines.splitlines()) for lines in own.values()) <= MOST_LINES
    (project / "src/App.tsx").write_text(own["src/App.tsx"])
    config = project / "vite.config.ts"
    given = config.read_text().replace("plugins: [react()]", "plugins: [react(), token]")
    assert given != config.read_text()
    begin, _, rest = given.partition("export default")
    config.write_text(f"{begin}{own['vite.config.ts']}\nexport default{rest}")
    with _serving(project, stack):
        page.goto(f"http://localhost:{PORT}")
        page.locator("input").fill("Hello")
        page.keyboard.press("Enter")
        expect(page.locator("p")).to_contain_text("Hello → w0 w1", timeout=30_000)
    record_property("seconds", time.monotonic() - began)
    assert _usage(stack)["requests"] == 1
    _, npm = node.find()
    subprocess.run([*npm, "run", "build"], cwd=project, check=True)  # TypeScript is content, too


def _usage(stack: Stack) -> dict[str, int]:
    """Return what the page's user has used, which is added up about a second later."""
    headers = {"Authorization": f"Bearer {stack.mint('me')['token']}"}
    until = time.monotonic() + 15
    while True:
        totals: dict[str, int] = stack.http.get("/v1/usage", headers=headers).json()["totals"]
        if totals["requests"] or time.monotonic() > until:
            return totals
        time.sleep(0.2)


def _empty_project(directory: Path) -> Path:
    client_build.build()
    _, npm = node.find()

    def run(*command: str, cwd: Path) -> None:
        subprocess.run([*npm, *command], cwd=cwd, check=True, capture_output=True)

    quiet = ("--no-audit", "--no-fund", "--loglevel=error")
    run("exec", "--yes", "--", CREATE_VITE, "chat", "--template", "react-ts", cwd=directory)
    project = directory / "chat"
    run("install", *quiet, cwd=project)
    run("install", *quiet, "--install-links", str(client_build.SOURCE), cwd=project)
    return project


def _lines_of_the_readme() -> dict[str, str]:
    """Return what the README's blocks put into each file."""
    readme = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```tsx?\n// (\S+)[^\n]*\n(.*?)```", readme, re.DOTALL)
    own = dict(blocks)
    assert set(own) == {"src/App.tsx", "vite.config.ts"}
    return own


@contextlib.contextmanager
def _serving(project: Path, stack: Stack) -> Iterator[None]:
    _, npm = node.find()
    environment = example.environment(example.BY_NAME["react-vite"], stack.env, PORT)
    command = [*npm, "run", "dev", "--", "--port", str(PORT), "--strictPort"]
    with subprocess.Popen(
        command,
        cwd=project,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        try:
            until = time.monotonic() + STARTS_WITHIN_S
            while time.monotonic() < until:
                with contextlib.suppress(httpx.TransportError):
                    if httpx.get(f"http://localhost:{PORT}").status_code == 200:
                        break
                time.sleep(0.1)
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
