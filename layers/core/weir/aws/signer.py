"""The key that signs tokens now."""

from weir.aws.minted import Minted
from weir.aws.vault import Vault
from weir.errors import NotReady
from weir.identity.keyring import KeyRing, SigningKey


class Signer:
    def __init__(self, vault: Vault, secret_id: str, minted: Minted) -> None:
        """`secret_id` is the key ring's; `minted` counts what each of its keys signs."""
        self._vault = vault
        self._secret_id = secret_id
        self._minted = minted

    def key(self, now: int) -> SigningKey:
        """Return the current key, with one more token counted of it. `now` is Unix seconds. Raise
        NotReady while there is none yet.
        """
        try:
            key = KeyRing.from_secret(self._vault.read(self._secret_id, now)).current
        except NotReady:
            self._vault.forget(self._secret_id)  # the first rotation may end any moment
            raise
        self._minted.count(key.kid, now)
        return key
