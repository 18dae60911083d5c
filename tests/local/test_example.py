"""`make example`: what is said where it cannot start, and what the examples have in common."""

import socket
from pathlib import Path

import pytest

from local import example, settings


def test_without_a_running_gateway_it_says_what_to_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WEIR_LOCAL_DIR", str(tmp_path))
    assert example.main(["express"]) == 1
    assert capsys.readouterr().err.startswith("Start `make run` in another terminal first")


def test_a_gateway_that_has_ended_is_not_taken_for_one_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "env").write_text("BEHEST_BASE_URL=http://127.0.0.1:9\nBEHEST_KEY=k\n")
    monkeypatch.setenv("WEIR_LOCAL_DIR", str(tmp_path))
    assert example.main(["express"]) == 1
    assert "No gateway answers at http://127.0.0.1:9." in capsys.readouterr().err


def test_an_unknown_name_is_answered_with_those_that_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert example.main(["nest"]) == 2
    assert "react-vite|nextjs|express|chat-widget|fastapi" in capsys.readouterr().err


def test_a_port_in_use_is_named_before_anything_is_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setitem(example.BY_NAME, "express", example.Example("express", port))
        monkeypatch.setattr(example, "_gateway", dict)
        monkeypatch.setattr(example, "prepare", lambda _: pytest.fail("it went on"))
        assert example.main(["express"]) == 1
    assert f"Port {port} is in use." in capsys.readouterr().err


def test_an_operators_own_settings_do_not_get_into_an_example(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WEIR_KEY", "behest_sk_live_of_production")
    gateway = {
        "BEHEST_BASE_URL": "http://127.0.0.1:1",
        "COGNITO_CLIENT_ID": "id",
        "COGNITO_ENDPOINT": "http://127.0.0.1:2",
    }
    made = example.environment(example.BY_NAME["express"], gateway, 3001)
    assert "WEIR_KEY" not in made
    assert made["BEHEST_BASE_URL"] == "http://127.0.0.1:1"
    assert made["PORT"] == "3001"


@pytest.mark.parametrize("name", ["styles.css", "Markdown.tsx"])
def test_the_examples_share_one_look_and_one_reading_of_markdown(name: str) -> None:
    """They are read and copied alone, so each has its own copy."""
    examples = settings.ROOT / "examples"
    copies = [
        path
        for path in examples.rglob(name)
        if not {"node_modules", "dist", ".next"} & set(path.relative_to(examples).parts)
    ]
    assert len(copies) > 1
    first, *others = sorted(copies)
    for other in others:
        assert other.read_text() == first.read_text(), f"{other} is not {first}"
