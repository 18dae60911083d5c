"""An operator's verbs against moto, in process: what they write, refuse, and never tell. Races are
not its business: moto's transactions are not atomic.
"""

import contextlib
import json
import random
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import pytest

from tests.unit.conftest import (
    CANDIDATE,
    MODEL,
    NOW,
    ORIGIN,
    PROJECT,
    PROVIDER_KEYS,
    UPSTREAM,
    make_table,
    set_up,
)
from weir.aws import items, revoking
from weir.aws.clients import client
from weir.aws.operator import Operator, records, transfer
from weir.aws.provider_keys import ProviderKeys, key_for
from weir.aws.table import Change, Stale, SubjectChange, Table
from weir.errors import BadRequest, Conflict, NotFound, Refusal
from weir.identity import api_keys
from weir.operator.audit import Entry
from weir.operator.documents import (
    ConfigurationFile,
    LimitsDocument,
    ModelDocument,
    NewProject,
    ProjectChange,
    TenantDocument,
    UpstreamDocument,
    parsed,
)
from weir.projects.catalogue import Catalogue
from weir.projects.project import Project
from weir.revocation import KEPT_S, Revocation
from weir.web.origins import Origins

PROVIDER_KEY = "sk-CANARY-of-the-provider-abcd"
BASE_URL = UPSTREAM["base_url"]


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "FIRST_WAIT_S", 0)


def everything() -> list[str]:
    """Every item of the table, but for the lease on the providers' keys."""
    found = client("dynamodb").scan(TableName="t")["Items"]
    kept = [item for item in found if item["sk"]["S"] != items.PROVIDER_KEYS.sk]
    return sorted(json.dumps(item, sort_keys=True) for item in kept)


def secret() -> str:
    found = client("secretsmanager").get_secret_value(SecretId=PROVIDER_KEYS)
    return str(found["SecretString"])


def trail(operator: Operator) -> dict[str, Entry]:
    return {entry.entry_id: entry for entry in operator.audit_trail(1000)[0]}


def change(**told: Any) -> ProjectChange:
    return parsed(ProjectChange, told)


def model(**told: Any) -> ModelDocument:
    return parsed(ModelDocument, {**MODEL, **told})


def upstream(base_url: str = BASE_URL) -> UpstreamDocument:
    return parsed(UpstreamDocument, {"kind": "openai", "base_url": base_url})


def new_project(pid: str, **told: Any) -> NewProject:
    return parsed(NewProject, {"pid": pid, **told})


def limits(**told: Any) -> LimitsDocument:
    return parsed(LimitsDocument, told)


def tenant(**told: Any) -> TenantDocument:
    return TenantDocument(limits=limits(**told))


def file(**told: Any) -> ConfigurationFile:
    return parsed(ConfigurationFile, {"format": "weir-configuration/1", **told})


def only_key(operator: Operator) -> str:
    (key,) = operator.keys("default")
    return key.key_id


def make_key(operator: Operator) -> tuple[str, api_keys.ApiKey]:
    return operator.create_key("default", name="server", scopes=["mint"], role="user")


def say(pid: str, user: str, sk: str) -> None:
    key = items.Key(items.content(pid, items.user(user)), sk)
    client("dynamodb").put_item(TableName="t", Item=key.item())


def said(operator: Operator) -> None:
    say("default", "jo", "MESSAGE#1")


# ---------------------------------------------------------------- every verb and its audit entry


class Verb(NamedTuple):
    """`again` says that each use is told of, whether or not anything changes."""

    action: str
    target: str
    do: Callable[[Operator], object]
    first: Callable[[Operator], object] = lambda operator: None
    again: bool = False


SMALL = model(candidates=[{**CANDIDATE, "model": "provider/m-small"}])
VERBS = [
    Verb("project.create", "shop", lambda o: o.create_project(new_project("shop", name="n"))),
    Verb("project.update", "default", lambda o: o.update_project("default", change(name="n"))),
    Verb(
        "project.update",
        "default",
        lambda o: o.change_origins("default", add=["https://b.example"]),
    ),
    Verb("project.update", "default", lambda o: o.change_origins("default", remove=[ORIGIN])),
    Verb(
        "project.update",
        "default",
        lambda o: o.change_origins("default", add=["https://*.x.example.com"], previews=True),
    ),
    Verb("tier.set", "default", lambda o: o.set_tier("default", "pro", limits(rpm=7))),
    Verb("tier.set", "default", lambda o: o.set_tier("default", "team", limits(rpm=7))),
    Verb("tier.set", "default", lambda o: o.create_tier("default", "team", limits(rpm=7))),
    Verb("tier.set", "default", lambda o: o.replace_tier("default", "2", limits(rpm=7))),
    Verb(
        "tier.reset",
        "default",
        lambda o: o.reset_tier("default", "pro"),
        lambda o: o.set_tier("default", "pro", limits(rpm=7)),
    ),
    Verb("key.create", "default/key_", make_key, again=True),
    Verb("key.revoke", "default/key_", lambda o: o.revoke_key("default", only_key(o)), make_key),
    Verb("model.set", "m-small", lambda o: o.put_model("m-small", SMALL)),
    Verb(
        "model.remove",
        "m-small",
        lambda o: o.remove_model("m-small"),
        lambda o: o.put_model("m-small", SMALL),
    ),
    Verb("upstream.set", "other", lambda o: o.put_upstream("other", upstream())),
    Verb(
        "upstream.remove",
        "other",
        lambda o: o.remove_upstream("other"),
        lambda o: o.put_upstream("other", upstream()),
    ),
    Verb(
        "upstream.key.set",
        "main",
        lambda o: o.set_provider_key("main", PROVIDER_KEY),
        again=True,
    ),
    Verb(
        "upstream.key.remove",
        "main",
        lambda o: o.remove_provider_key("main"),
        lambda o: o.set_provider_key("main", PROVIDER_KEY),
    ),
    Verb("tenant.update", "tenant", lambda o: o.update_tenant(tenant(rpm=9))),
    Verb("tenant.kill", "tenant", lambda o: o.switch_tenant(off=True, reason="why")),
    Verb(
        "tenant.revive",
        "tenant",
        lambda o: o.switch_tenant(off=False),
        lambda o: o.switch_tenant(off=True),
    ),
    Verb("project.kill", "default", lambda o: o.switch_project("default", off=True)),
    Verb(
        "project.revive",
        "default",
        lambda o: o.switch_project("default", off=False),
        lambda o: o.switch_project("default", off=True),
    ),
    Verb("model.kill", "m-large", lambda o: o.switch_model("m-large", off=True)),
    Verb(
        "model.revive",
        "m-large",
        lambda o: o.switch_model("m-large", off=False),
        lambda o: o.switch_model("m-large", off=True),
    ),
    Verb("user.kill", "default/jo", lambda o: o.switch_user("default", "jo", off=True)),
    Verb(
        "user.revive",
        "default/jo",
        lambda o: o.switch_user("default", "jo", off=False),
        lambda o: o.switch_user("default", "jo", off=True),
    ),
    Verb(
        "user.sign-out",
        "default/jo",
        lambda o: o.revoke("default", Revocation("jo")),
        again=True,
    ),
    Verb(
        "session.revoke",
        "default/jo",
        lambda o: o.revoke("default", Revocation("jo", session_id="s_1")),
        again=True,
    ),
    Verb(
        "token.revoke",
        "default/jo",
        lambda o: o.revoke("default", Revocation("jo", jti="j_1")),
        again=True,
    ),
    Verb("user.erase", "default/jo", lambda o: o.erase_user("default", "jo"), said, again=True),
    Verb(
        "catalogue.import",
        "catalogue",
        lambda o: o.imported(file(models={"m-small": MODEL}), dry_run=False),
    ),
    Verb(
        "tenant.import",
        "tenant",
        lambda o: o.imported(file(tenant={"limits": {"rpm": 1}}), dry_run=False),
    ),
    Verb(
        "project.import",
        "shop",
        lambda o: o.imported(file(projects={"shop": {}}), dry_run=False),
    ),
]  # fmt: skip


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.action)
def test_verb_leaves_one_entry_of_who_did_what_and_doing_it_again_leaves_none(
    configured: Operator, verb: Verb
) -> None:
    verb.first(configured)
    known = trail(configured)
    verb.do(configured)
    (entry,) = (entry for name, entry in trail(configured).items() if name not in known)
    assert (entry.actor, entry.at_ms) == ("the operator", NOW * 1000)
    assert (entry.action, entry.target[: len(verb.target)]) == (verb.action, verb.target)
    assert entry.before != entry.after
    if not verb.again:
        after, keys = everything(), secret()
        with contextlib.suppress(Conflict, NotFound):  # it is there, or gone, already
            verb.do(configured)
        assert everything() == after
        assert secret() == keys


