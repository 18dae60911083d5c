"""Keys that sign user tokens: those of tenants' servers, and the ring that mint signs with.

The admin API offers the verbs for tenants' keys only: its function has no right to write the ring.
Those for the ring need an operator's own rights in AWS.
"""

import secrets
from collections.abc import Mapping
from typing import Any

from weir.aws.minted import Minted
from weir.aws.operator.records import Records
from weir.aws.rotation import make_signing_key
from weir.errors import Conflict, NotFound
from weir.identity import tenant_keys
from weir.identity.keyring import Kid, PublicKey
from weir.identity.tenant_keys import MOST_TENANT_KEYS, TenantKey


class Signing(Records):
    # ------------------------------------------------------------ tenants' keys

    def tenant_keys(self) -> list[TenantKey]:
        """Return every one, newest first; revoked ones for a month."""
        found = self._table.tenant_keys()
        return sorted(found, key=lambda key: (key.public.created_at, key.kid), reverse=True)

    def create_tenant_key(self, pid: str | None, *, name: str) -> tuple[str, TenantKey]:
        """Make a pair; return the private half as BEHEST_KEY, which is kept nowhere, and the key.
        `pid` None: for every project.
        """
        pair = make_signing_key(tenant_keys.kid_of(secrets.token_hex(16)))
        key = TenantKey(pair.public(created_at=self._now()), pid, name)
        self._add_tenant_key(key, "signing_key.create")
        return tenant_keys.private_half(pair), key

    def upload_tenant_key(
        self, pid: str | None, given: str | Mapping[str, Any], *, name: str
    ) -> TenantKey:
        """Take the public half of a pair that was made elsewhere. Raises BadRequest for one that is
        not usable.
        """
        kid = tenant_keys.kid_of(secrets.token_hex(16))
        public = tenant_keys.uploaded(kid, given, now=self._now())
        key = TenantKey(public, pid, name)
        self._add_tenant_key(key, "signing_key.upload")
        return key

    def revoke_tenant_key(self, kid: str) -> bool:
        """Return False if it was revoked before."""

        def revoke() -> bool:
            key = next((key for key in self._table.tenant_keys() if key.kid == kid), None)
            if key is None:
                raise NotFound(f"There is no signing key {kid!r}.")
            if key.revoked_at is not None:
                return False
            now = self._now()
            entry = self._entry(
                "signing_key.revoke", kid, {"revoked_at": None}, {"revoked_at": now}
            )
            self._table.revoke_tenant_key(key.kid, now, entry)
            return True

        return self._until_current(revoke)

    def _add_tenant_key(self, key: TenantKey, action: str) -> None:
        def add() -> None:
            if key.pid is not None:
                self._project(key.pid)
            there = self._table.tenant_keys()
            same = next((each for each in there if each.public.n == key.public.n), None)
            if same is not None:
                state = "" if same.revoked_at is None else ", which is revoked"
                raise Conflict(f"That key is here already, as {same.kid}{state}.")
            if len(there) >= MOST_TENANT_KEYS:
                raise Conflict(
                    f"There are {len(there)} signing keys, those included that were revoked in the "
                    f"last month; {MOST_TENANT_KEYS} fit."
                )
            self._table.add_tenant_key(key, self._entry(action, key.kid, None, key.document()))

        self._until_current(add)

    # ------------------------------------------------------------ the ring

    def ring(self) -> list[PublicKey]:
        """Return every key of the ring that is listed, newest first."""
        found = self._table.public_keys()
        return sorted(found, key=lambda key: (key.created_at, key.kid), reverse=True)

    def note_rotation(self) -> None:
        """Leave an entry before a rotation is started: Secrets Manager, which does it, writes none
        here.
        """
        current = [key.kid for key in self._table.public_keys() if key.role == "current"]
        entry = self._entry("ring.rotate", "ring", {"current": current}, None)
        self._table.commit([], [entry])

    def distrust(self, kid: str, minted: Minted, *, force: bool = False) -> bool:
        """Stop believing a key of the ring within seconds, and every token that it has signed.

        Return False if it was distrusted before. Raises Conflict for the key that signs now; and,
        without `force`, for one whose tokens may be alive.
        """

        def distrust() -> bool:
            key = next((key for key in self._table.public_keys() if key.kid == kid), None)
            if key is None:
                raise NotFound(f"There is no key {kid!r} in the ring.")
            if key.distrusted_at is not None:
                return False
            now = self._now()
            self._check_distrust(key, minted, now, force=force)
            entry = self._entry(
                "ring.distrust", kid, {"role": key.role}, {"role": "distrusted", "forced": force}
            )
            self._table.distrust(Kid(kid), now, entry)
            return True

        return self._until_current(distrust)

    def _check_distrust(self, key: PublicKey, minted: Minted, now: int, *, force: bool) -> None:
        if key.role == "current":
            raise Conflict(
                f"{key.kid} signs now: without it nobody gets a token that is believed. Rotate "
                "first, then distrust it.",
                details={"reason": "signs_now"},
            )
        if force or not key.believed_at(now):
            return
        living = minted.outstanding(key.kid, now)
        if living:
            raise Conflict(
                f"Up to {living} tokens signed with {key.kid} may be alive; they would all be "
                "refused.",
                details={"reason": "living_tokens", "at_most": living},
            )
