"""What lists of customers and client tokens may be asked, and what they show."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from weir.customers.customer import Customer, usd
from weir.errors import BadRequest
from weir.projects.project import Project

Query = Mapping[str, Sequence[str]]


def one(query: Query, name: str) -> str | None:
    """Return a query parameter's value; None without one, or if it is empty."""
    values = {str(value or "") for value in query.get(name, ())}
    if len(values) > 1:
        raise BadRequest(f"{name} is there more than once.", param=name)
    return "".join(values) or None


def refuse_others(query: Query, *known: str) -> None:
    """Raise BadRequest for a query parameter that the route does not have."""
    for name in query:
        if name not in known:
            raise BadRequest(f"There is no query parameter {name[:100]!r}.", param=name[:100])


def require_allowed(origins: Iterable[str], project: Project) -> None:
    """Raise BadRequest for an origin whose pages the project does not let call: no browser would
    let them, whatever their token says.
    """
    for origin in origins:
        if origin not in project.origins:
            raise BadRequest(
                f"{origin} is not an allowed origin of this project. The operator allows it: "
                f"weir origins add {origin} --project {project.pid}",
                code="invalid_origin",
                param="origin_allowlist",
            )


def token_view(
    record: Mapping[str, Any], customer: Customer, now: int, valid_from: int
) -> dict[str, Any]:
    """Return a client token's record as a server reads it. `valid_from`: tokens issued before it
    are revoked.
    """
    revoked = record["revoked_at"] is not None or record["created_at"] < valid_from
    state = "revoked" if revoked else "expired" if record["expires_at"] <= now else "active"
    spend = record["max_spend_nano_usd"]
    return {
        "object": "client_token",
        "id": record["id"],
        "customer": customer.id,
        "external_id": customer.external_id,
        "status": state,
        "scope": record["scope"],
        "origin_allowlist": record["origin_allowlist"],
        "bind_ip": record["bind_ip"] != "off",
        "ip_bound": record["bound"],
        "models": record["models"],
        "max_output_tokens": record["max_output_tokens"],
        "max_requests": record["max_requests"],
        "max_spend_usd": None if spend is None else usd(spend),
        "prompt_id": record["prompt_id"],
        "metadata": record["metadata"],
        "key_id": record["key_id"],
        "created_at": record["created_at"],
        "expires_at": record["expires_at"],
        "revoked_at": record["revoked_at"],
    }