def test_entry_holds_what_differs_and_nothing_else(configured: Operator) -> None:
    configured.update_project("default", change(name="a", system_prompt="be kind"))
    configured.update_project("default", change(name="b"))
    told = [
        (entry.before, entry.after)
        for entry in trail(configured).values()
        if entry.action == "project.update"
    ]
    assert ({"name": "a"}, {"name": "b"}) in told
    assert ({}, {"name": "a", "system_prompt": "be kind"}) in told


def test_entry_of_an_import_holds_the_models_that_differ_and_no_others(
    configured: Operator,
) -> None:
    configured.put_model("m-small", SMALL)
    dearer = {**CANDIDATE, "output_nano_usd": 401}
    told = file(models={"m-small": {**MODEL, "candidates": [dearer]}})
    (shown,) = configured.imported(told, dry_run=False)
    entries = trail(configured).values()
    (entry,) = (entry for entry in entries if entry.action == "catalogue.import")
    assert (entry.before, entry.after) == (shown["before"], shown["after"])
    assert entry.after is not None
    assert list(entry.after["models"]) == ["m-small"]
    assert "upstreams" not in entry.after


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.action)
def test_table_never_learns_a_secret(configured: Operator, verb: Verb) -> None:
    sent, _ = make_key(configured)
    configured.set_provider_key("main", PROVIDER_KEY)
    if "key.revoke" not in verb.action:  # which wants a project with one key
        verb.first(configured)
    with contextlib.suppress(Refusal, ValueError):
        verb.do(configured)
    written = json.dumps(everything())
    assert PROVIDER_KEY[-5:] not in written
    assert PROVIDER_KEY[:-4] not in written
    assert sent[: len(api_keys.PREFIX) + 5] not in written
    assert sent[-8:] not in written


def test_key_may_be_told_by_its_ends(configured: Operator) -> None:
    sent, key = make_key(configured)
    assert sent.startswith(key.display)
    assert configured.set_provider_key("main", PROVIDER_KEY)["key_last4"] == "abcd"
    assert "secret" not in key.document()
    assert key.hash not in json.dumps([e.document() for e in trail(configured).values()])


NOBODY: list[Callable[[Operator], object]] = [
    lambda o: o.project("nobody"),
    lambda o: o.update_project("nobody", change(name="n")),
    lambda o: o.revoke("nobody", Revocation("jo")),
    lambda o: o.change_origins("nobody", add=[ORIGIN]),
    lambda o: o.change_origins("default", remove=["https://never.example"]),
    lambda o: o.tiers("nobody"),
    lambda o: o.set_tier("nobody", "pro", limits(rpm=1)),
    lambda o: o.reset_tier("nobody", "pro"),
    lambda o: o.create_tier("nobody", "team", limits(rpm=1)),
    lambda o: o.tier("nobody", "pro"),
    lambda o: o.tier("default", "4"),
    lambda o: o.replace_tier("default", "team", limits(rpm=1)),
    lambda o: o.reset_tier("default", "team"),
    lambda o: o.keys("nobody"),
    lambda o: o.create_key("nobody", name="", scopes=["mint"], role="user"),
    lambda o: o.revoke_key("default", "key_0000000000000000"),
    lambda o: o.model("nobody"),
    lambda o: o.remove_model("nobody"),
    lambda o: o.upstream("nobody"),
    lambda o: o.remove_upstream("nobody"),
    lambda o: o.set_provider_key("nobody", PROVIDER_KEY),
    lambda o: o.remove_provider_key("nobody"),
    lambda o: o.switch_project("nobody", off=True),
    lambda o: o.switch_model("nobody", off=True),
    lambda o: o.switch_user("nobody", "jo", off=True),
    lambda o: o.erase_user("nobody", "jo"),
]


@pytest.mark.parametrize("do", NOBODY)
def test_what_is_not_there_is_not_found_and_nothing_is_written(
    configured: Operator, do: Callable[[Operator], object]
) -> None:
    before, keys = everything(), secret()
    with pytest.raises(NotFound):
        do(configured)
    assert everything() == before
    assert secret() == keys


