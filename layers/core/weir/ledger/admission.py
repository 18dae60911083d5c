"""The types of an admission: what a request asks of the ledger, what it then holds, and what a
sweep of overdue reservations did. How they are stored and carried out: `weir/aws/ledger/`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from weir.ledger.rules import Amounts, Field
from weir.projects.limits import Limits, Pool, TokenLimits
from weir.revocation import Issued


class StaleCustomer(Exception):
    """A customer's record has been changed; the caller knows an older version. `found` is what the
    store has now, as it has it.
    """

    def __init__(self, found: Mapping[str, Any]) -> None:
        super().__init__()
        self.found = found


class StaleConfiguration(Exception):
    """An operator has changed a pool's limits; the caller knows an older configuration."""


@dataclass(frozen=True, slots=True)
class TokenUse:
    """A client token that a request comes with. Its record must say in `attribute` that it is bound
    to `address`; with `first`, or be not bound yet, and then it is from now on. `address` None: it
    is bound to none.
    """

    token_id: str
    limits: TokenLimits
    address: str | None = None
    attribute: str = ""
    first: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """A request that wants to be admitted.

    `limited`: see rules.of_subject. `price` returns what a number of output tokens makes the
    request take; `afford` returns how many output tokens fit into what is left of a limit. The
    output may be made smaller if `shrinkable`, in steps of `choices`. `due` (Unix seconds): when
    the sweeper may settle it. `row` holds the members of its usage row that are known now. `token`
    must not have been revoked; None: the caller sent an API key. `address` is what counts as one
    network address; `address_rpm`, how many requests a minute one may make, or None for no limit.
    `etag`: the version of the customer's record that all of this goes by.
    """

    pid: str
    subject: str
    tier: object
    completion_id: str
    limits: Limits
    limited: frozenset[str]
    project: Pool
    tenant: Pool
    price: Callable[[int], Amounts]
    afford: Callable[[Field, int], int]
    output_tokens: int
    choices: int
    shrinkable: bool
    due: int
    row: Mapping[str, Any]
    token: Issued | None = None
    address: str = ""
    address_rpm: int | None = None
    etag: str | None = None
    client_token: TokenUse | None = None


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a request holds until it is settled. `at` and `due` are Unix seconds: admitted, and to
    be swept. `held` has rules.held of each account.
    """

    id: str
    due: int
    pid: str
    subject: str
    completion_id: str
    at: int
    amounts: Amounts
    output_tokens: int
    held: Sequence[Sequence[str]]
    row: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Swept:
    """How many reservations a sweep settled, and how many it could not. `oldest_s`: how long the
    oldest had been due. `nano_usd`: what all of them were charged.
    """

    settled: int
    failed: int
    oldest_s: int
    nano_usd: int
