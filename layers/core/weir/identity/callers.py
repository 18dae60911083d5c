"""Who is calling: station 2 (believe) of a request.

The order matters: nothing about a token is looked at for what it says before its signature holds.
"""

from collections.abc import Callable

from weir import identifiers
from weir.errors import BadRequest, Unauthenticated
from weir.identity import api_keys, tokens
from weir.identity.api_keys import ApiKey
from weir.identity.keyring import Kid, PublicKey
from weir.identity.tenant_keys import TenantKey
from weir.identity.tokens import Claims
from weir.settings import Deployment
from weir.web.request import BEARER, CLIENT, Request

END_USER = "X-End-User-Id"
DEFAULT_USER = "default"  # whom older clients mean when they send no such header


def believe(
    request: Request,
    deployment: Deployment,
    find_key: Callable[[Kid], PublicKey | TenantKey],
    *,
    now: int,
    scope: str | None = None,
) -> Claims:
    """The claims of a token that is unexpired, and signed by us or, of a user token, by a tenant's
    server. Whether its project is open, and may be called from the page that sent it, is for the
    caller to ask. `scope` is what a client token must allow; None: none may be used here.

    `find_key` raises Unauthenticated for a key that is not believed. Identity comes from the token
    alone: headers such as X-End-User-Id, X-Role or X-Tier are never read.
    """
    scheme, credential = request.credential(BEARER, CLIENT)
    if scheme == BEARER and api_keys.looks_like(credential):
        request.refuse_browser()
        raise _mint_first()
    claims = believe_token(credential, deployment, find_key, now=now)
    if claims.bindings is not None:
        claims.bindings.require_origin(request.origin)
        claims.bindings.require_scope(scope)
    elif scheme == CLIENT:
        raise Unauthenticated("This is no client token.", reason="wrong_algorithm_or_type")
    return claims


def believe_token(
    unverified: str,
    deployment: Deployment,
    find_key: Callable[[Kid], PublicKey | TenantKey],
    *,
    now: int,
) -> Claims:
    """The same for a token by itself, wherever it was sent."""
    kid, token_type = tokens.unverified_header(unverified)
    key = find_key(kid)
    issuer, tid = deployment.issuer, deployment.tid
    if token_type == tokens.CLIENT_TOKEN_TYPE:
        if isinstance(key, TenantKey):
            raise Unauthenticated("No server signs those.", reason="wrong_algorithm_or_type")
        from weir.identity import client_tokens  # most processes see none

        signed = tokens.signed_claims(unverified, key)
        return client_tokens.judge(signed, issuer=issuer, tid=tid, now=now)
    if isinstance(key, TenantKey):
        signed = tokens.signed_claims(unverified, key.public)
        return tokens.judge_local(signed, issuer=issuer, tid=tid, pid=key.pid, now=now)
    return tokens.judge(tokens.signed_claims(unverified, key), issuer=issuer, tid=tid, now=now)


def believe_server(request: Request, key: ApiKey, deployment: Deployment) -> Claims:
    """Return for whom a server calls that sends an API key instead of a token: the user whom the
    header X-End-User-Id names, as role `user` and without a tier. A key of the Ringside contract
    names a customer in other places, or nobody: then it is the key itself that spends.

    Raises Unauthenticated for a key without the scope `api:chat`, BadRequest for a user id that
    mint would refuse.
    """
    if api_keys.CHAT not in key.scopes:
        raise _mint_first()
    of_ringside = api_keys.is_of_ringside(request.bearer())
    uid = request.headers.get(END_USER.lower()) or DEFAULT_USER
    if of_ringside:
        uid = key.key_id
    elif not tokens.is_user_id(uid):
        raise BadRequest(
            f"{END_USER} must have {identifiers.RULE}, and must not name a reserved user.",
            param=END_USER,
        )
    return Claims(
        tid=deployment.tid,
        pid=key.pid,
        uid=uid,
        role="user",
        sid=None,
        tier=None,
        jti=None,
        expires_at=0,
        client_id=key.key_id,
        kind=tokens.SERVER if of_ringside else tokens.USER,
    )


def _mint_first() -> Unauthenticated:
    return Unauthenticated(
        "This API key is not accepted here. Exchange it for a user token first: "
        f"POST /v1/auth/mint. (Of a server, a key with the scope {api_keys.CHAT} is accepted.)",
        reason="api_key_on_chat",
    )
