"""The npm package in clients/typescript in a page: a browser's own fetch, CORS, and React."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import ConsoleMessage, Page, Response

from local import client_build
from tests.browser.test_attacks import attacker
from tests.provider import FakeProvider
from tests.stack.admin import bearer
from tests.stack.conftest import Stack

__all__ = ["attacker"]  # a fixture

HELD = json.dumps({"do": "steps", "steps": [{"text": "begun"}, {"point": "hold"}]})
WITHIN_S = 10


@pytest.fixture(scope="session")
def script(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the package and the page's part of the tests, as one script."""
    client_build.build()
    source = client_build.PLACE / "client_page.tsx"  # beside the packages that it imports
    shutil.copy(Path(__file__).with_name("client_page.tsx"), source)
    made = tmp_path_factory.mktemp("client") / "page.js"
    subprocess.run(
        [
            str(client_build.PLACE / "node_modules/.bin/esbuild"),
            *(str(source), "--bundle", "--format=iife", f"--outfile={made}", "--log-level=error"),
        ],
        check=True,
    )
    source.unlink()
    return made.read_text()


class Talk:
    """A page with a client whose tokens are minted for one user."""

    def __init__(self, page: Page, stack: Stack, script: str, user: str) -> None:
        self.page, self.stack, self.user = page, stack, user
        self.errors: list[str] = []
        self.minted = 0
        self.replies: list[Response] = []
        page.set_default_timeout(WITHIN_S * 1000)
        page.on("console", self._hear)
        page.on("response", self._keep)
        page.expose_function("mint", self.mint)
        page.evaluate(script)
        page.evaluate(
            "baseUrl => { globalThis.client = weir.createClient({ baseUrl, getToken: mint }) }",
            stack.env["BEHEST_BASE_URL"],
        )

    def _hear(self, said: ConsoleMessage) -> None:
        if said.type == "error":
            self.errors.append(said.text)

    def _keep(self, reply: Response) -> None:
        self.replies.append(reply)

    def mint(self) -> dict[str, Any]:
        self.minted += 1
        return self.stack.mint(self.user)

    def begin(self, thread_id: str | None = None) -> None:
        """Show a conversation, and wait until it has fetched what is left of the user's limits."""
        self.page.evaluate("threadId => show({ client, threadId })", thread_id)
        self.shows(f"talk.me === '{self.user}'")

    def shows(self, expression: str) -> Any:
        """Wait until this holds of the conversation `talk` that the page shows; return `talk`."""
        # Not wait_for_function, which evaluates within the page, where its policy forbids that.
        return self.page.evaluate(
            f"""async (giveUp) => {{
              for (;;) {{
                const talk = JSON.parse(document.querySelector("#talk")?.textContent ?? "null");
                if (talk && ({expression})) return talk;
                if (Date.now() > giveUp) throw new Error("it shows " + JSON.stringify(talk));
                await new Promise(requestAnimationFrame);
              }}
            }}""",
            (time.time() + WITHIN_S) * 1000,
        )

    def cancels(self, count: int) -> list[int]:
        """Wait for so many answers to cancel; return their statuses."""
        give_up = time.monotonic() + WITHIN_S
        while len(found := [r for r in self.replies if self._is_cancel(r)]) < count:
            assert time.monotonic() < give_up, f"{len(found)} answers were cancelled"
            self.page.wait_for_timeout(20)
        return [reply.status for reply in found]

    @staticmethod
    def _is_cancel(reply: Response) -> bool:
        return reply.request.method == "POST" and reply.url.endswith("/cancel")


@pytest.fixture
def hold(provider: FakeProvider) -> Iterator[None]:
    release = threading.Event()
    provider.points["hold"] = lambda: release.wait(30)
    yield
    release.set()


@pytest.fixture
def talk(page: Page, stack: Stack, script: str, request: pytest.FixtureRequest) -> Talk:
    page.goto("/")
    return Talk(page, stack, script, f"u_{abs(hash(request.node.name))}")


def test_an_answer_streams_into_a_page_from_another_origin(talk: Talk) -> None:
    text = talk.page.evaluate(
        """async () => {
          let text = "";
          for await (const chunk of client.chat({ messages: [{ role: "user", content: "Hi" }] }))
            text += chunk.choices[0]?.delta.content ?? "";
          return text;
        }"""
    )
    assert text
    assert talk.errors == []
    assert talk.minted == 1


def test_a_request_object_is_sent_again_with_a_new_token(talk: Talk) -> None:
    token = talk.page.evaluate("client.token().then(({ token }) => token)")
    revoked = talk.stack.http.post(
        "/v1/auth/revoke", headers=bearer(talk.stack.env["BEHEST_KEY"]), json={"token": token}
    )
    assert revoked.json() == {"revoked": True}
    status = talk.page.evaluate(
        """async () => {
          const body = JSON.stringify({ messages: [{ role: "user", content: "Hi" }] });
          const headers = { "Content-Type": "application/json" };
          const url = client.baseUrl + "/v1/chat/completions";
          const reply = await client.fetch(new Request(url, { method: "POST", headers, body }));
          await reply.text();
          return reply.status;
        }"""
    )
    assert (status, talk.minted) == (200, 2)


