"""Which server's API key was sent, and that it may what it asks for."""

from weir.aws.key_use import KeyUse
from weir.aws.table import Table
from weir.identity import api_keys
from weir.identity.api_keys import ApiKey
from weir.web.request import Request


class ApiKeys:
    def __init__(self, table: Table) -> None:
        self._table = table
        self._key_use = KeyUse(table)

    def believe(self, request: Request, now: int, *scopes: str) -> ApiKey:
        """Return the key, which must have one of the scopes, and note its use. `now` is Unix
        seconds. Without `scopes` any will do. Raise Forbidden for a request of a page,
        Unauthenticated.
        """
        key = self.find(request)
        if scopes and key.scopes.isdisjoint(scopes):
            raise api_keys.lacks(scopes[0])
        self.note(key, now)
        return key

    def find(self, request: Request) -> ApiKey:
        """Return the key. One round trip, so that a revoked one is refused on its next request."""
        request.refuse_browser()
        key_hash = api_keys.unverified_hash(request.bearer())
        return api_keys.believe(self._table.api_key(key_hash), key_hash)

    def note(self, key: ApiKey, now: int) -> None:
        self._key_use.note(key, now)