def test_what_was_written_is_what_a_request_reads(configured: Operator) -> None:
    configured.update_project("default", change(system_prompt="be kind", limits={"rpm": 5}))
    configured.set_tier("default", "team", limits(rpm=None, usd_per_month=2.5))
    catalogue, project = (
        configured._table.records([key])[0].document
        for key in (items.CATALOGUE, items.project("default"))
    )
    read = Project.from_document("default", project)
    assert read.choose(None, Catalogue(catalogue)).name == "m-large"
    assert (read.system_prompt, read.limits.rpm) == ("be kind", 5)
    assert read.limits_of("team").nano_usd_per_month == 2_500_000_000
    assert ORIGIN in read.origins


# ---------------------------------------------------------------- somebody else at the same time


class Contended(Table):
    """Somebody else is first, this often."""

    def __init__(self, times: int, meanwhile: Callable[[], object] = lambda: None) -> None:
        super().__init__(client("dynamodb"), "t")
        self.left, self.tried, self.meanwhile = times, 0, meanwhile

    def commit(
        self,
        changes: Iterable[Change | SubjectChange],
        entries: Iterable[Entry],
        unchanged: Iterable[tuple[items.Key, int]] = (),
    ) -> None:
        self.tried += 1
        if self.left:
            self.left -= 1
            self.meanwhile()
        super().commit(changes, entries, unchanged)


def contender(table: Table) -> Operator:
    keys = ProviderKeys(client("secretsmanager"), PROVIDER_KEYS)
    return Operator(table, keys, actor="another", clock=lambda: NOW)


def test_change_that_came_first_is_kept_and_ours_is_made_upon_it(configured: Operator) -> None:
    table = Contended(1, lambda: configured.update_project("default", change(name="theirs")))
    ours = contender(table)
    ours.change_origins("default", add=["https://b.example"])
    project = configured.project("default")
    assert (project["name"], project["origins"]) == ("theirs", [ORIGIN, "https://b.example"])
    assert table.tried == 2
    told = [e for e in trail(configured).values() if e.actor == "another"]
    assert len(told) == 1


def test_two_projects_at_once_are_both_in_the_union_of_origins(configured: Operator) -> None:
    other = new_project("a", origins=["https://a.example"])
    ours = contender(Contended(1, lambda: configured.create_project(other)))
    ours.create_project(new_project("b", origins=["https://b.example"]))
    union = configured._table.records([items.ORIGINS])[0].document
    assert union["origins"] == ["https://a.example", ORIGIN, "https://b.example"]


@pytest.mark.parametrize(
    "do",
    [
        lambda o: o.update_project("default", change(name="ours")),
        lambda o: o.put_model("m-small", SMALL),
        lambda o: o.switch_user("default", "jo", off=True),
        lambda o: o.imported(file(tenant={"limits": {"rpm": 1}}), dry_run=False),
    ],
)
def test_who_is_always_late_gets_a_conflict_in_the_end_and_writes_nothing(
    configured: Operator, do: Callable[[Operator], object]
) -> None:
    def late() -> None:
        raise Stale

    before = everything()
    table = Contended(records.TRIES, late)
    with pytest.raises(Conflict, match="Try again"):
        do(contender(table))
    assert table.tried == records.TRIES
    assert everything() == before
    do(contender(Contended(records.TRIES - 1, late)))
    assert everything() != before


# ---------------------------------------------------------------- origins


def test_union_of_origins_is_that_of_all_projects_after_any_changes(operator: Operator) -> None:
    chance = random.Random(7)
    exact = [f"https://{letter}.example" for letter in "abcdef"]
    previews = [f"https://*.{letter}.example" for letter in "abc"]
    pids = ["p", "q", "r"]

    def some(origins: list[str]) -> list[str]:
        return chance.sample(origins, chance.randint(0, 2))

    def act(pid: str) -> None:
        told = {"origins": some(exact), "preview_origins": some(previews)}
        verb = chance.randrange(7)
        if verb == 0:
            operator.create_project(new_project(pid, **told))
        elif verb == 1:
            operator.update_project(pid, change(**told))
        elif verb == 2:
            operator.change_origins(pid, add=some(exact))
        elif verb == 3:
            operator.change_origins(pid, remove=some(exact))
        elif verb == 4:
            operator.change_origins(pid, add=some(previews), previews=True)
        elif verb == 5:
            operator.switch_project(pid, off=chance.random() < 0.5)
        else:
            operator.imported(
                file(projects={pid: told, chance.choice(pids): {"origins": some(exact)}}),
                dry_run=chance.random() < 0.3,
            )

    seen = set()
    for _ in range(120):
        with contextlib.suppress(Conflict, NotFound):
            act(chance.choice(pids))
        union = Origins.from_document(operator._table.records([items.ORIGINS])[0].document)
        assert union == Origins.union(operator.origins().values())
        seen.add(union)
    assert len(seen) > 20


# ---------------------------------------------------------------- sizes


def test_catalogue_that_would_not_fit_is_refused_however_it_comes(
    configured: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "MAX_DOCUMENT_BYTES", 1000)
    configured.put_model("m-small", SMALL)
    before = everything()
    long = {**CANDIDATE, "model": "x" * 200}
    for do in (
        lambda: configured.put_model("m-huge", model(candidates=[long] * 3)),
        lambda: configured.imported(
            file(models={"m-huge": {**MODEL, "candidates": [long] * 3}}), dry_run=False
        ),
    ):
        with pytest.raises(Conflict, match="1000 fit"):
            do()
    assert everything() == before


def test_size_is_counted_in_bytes_not_letters(
    configured: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "MAX_DOCUMENT_BYTES", 1000)
    configured.update_project("default", change(system_prompt="x" * 400))
    with pytest.raises(Conflict, match="1000 fit"):
        configured.update_project("default", change(system_prompt="🌊" * 400))


def test_import_of_more_records_than_a_transaction_holds_is_refused(configured: Operator) -> None:
    before = everything()
    projects: dict[str, Any] = {f"p{number}": {} for number in range(transfer.MOST_RECORDS + 1)}
    with pytest.raises(BadRequest, match="in parts"):
        configured.imported(file(projects=projects), dry_run=False)
    assert everything() == before
    projects.popitem()
    assert len(configured.imported(file(projects=projects), dry_run=False)) == len(projects)


# ---------------------------------------------------------------- what is used is not removed


def test_model_that_a_project_names_is_not_removed(configured: Operator) -> None:
    configured.put_model("m-small", model(aliases=["fast"]))
    for named in ({"default_model": "m-small"}, {"default_model": "fast"}, {"models": ["m-small"]}):
        configured.create_project(new_project("shop" + str(len(configured.projects())), **named))
        before = everything()
        with pytest.raises(Conflict, match="by the project shop"):
            configured.remove_model("m-small")
        assert everything() == before
        pid = configured.projects()[-1]["pid"]
        configured.update_project(pid, change(default_model=None, models=None))
    configured.remove_model("m-small")
    assert list(configured.catalogue()["models"]) == ["m-large"]


