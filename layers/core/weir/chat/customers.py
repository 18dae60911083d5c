"""A chat for a customer, in the Ringside contract's way: contracts/ringside.md, section 4.10.

A server names the customer, in a header or as `user`. A page cannot: its token is for one, and a
request that names any is refused before anything is counted. What a page may send is narrower, too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from weir.customers.customer import COUNTED, Customer, is_listed
from weir.customers.names import EXTERNAL, PREFIX, Reference, parse_reference
from weir.errors import BadRequest, Forbidden
from weir.identity.bindings import Bindings, IpBinding, customer_mismatch
from weir.identity.tokens import CUSTOMER, Claims
from weir.ledger.admission import TokenUse
from weir.projects import model_refs
from weir.projects.catalogue import Model
from weir.projects.limits import Limits
from weir.projects.model_kinds import CHAT
from weir.projects.project import Project
from weir.projects.snapshot import Snapshot
from weir.web.addresses import counted_as, family
from weir.web.request import Request

HEADER = "FC-Customer"
_NAMING = ("user", "customer", "customer_id")  # fields of a body that might name a customer
# What a page may not send although a server may: it costs more, or says more, than a chat.
_SERVERS_ONLY = frozenset(
    {
        *("store", "service_tier", "web_search_options", "modalities", "audio", "prediction"),
        *("metadata", "prompt_cache_key", "safety_identifier"),
    }
)


@dataclass(frozen=True, slots=True)
class ForCustomer:
    """For whom a request of this contract is. `customer` None: a server's, for nobody."""

    claims: Claims
    customer: Customer | None
    model: str  # as it was asked for, and is told

    @property
    def etag(self) -> str | None:
        return None if self.customer is None else self.customer.etag


def named_by_server(request: Request, body: Mapping[str, Any]) -> tuple[Reference, bool] | None:
    """Return the customer whom a server's request names, and whether it is created if it is not
    there: by `user`, as the vendor does it. None: it names nobody. Raise BadRequest.
    """
    header, user = request.headers.get(HEADER.lower()), body.get("user")
    if user is not None and not isinstance(user, str):
        raise BadRequest("user must be a string.", param="user")
    of_header = parse_reference(header, HEADER) if header else None
    of_body = _named(user) if user else None
    if of_header is None:
        return None if of_body is None else (of_body, True)
    if of_body is not None and of_body != of_header:
        raise BadRequest(
            f"{HEADER} and user name different customers.", code="customer_conflict", param="user"
        )
    return of_header, False


def _named(user: str) -> Reference:
    """`user` is an external id unless it says otherwise."""
    has_prefix = user.startswith((EXTERNAL, PREFIX))
    return parse_reference(user if has_prefix else EXTERNAL + user, "user")


def refuse_another(request: Request, body: Mapping[str, Any], customer_id: str) -> None:
    """Raise Forbidden if a page's request names a customer: `user` in any case, another one in any
    place. Nothing is looked up, so the answer does not tell who is there.
    """
    for name in _NAMING:
        value = body.get(name)
        if value is not None and (name == "user" or value != customer_id):
            raise customer_mismatch(name)
    if request.headers.get(HEADER.lower(), customer_id) != customer_id:
        raise customer_mismatch(HEADER)


def narrowed(
    body: Mapping[str, Any], bindings: Bindings, project: Project
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the body that a page's request counts as, and the fields that were left out of it.

    With a prompt of the project's, the page's own instructions are left out. What a page writes as
    a user is its own: a model may be talked into repeating the prompt.
    """
    if body.get("n") not in (None, 1):
        raise BadRequest("n must be 1 with a client token.", param="n")
    left_out = tuple(name for name in body if name in _SERVERS_ONLY and body[name] is not None)
    kept = {name: value for name, value in body.items() if name not in _SERVERS_ONLY}
    if bindings.prompt_id is None:
        return kept, left_out
    prompt, messages = project.prompts.get(bindings.prompt_id), body.get("messages")
    if prompt is None:
        raise Forbidden(
            "The prompt that this token is bound to is no longer there. Fetch a new token.",
            code="prompt_not_found",
        )
    if isinstance(messages, list):
        said = [each for each in messages if not _instructs(each)]
        if not said:
            raise BadRequest("messages must have at least one of the user's.", param="messages")
        kept["messages"] = [{"role": "system", "content": prompt}, *said]
        if len(said) < len(messages):
            left_out = (*left_out, "messages.system")
    return kept, left_out


def _instructs(message: object) -> bool:
    return isinstance(message, Mapping) and message.get("role") in ("system", "developer")


def model_for(
    snapshot: Snapshot, whom: ForCustomer, asked: object, *, stream: bool = False, kind: str = CHAT
) -> Model:
    """Return the model of this kind; raise Forbidden for one that this customer or token may not
    use.
    """
    project, catalogue = snapshot.project, snapshot.catalogue
    model = model_refs.choose(project, catalogue, asked, stream=stream, kind=kind)
    bindings, names = whom.claims.bindings, (asked, model_refs.reference(model))
    narrower = None if bindings is None else bindings.models
    allowed = whom.customer is None or any(
        isinstance(each, str) and whom.customer.may_use(each) for each in names
    )
    if allowed and narrower is not None:
        allowed = any(isinstance(each, str) and is_listed(each, narrower) for each in names)
    if not allowed:
        raise Forbidden(
            "This customer or token may not use this model.",
            code="model_not_allowed",
            param="model",
        )
    return model


def with_its_limits(snapshot: Snapshot, whom: ForCustomer) -> Snapshot:
    """Return the snapshot with the limits of the customer, narrowed by the token."""
    limits = Limits() if whom.customer is None else whom.customer.limits
    bindings = whom.claims.bindings
    if bindings is not None and bindings.max_output_tokens is not None:
        caps = (limits.max_output_tokens, bindings.max_output_tokens)
        limits = replace(limits, max_output_tokens=min(c for c in caps if c is not None))
    counted = COUNTED if whom.claims.kind == CUSTOMER else frozenset[str]()
    return replace(snapshot, own_limits=limits, counted=counted)


def token_use(request: Request, bindings: Bindings) -> TokenUse:
    """Return what an admission looks at in the token's record."""
    if bindings.ip is IpBinding.OFF:
        return TokenUse(bindings.token_id, bindings.limits)
    address = counted_as(request.source)
    pinned = {IpBinding.PIN_4: 4, IpBinding.PIN_6: 6}.get(bindings.ip)
    of_the_other = pinned is not None and pinned != family(address)
    return TokenUse(
        bindings.token_id,
        bindings.limits,
        address,
        "other_ip" if of_the_other else "ip",
        first=of_the_other or bindings.ip is IpBinding.FIRST,
    )
