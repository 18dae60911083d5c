"""What a client token is bound to, beyond its customer: contracts/ringside.md, section 8.1."""

from dataclasses import dataclass
from enum import StrEnum

from weir.errors import Forbidden
from weir.projects.limits import TokenLimits

CHAT, EMBEDDINGS, MODERATIONS, USAGE = "chat", "embeddings", "moderations", "usage"
SCOPES = (CHAT, EMBEDDINGS, MODERATIONS, USAGE)
ANY = "any"  # of a route that every client token may be used on


NO_LIMITS = TokenLimits()


class IpBinding(StrEnum):
    """To which network address. With an address at mint, of that family; a caller of the other
    family, whom the backend could not see, is bound at first use, as without an address.
    """

    OFF = "off"
    FIRST = "first"
    PIN_4 = "pin4"
    PIN_6 = "pin6"


@dataclass(frozen=True, slots=True)
class Bindings:
    """`models` None: those of the customer. `prompt_id` names a system prompt of the project."""

    token_id: str
    scopes: frozenset[str]
    origins: frozenset[str]
    ip: IpBinding
    models: tuple[str, ...] | None = None
    max_output_tokens: int | None = None
    limits: TokenLimits = NO_LIMITS
    prompt_id: str | None = None

    def require_origin(self, origin: str | None) -> None:
        """Raise Forbidden unless it is on the token's list, letter by letter. A browser sends one
        with every call to another site; whoever sends none is no page.
        """
        if origin not in self.origins:
            raise Forbidden(
                "This token may only be used by the pages it was made for: the request's Origin is "
                "missing or is none of them.",
                code="client_token_origin_mismatch",
            )

    def require_scope(self, scope: str | None) -> None:
        """None: that of a route on which no client token may be used."""
        if scope != ANY and scope not in self.scopes:
            lacks = f": it lacks the scope {scope!r}" if scope else ""
            raise Forbidden(
                f"This token may not be used here{lacks}.", code="client_token_scope_denied"
            )


def ip_mismatch() -> Forbidden:
    return Forbidden(
        "This token is bound to another network address. Fetch a new one.",
        code="client_token_ip_mismatch",
    )


def customer_mismatch(param: str | None = None) -> Forbidden:
    """Name nothing: that a customer is there is none of the caller's business."""
    return Forbidden(
        "A client token is for one customer, who cannot be named or changed in a request.",
        code="client_token_customer_mismatch",
        param=param,
    )
