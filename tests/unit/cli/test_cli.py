"""The operator's command line in this process, against moto: what is printed, asked and refused."""

import functools
import io
import json
import re
import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from moto import mock_aws

import cli.console
import cli.main
from cli import text
from cli.deployment import Deployment
from tests.unit.conftest import NOW, UPSTREAM_OF, make_table, minted
from weir.aws.clients import client
from weir.aws.table import Table
from weir.identity.keyring import SigningKey
from weir.operator.audit import Entry

ROOT = Path(__file__).parents[3]
SECRET_KEY = "sk-provider-0123456789"
PARSER = cli.main.parser()  # takes longer than what most commands do here
MODEL = {
    "candidates": [
        {
            "upstream": "one",
            "model": "large",
            "input_nano_usd": 150,
            "cached_input_nano_usd": 75,
            "output_nano_usd": 2500,
        }
    ],
    "context_tokens": 1000,
    "max_output_tokens": 100,
    "overhead_tokens": 5,
}


class Typed(io.StringIO):
    """A person at a terminal."""

    def isatty(self) -> bool:
        return True


class Session(boto3.Session):
    """Making a client takes longer than everything that is done with it here."""

    @functools.cache  # noqa: B019  # one session
    def client(self, service_name: str, **_: Any) -> Any:
        return super().client(service_name)  # type: ignore[call-overload]


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


Weir = Callable[..., Answer]


@pytest.fixture(scope="module")
def deployment() -> Iterator[Deployment]:
    with mock_aws():
        session = Session("test", "test", region_name="us-east-1")
        outputs = {
            "TableName": "t",
            "ProjectId": "default",
            "ProviderKeysSecretArn": "provider-keys",
            "UserPoolId": "none",
            "KeyArn": session.client("kms").create_key()["KeyMetadata"]["Arn"],
        }
        yield Deployment("moto", "CREATE_COMPLETE", outputs, "http://127.0.0.1:9", session, None)


@pytest.fixture
def fresh(deployment: Deployment) -> Iterator[Deployment]:
    make_table(deployment.client("dynamodb"))
    secrets = deployment.client("secretsmanager")
    secrets.create_secret(Name="provider-keys", SecretString="{}")
    yield deployment
    deployment.client("dynamodb").delete_table(TableName="t")
    secrets.delete_secret(SecretId="provider-keys", ForceDeleteWithoutRecovery=True)


@pytest.fixture
def weir(
    fresh: Deployment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Weir:
    monkeypatch.setattr(cli.main, "find", lambda **_: fresh)
    monkeypatch.setattr(cli.main, "parser", lambda: PARSER)

    def run(*words: str, stdin: str = "", types: str | None = None) -> Answer:
        reads = io.StringIO(stdin) if types is None else Typed(types)
        monkeypatch.setattr("sys.stdin", reads)
        code = cli.main.main(words)
        return Answer(code, *capsys.readouterr())

    return run


@pytest.fixture
def configured(weir: Weir, tmp_path: Path) -> Weir:
    """A project, an upstream without a key, a model."""
    (tmp_path / "model.json").write_text(json.dumps(MODEL))
    for words in (
        ("upstreams", "set", "one", "--kind", "openai", "--base-url", "https://one.example/v1"),
        ("models", "set", "large", "--file", str(tmp_path / "model.json")),
        ("projects", "create", "default", "--default-model", "large"),
    ):
        answer = weir(*words)
        assert answer.code == 0, answer.err
    return weir


# ---------------------------------------------------------------- help and refusals


@pytest.mark.parametrize(
    "words", [(), ("keys",), ("projects",), ("cors",), ("kill",), ("--local", "models")]
)
def test_weir_or_a_group_alone_prints_its_help_and_needs_no_deployment(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main.main(words) == 0
    assert "commands:" in capsys.readouterr().out


def test_every_command_and_every_flag_has_a_help_text() -> None:
    def parsers(parser: Any) -> Iterator[Any]:
        for action in parser._actions:
            for child in (action.choices or {}).values() if action.nargs == "A..." else ():
                yield from parsers(child)
        yield parser

    found = list(parsers(PARSER))
    assert len(found) > 40
    for parser in found:
        assert parser.description, parser.prog
        assert parser.format_help()  # a stray % would raise
        silent = [a.option_strings for a in parser._actions if a.option_strings and not a.help]
        assert silent == [], parser.prog


def documented() -> Iterator[str]:
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for line in path.read_text().splitlines():
            if found := re.match(r"(?:\w+=\$\()?(?:\.venv/bin/)?weir (?!=)([^<>|)]+)", line):
                yield found[1]


def test_every_command_line_in_the_documents_is_one_that_weir_takes() -> None:
    lines = list(documented())
    assert len(lines) > 20
    for line in lines:
        # A file that a reader would have.
        words = ["x" if word[0] == "@" else word for word in shlex.split(line, comments=True)]
        assert PARSER.parse_args(words).run is not None, line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["projects", "create", "Shop"], "pid: "),
        (["projects", "update", "default"], "Say what to change"),
        (["projects", "create", "x", "--default-model", "gpt"], "default_model: The catalogue"),
        (["projects", "create", "default"], "There is a project 'default' already"),
        (["origins", "add", "http://a.example"], "only for localhost"),
        (["tiers", "set", "Gold", "rpm=1"], "'Gold' cannot name a tier"),
        (["tiers", "set", "free", "rpm=-1"], "rpm: Input should be greater"),
        (
            ["tiers", "set", "pro", "rpm=default", "--project", "default"],
            "alone; `weir tiers reset pro --project default` resets them all",
        ),
        (["projects", "create", "x", "--default-model", ""], "default_model: a model's name"),
        (
            ["projects", "create", "x", "--default-model", "gpt-4o-mini"],
            "To add it: `weir models add gpt-4o-mini`",
        ),
        (
            ["projects", "update", "default", "--model", "gpt-4o-mini"],
            "To add it: `weir models add gpt-4o-mini`",
        ),
        (["origins", "add", "*", "--preview"], "'*' has no domain"),
        (["models", "add", "default", "--from", "gpt-4o"], "'default' means"),
        (["tenant", "update"], "Say what to change"),
        (["models", "set", "large", "--file", "/nowhere"], "/nowhere cannot be read"),
        (["models", "set", "large", "--file", "-"], "is not JSON"),
        (["models", "add", "no-such-model"], "`weir models known` shows it"),
        (["upstreams", "set", "two", "--kind", "openai"], "base_url is required"),
        (["upstreams", "set-key", "two"], "no upstream 'two'"),
        (["kill", "user", "\x00"], "user_id: "),
        (["keys", "revoke", "key_0000000000000000"], "No API key key_0000000000000000"),
        (["keys", "revoke", "behest_sk_live_" + "0" * 32], "No API key key_"),
        (["keys", "revoke", "nonsense"], "No API key looks like that"),
        (["tokens", "revoke"], "--jti JTI --user UID"),
        (["tokens", "revoke", "--jti", "j_1"], "--jti JTI --user UID"),
        (["tokens", "revoke", "x.y.z", "--jti", "j_1", "--user", "u"], "--jti JTI --user UID"),
        (["tokens", "revoke", "nonsense"], "This is not a user token"),
        (["tokens", "revoke", "x.y.z"], "This is not a user token"),
        (["tokens", "revoke", "x.e30.z"], "does not name its id (jti)"),
        (["tokens", "revoke", "behest_sk_live_" + "0" * 32], "`weir keys revoke`"),
        (["sessions", "revoke", "u", "\x00"], "session_id: "),
        (["users", "sign-out", "u", "--project", "shop"], "There is no project 'shop'"),
        (["admins", "add", "somebody"], "not an e-mail address"),
        (["audit", "--limit", "0"], "from 1 to 1000"),
        (["import", "-"], "is not JSON"),
        (["admins", "remove", "somebody"], "not an e-mail address"),
        (["projects", "suspend", "shop"], "There is no project 'shop'"),
    ],
)
def test_what_is_refused_is_one_sentence_on_stderr(
    configured: Weir, words: list[str], said: str
) -> None:
    answer = configured(*words)
    assert (answer.code, answer.out) == (1, "")
    (sentence,) = answer.err.splitlines()[1:]
    assert sentence.startswith("weir: ")
    assert said in sentence


