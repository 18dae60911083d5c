"""Takes the screenshots of the documentation anew: the example page in front of the embedded model.

.venv/bin/python -m tests.browser.take_screenshots
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, Route, expect, sync_playwright

from local import install
from tests.stack.conftest import ROOT, Stack, start

IMAGES = ROOT / "docs/images"
QUESTIONS = ("What is a river?", "Why is the sky blue?")


def main() -> int:
    path = install.chromium()
    if path is None:
        sys.stderr.write(install.NEEDS_CHROMIUM + "\n")
        return 1
    IMAGES.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as directory,
        start(Path(directory), HEADLESS="0", PAGE_PORT="0") as stack,
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=path, args=["--no-sandbox"]) as browser,
        browser.new_page(
            viewport={"width": 860, "height": 560}, device_scale_factor=1.5, color_scheme="light"
        ) as page,
    ):
        take(page, stack)
    return 0


def without_chance(route: Route) -> None:
    """The same answer each time."""
    asked: dict[str, Any] = json.loads(route.request.post_data or "{}")
    route.continue_(post_data=json.dumps({**asked, "temperature": 0}))


def take(page: Page, stack: Stack) -> None:
    page.route("**/v1/chat/completions", without_chance)
    page.goto(stack.env["ALLOWED_ORIGIN"])
    page.get_by_label("E-mail").fill(stack.env["DEMO_EMAIL"])
    page.get_by_label("Password").fill(stack.env["DEMO_PASSWORD"])
    page.screenshot(path=IMAGES / "page-sign-in.png")
    page.get_by_role("button", name="Sign in").click()
    first, second = QUESTIONS
    page.get_by_label("Message").fill(first)
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text("The answer is complete.", timeout=60_000)
    page.get_by_label("Message").fill(second)
    page.keyboard.press("Enter")
    expect(page.locator(".answer").nth(1)).to_have_text(re.compile(".{160}", re.DOTALL))
    page.screenshot(path=IMAGES / "page-chat.png")  # while it is still being written


if __name__ == "__main__":
    sys.exit(main())
