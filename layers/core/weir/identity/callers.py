"""Who is calling: station 2 (believe) of a request.

The order matters: nothing about a token is looked at for what it says before its signature holds.
"""

from collections.abc import Callable

from weir.errors import Unauthenticated
from weir.identity import api_keys, tokens
from weir.identity.keyring import Kid, PublicKey
from weir.identity.tenant_keys import TenantKey
from weir.identity.tokens import Claims
from weir.settings import Deployment
from weir.web.request import Request


def believe(
    request: Request,
    deployment: Deployment,
    find_key: Callable[[Kid], PublicKey | TenantKey],
    *,
    now: int,
) -> Claims:
    """The claims of a user token that is unexpired, and signed by us or by a tenant's server.
    Whether its project is open, and may be called from the page that sent it, is for the caller to
    ask.

    `find_key` raises Unauthenticated for a key that is not believed. Identity comes from the token
    alone: headers such as X-End-User-Id, X-Role or X-Tier are never read.
    """
    credential = request.bearer()
    if api_keys.looks_like(credential):
        request.refuse_browser()
        raise Unauthenticated(
            "An API key is not accepted here. Exchange it for a user token first: "
            "POST /v1/auth/mint.",
            reason="api_key_on_chat",
        )
    key = find_key(tokens.unverified_kid(credential))
    issuer, tid = deployment.issuer, deployment.tid
    if isinstance(key, TenantKey):
        signed = tokens.signed_claims(credential, key.public)
        return tokens.judge_local(signed, issuer=issuer, tid=tid, pid=key.pid, now=now)
    return tokens.judge(tokens.signed_claims(credential, key), issuer=issuer, tid=tid, now=now)
