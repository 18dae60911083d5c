"""A first deployment comes up in an empty account, and one that failed can be repeated."""

import functools
import re
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest

from local.template import load
from tests.template.test_template import ROOT, Resources, of_type, translate

LOG_ROLE = {"ApiGatewayLogRole", "ApiGatewayAccount"}
DATA = {"Table", "Key", "UserPool"}


@functools.cache
def translated() -> Resources:
    return translate(load(ROOT / "template.yaml"))


@functools.cache
def created(create_log_role: str) -> Resources:
    """Return what CloudFormation creates if CreateApiGatewayLogRole has that value: no resource
    whose condition is false, and of each `Fn::If` the branch that holds.
    """
    template = load(ROOT / "template.yaml")
    chosen = {name: each["Default"] for name, each in template["Parameters"].items()}
    chosen["CreateApiGatewayLogRole"] = create_log_role
    holds = {name: _holds(each, chosen) for name, each in template["Conditions"].items()}
    return {
        name: _resolved(resource, holds)
        for name, resource in translated().items()
        if holds.get(resource.get("Condition", ""), True)
    }


def _holds(condition: dict[str, Any], chosen: dict[str, Any]) -> bool:
    ((function, arguments),) = condition.items()
    if function == "Fn::Not":
        return not _holds(arguments[0], chosen)
    assert function == "Fn::Equals"
    left, right = arguments
    return bool(chosen[left["Ref"]] == right)


def _resolved(value: Any, holds: dict[str, bool]) -> Any:
    if isinstance(value, list):
        return [_resolved(each, holds) for each in value]
    if not isinstance(value, dict):
        return value
    if "Fn::If" in value:
        condition, then, otherwise = value["Fn::If"]
        return _resolved(then if holds[condition] else otherwise, holds)
    return {key: _resolved(each, holds) for key, each in value.items()}


def references(value: Any) -> Iterator[str]:
    """Yield each name in a Ref, Fn::GetAtt or Fn::Sub: of a resource, a parameter or AWS's own."""
    if isinstance(value, list):
        for each in value:
            yield from references(each)
    elif isinstance(value, dict):
        for key, each in value.items():
            if key == "Ref":
                yield each
            elif key == "Fn::GetAtt":
                yield each[0] if isinstance(each, list) else each.split(".")[0]
            elif key == "Fn::Sub":
                yield from re.findall(r"\$\{([\w:]+)", each if isinstance(each, str) else each[0])
                yield from references(each)
            else:
                yield from references(each)


def waits_for(resource: dict[str, Any]) -> set[str]:
    explicit = resource.get("DependsOn", [])
    named = [explicit] if isinstance(explicit, str) else explicit
    return {*references(resource["Properties"]), *named}


def created_before(name: str, resources: Resources) -> set[str]:
    """Return everything that exists when CloudFormation starts on `name`."""
    found: set[str] = set()
    left = [name]
    while left:
        new = (waits_for(resources[left.pop()]) & set(resources)) - found
        found |= new
        left += new
    return found


def test_api_comes_first_then_the_role_of_its_logs_then_the_stage_that_writes_them() -> None:
    """AWS takes the account's setting only once the account has had an API Gateway resource
    (reference of AWS::ApiGateway::Account), and a stage with an access log only after that setting.
    """
    resources = created("true")
    (stage,) = of_type(resources, "AWS::ApiGateway::Stage")
    assert resources[stage]["Properties"]["AccessLogSetting"]["DestinationArn"]
    assert created_before("ApiGatewayAccount", resources) == {
        "ApiGatewayLogRole",
        "Api",
        *created_before("Api", resources),
    }
    assert resources["Api"]["Type"] == "AWS::ApiGateway::RestApi"
    assert "ApiGatewayAccount" in created_before(stage, resources)


def test_stage_is_created_without_the_role_where_the_account_has_one() -> None:
    resources = created("false")
    assert not LOG_ROLE & set(resources)
    (stage,) = of_type(resources, "AWS::ApiGateway::Stage").values()
    assert stage["Properties"]["AccessLogSetting"]["DestinationArn"]


@pytest.mark.parametrize("create_log_role", ["true", "false"])
def test_nothing_depends_on_what_is_not_created(create_log_role: str) -> None:
    """AWS does not create what depends on a resource whose condition is false (reference of the
    Condition attribute). `sam validate --lint` overlooks it for a resource of SAM.
    """
    resources = created(create_log_role)
    left_out = set(translated()) - set(resources)
    for name, resource in resources.items():
        assert not waits_for(resource) & left_out, name


def test_failed_first_deployment_leaves_no_data_behind_and_a_deleted_stack_does() -> None:
    """UpdateReplacePolicy knows no RetainExceptOnCreate (cfn-lint E3036)."""
    kept = {
        name: (each.get("DeletionPolicy"), each.get("UpdateReplacePolicy"))
        for name, each in translated().items()
        if {each.get("DeletionPolicy", "Delete"), each.get("UpdateReplacePolicy", "Delete")}
        != {"Delete"}
    }
    assert kept == {
        **dict.fromkeys(DATA, ("RetainExceptOnCreate", "Retain")),
        # The account's setting goes on naming the role, and serves every API of the region.
        **dict.fromkeys(LOG_ROLE, ("Retain", "Retain")),
    }


def test_second_try_meets_no_name_of_the_first() -> None:
    """What is kept, and what is deleted only after a waiting period, has a generated name."""
    waiting = of_type(translated(), "AWS::SecretsManager::Secret")
    for name in {*DATA, *LOG_ROLE, *waiting}:
        assert not {"Name", "TableName", "RoleName"} & set(translated()[name]["Properties"]), name


def test_dev_can_be_deployed_again_after_a_failure_and_prod_deletes_nothing_by_itself() -> None:
    profiles = tomllib.loads((ROOT / "samconfig.toml").read_text())
    del profiles["version"]
    deploy = {name: profile["deploy"]["parameters"] for name, profile in profiles.items()}
    assert {name: each["on_failure"] for name, each in deploy.items()} == {
        "default": "DELETE",
        "dev": "DELETE",
        "prod": "ROLLBACK",
    }