def test_alias_that_a_project_names_is_not_taken_away(configured: Operator) -> None:
    configured.put_model("m-large", model(aliases=["fast"]))
    configured.update_project("default", change(default_model="fast"))
    with pytest.raises(Conflict, match="default"):
        configured.put_model("m-large", model())
    with pytest.raises(BadRequest, match="fast"):
        configured.imported(file(models={"m-large": MODEL}), dry_run=False)
    assert configured.model("m-large")["aliases"] == ["fast"]


def test_upstream_that_serves_a_model_is_not_removed(configured: Operator) -> None:
    configured.set_provider_key("main", PROVIDER_KEY)
    with pytest.raises(Conflict, match="serves: m-large"):
        configured.remove_upstream("main")
    assert key_for(secret(), "main", BASE_URL) == PROVIDER_KEY
    configured.update_project("default", change(default_model=None))
    configured.remove_model("m-large")
    configured.remove_upstream("main")
    assert "CANARY" not in secret()


def test_model_keeps_its_age_and_its_switch_when_it_is_set_anew(configured: Operator) -> None:
    configured.switch_model("m-large", off=True, reason="why")
    configured.put_model("m-large", model(context_tokens=7))
    configured.imported(file(models={"m-large": {**MODEL, "context_tokens": 8}}), dry_run=False)
    kept = configured.model("m-large")
    assert (kept["context_tokens"], kept["created_at"]) == (8, NOW)
    assert kept["killed"] == {"reason": "why", "at": NOW, "by": "the operator"}


def test_second_name_for_the_same_thing_is_refused(configured: Operator) -> None:
    before = everything()
    with pytest.raises(BadRequest, match="already"):
        configured.put_model("m-small", model(aliases=["m-large"]))
    with pytest.raises(Conflict, match="already"):
        configured.create_project(parsed(NewProject, PROJECT))
    with pytest.raises(BadRequest, match="no upstream"):
        configured.put_model("m-small", model(candidates=[{**CANDIDATE, "upstream": "gone"}]))
    with pytest.raises(BadRequest, match="no model"):
        configured.update_project("default", change(default_model="gone"))
    assert everything() == before


# ---------------------------------------------------------------- a key belongs to its host

ELSEWHERE = [
    "https://evil.example/v1",
    "https://api.provider.example.evil.com/v1",
    "https://api.provider.example:8443/v1",
    "http://localhost/v1",
    None,
]


@pytest.mark.parametrize("base_url", ELSEWHERE)
@pytest.mark.parametrize("by_import", [False, True], ids=["put", "import"])
def test_key_does_not_follow_its_upstream_to_another_host(
    configured: Operator, base_url: str | None, by_import: bool
) -> None:
    configured.set_provider_key("main", PROVIDER_KEY)
    told = {"kind": "openai", "base_url": base_url} if base_url else {"kind": "bedrock"}
    if by_import:
        configured.imported(file(upstreams={"main": told}), dry_run=False)
    else:
        configured.put_upstream("main", parsed(UpstreamDocument, told))
        assert "CANARY" not in secret()
    assert "key_last4" not in configured.upstream("main")
    assert key_for(secret(), "main", base_url or "") is None


@pytest.mark.parametrize(
    "base_url", [BASE_URL, f"{BASE_URL}/", "https://api.provider.example", "https://API.Provider.example/v2"]
)  # fmt: skip
def test_key_stays_with_its_host_whatever_the_path(configured: Operator, base_url: str) -> None:
    configured.set_provider_key("main", PROVIDER_KEY)
    assert configured.put_upstream("main", upstream(base_url))["key_last4"] == "abcd"
    assert key_for(secret(), "main", base_url) == PROVIDER_KEY
    assert key_for(secret(), "other", base_url) is None


def test_keys_of_several_providers_do_not_disturb_each_other(configured: Operator) -> None:
    configured.put_upstream("other", upstream("https://other.example/v1"))
    configured.set_provider_key("main", PROVIDER_KEY)
    configured.set_provider_key("other", "sk-other-wxyz")
    configured.remove_provider_key("main")
    assert key_for(secret(), "main", BASE_URL) is None
    assert key_for(secret(), "other", "https://other.example/v1") == "sk-other-wxyz"
    assert "key_last4" not in configured.upstream("main")


def test_bedrock_takes_no_key(configured: Operator) -> None:
    configured.put_upstream("main", parsed(UpstreamDocument, {"kind": "bedrock"}))
    with pytest.raises(BadRequest, match="role"):
        configured.set_provider_key("main", PROVIDER_KEY)
    assert secret() == "{}"


SPOILT = [
    "",
    "sk-plain-secret",
    "[]",
    "7",
    "null",
    "{}",
    '{"main":"sk-plain"}',
    '{"main":7}',
    '{"main":{"key":"sk-x"}}',
    '{"main":{"host":"https://api.provider.example"}}',
    '{"main":{"key":7,"host":"https://api.provider.example"}}',
    '{"main":{"key":"","host":"https://api.provider.example"}}',
    '{"main":{"key":"sk-a b","host":"https://api.provider.example"}}',
    '{"main":{"key":"sk-“x”","host":"https://api.provider.example"}}',
    '{"main":{"key":"sk-x\\r\\nX: y","host":"https://api.provider.example"}}',
    '{"main":{"key":"sk-x","host":null}}',
]


@pytest.mark.parametrize("text", SPOILT)
def test_spoilt_secret_holds_no_key_and_can_be_set_anew(configured: Operator, text: str) -> None:
    assert key_for(text, "main", BASE_URL) is None
    if text:  # which Secrets Manager does not take
        client("secretsmanager").put_secret_value(SecretId=PROVIDER_KEYS, SecretString=text)
    configured.set_provider_key("main", PROVIDER_KEY)
    assert key_for(secret(), "main", BASE_URL) == PROVIDER_KEY


# ---------------------------------------------------------------- tiers


def test_project_has_three_tiers_of_its_own_and_no_fourth(configured: Operator) -> None:
    made = [configured.set_tier("default", name, limits(rpm=1)) for name in ("a", "b", "c")]
    assert [tier["number"] for tier in made] == [4, 5, 6]
    before = everything()
    with pytest.raises(Conflict) as refused:
        configured.set_tier("default", "d", limits(rpm=1))
    assert refused.value.status == 409
    assert everything() == before
    configured.reset_tier("default", "b")
    assert configured.set_tier("default", "d", limits(rpm=1))["number"] == 5
    names = [tier["name"] for tier in configured.tiers("default")]
    assert names == ["free", "pro", "max", "a", "d", "c"]


