"""What the package weighs, what is in it, and that it installs."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from local import client_build, install
from local import node as node_js
from local.settings import ROOT

# Bytes as a page loads them: bundled and minified by esbuild, gzip -9, without peer dependencies.
MOST_BYTES = {
    "weir-client": 3072,
    "weir-client/exchange": 1000,
    "weir-client/explain": 1900,
    "weir-client/openai": 300,
    "weir-client/ai": 1200,
    "weir-client/react": 2700,
    "weir-client/server": 5200,
}


def bundle(source: str, *options: str) -> bytes:
    """Return what esbuild makes of a module, minified."""
    ended = subprocess.run(
        [
            str(client_build.PLACE / "node_modules/.bin/esbuild"),
            "--bundle",
            "--minify",
            "--format=esm",
            "--external:react",
            "--log-override:ignored-bare-import=silent",  # it is what one of the tests wants
            *options,
        ],
        cwd=client_build.PLACE,
        input=source.encode(),
        capture_output=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr.decode()
    assert not ended.stderr, ended.stderr.decode()
    return ended.stdout


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize("entry", MOST_BYTES)
def test_an_entry_is_no_larger_than_it_was(
    entry: str, record_property: Callable[[str, object], None]
) -> None:
    size = len(gzip.compress(bundle(f'export * from "{entry}"'), 9, mtime=0))
    record_property("bytes", size)
    assert size <= MOST_BYTES[entry]


@pytest.mark.usefixtures("node")
def test_a_page_that_imports_the_error_alone_loads_no_client() -> None:
    bundled = bundle('import { WeirError } from "weir-client"; console.log(WeirError)').decode()
    assert len(bundled) < 650
    assert "fetch" not in bundled


@pytest.mark.usefixtures("node")
def test_a_page_that_imports_for_nothing_loads_nothing() -> None:
    sources = "".join(f'import "{entry}";' for entry in MOST_BYTES)
    assert not re.sub(r'import"react";', "", bundle(sources).decode()).strip()


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize("entry", MOST_BYTES)
def test_no_entry_needs_anything_of_node(entry: str) -> None:
    # On this platform esbuild finds no module of Node's, and fails at an import of one.
    bundled = bundle(f'export * from "{entry}"', "--platform=neutral").decode()
    assert not re.search(r"""\brequire\(|["']node:|\bBuffer\b|__dirname""", bundled)


def npm(*arguments: str, at: Path) -> str:
    """Run npm, and return what it printed."""
    _, command = node_js.find()
    ended = subprocess.run(
        [*command, *arguments], cwd=at, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def pack(place: Path) -> dict[str, Any]:
    """Pack the package as `npm publish` would; return what npm says of it."""
    options = ("--json", "--ignore-scripts", "--pack-destination", str(place))
    (packed,) = json.loads(npm("pack", *options, at=client_build.SOURCE))
    assert isinstance(packed, dict)
    return packed


@pytest.mark.usefixtures("node")
def test_what_is_published_is_code_types_and_little_else(tmp_path: Path) -> None:
    names = {file["path"] for file in pack(tmp_path)["files"]}
    others = {name for name in names if not re.fullmatch(r"dist/\w+\.(js|d\.ts)", name)}
    assert others == {"package.json", "README.md", "LICENSE"}
    package = json.loads((client_build.SOURCE / "package.json").read_text())
    for entry in package["exports"].values():
        if isinstance(entry, dict):
            assert next(iter(entry)) == "types"  # TypeScript takes the first that fits
            assert {path.removeprefix("./") for path in entry.values()} <= names
    assert "dependencies" not in package


USES = """
import { createClient, readEvents, WeirError, type Client, type TokenReply } from "weir-client";
import { explain } from "weir-client/explain";
import { openaiOptions } from "weir-client/openai";
import { chatTransport, languageModelOptions } from "weir-client/ai";
import { useConversation, useMe } from "weir-client/react";
import { verifyWebhook, Weir } from "weir-client/server";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import type { ChatTransport, UIMessage } from "ai";
import OpenAI from "openai";

const getToken = async (): Promise<TokenReply> => ({ token: "t", ttl: 900 });
export const client: Client = createClient({ baseUrl: "https://weir.example", getToken });
export const openai = new OpenAI(openaiOptions(client));
export const transport: ChatTransport<UIMessage> = chatTransport(client, { threads: true });
export const model = createOpenAICompatible(languageModelOptions(client))("default");
export async function answer(): Promise<string> {
  let text = "";
  try {
    const messages = [{ role: "user" as const, content: "Hello" }];
    for await (const chunk of client.chat({ messages })) {
      text += chunk.choices[0]?.delta.content ?? "";
    }
  } catch (error) {
    text = error instanceof WeirError ? error.code : explain(error);
  }
  for await (const data of readEvents(new Response("").body!)) text += data;
  return text;
}
export function Chat(): number {
  const { turns } = useConversation(client, { threadId: "t" });
  return turns.length + (useMe(client)?.limits.length ?? 0);
}
export async function onServer(): Promise<boolean> {
  const weir = new Weir({ key: "k", baseUrl: "https://weir.example" });
  const request = { user_id: "u", messages: [] };
  for await (const chunk of weir.chat.completions.create({ ...request, stream: true })) chunk.id;
  const reply: TokenReply = await weir.auth.mint({ user_id: "u", tier: undefined });
  const whole = await weir.chat.completions.create(request);
  return verifyWebhook(reply.token, whole.id, new Uint8Array());
}
"""


USE_CHAT = {"@ai-sdk/react": "4.0.177"}  # of the document's example alone


def examples() -> dict[str, str]:
    """Return the files that the code blocks of docs/browser-client.md are, by name."""
    page = (ROOT / "docs/browser-client.md").read_text()
    blocks = re.findall(r"^```(tsx?)\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    files = {f"block{number}.{kind}": code for number, (kind, code) in enumerate(blocks)}
    first = files.pop("block0.ts")
    assert first.startswith("// client.ts")
    return {"client.ts": first, "uses.ts": USES, **files}


@pytest.mark.long
@pytest.mark.usefixtures("node")
def test_a_project_installs_it_and_type_checks_with_every_way_to_find_modules(
    tmp_path: Path,
) -> None:
    tarball = tmp_path / pack(tmp_path)["filename"]
    ours = json.loads((client_build.SOURCE / "package.json").read_text())
    needed = {n: v for n, v in ours["devDependencies"].items() if n not in ("esbuild", "react-dom")}
    package = {
        "private": True,
        "type": "module",
        "dependencies": {"weir-client": f"file:{tarball}", **needed, **USE_CHAT},
    }
    (tmp_path / "package.json").write_text(json.dumps(package))
    for name, code in examples().items():
        # Node's way to find modules wants the whole name of a file.
        (tmp_path / name).write_text(code.replace('"./client"', '"./client.js"'))
    npm("install", *install.NPM_CI[1:], at=tmp_path)
    node, _ = node_js.find()
    for module, resolution in (
        ("esnext", "bundler"),
        ("node16", "node16"),
        ("nodenext", "nodenext"),
    ):
        ended = subprocess.run(
            [
                *(node, "node_modules/typescript/bin/tsc", *sorted(examples()), "--noEmit"),
                *("--ignoreConfig", "--jsx", "react-jsx"),
                *("--strict", "--exactOptionalPropertyTypes", "--noUncheckedIndexedAccess"),
                *("--target", "es2022", "--lib", "es2022,dom,dom.iterable", "--types", ""),
                *("--module", module, "--moduleResolution", resolution, "--skipLibCheck"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, f"{resolution}: {ended.stdout}{ended.stderr}"
