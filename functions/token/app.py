"""Tokens: an API key, a Cognito session or another issuer's token in, a short-lived user token out;
and the key ring.
"""

import contextlib
import functools
import os
import time
import uuid
from typing import TYPE_CHECKING, Any

import jwt  # noqa: F401 - with the process, not with the first token: weir.identity.tokens
from aws_lambda_powertools.event_handler import Response

from weir.aws import lean, revoking
from weir.aws.api_keys import ApiKeys
from weir.aws.edge import Edge
from weir.aws.minted import Minted
from weir.aws.public_keys import PublicKeys
from weir.aws.refused_origins import RefusedOrigins
from weir.aws.signer import Signer
from weir.aws.snapshots import Snapshots
from weir.aws.table import Table
from weir.aws.vault import Vault
from weir.errors import Killed, NotReady, TooLarge, Unauthenticated
from weir.identity import api_keys, callers, tokens
from weir.identity.api_keys import ApiKey
from weir.identity.cognito import believe_session
from weir.identity.keyring import jwks
from weir.identity.revoke import RevokeRequest, revocation_of
from weir.projects.limits import Tier
from weir.projects.snapshot import Snapshot
from weir.revocation import Revocation
from weir.settings import MAX_MINT_BODY_BYTES, TokenSettings
from weir.web.request import Request, no_name_twice

if TYPE_CHECKING:
    from weir.aws.issuer_keys import IssuerKeys
    from weir.identity.key_sets import KeySet

_settings = TokenSettings.from_env(os.environ)
_deployment = _settings.deployment
_table = Table(lean.client("dynamodb"), _deployment.table_name)
_public_keys = PublicKeys(_table, time.time, _settings.caches)
_snapshots = Snapshots(_table, time.time)
_refused_origins = RefusedOrigins(_table)
_api_keys = ApiKeys(_table)
_signer = Signer(
    Vault(lean.client("secretsmanager"), _settings.caches.secrets_s),
    _settings.signing_key_secret,
    Minted(lean.client("dynamodb"), _deployment.table_name),
)

edge = Edge("token", _snapshots.readable_by)
logger, app = edge.logger, edge.app


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    return edge.resolve(event, context)


@app.post("/v1/auth/mint")
@app.post("/auth/v1/auth/mint")
def mint() -> dict[str, Any]:
    request, now = edge.request, int(time.time())
    key = _minting_key(request, now)
    wish = tokens.MintRequest.parse(request.json_object(object_pairs_hook=no_name_twice))
    snapshot = _snapshots.of(key.pid, wish.user_id)
    tier = snapshot.project.tiers.parse(wish.tier)
    role = tokens.granted_role(wish.role, key.role)
    token = _sign(now, snapshot, wish.user_id, role, tier, wish.ttl_s, wish.session_id, key.key_id)
    logger.info("minted", extra={"key_id": key.key_id, "uid": wish.user_id, "ttl_s": wish.ttl_s})
    return tokens.mint_reply(token, tid=_deployment.tid, pid=key.pid)


@app.post("/v1/auth/revoke")
def revoke() -> dict[str, Any]:
    """Sign a user out, end a session, or refuse one token (RFC 7009): with an API key that could
    make such tokens. A token that is no good is no error (section 2.2): there is nothing to refuse.
    """
    request, now = edge.request, int(time.time())
    key = _minting_key(request, now)
    with contextlib.suppress(Killed):  # what is switched off may be switched on again
        _snapshots.of(key.pid)
    wish = RevokeRequest.parse(request.fields(object_pairs_hook=no_name_twice))
    what = wish.what or _named_by(wish.token or "", key.pid, now)
    if what is not None:
        revoking.revoke(_table, key.pid, what, now)
        seen = {"uid": what.user_id, "sid": what.session_id, "jti": what.jti}
        logger.info("revoked", extra={"key_id": key.key_id, "kind": what.kind, **seen})
    return {"revoked": what is not None}


def _minting_key(request: Request, now: int) -> ApiKey:
    request.refuse_browser()
    if len(request.body) > MAX_MINT_BODY_BYTES:
        raise TooLarge(f"The body may have at most {MAX_MINT_BODY_BYTES} bytes.")
    return _api_keys.believe(request, now, api_keys.MINT)


def _named_by(token: str, pid: str, now: int) -> Revocation | None:
    try:
        claims = callers.believe_token(
            token, _deployment, lambda kid: _public_keys.find(kid, now), now=now
        )
    except Unauthenticated:
        return None
    # A client token is revoked where it was made: DELETE /v1/client_tokens/{id}.
    return None if claims.bindings is not None else revocation_of(claims, pid)


