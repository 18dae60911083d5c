"""Writes docs/openapi.json: the admin API's document, generated from its door.

    make openapi

What Powertools cannot know of a door is added here: who may call, and which refusals there are.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from typing import Any
from unittest import mock

from local.settings import ROOT

PAGE = ROOT / "docs" / "openapi.json"

# What the door's settings ask for; none of it is in the document.
ENVIRONMENT = {
    "TENANT_ID": "tenant",
    "TABLE_NAME": "table",
    "COGNITO_CLIENT_ID": "client",
    "PROVIDER_KEYS_SECRET": "secret",
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
    "413": "The body is too large.",
    "429": "Too many requests for this deployment.",
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


def document() -> dict[str, Any]:
    told: dict[str, Any] = json.loads(
        _door().app.get_openapi_json_schema(
            title="Weir admin API",
            version="1",
            description=(
                "What an operator sets: projects, keys, origins, tiers, models. For users of the "
                "Cognito group `admins`, with their ID token. Not for pages: there is no CORS."
            ),
        )
    )
    told.pop("servers", None)
    schemas = told["components"]["schemas"]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas["Refusal"] = ENVELOPE
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
    for item in told["paths"].values():
        for operation in item.values():
            operation["operationId"] = operation["operationId"].partition("_admin_v1")[0]
            operation["responses"] = _responses(operation["responses"])
    return told


def _responses(told: dict[str, Any]) -> dict[str, Any]:
    said = {status: answer for status, answer in told.items() if status != "422"}
    if "204" in said:
        said["204"] = {"description": "Done."}
    return {**said, **{s: {"$ref": f"#/components/responses/{s}"} for s in REFUSALS}}


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
