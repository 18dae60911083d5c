"""What an operator may say of other issuers, and what must be true of the project that trusts."""

from typing import Any

import pytest

from tests.issuers import ENTRY
from weir.aws.operator import Operator
from weir.errors import BadRequest, NotFound
from weir.operator.documents import (
    ConfigurationFile,
    IssuerDocument,
    NewProject,
    ProjectChange,
    parsed,
)

OTHER = {**ENTRY, "issuer": "https://other.example.com"}
BUDGET = {"limits": {"usd_per_month": 50}}


@pytest.fixture
def budgeted(configured: Operator) -> Operator:
    configured.update_project("default", parsed(ProjectChange, BUDGET))
    return configured


def put(operator: Operator, name: str = "clerk", pid: str = "default", **more: Any) -> Any:
    return operator.put_issuer(pid, name, parsed(IssuerDocument, {**ENTRY, **more}))


def test_issuer_is_kept_whole_and_leaves_an_entry_in_the_audit_trail(budgeted: Operator) -> None:
    made = put(budgeted)
    assert made == {
        "name": "clerk",
        **ENTRY,
        "authorized_parties": [],
        "uid_claim": "sub",
        "prefix_user_ids": True,
        "allow_anonymous": False,
        "new_users_per_hour": 100,
    }
    assert budgeted.issuers("default") == [made]
    assert "clerk" in budgeted.project("default")["issuers"]
    budgeted.remove_issuer("default", "clerk")
    assert budgeted.issuers("default") == []
    actions = {entry.action for entry in budgeted.audit_trail(100)[0]}
    assert {"issuer.set", "issuer.remove"} <= actions


def test_project_without_a_budget_cannot_trust_and_one_that_trusts_keeps_its_budget(
    configured: Operator,
) -> None:
    with pytest.raises(BadRequest, match="budget") as refusal:
        put(configured)
    assert refusal.value.param == "limits.usd_per_month"
    configured.update_project("default", parsed(ProjectChange, BUDGET))
    put(configured)
    for change, unset in (
        ({"limits": {"usd_per_month": None}}, None),
        ({"limits": None}, None),
        ({"limits": {}}, {"limits": {"usd_per_month"}}),
    ):
        with pytest.raises(BadRequest, match="budget"):
            configured.update_project("default", parsed(ProjectChange, change), unset)
    configured.update_project("default", parsed(ProjectChange, {"limits": {"usd_per_month": 0}}))
    configured.remove_issuer("default", "clerk")
    configured.update_project("default", parsed(ProjectChange, {"limits": None}))


def test_no_two_issuers_of_a_project_are_the_same(budgeted: Operator) -> None:
    put(budgeted)
    with pytest.raises(BadRequest, match="'again' and 'clerk' would both be"):
        put(budgeted, "again")
    put(budgeted, ttl=300)
    budgeted.create_project(parsed(NewProject, {"pid": "blog", **BUDGET}))
    put(budgeted, "again", "blog")


def test_one_issuer_of_a_project_may_go_without_a_prefix(budgeted: Operator) -> None:
    put(budgeted, prefix_user_ids=False)
    with pytest.raises(BadRequest, match="without a prefix"):
        put(budgeted, "two", issuer=OTHER["issuer"], prefix_user_ids=False)
    put(budgeted, "two", issuer=OTHER["issuer"])


def test_project_trusts_no_more_than_ten(budgeted: Operator) -> None:
    for number in range(10):
        put(budgeted, f"n{number}", issuer=f"https://{number}.example.com")
    with pytest.raises(BadRequest, match="at most 10"):
        put(budgeted, "one-more", issuer="https://more.example.com")


def test_what_is_not_there_is_a_404(budgeted: Operator) -> None:
    for missing in (
        lambda: budgeted.remove_issuer("default", "clerk"),
        lambda: budgeted.issuers("none"),
        lambda: put(budgeted, pid="none"),
    ):
        with pytest.raises(NotFound):
            missing()


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"issuer": "http://sign-in.example.com"}, "issuer"),
        ({"issuer": "https://sign-in.example.com?tenant=1"}, "issuer"),
        ({"issuer": "https://sign-in.example.com#x"}, "issuer"),
        ({"issuer": "sign-in.example.com"}, "issuer"),
        ({"issuer": "https://localhost"}, "issuer"),
        ({"jwks_uri": "http://sign-in.example.com/keys"}, "jwks_uri"),
        ({"jwks_uri": "https://127.0.0.1/keys"}, "jwks_uri"),
        ({"jwks_uri": "https://169.254.169.254/latest"}, "jwks_uri"),
        ({"jwks_uri": "https://vault.internal/keys"}, "jwks_uri"),
        ({"algs": []}, "algs"),
        ({"algs": ["HS256"]}, "algs.0"),
        ({"algs": ["none"]}, "algs.0"),
        ({"algs": ["RS256", "HS512"]}, "algs.1"),
        ({"audiences": []}, None),
        ({"audiences": [""]}, "audiences.0"),
        ({"uid_claim": ""}, "uid_claim"),
        ({"uid_claim": "user_metadata.id"}, "uid_claim"),
        ({"tier_claim": "user_metadata.plan"}, "tier_claim"),
        ({"tier_claim": "unsafe_metadata.plan"}, "tier_claim"),
        ({"new_users_per_hour": -1}, "new_users_per_hour"),
        ({"new_users_per_hour": None}, "new_users_per_hour"),
        ({"ttl": 59}, "ttl"),
        ({"ttl": 3601}, "ttl"),
        ({"allow_anonymous": "yes"}, "allow_anonymous"),
        ({"audience": "my-app"}, "audience"),
    ],
    ids=str,
)
def test_bad_entry_is_refused_and_its_field_named(more: dict[str, Any], field: str | None) -> None:
    with pytest.raises(BadRequest) as refusal:
        parsed(IssuerDocument, {**ENTRY, **more})
    assert refusal.value.param == field


def test_file_has_issuers_and_is_held_to_the_same_rules(budgeted: Operator) -> None:
    put(budgeted)
    exported = budgeted.exported()
    assert exported["projects"]["default"]["issuers"]["clerk"]["issuer"] == ENTRY["issuer"]
    file = parsed(ConfigurationFile, exported)
    assert budgeted.imported(file, dry_run=True) == []
    del exported["projects"]["default"]["limits"]
    with pytest.raises(BadRequest, match="budget"):
        budgeted.imported(parsed(ConfigurationFile, exported), dry_run=False)
    del exported["projects"]["default"]["issuers"]
    budgeted.imported(parsed(ConfigurationFile, exported), dry_run=False)
    assert budgeted.issuers("default") == []