@app.post("/api/behest/token")
def session_token() -> dict[str, Any]:
    """For a page whose user is signed in with Cognito. Nothing is read from the body."""
    request, now = edge.request, int(time.time())
    user = believe_session(request.claims, client_id=_settings.cognito_client_id)
    pid = _settings.session_project
    snapshot = _session_snapshot(pid, user.sub)
    _refused_origins.check(request, snapshot.project, now)
    tier = snapshot.project.tiers.highest_of(user.groups)
    token = _sign(now, snapshot, user.sub, "user", tier, _settings.session_token_ttl_s)
    logger.info("minted", extra={"uid": user.sub, "ttl_s": token.ttl_s})
    return tokens.session_reply(token)


@app.post("/v1/token")
def exchange() -> Response[Any]:
    """RFC 8693: for a page whose user is signed in with an issuer that the project trusts. What
    only this route needs is imported here: mint is called at chat rate, and its cold start counts.
    """
    from weir.identity.exchange import NO_CACHE, refusal_answer

    try:
        return Response(200, "application/json", _exchanged(), NO_CACHE)
    except Exception as error:
        return edge.refuse(error, refusal_answer)


def _exchanged() -> dict[str, Any]:
    from weir.aws.arrivals import Arrivals
    from weir.identity import issuers
    from weir.identity.exchange import ExchangeRequest, reply

    request, now = edge.request, int(time.time())
    wish = ExchangeRequest.parse(request)
    pid = wish.project or _settings.session_project
    project = (_session_snapshot(pid) if wish.project is None else _snapshots.of(pid)).project
    _refused_origins.check(request, project, now)
    who = issuers.believe(
        wish.subject_token,
        project,
        lambda issuer, kid, alg: _issuer_keys().find(issuer.jwks_uri, kid, alg),
        now=now,
        pool_users=pid == _settings.session_project,
    )
    snapshot = _snapshots.of(pid, who.user_id)  # raises for a user who is blocked
    new = Arrivals(lean.client("dynamodb"), _deployment.table_name).admit(
        pid, who.issuer, who.user_id, now
    )
    ttl_s = who.issuer.ttl_s or min(_settings.session_token_ttl_s, issuers.MAX_TTL_S)
    session_id = who.session_id or wish.session_id
    token = _sign(now, snapshot, who.user_id, "user", who.tier, ttl_s, session_id)
    seen = {"issuer": who.issuer.name, "uid": who.user_id, "ttl_s": ttl_s, "new_user": new}
    logger.info("exchanged", extra=seen)
    return reply(token, wish.issued_token_type)


@functools.cache
def _issuer_keys() -> "IssuerKeys":
    from weir.aws.issuer_keys import IssuerKeys

    return IssuerKeys(lean.client("dynamodb"), _deployment.table_name, _fetch, time.time)


def _fetch(jwks_uri: str) -> "KeySet":
    from weir.upstreams.key_sets import KeySetFetcher  # with httpcore: once in a while

    return KeySetFetcher()(jwks_uri)


def _session_snapshot(pid: str, sub: str | None = None) -> Snapshot:
    """The session is good: that nobody has made its project yet must not look like a bad one."""
    try:
        return _snapshots.of(pid, sub)
    except Unauthenticated as refusal:
        if refusal.reason != "unknown_project":
            raise
        raise NotReady(
            f"There is no project {pid!r} yet. The operator makes it: weir projects create {pid}.",
            code="project_not_configured",
            retryable=False,
        ) from None


@app.get("/.well-known/jwks.json")
@app.get("/auth/.well-known/jwks.json")
def published_keys() -> Response[Any]:
    keys = jwks(_public_keys.listed(), int(time.time()))
    cached = {"Cache-Control": "public, max-age=300"}
    return Response(200, "application/json", keys, cached)


def _sign(
    now: int,
    snapshot: Snapshot,
    uid: str,
    role: str,
    tier: Tier | None,
    ttl_s: int,
    session_id: str | None = None,
    key_id: str | None = None,
) -> tokens.Token:
    key = _signer.key(now)
    session_id = session_id or str(uuid.uuid4())
    return tokens.mint(
        key,
        issuer=_deployment.issuer,
        tid=_deployment.tid,
        pid=snapshot.project.pid,
        uid=uid,
        role=role,
        ttl_s=ttl_s,
        tier=tier,
        session_id=session_id,
        jti=tokens.token_id(str(uuid.uuid4()), key_id),
        now=snapshot.revocations.first_valid_at(session_id, now),
    )
