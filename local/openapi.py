"""Writes docs/openapi.json: the admin API's document, generated from its door.

    make openapi

What Powertools cannot know of a door is added here: who may call, which refusals there are, what
its docstrings say. Whoever changes the door, or what an operator may write, makes it again.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import re
import sys
from typing import Any
from unittest import mock

from local.settings import ROOT

PAGE = ROOT / "docs" / "openapi.json"

# What the door's settings ask for; none of it is in the document.
ENVIRONMENT = {
    "TENANT_ID": "tenant",
    "TABLE_NAME": "table",
    "STACK_NAME": "stack",
    "PROJECT_ID": "default",
    "COGNITO_CLIENT_ID": "client",
    "PROVIDER_KEYS_SECRET": "secret",
    "KEY_ARN": "key",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "POWERTOOLS_SERVICE_NAME": "admin",
}
REFUSALS = {
    "400": "The request is wrong; `param` names the field.",
    "401": "No Cognito ID token of this deployment.",
    "403": "A user who is not in the group `admins`.",
    "404": "No such route, or no such thing.",
    "409": "It does not fit what is there.",
    "413": "The body is too large, or the answer would be.",
    "429": "Too many requests for this deployment.",
    "431": "Address and headers together have more than 10,240 bytes.",
    "500": "A bug in the gateway.",
    "503": "The store cannot be reached, or the gateway is busy.",
    "504": "The gateway took too long.",
}
ENVELOPE: dict[str, Any] = {
    "type": "object",
    "required": ["error", "code", "message", "retryable", "trace_id"],
    "additionalProperties": False,
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code", "details", "request_id"],
            "additionalProperties": False,
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string"},
                "details": {"type": "object"},
                "request_id": {"type": "string"},
            },
        },
        "code": {"type": "string"},
        "message": {"type": "string"},
        "retryable": {"type": "boolean"},
        "trace_id": {"type": "string"},
    },
}


DESCRIPTION = """\
What an operator sets: projects, keys, origins, tiers, models. Paths are relative to the stack's
output `ApiUrl`.

For users of the Cognito group `admins` (`weir admins add EMAIL`), with their ID token. A script
gets one, for an hour, from the client that is the stack's output `UserPoolClientId`:

    aws cognito-idp initiate-auth --auth-flow USER_PASSWORD_AUTH --client-id USER_POOL_CLIENT_ID \\
      --auth-parameters USERNAME=jo@example.com,PASSWORD=... \\
      --query AuthenticationResult.IdToken --output text

A new user must replace the temporary password first. Not for pages: there is no CORS. Fields and
query parameters that are not listed here are refused.
"""
PARAMETERS = {
    "pid": "The project.",
    "name": "Of the model, upstream or tier.",
    "tier": "The tier's number or name.",
    "key_id": "The API key's id, which is no secret.",
    "kid": "The signing key's id, which is no secret.",
    "webhook": "The webhook endpoint's id.",
    "ref": "The customer's id, or ext: and its external id.",
    "token_id": "The client token's id, which is no secret.",
    "origin": "As a browser sends it, such as https://app.example.com.",
    "dry_run": "true: only tell what would change, and change nothing.",
    "limit": "The most entries that one answer may have.",
    "cursor": "The last answer's `next_cursor`: goes on from there.",
    "month": "Such as 202611, instead of `from` and `to`.",
    "from": "A date, a date and time, or Unix seconds; UTC. Absent: the first of the month.",
    "to": "The same. A bare date counts in full. Absent: now.",
    "granularity": "Of the breakdown. A window has at most 400 days, 31 by hour, 2 by minute.",
    "group_by": "By what to add up in `data`, dearest first.",
    "user_id": "Of this user only.",
    "session_id": "Of this session only.",
    "thread_id": "Of this thread only.",
    "model": "Of this model only, by its name in the catalogue.",
    "tag": "Of this tag only.",
}
# The bodies of PATCH. A client that filled in a default would take back what it does not name.
CHANGES = ("ProjectChange", "TenantDocument", "CustomerChange", "WebhookChange")
KEPT = "those that are not named stay; null takes all of them back to their defaults"


def document() -> dict[str, Any]:
    door = _door()
    told: dict[str, Any] = json.loads(
        door.app.get_openapi_json_schema(
            title="Weir admin API", version="1", description=DESCRIPTION
        )
    )
    told.pop("servers", None)
    schemas = told["components"]["schemas"]
    schemas["Refusal"] = ENVELOPE
    _say_what_stays(schemas)
    told["components"]["securitySchemes"] = {
        "cognito": {"type": "http", "scheme": "bearer", "bearerFormat": "Cognito ID token"}
    }
    told["security"] = [{"cognito": []}]
    told["components"]["responses"] = {
        status: {
            "description": words,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}}},
        }
        for status, words in REFUSALS.items()
    }
    for path, item in told["paths"].items():
        for method, operation in item.items():
            name = re.split(r"_(?:admin_)?v1_", operation["operationId"])[0]
            operation["operationId"] = name
            operation["description"] = " ".join((inspect.getdoc(getattr(door, name)) or "").split())
            operation["summary"] = re.split(r"\.(?: |$)", operation["description"])[0]
            operation["responses"] = _responses(operation["responses"], refusals(method, path))
            for parameter in operation.get("parameters", ()):
                parameter["description"] = PARAMETERS[parameter["name"]]
    _drop_unused(told)
    return told


def refusals(method: str, path: str) -> set[str]:
    """What may be answered instead. Reading cannot collide, and a list is always there."""
    cannot = set() if method != "get" else {"409"} if "{" in path else {"404", "409"}
    return REFUSALS.keys() - cannot


def _responses(told: dict[str, Any], refused: set[str]) -> dict[str, Any]:
    said = {status: answer for status, answer in told.items() if status != "422"}
    if "204" in said:
        said["204"] = {"description": "Done."}
    return {**said, **{s: {"$ref": f"#/components/responses/{s}"} for s in refused}}


def _say_what_stays(schemas: dict[str, Any]) -> None:
    """Limits are merged by a PATCH, and by nothing else."""
    for schema in schemas.values():
        for name in ("limits", "user_limits"):
            member = schema.get("properties", {}).get(name, {})
            if "description" in member:
                member["description"] = member["description"].partition(";")[0]
    for change in CHANGES:
        for name, member in schemas[change]["properties"].items():
            member.pop("default", None)
            if name in ("limits", "user_limits"):
                member["description"] += f"; {KEPT}"
    # Of the same form as in a PATCH, but a file's is the whole of it.
    schemas["ConfigurationFile"]["properties"]["tenant"] = {
        "$ref": "#/components/schemas/TenantDocument",
        "description": "absent: stays as it is; here, limits that are not named are taken back",
    }


def _drop_unused(told: dict[str, Any]) -> None:
    schemas = told["components"]["schemas"]
    while unused := schemas.keys() - set(
        re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(told))
    ):
        for name in unused:
            del schemas[name]


def text() -> str:
    return json.dumps(document(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _door() -> Any:
    spec = importlib.util.spec_from_file_location("admin_door", ROOT / "functions/admin/app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with mock.patch.dict(os.environ, ENVIRONMENT):
        spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    PAGE.write_text(text())
    print(PAGE.relative_to(ROOT), file=sys.stderr)
