"""Keep tokens of users until shortly before they end."""

from __future__ import annotations

import copy
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from weir_client._errors import BadRequest, WeirError
from weir_client._models import Token

LockT = TypeVar("LockT")

TTL_S = 900
EARLY_S = 60
AT_MOST = 10_000


@dataclass(frozen=True)
class Identity:
    """Name whom a token is for. `session_id` is None for the session that the cache chooses."""

    user_id: str
    tier: int | str | None = None
    role: str | None = None
    session_id: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.user_id, str) or not self.user_id:
            raise BadRequest("user_id must be a text that is not empty.", param="user_id")

    @property
    def key(self) -> tuple[object, ...]:
        """Return what tells entries apart: tier 1 and tier True or "1" are different claims."""
        return (self.user_id, type(self.tier), self.tier, self.role, self.session_id)


@dataclass
class Entry(Generic[LockT]):
    """Hold one identity's token, and the lock of whoever mints the next one.

    `session_id` stays the same from one token to the next; no other entry has it.
    """

    session_id: str
    lock: LockT
    token: Token | None = field(default=None, repr=False)
    fresh_until: float = 0
    failures: int = 0
    last_failure: WeirError | None = None

    def fresh(self, now: float) -> Token | None:
        """Return the token if it lives long enough to be used."""
        return self.token if now < self.fresh_until else None

    def hold(self, token: Token, asked_at: float) -> None:
        """Keep a token, by this machine's clock: the gateway's may be another."""
        self.token = token
        self.fresh_until = asked_at + token.ttl - min(EARLY_S, token.ttl / 10)
        self.last_failure = None

    def failed(self, error: WeirError) -> None:
        """Note that minting failed, for those who wait for the same token."""
        self.failures += 1
        self.last_failure = error

    def raise_if_failed_since(self, failures: int) -> None:
        """Raise the failure of the attempt that the caller has waited for, if it failed."""
        if self.failures != failures and self.last_failure is not None:
            raise copy.copy(self.last_failure)

    def drop(self, refused: Token | None = None) -> None:
        """Forget the token; if `refused` is given, only if it is that one."""
        if refused is None or self.token is refused:
            self.token, self.fresh_until = None, 0


class Entries(Generic[LockT]):
    """Keep the entries that were used last, for threads and tasks alike."""

    def __init__(
        self,
        new_lock: Callable[[], LockT],
        *,
        at_most: int = AT_MOST,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._new_lock = new_lock
        self._at_most = at_most
        self._entries: OrderedDict[tuple[object, ...], Entry[LockT]] = OrderedDict()
        self._guard = threading.Lock()
        self.clock = clock

    def of(self, who: Identity) -> Entry[LockT]:
        """Return the identity's entry, making it and dropping the oldest one if need be."""
        with self._guard:
            entry = self._entries.get(who.key)
            if entry is None:
                session_id = who.session_id or str(uuid.uuid4())
                entry = self._entries[who.key] = Entry(session_id, self._new_lock())
                if len(self._entries) > self._at_most:
                    self._entries.popitem(last=False)
            self._entries.move_to_end(who.key)
            return entry

    def forget_user(self, user_id: str) -> None:
        """Drop the tokens of a user, whose next call mints."""
        with self._guard:
            for key, entry in self._entries.items():
                if key[0] == user_id:
                    entry.drop()
