"""`weir usage` in this process, against moto: what it says of known sums, to the letter."""

import csv
import functools
import io
import json
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

import cli.main
import cli.usage
from cli.deployment import Deployment
from cli.page import Page, Terminal
from cli.periods import Period
from cli.usage import write_csv
from cli.usage_page import change, chart, money
from tests.unit.conftest import make_table
from weir.aws import items
from weir.aws.operator import Operator
from weir.aws.provider_keys import ProviderKeys
from weir.aws.table import Table
from weir.aws.usage import Crowded, Usage
from weir.operator.documents import NewProject, parsed
from weir.usage import spreadsheet
from weir.usage.reading import MOST_READ
from weir.usage.sums import Row, Totals

PARSER = cli.main.parser()
NOON_MS = 1_795_262_400_000  # 2026-11-21T12:00:00Z
TYPED: dict[type, Callable[[Any], dict[str, Any]]] = {
    str: lambda value: {"S": value},
    int: lambda value: {"N": str(value)},
    bool: lambda value: {"BOOL": value},
}
COMMAND = "=cmd|' /C calc'!A0"  # a name that a spreadsheet would carry out


class Screen(io.StringIO):
    """A terminal, of any encoding."""

    def __init__(self, encoding: str) -> None:
        super().__init__()
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def isatty(self) -> bool:
        return True


class Session(boto3.Session):
    """Making a client takes longer than everything that is done with it here."""

    @functools.cache  # noqa: B019  # one session
    def client(self, service_name: str, **_: Any) -> Any:
        return super().client(service_name)  # type: ignore[call-overload]


def row(pid: str, uid: str, at: str, nano_usd: int, *, failed: int = 0, **told: str) -> Row:
    at_ms = int(datetime.fromisoformat(at).replace(tzinfo=UTC).timestamp() * 1000)
    named = {"subject": items.user(uid), "model": "m-large", **told}
    totals = Totals(1, failed, 0, 1000, 200, 50, 10, nano_usd)
    return Row(pid, at_ms, named, totals)


ROWS = [
    # Before, between and after midnights of UTC that part months.
    row("default", "ann", "2026-09-30T23:59:59.999", 5),
    row("default", "ann", "2026-10-01T00:00:00", 500_000_000),
    row("default", "bob", "2026-10-21T23:59:59.999", 500_000_000),
    row("default", "bob", "2026-10-22T00:00:00", 7_000_000_000),
    row("default", "bob", "2026-10-31T23:59:59.999", 7_000_000_000),
    row("default", "ann", "2026-11-01T00:00:00", 17_000, session_id="s1", tag="beta"),
    row("default", "ann", "2026-11-02T12:00:00", 1_500_000_000, session_id="s1", failed=1),
    row("default", "bob", "2026-11-20T12:00:00", 750_000_000, model="m-small", thread_id="t1"),
    row("default", COMMAND, "2026-11-21T08:00:00", 17_000, model="m-small"),
    row("shop", "ann", "2026-11-03T08:00:00", 3_000_000_000),
    row("shop", "ann", "2026-10-03T08:00:00", 4_000_000_000),
]


@pytest.fixture(scope="module")
def deployment() -> Iterator[Deployment]:
    with mock_aws():
        session = Session("test", "test", region_name="us-east-1")
        outputs = {
            "TableName": "t",
            "ProjectId": "default",
            "ProviderKeysSecretArn": "provider-keys",
            "UserPoolId": "none",
        }
        made = Deployment("moto", "CREATE_COMPLETE", outputs, "http://127.0.0.1:9", session, None)
        dynamodb = made.client("dynamodb")
        make_table(dynamodb)
        keys = ProviderKeys(made.client("secretsmanager"), "provider-keys")
        operator = Operator(Table(dynamodb, "t"), keys, actor="the operator")
        for pid in ("default", "quiet", "shop"):
            operator.create_project(parsed(NewProject, {"pid": pid}))
        rows = {
            items.usage(each.pid, each.told["subject"], each.at_ms, str(number)): each
            for number, each in enumerate(ROWS)
        }
        for key in rows:
            dynamodb.put_item(TableName="t", Item=key.item())
        assert Usage(dynamodb, "t").add(rows, lambda _: 2_000_000_000) == len(ROWS)
        yield made