def test_tier_changes_only_in_what_is_named(configured: Operator) -> None:
    configured.set_tier("default", "pro", limits(rpm=7))
    tier = configured.set_tier("default", "pro", limits(tpm=None, usd_per_month=0.1))
    assert tier["changed"] == ["rpm", "tpm", "usd_per_month"]
    assert (tier["limits"]["rpm"], tier["limits"]["requests_per_day"]) == (7, 10_000)
    assert tier["limits"]["usd_per_month"] == 0.1
    configured.reset_tier("default", "pro")
    assert configured.tiers("default")[1]["limits"]["rpm"] == 60


def test_tier_is_created_once_and_replaced_as_a_whole(configured: Operator) -> None:
    made = configured.create_tier("default", "team", limits(rpm=7, tpm=None))
    assert (made["number"], made["changed"]) == (4, ["rpm", "tpm"])
    for name in ("team", "pro"):
        with pytest.raises(Conflict):
            configured.create_tier("default", name, limits(rpm=8))
    replaced = configured.replace_tier("default", "4", limits(tokens_per_day=9))
    assert (replaced["name"], replaced["changed"]) == ("team", ["tokens_per_day"])
    assert replaced["limits"]["rpm"] == 10  # as free has it
    assert configured.tier("default", "team") == configured.tier("default", "4") == replaced


def test_tier_imported_without_limits_can_be_set(configured: Operator) -> None:
    tiers = {"team": {"number": 5}, "pro": {"number": 2}}
    configured.imported(file(projects={"shop": {"tiers": tiers}}), dry_run=False)
    assert [tier["number"] for tier in configured.tiers("shop")] == [1, 2, 3, 5]
    assert configured.set_tier("shop", "team", limits(rpm=1))["number"] == 5


# ---------------------------------------------------------------- kill switches, keys, users


def test_switches_list_everything_that_is_off_and_nothing_else(configured: Operator) -> None:
    switch: dict[str, Callable[..., None]] = {
        "tenant": configured.switch_tenant,
        "model": lambda **how: configured.switch_model("m-large", **how),
        "project": lambda **how: configured.switch_project("default", **how),
        "user": lambda **how: configured.switch_user("default", "jürgen#1", **how),
    }
    for pull in switch.values():
        pull(off=True, reason="why")
    how = {"reason": "why", "at": NOW, "by": "the operator"}
    assert configured.switches() == [
        {"scope": "tenant", **how},
        {"scope": "model", "model": "m-large", **how},
        {"scope": "project", "project": "default", **how},
        {"scope": "user", "project": "default", "user_id": "jürgen#1", **how},
    ]
    for number, (scope, pull) in enumerate(switch.items(), start=1):
        pull(off=False)
        assert scope not in [each["scope"] for each in configured.switches()]
        assert len(configured.switches()) == len(switch) - number


def test_changing_what_is_off_does_not_switch_it_on(configured: Operator) -> None:
    configured.switch_project("default", off=True)
    configured.switch_tenant(off=True)
    configured.update_project("default", change(name="n"))
    configured.change_origins("default", add=["https://b.example"])
    configured.update_tenant(tenant(rpm=9))
    configured.imported(
        file(tenant={"limits": {"rpm": 8}}, projects={"default": {"name": "m"}}), dry_run=False
    )
    assert [each["scope"] for each in configured.switches()] == ["tenant", "project"]
    assert configured.project("default")["created_at"] == NOW


def test_key_of_another_project_cannot_be_revoked(configured: Operator) -> None:
    configured.create_project(new_project("shop"))
    _, key = make_key(configured)
    with pytest.raises(NotFound):
        configured.revoke_key("shop", key.key_id)
    assert configured.keys("default")[0].revoked_at is None
    assert configured.keys("shop") == []
    assert configured.revoke_key("default", key.key_id) is True
    assert configured.revoke_key("default", key.key_id) is False
    assert configured.keys("default")[0].revoked_at == NOW


def test_erasing_a_user_removes_what_he_said_and_nothing_else(configured: Operator) -> None:
    configured.switch_user("default", "jo", off=True)
    for pid, user in (("shop", "jo"), ("default", "jo2"), ("default", "j")):
        say(pid, user, "THREAD#1")
    before = everything()
    for number in range(30):  # more than fit into one write
        say("default", "jo", f"MESSAGE#{number}")
    say("default", "jo", "THREAD#1")
    assert configured.erase_user("default", "jo") == {"message": 30, "thread": 1}
    known = set(before)
    (entry,) = (item for item in everything() if item not in known)
    assert known <= set(everything())
    assert '"user.erase"' in entry
    assert configured.erase_user("default", "jo") == {}


# ---------------------------------------------------------------- export and import


@pytest.fixture
def rich(configured: Operator) -> Operator:
    """Something of everything."""
    configured.put_upstream("bedrock", parsed(UpstreamDocument, {"kind": "bedrock"}))
    configured.set_provider_key("main", PROVIDER_KEY)
    configured.put_model("m-small", model(aliases=["fast"], image_max_tokens=7))
    configured.update_tenant(tenant(rpm=9, tpm=None))
    configured.update_project("default", change(ledger_shards=1))
    told = {
        "name": "Shop",
        "origins": ["https://shop.example"],
        "preview_origins": ["https://*.shop.example"],
        "models": ["m-small"],
        "default_model": "fast",
        "system_prompt": "be kind\n🌊",
        "limits": {"usd_per_month": 0.1, "tokens_per_day": None},
        "user_limits": {"rpm": 0},
        "status": "suspended",
        "ledger_shards": 3,
    }
    configured.create_project(new_project("shop", **told))
    configured.update_project("shop", change(limits={"rpm": 4}))
    configured.set_tier("shop", "pro", limits(rpm=7))
    configured.set_tier("shop", "team", limits(usd_per_month=2.5, tpm=None))
    make_key(configured)
    configured.switch_tenant(off=True, reason="reason-CANARY")
    configured.switch_model("m-small", off=True, reason="reason-CANARY")
    configured.switch_project("shop", off=True, reason="reason-CANARY")
    configured.switch_user("default", "user-CANARY", off=True)
    return configured


def test_export_tells_no_key_no_switch_no_user(rich: Operator) -> None:
    told = json.dumps(rich.exported())
    for word in ("CANARY", "abcd", "key", "killed", "created_at", "generation", "the operator",
                 api_keys.PREFIX):  # fmt: skip
        assert word not in told


