"""Which published clients are tried, and what is known of each that is not plain success.

These are the rows of the table in docs/clients.md. `python -m tests.clients.rows` writes the table;
test_page.py compares it, and the tests that take minutes prove each of its cells.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.clients.capabilities import Capability, Use
from tests.clients.scenarios import Outcome, Scenario, check

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs/clients.md"
# What a column stands for: capabilities (capabilities.py), beside the scenarios of streams.
COLUMNS: dict[str, tuple[str, ...]] = {
    "stream": (),
    "whole answer": ("whole",),
    "tools": ("tools",),
    "structured output": ("structured",),
    "errors": ("no retry of 402",),
    "retries": ("wait after 503", "wait after 429"),
    "stop": ("stop", "cancel"),
}
NODE = {"newest": "Node 24", "older": "Node 20"}


@dataclass(frozen=True)
class Row:
    """`streamed` and `used` are names in stream.py and use.py, or stream.mjs and use.mjs."""

    title: str
    age: str  # "newest" or "older"
    language: str  # "python", "node", or "browser"
    packages: tuple[str, ...]  # the page names their versions
    streamed: tuple[str, ...]
    used: str | None = None
    notes: Mapping[str, str] = field(default_factory=dict)  # by column
    # By capability: the client has to fail, each time.
    cannot: Mapping[str, str] = field(default_factory=dict)
    hidden: frozenset[str] = frozenset()  # what a stream does not show: "code", "finish", "usage"

    def cell(self, column: str) -> str:
        """Return "yes", "partly" or "no"; "" for what is not tried."""
        parts = COLUMNS[column]
        failing = [part for part in parts if part in self.cannot]
        if failing:
            return "no" if len(failing) == len(parts) else "partly"
        tried = column in ("stream", "errors") or self.used is not None
        return "yes" if tried else ""

    def remarks(self, column: str) -> list[str]:
        found = [self.cannot[part] for part in COLUMNS[column] if part in self.cannot]
        return [*found, *([self.notes[column]] if column in self.notes else [])]

    def check_stream(self, client: str, scenario: Scenario, outcome: Outcome) -> None:
        """Fail unless the client showed what the scenario expects."""
        check(scenario, outcome, hidden=self.hidden | HIDDEN_FROM.get(client, frozenset()))

    def check_use(self, capability: Capability, use: Use) -> None:
        """Fail unless the client can do it, or cannot, as the row says."""
        if capability.name not in self.cannot:
            capability.check(use)
            return
        try:
            capability.check(use)
        except AssertionError:
            return
        raise AssertionError(f"{self.title} can do it: {capability.name}, {use}")


NO_TOOLS = "It does not know `tools` yet: send them in `extra_body`."
NO_PARSE = "It has no `parse` yet: send `response_format` in `extra_body`, and read the JSON."
OWN_BACKOFF = (
    "After a 503 it waits one to two seconds, whatever `Retry-After` says; after a 429, as it says."
)
NO_FINISH = (
    "Does not show `finish_reason`; an answer without one is an error at the gateway already."
)
JSON_SCHEMA = "With `supportsStructuredOutputs: true`; without it no schema is sent."
NATIVE = "With `NativeOutput(…)`, which sends the JSON schema."
ON_ERROR = "In `fullStream` and `onError`: `textStream` just ends."
HEADERS = (
    "An id of your own to cancel by: `stream(…, { headers })`,"
    " but `invoke(…, { options: { headers } })`."
)
DEFAULT_HEADERS = "An id of your own to cancel by: `defaultHeaders` of the OpenAI client."

OPENAI_NODE = ("openai", "openai .stream()")
AI_OPENAI = ("@ai-sdk/openai", "@ai-sdk/openai, UI stream")
IN_JAVASCRIPT = (
    (NODE["newest"], "newest", "node"),
    (NODE["older"], "older", "node"),
    ("Chromium", "newest", "browser"),
)
ROWS = (
    Row(
        "openai, Python",
        "newest",
        "python",
        ("openai",),
        ("openai", "openai async", "openai .stream()"),
        "openai",
    ),
    Row(
        "openai, Python",
        "older",
        "python",
        ("openai",),
        ("openai",),
        "openai 1.0",
        cannot={"tools": NO_TOOLS, "structured": NO_PARSE},
    ),
    Row(
        "LangChain, Python",
        "newest",
        "python",
        ("langchain-openai",),
        ("langchain-openai",),
        "langchain-openai",
    ),
    Row(
        "pydantic-ai",
        "newest",
        "python",
        ("pydantic-ai-slim",),
        ("pydantic-ai",),
        "pydantic-ai",
        notes={"structured output": NATIVE},
    ),
    Row(
        "OpenAI Agents, Python",
        "newest",
        "python",
        ("openai-agents",),
        ("openai-agents",),
        "openai-agents",
        notes={"stream": NO_FINISH},
        hidden=frozenset({"finish"}),
    ),
    Row("LiteLLM, as a client", "newest", "python", ("litellm",), ("litellm",), "litellm"),
    *(
        Row(f"openai, {where}", age, language, ("openai",), OPENAI_NODE, "openai")
        for where, age, language in IN_JAVASCRIPT
    ),
    *(
        Row(
            f"AI SDK, `@ai-sdk/openai`, {where}",
            age,
            language,
            ("ai", "@ai-sdk/openai"),
            AI_OPENAI,
            "@ai-sdk/openai",
            notes={"errors": ON_ERROR},
        )
        for where, age, language in IN_JAVASCRIPT
    ),
    *(
        Row(
            f"AI SDK, `@ai-sdk/openai-compatible`, {where}",
            age,
            language,
            ("ai", "@ai-sdk/openai-compatible"),
            ("@ai-sdk/openai-compatible",),
            "@ai-sdk/openai-compatible",
            notes={"structured output": JSON_SCHEMA, "errors": ON_ERROR},
        )
        for where, age, language in IN_JAVASCRIPT
    ),
    *(
        Row(
            f"LangChain, {where}",
            age,
            language,
            ("@langchain/openai",),
            ("@langchain/openai",),
            "@langchain/openai",
            notes={"stop": HEADERS},
            cannot={"wait after 503": OWN_BACKOFF},
        )
        for where, age, language in IN_JAVASCRIPT
    ),
    Row(
        f"OpenAI Agents, {NODE['newest']}",
        "newest",
        "node",
        ("@openai/agents",),
        ("@openai/agents",),
        "@openai/agents",
        notes={"stream": NO_FINISH, "stop": DEFAULT_HEADERS},
        hidden=frozenset({"finish"}),
    ),
    *(
        Row(
            f"`fetch` and a loop, {where}",
            age,
            language,
            (),
            ("fetch",),
            hidden=frozenset({"code"}),
        )
        for where, age, language in IN_JAVASCRIPT
    ),
)
# The stream of `useChat` has nowhere to show token counts.
HIDDEN_FROM = {"@ai-sdk/openai, UI stream": frozenset({"usage"})}


def rows(language: str, age: str = "newest") -> list[Row]:
    return [row for row in ROWS if (row.language, row.age) == (language, age)]


def streamed(language: str, age: str = "newest") -> list[str]:
    return [name for row in rows(language, age) for name in row.streamed]


def used(language: str, age: str = "newest") -> list[str]:
    return [row.used for row in rows(language, age) if row.used]


def version(row: Row, package: str) -> str:
    """Return the version that the lock of the row's clients pins."""
    if row.language == "python":
        lock = (HERE / row.age / "requirements.txt").read_text()
        found = re.search(rf"^{re.escape(package)}==(\S+)", lock, re.MULTILINE)
        assert found, package
        return found[1]
    lock = (HERE / row.age / "package-lock.json").read_text()
    return str(json.loads(lock)["packages"][f"node_modules/{package}"]["version"])


def table() -> str:
    """Return the page's table with the notes below it."""
    numbered: list[str] = []
    lines = [
        f"| client | version | {' | '.join(COLUMNS)} |",
        "|---|---|" + "---|" * len(COLUMNS),
    ]
    for row in ROWS:
        cells = []
        for column in COLUMNS:
            numbers = []
            for remark in row.remarks(column):
                if remark not in numbered:
                    numbered.append(remark)
                numbers.append(f" [{numbered.index(remark) + 1}]")
            cells.append(row.cell(column) + "".join(numbers))
        versions = ", ".join(version(row, package) for package in row.packages)
        lines.append(f"| {row.title} | {versions} | {' | '.join(cells)} |")
    notes = [f"{number}. {remark}" for number, remark in enumerate(numbered, 1)]
    return "\n".join([*lines, "", *notes])


BEGIN, END = "<!-- python -m tests.clients.rows -->\n\n", "\n\n<!-- the end of it -->\n"


def main() -> None:
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + BEGIN + table() + END + after)


if __name__ == "__main__":
    main()
