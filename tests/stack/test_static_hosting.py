"""examples/static-hosting, deployed to an embedded AWS with nothing else in it."""

import json
from collections.abc import Callable

import pytest

from local import embedded_aws
from local.template import load
from tests.stack.conftest import ROOT

TEMPLATE = ROOT / "examples/static-hosting/template.yaml"
GATEWAY = "https://abc.execute-api.eu-west-1.amazonaws.com"
SIGN_IN = "https://my-shop.auth.eu-west-1.amazoncognito.com"
CERTIFICATE = "arn:aws:acm:us-east-1:000000000000:certificate/c"


@pytest.fixture(scope="module")
def deploy(endpoint: str) -> Callable[..., dict[str, str]]:
    cloudformation = embedded_aws.client(endpoint, "cloudformation")

    def deployed(name: str, **parameters: str) -> dict[str, str]:
        given = {"ConnectSources": f"{GATEWAY} {SIGN_IN}", **parameters}
        cloudformation.create_stack(
            StackName=name,
            TemplateBody=json.dumps(load(TEMPLATE), default=str),
            Parameters=[{"ParameterKey": k, "ParameterValue": v} for k, v in given.items()],
        )
        cloudformation.get_waiter("stack_create_complete").wait(
            StackName=name, WaiterConfig={"Delay": 0.1, "MaxAttempts": 100}
        )
        (stack,) = cloudformation.describe_stacks(StackName=name)["Stacks"]
        return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}

    return deployed


def test_page_is_served_from_a_private_bucket_by_this_distribution_only(
    deploy: Callable[..., dict[str, str]], endpoint: str
) -> None:
    outputs = deploy("page")
    assert outputs["Origin"] == f"https://{outputs['DistributionDomain']}"
    s3 = embedded_aws.client(endpoint, "s3")
    blocked = s3.get_public_access_block(Bucket=outputs["Bucket"])
    assert set(blocked["PublicAccessBlockConfiguration"].values()) == {True}
    policy = json.loads(s3.get_bucket_policy(Bucket=outputs["Bucket"])["Policy"])
    (allowed,) = [each for each in policy["Statement"] if each["Effect"] == "Allow"]
    assert (allowed["Action"], allowed["Principal"]) == (
        "s3:GetObject",
        {"Service": "cloudfront.amazonaws.com"},
    )
    (source,) = allowed["Condition"]["StringEquals"].values()
    assert source.endswith(f":distribution/{outputs['DistributionId']}")
    cloudfront = embedded_aws.client(endpoint, "cloudfront")
    found = cloudfront.get_distribution(Id=outputs["DistributionId"])["Distribution"]
    (origin,) = found["DistributionConfig"]["Origins"]["Items"]
    assert origin["DomainName"].startswith(f"{outputs['Bucket']}.s3")
    assert origin["OriginAccessControlId"]
    behavior = found["DistributionConfig"]["DefaultCacheBehavior"]
    assert behavior["ViewerProtocolPolicy"] == "redirect-to-https"
    headers = cloudfront.get_response_headers_policy(Id=behavior["ResponseHeadersPolicyId"])
    security = headers["ResponseHeadersPolicy"]["ResponseHeadersPolicyConfig"][
        "SecurityHeadersConfig"
    ]
    sources = security["ContentSecurityPolicy"]["ContentSecurityPolicy"].split("; ")
    assert f"connect-src 'self' {GATEWAY} {SIGN_IN}" in sources
    assert "script-src 'self'" in sources


def test_domain_of_its_own_is_the_origin_to_allow(deploy: Callable[..., dict[str, str]]) -> None:
    outputs = deploy("own", DomainName="app.example.com", CertificateArn=CERTIFICATE)
    assert outputs["Origin"] == "https://app.example.com"
