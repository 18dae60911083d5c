"""The key ring in a stack of its own, whose processes keep what they have read for a second only:
the operator's commands for it, and rotation under load.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator

import httpx
import jwt
import pytest

from tests.provider import FakeProvider
from tests.stack.admin import bearer
from tests.stack.conftest import Stack, ask, start
from tests.stack.test_cli import done, told, weir
from tests.stack.test_rotation import rotate

LOAD_S = 60
# A key is published for at least as long before it signs, and a verifier that does not know it
# looks again after one second.
ROTATE_EVERY_S = 1.0


@pytest.fixture(scope="module")
def quick(provider: FakeProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with start(
        tmp_path_factory.mktemp("ring"),
        upstream=provider.url,
        WEIR_PARAM_NextKeyMinimumAgeSeconds="0",
        WEIR_ENV_KEYS_CACHED_S="1",
        WEIR_ENV_UNKNOWN_KID_EVERY_S="1",
        WEIR_ENV_SECRETS_CACHED_S="1",
    ) as running:
        yield running


def chat(http: httpx.Client, token: str) -> int:
    return http.post("/v1/chat/completions", headers=bearer(token), json=ask()).status_code


def kid_of(token: str) -> str:
    return str(jwt.get_unverified_header(token)["kid"])


def until(holds: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < give_up, "it has not counted in time"
        time.sleep(0.1)


def test_ring_is_listed_and_rotated_and_a_leaked_key_of_it_distrusted(quick: Stack) -> None:
    old = quick.mint(user_id="u_ring")["token"]
    kid = kid_of(old)
    keys = {key["kid"]: key for key in told(quick, "signing", "list")["data"]}
    assert keys[kid]["role"] == "current"
    assert keys[kid]["tokens_alive"] >= 1

    still = weir(quick, "signing", "distrust", kid, "--force", "--yes")
    assert (still.returncode, "signs now" in still.stderr) == (1, True)
    rotated = told(quick, "signing", "rotate")
    assert rotated["retired"] == kid
    assert chat(quick.http, old) == 200, "a rotation refuses no token"

    alive = weir(quick, "signing", "distrust", kid, "--yes")
    assert (alive.returncode, "may be alive" in alive.stderr) == (1, True)
    assert "is distrusted" in done(quick, "signing", "distrust", kid, "--force", "--yes")
    until(lambda: chat(quick.http, old) == 401)
    trail = told(quick, "audit", "--limit", "2")["data"]
    assert [entry["action"] for entry in trail] == ["ring.distrust", "ring.rotate"]
    assert chat(quick.http, quick.mint(user_id="u_ring")["token"]) == 200


def test_ring_that_leaked_whole_is_replaced_by_the_runbooks_three_commands(quick: Stack) -> None:
    leaked = quick.mint()["token"]
    keys = {key["role"]: key["kid"] for key in told(quick, "signing", "list")["data"]}
    done(quick, "signing", "distrust", keys["next"], "--yes")
    done(quick, "signing", "rotate")
    until(lambda: kid_of(quick.mint()["token"]) not in (keys["current"], keys["next"]))
    done(quick, "signing", "distrust", keys["current"], "--force", "--yes")
    until(lambda: chat(quick.http, leaked) == 401)
    assert chat(quick.http, quick.mint()["token"]) == 200


class Load:
    """Mints and chats until it is stopped, with tokens of now and of before."""

    def __init__(self, stack: Stack) -> None:
        self.statuses: Counter[tuple[str, int]] = Counter()
        self.kids: set[str] = set()
        self._stack = stack
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(3)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        older: deque[str] = deque(maxlen=200)
        key = bearer(self._stack.env["BEHEST_KEY"])
        with httpx.Client(base_url=self._stack.http.base_url, timeout=30) as http:
            while not self._stop.is_set():
                asked = {"user_id": f"u_load_{number}"}
                minted = http.post("/v1/auth/mint", headers=key, json=asked)
                self.statuses["mint", minted.status_code] += 1
                if minted.status_code != 200:
                    continue
                token = minted.json()["token"]
                self.kids.add(kid_of(token))
                older.append(token)
                self.statuses["fresh", chat(http, token)] += 1
                self.statuses["oldest", chat(http, older[0])] += 1


@pytest.mark.long
def test_rotation_every_second_under_load_refuses_no_good_token(quick: Stack) -> None:
    end = time.monotonic() + LOAD_S
    rotations = 0
    with Load(quick) as load:
        while (began := time.monotonic()) < end:
            rotate(quick)
            rotations += 1
            time.sleep(max(0.0, began + ROTATE_EVERY_S - time.monotonic()))
    seen = dict(load.statuses)
    assert {status for _, status in seen} == {200}, seen
    assert rotations > LOAD_S / 4, rotations
    assert len(load.kids) > rotations / 2, "tokens of most of the keys were used"
