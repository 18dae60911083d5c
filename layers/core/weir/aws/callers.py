"""Station 2 of a request, with the table: whose token, or which server's API key, was sent."""

from weir.aws.api_keys import ApiKeys
from weir.aws.public_keys import PublicKeys
from weir.aws.table import Table
from weir.freshness import Clock
from weir.identity import api_keys, callers
from weir.identity.tokens import Claims
from weir.settings import Caches, Deployment
from weir.web.request import BEARER, CLIENT, Request


class Callers:
    def __init__(self, deployment: Deployment, table: Table, clock: Clock, caches: Caches) -> None:
        self._deployment = deployment
        self._public_keys = PublicKeys(table, clock, caches)
        self._api_keys = ApiKeys(table)

    def believe(self, request: Request, now: int, scope: str | None = None) -> Claims:
        """Return for whom the request is: of a user token what it says, of an API key with scope
        `api:chat` the user whom it names. `now` is Unix seconds; `scope` is what a client token
        must allow, None if none may be used. Raises Unauthenticated, Forbidden for an API key from
        a page, BadRequest for a bad X-End-User-Id.

        A token costs no round trip while its signing key is known. An API key costs one, so that a
        revoked key is refused on its next request.
        """
        scheme, credential = request.credential(BEARER, CLIENT)
        if scheme == BEARER and api_keys.is_one(credential):
            return self._server(request, now)
        return callers.believe(
            request,
            self._deployment,
            lambda kid: self._public_keys.find(kid, now),
            now=now,
            scope=scope,
        )

    def _server(self, request: Request, now: int) -> Claims:
        key = self._api_keys.find(request)
        claims = callers.believe_server(request, key, self._deployment)
        self._api_keys.note(key, now)
        return claims
