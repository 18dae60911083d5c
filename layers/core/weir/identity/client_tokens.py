"""Client tokens: what a backend may ask for, what is signed, and when one is believed.

They are signed by the same ring as user tokens, and told apart by `typ` and `aud`, of which neither
kind has the other's (RFC 8725, section 3.12). What a token is bound to beyond its customer stands
in its claims and is verified without a look at the table, but for what changes while it lives: its
revocation, its address at first use, and what was used with it. These are in its record, which an
admission looks at. Source: contracts/ringside.md, sections 4.7 and 8.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from weir.customers.customer import (
    MAX_BUDGET_USD,
    Customer,
    is_listed,
    parse_count,
    parse_metadata,
    parse_models,
    parse_usd,
)
from weir.customers.names import CROCKFORD, is_customer_id
from weir.errors import BadRequest, TokenExpired
from weir.identity.bindings import SCOPES, Bindings, IpBinding
from weir.identity.keyring import SigningKey
from weir.identity.tokens import (
    CLIENT_TOKEN_TYPE,
    CLOCK_SKEW_S,
    CUSTOMER,
    MAX_TOKEN_BYTES,
    Claims,
    SignedClaims,
    bad_claim,
    is_text,
    is_time,
    require_claims,
    sign,
)
from weir.projects.limits import TokenLimits
from weir.projects.project import KEY_STEM
from weir.web.addresses import UNKNOWN, counted_as, family, is_loopback
from weir.web.origins import parse_origin
from weir.web.public_addresses import is_public

AUDIENCE = "ringside:client"  # the contract's name
PREFIX = "ct_"

MIN_TTL_S, MAX_TTL_S = 60, 3600
DEFAULT_TTL_S, FLAT_DEFAULT_TTL_S = 900, 60
MAX_METADATA_BYTES = 1024
MOST_ORIGINS = 10
MOST_SCOPES = 8
MOST_MODELS = 20  # the token has room for no more

# Ways in which the vendor's pages spell what a token may call.
_SPELLED = {
    "chat": "chat",
    "chat.completions": "chat",
    "chat/completions": "chat",
    "embeddings": "embeddings",
    "moderations": "moderations",
    "usage": "usage",
    "me": "usage",
}
_RANDOM = f"[{CROCKFORD}]{{16}}"
_ID = re.compile(f"{PREFIX}([{CROCKFORD}]{{26}})({_RANDOM})")


@dataclass(frozen=True, slots=True)
class ClientTokenRequest:
    """What a backend asks for. `address` is what the token is pinned to; None: bound at first use,
    or not at all, as `ip` says. `metadata` stays in the token's record.
    """

    ttl_s: int
    scopes: tuple[str, ...]
    origins: tuple[str, ...]
    ip: IpBinding
    address: str | None
    models: tuple[str, ...] | None
    max_output_tokens: int | None
    limits: TokenLimits
    prompt_id: str | None
    metadata: Mapping[str, Any]

    @classmethod
    def parse(
        cls, body: Mapping[str, Any], customer: Customer, *, default_ttl_s: int, here: bool
    ) -> "ClientTokenRequest":
        """Raise BadRequest, with the field in `param`. What it asks for only narrows what the
        customer may. `here`: the backend is on the gateway's own machine, and browsers may be.
        """
        scopes = _scopes(_one_of(body, "scope", "allowed_endpoints"))
        origins = _origins(body)
        ip, address = _bound_ip(body, here=here)
        most = customer.limits.max_output_tokens
        output = parse_count(body.get("max_output_tokens"), "max_output_tokens", 1, 10**7)
        if output is not None and most is not None and output > most:
            raise BadRequest(
                f"max_output_tokens is more than the customer's own, {most}.",
                param="max_output_tokens",
            )
        return cls(
            ttl_s=_ttl(body.get("ttl_seconds"), default_ttl_s),
            scopes=scopes,
            origins=origins,
            ip=ip,
            address=address,
            models=_models(body.get("models"), customer),
            max_output_tokens=output,
            limits=TokenLimits(
                parse_count(body.get("max_requests"), "max_requests", 1, 10**9),
                parse_usd(body.get("max_spend_usd"), "max_spend_usd", MAX_BUDGET_USD),
            ),
            prompt_id=_prompt_id(body.get("prompt_id")),
            metadata=parse_metadata(body.get("metadata"), MAX_METADATA_BYTES),
        )

    def bindings(self, token_id: str) -> Bindings:
        return Bindings(
            token_id,
            frozenset(self.scopes),
            frozenset(self.origins),
            self.ip,
            self.models,
            self.max_output_tokens,
            self.limits,
            self.prompt_id,
        )


# ---------------------------------------------------------------- what is signed


def token_id(customer_id: str, random: bytes) -> str:
    """Return a new id. It begins with its customer's, so that a token can be found by it alone.
    `random` are 10 bytes.
    """
    number = int.from_bytes(random[:10], "big")
    drawn = "".join(CROCKFORD[number >> shift & 31] for shift in range(75, -1, -5))
    return PREFIX + customer_id.removeprefix("cust_") + drawn


def customer_of(token_id: str) -> str | None:
    """Return the id of the customer whose token this would be."""
    found = _ID.fullmatch(token_id)
    return None if found is None else f"cust_{found[1]}"


def mint(
    key: SigningKey,
    *,
    issuer: str,
    tid: str,
    pid: str,
    customer_id: str,
    key_id: str,
    bindings: Bindings,
    ttl_s: int,
    now: int,
) -> str:
    """Sign a client token. `now` is its `iat`, in Unix seconds."""
    limits = bindings.limits
    optional = {
        "mdl": None if bindings.models is None else list(bindings.models),
        "mxo": bindings.max_output_tokens,
        "mxr": limits.max_requests,
        "mxs": limits.nano_usd,
        "pmt": bindings.prompt_id,
    }
    claims = {
        "iss": issuer,
        "aud": AUDIENCE,
        "tid": tid,
        "acct": pid,
        "sub": customer_id,
        "key": key_id[:KEY_STEM],
        "scope": sorted(bindings.scopes),
        "ori": sorted(bindings.origins),
        "ipb": str(bindings.ip),
        **{name: value for name, value in optional.items() if value is not None},
        "iat": now,
        "nbf": now,
        "exp": now + ttl_s,
        "jti": bindings.token_id,
    }
    value = sign(key, claims, CLIENT_TOKEN_TYPE)
    if len(value) > MAX_TOKEN_BYTES:
        raise BadRequest(
            f"origin_allowlist and models make a token of {len(value)} bytes; at most "
            f"{MAX_TOKEN_BYTES} fit. Name fewer of them.",
            param="origin_allowlist",
        )
    return value


def reply(
    value: str, token_id: str, customer: Customer, wish: ClientTokenRequest, issued_at: int
) -> dict[str, Any]:
    """Return what a backend is answered (contract section 4.7). Times are Unix seconds."""
    return {
        "object": "client_token",
        "id": token_id,
        "token": value,
        "jwt": value,
        "token_type": "Client",
        "customer": customer.id,
        "external_id": customer.external_id,
        "scope": list(wish.scopes),
        "origin_allowlist": list(wish.origins),
        "bind_ip": wish.ip is not IpBinding.OFF,
        "expires_at": issued_at + wish.ttl_s,
        "expires_in": wish.ttl_s,
    }


# ---------------------------------------------------------------- when one is believed


def judge(claims: SignedClaims, *, issuer: str, tid: str, now: int) -> Claims:
    """Judge every claim of a token whose signature holds. Raise Unauthenticated."""
    require_claims(claims, _CHECKS)
    for name, value in (("iss", issuer), ("aud", AUDIENCE), ("tid", tid)):
        if claims[name] != value:
            raise bad_claim(name)
    if customer_of(claims["jti"]) != claims["sub"]:
        raise bad_claim("jti")
    if claims["exp"] <= now:
        raise TokenExpired
    if max(claims["iat"], claims["nbf"]) > now + CLOCK_SKEW_S:
        raise bad_claim("nbf")
    if not 0 < claims["exp"] - claims["iat"] <= MAX_TTL_S:
        raise bad_claim("exp")
    models = claims.get("mdl")
    return Claims(
        tid=claims["tid"],
        pid=claims["acct"],
        uid=claims["sub"],
        role="user",
        sid=None,
        tier=None,
        jti=claims["jti"],
        expires_at=claims["exp"],
        issued_at=claims["iat"],
        client_id=claims["key"],
        kind=CUSTOMER,
        bindings=Bindings(
            token_id=claims["jti"],
            scopes=frozenset(claims["scope"]),
            origins=frozenset(claims["ori"]),
            ip=IpBinding(claims["ipb"]),
            models=None if models is None else tuple(models),
            max_output_tokens=claims.get("mxo"),
            limits=TokenLimits(claims.get("mxr"), claims.get("mxs")),
            prompt_id=claims.get("pmt"),
        ),
    )


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(is_text, value))


def _are_scopes(value: object) -> bool:
    return _are_texts(value) and set(SCOPES).issuperset(value)  # type: ignore[arg-type]


def _is_count(value: object) -> bool:
    return value is None or is_time(value)


_OPTIONAL = ("mdl", "mxo", "mxr", "mxs", "pmt")
_CHECKS: dict[str, Callable[[object], bool]] = {
    **dict.fromkeys(("iss", "aud", "tid", "acct", "jti", "key"), is_text),
    "sub": lambda value: isinstance(value, str) and is_customer_id(value),
    "scope": _are_scopes,
    "ori": _are_texts,
    "ipb": lambda value: value in list(IpBinding),
    **dict.fromkeys(("iat", "nbf", "exp"), is_time),
    "mdl": lambda value: value is None or _are_texts(value),
    **dict.fromkeys(("mxo", "mxr", "mxs"), _is_count),
    "pmt": lambda value: value is None or is_text(value),
}


# ---------------------------------------------------------------- reading a request


def _one_of(body: Mapping[str, Any], name: str, alias: str) -> object:
    told, other = body.get(name), body.get(alias)
    if told is not None and other is not None and told != other:
        raise BadRequest(f"{alias} and {name} are the same field: name one.", param=alias)
    return other if told is None else told


def _ttl(value: object, default_s: int) -> int:
    if value is None:
        return default_s
    if isinstance(value, bool) or not isinstance(value, int) or not MIN_TTL_S <= value <= MAX_TTL_S:
        raise BadRequest(
            f"ttl_seconds must be an integer from {MIN_TTL_S} to {MAX_TTL_S}.", param="ttl_seconds"
        )
    return value


def _scopes(value: object) -> tuple[str, ...]:
    if value is None:
        return ("chat",)
    if not isinstance(value, list) or not 1 <= len(value) <= MOST_SCOPES:
        raise BadRequest(f"scope must be a list of 1 to {MOST_SCOPES} scopes.", param="scope")
    found = []
    for each in value:
        spelled = each.strip("/").removeprefix("v1/").lower() if isinstance(each, str) else ""
        if spelled not in _SPELLED:
            raise BadRequest(
                f"The scopes are {', '.join(SCOPES)}; {str(each)[:60]!r} is none of them.",
                code="unsupported_scope",
                param="scope",
            )
        found.append(_SPELLED[spelled])
    return tuple(dict.fromkeys(found))


def _origins(body: Mapping[str, Any]) -> tuple[str, ...]:
    single = body.get("origin")
    listed = {**body, "origin": [single] if isinstance(single, str) else single}
    value = _one_of(listed, "origin_allowlist", "origin")
    if not isinstance(value, list) or not 1 <= len(value) <= MOST_ORIGINS:
        raise BadRequest(
            f"origin_allowlist must be a list of 1 to {MOST_ORIGINS} origins, such as "
            "https://app.example.com.",
            code="invalid_origin",
            param="origin_allowlist",
        )
    return tuple(dict.fromkeys(map(_origin, value)))


def _origin(value: object) -> str:
    try:
        return parse_origin(value if isinstance(value, str) else "")
    except ValueError as error:
        raise BadRequest(str(error), code="invalid_origin", param="origin_allowlist") from None


def _bound_ip(body: Mapping[str, Any], *, here: bool) -> tuple[IpBinding, str | None]:
    bound, told = body.get("bind_ip"), _one_of(body, "ip", "client_ip")
    if bound is not None and not isinstance(bound, bool):
        raise BadRequest("bind_ip must be true or false.", param="bind_ip")
    if bound is False:
        return IpBinding.OFF, None
    if told is None:
        return IpBinding.FIRST, None
    address = counted_as(told) if isinstance(told, str) else UNKNOWN
    if address == UNKNOWN or not (is_public(str(told)) or (here and is_loopback(str(told)))):
        raise BadRequest(
            "ip must be the public IPv4 or IPv6 address of the user's browser, not that of a proxy "
            "or of your own network.",
            param="ip",
        )
    return (IpBinding.PIN_4 if family(address) == 4 else IpBinding.PIN_6), address


def _models(value: object, customer: Customer) -> tuple[str, ...] | None:
    listed = parse_models(value, "models")
    if listed is None:
        return None
    if not 1 <= len(listed) <= MOST_MODELS:
        raise BadRequest(f"models must name 1 to {MOST_MODELS} models.", param="models")
    allowed = customer.allowed_models
    outside = [each for each in listed if allowed is not None and not _within(each, allowed)]
    if outside:
        raise BadRequest(f"The customer may not use {outside[0][:100]!r}.", param="models")
    return listed


def _within(listed: str, allowed: Collection[str]) -> bool:
    """Whether all that an entry stands for is allowed."""
    plain = listed.removesuffix("*")
    if plain == listed:
        return is_listed(listed, tuple(allowed))
    return any(each.endswith("*") and plain.startswith(each[:-1]) for each in allowed)


def _prompt_id(value: object) -> str | None:
    if value is not None and not (isinstance(value, str) and 1 <= len(value) <= 64):
        raise BadRequest(
            "prompt_id must be the name of a prompt of the project.", param="prompt_id"
        )
    return value