Said = Callable[..., str]


@pytest.fixture
def weir(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> Said:
    """What `weir usage …` writes on a terminal, and in a file without `columns`."""
    monkeypatch.setattr(cli.main, "find", lambda **_: deployment)
    monkeypatch.setattr(cli.main, "parser", lambda: PARSER)
    monkeypatch.setattr(cli.usage, "_now_ms", lambda: NOON_MS)
    monkeypatch.setenv("NO_COLOR", "1")

    def run(
        *words: str,
        columns: int | None = None,
        encoding: str = "utf-8",
        code: int = 0,
        errors: bool | None = None,
    ) -> str:
        said = Screen(encoding) if columns else io.StringIO()
        complaints = io.StringIO()
        monkeypatch.setenv("COLUMNS", str(columns or 0))
        monkeypatch.setattr("sys.stdout", said)
        monkeypatch.setattr("sys.stderr", complaints)
        assert cli.main.main(("usage", *words)) == code, complaints.getvalue()
        if code if errors is None else errors:
            return complaints.getvalue().splitlines()[-1]
        return said.getvalue()

    return run


def lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip("\n").split("\n")]


def listed(text: str, head: str) -> list[str]:
    """The first words of a table's lines."""
    table = lines(text[text.index(f"\n{head} ") + 1 :].partition("\n\n")[0])
    return [line.split("  ")[0] for line in table[1:]]


# ---------------------------------------------------------------- the summary

SUMMARY_80 = """
Project default, 2026-11-01 to 2026-11-21 (UTC), beside 2026-10-01 to
2026-10-21:

            NOW  BEFORE   CHANGE
Requests      4       2  +100.0%
Failed        1       0      new
Tokens    4,200   2,100  +100.0%
Cost      $2.25   $1.00  +125.0%

Cost of each day, at most $1.50:
  █
  █
  █                                   ▄
  █                                   █
▁ █                                   █ ▁
1       5         10        15        20        25        30

USER                REQUESTS  TOKENS       COST
ann                        2   2,100      $1.50
bob                        1   1,050      $0.75
=cmd|' /C calc'!A0         1   1,050  $0.000017

MODEL    REQUESTS  TOKENS   COST
m-large         2   2,100  $1.50
m-small         2   2,100  $0.75
"""

SUMMARY_40 = """
Project default, 2026-11-01 to
2026-11-21 (UTC), beside 2026-10-01 to
2026-10-21:

            NOW  BEFORE   CHANGE
Requests      4       2  +100.0%
Failed        1       0      new
Tokens    4,200   2,100  +100.0%
Cost      $2.25   $1.00  +125.0%

Cost of each day, at most $1.50:
 #
 #
 #                 .
 #                 #
.#                 #.
1   5    10   15   20   25   30

USER         REQUESTS  TOKENS       COST
ann                 2   2,100      $1.50
bob                 1   1,050      $0.75
=cmd|' /C ~         1   1,050  $0.000017

MODEL    REQUESTS  TOKENS   COST
m-large         2   2,100  $1.50
m-small         2   2,100  $0.75
"""


def test_this_month_is_told_beside_the_last_one_up_to_the_same_day(weir: Said) -> None:
    assert lines(weir("--project", "default", columns=80)) == lines(SUMMARY_80)


def test_narrow_terminal_without_block_characters_gets_what_it_can_show(weir: Said) -> None:
    said = weir("--project", "default", columns=40, encoding="ascii")
    assert lines(said) == lines(SUMMARY_40)


def test_past_month_is_told_whole_beside_the_whole_one_before_it(weir: Said) -> None:
    said = json.loads(weir("--project", "default", "--month", "2026-10", "--json"))
    assert (said["from"], said["to"]) == ("2026-10-01", "2026-10-31")
    assert said["compared_with"] == {"from": "2026-09-01", "to": "2026-09-30"}
    assert (said["total"]["requests"], said["total"]["cost_usd"]) == (4, 15.0)
    assert (said["before"]["requests"], said["before"]["cost_usd"]) == (1, 5e-9)


