"""The example page beside the gateway: how it is built, served, and done without."""

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from shutil import copy

import httpx
import pytest

from local import CannotRun, client_build, node, page_build, settings
from local.http1 import Server
from local.page import Page, config
from tests.local.test_run import running, said_by

# --- building ----------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source and a place of its own; returns the source."""
    source = tmp_path / "source"
    (source / "src").mkdir(parents=True)
    for name in ("index.html", "src/main.tsx", "package.json", "package-lock.json"):
        (source / name).write_text("{}")
    (tmp_path / ".local").mkdir()
    monkeypatch.setattr(page_build, "ROOT", tmp_path)
    monkeypatch.setattr(page_build, "SOURCE", source)
    monkeypatch.setattr(page_build, "PLACE", tmp_path / ".local/page")
    monkeypatch.setattr(page_build, "PAGE", tmp_path / ".local/page/dist")
    monkeypatch.setattr(page_build, "APP", tmp_path / ".local/page/examples/react-vite")
    monkeypatch.setattr(client_build, "build", lambda: None)
    monkeypatch.setattr(client_build, "built_from", lambda: "one client")
    monkeypatch.setattr(client_build, "copy_package", copy_a_package)
    monkeypatch.setattr(page_build, "LOG", tmp_path / ".local/logs/install-page.log")
    return source


def copy_a_package(place: Path) -> None:
    place.mkdir(parents=True)
    copy(settings.ROOT / "clients/typescript/package.json", place)


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """npm and vite, without what they do: which of them ran."""
    ran = []

    def run(command: list[str]) -> None:
        if "ci" in command:
            ran.append("npm")
            (page_build.APP / "node_modules").mkdir(exist_ok=True)
        else:
            ran.append("vite")
            out = Path(command[-1])
            out.mkdir()
            (out / "index.html").touch()

    monkeypatch.setattr(page_build, "_run", run)
    return ran


def test_a_page_is_built_once_and_again_when_its_source_changes(
    elsewhere: Path, commands: list[str]
) -> None:
    page_build.build()
    page_build.build()
    assert commands == ["npm", "vite"]
    (elsewhere / "src/main.tsx").write_text("changed")
    assert not page_build.is_current()
    page_build.build()
    assert commands == ["npm", "vite", "vite"]
    assert (page_build.APP / "src/main.tsx").read_text() == "changed"
    (elsewhere / "package-lock.json").write_text("changed")
    page_build.build()
    assert commands == ["npm", "vite", "vite", "npm", "vite"]


