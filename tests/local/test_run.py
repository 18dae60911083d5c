"""`make run` as a user meets it: one process in the foreground, and nothing left behind."""

import contextlib
import dataclasses
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cli.dotenv import read_env
from local import CannotRun, install

ROOT = Path(__file__).parents[2]


def environment(directory: Path, **settings: str) -> dict[str, str]:
    kept = ("AWS_", "UPSTREAM_", "WEIR_", "PORT", "PAGE_PORT", "ALLOWED_ORIGINS")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(kept)}
    return {
        **clean,
        "PORT": "0",
        "HEADLESS": "1",
        "WEIR_LOCAL_DIR": str(directory),
        "UPSTREAM_BASE_URL": "http://127.0.0.1:9/v1",
        "UPSTREAM_MODEL": "nobody-answers",
        "UPSTREAM_API_KEY": "canary-provider-key",
        "UPSTREAM_PRICE_INPUT": "0",
        "UPSTREAM_PRICE_OUTPUT": "0",
        **settings,
    }


class Run:
    def __init__(self, directory: Path, **settings: str) -> None:
        self.directory, self.said = directory, ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "local"],
            cwd=ROOT,
            env=environment(directory, **settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line
            if line.startswith("Ready"):
                break
        else:
            self.close()
            pytest.fail(f"it did not start:\n{self.said}")
        self.env = read_env(directory / "env") or {}
        self.url = self.env["BEHEST_BASE_URL"]

    def control(self, path: str, body: bytes = b"") -> httpx.Response:
        socket_ = httpx.HTTPTransport(uds=str(self.directory / "control.sock"))
        with httpx.Client(transport=socket_, base_url="http://weir", timeout=20) as client:
            return client.post(path, content=body)

    def descendants(self) -> list[int]:
        parents = {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                after_name = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = int(after_name[1])
        found = [self.process.pid]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found[1:]

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@contextlib.contextmanager
def running(directory: Path, **settings: str) -> Iterator[Run]:
    started = Run(directory, **settings)
    try:
        yield started
    finally:
        started.close()


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def gone_within(pids: list[int], seconds: float) -> bool:
    give_up = time.monotonic() + seconds
    while alive(pids) and time.monotonic() < give_up:
        time.sleep(0.02)
    return not alive(pids)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    with running(tmp_path_factory.mktemp("run"), WEIR_PARAM_NextKeyMinimumAgeSeconds="0") as one:
        yield one


def test_it_tells_address_key_and_a_first_call(stack: Run) -> None:
    assert httpx.get(f"{stack.url}/healthz").json() == {"status": "ready"}
    assert stack.url in stack.said
    assert stack.env["BEHEST_KEY"] in stack.said
    assert "Ctrl-C ends it." in stack.said
    assert "canary-provider-key" not in stack.said


def test_the_pasted_line_reaches_the_provider(stack: Run) -> None:
    (line,) = [line for line in stack.said.splitlines() if line.startswith("curl -N")]
    told = subprocess.run(["sh", "-c", line], capture_output=True, timeout=20, text=True).stdout
    # Nobody listens behind it in these tests: what comes back is the function's own 502.
    assert json.loads(told)["error"]["code"] == "upstream_unavailable", told


def test_the_settings_file_is_private_and_complete(stack: Run) -> None:
    path = stack.directory / "env"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert set(stack.env) == {
        "BEHEST_BASE_URL",
        "BEHEST_KEY",
        "BEHEST_TENANT_ID",
        "BEHEST_PROJECT_ID",
        "ALLOWED_ORIGIN",
        "COGNITO_ENDPOINT",
        "COGNITO_USER_POOL_ID",
        "COGNITO_CLIENT_ID",
        "DEMO_EMAIL",
        "DEMO_PASSWORD",
        "WEIR_STACK",
        "WEIR_LOCAL_ACCESS_KEY_ID",
        "WEIR_LOCAL_SECRET_ACCESS_KEY",
        "FC_BASE_URL",
        "FC_API_KEY",
        "FC_MODEL",
    }
    assert all(stack.env.values())


def test_everything_listens_on_loopback_only(stack: Run) -> None:
    inodes = set()
    for pid in [stack.process.pid, *stack.descendants()]:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                inodes.add(os.readlink(descriptor).removeprefix("socket:[").removesuffix("]"))
    listening = [
        fields[1].split(":")[0]
        for table in ("tcp", "tcp6", "udp", "udp6")
        for fields in (line.split() for line in Path(f"/proc/net/{table}").read_text().splitlines())
        if (fields[3] == "0A" or table.startswith("udp")) and fields[9] in inodes
    ]
    assert len(listening) >= 5
    assert set(listening) == {"0100007F"}


def test_what_it_writes_is_readable_by_its_user_only(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir(mode=0o755)
    for left in (logs / "install-run.log", tmp_path / "env"):  # by an earlier release
        left.touch(mode=0o644)
    tmp_path.chmod(0o755)
    with running(tmp_path) as one:
        httpx.get(f"{one.url}/.well-known/jwks.json")
        modes = {
            path.relative_to(tmp_path): stat.S_IMODE(path.stat().st_mode)
            for path in tmp_path.rglob("*")
            if not path.is_symlink()
        }
    assert {name.name for name in modes} >= {"env", "aws", "tmp", "control.sock", "gateway.log"}
    assert any(name.suffix == ".pem" for name in modes)
    inside = ("image", "python")  # a program, in a folder that is closed
    opened = {name for name, mode in modes.items() if mode & 0o077 and name.parts != inside}
    assert opened == set()
    assert modes[Path("image")] == 0o700
    # The folder may hold more than what is Weir's.
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_the_embedded_aws_knows_this_runs_root_user_only(stack: Run) -> None:
    root = {
        name: stack.env[f"WEIR_LOCAL_{name}"] for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")
    }
    assert len(set(root.values())) == 2
    assert "test" not in root.values()
    assert not any(value in stack.said for value in root.values())
    assert httpx.post(stack.env["COGNITO_ENDPOINT"]).status_code == 403


def test_another_name_is_answered_if_the_settings_list_it(tmp_path: Path) -> None:
    with running(tmp_path, ALLOWED_HOSTS="weir.test, other.test") as one:
        for host, expected in (("weir.test", 200), ("other.test:1", 200), ("evil.test", 421)):
            reply = httpx.get(f"{one.url}/healthz", headers={"Host": host})
            assert reply.status_code == expected
        assert "ALLOWED_HOSTS=evil.test" in reply.text


def test_a_function_has_the_templates_environment_and_nothing_of_the_shell(stack: Run) -> None:
    seen = {}
    for pid in stack.descendants():
        pairs = Path(f"/proc/{pid}/environ").read_text().split("\0")
        env = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        seen[env.get("AWS_LAMBDA_FUNCTION_NAME", "other").split("-")[-2:-1] == ["ChatFunction"]] = (
            env
        )
        assert "canary-provider-key" not in "".join(pairs)
        assert "VIRTUAL_ENV" not in env
    chat = seen[True]
    assert chat["MAX_STREAM_S"] == "300"
    assert chat["TABLE_NAME"]
    assert chat["AWS_SESSION_TOKEN"]
    assert chat["AWS_LAMBDA_LOG_FORMAT"] == "JSON"


def test_a_rotation_can_be_asked_for(stack: Run) -> None:
    before = httpx.get(f"{stack.url}/.well-known/jwks.json").json()["keys"]
    told = stack.control("/rotate")
    assert told.status_code == 200, told.text
    assert len(told.json()["versions"]) == 1
    assert len(before) == 2
    failed = stack.control("/functions/RotateFunction/invocations", b'{"Step":"x"}')
    assert failed.status_code == 502
    assert stack.control("/nothing").status_code == 404


def test_the_sweeper_can_be_asked_to_run(stack: Run) -> None:
    """In its own process, with its own role. It runs by itself, too, a minute after the start."""
    told = stack.control("/schedules")
    assert (told.status_code, told.json()) == (200, {"ran": ["SweepFunction"]}), told.text
    log = (stack.directory / "logs/SweepFunction.log").read_text().splitlines()
    swept = json.loads(log[-1])
    assert (swept["message"], swept["SweptReservations"]) == ("swept", 0)
    assert swept["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "Weir"


def test_a_second_one_on_the_same_port_or_in_the_same_folder_says_so(
    stack: Run, tmp_path: Path
) -> None:
    port = stack.url.rpartition(":")[2]
    assert said_by(tmp_path, PORT=port).startswith(f"Port {port} cannot be used")
    assert said_by(stack.directory).startswith("Another `make run` uses")
    assert stack.control("/rotate").status_code == 200


def test_sigterm_ends_everything_with_code_0_and_the_next_start_keeps_the_key(
    tmp_path: Path,
) -> None:
    with running(tmp_path) as first:
        started = first.descendants()
        assert len(started) >= 5
        began = time.monotonic()
        first.process.terminate()
        assert first.process.wait(timeout=5) == 0
        assert time.monotonic() - began < 5
        assert gone_within(started, 0.5)
    with running(tmp_path) as second:
        for name in ("BEHEST_KEY", "DEMO_PASSWORD"):
            assert second.env[name] == first.env[name]
        minted = httpx.post(
            f"{second.url}/v1/auth/mint",
            headers={"Authorization": f"Bearer {second.env['BEHEST_KEY']}"},
            json={"user_id": "u1"},
        )
        assert minted.status_code == 200
        started = second.descendants()
        os.killpg(second.process.pid, signal.SIGINT)  # as a terminal's Ctrl-C does
        assert second.process.wait(timeout=5) == 0
        assert gone_within(started, 0.5)


def test_sigkill_leaves_nothing_behind_either(tmp_path: Path) -> None:
    with running(tmp_path) as one:
        started = one.descendants()
        one.process.kill()
        assert gone_within(started, 5), alive(started)


def test_if_the_embedded_aws_dies_it_says_so_and_ends(tmp_path: Path) -> None:
    with running(tmp_path) as one:
        (aws,) = [pid for pid in one.descendants() if "local.aws_server" in command(pid)]
        os.kill(aws, signal.SIGKILL)
        rest, _ = one.process.communicate(timeout=5)
        assert one.process.returncode == 1
        assert "The embedded AWS has ended by itself" in rest
        assert "Traceback" not in rest


def command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


# --- one sentence ------------------------------------------------------------------------------


def said_by(directory: Path, **settings: str) -> str:
    """What it says on stderr when it cannot run; it must be one line, and the code not 0."""
    ended = subprocess.run(
        [sys.executable, "-m", "local"],
        cwd=ROOT,
        env=environment(directory, **settings),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1, ended
    assert ended.stderr.count("\n") == 1, ended.stderr
    return ended.stderr


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"PORT": "http"}, "PORT must be a number"),
        ({"PORT": "70000"}, "PORT must be a number"),
        ({"ALLOWED_HOSTS": "http://weir.test"}, "ALLOWED_HOSTS must be names"),
        ({"UPSTREAM_MODEL": ""}, "UPSTREAM_BASE_URL is set: set UPSTREAM_MODEL"),
        ({"UPSTREAM_BASE_URL": "api.openai.com"}, "UPSTREAM_BASE_URL must begin with http"),
        ({"WEIR_PARAM_Nonsense": "1"}, "The template has no parameter Nonsense"),
        ({"WEIR_PARAM_MaxStreamSeconds": "9999"}, "The template was refused"),
        ({"UPSTREAM_PRICE_INPUT": "cheap"}, "UPSTREAM_PRICE_INPUT must be an amount of USD"),
        ({"UPSTREAM_PRICE_OUTPUT": ""}, "What does 'nobody-answers' cost?"),
        (
            {"ALLOWED_ORIGINS": "http://app.example.com"},
            "The first project cannot be made. origins.0: 'http://app.example.com': http:// is",
        ),
    ],
)
def test_a_wrong_setting_is_told_in_one_sentence(
    tmp_path: Path, settings: dict[str, str], sentence: str
) -> None:
    assert said_by(tmp_path, **settings).startswith(sentence)


def test_a_busy_port_is_told_in_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        assert said_by(tmp_path, PORT=port).startswith(f"Port {port} cannot be used")


# --- installing --------------------------------------------------------------------------------


def test_a_python_that_is_not_supported_is_named(tmp_path: Path) -> None:
    script = (
        "import runpy, shutil, sys; sys.version_info = (3, 10, 0); sys.version = '3.10.0 (main)';"
        "shutil.which = lambda name: None; runpy.run_module('local', run_name='__main__')"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr == "Weir needs Python 3.11, 3.12 or 3.13; this is 3.10.0.\n"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> install.Environment:
    """An environment of its own, with a lock that needs no package index."""
    lock = tmp_path / "lock.txt"
    lock.write_text("# nothing\n")
    one = install.Environment("toy", "a toy", tmp_path / "venv", lock)
    monkeypatch.setitem(install.ENVIRONMENTS, "toy", one)
    monkeypatch.setattr(install, "STATE", tmp_path)
    return one


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """venv and pip, without the seconds they take."""

    def run(command: list[str], _log: Path) -> int:
        if "venv" in command:
            python = Path(command[-1]) / "bin/python"
            python.parent.mkdir(parents=True)
            python.touch()
            version = ".".join(map(str, sys.version_info[:3]))
            (python.parents[1] / "pyvenv.cfg").write_text(f"version = {version}\n")
        return 0

    monkeypatch.setattr(install, "_run", run)


@pytest.mark.usefixtures("fast")
def test_what_is_installed_is_not_installed_again(
    elsewhere: install.Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    install.install("toy")
    assert "Installing a toy ..." in capsys.readouterr().out
    began = time.monotonic()
    install.install("toy")
    assert time.monotonic() - began < 0.1
    assert capsys.readouterr().out == ""
    elsewhere.lock.write_text("# something else\n")
    install.install("toy")
    assert "Installed a toy" in capsys.readouterr().out
    # An installation that was killed is begun anew.
    (elsewhere.directory / ".weir-toy").unlink()
    (elsewhere.directory / ".weir-unfinished").touch()
    (elsewhere.directory / "half").touch()
    install.install("toy")
    assert not (elsewhere.directory / "half").exists()


@pytest.mark.usefixtures("fast")
def test_npm_packages_are_installed_with_their_environment_and_again_when_their_lock_changes(
    elsewhere: install.Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("package.json", "package-lock.json"):
        (source / name).write_text("{}")
    commands: list[list[str]] = []
    run = install._run

    def listed(command: list[str], log: Path) -> int:
        commands.append(command)
        return run(command, log)

    monkeypatch.setattr(install, "_run", listed)
    monkeypatch.setattr(install, "node_of", lambda _environment: ("node", ["node", "npm"]))
    one = dataclasses.replace(elsewhere, npm=source)
    monkeypatch.setitem(install.ENVIRONMENTS, "toy", one)

    install.install("toy")
    assert commands[-1][:3] == ["node", "npm", "ci"]
    assert (one.directory / "node/package-lock.json").read_text() == "{}"
    commands.clear()
    install.install("toy")
    assert commands == []
    (source / "package-lock.json").write_text('{"changed": true}')
    install.install("toy")
    assert commands[-1][:3] == ["node", "npm", "ci"]
    assert (one.directory / "node/package-lock.json").read_text() == '{"changed": true}'


def test_a_failed_download_is_one_sentence(
    elsewhere: install.Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_RETRIES", "1")
    elsewhere.lock.write_text(f"nothing-of-that-name==1 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(CannotRun) as failure:
        install.install("toy")
    said = str(failure.value)
    assert said.startswith("Installing a toy failed: the package index cannot be reached.")
    assert "install-toy.log" in said
    assert "\n" not in said


def test_without_libgomp_the_sentence_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)  # root installs it instead

    def missing(_name: str) -> None:
        raise OSError

    monkeypatch.setattr("ctypes.CDLL", missing)
    with pytest.raises(CannotRun, match=r"libgomp1.*UPSTREAM_BASE_URL"):
        install.check_model_can_run()


def test_another_platform_is_asked_for_a_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    with pytest.raises(CannotRun, match=r"Linux x86_64 only.*UPSTREAM_BASE_URL"):
        install.check_model_can_run()


def test_a_python_without_venv_is_told_in_one_sentence(
    elsewhere: install.Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "_run", lambda _command, _log: 1)
    with pytest.raises(CannotRun, match=r"apt install python3-venv.*install-toy\.log"):
        install.install(elsewhere.name)