def test_on_the_31st_a_shorter_month_is_compared_as_a_whole(
    weir: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli.usage, "_now_ms", lambda: 1_806_451_200_000)  # 2027-03-31
    said = json.loads(weir("--json"))
    assert said["compared_with"] == {"from": "2027-02-01", "to": "2027-02-28"}


def test_days_from_to_are_compared_with_as_many_before_them(weir: Said) -> None:
    days = ("--from", "2026-10-22", "--to", "2026-11-01")
    said = json.loads(weir("--project", "default", *days, "--json"))
    assert said["compared_with"] == {"from": "2026-10-11", "to": "2026-10-21"}
    assert (said["total"]["requests"], said["before"]["requests"]) == (3, 1)
    assert [day["day"] for day in said["days"]] == ["2026-10-22", "2026-10-31", "2026-11-01"]


def test_without_a_project_each_is_one_line_and_the_total_is_all_of_them(weir: Said) -> None:
    assert lines(weir(columns=80).partition("PROJECT ")[2]) == lines(
        """ REQUESTS  TOKENS   COST   CHANGE
shop            1   1,050  $3.00   -25.0%
default         4   4,200  $2.25  +125.0%
quiet           0       0  $0.00        -
Total           5   5,250  $5.25    +5.0%
"""
    )
    said = json.loads(weir("--json"))
    assert [each["project"] for each in said["projects"]] == ["shop", "default", "quiet"]
    assert said["total"]["cost_usd"] == pytest.approx(5.250034)


def test_empty_month_is_said_in_words(weir: Said) -> None:
    assert lines(weir("--project", "quiet", columns=120)) == [
        "Project quiet, 2026-11-01 to 2026-11-21 (UTC), beside 2026-10-01 to 2026-10-21:",
        "No request has been counted.",
    ]
    days = ("--project", "default", "--from", "2026-11-03", "--to", "2026-11-19")
    assert lines(weir(*days))[1:] == [
        "No request has been counted.",
        "Before: requests 5, tokens 5,250, $16.00.",
    ]
    table = weir("--project", "quiet", "--by", "user", columns=80)
    assert "No request has been counted." in table


def test_one_user_is_told_alone(weir: Said) -> None:
    said = json.loads(weir("--project", "default", "--user", "bob", "--json"))
    assert (said["user"], said["total"]["requests"], said["before"]["requests"]) == ("bob", 1, 1)
    assert [model["model"] for model in said["models"]] == ["m-small"]
    shown = weir("--project", "default", "--user", "bob", columns=80)
    assert shown.startswith("Project default, user bob, ")
    assert "\nUSER" not in shown


# ---------------------------------------------------------------- tables


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ("day", ["2026-11-01", "2026-11-02", "2026-11-20", "2026-11-21"]),
        ("model", ["m-large", "m-small"]),
        ("user", ["ann", "bob", COMMAND]),
        ("customer", ["(none)"]),
        ("session", ["s1", "(none)"]),
        ("thread", ["(none)", "t1"]),
        ("tag", ["(none)", "beta"]),
    ],
)
def test_table_groups_by_what_is_asked(weir: Said, by: str, names: list[str]) -> None:
    said = weir("--project", "default", "--by", by)
    assert listed(said, by.upper()) == [*names, "Total"]
    assert lines(said)[-1].split()[1:] == ["4", "4,200", "$2.25"]


def test_users_of_days_that_are_no_whole_month_are_those_of_these_days(weir: Said) -> None:
    """Whole months have sums of their own; the days around them count once."""
    days = ("--from", "2026-09-30", "--to", "2026-11-20")
    said = json.loads(weir("--project", "default", *days, "--by", "user", "--json"))
    counted = {each["user"]: each["requests"] for each in said["data"]}
    assert counted == {"ann": 4, "bob": 4}
    assert said["total"]["requests"] == 8


def test_what_is_left_out_of_a_list_is_told_as_one(weir: Said) -> None:
    said = weir("--project", "default", "--by", "user", "--top", "1")
    assert listed(said, "USER") == ["ann", "(2 more)", "Total"]
    assert "  $0.75\n" in said, "what the two cost"
    assert len(json.loads(weir("--by", "user", "--top", "1", "--json"))["data"]) == 2