@pytest.mark.usefixtures("hold")
def test_a_page_that_is_left_stops_its_answer(talk: Talk) -> None:
    talk.page.evaluate(
        """async (content) => {
          const init = { threadId: "left" };
          const answer = client.chat({ messages: [{ role: "user", content }] }, init);
          await answer[Symbol.asyncIterator]().next();
        }""",
        HELD,
    )
    talk.page.goto("about:blank")
    headers = bearer(str(talk.stack.mint(talk.user)["token"]))
    give_up = time.monotonic() + WITHIN_S
    kept: list[dict[str, Any]] = []
    while len(kept) < 2:
        assert time.monotonic() < give_up, kept
        reply = talk.stack.http.get("/v1/threads/left/messages", headers=headers)
        kept = reply.json() if reply.status_code == 200 else []
    assert kept[1]["finish_reason"] == "cancelled"


def test_a_page_of_no_listed_origin_reads_the_command_that_lists_it(
    attacker: Page, stack: Stack, script: str
) -> None:
    talk = Talk(attacker, stack, script, "u_unlisted")
    sentence = talk.page.evaluate('client.json("/v1/me").catch(explain)')
    assert sentence.startswith("This page is not allowed to use the chat.")
    (line,) = [line for line in talk.errors if line.startswith("weir-client:")]
    origin = talk.page.evaluate("location.origin")
    assert f"To allow it: weir origins add {origin}" in line


# --- React --------------------------------------------------------------------------------------


def test_a_conversation_remembers_what_was_answered(talk: Talk, provider: FakeProvider) -> None:
    talk.begin()
    talk.page.evaluate("conversation().send('  one ')")
    first = talk.shows("talk.turns[0]?.state === 'done'")["turns"][0]
    assert first == {"question": "one", "answer": first["answer"], "state": "done", "note": ""}
    talk.page.evaluate("conversation().send(' ')")
    talk.page.evaluate("conversation().send('two')")
    talk.shows("talk.turns[1]?.state === 'done' && !talk.writing")
    assert [message["content"] for message in provider.requests[-1]["messages"]] == [
        "one",
        first["answer"],
        "two",
    ]


def test_a_question_that_is_sent_on_mount_is_answered_once(talk: Talk) -> None:
    # StrictMode mounts twice: the first answer is stopped, the second one is shown.
    talk.page.evaluate("show({ client, first: 'one' })")
    turns = talk.shows("talk.turns[0]?.state === 'done'")["turns"]
    assert [(turn["question"], turn["state"]) for turn in turns] == [("one", "done")]


@pytest.mark.usefixtures("hold")
def test_stop_keeps_what_was_written_and_cancels_the_rest(talk: Talk) -> None:
    talk.begin()
    talk.page.evaluate("content => conversation().send(content)", HELD)
    talk.shows("talk.turns[0]?.answer === 'begun' && talk.writing")
    talk.page.evaluate("conversation().stop()")
    turn = talk.shows("!talk.writing")["turns"][0]
    assert (turn["state"], turn["answer"], turn["note"]) == ("stopped", "begun", "Stopped.")
    assert talk.cancels(1) == [200]


def test_a_failure_is_explained_and_can_be_tried_again(talk: Talk, provider: FakeProvider) -> None:
    talk.begin()
    fails = json.dumps({"do": "body", "body": "{}", "status": 500})
    talk.page.evaluate("content => conversation().send(content)", fails)
    turn = talk.shows("talk.turns[0]?.state === 'failed'")["turns"][0]
    assert turn["note"].startswith("The chat cannot answer at the moment.")
    provider.does = {"do": "stream"}
    try:
        talk.page.evaluate("conversation().retry()")
        assert len(talk.shows("talk.turns[0]?.state === 'done'")["turns"]) == 1
    finally:
        provider.does = {}


def test_in_a_thread_only_the_newest_message_is_sent(talk: Talk) -> None:
    sent: list[Any] = []
    talk.page.on(
        "request",
        lambda request: (
            sent.append((request.post_data_json, request.headers.get("x-thread-id")))
            if request.method == "POST" and request.url.endswith("/completions")
            else None
        ),
    )
    talk.begin("kept")
    for number, question in enumerate(("one", "two")):
        talk.page.evaluate("question => conversation().send(question)", question)
        talk.shows(f"talk.turns[{number}]?.state === 'done'")
    talk.page.evaluate("conversation().retry()")
    talk.shows("talk.turns[1]?.state === 'done' && !talk.writing")
    assert [len(body["messages"]) for body, _ in sent] == [1, 1, 3]
    assert {thread for _, thread in sent} == {"kept"}


@pytest.mark.usefixtures("hold")
@pytest.mark.parametrize("then", ["undefined", "{ client, threadId: 'other' }"])
def test_another_conversation_begins_empty_and_stops_the_last_one(talk: Talk, then: str) -> None:
    talk.begin("one")
    talk.page.evaluate("content => conversation().send(content)", HELD)
    talk.shows("talk.turns[0]?.answer === 'begun'")
    talk.page.evaluate(f"change({then})")
    assert talk.cancels(1) == [200]
    if then != "undefined":
        assert talk.shows("true")["turns"] == []
