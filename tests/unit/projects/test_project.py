"""A project as a request reads it: is it open, which models may be asked for."""

from typing import Any

import pytest

from tests.unit.conftest import CANDIDATE, MODEL, UPSTREAM
from weir.errors import BadRequest, Killed, NotReady, Refusal, Unauthenticated
from weir.projects.catalogue import Catalogue
from weir.projects.limits import PROJECT, Pool
from weir.projects.project import Project

KILLED = {"reason": "", "at": 1, "by": "x"}
PRICED = {**MODEL, "candidates": [{**CANDIDATE, "output_cap_parameter": "max_tokens"}]}
CATALOGUE = Catalogue(
    {
        "upstreams": {"main": UPSTREAM},
        "models": {
            "small": {**PRICED, "aliases": ["fast"]},
            "large": {**PRICED, "aliases": ["slow", "fc:main/large"]},
            "dead": {**PRICED, "aliases": ["gone"], "killed": KILLED},
        },
    }
)


def project(**told: Any) -> Project:
    return Project.from_document("shop", {"default_model": "small", **told})


def refused(asked: object, **told: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        project(**told).choose(asked, CATALOGUE)
    return caught.value


@pytest.mark.parametrize("asked", [None, "", "default"], ids=repr)
@pytest.mark.parametrize(
    ("default", "name"), [("small", "small"), ("slow", "large"), ("fc:main/large", "large")]
)
def test_no_model_is_the_projects_default(asked: object, default: str, name: str) -> None:
    assert project(default_model=default).choose(asked, CATALOGUE).name == name


@pytest.mark.parametrize(
    ("asked", "name"),
    [("small", "small"), ("fast", "small"), ("large", "large"), ("fc:main/large", "large")],
)
@pytest.mark.parametrize("models", [None, ["small", "large"]], ids=str)
def test_offered_model_is_chosen_by_any_of_its_names(
    asked: str, name: str, models: list[str] | None
) -> None:
    assert project(models=models).choose(asked, CATALOGUE).name == name


@pytest.mark.parametrize(
    "asked", ["gpt-9", "SMALL", "small ", "provider/m-large", "main", 7, 0, True, ["small"], {}],
    ids=repr,
)  # fmt: skip
def test_unknown_model_is_refused_with_what_is_offered(asked: object) -> None:
    refusal = refused(asked)
    assert isinstance(refusal, BadRequest)
    assert (refusal.param, refusal.details["reason"]) == ("model", "model_not_found")
    assert refusal.details["allowed"] == ["default", "large", "small"]
    assert refusal.message.endswith("offers: large, small.")


@pytest.mark.parametrize("asked", ["large", "slow", "fc:main/large"])
def test_model_that_the_project_does_not_list_is_unknown_to_it(asked: str) -> None:
    refusal = refused(asked, models=["small"])
    assert refusal.details["allowed"] == ["default", "small"]
    assert "large" not in refusal.message


def test_list_without_a_model_offers_none_and_no_list_offers_all() -> None:
    assert project(models=[]).offered(CATALOGUE) == []
    names = [model.name for model in project().offered(CATALOGUE)]
    assert names == ["large", "small"]
    refused("small", models=[])


@pytest.mark.parametrize("asked", ["dead", "gone"])
def test_killed_model_is_refused_as_killed_and_not_offered(asked: str) -> None:
    refusal = refused(asked)
    assert isinstance(refusal, Killed)
    assert refusal.details == {"reason": "killed", "scope": "model"}
    assert "dead" not in [model.name for model in project().offered(CATALOGUE)]


def test_killed_default_is_refused_as_killed() -> None:
    assert isinstance(refused(None, default_model="gone"), Killed)


@pytest.mark.parametrize("default", [None, "no-such-model"], ids=repr)
def test_without_a_default_the_operator_is_told_what_to_do(default: str | None) -> None:
    refusal = refused(None, default_model=default)
    assert isinstance(refusal, NotReady)
    assert (refusal.code, refusal.retryable) == ("upstream_not_configured", False)
    assert "weir projects update shop --default-model" in refusal.message


def test_open_project_is_open() -> None:
    project(status="active").require_open()
    project(killed=None).require_open()


def test_suspended_projects_tokens_count_for_nothing() -> None:
    with pytest.raises(Unauthenticated) as caught:
        project(status="suspended").require_open()
    assert (caught.value.status, caught.value.reason) == (401, "project_suspended")


def test_status_nobody_knows_is_not_open() -> None:
    with pytest.raises(Unauthenticated):
        project(status="paused").require_open()


def test_killed_project_answers_nobody() -> None:
    with pytest.raises(Killed) as caught:
        project(killed=KILLED).require_open()
    assert (caught.value.status, caught.value.details["scope"]) == (403, "project")


def test_smallest_document_is_a_project_with_the_defaults() -> None:
    found = Project.from_document("shop", {})
    assert (found.name, found.models, found.default_model) == ("shop", None, None)
    assert (found.suspended, found.killed, found.system_prompt) == (False, False, None)
    assert found.limits == PROJECT
    assert found.pool == Pool(PROJECT, shards=1, generation=0)
    assert "https://app.example.com" not in found.origins


LIMITED = {"rpm", "requests_per_day", "tokens_per_day", "concurrent_streams"}
NO_LIMIT: dict[str, Any] = dict.fromkeys(
    [*LIMITED, "tpm", "tokens_per_month", "usd_per_month", "max_output_tokens"]
)
NO_TIER_LIMITS = {
    name: {"number": number, "limits": NO_LIMIT}
    for number, name in enumerate(("free", "pro", "max"), start=1)
}


@pytest.mark.parametrize(
    ("told", "limited"),
    [
        ({}, LIMITED),
        ({"user_limits": {"tpm": 0}}, {*LIMITED, "tpm"}),
        ({"user_limits": NO_LIMIT}, LIMITED),
        ({"user_limits": NO_LIMIT, "tiers": NO_TIER_LIMITS}, set()),
        ({"user_limits": {"rpm": None}, "tiers": NO_TIER_LIMITS},
         {"tokens_per_day", "concurrent_streams"}),
        ({"tiers": {"team": {"number": 4, "limits": {"usd_per_month": 1}}}},
         {*LIMITED, "nano_usd_per_month"}),
        ({"limits": {"tokens_per_month": 5}}, LIMITED),
    ],
)  # fmt: skip
def test_what_limits_a_user_of_any_tier_is_counted_for_every_user(
    told: dict[str, Any], limited: set[str]
) -> None:
    """And what limits all of them together alone is not, nor what limits a request."""
    assert project(**told).limited_fields == limited


# ---------------------------------------------------------------- models of another kind

OF_ALL_KINDS = Catalogue(
    {
        "upstreams": {"main": UPSTREAM},
        "models": {
            "small": PRICED,
            "vectors": {**PRICED, "kind": "embedding", "aliases": ["v"]},
            "judge": {**PRICED, "kind": "moderation"},
            "judge-2": {**PRICED, "kind": "moderation"},
            "odd": {**PRICED, "kind": "of-a-later-release"},
        },
    }
)


@pytest.mark.parametrize("asked", ["vectors", "v", None, "", "default"])
def test_model_of_the_routes_kind_is_chosen_by_name_or_as_the_only_one(asked: object) -> None:
    assert project().choose(asked, OF_ALL_KINDS, "embedding").name == "vectors"


@pytest.mark.parametrize(
    ("asked", "kind", "found", "route"),
    [
        ("vectors", "chat", "embedding", "POST /v1/embeddings"),
        ("judge", "chat", "moderation", "POST /v1/moderations"),
        ("small", "embedding", "chat", "POST /v1/chat/completions"),
        ("judge", "embedding", "moderation", "POST /v1/moderations"),
        ("odd", "chat", "of-a-later-release", ""),
    ],
)
def test_model_of_another_kind_is_refused_with_its_route(
    asked: str, kind: str, found: str, route: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        project().choose(asked, OF_ALL_KINDS, kind)
    assert caught.value.details == {"reason": "wrong_kind_of_model", "kind": found}
    assert route in caught.value.message


@pytest.mark.parametrize("told", [{}, {"models": ["small"]}], ids=["two", "none"])
def test_without_a_name_and_with_no_only_one_the_models_are_listed(told: dict[str, Any]) -> None:
    with pytest.raises(BadRequest) as caught:
        project(**told).choose(None, OF_ALL_KINDS, "moderation")
    assert caught.value.details["allowed"] == ([] if told else ["judge", "judge-2"])


def test_default_that_became_no_chat_model_is_the_operators_to_mend() -> None:
    with pytest.raises(NotReady) as caught:
        project(default_model="vectors").choose(None, OF_ALL_KINDS)
    assert "--default-model" in caught.value.message