def test_users_of_two_projects_are_two_and_a_model_is_one(weir: Said) -> None:
    users = weir("--by", "user")
    assert listed(users, "PROJECT / USER")[:2] == ["shop / ann", "default / ann"]
    assert listed(weir("--by", "model"), "MODEL") == ["m-large", "m-small", "Total"]


def test_more_users_than_the_api_adds_up_are_a_short_list(
    weir: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = [(items.user(f"u{n}"), Totals(1, nano_usd=n)) for n in range(MOST_READ + 20)]
    monkeypatch.setattr(Usage, "users", lambda *_: iter(users))
    said = weir("--project", "default", "--by", "user", columns=80)
    assert len(lines(said)) < 30
    assert listed(said, "USER")[0] == f"u{MOST_READ + 19}"
    assert f"({MOST_READ:,} more)" in said


# ---------------------------------------------------------------- repair


def test_repair_adds_what_was_given_up_once_and_says_what_it_cannot_read(
    weir: Said, deployment: Deployment
) -> None:
    dynamodb = deployment.client("dynamodb")
    key = items.usage("quiet", items.user("ann"), 1_700_000_000_000, "lost")
    attributes = {
        **{"pid": "quiet", "subject": items.user("ann"), "model": "m", "outcome": "completed"},
        **{"at_ms": 1_700_000_000_000, "estimated": False, "nano_usd": 17_000, "cached_tokens": 0},
        **{"input_tokens": 7, "output_tokens": 5, "reasoning_tokens": 0},
    }
    lost = {name: TYPED[type(value)](value) for name, value in attributes.items()}
    dynamodb.put_item(TableName="t", Item={**key.item(), **lost})
    try:
        left = "Requests of the last hour are left alone.\n"
        # The others were marked without anything in them.
        assert weir("repair") == f"Added: 1. {left}"
        assert weir("repair") == f"Added: 0. {left}"
        asked = ("--project", "quiet", "--month", "2023-11", "--json")
        assert json.loads(weir(*asked))["total"]["cost_usd"] == 0.000017
        dynamodb.put_item(TableName="t", Item=items.usage("quiet", "u#x", 1, "odd").item())
        said = weir("repair", code=1, errors=False)
        assert lines(said)[1] == "Cannot be read: pk USAGE#quiet#u#x, sk 0000000000001#odd"
    finally:
        for each in (key, items.usage("quiet", "u#x", 1, "odd")):
            dynamodb.delete_item(TableName="t", Key=each.item())


def test_repair_among_many_requests_says_to_repeat_it(
    weir: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crowded(*_: Any, **__: Any) -> None:
        raise Crowded

    monkeypatch.setattr(Operator, "recount", crowded)
    assert "What was added stays added: repeat it." in weir("repair", code=1)


# ---------------------------------------------------------------- CSV

CSV = (
    "project,user,requests,failed,estimated,input_tokens,cached_tokens,output_tokens,"
    "reasoning_tokens,cost_usd\r\n"
    "default,ann,2,1,0,2000,400,100,20,1.500017\r\n"
    "default,bob,1,0,0,1000,200,50,10,0.75\r\n"
    "default,'=cmd|' /C calc'!A0,1,0,0,1000,200,50,10,0.000017\r\n"
)


def test_csv_is_exact_and_no_name_in_it_is_a_formula(weir: Said, tmp_path: Path) -> None:
    asked = ("--project", "default", "--by", "user", "--csv")
    assert weir(*asked, "-") == CSV
    assert weir(*asked, str(tmp_path / "usage.csv")) == ""
    assert (tmp_path / "usage.csv").read_bytes() == CSV.encode()


@pytest.mark.parametrize(
    "name", ["=1+1", "-1", "\t=1", " =1+1", "\u200b=1", "x;=1", "\N{FULLWIDTH EQUALS SIGN}1"]
)
def test_no_name_in_a_csv_begins_as_a_formula_does(name: str) -> None:
    assert written(name) == spreadsheet.inert(name) != name


@pytest.mark.parametrize("name", ['a "quoted", name', "two\r\nlines", "a=1", "", "é", "u-1"])
def test_any_other_name_comes_back_from_a_csv_as_it_was(name: str) -> None:
    assert written(name) == name


def written(name: str) -> str:
    file = io.StringIO(newline="")
    write_csv(file, "tag", [("default", name, Totals(1, nano_usd=1))])
    file.seek(0)
    _, (_, read, *_, cost) = csv.reader(file, strict=True)
    assert cost == "0.000000001"
    return read


def test_csv_of_all_projects_names_them(weir: Said) -> None:
    rows = list(csv.reader(io.StringIO(weir("--csv", "-"))))
    assert rows[0][:2] == ["project", "day"]
    assert [each[:2] for each in rows[-2:]] == [["default", "2026-11-21"], ["shop", "2026-11-03"]]


# ---------------------------------------------------------------- terminals


@pytest.mark.parametrize(
    ("columns", "env", "coloured"),
    [
        (80, {}, True),
        (None, {}, False),
        (80, {"NO_COLOR": "1"}, False),
        (80, {"TERM": "dumb"}, False),
    ],
)
def test_only_a_terminal_that_wants_colour_gets_it(
    weir: Said,
    monkeypatch: pytest.MonkeyPatch,
    columns: int | None,
    env: dict[str, str],
    coloured: bool,
) -> None:
    monkeypatch.delenv("NO_COLOR")
    for name, value in {"TERM": "xterm", **env}.items():
        monkeypatch.setenv(name, value)
    assert ("\x1b[" in weir("--project", "default", columns=columns)) is coloured


def test_chart_is_of_tokens_where_nothing_cost_anything() -> None:
    page = Page(Terminal(80, "utf-8", colour=False))
    days = Period(date(2026, 11, 1), date(2026, 11, 30))
    chart(page, {"2026-11-30": Totals(1, 0, 0, 70)}, days)
    assert page.lines[1] == "Tokens of each day, at most 70:"


def test_files_get_whole_names(weir: Said) -> None:
    assert COMMAND in weir("--project", "default")


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("nano_usd", "said"),
    [
        (0, "$0.00"),
        (1, "$0.000000001"),
        (17_000, "$0.000017"),
        (17_449, "$0.0000174"),
        (500_000_000, "$0.50"),
        (123_456_789, "$0.123"),
        (999_500_000, "$1.00"),
        (1_005_000_000, "$1.01"),
        (1_234_567_890_123, "$1,234.57"),
    ],
)
def test_small_costs_are_told_with_the_digits_they_have(nano_usd: int, said: str) -> None:
    assert money(nano_usd) == said


@pytest.mark.parametrize(
    ("now", "before", "said"),
    [(3, 2, "+50.0%"), (0, 2, "-100.0%"), (2, 2, "0.0%"), (1, 0, "new"), (0, 0, "-")],
)
def test_change_is_of_what_was(now: int, before: int, said: str) -> None:
    assert change(now, before) == said


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--month", "2026-12"), "2026-12 has not begun."),
        (("--from", "2026-11-22"), "2026-11-22 lies ahead."),
        (("--to", "2026-11-02"), "--to needs --from."),
        (("--from", "2026-11-05", "--to", "2026-11-02"), "--to lies before --from."),
        (("--month", "2026-10", "--from", "2026-11-01"), "Either --month, or --from and --to."),
        (("--user", "ann"), "A user is one of a project: name it with --project."),
        (("--csv", "-", "--json"), "Either --csv or --json."),
        (("--csv", "/nowhere/x.csv"), "/nowhere/x.csv cannot be written: No such file or dir"),
        (("--project", "nowhere"), "There is no project 'nowhere'"),
    ],
)
def test_what_makes_no_sense_is_one_clear_sentence(
    weir: Said, words: tuple[str, ...], said: str
) -> None:
    assert weir(*words, code=1).startswith(f"weir: {said}")


@pytest.mark.parametrize(
    "words", [("--month", "2026-13"), ("--month", "11"), ("--from", "2026-02-30"), ("--top", "0")]
)
def test_what_is_no_time_or_number_is_refused(weir: Said, words: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit):
        weir(*words)