@pytest.mark.usefixtures("elsewhere")
def test_a_page_is_built_again_with_a_client_that_has_changed(
    commands: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page_build.build()
    monkeypatch.setattr(client_build, "built_from", lambda: "another client")
    page_build.build()
    assert commands == ["npm", "vite", "npm", "vite"]


@pytest.mark.usefixtures("commands")
def test_what_a_developer_made_in_the_example_is_left_out(elsewhere: Path) -> None:
    (elsewhere / "node_modules/react").mkdir(parents=True)
    page_build.build()
    (elsewhere / ".env.local").write_text("VITE_WEIR_BASE_URL=https://real.example.com/live")
    (elsewhere / "node_modules/react/index.js").touch()
    assert page_build.is_current()
    copied = {path.name for path in page_build.APP.rglob("*")}
    assert copied == {
        *("index.html", "src", "main.tsx", "package.json", "package-lock.json"),
        *("node_modules", ".weir-lock"),
    }


def test_the_operators_shell_does_not_get_into_the_page(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert elsewhere
    page_build.APP.mkdir(parents=True)
    page_build.LOG.parent.mkdir()
    monkeypatch.setenv("VITE_WEIR_BASE_URL", "https://real.example.com/live")
    monkeypatch.setenv("NODE_ENV", "production")
    page_build._run([sys.executable, "-c", "import os; print(sorted(os.environ))"])
    told = page_build.LOG.read_text()
    assert "PATH" in told
    assert "VITE_" not in told
    assert "NODE_ENV" not in told


def test_a_registry_that_cannot_be_reached_is_one_sentence(
    elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("package.json", "package-lock.json", ".npmrc"):
        (elsewhere / name).write_text((settings.ROOT / "examples/react-vite" / name).read_text())
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "cache"))
    monkeypatch.setenv("npm_config_fetch_retry_mintimeout", "10")
    with pytest.raises(CannotRun) as failure:
        page_build.build()
    said = str(failure.value)
    assert said.startswith("Building the example page failed: the npm registry cannot be reached.")
    assert "install-page.log" in said
    assert "\n" not in said
    assert not page_build.is_current()


@pytest.mark.parametrize(
    ("version", "enough"),
    [((18, 20), False), ((20, 18), False), ((20, 19), True), ((21, 7), False), ((22, 11), False),
     ((22, 12), True), ((24, 0), True)],
)  # fmt: skip
def test_only_a_node_that_vite_takes_is_used(version: tuple[int, int], enough: bool) -> None:
    assert node.is_new_enough(*version) is enough


def test_without_a_page_the_gateway_starts_all_the_same(tmp_path: Path) -> None:
    """npm is there and fails, and the page that an earlier start has built is out of date."""
    page_build.build()
    for name, does in (("node", "echo v24.0.0"), ("npm", "exit 1")):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{does}\n")
        program.chmod(0o755)
    packages = page_build.APP / "node_modules/.weir-lock"
    with outdated(page_build.PLACE / "built-from"), outdated(packages):
        path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        with running(tmp_path / "run", HEADLESS="0", PAGE_PORT="0", PATH=path) as run:
            assert "failed: npm or vite failed." in run.said
            assert "Page     none in this run" in run.said
            assert httpx.get(f"{run.url}/healthz").status_code == 200


@contextlib.contextmanager
def outdated(stamp: Path) -> Iterator[None]:
    before = stamp.read_text()
    stamp.write_text("outdated")
    try:
        yield
    finally:
        stamp.write_text(before)


# --- serving -----------------------------------------------------------------------------------


def test_files_are_served_with_a_policy_that_names_what_the_page_may_reach(tmp_path: Path) -> None:
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text("<p>page")
    (tmp_path / "assets/index-1.js").write_text("1")
    addresses = config("http://127.0.0.1:1", "client", "http://127.0.0.1:2")

    async def visit() -> None:
        server = Server(Page(tmp_path, addresses))
        url = f"http://127.0.0.1:{await server.start()}"
        async with httpx.AsyncClient(base_url=url) as client:
            page = await client.get("/?x=1")
            assert (page.text, page.headers["content-type"]) == (
                "<p>page",
                "text/html; charset=utf-8",
            )
            policy = page.headers["content-security-policy"]
            assert "connect-src 'self' http://127.0.0.1:1 http://127.0.0.1:2;" in policy
            assert "unsafe" not in policy
            script = await client.get("/assets/index-1.js")
            assert script.headers["content-type"] == "text/javascript; charset=utf-8"
            assert (await client.get("/config.json")).json() == addresses
            head = await client.head("/")
            assert (head.status_code, head.headers["content-length"]) == (200, "7")
            for missing in ("/assets/", "/favicon.ico", "/%2e%2e/env", "/assets/../../env"):
                assert (await client.get(missing)).status_code == 404
            assert (await client.post("/")).status_code == 405
        await server.stop()

    asyncio.run(visit())


@pytest.mark.parametrize("headless", ["1", "true"])
def test_headless_does_without_the_page(headless: str) -> None:
    asked = settings.from_env({"HEADLESS": headless, "PAGE_PORT": "5174"})
    assert asked.page_port is None


def test_the_page_is_at_5173_unless_asked_otherwise() -> None:
    assert settings.from_env({}).page_port == 5173
    assert settings.from_env({"PAGE_PORT": "5174", "HEADLESS": "0"}).page_port == 5174


def test_a_busy_page_port_is_told_in_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        said = said_by(tmp_path, HEADLESS="0", PAGE_PORT=str(port))
    assert said.startswith(f"Port {port} cannot be used")
    assert said.endswith(f"choose another one: PAGE_PORT={port + 1} make run\n")
