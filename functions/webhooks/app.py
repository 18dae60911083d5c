"""Webhook endpoints of a project, for its servers: API keys with the scope `api:webhooks`."""

import os
import time
from typing import Any

from aws_lambda_powertools.event_handler import Response

from weir.aws import clients, lean
from weir.aws.edge import Edge
from weir.aws.key_use import KeyUse
from weir.aws.snapshots import Snapshots
from weir.aws.table import Table
from weir.aws.webhooks.endpoints import Endpoints
from weir.aws.webhooks.seal import Sealer
from weir.errors import BadRequest, Forbidden, TooLarge
from weir.identity import api_keys
from weir.settings import MAX_MINT_BODY_BYTES, WebhookSettings
from weir.web import cursors
from weir.web.origins import Origins
from weir.web.request import Request, no_name_twice

_settings = WebhookSettings.from_env(os.environ)
_table = Table(lean.client("dynamodb"), _settings.deployment.table_name)
_snapshots = Snapshots(_table, time.time)
_sealer = Sealer(clients.client("kms"), _settings.key)
_key_use = KeyUse(_table)

# No page may read an answer: an API key belongs on a server.
edge = Edge("webhooks", Origins, store_errors=clients.AWS_ERRORS)
logger, app = edge.logger, edge.app

PATH = "/v1/webhook_endpoints"
ONE = f"{PATH}/<endpoint_id>"


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    return edge.resolve(event, context, _admit)


def _admit(request: Request) -> None:
    if len(request.body) > MAX_MINT_BODY_BYTES:
        raise TooLarge(f"The body may have at most {MAX_MINT_BODY_BYTES} bytes.")


@app.post(PATH)
def create() -> Response[str]:
    endpoints = _endpoints()
    made, secret = endpoints.create(_body())
    return edge.json({**made, "secret": secret}, 201)


@app.get(PATH)
def list_all() -> Response[str]:
    endpoints = _endpoints()
    limit, after = cursors.page_of(edge.request.query)
    return edge.json(cursors.page_view(*endpoints.page(limit, after)))


@app.get(ONE)
def get(endpoint_id: str) -> Response[str]:
    return edge.json(_endpoints().get(endpoint_id))


@app.patch(ONE)
def update(endpoint_id: str) -> Response[str]:
    endpoints = _endpoints()
    return edge.json(endpoints.update(endpoint_id, _body()))


@app.delete(ONE)
def remove(endpoint_id: str) -> Response[str]:
    _endpoints().remove(endpoint_id)
    return Response(204)


@app.post(f"{ONE}/rotate_secret")
def rotate_secret(endpoint_id: str) -> Response[str]:
    made, secret = _endpoints().rotate(endpoint_id)
    return edge.json({**made, "secret": secret})


@app.post(f"{ONE}/test")
def test(endpoint_id: str) -> Response[str]:
    """It is on its way: what becomes of it is shown by the endpoint."""
    return edge.json({"object": "event", **_endpoints().test(endpoint_id)}, 202)


@app.get(f"{ONE}/deliveries")
def deliveries(endpoint_id: str) -> Response[str]:
    """Those that were given up."""
    endpoints, query = _endpoints(), edge.request.query
    if query.get("status", ["failed"])[-1] != "failed":
        raise BadRequest(
            "status must be failed: only deliveries that were given up are kept.", param="status"
        )
    limit, after = cursors.page_of(query)
    return edge.json(cursors.page_view(*endpoints.failed(endpoint_id, limit, after)))


@app.post(f"{ONE}/replay")
def replay(endpoint_id: str) -> Response[str]:
    """Of one event, or of all that were given up."""
    endpoints = _endpoints()
    event_id = _body().get("event_id") if edge.request.body else None
    if event_id is not None and not isinstance(event_id, str):
        raise BadRequest("event_id must be the id of an event, evt_….", param="event_id")
    replayed = endpoints.replay(endpoint_id, event_id)
    return edge.json({"object": "list", "replayed": replayed}, 202)


def _body() -> dict[str, Any]:
    return edge.request.json_object(object_pairs_hook=no_name_twice)


def _endpoints() -> Endpoints:
    """Return those of the project whose API key was sent."""
    request, now = edge.request, int(time.time())
    request.refuse_browser()
    key_hash = api_keys.unverified_hash(request.bearer())
    key = api_keys.believe(_table.api_key(key_hash), key_hash)
    if api_keys.WEBHOOKS not in key.scopes:
        raise Forbidden(
            f"The API key lacks the scope {api_keys.WEBHOOKS}.",
            code="insufficient_scope",
            param=api_keys.WEBHOOKS,
        )
    _key_use.note(key, now)
    _snapshots.of(key.pid)  # raises for a project that is gone, suspended or switched off
    return Endpoints(_table, _sealer, key.pid, actor=key.key_id)