def test_export_into_an_empty_deployment_exports_the_same(rich: Operator) -> None:
    told = rich.exported()
    client("dynamodb").delete_table(TableName="t")
    make_table(client("dynamodb"))
    changes = rich.imported(parsed(ConfigurationFile, told), dry_run=False)
    assert rich.exported() == told
    assert {each["action"] for each in changes} == {
        "catalogue.import",
        "tenant.import",
        "project.import",
    }
    assert all(each["before"] is None for each in changes)
    union = rich._table.records([items.ORIGINS])[0].document
    assert union == Origins.union(rich.origins().values()).document()
    assert rich.switches() == []


def test_importing_what_is_there_changes_nothing(rich: Operator) -> None:
    before = everything()
    assert rich.imported(parsed(ConfigurationFile, rich.exported()), dry_run=False) == []
    assert everything() == before


def test_dry_run_tells_what_an_import_would_change_and_writes_nothing(rich: Operator) -> None:
    told = file(
        models={"m-new": MODEL},
        projects={"new": {"default_model": "m-new"}, "shop": {"name": "renamed"}},
        tenant={},
    )
    before = everything()
    promised = rich.imported(told, dry_run=True)
    assert everything() == before
    assert rich.imported(told, dry_run=False) == promised
    assert [(each["action"], each["target"]) for each in promised] == [
        ("catalogue.import", "catalogue"),
        ("tenant.import", "tenant"),
        ("project.import", "new"),
        ("project.import", "shop"),
    ]
    assert rich.imported(told, dry_run=False) == []


def test_what_a_file_does_not_name_stays(rich: Operator) -> None:
    before = rich.exported()
    rich.imported(file(models={"m-new": MODEL}, projects={"new": {}}), dry_run=False)
    after = rich.exported()
    assert after["models"].pop("m-new")
    assert after["projects"].pop("new") == {}
    assert after == before


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize(
    "bad",
    [
        {"projects": {"aa": {}, "zz": {"default_model": "gone"}}},
        {"projects": {"aa": {}, "zz": {"models": ["gone"]}}},
        {"models": {"m-new": MODEL, "zz": {**MODEL, "aliases": ["m-new"]}}, "projects": {"aa": {}}},
        {"models": {"zz": {**MODEL, "candidates": [{**CANDIDATE, "upstream": "gone"}]}}},
        {"models": {"default": MODEL}, "tenant": {"limits": {"rpm": 1}}},
    ],
    ids=str,
)
def test_file_with_one_mistake_changes_nothing_at_all(
    configured: Operator, bad: dict[str, Any], dry_run: bool
) -> None:
    before = everything()
    with pytest.raises(BadRequest):
        configured.imported(file(**bad), dry_run=dry_run)
    assert everything() == before


def test_provider_that_serves_models_becomes_no_mock_and_a_mock_no_provider(
    configured: Operator,
) -> None:
    """What the mock was priced at, a provider would answer for."""
    configured.put_upstream("mock", parsed(UpstreamDocument, {"kind": "mock"}))
    free = dict.fromkeys(("input_nano_usd", "cached_input_nano_usd", "output_nano_usd"), 0)
    candidate = {"upstream": "mock", "model": "echo", **free}
    configured.put_model("mock-echo", model(aliases=[], candidates=[candidate]))
    before = everything()
    for name, document in (("mock", UPSTREAM), ("main", {"kind": "mock"})):
        with pytest.raises((Conflict, BadRequest)):
            configured.put_upstream(name, parsed(UpstreamDocument, document))
        for dry_run in (True, False):
            with pytest.raises((Conflict, BadRequest)):
                configured.imported(file(upstreams={name: document}), dry_run=dry_run)
    with pytest.raises(BadRequest, match="takes no key: it answers within the gateway"):
        configured.set_provider_key("mock", PROVIDER_KEY)
    assert everything() == before


def test_empty_file_into_an_empty_deployment_leaves_it_empty(operator: Operator) -> None:
    assert operator.imported(file(), dry_run=False) == []
    assert everything() == []
    assert operator.exported()["projects"] == {}


def test_catalogue_may_come_with_its_first_project(operator: Operator) -> None:
    told = {name: value for name, value in PROJECT.items() if name != "pid"}
    operator.imported(
        file(upstreams={"main": UPSTREAM}, models={"m-large": MODEL}, projects={"default": told}),
        dry_run=False,
    )
    imported = operator.exported()
    client("dynamodb").delete_table(TableName="t")
    make_table(client("dynamodb"))
    set_up(operator)
    assert operator.exported() == imported


def test_imported_upstream_on_another_host_has_no_key_any_more_not_even_back_there(
    configured: Operator,
) -> None:
    configured.set_provider_key("main", PROVIDER_KEY)
    there = configured.exported()["upstreams"]["main"]
    for base_url in ("https://elsewhere.example/v1", there["base_url"]):
        moved = {"main": {**there, "base_url": base_url}}
        configured.imported(file(upstreams=moved), dry_run=False)
    assert PROVIDER_KEY not in secret()
    assert "key_last4" not in configured.upstream("main")


def test_user_with_the_longest_of_ids_can_be_blocked_and_found(configured: Operator) -> None:
    """DynamoDB takes sort keys of 1,024 bytes, and moto any."""
    user_id = "🌊" * 255
    configured.switch_user("default", user_id, off=True, reason="spam")
    keys = [json.loads(item) for item in everything()]
    assert max(len(key["sk"]["S"].encode()) for key in keys) <= 1024
    assert max(len(key["pk"]["S"].encode()) for key in keys) <= 2048
    (told,) = configured.switches()
    assert (told["scope"], told["user_id"]) == ("user", user_id)
    configured.switch_user("default", user_id, off=False)
    assert configured.switches() == []


