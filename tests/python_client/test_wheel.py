"""The wheel, where nothing else of this repository is: a first call, and the quickstart."""

import os
import re
import shutil
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from local import install
from tests.python_client.conftest import Shop, until
from tests.stack.admin import bearer

pytestmark = pytest.mark.long

HERE = Path(__file__).parent
PACKAGE = Path(__file__).parents[2] / "clients/python"


@dataclass(frozen=True)
class Installed:
    """A Python that has the wheel and what it depends on, and the openai that this is."""

    python: Path
    openai: str

    def environment(self, shop: Shop) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        return {**kept, "BEHEST_KEY": shop.key, "BEHEST_BASE_URL": shop.url}


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("wheel")
    # A copy: building writes into the sources.
    shutil.copytree(PACKAGE, place / "source", ignore=shutil.ignore_patterns("build", "*.egg-info"))
    install.install("python-client-newest")
    builder = install.ENVIRONMENTS["python-client-newest"].directory / "bin/python"
    build = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run(
        [builder, *build, "--wheel-dir", place, place / "source"], check=True, timeout=120
    )
    (made,) = place.glob("*.whl")
    return made


def installed(wheel: Path, age: str, place: Path) -> Installed:
    """Return a new environment with the wheel and the locked packages.

    pip has no index: it fails if the lock has not what the wheel requires.
    """
    locked = install.ENVIRONMENTS[f"python-client-{age}"]
    install.install(locked.name)
    subprocess.run([locked.directory / "bin/python", "-m", "venv", place], check=True, timeout=60)
    (packages,) = locked.directory.glob("lib/python*/site-packages")
    (own,) = place.glob("lib/python*/site-packages")
    (own / "locked.pth").write_text(f"{packages}\n")
    python = place / "bin/python"
    requirement = f"weir-client[signing] @ {wheel.as_uri()}"
    add = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    subprocess.run([python, *add, requirement], check=True, timeout=120)
    wanted = re.search(r"^openai==(\S+)", locked.lock.read_text(), re.MULTILINE)
    assert wanted is not None
    return Installed(python, wanted[1])


@pytest.fixture(scope="session")
def newest(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return installed(wheel, "newest", tmp_path_factory.mktemp("newest") / "venv")


@pytest.fixture(scope="session")
def oldest(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return installed(wheel, "oldest", tmp_path_factory.mktemp("oldest") / "venv")


def test_the_wheel_has_the_package_its_types_and_nothing_else(wheel: Path) -> None:
    sources = (PACKAGE / "src").rglob("*")
    expected = {
        str(path.relative_to(PACKAGE / "src"))
        for path in sources
        if path.suffix == ".py" or path.name == "py.typed"
    }
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert "weir_client/py.typed" in expected
    (metadata,) = (name for name in names if name.endswith("/METADATA"))
    about = zipfile.ZipFile(wheel).read(metadata).decode()
    assert "Requires-Python: >=3.10" in about
    assert "License-Expression: Apache-2.0" in about


@pytest.mark.parametrize("age", ["newest", "oldest"])
def test_the_installed_package_makes_its_first_calls(
    age: str, shop: Shop, request: pytest.FixtureRequest
) -> None:
    there: Installed = request.getfixturevalue(age)
    ran = subprocess.run(
        [there.python, "-W", "error", "-P", HERE / "first_call.py"],
        env=there.environment(shop),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == there.openai


@pytest.fixture(scope="module")
def quickstart(
    newest: Installed, shop: Shop, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """The quickstart's application, as uvicorn serves it."""
    place = tmp_path_factory.mktemp("quickstart")
    shutil.copytree(HERE / "quickstart", place / "quickstart")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        process = subprocess.Popen(
            [
                newest.python,
                "-m",
                "uvicorn",
                "quickstart.server:app",
                "--fd",
                str(listening.fileno()),
            ],
            cwd=place,
            env=newest.environment(shop),
            pass_fds=[listening.fileno()],
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
            http.get("/openapi.json")  # the socket listens already, so this waits for the server
            yield http
    finally:
        process.terminate()
        process.wait(10)


def cookie(user: str) -> dict[str, str]:
    return {"Cookie": f"session=session-of-{user}"}


def test_the_quickstarts_token_route_gives_the_signed_in_user_a_token(
    quickstart: httpx.Client, shop: Shop
) -> None:
    assert quickstart.post("/api/behest/token").status_code == 401
    reply = quickstart.post("/api/behest/token", headers=cookie("jo"), json={"user_id": "admin"})
    minted = reply.json()
    assert set(minted) == {"token", "ttl", "sessionId", "expiresAt"}
    headers = {**bearer(minted["token"]), "X-Session-Id": minted["sessionId"]}
    me = shop.stack.http.get("/v1/me", headers=headers).json()
    assert (me["user_id"], me["tier"]) == ("jo", 2)
    body = {"messages": [{"role": "user", "content": "from the page"}], "stream": False}
    chat = shop.stack.http.post("/v1/chat/completions", headers=headers, json=body)
    assert chat.json()["choices"][0]["message"]["content"] == "from the page"


def test_the_quickstarts_chat_streams_each_users_own_answer(quickstart: httpx.Client) -> None:
    for user in ("jo", "al"):
        body = {"messages": [{"role": "user", "content": f"I am {user}"}]}
        assert quickstart.post("/chat", headers=cookie(user), json=body).text == f"I am {user}"


def test_a_browser_that_leaves_the_application_ends_the_answer_at_the_gateway(
    quickstart: httpx.Client, shop: Shop
) -> None:
    with shop.weir() as weir:

        def running() -> float:
            limits = {one.limit_name: one for one in weir.me(user_id="al", tier="pro").limits}
            return limits["concurrent_streams"].used

        with quickstart.stream("POST", "/slow", headers=cookie("al")) as reply:
            assert next(reply.iter_text()).startswith("word")
            assert running() == 1
        until(lambda: running() == 0)


def test_this_repositorys_python_is_not_what_the_installed_package_needs(newest: Installed) -> None:
    where = "import weir_client; print(weir_client.__file__)"
    ran = subprocess.run([newest.python, "-P", "-c", where], capture_output=True, text=True)
    assert Path(ran.stdout.strip()).is_relative_to(newest.python.parents[1])
    assert newest.python != Path(sys.executable)