@pytest.mark.parametrize(
    ("document", "said"),
    [("{}", "This is not a file of `weir export`: format is missing."), ("[]", "a JSON object")],
)
def test_file_that_is_no_export_is_told_apart(configured: Weir, document: str, said: str) -> None:
    answer = configured("import", "-", stdin=document)
    assert (answer.code, said in answer.err) == (1, True)


@pytest.mark.parametrize("secret", ["sk-proj-0123456789", "AIzaSy0123", "behest_sk_live_0123"])
@pytest.mark.parametrize(
    "words",
    [
        ["upstreams", "set", "one", "--kind", "openai", "--api-key"],
        ["upstreams", "set", "one", "--kind"],
        ["upstreams", "set-key", "one", "two"],
        ["status", "--json"],
        [],
    ],
    ids=" ".join,
)
def test_what_looks_like_a_key_is_never_repeated(
    words: list[str], secret: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for given in ([*words, secret], [*words, f"--api-key={secret}"]):
        with pytest.raises(SystemExit):
            PARSER.parse_args(given)
    assert secret not in "".join(capsys.readouterr())


def test_name_that_looks_like_a_key_is_not_repeated_either(weir: Weir) -> None:
    answer = weir("upstreams", "show", SECRET_KEY)
    assert answer.code == 1
    assert SECRET_KEY not in answer.err


@pytest.mark.parametrize("bad", ["rpn=6", "rpm", "rpm=many", "tpm=1.5"])
def test_misspelt_limit_is_refused_and_the_right_names_are_told(
    bad: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main.main(["tiers", "set", "free", bad])
    assert ended.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert bad in said
    assert "default" not in said, "of a tier no single limit is taken back"


@pytest.mark.parametrize(
    "words",
    [
        ("keys", "create"),
        ("origins", "list"),
        ("tiers", "list"),
        ("cors", "check", "https://a.example"),
        ("kill", "user", "u"),
        ("erase-user", "u", "--yes"),
    ],
)
def test_missing_project_is_told_with_the_commands_that_show_and_make_one(
    weir: Weir, words: tuple[str, ...]
) -> None:
    answer = weir("--local", *words, "--project", "shop")
    assert answer.code == 1
    assert "There is no project 'shop'." in answer.err
    assert "`weir --local projects list`" in answer.err
    assert "`weir --local projects create PID`" in answer.err
    assert "create shop" not in answer.err, "it may be misspelt"


def test_failure_of_aws_is_one_sentence(weir: Weir, fresh: Deployment) -> None:
    fresh.client("secretsmanager").delete_secret(
        SecretId="provider-keys", ForceDeleteWithoutRecovery=True
    )
    weir("upstreams", "set", "one", "--kind", "openai", "--base-url", "https://one.example/v1")
    answer = weir("upstreams", "set-key", "one", stdin=SECRET_KEY)
    fresh.client("secretsmanager").create_secret(Name="provider-keys", SecretString="{}")
    assert answer.code == 1
    assert "weir: AWS refused" in answer.err
    assert SECRET_KEY not in answer.err


# ---------------------------------------------------------------- asking first


ASKED = [
    ["kill", "tenant"],
    ["kill", "project", "default"],
    ["projects", "suspend", "default"],
    ["models", "remove", "large"],
    ["upstreams", "remove", "one"],
    ["upstreams", "remove-key", "one"],
    ["upstreams", "set-key", "one"],
    ["tiers", "reset", "gold"],
    ["erase-user", "u_1"],
]


@pytest.mark.parametrize("words", ASKED, ids=" ".join)
def test_what_cannot_be_undone_is_asked_first_and_refused_without_a_terminal(
    configured: Weir, words: list[str]
) -> None:
    configured("tiers", "set", "gold", "rpm=5")
    configured("upstreams", "set-key", "one", stdin=SECRET_KEY)
    before = configured("audit", "--json").json()

    answer = configured(*words, stdin="yes\n")
    assert answer.code == 1
    assert "--yes" in answer.err
    for reply in ("", "y\n", "no\n"):
        refused = configured(*words, types=reply)
        assert refused.code == 1
        assert "will " in refused.err
        assert "Type yes" in refused.err
        assert "Nothing was done" in refused.err
    assert configured("audit", "--json").json() == before


@pytest.mark.parametrize("answered", [{"types": "yes\n"}, {"extra": "--yes"}])
def test_answering_yes_or_saying_it_before_does_it(
    configured: Weir, answered: dict[str, str]
) -> None:
    configured("projects", "update", "default", "--no-default-model")
    extra = [answered["extra"]] if "extra" in answered else []
    done = configured("models", "remove", "large", *extra, types=answered.get("types", ""))
    assert done.code == 0, done.err
    assert configured("models", "list", "--json").json() == {"data": {}}


def test_suspended_project_is_resumed(configured: Weir) -> None:
    for verb, status in (("suspend", "suspended"), ("resume", "active")):
        for said in (f"is {status}", f"was {status} already"):
            yes = ["--yes"] if (verb, said) == ("suspend", "is suspended") else []
            answer = configured("projects", verb, "default", *yes)
            assert answer.out == f"The project default {said}.\n"
        assert configured("projects", "show", "default", "--json").json()["status"] == status


def test_what_can_be_undone_is_not_asked(configured: Weir) -> None:
    for words in (
        ["kill", "model", "large"],
        ["revive", "model", "large"],
        ["kill", "user", "u"],
        ["revive", "tenant"],
        ["tiers", "reset", "free"],
        ["projects", "resume", "default"],
    ):
        assert configured(*words).code == 0


# ---------------------------------------------------------------- projects, tiers, tenant


def test_limits_that_are_not_named_stay_and_default_takes_one_back(weir: Weir) -> None:
    limits = ["--limit", "rpm=30", "--limit", "tpm=9", "--user-limit", "rpm=2"]
    weir("projects", "create", *limits, "p")
    weir("projects", "update", "p", "--limit", "tpm=default", "--limit", "usd_per_month=12.5")
    told = weir("projects", "update", "p", "--user-limit", "tokens_per_day=none", "--json").json()
    assert told["limits"] == {"rpm": 30, "usd_per_month": 12.5}
    assert told["user_limits"] == {"rpm": 2, "tokens_per_day": None}
    shown = weir("projects", "show", "p").out
    assert "rpm=30, usd_per_month=12.5" in shown

    weir("tenant", "update", "--limit", "rpm=7", "--limit", "tpm=8")
    assert weir("tenant", "update", "--limit", "rpm=default", "--json").json()["limits"] == {
        "tpm": 8
    }


def test_limit_that_was_set_is_shown_wherever_it_is_set(configured: Weir) -> None:
    for words in (
        ["tenant", "update", "--limit"],
        ["projects", "create", "a", "--limit"],
        ["projects", "update", "default", "--user-limit"],
        ["tiers", "set", "free"],
    ):
        kept = configured(*words, "usd_per_month=100")
        assert kept.code == 0
        assert re.search(r"usd_per_month=100(?![.0-9])", kept.out), words


def test_shards_are_set_and_shown_and_a_number_out_of_range_changes_nothing(
    configured: Weir,
) -> None:
    for words, again in (
        (["projects", "create", "busy"], ["projects", "show", "busy"]),
        (["projects", "update", "default"], ["projects", "show", "default"]),
        (["tenant", "update"], ["tenant", "show"]),
    ):
        assert configured(*words, "--ledger-shards", "17").code == 1, words
        assert "ledger_shards" in configured(*words, "--ledger-shards", "0").err, words
        assert configured(*words, "--ledger-shards", "4").code == 0, words
        assert re.search(r"^Ledger shards +4$", configured(*again).out, re.MULTILINE), words
        assert configured(*again, "--json").json()["ledger_shards"] == 4
    configured("tenant", "update", "--limit", "rpm=9")
    told = configured("tenant", "update", "--ledger-shards", "5", "--json").json()
    assert (told["limits"], told["ledger_shards"]) == ({"rpm": 9}, 5)


def test_what_was_changed_in_a_project_names_it(configured: Weir) -> None:
    key = json.loads(configured("keys", "create", "--json").out)["key_id"]
    for words in (
        ["tiers", "set", "free", "rpm=1"],
        ["tiers", "reset", "free"],
        ["origins", "add", "https://a.example", "https://b.example"],
        ["origins", "remove", "https://a.example"],
        ["keys", "revoke", key, "--yes"],
        ["keys", "revoke", key],
        ["tokens", "revoke", "--jti", "j_1", "--user", "u_1"],
        ["sessions", "revoke", "u_1", "s_1"],
        ["users", "sign-out", "u_1"],
        ["erase-user", "u_1", "--yes"],
    ):
        answer = configured(*words)
        assert answer.code == 0
        assert "project default" in answer.out, words


def test_project_takes_every_setting_and_gives_it_back(configured: Weir, tmp_path: Path) -> None:
    (tmp_path / "prompt").write_text("Be brief.\nBe kind.\n")
    configured("projects", "create", "p")
    flags = [
        *("--name", "Shop", "--origin", "https://B.example/", "--origin", "https://a.example"),
        *("--preview-origin", "https://*.a.example", "--model", "large"),
        *("--default-model", "large", "--system-prompt", f"@{tmp_path / 'prompt'}"),
        *("--allow-field", "top_k", "--allow-field", "guided_json"),
        *("--memory-window", "7", "--retention-days", "0", "--memory-enabled"),
        "--no-store-tool-calls",
    ]
    told = configured("projects", "update", "p", *flags, "--json").json()
    expected = {
        "name": "Shop",
        "origins": ["https://a.example", "https://b.example"],
        "preview_origins": ["https://*.a.example"],
        "models": ["large"],
        "default_model": "large",
        "system_prompt": "Be brief.\nBe kind.\n",
        "allowed_fields": ["guided_json", "top_k"],
        "memory_window": 7,
        "retention_days": 0,
        "memory_enabled": True,
        "store_tool_calls": False,
    }
    assert {name: told[name] for name in expected} == expected
    assert "nothing is kept" in configured("projects", "show", "p").out
    back = ["--no-default-model", "--all-models", "--no-system-prompt", "--no-allowed-fields"]
    back += ["--no-retention-days", "--no-memory-enabled", "--store-tool-calls"]
    told = configured("projects", "update", "p", *back, "--json").json()
    assert (told["models"], told["default_model"], told["system_prompt"]) == (None, None, None)
    assert (told["name"], told["allowed_fields"]) == ("Shop", [])
    assert (told["retention_days"], told["memory_enabled"]) == (None, False)
    assert "kept until they are deleted; at most 7" in configured("projects", "show", "p").out
    refused = configured("projects", "update", "p", "--allow-field", "service_tier")
    assert refused.code != 0
    assert "service_tier: cannot be allowed" in refused.err


def test_new_project_says_what_is_still_missing_and_how_to_set_it(configured: Weir) -> None:
    answer = configured("--local", "projects", "create", "shop")
    for command in (
        "weir --local projects update shop --default-model large",
        "weir --local origins add 'https://…' --project shop",
        "weir --local keys create --project shop",
    ):
        assert command in answer.err
    assert configured("projects", "show", "shop", "--json").json()["default_model"] is None


def test_own_tier_is_made_changed_and_removed(configured: Weir) -> None:
    configured("tiers", "set", "gold", "rpm=5", "tpm=6")
    configured("tiers", "set", "gold", "tpm=none")
    tiers = {t["name"]: t for t in configured("tiers", "list", "--json").json()["data"]}
    assert (tiers["gold"]["number"], tiers["gold"]["limits"]["rpm"]) == (4, 5)
    assert tiers["gold"]["limits"]["tpm"] is None
    assert "gold" in configured("tiers", "list").out
    configured("tiers", "reset", "gold", "--yes")
    assert "gold" not in configured("tiers", "list").out


# ---------------------------------------------------------------- models and upstreams


def test_known_model_brings_its_upstream_and_says_how_to_give_it_a_key(weir: Weir) -> None:
    answer = weir("--stack", "s", "models", "add", "gpt-4o-mini")
    assert answer.code == 0, answer.err
    assert "Made the upstream openai: https://api.openai.com/v1." in answer.err
    assert "weir --stack s upstreams set-key openai" in answer.err
    assert "The upstream openai has no key yet" in answer.err
    known = weir("models", "known", "gpt-4o-mini", "--json").json()["data"]["gpt-4o-mini"]
    told = weir("models", "show", "gpt-4o-mini", "--json").json()
    assert "charged for what it had said" in weir("models", "show", "gpt-4o-mini").out
    assert known == {name: told[name] for name in known}

    assert weir("models", "add", "gpt-4o-mini").code == 0, "the same again changes nothing"
    other = weir("models", "add", "gpt-4o-mini", "--from", "gpt-4o")
    assert (other.code, "--replace" in other.err) == (1, True)
    assert weir("models", "add", "gpt-4o-mini", "--from", "gpt-4o", "--replace").code == 0


def test_known_model_under_another_name_keeps_an_upstream_that_is_there(weir: Weir) -> None:
    weir("upstreams", "set", "openai", "--kind", "openai", "--base-url", "https://proxy.example")
    answer = weir("models", "add", "small", "--from", "gpt-4o-mini")
    assert "is there already, and stays: https://proxy.example" in answer.err
    assert "small" in weir("models", "list").out
    assert weir("upstreams", "show", "openai", "--json").json()["base_url"] == (
        "https://proxy.example"
    )


def test_known_model_may_be_answered_by_azure(weir: Weir) -> None:
    address = ("--base-url", "https://mine.openai.azure.com", "--api-version", "2024-10-21")
    weir("upstreams", "set", "openai", "--kind", "azure", *address)
    answer = weir("models", "add", "gpt-4o-mini")
    assert answer.code == 0, answer.err
    assert "is there already, and stays: https://mine.openai.azure.com" in answer.err
    assert "upstreams set-key openai" in answer.err
    assert weir("upstreams", "set-key", "openai", stdin=SECRET_KEY).code == 0
    assert "Api version  2024-10-21" in weir("upstreams", "show", "openai").out


def test_known_model_is_added_a_second_time_without_the_aliases_of_the_first(weir: Weir) -> None:
    weir("models", "add", "gpt-4o-mini")
    answer = weir("models", "add", "cheap", "--from", "gpt-4o-mini")
    assert answer.code == 0, answer.err
    assert "Without the alias fc:openai/gpt-4o-mini" in answer.err
    aliases = {n: m["aliases"] for n, m in weir("models", "list", "--json").json()["data"].items()}
    assert aliases == {"cheap": [], "gpt-4o-mini": ["fc:openai/gpt-4o-mini"]}


def test_model_that_is_refused_leaves_no_upstream_behind(weir: Weir) -> None:
    assert weir("models", "add", "default", "--from", "gpt-4o").code == 1
    assert weir("upstreams", "list", "--json").json() == {"data": {}}


def test_known_models_tell_of_which_day_their_prices_are(weir: Weir) -> None:
    answer = weir("models", "known", "gpt-4o-mini")
    head, line = answer.out.splitlines()
    assert head.endswith("AS OF")
    assert re.search(r"\d{4}-\d\d-\d\d$", line)
    assert "check them against your contract" in answer.err
    assert "weir models known" in weir("models", "known", "no-such").out


def test_model_that_writes_nothing_is_shown_as_what_it_is(weir: Weir) -> None:
    assert weir("models", "add", "text-embedding-3-small").code == 0
    assert weir("models", "add", "omni-moderation-latest").code == 0
    listed = weir("models", "list").out
    assert re.search(r"text-embedding-3-small +openai +0\.02 +0 .* embedding", listed)
    assert re.search(r"omni-moderation-latest +openai +0 +0 .* moderation", listed)
    shown = weir("models", "show", "text-embedding-3-small").out
    assert re.search(r"Kind +embedding", shown)
    assert re.search(r"Dimensions +1536", shown)
    assert "Max output" not in shown
    exported = weir("export").json()["models"]
    assert exported["omni-moderation-latest"]["kind"] == "moderation"


def test_bedrock_model_needs_no_key(weir: Weir) -> None:
    answer = weir("models", "add", "gpt-oss-120b")
    assert "AllowBedrock" in answer.err
    assert "set-key" not in answer.err
    assert "not needed" in weir("upstreams", "list").out


def test_upstream_says_which_further_fields_it_knows(weir: Weir) -> None:
    one = ("upstreams", "set", "one", "--kind", "openai", "--base-url", "https://one.example/v1")
    assert "guided_json" in weir(*one, "--allow-field", "guided_json").out
    told = weir("upstreams", "show", "one", "--json").json()
    assert told["allowed_fields"] == ["guided_json"]
    assert "messages: Weir itself decides" in weir(*one, "--allow-field", "messages").err
    assert "allowed_fields" not in weir(*one, "--json").json(), "as in every set, what is not named"


@pytest.mark.parametrize("kind", UPSTREAM_OF)
def test_upstream_of_every_kind_is_set_shown_exported_and_imported(weir: Weir, kind: str) -> None:
    written = UPSTREAM_OF[kind]
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in written.items()]
    made = weir("upstreams", "set", "one", *flags)
    assert made.code == 0, made.err
    for value in written.values():
        assert value in made.out
    assert ("set-key one" in made.err) == ("base_url" in written)
    told = weir("upstreams", "show", "one", "--json").json()
    assert told == {"name": "one", "key_last4": None, **written}

    exported = weir("export").out
    assert json.loads(exported)["upstreams"] == {"one": written}
    weir("upstreams", "remove", "one", "--yes")
    assert weir("import", "-", "--yes", stdin=exported).code == 0
    assert weir("upstreams", "show", "one", "--json").json() == told


def test_upstream_of_a_later_releases_kind_is_listed(
    weir: Weir, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = {"upstreams": {"one": {"kind": "later", "place": "moon"}}, "models": {}}
    monkeypatch.setattr("weir.aws.operator.Operator.catalogue", lambda _: later)
    assert weir("upstreams", "list").out.splitlines()[1].split() == [
        "one",
        "later",
        "unknown",
        "none",
    ]


def test_prices_are_shown_exactly_and_for_a_million_tokens(configured: Weir) -> None:
    _, line = configured("models", "list").out.splitlines()
    assert line.split() == ["large", "one", "0.15", "2.5", "1000", "100"]
    assert text.usd_per_million(1) == "0.001"
    assert text.usd_per_million(75_000) == "75"


@pytest.mark.parametrize("given", [[SECRET_KEY], ["--key", SECRET_KEY], ["--key"]], ids=len)
def test_key_given_as_an_argument_is_refused_and_not_repeated(
    configured: Weir, given: list[str]
) -> None:
    answer = configured("upstreams", "set-key", "one", *given)
    assert answer.code == 1
    assert "never an argument" in answer.err
    assert SECRET_KEY not in answer.out + answer.err


@pytest.mark.parametrize("key", ["", "short", "with a space in it", SECRET_KEY + "\nsecond line"])
def test_what_is_no_key_is_refused_and_not_repeated(configured: Weir, key: str) -> None:
    answer = configured("upstreams", "set-key", "one", stdin=key)
    assert answer.code == 1
    assert "weir: key: " in answer.err
    assert not key or key not in answer.err
    assert ("nothing was read" in answer.err) == (not key)
    assert configured("upstreams", "show", "one", "--json").json()["key_last4"] is None


def test_key_is_prompted_for_unseen_at_a_terminal(
    configured: Weir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("getpass.getpass", lambda _prompt: SECRET_KEY)
    answer = configured("upstreams", "set-key", "one", types="")
    assert answer.code == 0, answer.err
    assert "…6789" in answer.out
    shown = [configured(*words) for words in (("audit",), ("upstreams", "list"), ("export",))]
    for each in (answer, *shown):
        assert SECRET_KEY not in each.out + each.err


def test_another_host_takes_the_key_away_and_is_asked_about(configured: Weir) -> None:
    configured("upstreams", "set-key", "one", stdin=SECRET_KEY)
    words = ["upstreams", "set", "one", "--kind", "openai", "--base-url"]
    assert configured(*words, "https://one.example/v2").code == 0
    assert configured(*words, "https://two.example/v1").code == 1
    answer = configured(*words, "https://two.example/v1", "--yes")
    assert "weir upstreams set-key one" in answer.err


# ---------------------------------------------------------------- origins


CHECKS = [
    ("https://app.example.com", "allowed", None),
    ("http://app.example.com", "scheme", None),
    ("https://app.example.com:8443", "port", "https://app.example.com:8443"),
    ("https://app.example.com/", "trailing_slash", None),
    ("https://App.Other.example", "spelling", "https://app.other.example"),
    ("https://theirs.example.org", "listed_elsewhere", "https://theirs.example.org"),
    ("https://stranger.example", "not_listed", "https://stranger.example"),
    ("app.example.com", "not_an_origin", None),
    ("null", "null_origin", None),
]


def test_cors_check_says_why_and_how_to_allow_it(weir: Weir) -> None:
    weir("projects", "create", "default", "--origin", "https://app.example.com")
    weir("projects", "create", "theirs", "--origin", "https://theirs.example.org")
    for origin, reason, allow in CHECKS:
        answer = weir("--stack", "s", "cors", "check", origin, "--json")
        told = json.loads(answer.out)
        assert (answer.code, told["reason"]) == (0 if reason == "allowed" else 1, reason), origin
        command = allow and f"weir --stack s origins add {allow} --project default"
        assert told["command"] == command, origin
        spoken = weir("--stack", "s", "cors", "check", origin)
        assert spoken.out.startswith(told["message"])
        assert ("origins add" in spoken.out) == (allow is not None)


def test_refused_pages_are_listed_latest_first_with_those_of_preflights(
    configured: Weir, fresh: Deployment
) -> None:
    assert "No page was refused" in configured("cors", "refused").out
    table = fresh.table()
    table.remember_refused_origin("default", "https://b.example", NOW)
    table.remember_refused_origin("", "https://evil.example\x1b[2J", NOW + 60)
    found = configured("cors", "refused", "--json").json()["data"]
    assert [each["project"] for each in found] == [None, "default"]
    shown = configured("cors", "refused").out
    assert "\x1b" not in shown, "what strangers send must not steer the operator's terminal"
    assert shown.index("evil.example") < shown.index("b.example ")
    assert "this project does not list it" in shown


# ---------------------------------------------------------------- files, audit


def test_what_was_exported_imports_as_no_change(configured: Weir, tmp_path: Path) -> None:
    configured("tiers", "set", "gold", "rpm=5")
    configured("tenant", "update", "--limit", "rpm=none")
    exported = configured("export").out
    assert exported == configured("export").out
    assert exported == json.dumps(json.loads(exported), indent=2, sort_keys=True) + "\n"
    file = tmp_path / "weir.json"
    assert configured("export", str(file)).out == f"Written to {file}.\n"
    assert file.read_text() == exported
    answer = configured("import", str(file), "--dry-run")
    assert answer.out == "Nothing would change.\n"
    assert configured("import", str(file), "--yes").out == "Nothing changed.\n"


def test_import_shows_the_change_before_it_asks_and_applies_it(
    configured: Weir, tmp_path: Path
) -> None:
    told = configured("export").json()
    told["models"]["large"]["context_tokens"] = 2000
    told["projects"]["default"]["origins"] = ["https://new.example"]
    file = tmp_path / "weir.json"
    file.write_text(json.dumps(told))
    lines = [
        "catalogue",
        "  models / large / context_tokens: 1000 -> 2000",
        "project default",
        '  origins: (not set) -> ["https://new.example"]',
    ]

    dry = configured("import", str(file), "--dry-run")
    assert dry.out.splitlines() == [*lines, "2 records would change."]
    unsaid = configured("import", str(file))
    assert (unsaid.code, "--yes" in unsaid.err) == (1, True)
    assert configured("models", "show", "large", "--json").json()["context_tokens"] == 1000

    done = configured("import", str(file), types="yes\n")
    assert done.code == 0, done.err
    asked, _, _ = done.err.partition("Type yes")
    assert all(line in asked for line in lines)
    assert "weir upstreams set-key one" in done.err, "keys are not in the file"
    assert configured("models", "show", "large", "--json").json()["context_tokens"] == 2000
    assert configured("origins", "list").out == "https://new.example\n"
    assert configured("origins", "remove", "https://New.example/").code == 0
    assert "No page may call" in configured("origins", "list").err


def test_limit_that_is_lifted_differs_from_one_that_is_not_set() -> None:
    assert text.differences({"limits": {}}, {"limits": {"rpm": None}}) == [
        "limits / rpm: (not set) -> null"
    ]
    assert text.differences(None, {"name": "x", "tiers": {}}) == [
        'name: (not set) -> "x"',
        "tiers: (not set) -> {}",
    ]
    assert text.differences({"a": {"b": 1}}, None) == ["a / b: 1 -> (not set)"]
    assert text.differences({"a": [1]}, {"a": [1]}) == []


def test_one_price_that_differs_is_told_alone() -> None:
    was = {"candidates": [{"model": "a", "price": 1}, {"model": "b", "price": 150}]}
    now = {"candidates": [{"model": "a", "price": 1}, {"model": "b", "price": 151}]}
    assert text.differences(was, now) == ["candidates / 1 / price: 150 -> 151"]
    assert text.differences({"a": [1]}, {"a": [1, 2]}) == ["a: [1] -> [1, 2]"]


def test_times_and_amounts_that_differ_are_for_people() -> None:
    assert text.differences({"killed": None}, {"killed": {"at": NOW}}) == [
        "killed / at: (not set) -> 2027-01-15 08:00 UTC"
    ]
    limits = [{"limits": {"usd_per_month": usd}} for usd in (100.0, 0.000001)]
    assert text.differences(*limits) == ["limits / usd_per_month: 100 -> 0.000001"]


def test_audit_trail_without_an_entry_says_so(weir: Weir) -> None:
    assert weir("audit").out == "Nothing was changed yet.\n"


def test_audit_trail_tells_who_what_and_from_what_to_what(
    configured: Weir, fresh: Deployment
) -> None:
    configured("origins", "add", "https://a.example")
    newest, *_ = configured("audit", "--json").json()["data"]
    arn = fresh.client("sts").get_caller_identity()["Arn"]
    assert arn.startswith("arn:aws:")
    assert (newest["actor"], newest["action"]) == (arn, "project.update")
    head, change = configured("audit", "--limit", "1").out.splitlines()
    assert head.endswith(f"project.update default  by {arn}")
    assert change == '  origins: (not set) -> ["https://a.example"]'


def test_entry_of_the_trail_cannot_break_out_of_its_line(weir: Weir, fresh: Deployment) -> None:
    forged = Entry(NOW * 1000, "0" * 8, "me\nroot", "a", "b", None, {"reason": "x\r\x9b2J"})
    fresh.table().commit([], [forged])
    head, change = weir("audit").out.splitlines()
    assert head.endswith("by me root")
    assert change.isprintable()


# ---------------------------------------------------------------- people


def test_erasing_says_what_was_removed_and_what_stays(configured: Weir, fresh: Deployment) -> None:
    turns = ("TURN#1#1", "TURN#1#2", "TURN#1#RECORD", "SESSION_TURN#1#1")
    for sk in (*turns, "THREAD#1"):
        fresh.client("dynamodb").put_item(
            TableName="t", Item={"pk": {"S": "CONTENT#default#u#u_1"}, "sk": {"S": sk}}
        )
    answer = configured("erase-user", "u_1", "--yes")
    removed, stays = answer.out.splitlines()
    assert removed.endswith("1 session turn, 1 thread, 2 turns.")
    assert all(word in stays for word in ("blocked", "audit trail", "logs"))
    assert "nothing was kept" in configured("erase-user", "u_1", "--yes").out
    again = configured("erase-user", "u_1", "--yes", "--json")
    assert again.json() == {"removed": {}}


class Pool:
    """What a Cognito user pool does about groups (the real calls: tests/stack/test_cli.py)."""

    class exceptions:  # as boto3 calls it
        class UserNotFoundException(Exception): ...

    def __init__(self) -> None:
        self.groups: dict[str, set[str]] = {}

    def get_paginator(self, name: str) -> Any:
        return SimpleNamespace(paginate=lambda **asked: [getattr(self, name)(**asked)])

    def admin_get_user(self, Username: str, **_: Any) -> Any:
        self._of(Username)
        return {"UserAttributes": [{"Name": "email_verified", "Value": "true"}]}

    def admin_create_user(self, Username: str, **_: Any) -> None:
        self.groups[Username] = set()

    def admin_list_groups_for_user(self, Username: str, **_: Any) -> Any:
        return {"Groups": [{"GroupName": name} for name in self._of(Username)]}

    def admin_add_user_to_group(self, Username: str, GroupName: str, **_: Any) -> None:
        self._of(Username).add(GroupName)

    def admin_remove_user_from_group(self, Username: str, GroupName: str, **_: Any) -> None:
        self._of(Username).remove(GroupName)

    def list_users_in_group(self, GroupName: str, **_: Any) -> Any:
        about = {"Username": "a-sub", "UserStatus": "CONFIRMED", "Enabled": True}
        found = [name for name, groups in self.groups.items() if GroupName in groups]
        return {"Users": [{**about, "Attributes": [{"Name": "email", "Value": n}]} for n in found]}

    def _of(self, name: str) -> set[str]:
        if name not in self.groups:
            raise self.exceptions.UserNotFoundException
        return self.groups[name]


def test_admins_come_and_go_each_with_one_entry_in_the_trail(
    weir: Weir, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, who = Pool(), "ann@example.com"
    monkeypatch.setattr("cli.people._cognito", lambda _console: (pool, "pool"))
    assert "Nobody may call the admin API yet" in weir("admins", "list").err
    assert "temporary password" in weir("admins", "add", who).out
    assert weir("admins", "add", who).out == f"{who} was an admin already.\n"
    assert [a["email"] for a in weir("admins", "list", "--json").json()["data"]] == [who]
    assert who in weir("admins", "list").out

    assert weir("admins", "remove", who).code == 1, "it asks first"
    assert "is no admin any more" in weir("admins", "remove", who, types="yes\n").out
    for gone in (who, "nobody@example.com"):
        assert weir("admins", "remove", gone).out == f"{gone} was not an admin.\n"
    assert weir("admins", "list", "--json").json() == {"data": []}
    trail = weir("audit", "--json").json()["data"]
    assert [(e["action"], e["target"]) for e in trail] == [
        ("admin.remove", who),
        ("admin.add", who),
    ]


# ---------------------------------------------------------------- keys, status


def test_key_that_is_revoked_is_named_and_its_secret_never_shown_again(configured: Weir) -> None:
    made = configured(
        "keys", "create", "--name", "shop", "--scope", "mint", "--scope", "api:read", "--json"
    )
    told = made.json()
    assert told["scopes"] == ["api:read", "mint"]
    assert told["secret"] not in made.err
    listed = configured("keys", "list")
    assert told["key_id"] in listed.out
    assert told["secret"] not in listed.out
    asked = configured("keys", "revoke", told["secret"], types="yes\n")
    assert f"{told['key_id']} (shop)" in asked.err
    assert told["secret"] not in asked.out + asked.err
    again = configured("keys", "revoke", told["key_id"], "--json")
    assert again.json() == {
        "project": "default",
        "key_id": told["key_id"],
        "revoked": True,
        "was_active": False,
    }


def test_token_says_itself_which_project_and_user_it_is_of(
    configured: Weir, signing_key: SigningKey
) -> None:
    token = minted(signing_key, now=NOW)
    told = configured("tokens", "revoke", token, "--json").json()
    assert told == {"project": "default", "user_id": "u", "jti": "j"}
    assert token.split(".")[1] not in configured("tokens", "revoke", token).out
    other = configured("tokens", "revoke", token, "--project", "shop")
    assert "a token of project default" in other.err


def test_what_an_operator_revokes_is_revoked_by_awss_clock() -> None:
    """With the clock of a machine that is behind, tokens would survive that were issued before."""

    def ahead(seconds: float) -> float:
        date = format_datetime(datetime.fromtimestamp(time.time() + seconds, UTC), usegmt=True)
        answer = {"ResponseMetadata": {"HTTPHeaders": {"date": date}}}
        return cli.console._ahead_of_this_machine_s(answer)

    assert ahead(0) == 0
    assert 300 <= ahead(300) <= 301
    assert -300 <= ahead(-300) <= -299
    for nothing in ({}, {"ResponseMetadata": {"HTTPHeaders": {"date": "soon"}}}):
        assert cli.console._ahead_of_this_machine_s(nothing) == 0


def test_status_of_a_bare_deployment_says_what_to_do_next(weir: Weir) -> None:
    answer = weir("status", "--stack", "s")
    assert answer.code == 1, "it does not answer, and no key signs"
    assert "weir --stack s projects create default" in answer.out
    assert "no (" in answer.out


def test_status_names_what_is_switched_off(configured: Weir) -> None:
    configured("kill", "model", "large", "--reason", "too dear")
    configured("kill", "user", "u_1")
    told = configured("status").out
    assert "model large, user default u_1" in told
    shown = configured("switches").out
    assert "too dear" in shown
    configured("revive", "model", "large")
    configured("revive", "user", "u_1")
    assert configured("switches").out == "Nothing is switched off.\n"


def test_status_names_what_costs_more_than_its_worst_case_and_how_to_reset_it(
    configured: Weir,
) -> None:
    assert "worst case" not in configured("status").out
    Table(client("dynamodb"), "t").raise_overrun("main/m-1", 320)
    told = configured("status").out
    assert "main/m-1: 3.2 times its output cap is reserved" in told
    assert "models reset-worst-case main/m-1" in told
    assert "within 5 seconds" in configured("models", "reset-worst-case", "main/m-1").out
    assert "worst case" not in configured("status").out
    assert configured("models", "reset-worst-case", "main/m-1").code == 1


@pytest.mark.parametrize(
    ("words", "what", "when"),
    [
        (["tenant"], "tenant", "within 5 seconds"),
        (["project", "default"], "project default", "within 5 seconds"),
        (["model", "large"], "model large", "within 5 seconds"),
        (["user", "u_1"], "user u_1 of project default", "on his next request"),
    ],
    ids=lambda value: str(value[0]),
)
def test_switching_says_what_it_has_done_or_that_it_was_so(
    configured: Weir, words: list[str], what: str, when: str
) -> None:
    said = {
        "revive before": f"The {what} was not switched off.\n",
        "kill": f"The {what} is switched off; it counts {when}.\n",
        "kill again": f"The {what} was switched off already.\n",
        "revive": f"The {what} is switched on; it counts {when}.\n",
    }
    configured("kill", "user", "u_2")  # another one
    for step, sentence in said.items():
        verb = step.split()[0]
        yes = ["--yes"] if step == "kill" and words[0] in ("tenant", "project") else []
        assert configured(verb, *words, *yes).out == sentence, step
