"""Take pictures of every example: on a phone and a desktop, light and dark.

    .venv/bin/python -m tests.examples.take_screenshots FOLDER [NAME ...]

The embedded model answers. What the documentation shows is chosen from them by hand.
"""

from __future__ import annotations

import contextlib
import re
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, expect, sync_playwright

from local import example, install
from tests.browser.take_screenshots import without_chance
from tests.examples.conftest import PORTS, Running, start_example
from tests.stack.conftest import Stack, start

SIZES = {"phone": (390, 844), "desktop": (1280, 800)}
QUESTIONS = ("What is a river?", "List three rivers of Europe, with their lengths.")


def main(arguments: list[str]) -> int:
    path = install.chromium()
    if path is None or not arguments:
        sys.stderr.write(f"{__doc__}\n{'' if path else install.NEEDS_CHROMIUM}\n")
        return 1
    folder, *names = arguments
    Path(folder).mkdir(parents=True, exist_ok=True)
    origins = ",".join(f"http://localhost:{port}" for port in PORTS.values())
    with (
        tempfile.TemporaryDirectory() as directory,
        start(Path(directory), ALLOWED_ORIGINS=origins) as stack,
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=path, args=["--no-sandbox"]) as browser,
    ):
        for name in names or example.BY_NAME:
            with start_example(name, stack) as running:
                for size in SIZES:
                    for scheme in ("light", "dark"):
                        _take(browser, stack, running, size, scheme, Path(folder))
    return 0


def _take(
    browser: Browser, stack: Stack, running: Running, size: str, scheme: str, folder: Path
) -> None:
    width, height = SIZES[size]
    kept = f"{running.name}-{size}-{scheme}"
    with browser.new_page(
        viewport={"width": width, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
    ) as page:
        page.route("**/v1/chat/completions", without_chance)
        page.goto(running.url)
        page.get_by_label("E-mail").fill(stack.env["DEMO_EMAIL"])
        page.get_by_label("Password").fill(stack.env["DEMO_PASSWORD"])
        page.screenshot(path=folder / f"{kept}-sign-in.png")
        page.get_by_role("button", name="Sign in").click()
        if running.name == "chat-widget":
            page.get_by_role("button", name="Chat", exact=True).click()
        for number, question in enumerate(QUESTIONS):
            page.get_by_label("Message").fill(question)
            page.keyboard.press("Enter")
            expect(page.locator(".answer").nth(number)).to_have_text(re.compile(".{40}", re.DOTALL))
            with contextlib.suppress(AssertionError):
                expect(page.get_by_role("status")).to_have_text(
                    "The answer is complete.", timeout=60_000
                )
        page.screenshot(path=folder / f"{kept}.png")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
