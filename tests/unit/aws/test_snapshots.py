"""The configuration as a request sees it: one round trip, seconds old, but a user's block."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from tests.unit.conftest import NOW, ORIGIN
from weir.aws import items, snapshots
from weir.aws.clients import client
from weir.aws.items import Key, Record
from weir.aws.operator import Operator
from weir.aws.refused_origins import NOTED_EVERY_S, RefusedOrigins
from weir.aws.snapshots import CACHED_FOR_S, MOST_PROJECTS, Snapshots
from weir.aws.table import Table
from weir.errors import Killed, NotFound, OriginNotAllowed, Refusal, Unauthenticated
from weir.identity.tokens import Claims
from weir.operator.documents import NewProject, ProjectChange, TenantDocument, parsed
from weir.projects.catalogue import Catalogue
from weir.projects.limits import NANO, PROJECT, Limits, Pool
from weir.projects.project import Project
from weir.revocation import Revocation
from weir.web.origins import Origins
from weir.web.request import Request


class Watched(Table):
    """Counts round trips; `broken` fails them. Has the clock, too."""

    def __init__(self) -> None:
        super().__init__(client("dynamodb"), "t")
        self.asked: list[list[Key]] = []
        self.broken = False
        self.now = 1000.0

    def records(self, keys: Sequence[Key]) -> list[Record]:
        self.asked.append(list(keys))
        if self.broken:
            raise EndpointConnectionError(endpoint_url="https://dynamodb")
        return super().records(keys)

    def remember_refused_origin(self, pid: str, origin: str, now: int) -> None:
        if self.broken:
            raise EndpointConnectionError(endpoint_url="https://dynamodb")
        super().remember_refused_origin(pid, origin, now)

    def clock(self) -> float:
        return self.now


@pytest.fixture
def table(aws: None) -> Watched:
    return Watched()


@pytest.fixture
def shown(configured: Operator, table: Watched) -> Snapshots:
    table.asked.clear()
    return Snapshots(table, table.clock)


SHARED = [items.TENANT, items.CATALOGUE, items.ORIGINS, items.OVERRUNS]
JO = items.subject("default", "u#jo")


def test_everything_stale_is_one_round_trip_and_nothing_stale_is_the_user_alone(
    shown: Snapshots, table: Watched
) -> None:
    snapshot = shown.of("default", "jo")
    assert ORIGIN in snapshot.project.origins
    assert ORIGIN in snapshot.shared.origins
    assert snapshot.project.choose(None, snapshot.catalogue).name == "m-large"
    assert table.asked == [[JO, *SHARED, items.project("default")]]
    table.now += CACHED_FOR_S - 0.001
    assert shown.of("default", "jo") == snapshot
    assert table.asked[1:] == [[JO]]
    shown.of("default")  # no user: nothing to ask
    assert len(table.asked) == 2
    table.now += 0.001
    shown.of("default", "jo")
    assert table.asked[2] == [JO, *SHARED, items.project("default")]


def test_another_project_is_asked_for_alone(
    shown: Snapshots, table: Watched, configured: Operator
) -> None:
    configured.create_project(parsed(NewProject, {"pid": "shop"}))
    shown.of("default")
    table.asked.clear()
    shown.of("shop", "jo")
    assert table.asked == [[items.subject("shop", "u#jo"), items.project("shop")]]


def test_one_request_is_one_call_to_the_table(
    configured: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    dynamodb = client("dynamodb")
    told = dynamodb._make_api_call

    def count(name: str, arguments: Any) -> Any:
        calls.append(name)
        return told(name, arguments)

    monkeypatch.setattr(dynamodb, "_make_api_call", count)
    Snapshots(Table(dynamodb, "t"), lambda: 0.0).of("default", "jo")
    assert calls == ["BatchGetItem"]


def allowed(shown: Snapshots) -> bool:
    return "https://b.example" in shown.of("default").project.origins


def test_change_counts_after_five_seconds(
    shown: Snapshots, table: Watched, configured: Operator
) -> None:
    assert not allowed(shown)
    configured.change_origins("default", add=["https://b.example"])
    table.now += CACHED_FOR_S - 0.001
    assert not allowed(shown)
    table.now += 0.001
    assert allowed(shown)
    assert "https://b.example" in shown.of("default").shared.origins
    assert CACHED_FOR_S == 5


def test_blocked_user_is_refused_on_his_next_request_and_nobody_else_is(
    shown: Snapshots, configured: Operator
) -> None:
    shown.of("default", "jo")
    configured.switch_user("default", "jo", off=True)
    with pytest.raises(Killed) as refused:
        shown.of("default", "jo")
    assert (refused.value.status, refused.value.details["scope"]) == (403, "user")
    for other in ("jo2", "j", "u#jo", "Jo"):
        shown.of("default", other)
    configured.switch_user("default", "jo", off=False)
    shown.of("default", "jo")


def test_user_is_blocked_in_one_project_alone(shown: Snapshots, configured: Operator) -> None:
    configured.create_project(parsed(NewProject, {"pid": "shop"}))
    configured.switch_user("shop", "jo", off=True)
    shown.of("default", "jo")
    with pytest.raises(Killed):
        shown.of("shop", "jo")


def claims(**said: Any) -> Claims:
    told = {"uid": "jo", "sid": "s_1", "jti": "j_1", "issued_at": NOW, **said}
    return Claims(
        tid="tenant-1", pid="default", role="user", tier=None, expires_at=NOW + 900, **told
    )


@pytest.mark.parametrize(
    ("what", "others"),
    [
        (Revocation("jo", jti="j_1"), [{"jti": "j_2"}, {"uid": "bo"}]),
        (Revocation("jo", session_id="s_1"), [{"sid": "s_2"}, {"uid": "bo"}]),
        (Revocation("jo"), [{"issued_at": NOW + 1}, {"issued_at": None}, {"uid": "bo"}]),
    ],
    ids=["token", "session", "user"],
)
def test_revoked_token_is_refused_on_its_next_request_at_no_further_round_trip(
    shown: Snapshots,
    table: Watched,
    configured: Operator,
    what: Revocation,
    others: list[dict[str, Any]],
) -> None:
    shown.of_caller(claims())
    configured.revoke("default", what)
    table.asked.clear()
    with pytest.raises(Unauthenticated) as refused:
        shown.of_caller(claims())
    assert (refused.value.status, refused.value.reason) == (401, "token_revoked")
    assert table.asked == [[JO]]
    for other in others:
        shown.of_caller(claims(**other))
    assert shown.of("default", "jo").revocations.first_valid_at("s_1", NOW) in (NOW, NOW + 1)


def test_tokens_of_a_revoked_key_are_refused_after_five_seconds_at_no_round_trip_of_their_own(
    shown: Snapshots, table: Watched, configured: Operator
) -> None:
    _, key = configured.create_key("default", name="n", scopes=["mint"], role="user")
    _, other = configured.create_key("default", name="n", scopes=["mint"], role="user")
    of_it = claims(client_id=key.key_id)
    shown.of_token(of_it)
    configured.revoke_key("default", key.key_id)
    table.asked.clear()
    shown.of_token(of_it)
    assert table.asked == []
    table.now += CACHED_FOR_S
    for judge in (shown.of_token, shown.of_caller):
        with pytest.raises(Unauthenticated) as refused:
            judge(of_it)
        assert refused.value.reason == "token_revoked"
        judge(claims(client_id=other.key_id))
        judge(claims())
    assert table.asked[0] == [*SHARED, items.project("default")]


SHUT: list[tuple[Callable[[Operator], object], type[Refusal], str]] = [
    (
        lambda o: o.update_project("default", parsed(ProjectChange, {"status": "suspended"})),
        Unauthenticated,
        "project_suspended",
    ),
    (lambda o: o.switch_project("default", off=True), Killed, "project"),
    (lambda o: o.switch_tenant(off=True), Killed, "tenant"),
]


@pytest.mark.parametrize(("shut", "kind", "word"), SHUT, ids=[word for _, _, word in SHUT])
def test_what_is_shut_answers_nobody_after_five_seconds(
    shown: Snapshots,
    table: Watched,
    configured: Operator,
    shut: Callable[[Operator], object],
    kind: type[Refusal],
    word: str,
) -> None:
    shown.of("default", "jo")
    shut(configured)
    table.now += CACHED_FOR_S
    for uid in ("jo", None):
        with pytest.raises(kind) as refused:
            shown.of("default", uid)
        assert word in refused.value.details.values()
    assert refused.value.status == (401 if kind is Unauthenticated else 403)


def test_project_that_is_not_there_is_a_401_until_it_is_made(
    shown: Snapshots, table: Watched, configured: Operator
) -> None:
    for uid in ("jo", None):
        with pytest.raises(Unauthenticated) as refused:
            shown.of("nobody", uid)
        assert refused.value.reason == "unknown_project"
    configured.create_project(parsed(NewProject, {"pid": "nobody"}))
    table.now += CACHED_FOR_S
    assert shown.of("nobody", "jo").project.pid == "nobody"


def test_killed_model_is_refused_after_five_seconds(
    shown: Snapshots, table: Watched, configured: Operator
) -> None:
    shown.of("default")
    configured.switch_model("m-large", off=True)
    table.now += CACHED_FOR_S
    snapshot = shown.of("default")
    with pytest.raises(Killed):
        snapshot.project.choose(None, snapshot.catalogue)


def test_what_has_not_changed_is_not_understood_again(
    shown: Snapshots,
    table: Watched,
    configured: Operator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[str] = []

    class Counted(Catalogue):
        def __init__(self, document: Any) -> None:
            if document:
                read.append("catalogue")
            super().__init__(document)

    class CountedProject:
        @staticmethod
        def from_document(pid: str, told: Any) -> Project:
            read.append(pid)
            return Project.from_document(pid, told)

    monkeypatch.setattr(snapshots, "Catalogue", Counted)
    monkeypatch.setattr(snapshots, "Project", CountedProject)
    for _ in range(3):
        shown.of("default", "jo")
        table.now += CACHED_FOR_S
    assert read == ["catalogue", "default"]
    configured.switch_model("m-large", off=True)
    shown.of("default")
    assert read == ["catalogue", "default", "catalogue"]


def test_process_keeps_a_bounded_number_of_projects_and_those_asked_for_last(
    shown: Snapshots, table: Watched
) -> None:
    shown.of("default")
    for number in range(MOST_PROJECTS + 20):
        with pytest.raises(Unauthenticated):
            shown.of(f"made-up-{number}")
    assert len(shown._projects) == MOST_PROJECTS
    table.asked.clear()
    with pytest.raises(Unauthenticated):
        shown.of(f"made-up-{MOST_PROJECTS + 19}")
    assert table.asked == []
    assert shown.of("default").project.pid == "default"


def test_failing_store_is_told_and_leaves_what_is_known_in_place(
    shown: Snapshots, table: Watched
) -> None:
    shown.of("default", "jo")
    table.now += CACHED_FOR_S
    table.broken = True
    with pytest.raises(EndpointConnectionError):
        shown.of("default", "jo")
    table.broken = False
    assert shown.of("default", "jo").project.pid == "default"


# ---------------------------------------------------------------- pages that may read a refusal


def test_page_of_any_project_may_read_a_refusal_with_one_read_in_five_seconds(
    shown: Snapshots, table: Watched
) -> None:
    for _ in range(10):
        assert ORIGIN in shown.readable_by()
    assert table.asked == [SHARED]
    shown.of("default")
    assert table.asked[1:] == [[items.project("default")]]


def test_failing_store_is_no_second_error_for_who_tells_the_first(
    shown: Snapshots, table: Watched
) -> None:
    table.broken = True
    assert shown.readable_by() == Origins()
    table.broken = False
    assert ORIGIN in shown.readable_by()


# ---------------------------------------------------------------- origins that were refused


def request(origin: str | None) -> Request:
    return Request("r", "POST", "/", {} if origin is None else {"origin": origin})


def test_other_page_is_refused_and_noted_and_a_server_is_neither(
    shown: Snapshots, table: Watched
) -> None:
    bind = RefusedOrigins(table)
    project = shown.of("default").project
    bind.check(request(ORIGIN), project, 1)
    bind.check(request(None), project, 1)
    assert table.refused_origins("default") == []
    with pytest.raises(OriginNotAllowed):
        bind.check(request("https://evil.example"), project, 2)
    assert table.refused_origins("default") == [("https://evil.example", 2)]


def test_flood_of_pages_is_refused_and_not_written(shown: Snapshots, table: Watched) -> None:
    bind = RefusedOrigins(table)
    project = shown.of("default").project
    for number in range(50):
        with pytest.raises(OriginNotAllowed):
            bind.check(request(f"https://evil-{number}.example"), project, 99)
    assert len(table.refused_origins("default")) == 1
    later = 99 + NOTED_EVERY_S
    with pytest.raises(OriginNotAllowed):
        bind.check(request("null"), project, later)
    assert ("null", later) in table.refused_origins("default")


def test_page_is_refused_although_nobody_can_note_it(
    shown: Snapshots, table: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    project = shown.of("default").project
    table.broken = True
    with pytest.raises(OriginNotAllowed):
        RefusedOrigins(table).check(request("https://evil.example"), project, 1)
    assert "not noted" in caplog.text


# ---------------------------------------------------------------- what cannot be read


def spoil(key: Key, document: str) -> None:
    client("dynamodb").update_item(
        TableName="t",
        Key=key.item(),
        UpdateExpression="SET doc = :d, #v = #v + :one",
        ExpressionAttributeNames={"#v": "version"},
        ExpressionAttributeValues={":d": {"S": document}, ":one": {"N": "1"}},
    )


NO_PRICE = '{"upstreams":{"u":{"kind":"openai"}},"models":{"m":{"candidates":[{"upstream":"u"}]}}}'


@pytest.mark.parametrize("document", [NO_PRICE, '{"models":{"m":{}}}', '{"models":[]}'])
def test_catalogue_that_cannot_be_read_answers_nobody_and_stops_nothing_else(
    shown: Snapshots, table: Watched, document: str, caplog: pytest.LogCaptureFixture
) -> None:
    shown.of("default", "jo")
    spoil(items.CATALOGUE, document)
    table.now += CACHED_FOR_S
    snapshot = shown.of("default", "jo")
    assert "cannot be read" in caplog.text
    with pytest.raises(ValueError, match="cannot be read"):
        _ = snapshot.catalogue
    assert ORIGIN in snapshot.project.origins
    assert ORIGIN in shown.readable_by()


def test_pages_may_read_what_was_last_known_whatever_fails(
    shown: Snapshots, table: Watched
) -> None:
    assert ORIGIN in shown.readable_by()
    spoil(items.ORIGINS, "[]")
    table.now += CACHED_FOR_S
    assert ORIGIN in shown.readable_by()


def test_frozen_or_set_back_clock_does_not_keep_a_switch_from_counting(
    shown: Snapshots, table: Watched, configured: Operator
) -> None:
    shown.of("default", "jo")
    configured.switch_tenant(off=True)
    table.now -= 3600
    with pytest.raises(Killed):
        shown.of("default", "jo")


def test_least_of_what_user_project_and_deployment_may_counts(
    shown: Snapshots, table: Watched, configured: Operator
) -> None:
    assert shown.of("default").most_output_tokens(None) == 1024
    limits = {"max_output_tokens": 500}
    configured.update_project("default", parsed(ProjectChange, {"limits": limits}))
    table.now += CACHED_FOR_S
    assert shown.of("default").most_output_tokens("free") == 500
    limits = {"max_output_tokens": 400}
    configured.update_tenant(parsed(TenantDocument, {"limits": limits}))
    table.now += CACHED_FOR_S
    assert shown.of("default").most_output_tokens("free") == 400


def test_pools_are_those_of_project_and_deployment_with_their_shards_and_generations(
    shown: Snapshots, table: Watched, configured: Operator
) -> None:
    assert shown.of("default").project.pool == Pool(PROJECT)
    assert shown.of("default").tenant_pool == Pool(Limits())
    told = {"ledger_shards": 2, "limits": {"rpm": 7}}
    for limit in (7, 8, 9):
        told["limits"] = {"rpm": limit}
        configured.update_project("default", parsed(ProjectChange, told))
    for limit in (3, 4):
        change = {"ledger_shards": 3, "limits": {"usd_per_month": limit}}
        configured.update_tenant(parsed(TenantDocument, change))
    table.now += CACHED_FOR_S
    snapshot = shown.of("default")
    assert snapshot.project.pool == Pool(Limits(rpm=9), 2, generation=3)
    assert snapshot.project.pool.limits is snapshot.project.limits
    assert snapshot.tenant_pool == Pool(Limits(nano_usd_per_month=4 * NANO), 3, generation=1)


def test_what_was_forgotten_is_read_on_the_next_request_and_not_on_every_one(
    shown: Snapshots, table: Watched, configured: Operator
) -> None:
    configured.create_project(parsed(NewProject, {"pid": "shop"}))
    shown.of("shop", "jo")
    shown.of("default", "jo")
    configured.update_project("default", parsed(ProjectChange, {"limits": {"rpm": 1}}))
    configured.update_tenant(parsed(TenantDocument, {"limits": {"rpm": 2}}))
    shown.forget("default")
    shown.forget("nobody")
    table.asked.clear()
    snapshot = shown.of("default", "jo")
    assert (snapshot.project.pool.limits.rpm, snapshot.tenant_pool.limits.rpm) == (1, 2)
    shown.of("default", "jo")
    shop = items.subject("shop", "u#jo")
    shown.of("shop", "jo")
    assert table.asked == [[JO, *SHARED, items.project("default")], [JO], [shop]]


def test_overrun_counts_within_seconds_in_every_process_and_is_never_lowered_but_by_an_operator(
    shown: Snapshots, table: Watched, configured: Operator
) -> None:
    assert shown.of("default").overruns == {}
    for percent in (250, 320, 180):
        table.raise_overrun("main/m/x", percent)
    table.raise_overrun("other/m", 110)
    assert shown.of("default").overruns == {}
    table.now += CACHED_FOR_S
    assert shown.of("default").overruns == {"main/m/x": 320, "other/m": 110}
    assert configured.overruns() == [
        {"candidate": "main/m/x", "percent": 320},
        {"candidate": "other/m", "percent": 110},
    ]
    configured.reset_overrun("main/m/x")
    table.now += CACHED_FOR_S
    assert shown.of("default").overruns == {"other/m": 110}
    entries, _ = configured.audit_trail(100)
    assert ("overrun.reset", "main/m/x") in {(each.action, each.target) for each in entries}
    with pytest.raises(NotFound):
        configured.reset_overrun("main/m/x")