def test_model_removed_while_it_is_switched_off_is_not_found_and_does_not_come_back(
    configured: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(configured, "catalogue", lambda: {"models": {"gone": MODEL}})
    with pytest.raises(NotFound, match="no model 'gone'"):
        configured.switch_model("gone", off=True)


def test_keys_are_written_by_one_operator_at_a_time(configured: Operator) -> None:
    """Another has read the secret, and is about to write it."""
    with (
        configured._alone_with_keys(),
        pytest.raises(Conflict, match="Somebody else"),
    ):
        contender(Table(client("dynamodb"), "t")).set_provider_key("main", PROVIDER_KEY)
    assert key_for(secret(), "main", BASE_URL) is None
    configured.set_provider_key("main", PROVIDER_KEY)
    assert key_for(secret(), "main", BASE_URL) == PROVIDER_KEY


def test_operator_who_died_with_the_keys_holds_them_for_seconds_only(
    configured: Operator,
) -> None:
    claim = {"until": NOW + records.LEASE_S, "by": "gone"}
    configured._table.commit([Change(items.PROVIDER_KEYS, claim, 0)], [])
    keys = ProviderKeys(client("secretsmanager"), PROVIDER_KEYS)
    table = configured._table
    early = Operator(table, keys, actor="a", clock=lambda: NOW + records.LEASE_S - 1)
    with pytest.raises(Conflict):
        early.set_provider_key("main", PROVIDER_KEY)
    late = Operator(table, keys, actor="a", clock=lambda: NOW + records.LEASE_S)
    late.set_provider_key("main", PROVIDER_KEY)
    assert key_for(secret(), "main", BASE_URL) == PROVIDER_KEY


def test_model_cannot_go_while_a_project_takes_it(configured: Operator) -> None:
    configured.put_model("m-small", model())
    taken = lambda: configured.update_project("default", change(default_model="m-small"))  # noqa: E731
    with pytest.raises(Conflict, match="by the project default"):
        contender(Contended(1, taken)).remove_model("m-small")
    configured.update_project("default", change(default_model="m-large"))
    gone = lambda: configured.remove_model("m-small")  # noqa: E731
    with pytest.raises(BadRequest, match="no model 'm-small'"):
        contender(Contended(1, gone)).update_project("default", change(default_model="m-small"))


def test_limits_that_are_not_named_stay(configured: Operator) -> None:
    def now() -> dict[str, Any]:
        return dict(configured.project("default")["limits"])

    configured.update_project("default", change(limits={"rpm": 5, "usd_per_month": 10}))
    configured.update_project("default", change(limits={"rpm": 6, "tpm": None}))
    assert now() == {"rpm": 6, "usd_per_month": 10, "tpm": None}
    configured.update_project("default", change(name="x"), {"limits": ["rpm"]})
    assert now() == {"usd_per_month": 10, "tpm": None}
    configured.update_project("default", change(limits=None))
    assert now() == {}
    configured.update_tenant(tenant(rpm=5, tpm=7))
    assert configured.update_tenant(tenant(tpm=8))["limits"] == {"rpm": 5, "tpm": 8}
    assert configured.update_tenant(tenant(), {"limits": ["rpm"]})["limits"] == {"tpm": 8}


def test_key_that_collides_with_another_change_is_revoked_all_the_same(
    configured: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = make_key(configured)[1]
    real, tried = Table.revoke_api_key, []
    configured.update_project("default", change(name="meanwhile"))

    def collides(*told: Any) -> None:
        tried.append(1)
        if len(tried) == 1:
            raise Stale
        real(*told)

    monkeypatch.setattr(Table, "revoke_api_key", collides)
    assert configured.revoke_key("default", key.key_id) is True
    assert configured.keys("default")[0].revoked_at is not None
    assert configured.revoke_key("default", key.key_id) is False


# ---------------------------------------------------------------- what is revoked


def revoked_keys(pid: str = "default") -> frozenset[str]:
    """As a request reads it."""
    (record,) = Table(client("dynamodb"), "t").records([items.project(pid)])
    return frozenset(record.document.get("revoked_keys", {}))


def test_revoked_keys_are_listed_for_requests_and_for_nobody_to_configure(
    configured: Operator,
) -> None:
    key = make_key(configured)[1].key_id
    configured.revoke_key("default", key)
    assert revoked_keys() == {key}
    for shown in (configured.project("default"), configured.exported()["projects"]["default"]):
        assert "revoked_keys" not in shown
    configured.update_project("default", change(name="n", limits=None, user_limits=None))
    assert revoked_keys() == {key}
    configured.imported(file(projects={"default": {"name": "imported"}}), dry_run=False)
    assert configured.project("default")["name"] == "imported"
    assert revoked_keys() == {key}
    for said in (
        lambda: change(revoked_keys={}),
        lambda: file(projects={"p": {"revoked_keys": {}}}),
    ):
        with pytest.raises(BadRequest, match="revoked_keys"):
            said()


def test_revoked_key_is_forgotten_once_none_of_its_tokens_can_be_unexpired(
    configured: Operator, table: Table
) -> None:
    first, second = (make_key(configured)[1].key_id for _ in range(2))
    configured.revoke_key("default", first)
    keys = ProviderKeys(client("secretsmanager"), PROVIDER_KEYS)
    for later_s, left in ((86_400 + 60, {first, second}), (86_400 + 600, {second})):
        third = make_key(configured)[1].key_id
        later = Operator(table, keys, actor="later", clock=lambda at=later_s: NOW + at)  # type: ignore[misc]
        later.revoke_key("default", second if second not in revoked_keys() else third)
        assert revoked_keys() - {third} == left


def test_key_is_revoked_and_listed_together_or_not_at_all(
    configured: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = make_key(configured)[1].key_id
    monkeypatch.setattr(records, "TRIES", 1)
    real = Table.revoke_api_key

    def meanwhile(*told: Any) -> None:
        configured.update_project("default", change(name="somebody else's"))
        real(*told)

    monkeypatch.setattr(Table, "revoke_api_key", meanwhile)
    with pytest.raises(Conflict):
        configured.revoke_key("default", key)
    assert configured.keys("default")[0].revoked_at is None
    assert revoked_keys() == set()


def noted(user_id: str = "jo") -> dict[str, Any]:
    (record,) = Table(client("dynamodb"), "t").records([items.subject("default", f"u#{user_id}")])
    return record.document


def test_block_and_revocation_at_the_same_time_both_stand(configured: Operator) -> None:
    session = Revocation("jo", session_id="s_1")

    def block(off: bool) -> None:
        configured.switch_user("default", "jo", off=off)

    def raced(first: Callable[[Operator], object], meanwhile: Callable[[], object]) -> None:
        table = Contended(1, meanwhile)
        first(contender(table))
        assert table.tried == 2

    raced(lambda o: o.revoke("default", session), lambda: block(off=True))
    assert len(noted()) == 2
    raced(lambda o: o.switch_user("default", "jo", off=False), lambda: again("s_2"))
    assert "blocked" not in noted()
    assert len(noted()) == 2
    raced(lambda o: o.switch_user("default", "jo", off=True), lambda: again("s_3"))
    assert len(noted()) == 4
    assert [told["user_id"] for told in configured.switches()] == ["jo"]


def again(sid: str) -> None:
    revoking.revoke(
        Table(client("dynamodb"), "t"), "default", Revocation("jo", session_id=sid), NOW
    )


def test_record_of_a_user_goes_by_itself_unless_the_user_is_blocked(configured: Operator) -> None:
    key = items.subject("default", "u#jo").item()

    def kept_until() -> int | None:
        item = client("dynamodb").get_item(TableName="t", Key=key)["Item"]
        return int(item["ttl"]["N"]) if "ttl" in item else None

    configured.revoke("default", Revocation("jo"))
    assert kept_until() == NOW + KEPT_S
    configured.switch_user("default", "jo", off=True)
    assert kept_until() is None
    configured.revoke("default", Revocation("jo", jti="j"))
    assert kept_until() is None
    configured.switch_user("default", "jo", off=False)
    assert kept_until() == NOW + KEPT_S


# ---------------------------------------------------------------- shards of the ledger


def generation(pid: str | None) -> int:
    """As a request reads it. None: the deployment's."""
    key = items.TENANT if pid is None else items.project(pid)
    (record,) = Table(client("dynamodb"), "t").records([key])
    return Project.from_document("p", record.document).pool.generation


class Pooled(NamedTuple):
    """`update` of a pool's limits and shards."""

    pid: str | None
    update: Callable[..., object]


@pytest.fixture(params=["a project", "the deployment"])
def pooled(request: pytest.FixtureRequest, configured: Operator) -> Pooled:
    if request.param == "a project":
        return Pooled(
            "default", lambda **told: configured.update_project("default", change(**told))
        )
    configured.switch_tenant(off=True)  # so that there is a record
    return Pooled(None, lambda **told: configured.update_tenant(parsed(TenantDocument, told)))


def test_each_change_of_a_divided_pools_limits_or_shards_raises_its_generation(
    pooled: Pooled,
) -> None:
    pooled.update(limits={"rpm": 5})
    changes: list[dict[str, Any]] = [
        {"ledger_shards": 2},
        {"limits": {"rpm": 6}},
        {"limits": {"tpm": None}},
        {"ledger_shards": 16},
        {"limits": None, "ledger_shards": 4},
        {"ledger_shards": 1},
    ]
    for number, told in enumerate(changes, start=1):
        pooled.update(**told)
        assert generation(pooled.pid) == number, told
        pooled.update(**told)
        assert generation(pooled.pid) == number, "nothing has changed the second time"


def test_change_of_a_divided_pool_leaves_its_counters_alone(pooled: Pooled) -> None:
    """Requests write them all the time: an operator who had to would lose to a busy pool."""
    counted = {"tokens": {"N": "77"}, "g": {"N": "1"}, "ttl": {"N": "9"}}
    key = items.Key(items.ledger(pooled.pid or "", "0"), items.month(NOW))
    client("dynamodb").put_item(TableName="t", Item={**key.item(), **counted})
    pooled.update(ledger_shards=2)
    pooled.update(limits={"rpm": 6})
    found = client("dynamodb").scan(TableName="t")["Items"]
    in_ledger = [item for item in found if item["pk"]["S"].startswith("LEDGER#")]
    assert in_ledger == [{**key.item(), **counted}]


def test_undivided_pool_stays_of_its_first_generation(pooled: Pooled) -> None:
    pooled.update(limits={"rpm": 5})
    pooled.update(ledger_shards=1)
    pooled.update(limits={"rpm": 6, "usd_per_month": 7})
    pooled.update(limits=None)
    assert generation(pooled.pid) == 0


def test_change_that_leaves_limits_as_they_are_raises_no_generation(configured: Operator) -> None:
    """And nothing of a project that is made can be in use."""
    configured.create_project(new_project("shop", ledger_shards=4, limits={"rpm": 5}))
    configured.imported(file(projects={"new": {"ledger_shards": 4}}), dry_run=False)
    configured.update_project("shop", change(name="n", user_limits={"rpm": 1}, ledger_shards=4))
    configured.set_tier("shop", "pro", limits(rpm=7))
    configured.switch_project("shop", off=True)
    configured.change_origins("shop", add=["https://b.example"])
    assert (generation("shop"), generation("new")) == (0, 0)


def test_two_changes_of_a_divided_pool_at_once_are_two_generations(configured: Operator) -> None:
    first = lambda: configured.update_project("default", change(ledger_shards=2))  # noqa: E731
    contender(Contended(1, first)).update_project("default", change(limits={"rpm": 5}))
    assert generation("default") == 2
    project = configured.project("default")
    assert (project["ledger_shards"], project["limits"]) == (2, {"rpm": 5})


def test_generation_is_kept_by_an_import_raised_by_its_changes_and_never_told(
    pooled: Pooled, configured: Operator
) -> None:
    pooled.update(ledger_shards=2, limits={"rpm": 5})
    exported = configured.exported()
    told = exported["tenant"] if pooled.pid is None else exported["projects"]["default"]
    assert told["ledger_shards"] == 2
    views = [exported, configured.project("default"), configured.tenant()]
    assert "generation" not in json.dumps(views)

    configured.switch_project("default", off=True)
    configured.imported(parsed(ConfigurationFile, exported), dry_run=False)
    assert generation(pooled.pid) == 1
    told["limits"] = {"rpm": 6}
    changed = configured.imported(parsed(ConfigurationFile, exported), dry_run=False)
    assert generation(pooled.pid) == 2
    assert [(each["before"], each["after"]) for each in changed] == [
        ({"limits": {"rpm": 5}}, {"limits": {"rpm": 6}})
    ]
    del told["limits"], told["ledger_shards"]
    configured.imported(parsed(ConfigurationFile, exported), dry_run=False)
    assert generation(pooled.pid) == 3


def test_trail_tells_of_shards_and_not_of_generations(pooled: Pooled, configured: Operator) -> None:
    known = trail(configured)
    pooled.update(ledger_shards=2)
    pooled.update(ledger_shards=3)
    told = [entry for name, entry in trail(configured).items() if name not in known]
    assert sorted(json.dumps([entry.before, entry.after]) for entry in told) == [
        '[{"ledger_shards": 2}, {"ledger_shards": 3}]',
        '[{}, {"ledger_shards": 2}]',
    ]


def test_import_may_change_every_divided_pool_at_once(configured: Operator) -> None:
    pids = [f"p{number}" for number in range(20)]
    divided: dict[str, Any] = {pid: {"ledger_shards": 2} for pid in pids}
    configured.imported(file(projects=divided), dry_run=False)
    configured.switch_tenant(off=True)
    raised: dict[str, Any] = {pid: {"ledger_shards": 16} for pid in pids}
    told = file(projects=raised, tenant={"ledger_shards": 16})
    assert len(configured.imported(told, dry_run=True)) == 21
    assert {generation(pid) for pid in pids} == {0}
    assert len(configured.imported(told, dry_run=False)) == 21
    assert {generation(pid) for pid in (*pids, None)} == {1}
